"""The log of a bandit: what has arrived, the window of a short memory, the uniform bucket, rows that cannot be."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from braid.data.bandit_log import NEVER, BanditLog
from braid.errors import DataError, UsageError


def make_log(generation: list[int], arrival: list[int]) -> BanditLog:
    """Three actions, of which the last is unavailable in odd rows; the first is served."""
    n = len(generation)
    mask = np.ones((n, 3), dtype=bool)
    mask[1::2, 2] = False
    return BanditLog(
        t=np.arange(n),
        generation=np.array(generation, dtype=np.int64),
        x=np.zeros((n, 2), np.float32),
        action_features=np.zeros((n, 3, 1), np.float32),
        mask=mask,
        action=np.zeros(n, np.int64),
        propensity=np.full(n, 0.7),
        reward=np.ones(n),
        arrival=np.array(arrival, dtype=np.int64),
        uniform_bucket=np.arange(n) < 2,
    )


LOG = make_log([0, 0, 1, 1, 2, 2], [1, NEVER, 2, 3, 3, 4])


@pytest.mark.parametrize(
    ("now", "known"), [(0, []), (1, [0]), (2, [0, 2]), (3, [0, 2, 3, 4]), (4, [0, 2, 3, 4, 5]), (99, [0, 2, 3, 4, 5])]
)
def test_only_arrived_rewards_are_known(now: int, known: list[int]) -> None:
    assert LOG.known_at(now).t.tolist() == known
    assert LOG.window(now, None).t.tolist() == known


def test_the_window_counts_back_from_the_newest_known_generation() -> None:
    assert LOG.window(0, 1).t.tolist() == []
    assert LOG.window(3, 1).t.tolist() == [4]
    assert LOG.window(3, 2).t.tolist() == [2, 3, 4]
    assert LOG.window(3, 3).t.tolist() == [0, 2, 3, 4]
    late = make_log([0, 1, 2], [2, 3, 4])  # a delay of two generations
    assert [late.window(now, 1).t.tolist() for now in (1, 2, 3, 4)] == [[], [0], [1], [2]]
    with pytest.raises(UsageError, match="generations=0"):
        LOG.window(1, 0)


def test_the_bucket_has_the_propensity_that_holds_within_it() -> None:
    bucket = LOG.bucket()
    assert bucket.t.tolist() == [0, 1]
    assert bucket.propensity.tolist() == pytest.approx([1 / 3, 1 / 2])
    assert LOG.propensity[:2].tolist() == [0.7, 0.7]


def test_rows_and_joining() -> None:
    again = BanditLog.concatenate([LOG.rows([0, 1, 2]), LOG.rows(LOG.t > 2)])
    for field in dataclasses.fields(BanditLog):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(LOG, field.name))
    assert LOG.rows([5, 0]).t.tolist() == [5, 0]
    assert len(LOG.rows([False] * 6)) == 0
    with pytest.raises(UsageError, match="at least one log"):
        BanditLog.concatenate([])


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("action", [0, 2], "row 1 of the log: action 2 is unavailable"),
        ("action", [3, 0], "row 0 of the log: action 3 is not among"),
        ("action", [0, -1], "row 1 of the log: action -1 is not among"),
        ("propensity", [0.5, 0.0], r"row 1 of the log: propensity 0.0 is not in \(0, 1\]"),
        ("propensity", [0.5, np.nan], "row 1 of the log: propensity nan"),
        ("propensity", [1.5, 0.5], "row 0 of the log: propensity 1.5"),
        ("reward", [np.inf, 0.0], "row 0 of the log: reward inf"),
        ("mask", [[True, False, False], [True, True, False]], "row 0 of the log: propensity 0.7 of the only"),
        ("reward", [1.0], "column reward has shape"),
        ("x", [1.0, 2.0], "column x has shape"),
        ("mask", [[True, True], [True, True]], "action_features has 3 actions, mask 2"),
    ],
)
def test_rows_that_contradict_themselves_are_named(column: str, value: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        dataclasses.replace(LOG.rows([0, 1]), **{column: np.array(value)})
