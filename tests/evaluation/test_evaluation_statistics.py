"""Statistics over seeds: hand-computed intervals, degenerate cases and measured coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.evaluation.statistics import (
    Estimate,
    Interval,
    bootstrap_interval,
    hierarchical_bootstrap,
    interquartile_mean,
    paired_difference,
    probability_of_improvement,
    student_interval,
)

finite = st.floats(-1e6, 1e6)


def test_student_interval_by_hand() -> None:
    # mean 2, standard error 1/sqrt(3), t(0.975; 2) = 4.302652730
    interval = student_interval([1, 2, 3])
    half = 4.302652729696142 / math.sqrt(3)
    assert (interval.low, interval.high) == pytest.approx((2 - half, 2 + half), rel=1e-9)
    assert interval.width == pytest.approx(2 * half)
    assert 2 in interval
    assert 5 not in interval


def test_paired_difference_by_hand() -> None:
    # differences 1, 2, 3: their interval is the one above, whatever the seeds share
    estimate = paired_difference([11, 102, 1003], [10, 100, 1000])
    half = 4.302652729696142 / math.sqrt(3)
    assert (estimate.mean, estimate.n, estimate.has_interval) == (2.0, 3, True)
    assert (estimate.low, estimate.high) == pytest.approx((2 - half, 2 + half), rel=1e-9)


def test_one_pair_gives_a_mean_but_no_interval() -> None:
    estimate = paired_difference([0.75], [0.5])
    assert estimate.mean == 0.25
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert not estimate.has_interval
    assert str(estimate) == "0.25 [no interval] (n=1)"
    assert str(Estimate(0.5, 0.25, 0.75, 3)) == "0.5 [0.25, 0.75] (n=3)"


def test_bootstrap_of_a_two_point_sample() -> None:
    # Half of the 50 zeros and 50 ones: the mean is 0.5 with standard error 0.05.
    interval = bootstrap_interval([0.0, 1.0] * 50)
    assert (interval.low, interval.high) == pytest.approx((0.402, 0.598), abs=0.012)


def test_the_bootstrap_leans_towards_the_long_tail() -> None:
    values = [0.0] * 9 + [1.0]
    interval = bootstrap_interval(values)
    assert interval.high - 0.1 > 0.1 - interval.low


@pytest.mark.parametrize("interval_of", [bootstrap_interval, student_interval])
def test_constant_single_and_impossible_values(interval_of: object) -> None:
    assert callable(interval_of)
    assert interval_of([0.1, 0.1, 0.1]) == Interval(0.1, 0.1)
    assert math.isnan(interval_of([0.5]).low)
    for values, message in [([], "empty"), ([1.0, math.nan], "1 non-finite of 2"), ([[1.0, 2.0]], "shape")]:
        with pytest.raises(UsageError, match=message):
            interval_of(values)
    with pytest.raises(UsageError, match="confidence=95"):
        interval_of([1.0, 2.0], 95)


def test_one_seed_of_the_resampling_gives_one_interval() -> None:
    values = [0.1, 0.4, 0.35, 0.8]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    table = np.arange(12.0).reshape(3, 4)
    assert hierarchical_bootstrap(table, seed=3) == hierarchical_bootstrap(table, seed=3)
    assert hierarchical_bootstrap(table, seed=3) != hierarchical_bootstrap(table, seed=4)


@given(st.lists(finite, min_size=2, max_size=8))
def test_bootstrap_intervals_stay_within_the_values(values: list[float]) -> None:
    interval = bootstrap_interval(values, resamples=99)
    assert min(values) - 1e-6 <= interval.low <= interval.high <= max(values) + 1e-6


def coverage(interval_of: object, n: int, repeats: int) -> float:
    assert callable(interval_of)
    samples = np.random.default_rng(0).normal(size=(repeats, n))
    return float(np.mean([0.0 in interval_of(sample) for sample in samples]))


def test_with_three_seeds_student_is_calibrated_and_the_bootstrap_is_not() -> None:
    # Standard error of a measured coverage of 0.95 over 600 repeats: 0.009.
    assert coverage(student_interval, n=3, repeats=600) == pytest.approx(0.95, abs=0.03)
    assert coverage(lambda sample: bootstrap_interval(sample, resamples=199), n=3, repeats=150) < 0.88


def test_hierarchical_bootstrap_reduces_to_one_level() -> None:
    # Problems that are all alike leave only the seeds: their means 0 and 1 give 0, 1/2, 1 with chances 1/4, 1/2, 1/4.
    by_seed = hierarchical_bootstrap(np.repeat([[0.0], [1.0]], 5, axis=1))
    assert by_seed == Estimate(0.5, 0.0, 1.0, 2)
    # A single seed leaves only the problems: 0.5 +- 1.96 * 0.05.
    by_problem = hierarchical_bootstrap([[0.0, 1.0] * 50])
    assert (by_problem.mean, by_problem.n) == (0.5, 1)
    assert (by_problem.low, by_problem.high) == pytest.approx((0.402, 0.598), abs=0.012)


def test_hierarchical_bootstrap_adds_the_two_variances() -> None:
    seeds, problems = 20, 50
    generator = np.random.default_rng(0)
    seed_part, problem_part = generator.normal(size=(seeds, 1)), generator.normal(size=(1, problems))
    table = seed_part + problem_part
    estimate = hierarchical_bootstrap(table)
    spread = math.sqrt(seed_part.var() / seeds + problem_part.var() / problems)
    assert (estimate.high - estimate.low) == pytest.approx(2 * 1.96 * spread, rel=0.04)
    assert estimate.mean == pytest.approx(table.mean())


def test_hierarchical_bootstrap_does_not_depend_on_its_chunks() -> None:
    table = np.random.default_rng(1).random((3, 2500))
    estimate = hierarchical_bootstrap(table, resamples=2000)  # two chunks of 1600 and 400 rows
    spread = math.sqrt(table.mean(axis=1).var() / 3 + table.mean(axis=0).var() / 2500)
    assert (estimate.high - estimate.low) == pytest.approx(2 * 1.96 * spread, rel=0.35)
    assert estimate.low < estimate.mean < estimate.high


def test_hierarchical_bootstrap_covers_a_new_seed_and_new_problems() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        table = (
            generator.normal(size=(12, 1)) * 0.1
            + generator.normal(size=(1, 30)) * 0.3
            + generator.normal(size=(12, 30)) * 0.3
        )
        hits += 0.0 in hierarchical_bootstrap(table, resamples=300).interval
    assert 0.88 <= hits / 200 <= 0.99


@pytest.mark.parametrize("scores", [[], [[]], [1.0, 2.0], [[math.inf]]])
def test_hierarchical_bootstrap_refuses_other_tables(scores: list[object]) -> None:
    with pytest.raises(UsageError):
        hierarchical_bootstrap(scores)  # type: ignore[arg-type]


def test_a_single_score_has_no_interval() -> None:
    assert not hierarchical_bootstrap([[0.5]]).has_interval


def test_pairs_must_match() -> None:
    with pytest.raises(UsageError, match="a has 2 values and b has 3"):
        paired_difference([1, 2], [1, 2, 3])


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean([100, 1, 2, 3, 4, 5, 6, -50]) == 3.5  # two are left out at either end
    assert interquartile_mean([[1, 2], [3, 1000]]) == 2.5
    assert interquartile_mean([7.0]) == 7.0


def test_probability_of_improvement_by_hand() -> None:
    # pairs: 1>0, 1=1, 3>0, 3>1 -> (1 + 0.5 + 1 + 1) / 4
    assert probability_of_improvement([1, 3], [0, 1]) == 0.875
    assert probability_of_improvement([[1, 0], [3, 0]], [[0, 1], [1, 1]]) == (0.875 + 0.0) / 2
    with pytest.raises(UsageError, match="tasks"):
        probability_of_improvement([[1, 0]], [[1, 0, 2]])


@given(st.lists(finite, min_size=1, max_size=6), st.lists(finite, min_size=1, max_size=6))
def test_the_two_probabilities_of_improvement_sum_to_one(a: list[float], b: list[float]) -> None:
    assert probability_of_improvement(a, b) + probability_of_improvement(b, a) == pytest.approx(1)
