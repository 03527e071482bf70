"""Exploration rules: values by hand, limits, and what holds for all scores and masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from braid.errors import UsageError
from braid.losses import exploration
from braid.losses.exploration import (
    boltzmann,
    confident_actions,
    epsilon_greedy,
    exploration_mass,
    falcon_gamma,
    fast_cb,
    gamma_for_exploration_mass,
    greedy,
    greedy_action,
    inverse_gap_weighting,
    square_cb_gamma,
    uniform,
    with_floor,
)

SCORES = torch.tensor([0.9, 0.8, 0.5], dtype=torch.float64)
ALL = torch.ones(3, dtype=torch.bool)
RULES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "uniform": lambda scores, mask: uniform(mask, scores.dtype),
    "greedy": greedy,
    "epsilon_greedy": lambda scores, mask: epsilon_greedy(scores, mask, 0.3),
    "boltzmann": lambda scores, mask: boltzmann(scores, mask, 0.1),
    "inverse_gap_weighting": lambda scores, mask: inverse_gap_weighting(scores, mask, 20.0),
    "inverse_gap_weighting_mu": lambda scores, mask: inverse_gap_weighting(scores, mask, 20.0, mu=9.0),
    "fast_cb": lambda scores, mask: fast_cb(scores, mask, 20.0),
    "floor": lambda scores, mask: with_floor(greedy(scores, mask), mask, 0.05),
}


@st.composite
def scores_and_mask(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    actions = draw(st.integers(1, 8))
    rows = draw(st.integers(1, 4))
    # Few levels make ties common.
    levels = st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1)
    scores = [[draw(levels) for _ in range(actions)] for _ in range(rows)]
    mask = [[draw(st.booleans()) for _ in range(actions)] for _ in range(rows)]
    for row in mask:
        row[draw(st.integers(0, actions - 1))] = True
    return torch.tensor(scores, dtype=torch.float64), torch.tensor(mask)


@pytest.mark.parametrize("name", RULES)
@given(pair=scores_and_mask())
@settings(max_examples=60, deadline=None)
def test_every_rule_is_a_distribution_over_the_available_actions(name: str, pair: tuple[Tensor, Tensor]) -> None:
    scores, mask = pair
    served = RULES[name](scores.masked_fill(~mask, math.nan), mask)
    assert served.shape == scores.shape
    assert served.dtype == scores.dtype
    assert (served >= 0).all()
    assert (served[~mask] == 0).all()
    torch.testing.assert_close(served.sum(-1), torch.ones(len(scores), dtype=scores.dtype), atol=1e-12, rtol=0)
    single = mask.sum(-1) == 1
    assert (served[single][mask[single]] == 1).all()


@pytest.mark.parametrize("name", sorted(set(RULES) - {"inverse_gap_weighting_mu"}))
@given(pair=scores_and_mask())
@settings(max_examples=60, deadline=None)
def test_the_greedy_action_is_never_the_less_likely_one(name: str, pair: tuple[Tensor, Tensor]) -> None:
    """The trap of mixing up rewards and costs; the greedy action keeps at least 1 / A."""
    scores, mask = pair
    served = RULES[name](scores, mask)
    best = served.gather(-1, greedy_action(scores, mask)[:, None])
    assert (best >= served - 1e-12).all()
    assert (best[:, 0] >= 1 / mask.sum(-1).double() - 1e-12).all()


@pytest.mark.parametrize("name", ["boltzmann", "inverse_gap_weighting", "fast_cb"])
@given(pair=scores_and_mask())
@settings(max_examples=60, deadline=None)
def test_a_higher_score_is_never_less_likely(name: str, pair: tuple[Tensor, Tensor]) -> None:
    scores, mask = pair
    served = RULES[name](scores, mask)
    higher = (scores[:, :, None] > scores[:, None, :]) & mask[:, :, None] & mask[:, None, :]
    assert (served[:, :, None] >= served[:, None, :] - 1e-12)[higher].all()


def test_inverse_gap_weighting_by_hand() -> None:
    served = inverse_gap_weighting(SCORES, ALL, 10.0)
    assert served.tolist() == pytest.approx([0.607143, 0.25, 0.142857], abs=1e-6)
    assert served.tolist() == pytest.approx([1 - 1 / 4 - 1 / 7, 1 / 4, 1 / 7], abs=1e-15)
    wider = inverse_gap_weighting(SCORES, ALL, 10.0, mu=5.0)
    assert wider.tolist() == pytest.approx([1 - 1 / 6 - 1 / 9, 1 / 6, 1 / 9], abs=1e-15)


def test_unavailable_actions_count_neither_in_the_gap_nor_in_the_number() -> None:
    mask = torch.tensor([False, True, True])
    served = inverse_gap_weighting(SCORES, mask, 10.0)
    assert served.tolist() == pytest.approx([0, 1 - 1 / 5, 1 / 5], abs=1e-15)


@pytest.mark.parametrize("rule", [inverse_gap_weighting, fast_cb])
def test_no_gamma_or_no_gap_is_uniform_and_a_large_gamma_greedy(rule: Any) -> None:
    third = [1 / 3] * 3
    assert rule(SCORES, ALL, 0.0).tolist() == pytest.approx(third, abs=1e-15)
    for gamma in (0.0, 1.0, 1e9):
        assert rule(torch.full((3,), 0.7, dtype=torch.float64), ALL, gamma).tolist() == pytest.approx(third, abs=1e-15)
    assert rule(SCORES, ALL, 1e9).tolist() == pytest.approx([1, 0, 0], abs=1e-7)


def test_fast_cb_by_hand() -> None:
    """Costs 0.1 and 0.2: the second action gets 0.1 / (2 * 0.1 + 10 * 0.1)."""
    scores = torch.tensor([0.9, 0.8], dtype=torch.float64)
    served = fast_cb(scores, ALL[:2], 10.0)
    assert served.tolist() == pytest.approx([0.916667, 0.083333], abs=1e-6)
    certain = fast_cb(torch.tensor([1.0, 0.9]), ALL[:2], 10.0)
    assert certain[1].item() == pytest.approx(1e-6 / (2e-6 + 10 * (0.1 - 1e-6)), rel=1e-5)
    beyond = fast_cb(torch.tensor([1.7, -0.4], dtype=torch.float64), ALL[:2], 10.0)
    assert beyond[1].item() == pytest.approx(1e-6 / (2e-6 + 10 * (1 - 1e-6)))


def test_one_gamma_per_row() -> None:
    scores, mask = SCORES.repeat(2, 1), ALL.repeat(2, 1)
    for rule in (inverse_gap_weighting, fast_cb):
        both = rule(scores, mask, torch.tensor([3.0, 30.0]))
        assert torch.equal(both[0], rule(SCORES, ALL, 3.0))
        assert torch.equal(both[1], rule(SCORES, ALL, 30.0))


def test_epsilon_greedy_and_boltzmann_by_hand() -> None:
    assert epsilon_greedy(SCORES, ALL, 0.3).tolist() == pytest.approx([0.8, 0.1, 0.1])
    assert epsilon_greedy(SCORES, ALL, 1.0).tolist() == pytest.approx([1 / 3] * 3)
    odds = torch.tensor([1.0, math.exp(-1), math.exp(-4)])
    assert boltzmann(SCORES, ALL, 0.1).tolist() == pytest.approx((odds / odds.sum()).tolist())
    assert boltzmann(SCORES, ALL, 1e-9).tolist() == [1, 0, 0]
    assert boltzmann(SCORES, ALL, 1e9).tolist() == pytest.approx([1 / 3] * 3)


def test_ties_go_to_the_lowest_index() -> None:
    scores = torch.tensor([[0.5, 0.7, 0.7], [0.7, 0.7, 0.7]])
    mask = torch.tensor([[True, True, True], [False, True, True]])
    assert greedy_action(scores, mask).tolist() == [1, 1]
    assert greedy(scores, mask).tolist() == [[0, 1, 0], [0, 1, 0]]


def test_schedules_by_hand() -> None:
    assert [square_cb_gamma(0), square_cb_gamma(1), square_cb_gamma(100)] == [0, 10, 100]
    assert square_cb_gamma(8, scale=3, exponent=1 / 3) == pytest.approx(6)
    gamma = falcon_gamma(torch.tensor([2, 8]), 1000, class_size=2, delta=0.05, scale=0.1)
    expected = [0.1 * math.sqrt(count * 1000 / math.log(40_000)) for count in (2, 8)]
    assert gamma.tolist() == pytest.approx(expected, rel=1e-6)
    assert falcon_gamma(torch.tensor([2, 8]), 0, scale=5).tolist() == [1, 1]


def test_falcon_is_square_cb_with_gamma_frozen_inside_the_generation() -> None:
    """SquareCB counts learnt examples. In a generation whose rewards arrive at its end that counter stands still, so
    serving its requests one by one has the probabilities of the batch, which are FALCON's where the gammas agree."""
    generator = torch.Generator().manual_seed(0)
    epoch_size, learnt = 500, 0
    for epoch in range(3):
        scores = torch.rand(epoch_size, 4, generator=generator, dtype=torch.float64)
        mask = torch.ones(epoch_size, 4, dtype=torch.bool)
        trained_on = epoch_size if epoch else 0
        gamma = falcon_gamma(mask.sum(-1), trained_on)
        batch = inverse_gap_weighting(scores, mask, gamma)
        scale = float(gamma[0]) / square_cb_gamma(learnt, scale=1.0) if epoch else 0.0
        for row in range(0, epoch_size, 50):
            frozen = square_cb_gamma(learnt, scale) if epoch else 1.0
            single = inverse_gap_weighting(scores[row], mask[row], frozen)
            torch.testing.assert_close(single, batch[row], atol=1e-7, rtol=0)
        learnt += epoch_size


def test_confident_actions_by_hand() -> None:
    lower = torch.tensor([0.5, 0.3, 0.1, 0.9])
    upper = torch.tensor([0.8, 0.5, 0.4, 1.0])
    mask = torch.tensor([True, True, True, False])
    assert confident_actions(lower, upper, mask).tolist() == [True, True, False, False]
    assert uniform(confident_actions(lower, upper, mask)).tolist() == [0.5, 0.5, 0, 0]
    assert confident_actions(lower, upper, torch.ones(4, dtype=torch.bool)).tolist() == [False, False, False, True]


@given(scores_and_mask(), st.floats(0, 0.5))
def test_elimination_spares_the_greedy_action(pair: tuple[Tensor, Tensor], radius: float) -> None:
    scores, mask = pair
    kept = confident_actions(scores - radius, scores + radius, mask)
    assert not (kept & ~mask).any()
    assert kept.gather(-1, greedy_action(scores, mask)[:, None]).all()


def test_a_floor_keeps_the_order_and_is_at_most_uniform() -> None:
    floored = with_floor(torch.tensor([0.7, 0.3, 0.0]), ALL, 0.1)
    assert floored.tolist() == pytest.approx([0.59, 0.31, 0.1])
    mask = torch.tensor([True, True, False])
    assert with_floor(torch.tensor([1.0, 0.0, 0.0]), mask, 0.1).tolist() == pytest.approx([0.9, 0.1, 0])
    assert with_floor(torch.tensor([1.0, 0.0, 0.0]), ALL, 0.6).tolist() == pytest.approx([1 / 3] * 3)
    assert with_floor(SCORES / SCORES.sum(), ALL, 0.0).tolist() == (SCORES / SCORES.sum()).tolist()


def test_exploration_mass_and_the_gamma_that_has_it() -> None:
    served = inverse_gap_weighting(SCORES, ALL, 10.0)
    mass = float(exploration_mass(served, SCORES, ALL))
    assert mass == pytest.approx(1 / 4 + 1 / 7)
    scores, mask = SCORES[None], ALL[None]
    assert gamma_for_exploration_mass(scores, mask, mass) == pytest.approx(10, rel=2e-6)
    assert gamma_for_exploration_mass(scores, mask, 2 / 3) == pytest.approx(0, abs=1e-6)
    generator = torch.Generator().manual_seed(1)
    scores, mask = torch.rand(200, 5, generator=generator), torch.rand(200, 5, generator=generator) < 0.7
    mask[:, 0] = True
    # The mass of epsilon-greedy is below epsilon, as its uniform part serves the greedy action too.
    wanted = float(exploration_mass(epsilon_greedy(scores, mask, 0.1), scores, mask).mean())
    assert wanted == pytest.approx(0.1 * (1 - float((1 / mask.sum(-1)).mean())), abs=1e-6)
    for rule in (inverse_gap_weighting, fast_cb):
        gamma = gamma_for_exploration_mass(scores, mask, wanted, rule)
        assert float(exploration_mass(rule(scores, mask, gamma), scores, mask).mean()) == pytest.approx(
            wanted, abs=1e-5
        )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: uniform(torch.zeros(2, 3, dtype=torch.bool)), "without an available action"),
        (lambda: greedy(SCORES, ~ALL), "without an available action"),
        (lambda: greedy(SCORES, ALL[:2]), r"scores \(3,\)"),
        (lambda: greedy(torch.tensor([1, 2, 3]), ALL), "must be floats"),
        (lambda: greedy(SCORES * math.nan, ALL), "not finite"),
        (lambda: epsilon_greedy(SCORES, ALL, 1.1), "epsilon=1.1"),
        (lambda: epsilon_greedy(SCORES, ALL, math.nan), "epsilon=nan"),
        (lambda: boltzmann(SCORES, ALL, 0.0), "temperature=0.0"),
        (lambda: inverse_gap_weighting(SCORES, ALL, -1.0), "gamma=-1.0"),
        (lambda: inverse_gap_weighting(SCORES, ALL, math.inf), "gamma=inf"),
        (lambda: inverse_gap_weighting(SCORES, ALL, 1.0, mu=2.5), "mu=2.5 .* here 3"),
        (lambda: fast_cb(SCORES, ALL, 1.0, smallest_cost=0.0), "smallest_cost=0.0"),
        (lambda: square_cb_gamma(-1), "learnt=-1"),
        (lambda: falcon_gamma(torch.tensor([2]), 10, delta=1.0), "delta=1.0"),
        (lambda: confident_actions(SCORES, SCORES - 0.1, ALL), "exchanged"),
        (lambda: with_floor(SCORES, ALL, 1.5), "floor=1.5"),
        (lambda: gamma_for_exploration_mass(SCORES[None], ALL[None], 0.7), "from .* to 0.667"),
    ],
)
def test_slips_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()


def test_single_precision_is_kept() -> None:
    scores, mask = SCORES.float()[None], ALL[None]
    assert {rule(scores, mask).dtype for rule in RULES.values()} == {torch.float32}
    assert exploration.uniform(mask).dtype == torch.float32
