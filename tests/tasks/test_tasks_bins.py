"""The bandit of bins: the two geometries of reward and the initial policy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from braid.errors import UsageError
from braid.tasks.bandit.bins import BinsTask

ALIGNED, MISALIGNED = BinsTask(geometry="aligned"), BinsTask()


def test_rewards_by_hand() -> None:
    assert MISALIGNED.rewards.argmax() == 70
    assert ALIGNED.rewards.argmax() == 20
    assert ALIGNED.rewards[[20, 30, 40]].tolist() == pytest.approx([1, math.exp(-1), math.exp(-4)])
    assert BinsTask(width=20.0).rewards[50] == pytest.approx(math.exp(-1))


def test_the_initial_policy_is_a_squashed_cauchy() -> None:
    probabilities = MISALIGNED.initial_probabilities
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities.min() > 0
    draws = np.tanh(stats.cauchy(-0.7, 0.4).rvs(200_000, random_state=np.random.default_rng(0)))
    counted = np.histogram(draws, 100, range=(-1, 1))[0] / len(draws)
    np.testing.assert_allclose(counted, probabilities, atol=5 * np.sqrt(probabilities.max() / len(draws)))


def test_the_initial_policy_earns_little_where_it_is_misaligned() -> None:
    assert MISALIGNED.value(MISALIGNED.initial_probabilities) == pytest.approx(0.04, abs=0.005)
    assert ALIGNED.value(ALIGNED.initial_probabilities) > 0.35
    assert MISALIGNED.value(np.eye(100)[[70, 20]]) == pytest.approx(0.5, abs=1e-6)


def test_contexts_depend_only_on_seed_split_and_index() -> None:
    few, many = MISALIGNED.contexts("train", 5, seed=2), MISALIGNED.contexts("train", 50, seed=2)
    np.testing.assert_array_equal(many[:5], few)
    assert few.shape == (5, 100)
    assert few.dtype == np.float32
    assert not np.array_equal(few, MISALIGNED.contexts("test", 5, seed=2))
    assert not np.array_equal(few, MISALIGNED.contexts("train", 5, seed=3))


def test_slips_are_named() -> None:
    with pytest.raises(UsageError, match="did you mean misaligned"):
        BinsTask(geometry="misalined")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"width=0.0 must be above 0"):
        BinsTask(width=0.0)
    with pytest.raises(UsageError, match="100 arms"):
        MISALIGNED.value([0.5, 0.5])
