"""Off-policy estimators against exact expectations: every possible log of a small table is enumerated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from braid.errors import UsageError
from braid.evaluation.off_policy import (
    OffPolicyEstimate,
    compare_estimators,
    direct_method,
    doubly_robust,
    effective_sample_size,
    importance_weights,
    inverse_propensity,
    self_normalised,
    weight_diagnostics,
)

CONTEXTS = np.array([0.3, 0.7])
REWARDS = np.array([[0.9, 0.2], [0.4, 0.6]])
UNIFORM = np.full((2, 2), 0.5)
LOGGED = np.array([[0.8, 0.2], [0.35, 0.65]])
TARGET = np.array([[0.1, 0.9], [0.7, 0.3]])
VALUE = float((CONTEXTS[:, None] * TARGET * REWARDS).sum())
"""0.3 (0.1 0.9 + 0.9 0.2) + 0.7 (0.7 0.4 + 0.3 0.6) = 0.403."""
WRONG_MODEL = np.array([[0.3, 0.8], [0.1, 0.1]])


def logs(served: Any, n: int) -> Iterator[tuple[float, np.ndarray, np.ndarray, np.ndarray]]:
    """All logs of n decisions with their probability: contexts, actions and rewards of 0 or 1."""
    rows = [(x, a, r) for x in range(2) for a in range(2) for r in range(2)]
    chance = {(x, a, r): CONTEXTS[x] * served[x, a] * (REWARDS[x, a] if r else 1 - REWARDS[x, a]) for x, a, r in rows}
    for drawn in product(rows, repeat=n):
        x, a, r = np.array(drawn).T
        yield math.prod(chance[row] for row in drawn), x, a, r


def expectation(served: Any, n: int, estimate: Callable[[np.ndarray, np.ndarray, np.ndarray], float]) -> float:
    return sum(probability * estimate(x, a, r) for probability, x, a, r in logs(served, n))


def ips(served: Any, clip: float | None = None) -> Callable[..., OffPolicyEstimate]:
    return lambda x, a, r: inverse_propensity(TARGET[x, a], served[x, a], r, clip)


def dr(propensity: Any, model: Any) -> Callable[..., OffPolicyEstimate]:
    return lambda x, a, r: doubly_robust(TARGET[x], a, propensity[x, a], r, model[x])


@pytest.mark.parametrize("served", [UNIFORM, LOGGED])
@pytest.mark.parametrize("n", [1, 2])
def test_inverse_propensity_is_unbiased(served: Any, n: int) -> None:
    assert pytest.approx(0.403) == VALUE
    assert expectation(served, n, lambda *log: ips(served)(*log).value) == pytest.approx(VALUE, abs=1e-12)


@pytest.mark.parametrize("estimator", [ips(LOGGED), dr(LOGGED, WRONG_MODEL), ips(LOGGED, clip=1.5)])
def test_squared_standard_errors_are_unbiased(estimator: Callable[..., OffPolicyEstimate]) -> None:
    mean = expectation(LOGGED, 2, lambda *log: estimator(*log).value)
    variance = expectation(LOGGED, 2, lambda *log: (estimator(*log).value - mean) ** 2)
    claimed = expectation(LOGGED, 2, lambda *log: estimator(*log).standard_error ** 2)
    assert claimed == pytest.approx(variance, abs=1e-12)


@pytest.mark.parametrize("clip", [0.5, 1.5, 4.0, 5.0])
def test_the_bias_of_clipping_is_the_known_one(clip: float) -> None:
    known = float((CONTEXTS[:, None] * np.minimum(TARGET, clip * LOGGED) * REWARDS).sum())
    assert expectation(LOGGED, 1, lambda *log: ips(LOGGED, clip)(*log).value) == pytest.approx(known, abs=1e-12)
    assert known <= VALUE
    assert (known == pytest.approx(VALUE)) == (clip >= 4.5)  # the largest weight is 0.9 / 0.2


def test_wrong_propensities_bias_inverse_propensity() -> None:
    known = float((CONTEXTS[:, None] * LOGGED * TARGET / 0.5 * REWARDS).sum())
    assert expectation(LOGGED, 1, lambda *log: ips(UNIFORM)(*log).value) == pytest.approx(known, abs=1e-12)
    assert abs(known - VALUE) > 0.03


@pytest.mark.parametrize(
    ("propensity", "model", "unbiased"),
    [
        (LOGGED, REWARDS, True),
        (LOGGED, WRONG_MODEL, True),
        (UNIFORM, REWARDS, True),
        (UNIFORM, WRONG_MODEL, False),
    ],
)
def test_doubly_robust_needs_one_part_right(propensity: Any, model: Any, unbiased: bool) -> None:
    mean = expectation(LOGGED, 2, lambda *log: dr(propensity, model)(*log).value)
    assert (mean == pytest.approx(VALUE, abs=1e-12)) == unbiased
    assert unbiased or abs(mean - VALUE) > 0.02


def test_a_perfect_model_leaves_the_variance_of_contexts_and_noise() -> None:
    def variance(estimator: Callable[..., OffPolicyEstimate]) -> float:
        return expectation(LOGGED, 2, lambda *log: (estimator(*log).value - VALUE) ** 2)

    by_context = (TARGET * REWARDS).sum(1)
    noise = (TARGET**2 / LOGGED * REWARDS * (1 - REWARDS)).sum(1)
    known = float((CONTEXTS * ((by_context - VALUE) ** 2 + noise)).sum()) / 2
    assert variance(dr(LOGGED, REWARDS)) == pytest.approx(known, abs=1e-12)
    assert known < variance(ips(LOGGED))


def test_doubly_robust_with_a_perfect_model_and_no_noise_has_no_variance_given_the_contexts() -> None:
    for contexts in product(range(2), repeat=2):
        x = np.array(contexts)
        estimates = [
            doubly_robust(TARGET[x], np.array(a), UNIFORM[x, a], REWARDS[x, a], REWARDS[x])
            for a in product(range(2), repeat=2)
        ]
        exact = float((TARGET[x] * REWARDS[x]).sum(1).mean())
        assert [found.value for found in estimates] == pytest.approx([exact] * 4, abs=1e-15)
    same = doubly_robust(TARGET[[0, 0]], [0, 1], [0.5, 0.5], REWARDS[0], REWARDS[[0, 0]])
    assert same.standard_error == pytest.approx(0, abs=1e-15)


def test_doubly_robust_limits() -> None:
    x, a, r = np.array([0, 1, 1, 0]), np.array([1, 0, 1, 0]), np.array([1.0, 0.0, 1.0, 1.0])
    blind = doubly_robust(TARGET[x], a, LOGGED[x, a], r, np.zeros((4, 2)))
    assert blind == inverse_propensity(TARGET[x, a], LOGGED[x, a], r)
    model = WRONG_MODEL[x].copy()
    model[np.arange(4), a] = r
    exact = doubly_robust(TARGET[x], a, LOGGED[x, a], r, model)
    assert exact.value == pytest.approx(direct_method(TARGET[x], model).value)


def test_the_direct_method_is_as_biased_as_its_model() -> None:
    mean = expectation(LOGGED, 1, lambda x, a, r: direct_method(TARGET[x], WRONG_MODEL[x]).value)
    assert mean == pytest.approx(float((CONTEXTS[:, None] * TARGET * WRONG_MODEL).sum()), abs=1e-12)
    unused = np.array([[0.5, np.nan]])
    assert direct_method([[1.0, 0.0]], unused).value == 0.5


def test_self_normalised_by_hand() -> None:
    """Weights 2, 1/2 and 1, rewards 1, 0 and 1."""
    found = self_normalised([0.8, 0.1, 0.5], [0.4, 0.2, 0.5], [1, 0, 1])
    value = 3 / 3.5
    assert found.value == pytest.approx(value)
    assert found.standard_error == pytest.approx(
        math.sqrt((2 * (1 - value)) ** 2 + (0.5 * value) ** 2 + (1 - value) ** 2) / 3.5
    )
    assert found.effective_sample_size == pytest.approx(3.5**2 / 5.25)
    low, high = found.interval(0.95).low, found.interval(0.95).high
    assert (high - low) / 2 == pytest.approx(1.959964 * found.standard_error, rel=1e-6)
    assert (high + low) / 2 == pytest.approx(value)


def test_the_bias_of_self_normalising_falls_with_the_size_of_the_log() -> None:
    def bias(n: int) -> float:
        return expectation(LOGGED, n, lambda x, a, r: self_normalised(TARGET[x, a], LOGGED[x, a], r).value) - VALUE

    sizes = [abs(bias(n)) for n in (1, 2, 4)]
    assert sizes[0] > sizes[1] > sizes[2] > 1e-4
    assert sizes[0] == pytest.approx(abs(float((CONTEXTS[:, None] * LOGGED * REWARDS).sum()) - VALUE))


positive = npst.arrays(np.float64, 6, elements=st.floats(0.01, 1))


@given(positive, positive, npst.arrays(np.float64, 6, elements=st.floats(-5, 5)), st.floats(-10, 10))
def test_self_normalised_is_bounded_and_shifts_with_the_rewards(
    target: np.ndarray, propensity: np.ndarray, reward: np.ndarray, shift: float
) -> None:
    found = self_normalised(target, propensity, reward)
    assert reward.min() - 1e-9 <= found.value <= reward.max() + 1e-9
    assert self_normalised(target, propensity, reward + shift).value == pytest.approx(found.value + shift, abs=1e-9)
    assert 1 - 1e-9 <= found.effective_sample_size <= 6 + 1e-9


def test_on_policy_all_estimates_are_the_mean_reward() -> None:
    rewards = np.array([1.0, 0.0, 1.0, 1.0])
    target = np.array([[0.25, 0.75]] * 4)
    action = np.array([0, 1, 1, 0])
    chosen = target[np.arange(4), action]
    found = compare_estimators(target, action, chosen, rewards)
    assert list(found) == ["inverse_propensity", "clipped_inverse_propensity", "self_normalised"]
    for estimate in found.values():
        assert estimate.value == 0.75
        assert estimate.effective_sample_size == 4
    assert found["inverse_propensity"].standard_error == pytest.approx(0.25)  # sqrt(3 / 4 / 4 * 4 / 3 / 4)


def test_all_estimators_on_one_log_agree_with_the_single_ones() -> None:
    generator = np.random.default_rng(0)
    x = generator.choice(2, 4000, p=CONTEXTS)
    a = (generator.random(4000) < LOGGED[x, 1]).astype(int)
    r = (generator.random(4000) < REWARDS[x, a]).astype(float)
    found = compare_estimators(TARGET[x], a, LOGGED[x, a], r, WRONG_MODEL[x], clip=2.0)
    assert found["clipped_inverse_propensity"] == ips(LOGGED, 2.0)(x, a, r)
    assert found["doubly_robust"] == dr(LOGGED, WRONG_MODEL)(x, a, r)
    assert found["direct_method"] == direct_method(TARGET[x], WRONG_MODEL[x])
    for name in ("inverse_propensity", "self_normalised", "doubly_robust"):
        assert abs(found[name].value - VALUE) < 4 * found[name].standard_error < 0.2


def test_weights_and_their_diagnostics_by_hand() -> None:
    weight = importance_weights([0.8, 0.0, 0.5], [0.4, 0.2, 0.5])
    assert weight.tolist() == pytest.approx([2, 0, 1])
    assert importance_weights([0.8, 0.0, 0.5], [0.4, 0.2, 0.5], clip=1.5).tolist() == pytest.approx([1.5, 0, 1])
    found = weight_diagnostics(weight)
    assert found.mean == pytest.approx(1)
    assert found.mean_standard_error == pytest.approx(1 / math.sqrt(3))
    assert (found.largest, found.largest_share) == pytest.approx((2, 2 / 3))
    assert found.zero_share == pytest.approx(1 / 3)
    assert found.effective_sample_size == pytest.approx(9 / 5)


def test_a_log_that_misses_an_action_shows_in_the_mean_weight() -> None:
    served = np.array([[1.0, 0.0], [0.5, 0.5]])
    mean = expectation(served + 1e-300, 1, lambda x, a, r: weight_diagnostics(TARGET[x, a] / (served[x, a] or 1)).mean)
    assert mean == pytest.approx(1 - 0.3 * 0.9)  # the target's mass on what was never logged is missing


def test_effective_sample_size_limits() -> None:
    assert effective_sample_size(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_sample_size([0, 5, 0]) == 1
    assert effective_sample_size([0, 0]) == 0
    assert effective_sample_size([1e200, 1e200]) == pytest.approx(2)
    assert math.isnan(inverse_propensity([1.0], [0.5], [1.0]).standard_error)
    assert math.isnan(self_normalised([1.0], [0.5], [1.0]).standard_error)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: inverse_propensity([], [], []), "at least one"),
        (lambda: inverse_propensity([0.5], [0.5, 0.5], [1, 1]), "target 1, propensity 2"),
        (lambda: inverse_propensity([0.5, 0.5], [0.5, 0.5], [1]), "reward 1"),
        (lambda: inverse_propensity([0.5], [0.0], [1]), r"propensity has a value outside \(0, 1\]"),
        (lambda: inverse_propensity([1.5], [0.5], [1]), "target has a probability outside"),
        (lambda: inverse_propensity([0.5], [0.5], [math.nan]), "reward has 1 non-finite"),
        (lambda: inverse_propensity([0.5], [0.5], [1], clip=0), "clip=0"),
        (lambda: self_normalised([0.0], [0.5], [1]), "all weights are 0"),
        (lambda: direct_method([[0.5, 0.4]], [[1, 1]]), "no distribution"),
        (lambda: direct_method([[0.5, 0.5]], [[1, 1, 1]]), "they must agree"),
        (lambda: direct_method([[0.5, 0.5]], [[1, math.inf]]), "not finite"),
        (lambda: direct_method([0.5, 0.5], [1, 1]), "one row of action probabilities"),
        (lambda: doubly_robust([[0.5, 0.5]], [2], [0.5], [1], [[1, 1]]), "outside 0 … 1"),
        (lambda: doubly_robust([[0.5, 0.5]], [0.0], [0.5], [1], [[1, 1]]), "whole numbers"),
        (lambda: doubly_robust([[1.0, 0.0]], [1], [0.5], [1], [[1, math.nan]]), "logged action"),
        (lambda: effective_sample_size([-1.0]), "negative"),
        (lambda: inverse_propensity([1.0], [0.5], [1.0]).interval(1.0), "confidence=1.0"),
    ],
)
def test_slips_are_named(call: Callable[[], object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()
