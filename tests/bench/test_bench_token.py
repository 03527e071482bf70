"""The token workloads: FLOPs by hand, lengths as designed, and both libraries doing the same."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from braid.bench.contestant import StepTiming
from braid.bench.token.braid_contestant import BraidContestant
from braid.bench.token.checkpoint import make_model, save_checkpoint
from braid.bench.token.data import ROWS, letters, make_rows
from braid.bench.token.flops import TokenFlops
from braid.bench.token.language import (
    ALPHABET,
    EOS,
    PROMPT,
    VOCABULARY,
    Lengths,
    draw_length,
    draw_text,
    log_odds,
    mean_length,
    token_id,
)
from braid.bench.workload import find_workload
from braid.errors import UsageError
from braid.policies import CausalPolicy
from braid.rollout.sampler import Sampling, sample

TINY = {"hidden": 64, "layers": 1, "heads": 2, "intermediate": 64, "seed": 0, "learning_rate": 1e-6}
TINY |= {"method": "grpo", "prompts": 4, "group": 8, "lengths": "fixed", "max_new_tokens": 8}


def test_flops_by_hand() -> None:
    flops = TokenFlops(matmul_parameters=100, layers=2, heads=3, head_dim=5)
    assert flops.forward(1, 1) == 200 + 120
    assert flops.forward(3, 4) == 2 * 200 + 120 * (3 + 4)
    assert flops.forward(3, 2) == 0
    assert flops.prefill([2, 1]) == 3 * 200 + 120 * (1 + 2 + 1)
    rows = [(2, 3), (2, 1)]  # tokens 3 and 4 of the first row are fed; the second's only token comes from the prompt
    assert flops.decode(rows) == 2 * 200 + 120 * (3 + 4)
    assert flops.update(rows) == 3 * (6 * 200 + 120 * (3 + 3 + 7))  # the last token of a row predicts nothing
    assert flops.update(rows, group=2) == 3 * (4 * 200 + 120 * (3 + 7))
    step = flops.of_step(rows, group=2)
    assert step == {"prefill": flops.prefill([2]), "decode": flops.decode(rows), "update": flops.update(rows, group=2)}


def test_matmul_parameters_are_the_linear_weights_of_the_model() -> None:
    for name, million in (("fixed", 1.06), ("medium", 6.3)):
        options = dict(find_workload(name).options)
        model = make_model(options)
        linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
        assert TokenFlops.of(options, VOCABULARY).matmul_parameters == linear
        assert linear == pytest.approx(million * 1e6, rel=0.01)


@pytest.mark.parametrize("lengths", ["fixed", "ragged", "skewed"])
def test_the_table_is_a_distribution_that_the_model_follows(lengths: Lengths) -> None:
    table = log_odds(lengths)
    assert torch.allclose(table.exp().sum(-1), torch.ones(VOCABULARY), atol=1e-5)
    model = make_model({**TINY, "lengths": lengths}).eval()
    tokens = torch.tensor([[token_id(c) for c in ALPHABET]])
    with torch.no_grad():
        found = model(tokens).logits[0].softmax(-1)
    assert (found - table[tokens[0]].softmax(-1)).abs().max() < 0.02


@pytest.mark.parametrize(("lengths", "longest"), [("fixed", 32), ("ragged", 128), ("skewed", 256)])
def test_sampled_lengths_have_the_intended_distribution(lengths: Lengths, longest: int, tmp_path: Path) -> None:
    save_checkpoint({**TINY, "lengths": lengths}, tmp_path)
    policy = CausalPolicy.load(tmp_path / "checkpoint", device="cpu")
    assert (len(policy.tokenizer), policy.eos_token_ids, policy.pad_token_id) == (VOCABULARY, [EOS], 0)
    generator = random.Random(1)
    prompts = [policy.encode_prompt(draw_text(16, PROMPT, generator)) for _ in range(128)]
    source = torch.Generator().manual_seed(1)
    samples = sample(policy, prompts, Sampling(longest), group_size=8, generator=source, batch_size=1024)
    found = np.array([len(tokens) for tokens in samples.tokens])
    drawn = np.array([draw_length(lengths, longest, generator) for _ in range(20_000)])
    expected = mean_length(lengths, longest)
    for values in (found, drawn):
        assert values.mean() == pytest.approx(expected, abs=1e-9 + 4 * values.std() / len(values) ** 0.5)
    grid = np.arange(1, longest + 1)
    gap = np.abs([(found <= n).mean() - (drawn <= n).mean() for n in grid]).max()
    assert gap < 1.95 / len(found) ** 0.5 + 0.01  # the 0.1 % quantile of Kolmogorov and Smirnov
    assert not {0, 2} & {token for tokens in samples.tokens for token in tokens}
    if lengths == "skewed":
        assert set(found) <= {*range(1, 25), 256}
        assert (found == 256).mean() == pytest.approx(0.1, abs=0.04)


def test_an_unknown_distribution_is_named() -> None:
    with pytest.raises(UsageError, match="did you mean ragged"):
        log_odds("raged")  # type: ignore[arg-type]


def test_rows_and_reward() -> None:
    rows = make_rows({**TINY, "lengths": "ragged", "max_new_tokens": 128})
    assert rows == make_rows({**TINY, "lengths": "ragged", "max_new_tokens": 128})
    assert len(rows) == ROWS
    assert all(len(row["prompt"]) == 16 and 1 <= len(row["completion"]) <= 127 for row in rows)
    assert np.mean([len(row["completion"]) + 1 for row in rows]) == pytest.approx(60, abs=5)
    assert letters(["aaaa", "ab", "bb", ""], prompts=["", "", "", ""]) == [1.0, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("method", ["grpo", "sft"])
def test_braid_takes_timed_steps(method: str, tmp_path: Path) -> None:
    options = {**TINY, "method": method}
    if method == "sft":
        options |= {"prompts": 32, "group": 1}
    contestant = BraidContestant({**options, **save_checkpoint(options, tmp_path)})
    contestant.prepare()
    reports: list[list[StepTiming]] = []
    contestant.run(iter([1, 2]), reports.append)
    contestant.close()
    assert [len(timings) for timings in reports] == [1, 2]
    assert contestant.learner.tokens == 3 * 32 * 8
    assert contestant.learner.step_count == 3
    flops = TokenFlops.of(options, VOCABULARY).of_step([(16, 8)] * 32, options["group"])
    for timing in reports[1]:
        assert timing.units == 32 * 8
        assert timing.facts == {"mean length": 8.0, "longest": 8.0}
        assert timing.flops == (flops if method == "grpo" else {"update": flops["update"]})
        assert 0 < timing.phases["update"] < timing.seconds
    assert torch.isfinite(contestant.learner.policy.model.lm_head.weight).all()


@pytest.mark.parametrize("rows_at_a_time", [0, 16])
@pytest.mark.parametrize("method", ["grpo", "sft"])
def test_trl_takes_timed_steps(method: str, rows_at_a_time: int, tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from braid.bench.token.trl_contestant import TrlContestant

    options = {**TINY, "method": method, **save_checkpoint(TINY, tmp_path)}
    if method == "sft":
        options |= {"prompts": 32, "group": 1}
    contestant = TrlContestant(options, rows_at_a_time=rows_at_a_time)
    contestant.prepare()
    reports: list[list[StepTiming]] = []
    contestant.run(iter([1, 2]), reports.append)
    contestant.close()
    assert [len(timings) for timings in reports] == [1, 2]
    assert contestant.trainer.state.global_step == 3
    flops = TokenFlops.of(options, VOCABULARY).of_step([(16, 8)] * 32, options["group"])
    phases = {"prefill", "decode", "reward", "update"} if method == "grpo" else {"update"}
    for timing in reports[1]:
        assert timing.units == 32 * 8
        assert timing.facts == {"mean length": 8.0, "longest": 8.0}
        assert timing.flops == (flops if method == "grpo" else {"update": flops["update"]})
        assert set(timing.phases) == phases
        assert all(seconds > 0 for seconds in timing.phases.values())
        assert sum(timing.phases.values()) < timing.seconds
