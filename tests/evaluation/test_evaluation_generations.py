"""Diagnostics of policy generations: values by hand, independent formulas, limits."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid.data.bandit_log import NEVER, BanditLog
from braid.errors import UsageError
from braid.evaluation.generations import (
    area_under_curve,
    calibration_error,
    class_imbalance,
    diagnose_model,
    diagnose_policy,
    fluctuation,
    oscillation_count,
    summarise_log,
    total_variation,
)

MASK = np.array([[True, True, False], [True, True, True]])
POLICY = np.array([[0.9, 0.1, 0.0], [0.2, 0.5, 0.3]])
SCORES = np.array([[0.8, 0.7, np.nan], [0.6, 0.9, 0.9]])
EXPECTED = np.array([[0.7, 0.9, np.nan], [0.5, 0.8, 0.6]])


def test_a_policy_by_hand() -> None:
    found = diagnose_policy(POLICY, SCORES, EXPECTED, MASK)
    values = (0.9 * 0.7 + 0.1 * 0.9, 0.2 * 0.5 + 0.5 * 0.8 + 0.3 * 0.6)
    assert found.value == pytest.approx(sum(values) / 2)
    assert found.regret == pytest.approx((0.9 - values[0] + 0.8 - values[1]) / 2)
    assert found.coverage == pytest.approx((0.1 + 0.2) / 2)
    assert found.exploration_mass == pytest.approx((0.1 + 0.5) / 2)  # the greedy action of the second row is 1
    entropies = (-0.9 * math.log(0.9) - 0.1 * math.log(0.1), -sum(p * math.log(p) for p in (0.2, 0.5, 0.3)))
    assert found.entropy == pytest.approx(sum(entropies) / 2)


def test_limits_of_a_policy() -> None:
    best = diagnose_policy([[0, 1, 0], [0, 1, 0]], EXPECTED, EXPECTED, MASK)
    assert (best.regret, best.coverage, best.exploration_mass, best.entropy) == pytest.approx((0, 0, 0, 0))
    uniform = diagnose_policy(MASK / MASK.sum(1, keepdims=True), SCORES, EXPECTED, MASK)
    assert uniform.coverage == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert uniform.exploration_mass == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert uniform.entropy == pytest.approx((math.log(2) + math.log(3)) / 2)


def test_total_variation_by_hand() -> None:
    other = np.array([[0.6, 0.4, 0.0], [0.2, 0.5, 0.3]])
    assert total_variation(POLICY, other) == pytest.approx(0.3 / 2)
    assert total_variation(POLICY, POLICY) == 0
    assert total_variation([[1.0, 0.0]], [[0.0, 1.0]]) == 1


def test_a_model_by_hand() -> None:
    found = diagnose_model([0.9, 0.6, 0.3], [1, 0, 0], bins=1)
    assert found.log_loss == pytest.approx(-(math.log(0.9) + math.log(0.4) + math.log(0.7)) / 3)
    assert found.area_under_curve == 1
    assert found.calibration_error == pytest.approx(abs(0.6 - 1 / 3))
    assert diagnose_model([0.0, 1.0], [1, 0]).log_loss == pytest.approx(-math.log(1e-12), rel=1e-3)


def test_calibration_error_by_hand() -> None:
    predicted, reward = [0.1, 0.1, 0.8, 0.8], [0, 1, 1, 1]
    assert calibration_error(predicted, reward, bins=2) == pytest.approx(0.5 * 0.4 + 0.5 * 0.2)
    assert calibration_error([0.75] * 4, [1, 0, 1, 1], bins=10) == 0  # equal predictions share a bin
    assert calibration_error([0.0, 1.0], [0, 1]) == 0
    assert calibration_error([0.0, 1.0], [1, 0]) == 1
    generator = np.random.default_rng(0)
    probability = generator.random(50_000)
    outcome = generator.random(50_000) < probability
    assert calibration_error(probability, outcome) < 0.01
    assert calibration_error(probability**2, outcome) == pytest.approx(1 / 6, abs=0.01)  # the mean of p - p^2


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.4, 0.9]), st.booleans()), min_size=2, max_size=12))
def test_area_under_curve_is_the_share_of_ordered_pairs(rows: list[tuple[float, bool]]) -> None:
    predicted, reward = [row[0] for row in rows], [int(row[1]) for row in rows]
    pairs = [(p > q) + 0.5 * (p == q) for p, r in rows if r for q, s in rows if not s]
    found = area_under_curve(predicted, reward)
    assert math.isnan(found) if not pairs else found == pytest.approx(sum(pairs) / len(pairs))


def test_class_imbalance() -> None:
    assert class_imbalance([1, 1, 1, 0]) == class_imbalance([0, 0, 0, 1]) == 0.75
    assert class_imbalance([1, 0]) == 0.5
    assert math.isnan(class_imbalance([]))


def test_series() -> None:
    assert oscillation_count([0.1, 0.3, 0.2, 0.4, 0.5, 0.5, 0.4]) == 3
    assert oscillation_count([0.1, 0.2, 0.2, 0.3]) == 0
    assert oscillation_count([0.1]) == oscillation_count([0.1, 0.2]) == 0
    assert fluctuation([1.0, 2.0, 3.0, 4.0]) == 0
    assert fluctuation([0.0, 1.0, 0.0]) == pytest.approx(math.sqrt(2))


def make_log() -> BanditLog:
    mask = np.array([[True, True], [True, True], [True, False], [True, True]])
    return BanditLog(
        t=np.arange(4),
        generation=np.array([0, 0, 0, 2]),
        x=np.zeros((4, 1), np.float32),
        action_features=np.zeros((4, 2, 1), np.float32),
        mask=mask,
        action=np.array([0, 1, 0, 1]),
        propensity=np.array([0.8, 0.2, 1.0, 0.05]),
        reward=np.array([1.0, 0.0, 1.0, 1.0]),
        arrival=np.array([1, 1, NEVER, 3]),
        uniform_bucket=np.zeros(4, bool),
    )


def test_a_log_by_hand() -> None:
    first, second = summarise_log(make_log(), now=1, edges=(0.0, 0.1, 0.5, 1.0))
    assert (first.generation, first.rows, second.generation, second.rows) == (0, 3, 2, 1)
    assert first.known_share == pytest.approx(2 / 3)
    assert first.positive_rate == first.class_imbalance == 0.5
    assert first.smallest_propensity == 0.2
    assert first.propensity_histogram == (0, 1, 2)
    assert first.action_shares == pytest.approx((2 / 3, 1 / 3))
    weights = (0.5 / 0.8, 0.5 / 0.2, 1.0)
    assert first.uniform_sample_size == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights))
    assert second.known_share == 0
    assert math.isnan(second.positive_rate)
    assert math.isnan(second.class_imbalance)
    assert second.propensity_histogram == (1, 0, 0)


def test_without_a_time_all_rewards_that_ever_arrive_count() -> None:
    first, second = summarise_log(make_log())
    assert first.known_share == pytest.approx(2 / 3)
    assert (second.known_share, second.positive_rate, second.class_imbalance) == (1, 1, 1)
    assert sum(first.propensity_histogram) == 3
    assert summarise_log(make_log().rows([False] * 4)) == []


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: diagnose_policy(POLICY, SCORES[:1], EXPECTED, MASK), r"scores has shape \(1, 3\)"),
        (lambda: diagnose_policy(POLICY * 0.5, SCORES, EXPECTED, MASK), "no distribution"),
        (lambda: diagnose_policy(POLICY[:, ::-1], SCORES, EXPECTED, MASK), "unavailable action"),
        (lambda: diagnose_policy(POLICY, SCORES, EXPECTED, ~MASK & MASK), "at least one of them available"),
        (lambda: total_variation([[1.0]], [[0.5, 0.5]]), "second has shape"),
        (lambda: total_variation([], []), "first has shape"),
        (lambda: diagnose_model([1.5], [1]), "probabilities, not logits"),
        (lambda: diagnose_model([0.5], [0.5]), "only 0 and 1"),
        (lambda: diagnose_model([0.5], [1, 0]), "one of each per row"),
        (lambda: calibration_error([0.5], [1], bins=0), "bins=0"),
        (lambda: class_imbalance([0.5]), "only 0 and 1"),
        (lambda: summarise_log(make_log(), edges=(0.1, 1.0)), "must rise from 0 to 1"),
        (lambda: fluctuation([1.0, 2.0]), "at least 3 finite"),
        (lambda: oscillation_count([math.nan]), "at least 1 finite"),
    ],
)
def test_slips_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()
