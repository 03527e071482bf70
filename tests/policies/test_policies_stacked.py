"""Models stacked into one: the same states and gradients, parameters that are views, and clear refusals."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from braid.errors import UsageError
from braid.policies import CausalPolicy, tiny
from braid.policies.adapters import Adapter
from braid.policies.seat import check_stackable
from braid.policies.small import character_tokenizer
from braid.policies.stacked import Stack, StackedEmbedding, StackedLinear, split_ragged

TOKENIZER = character_tokenizer()
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3Config", {**SIZES, "head_dim": 16, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", {**SIZES, "num_key_value_heads": 2}),
    "llama": ("LlamaConfig", {**SIZES, "num_key_value_heads": 4, "tie_word_embeddings": True}),
    "mistral": ("MistralConfig", {**SIZES, "num_key_value_heads": 2, "sliding_window": 5}),
    "gpt_neox": ("GPTNeoXConfig", SIZES),
}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4}
PAD = 0


def make_policy(name: str, options: dict[str, Any], seed: int = 0) -> CausalPolicy:
    ids = {"vocab_size": len(TOKENIZER), "pad_token_id": PAD, "eos_token_id": 1, "bos_token_id": 1}
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, name)(**ids, **options))
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too, which start at 1 and 0
            parameter += 0.1 * torch.randn_like(parameter)
    return CausalPolicy(model, TOKENIZER)


def make_models(kind: str, count: int = 3) -> list[Any]:
    return [make_policy(*KINDS[kind], seed=seed).model for seed in range(count)]


def batch(rows: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Tokens, some of them the padding token, and which are predicted."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 60, (rows, width), generator=generator)
    tokens[:, 1] = PAD
    predicted = torch.rand(rows, width, generator=generator) < 0.6
    predicted[:, 0] = False
    return tokens, predicted


def states_of(model: Any, tokens: Tensor, predicted: Tensor) -> Tensor:
    hidden = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
    return hidden[:, :-1][predicted[:, 1:]]


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.detach().abs().max())), rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("places", [[0, 1, 2], [0, 2], [1]], ids=str)
def test_states_and_gradients_are_those_of_the_models(kind: str, places: list[int]) -> None:
    models = make_models(kind)
    alone = copy.deepcopy(models)
    stack = Stack(models)
    batches = [batch(2 + place, 9 - place, seed=place) for place in places]
    found = stack.read(places, batches, PAD)
    gradients = {}
    for place, one, (states, _, position) in zip(places, batches, found, strict=True):
        expected = states_of(alone[place], *one)
        assert_close(states, expected)
        gradients[position] = torch.randn(expected.shape, generator=torch.Generator().manual_seed(place))
        (expected * gradients[position]).sum().backward()
    graph = found[0][1]
    assert all(other is graph for _, other, _ in found)
    for asked in ([position] for position in gradients):  # one after the other, as if their owners were apart
        graph.backward({position: gradients[position] for position in asked})
    for place, (mine, theirs) in enumerate(zip(models, alone, strict=True)):
        for (name, parameter), other in zip(mine.named_parameters(), theirs.parameters(), strict=True):
            if other.grad is None:
                assert parameter.grad is None, name
            else:
                assert place in places
                assert parameter.grad.stride() == other.grad.stride(), name
                assert_close(parameter.grad, other.grad)


def test_gradients_add_up_over_batches() -> None:
    models = make_models("qwen3", 2)
    alone = copy.deepcopy(models)
    stack = Stack(models)
    for seed in range(3):
        batches = [batch(3, 6, seed=seed), batch(2, 8, seed=seed + 10)]
        found = stack.read([0, 1], batches, PAD)
        found[0][1].backward({position: torch.ones_like(states) for states, _, position in found})
        for model, one in zip(alone, batches, strict=True):
            states_of(model, *one).sum().backward()
    for mine, theirs in zip(models, alone, strict=True):
        for parameter, other in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert_close(parameter.grad, other.grad)


def test_a_frozen_part_gets_no_gradient() -> None:
    models = make_models("llama", 2)
    for model in models:
        model.get_input_embeddings().weight.requires_grad_(False)
    states, graph, position = Stack(models).read([0, 1], [batch(2, 5, 0), batch(2, 5, 1)], PAD)[0]
    graph.backward({position: torch.ones_like(states)})
    assert models[0].get_input_embeddings().weight.grad is None
    assert models[0].get_decoder().layers[0].mlp.up_proj.weight.grad is not None


def test_a_step_of_one_optimiser_moves_that_model_of_the_stack_alone_and_it_is_saved_alone(tmp_path: Path) -> None:
    models = make_models("qwen3")
    stack = Stack(models)
    before = [states_of(model, *batch(2, 5, 0)).detach() for model in models]
    optimizer = torch.optim.AdamW(models[1].parameters(), lr=0.1, fused=True)
    states, graph, position = stack.read([1], [batch(2, 5, 0)], PAD)[0]
    graph.backward({position: torch.ones_like(states)})
    optimizer.step()
    found = [states for states, _, _ in stack.read([0, 1, 2], [batch(2, 5, 0)] * 3, PAD)]
    assert_close(found[0], before[0])
    assert_close(found[2], before[2])
    assert (found[1] - before[1]).abs().max() > 0.01
    assert_close(found[1], states_of(models[1], *batch(2, 5, 0)))
    CausalPolicy(models[1], TOKENIZER).save(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 1.1 * 4 * sum(p.numel() for p in models[1].parameters())
    assert_close(states_of(CausalPolicy.load(tmp_path, device="cpu").model, *batch(2, 5, 0)), found[1])


def test_tied_embeddings_stay_tied() -> None:
    model = Stack(make_models("qwen3", 2)).model
    assert isinstance(model.get_input_embeddings(), StackedEmbedding)
    assert isinstance(model.get_output_embeddings(), StackedLinear)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_batches_of_very_different_shape_are_read_apart() -> None:
    def shapes(*sizes: tuple[int, int]) -> list[torch.Size]:
        return [torch.Size(size) for size in sizes]

    assert split_ragged(shapes((8, 30), (7, 40), (9, 35))) == [[0, 1, 2]]
    assert split_ragged(shapes((500, 8), (20, 200), (480, 9))) == [[0, 2], [1]]
    models = make_models("qwen3", 3)
    batches = [batch(200, 4, 0), batch(4, 100, 1), batch(190, 4, 2)]
    for model, one, (states, _, _) in zip(models, batches, Stack(models).read([0, 1, 2], batches, PAD), strict=True):
        assert_close(states, states_of(model, *one))


# refusals


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("GPT2Config", GPT2, "gpt2 models with dropout"),
        ("GPT2Config", {**GPT2, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}, "Conv1D is not known"),
        ("LlamaConfig", {**SIZES, "attention_dropout": 0.1}, "llama models with dropout"),
        ("GPTNeoXConfig", {**SIZES, "hidden_dropout": 0.1}, "gpt_neox models with dropout"),
        ("Gemma3TextConfig", {**SIZES, "num_key_value_heads": 2, "head_dim": 16}, "Gemma3TextScaledWordEmbedding"),
        ("GraniteConfig", {**SIZES, "logits_scaling": 3.0}, "logits are more than the output embedding"),
    ],
)
def test_what_cannot_be_stacked_is_refused(name: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        check_stackable(make_policy(name, options))


def test_an_adapter_is_refused(tiny_checkpoint: Path) -> None:
    policy = CausalPolicy.load(tiny_checkpoint, adapter=Adapter("lora", rank=2), device="cpu")
    with pytest.raises(UsageError, match="policies with an adapter"):
        check_stackable(policy)


def test_models_of_different_shape_are_refused_by_what_differs() -> None:
    other = make_policy("Qwen3Config", {**KINDS["qwen3"][1], "intermediate_size": 64}).model
    with pytest.raises(UsageError, match="same architecture; 0 and 1 differ: intermediate_size"):
        Stack([make_models("qwen3", 1)[0], other])


def test_a_part_that_mixes_rows_is_found_out() -> None:
    class MeanNorm(nn.Module):
        """Looks at the whole batch, as no model of the library does."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(64))

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * (x - 3 * x.mean(dim=(0, 1)))

    models = [tiny(1.2e5, seed=seed).model for seed in range(2)]
    for model in models:
        model.model.norm = MeanNorm()
    with pytest.raises(UsageError, match="together they compute something else"):
        Stack(models)
