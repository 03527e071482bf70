"""Scores are those of the whole logits, whatever part of the logits exists at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from braid.data.ragged import build_rollouts
from braid.data.records import Rollouts
from braid.policies import CausalPolicy, scores
from braid.policies.adapters import Adapter
from braid.policies.small import character_tokenizer

TOKENIZER = character_tokenizer()
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
ODD = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "tied": ("Qwen3Config", {**SIZES, "head_dim": 16, "tie_word_embeddings": True}),
    "untied": ("LlamaConfig", {**SIZES, "tie_word_embeddings": False}),
    "gpt2": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 1, "n_head": 2, **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)},
    ),
    "gpt_neox": ("GPTNeoXConfig", {**ODD, "intermediate_size": 64}),
    "gemma3": ("Gemma3TextConfig", {**SIZES, "head_dim": 16}),
    "opt": ("OPTConfig", {**ODD, "ffn_dim": 64, "word_embed_proj_dim": 32, "dropout": 0.0}),
}
PROCESSED: dict[str, tuple[str, dict[str, Any]]] = {
    "granite": ("GraniteConfig", {**SIZES, "logits_scaling": 3.0}),
    "gemma2": ("Gemma2Config", {**SIZES, "head_dim": 16, "final_logit_softcapping": 2.0}),
    "cohere": ("CohereConfig", {**SIZES, "logit_scale": 0.25}),
    "scaled state": ("MiniCPM3Config", {**SIZES, "dim_model_base": 16, "q_lora_rank": 16, "kv_lora_rank": 16}),
}
ADAPTERS = {
    "lora": Adapter(rank=4),
    "lora on the head": Adapter(rank=4, targets="q_proj,lm_head"),
    "dora": Adapter("dora", rank=4, targets="v_proj,lm_head"),
}
ONE, MANY = 10**9, 4 * len(TOKENIZER) * 3
"""Budgets for all tokens at once and for three of them at a time."""

PROMPTS = [[5, 6, 7], [8], [20, 21, 22, 23, 24], []]
RESPONSES = [[9, 10, 1], [11, 12, 13, 14, 15, 16], [30], [40, 41]]
PREDICTED = 3 + 6 + 1 + 1  # nothing predicts the very first token of the last row


@pytest.fixture
def batch() -> Rollouts:
    return build_rollouts(PROMPTS, RESPONSES, pad_token_id=0)


def make_policy(kind: str) -> CausalPolicy:
    """A policy with random weights whose distributions are far from uniform."""
    name, options = (PLAIN | PROCESSED)["untied" if kind in ADAPTERS else kind]
    if not hasattr(transformers, name):
        pytest.skip(f"this version of Transformers has no {name}")
    ids = {"vocab_size": len(TOKENIZER), "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    config = getattr(transformers, name)(**ids, **options)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    if kind in ADAPTERS:
        model = ADAPTERS[kind].attach(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    return CausalPolicy(model, TOKENIZER)


class Dense:
    """Scores from all logits of the model, one tensor [B, T, V]."""

    def __init__(self, policy: CausalPolicy, batch: Rollouts, temperature: float = 1.0) -> None:
        output = policy.model(input_ids=batch.tokens, output_hidden_states=True, use_cache=False)
        self.logits = output.logits.float() / temperature
        self._predicted = batch.response_mask.clone()
        self._predicted[:, 0] = False
        log_softmax = self.logits[:, :-1].log_softmax(-1)
        self.log_prob = self._place(log_softmax.gather(-1, batch.tokens[:, 1:, None])[..., 0])
        self.entropy = self._place(-(log_softmax.exp() * log_softmax).sum(-1))
        if policy.value_head is not None:
            self.value = self._place(policy.value_head(output.hidden_states[-1][:, :-1].float())[..., 0])

    def _place(self, values: Tensor) -> Tensor:
        return nn.functional.pad(values, (1, 0)) * self._predicted


def gradients(policy: CausalPolicy, values: Tensor) -> list[Tensor]:
    """Gradients of every trained weight from a sum in which every token has another weight; 0 where there is none."""
    factor = torch.linspace(-1, 1, values.numel()).view_as(values)
    found = torch.autograd.grad((factor * values).sum(), policy.parameters(), retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(policy.parameters(), found, strict=True)
    ]


def assert_same_gradients(policy: CausalPolicy, found: Tensor, expected: Tensor) -> None:
    one, two = ([gradient.flatten() for gradient in gradients(policy, values)] for values in (found, expected))
    largest = float(torch.cat(two).abs().max())
    assert largest > 1e-2
    torch.testing.assert_close(one, two, atol=1e-5 * max(1.0, largest), rtol=1e-5)


def head_calls(policy: CausalPolicy) -> list[int]:
    """A list that gets the number of states of each call of the output embedding."""
    calls: list[int] = []
    policy.model.get_output_embeddings().register_forward_hook(lambda m, inputs, o: calls.append(len(inputs[0])))
    return calls


# equal to the dense computation


@pytest.mark.parametrize("budget", [ONE, MANY], ids=["one chunk", "chunks"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", [*PLAIN, *PROCESSED, *ADAPTERS])
def test_scores_and_gradients_are_those_of_all_logits(
    kind: str, temperature: float, budget: int, batch: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "LOGITS_BYTES", budget)
    policy = make_policy(kind)
    policy.add_value_head()
    assert policy.value_head is not None
    nn.init.normal_(policy.value_head.weight)
    dense = Dense(policy, batch, temperature)
    judged = policy.score(batch, temperature=temperature)
    trained = policy.score(batch, temperature=temperature, training=True)
    for name in ("log_prob", "entropy", "value"):
        expected = getattr(dense, name)
        for found in (getattr(judged, name), getattr(trained, name)):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
        assert not getattr(judged, name).requires_grad
        assert_same_gradients(policy, getattr(trained, name), expected)
    # together, from another graph
    trained = policy.score(batch, temperature=temperature, training=True)
    assert_same_gradients(policy, *(one.log_prob + one.entropy + one.value for one in (trained, dense)))


@pytest.mark.parametrize("budget", [ONE, MANY], ids=["one chunk", "chunks"])
@pytest.mark.parametrize("kind", ["tied", "granite"])
def test_logits_of_some_tokens(kind: str, budget: int, batch: Rollouts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "LOGITS_BYTES", budget)
    policy = make_policy(kind)
    mask = torch.zeros_like(batch.response_mask)
    mask[0, 4] = mask[1, 1] = mask[1, 6] = mask[3, 1] = True
    dense = Dense(policy, batch, 0.7).logits[:, :-1][mask[:, 1:]]
    with torch.no_grad():
        scored = policy.score(batch, temperature=0.7, training=True)
        found = scored.logits_at(mask)
    torch.testing.assert_close(found, dense, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        found.log_softmax(-1).gather(-1, batch.tokens[mask][:, None])[:, 0], scored.log_prob[mask], atol=1e-5, rtol=0
    )
    assert_same_gradients(policy, found, dense)


@pytest.mark.parametrize("budget", [ONE, MANY], ids=["one chunk", "chunks"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_reference_of_an_adapter_is_its_base(
    kind: str, budget: int, batch: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "LOGITS_BYTES", budget)
    policy = make_policy(kind)
    with policy.model.disable_adapter():
        expected = Dense(policy, batch).log_prob
    found = policy.reference_log_prob(batch)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(found, policy.score(batch).log_prob, atol=1e-2)


@pytest.mark.parametrize("budget", [ONE, MANY], ids=["one chunk", "chunks"])
@pytest.mark.parametrize("kind", ["tied", "gemma2"])
def test_rows_without_a_response(kind: str, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "LOGITS_BYTES", budget)
    policy = make_policy(kind)
    for prompts, responses in (([[5, 6], [7]], [[], []]), ([[5]], [[]]), ([[]], [[5]])):
        scored = policy.score(build_rollouts(prompts, responses, pad_token_id=0), training=True)
        total = scored.log_prob.sum() + scored.entropy.sum()
        assert total.item() == 0
        assert all(not gradient.any() for gradient in gradients(policy, total))


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_half_precision_is_for_the_weights_alone(
    weights: torch.dtype, batch: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The softmax is in float32, from the first score on, which also asks the model what it does with its logits."""
    policy = make_policy("untied")
    policy.model.to(weights)
    policy.autocast = weights == torch.float32
    found = []
    for budget in (ONE, ONE, MANY):
        monkeypatch.setattr(scores, "LOGITS_BYTES", budget)
        scored = policy.score(batch, temperature=0.7, training=True)
        assert scored.log_prob.dtype == scored.entropy.dtype == torch.float32
        found.append((scored.log_prob, gradients(policy, scored.log_prob)))
    with policy.precision():
        dense = Dense(policy, batch, 0.7)
    for log_prob, own in found:
        torch.testing.assert_close(log_prob, dense.log_prob, atol=1e-4, rtol=1e-4)
        for one, two in zip(own, gradients(policy, dense.log_prob), strict=True):
            assert two.any()
            assert (one - two).norm() < 0.02 * two.norm()


# what is computed, and how often


@pytest.mark.parametrize("budget", [ONE, MANY], ids=["one chunk", "chunks"])
def test_the_head_reads_every_response_token_once(
    budget: int, batch: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "LOGITS_BYTES", budget)
    policy = make_policy("tied")
    policy.score(batch)
    calls = head_calls(policy)
    scored = policy.score(batch, training=True)
    assert calls == []
    with torch.no_grad():
        entropy = scored.entropy
    assert calls == ([PREDICTED] if budget == ONE else [3, 3, 3, PREDICTED - 9])
    count = len(calls)
    assert scored.log_prob.requires_grad  # though they were first read without
    assert entropy.requires_grad
    assert len(calls) == count
    scored.log_prob.sum().backward()
    assert len(calls) == (count if budget == ONE else 2 * count)


def test_a_critic_needs_no_head(batch: Rollouts) -> None:
    policy = make_policy("tied")
    policy.add_value_head()
    policy.score(batch)
    calls = head_calls(policy)
    assert policy.score(batch).value.shape == batch.tokens.shape
    assert calls == []


@pytest.mark.parametrize("budget", [ONE, MANY], ids=["one chunk", "chunks"])
def test_gradients_are_the_same_bit_for_bit(budget: int, batch: Rollouts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "LOGITS_BYTES", budget)
    first, second = [
        gradients(policy, policy.score(batch, training=True).log_prob) for policy in (make_policy("tied") for _ in "ab")
    ]
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_dropout_in_the_head_is_the_same_when_a_chunk_is_made_again(
    batch: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "LOGITS_BYTES", MANY)
    monkeypatch.setitem(ADAPTERS, "lora on the head", Adapter(rank=4, targets="lm_head", dropout=0.5))
    policy = make_policy("lora on the head")
    found = []
    for keep_logits in (False, True):
        if keep_logits:
            monkeypatch.setattr(scores, "checkpoint", lambda read, *inputs, **options: read(*inputs))
        torch.manual_seed(1)
        scored = policy.score(batch, training=True)
        found.append([scored.log_prob, *gradients(policy, scored.log_prob), torch.rand(1)])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    assert not torch.allclose(found[0][0], policy.score(batch).log_prob, atol=1e-3)


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), words: Any = None) -> Any:
        results = operation(*arguments, **(words or {}))
        for result in results if isinstance(results, (tuple, list)) else (results,):
            if isinstance(result, Tensor):
                self.elements = max(self.elements, result.numel())
        return results


def test_no_tensor_outgrows_the_budget_whatever_the_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary, hidden, tokens = 50_000, 4, 64
    config = transformers.LlamaConfig(
        **{**SIZES, "hidden_size": hidden}, vocab_size=vocabulary, pad_token_id=0, tie_word_embeddings=True
    )
    policy = CausalPolicy(transformers.AutoModelForCausalLM.from_config(config), TOKENIZER)
    batch = build_rollouts([[5, 6]] * 2, [list(range(10, 10 + tokens // 2))] * 2, pad_token_id=0)
    largest = {}
    for rows in (tokens, 8):
        monkeypatch.setattr(scores, "LOGITS_BYTES", rows * vocabulary * 4)
        with LargestTensor() as seen:
            scored = policy.score(batch, training=True)
            (scored.log_prob + 0.1 * scored.entropy).sum().backward()
        largest[rows] = seen.elements
    assert largest == {tokens: tokens * vocabulary, 8: 8 * vocabulary}


# what is asked of the model


@pytest.mark.parametrize("kind", [*PLAIN, *PROCESSED, *ADAPTERS])
def test_models_that_change_their_logits_or_states_are_found(kind: str) -> None:
    assert scores.has_plain_head(make_policy(kind).model) == (kind not in PROCESSED)


def test_a_cap_is_found_even_where_all_logits_are_zero() -> None:
    model = make_policy("gemma2").model
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    assert not scores.has_plain_head(model)


def test_a_model_without_decoder_or_output_embedding_is_scored_whole(
    batch: Rollouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy("untied")
    expected = policy.score(batch).log_prob
    for name in ("get_decoder", "get_output_embeddings"):
        with monkeypatch.context() as patch:
            patch.setattr(type(policy.model), name, lambda model: None)
            other = CausalPolicy(policy.model, TOKENIZER)
            assert not scores.has_plain_head(policy.model)
            torch.testing.assert_close(other.score(batch).log_prob, expected, atol=1e-6, rtol=1e-6)


def test_the_question_is_asked_once_and_leaves_no_trace(batch: Rollouts, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[nn.Module] = []

    def ask(model: Any) -> bool:
        asked.append(model)
        assert not any(module.training for module in model.modules())
        return scores.has_plain_head(model)

    monkeypatch.setattr("braid.policies.causal.has_plain_head", ask)
    policy = make_policy("untied")
    policy.keep_reference()
    before = torch.get_rng_state()
    for _ in range(2):
        policy.score(batch, training=True)
        assert all(module.training for module in policy.model.modules())
        policy.reference_log_prob(batch)
        policy.score(batch)
    assert asked == [policy.model, policy._reference]
    assert torch.equal(before, torch.get_rng_state())
    assert not policy.model.get_output_embeddings()._forward_hooks
    assert not torch.is_autocast_enabled("cpu")


# prompts that several rows share


def grouped() -> Rollouts:
    """Twelve rows of three prompts of different lengths; responses of different lengths, one with a gap."""
    prompts = [[5, 6, 7], [8], [20, 21, 22, 23, 24, 25, 26, 27]]
    responses = [[9, 10, 1], [11, 12, 13, 14, 15, 16], [30], [40, 41]]
    batch = build_rollouts([p for p in prompts for _ in range(4)], responses * 3, pad_token_id=0)
    batch.response_mask[1, 5] = False  # an observation between two turns
    return batch


def positions_read(policy: CausalPolicy) -> list[int]:
    """A list that gets the number of tokens of each call of the decoder."""
    calls: list[int] = []
    policy.model.get_decoder().register_forward_hook(
        lambda module, inputs, named, output: calls.append(named["input_ids"].numel()), with_kwargs=True
    )
    return calls


@pytest.mark.parametrize("kind", [*PLAIN, *PROCESSED, *ADAPTERS])
def test_reading_shared_prompts_once_changes_neither_scores_nor_gradients(kind: str) -> None:
    policy, batch = make_policy(kind), grouped()
    policy.add_value_head()
    assert policy.value_head is not None
    nn.init.normal_(policy.value_head.weight)
    dense, trained = Dense(policy, batch), policy.score(batch, training=True)
    for name in ("log_prob", "entropy", "value"):
        torch.testing.assert_close(getattr(trained, name), getattr(dense, name), atol=1e-5, rtol=1e-5)
        assert_same_gradients(policy, getattr(trained, name), getattr(dense, name))


@pytest.mark.parametrize("kind", ["tied", "untied", "gpt2", "gpt_neox", "lora"])
def test_shared_prompts_are_read_once(kind: str) -> None:
    policy, batch = make_policy(kind), grouped()
    policy.score(batch)  # the model's traits are tried here
    calls = positions_read(policy)
    policy.score(batch)
    assert calls == [3 * 8, 12 * 5]  # three prompts of up to 8 tokens; nothing is predicted from the 6th of a response
    assert sum(calls) < batch.tokens.numel()


def test_rows_without_a_common_prompt_are_read_in_one_piece(batch: Rollouts) -> None:
    policy = make_policy("tied")
    policy.score(batch)
    calls = positions_read(policy)
    policy.score(batch)
    assert calls == [batch.tokens[:, :-1].numel()]


@pytest.mark.parametrize("change", ["sliding window", "dropout", "adapter dropout", "eager attention"])
def test_models_that_cannot_share_prompts_are_read_whole(change: str) -> None:
    policy = make_policy("gemma3" if change == "sliding window" else "untied")
    if change == "dropout":
        policy.model.config.attention_dropout = 0.1
    elif change == "adapter dropout":
        policy = CausalPolicy(Adapter(rank=2, dropout=0.1).attach(policy.model), TOKENIZER)
    elif change == "eager attention":
        policy.model.set_attn_implementation("eager")
    policy.score(grouped())
    calls = positions_read(policy)
    policy.score(grouped())
    assert calls == [grouped().tokens[:, :-1].numel()]
