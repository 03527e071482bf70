"""The sampler: what it writes is what the model says, with padding, groups, chunks and rows that leave early."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from braid.data.ragged import build_rollouts
from braid.errors import UsageError
from braid.policies import CausalPolicy, tiny
from braid.policies.adapters import Adapter
from braid.policies.small import Architecture, byte_tokenizer
from braid.rollout.sampler import Samples, Sampling, sample

PROMPTS = [[40, 50], [60], [7, 8, 9, 10, 11, 12, 13], [33, 34, 35, 36], [90, 80, 70]]
EOS = 1


def lively_policy(architecture: Architecture = "qwen3", *, boost: dict[int, float] | None = None) -> CausalPolicy:
    """A random policy whose tokens depend on the context; `boost` is added to the logits of some tokens."""
    policy = tiny(1.2e5, architecture=architecture, seed=3)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.ndim == 2:
                parameter *= 10
    bias = torch.zeros(len(policy.tokenizer))
    for token, logit in (boost or {}).items():
        bias[token] = logit
    policy.model.lm_head.bias = nn.Parameter(bias)
    return policy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def next_token_probability(policy: CausalPolicy, prompt: list[int], temperature: float = 1.0) -> Tensor:
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([prompt])).logits[0, -1]
    return (logits.double() / temperature).softmax(-1)


def teacher_forced(
    policy: CausalPolicy, prompts: list[list[int]], samples: Samples, temperature: float
) -> tuple[Tensor, Tensor]:
    """Behaviour log-probabilities as stored, and as `score` finds them."""
    rows = [prompt for prompt in prompts for _ in range(len(samples.tokens) // len(prompts))]
    batch = build_rollouts(rows, samples.tokens, pad_token_id=policy.pad_token_id, log_probs=samples.log_probs)
    return batch.behaviour_log_prob, policy.score(batch, temperature=temperature).log_prob


def assert_frequencies(drawn: Samples, expected: Tensor, step: int = 0) -> None:
    """Chi-square test; tokens that are expected fewer than 5 times count as one."""
    tokens = torch.tensor([row[step] for row in drawn.tokens if len(row) > step])
    observed = np.bincount(tokens.numpy(), minlength=len(expected)).astype(float)
    counts = expected.numpy() / expected.sum().item() * len(tokens)
    assert observed[counts == 0].sum() == 0
    rare = (counts < 5) & (counts > 0)
    often = counts >= 5
    observed_bins, expected_bins = observed[often], counts[often]
    if counts[rare].sum() >= 5:
        observed_bins = np.append(observed_bins, observed[rare].sum())
        expected_bins = np.append(expected_bins, counts[rare].sum())
    expected_bins *= observed_bins.sum() / expected_bins.sum()
    assert scipy.stats.chisquare(observed_bins, expected_bins).pvalue > 1e-3


# greedy decoding


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
@pytest.mark.parametrize("batch_size", [512, 2, 1])
def test_greedy_equals_transformers_generate(architecture: Architecture, batch_size: int) -> None:
    policy = lively_policy(architecture, boost={EOS: 3.5})
    group_size, limit = 2, 24
    drawn = sample(policy, PROMPTS, Sampling(limit, temperature=0), group_size=group_size, batch_size=batch_size)
    width = max(map(len, PROMPTS))
    padded = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in PROMPTS])
    attention = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    written = policy.model.generate(
        input_ids=padded, attention_mask=attention, do_sample=False, max_new_tokens=limit, pad_token_id=0
    )[:, width:].tolist()
    expected = [row[: row.index(EOS) + 1] if EOS in row else row for row in written]
    assert drawn.tokens == [row for row in expected for _ in range(group_size)]
    assert drawn.truncated.tolist() == [row[-1] != EOS for row in expected for _ in range(group_size)]
    assert len({len(row) for row in expected}) > 1  # some end early


def test_greedy_log_probs_are_those_of_the_model_itself() -> None:
    policy = lively_policy(boost={EOS: 3.5})
    stored, found = teacher_forced(policy, PROMPTS, sample(policy, PROMPTS, Sampling(20, temperature=0)), temperature=0)
    torch.testing.assert_close(stored, found, atol=1e-4, rtol=0)


# sampled log-probabilities


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
@pytest.mark.parametrize("prompts", [PROMPTS, [PROMPTS[2], PROMPTS[2][::-1]]], ids=["padded", "equal lengths"])
def test_behaviour_log_probs_equal_teacher_forced_ones(
    temperature: float, architecture: Architecture, prompts: list[list[int]]
) -> None:
    policy = lively_policy(architecture, boost={EOS: 2.0})
    drawn = sample(policy, prompts, Sampling(48, temperature), group_size=8, generator=generator())
    lengths = sorted(len(row) for row in drawn.tokens)
    assert lengths[len(lengths) // 4] + 3 < lengths[-1]  # a quarter had left the batch while others went on
    stored, found = teacher_forced(policy, prompts, drawn, temperature)
    assert (stored != 0).sum() == sum(lengths)
    torch.testing.assert_close(stored, found, atol=1e-4, rtol=0)


def test_every_row_leaves_at_another_step() -> None:
    """All sizes of the decoding batch between 32 and 1 occur."""
    policy = lively_policy(boost={EOS: 2.0})
    drawn = sample(policy, PROMPTS[:4], Sampling(120), group_size=8, generator=generator(1))
    assert len({len(row) for row in drawn.tokens}) > 15
    assert all(
        row.count(EOS) == 1 and row[-1] == EOS
        for row, cut in zip(drawn.tokens, drawn.truncated, strict=True)
        if not cut
    )
    stored, found = teacher_forced(policy, PROMPTS[:4], drawn, 1.0)
    torch.testing.assert_close(stored, found, atol=1e-4, rtol=0)


def test_top_k_and_top_p_leave_log_probs_those_of_the_whole_distribution() -> None:
    policy = lively_policy(boost={EOS: 2.5})
    drawn = sample(policy, PROMPTS, Sampling(20, 0.7, top_p=0.8, top_k=20), group_size=3, generator=generator())
    stored, found = teacher_forced(policy, PROMPTS, drawn, 0.7)
    torch.testing.assert_close(stored, found, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_log_probs_with_an_adapter(kind: str, tmp_path: Path) -> None:
    tiny(1.2e5, seed=3).save(tmp_path)
    policy = CausalPolicy.load(tmp_path, adapter=Adapter(kind, rank=4), device="cpu")  # type: ignore[arg-type]
    torch.manual_seed(0)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    drawn = sample(policy, PROMPTS, Sampling(12), group_size=3, generator=generator())
    stored, found = teacher_forced(policy, PROMPTS, drawn, 1.0)
    torch.testing.assert_close(stored, found, atol=1e-4, rtol=0)
    _, without = teacher_forced(CausalPolicy.load(tmp_path, device="cpu"), PROMPTS, drawn, 1.0)
    assert (without - stored).abs().max() > 0.05


def test_other_end_tokens_of_the_generation_config_end_a_response() -> None:
    policy = lively_policy(boost={40: 3.0})
    policy.model.generation_config.eos_token_id = [EOS, 40]
    drawn = sample(policy, PROMPTS, Sampling(60), group_size=4, generator=generator())
    assert not drawn.truncated.all()
    for row, cut in zip(drawn.tokens, drawn.truncated, strict=True):
        assert (row[-1] in (EOS, 40)) == (not cut)
        assert not {EOS, 40} & set(row[:-1])


# frequencies


def test_first_token_frequencies_are_the_softmax() -> None:
    policy = lively_policy()
    drawn = sample(policy, [PROMPTS[0]], Sampling(1), group_size=20000, generator=generator(), batch_size=20000)
    assert_frequencies(drawn, next_token_probability(policy, PROMPTS[0]))


def test_second_token_frequencies_are_the_softmax_given_the_first() -> None:
    policy = lively_policy(boost={40: 4.0, 60: 4.0})
    drawn = sample(
        policy, [[60], PROMPTS[2]], Sampling(2, 0.9), group_size=8000, generator=generator(), batch_size=16000
    )
    for prompt, rows in (([60], drawn.tokens[:8000]), (PROMPTS[2], drawn.tokens[8000:])):
        for first in (40, 60):
            given = Samples([row for row in rows if row[0] == first], [], torch.zeros(0))
            assert len(given.tokens) > 500
            assert_frequencies(given, next_token_probability(policy, [*prompt, first], 0.9), step=1)


def test_top_k_frequencies_are_renormalised() -> None:
    policy = lively_policy()
    drawn = sample(policy, [PROMPTS[3]], Sampling(1, top_k=5), group_size=5000, generator=generator(), batch_size=5000)
    expected = next_token_probability(policy, PROMPTS[3])
    expected[expected < expected.topk(5).values[-1]] = 0
    assert len({row[0] for row in drawn.tokens}) == 5
    assert_frequencies(drawn, expected)


def test_top_p_frequencies_are_renormalised() -> None:
    policy = lively_policy()
    drawn = sample(
        policy, [PROMPTS[3]], Sampling(1, top_p=0.5), group_size=8000, generator=generator(), batch_size=8000
    )
    whole = next_token_probability(policy, PROMPTS[3])
    ordered, index = whole.sort(descending=True)
    kept = int((ordered.cumsum(0) < 0.5).sum()) + 1  # the smallest set with at least half the probability
    expected = torch.zeros_like(whole)
    expected[index[:kept]] = ordered[:kept]
    assert 2 <= kept < 60
    assert {row[0] for row in drawn.tokens} == set(index[:kept].tolist())
    assert_frequencies(drawn, expected)


def test_top_p_after_top_k_counts_within_what_top_k_left() -> None:
    policy = lively_policy()
    drawn = sample(policy, [PROMPTS[0]], Sampling(1, top_p=0.6, top_k=4), group_size=3000, generator=generator())
    ordered, index = next_token_probability(policy, PROMPTS[0]).sort(descending=True)
    four = ordered[:4] / ordered[:4].sum()
    kept = int((four.cumsum(0) < 0.6).sum()) + 1
    assert {row[0] for row in drawn.tokens} == set(index[:kept].tolist())


def test_vanishing_top_p_and_top_k_of_one_are_greedy() -> None:
    policy = lively_policy()
    greedy = sample(policy, PROMPTS, Sampling(8, temperature=0)).tokens
    assert sample(policy, PROMPTS, Sampling(8, top_p=1e-9)).tokens == greedy
    assert sample(policy, PROMPTS, Sampling(8, top_k=1)).tokens == greedy
    assert sample(policy, PROMPTS, Sampling(8, temperature=1e-6)).tokens == greedy


def test_top_k_beyond_the_vocabulary_is_off() -> None:
    policy = lively_policy()
    whole = sample(policy, PROMPTS, Sampling(5), generator=generator()).tokens
    assert sample(policy, PROMPTS, Sampling(5, top_k=10_000), generator=generator()).tokens == whole


# ends


def test_a_stop_string_of_several_tokens_ends_the_response() -> None:
    policy = lively_policy()
    a, b = policy.encode_prompt("ab")
    policy = lively_policy(boost={a: 6.0, b: 6.0})
    drawn = sample(policy, PROMPTS, Sampling(12, stop=("aab", "bbb")), group_size=8, generator=generator())
    texts = [policy.decode(row) for row in drawn.tokens]
    assert 0 < drawn.truncated.sum() < len(texts)
    for text, row, cut in zip(texts, drawn.tokens, drawn.truncated.tolist(), strict=True):
        assert ("aab" in text or "bbb" in text) == (not cut)
        assert cut or text.endswith(("aab", "bbb"))
        assert "aab" not in text[:-1]
        assert "bbb" not in text[:-1]
        assert len(row) <= 12
    stored, found = teacher_forced(policy, PROMPTS, drawn, 1.0)
    torch.testing.assert_close(stored, found, atol=1e-4, rtol=0)


def test_a_stop_string_whose_letters_are_several_byte_tokens() -> None:
    tokenizer = byte_tokenizer(["plain words"], 300)
    policy = tiny(1.2e5, tokenizer=tokenizer, seed=1)
    stop = policy.encode_prompt("é→")
    assert len(stop) == 5
    bias = torch.full((len(tokenizer),), -20.0)
    bias[stop] = 0
    policy.model.lm_head.bias = nn.Parameter(bias)
    drawn = sample(policy, [[5, 6]], Sampling(40, stop=("é", "→")), group_size=32, generator=generator())
    texts = [policy.decode(row) for row in drawn.tokens]
    assert sum(text.endswith(("é", "→")) for text in texts) > 20
    for text, cut in zip(texts, drawn.truncated.tolist(), strict=True):
        assert text.endswith(("é", "→")) == (not cut)
        assert text.count("é") + text.count("→") == (not cut)


def test_the_prompt_is_no_part_of_a_stop_string() -> None:
    policy = lively_policy()
    a, b = policy.encode_prompt("ab")
    policy = lively_policy(boost={b: 30.0})
    drawn = sample(policy, [[a]], Sampling(4, stop=("ab",)))
    assert drawn.tokens == [[b] * 4]
    assert drawn.truncated.tolist() == [True]


def test_the_length_limit_truncates_unless_the_last_token_ends() -> None:
    policy = lively_policy(boost={EOS: -50.0})
    drawn = sample(policy, PROMPTS, Sampling(7), generator=generator())
    assert [len(row) for row in drawn.tokens] == [7] * len(PROMPTS)
    assert drawn.truncated.all()
    ending = sample(lively_policy(boost={EOS: 50.0}), PROMPTS, Sampling(1))
    assert ending.tokens == [[EOS]] * len(PROMPTS)
    assert not ending.truncated.any()


# seeds, order, chunks


def test_the_seed_decides() -> None:
    policy = lively_policy(boost={EOS: 2.0})
    draws = [sample(policy, PROMPTS, Sampling(20), group_size=3, generator=generator(seed)) for seed in (5, 5, 6)]
    assert draws[0].tokens == draws[1].tokens
    assert all(torch.equal(x, y) for x, y in zip(draws[0].log_probs, draws[1].log_probs, strict=True))
    assert draws[0].tokens != draws[2].tokens


def test_members_of_a_group_differ_and_stand_together() -> None:
    policy = lively_policy()
    drawn = sample(policy, PROMPTS, Sampling(6), group_size=4, generator=generator(), batch_size=9)
    assert len(drawn.tokens) == len(drawn.log_probs) == len(drawn.truncated) == 20
    assert len({tuple(row) for row in drawn.tokens}) == 20
    stored, found = teacher_forced(policy, PROMPTS, drawn, 1.0)
    torch.testing.assert_close(stored, found, atol=1e-4, rtol=0)


def test_the_prompts_beside_it_do_not_change_a_response() -> None:
    policy = lively_policy(boost={EOS: 3.5})
    together = sample(policy, PROMPTS, Sampling(24, temperature=0)).tokens
    assert together == [sample(policy, [prompt], Sampling(24, temperature=0)).tokens[0] for prompt in PROMPTS]


def test_sampling_leaves_the_global_generator_and_gradients_alone() -> None:
    policy = lively_policy()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    drawn = sample(policy, PROMPTS, Sampling(3), generator=generator())
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(row.requires_grad for row in drawn.log_probs)


def test_no_prompts_give_no_samples() -> None:
    drawn = sample(lively_policy(), [], Sampling(3))
    assert drawn.tokens == drawn.log_probs == []
    assert drawn.truncated.shape == (0,)


# refusals


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(UsageError, match="no tokens"):
        sample(lively_policy(), [[4], []], Sampling(3))


@pytest.mark.parametrize("name", ["group_size", "batch_size"])
def test_sizes_below_one_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}=0"):
        sample(lively_policy(), PROMPTS, Sampling(3), **{name: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", -3),
        ("max_new_tokens", 2.5),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", 1e-30),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", -1.0),
        ("top_p", float("nan")),
        ("top_k", -1),
        ("top_k", 1.5),
        ("stop", ("",)),
        ("stop", ("a", "")),
        ("stop", "</answer>"),
        ("stop", (5,)),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"^{name}="):
        Sampling(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values", [{"temperature": 0}, {"top_p": 1.0}, {"top_k": 0}, {"max_new_tokens": 1}, {"stop": ()}]
)
def test_values_on_the_border_are_allowed(values: dict[str, object]) -> None:
    sampling = Sampling(**values)  # type: ignore[arg-type]
    assert all(getattr(sampling, name) == value for name, value in values.items())
