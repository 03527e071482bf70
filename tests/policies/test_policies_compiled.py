"""Compiled layers say the same as plain ones, whatever the architecture, and say so when they cannot."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers

from braid.data.ragged import build_rollouts
from braid.data.records import Rollouts
from braid.errors import UsageError
from braid.policies import compiled, tiny
from braid.policies.adapters import Adapter
from braid.policies.causal import CausalPolicy
from braid.policies.compiled import compiled_layers, layers_of
from braid.policies.small import character_tokenizer
from braid.rollout import sampler
from braid.rollout.sampler import Sampling, sample
from braid.rollout.static import COMPILED, StaticDecoder, make_decoder

TOKENIZER = character_tokenizer()
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3Config", {**SIZES, "head_dim": 16}),
    "gpt2": (
        "GPT2Config",
        {
            "n_embd": 64,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 256,
            "attn_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
        },
    ),
    "gemma3": ("Gemma3TextConfig", {**SIZES, "head_dim": 16, "sliding_window": 16}),
    "granite": ("GraniteConfig", {**SIZES, "logits_scaling": 3.0}),
}
PROMPTS = [[5, 6, 7], [9, 8], [5, 6, 7, 11, 12, 13]]


def make_policy(kind: str) -> CausalPolicy:
    name, options = CONFIGURATIONS[kind]
    ids = {"vocab_size": len(TOKENIZER), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**ids, **options))
    return CausalPolicy(model, TOKENIZER)


def rows(groups: int = 4) -> Rollouts:
    random = torch.Generator().manual_seed(0)
    prompts = [prompt for prompt in PROMPTS for _ in range(groups)]
    responses = [torch.randint(2, len(TOKENIZER), (3 + k,), generator=random).tolist() for k in range(len(prompts))]
    return build_rollouts(prompts, responses, pad_token_id=0)


def gradients(policy: CausalPolicy, batch: Rollouts) -> tuple[torch.Tensor, list[torch.Tensor]]:
    policy.model.zero_grad()
    scores = policy.score(batch, training=True)
    (scores.log_prob.sum() + 0.1 * scores.entropy.sum()).backward()
    return scores.log_prob.detach(), [p.grad.clone() for p in policy.model.parameters() if p.grad is not None]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Graphs as they are found, run by plain PyTorch: seconds less, for everything but the compiler itself."""
    found: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        found.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled._compiled.cache_clear()
    whole = functools.cache(lambda forward: torch.compile(forward, dynamic=True, backend=backend))
    monkeypatch.setattr(compiled, "_compiled", whole)
    yield found
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_gradients_are_those_of_the_plain_layers(kind: str, graphs: list[Any]) -> None:
    policy, batch = make_policy(kind), rows()
    expected, plain = gradients(policy, batch)
    policy.compile = True
    found, ours = gradients(policy, batch)
    assert graphs
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * float(1 + other.abs().max()), rtol=0)


def test_all_layers_are_one_program(graphs: list[Any]) -> None:
    policy = make_policy("qwen3")
    policy.compile = True
    gradients(policy, rows())
    assert len(graphs) == 2  # prompts, and responses behind them
    gradients(policy, rows(groups=7))
    assert len(graphs) == 2


def test_through_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training and sampling with what inductor makes, on rows that end at different times."""
    torch._dynamo.reset()
    policy, batch = tiny(1.2e5, seed=3), rows()
    expected, plain = gradients(policy, batch)
    drawn = sample(policy, PROMPTS, Sampling(40), group_size=4, generator=torch.Generator().manual_seed(0))
    policy.compile = True
    decoders = []

    def watched(*arguments: Any) -> Any:
        decoders.append(make_decoder(*arguments))
        return decoders[-1]

    monkeypatch.setattr(sampler, "make_decoder", watched)
    found, ours = gradients(policy, batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * float(1 + other.abs().max()), rtol=0)
    again = sample(policy, PROMPTS, Sampling(40), group_size=4, generator=torch.Generator().manual_seed(0))
    assert isinstance(decoders[0], StaticDecoder)
    assert again.tokens == drawn.tokens
    assert len({len(tokens) for tokens in drawn.tokens}) > 1
    for one, other in zip(again.log_probs, drawn.log_probs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    torch._dynamo.reset()


def test_rows_that_end_leave_a_compiled_batch_at_once(graphs: list[Any]) -> None:
    policy = make_policy("qwen3")
    policy.compile = True
    with torch.no_grad():
        decoder = StaticDecoder(policy, PROMPTS, 4, 100)
        assert decoder._tokens.shape == (12, 1)
        assert decoder._mask.shape[-1] == 6 + COMPILED.ahead
        decoder.keep(torch.arange(9))
        decoder.advance(torch.full((9,), 9))
        assert decoder._tokens.shape == (9, 1)
        assert decoder.logits.shape == (9, len(TOKENIZER))
        for _ in range(40):
            decoder.advance(torch.full((9,), 9))
        assert decoder._mask.shape[-1] == 2 * COMPILED.ahead + 6


def test_an_adapter_is_trained_compiled(graphs: list[Any]) -> None:
    pytest.importorskip("peft")
    policy = make_policy("qwen3")
    policy.model = Adapter().attach(policy.model)
    batch = rows()
    expected, plain = gradients(policy, batch)
    policy.compile = True
    found, ours = gradients(policy, batch)
    assert graphs
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * float(1 + other.abs().max()), rtol=0)


def test_layers_are_as_they_were_afterwards() -> None:
    policy = make_policy("qwen3")
    before = [layer.forward for layer in layers_of(policy.model)]
    with pytest.raises(RuntimeError, match="inside"), compiled_layers(policy.model):
        raise RuntimeError("inside")
    assert [layer.forward for layer in layers_of(policy.model)] == before
    assert all("forward" not in vars(layer) for layer in layers_of(policy.model))


def test_what_cannot_be_compiled_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make_policy("qwen3")
    handle = layers_of(policy.model)[0].register_forward_hook(lambda *a: None)
    with pytest.raises(UsageError, match="hooks are attached"):
        CausalPolicy(policy.model, TOKENIZER, compile=True)
    handle.remove()
    monkeypatch.setattr(policy.model.config, "num_hidden_layers", 9)
    with pytest.raises(UsageError, match="layers of qwen3 models are not found"):
        CausalPolicy(policy.model, TOKENIZER, compile=True)


def test_a_missing_compiler_is_said_at_the_start() -> None:
    from torch._inductor import config

    policy = make_policy("qwen3")
    with config.patch({"cpp.cxx": ("no-such-compiler",)}), pytest.raises(UsageError, match=r"needs a C\+\+ compiler"):
        CausalPolicy(policy.model, TOKENIZER, compile=True)
    assert shutil.which("g++") is None or CausalPolicy(policy.model, TOKENIZER, compile=True).compile


def test_stacked_seeds_are_not_compiled() -> None:
    from braid.policies.seat import check_stackable

    policy = tiny(1.2e5, seed=0)
    policy.compile = True
    with pytest.raises(UsageError, match="compile=false"):
        check_stackable(policy)


def test_the_setting_reaches_the_policy(tmp_path: Any) -> None:
    from braid.training.models import load_policy
    from braid.training.settings import Settings

    tiny(1.2e5, seed=0).save(tmp_path / "model")
    settings = Settings(model=str(tmp_path / "model"), device="cpu", compile=True)
    assert load_policy(tmp_path / "model", settings).compile
    assert not load_policy(tmp_path / "model", dataclasses.replace(settings, compile=False)).compile
