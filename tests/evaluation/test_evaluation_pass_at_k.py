"""pass@k: hand-computed values, its limits, and agreement with counting all subsets."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.evaluation.pass_at_k import pass_at_k, pass_at_k_from_counts


def test_hand_computed_values() -> None:
    # n=5, c=2: 1 - C(3,k)/C(5,k) = 1 - 3/5, 1 - 3/10, 1 - 1/10, 1, 1
    samples = [True, False, True, False, False]
    values = [float(pass_at_k(samples, k)) for k in range(1, 6)]
    np.testing.assert_allclose(values, [0.4, 0.7, 0.9, 1.0, 1.0], rtol=1e-15)


def test_problems_are_handled_together() -> None:
    table = [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    np.testing.assert_allclose(pass_at_k(table, 2), [0.5, 1.0, 0.0], rtol=1e-15)
    np.testing.assert_allclose(pass_at_k_from_counts([1, 1], [4, 2], 2), [0.5, 1.0], rtol=1e-15)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_it_is_the_share_of_subsets_with_a_correct_sample(samples: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(samples)))
    subsets = [any(subset) for subset in combinations(samples, k)]
    assert float(pass_at_k(samples, k)) == pytest.approx(sum(subsets) / len(subsets), abs=1e-12)


@given(st.integers(1, 3000), st.data())
def test_large_counts_agree_with_exact_binomials(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    total = comb(n, k)
    assert float(pass_at_k_from_counts(c, n, k)) == pytest.approx((total - comb(n - c, k)) / total, abs=1e-10)


def test_limits() -> None:
    assert float(pass_at_k_from_counts(0, 10_000, 5000)) == 0.0
    assert float(pass_at_k_from_counts(1, 10_000, 10_000)) == 1.0
    assert pass_at_k(np.zeros((0, 4), dtype=bool), 2).shape == (0,)
    rates = pass_at_k(np.eye(6, 8, dtype=bool), 1)
    np.testing.assert_allclose(rates, 1 / 8, rtol=1e-12)  # k=1 is the share of correct samples


@pytest.mark.parametrize(
    ("correct", "k", "message"),
    [
        ([True, False], 3, "k=3 exceeds the 2 samples"),
        ([True, False], 0, "k=0"),
        ([True, False], 1.5, "k=1.5"),
        ([0.5, 1.0], 1, "only True and False"),
        (True, 1, "last axis"),
    ],
)
def test_slips_are_named(correct: object, k: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pass_at_k(correct, k)  # type: ignore[arg-type]


@pytest.mark.parametrize(("c", "n"), [(3, 2), (-1, 2), (0.5, 2)])
def test_impossible_counts_are_named(c: float, n: int) -> None:
    with pytest.raises(UsageError, match="correct_count"):
        pass_at_k_from_counts(c, n, 1)
