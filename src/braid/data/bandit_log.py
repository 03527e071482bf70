"""Logged decisions of a contextual bandit: which action was served with which probability, and what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from braid.errors import DataError, UsageError

NEVER = int(np.iinfo(np.int64).max)
"""The `arrival` of a reward that is never observed."""


@dataclass(frozen=True, eq=False)
class BanditLog:
    """N decisions in columns; K actions, D context features, F features of an action.

    A row holds its reward even before it has arrived: train on `known_at(now)` or `window(now, …)`, never on the whole.

    Args:
        t: [N] int64, number of the request, from 0.
        generation: [N] int64, which policy generation served it, from 0.
        x: [N, D] float32, context.
        action_features: [N, K, F] float32, features of every action; rows of unavailable actions are ignored.
        mask: [N, K] bool, the actions that could be served, without those that a rule eliminated beforehand.
        action: [N] int64, the served action, in [0, K).
        propensity: [N] float64, probability with which that action was served given x, in (0, 1].
        reward: [N] float64, of the served action.
        arrival: [N] int64, first generation at whose start the reward is known; `NEVER` if it is lost.
        uniform_bucket: [N] bool, whether the row belongs to a share of traffic that was drawn independently of x and
            served uniformly. `propensity` is that of the whole mixture all the same; see `bucket`.

    Raises:
        DataError: columns of different lengths, or a row that contradicts itself; names the row.
    """

    t: NDArray[np.int64]
    generation: NDArray[np.int64]
    x: NDArray[np.float32]
    action_features: NDArray[np.float32]
    mask: NDArray[np.bool_]
    action: NDArray[np.int64]
    propensity: NDArray[np.float64]
    reward: NDArray[np.float64]
    arrival: NDArray[np.int64]
    uniform_bucket: NDArray[np.bool_]

    def __post_init__(self) -> None:
        rows = len(self.t)
        for name, axes in _AXES.items():
            shape = np.shape(getattr(self, name))
            if len(shape) != axes or shape[0] != rows:
                raise DataError(f"column {name} has shape {shape}; expected {rows} rows and {axes} axes")
        if self.action_features.shape[1] != self.mask.shape[1]:
            raise DataError(f"action_features has {self.action_features.shape[1]} actions, mask {self.mask.shape[1]}")
        outside = (self.action < 0) | (self.action >= self.mask.shape[1])
        _refuse(outside, "action {action} is not among the actions of the mask", self)
        _refuse(~self.mask[np.arange(rows), self.action], "action {action} is unavailable by the mask", self)
        _refuse(~((self.propensity > 0) & (self.propensity <= 1)), "propensity {propensity} is not in (0, 1]", self)
        forced = (self.mask.sum(1) == 1) & (self.propensity < 1 - 1e-6)
        _refuse(forced, "propensity {propensity} of the only available action is not 1", self)
        _refuse(~np.isfinite(self.reward), "reward {reward} is not finite", self)

    def __len__(self) -> int:
        return len(self.t)

    def rows(self, chosen: ArrayLike) -> BanditLog:
        """The rows chosen by a boolean mask [N] or by positions [M], in that order."""
        index = np.asarray(chosen)
        return dataclasses.replace(self, **{name: getattr(self, name)[index] for name in _AXES})

    def known_at(self, generation: int) -> BanditLog:
        """The rows whose reward has arrived when `generation` starts."""
        return self.rows(self.arrival <= generation)

    def window(self, generation: int, generations: int | None) -> BanditLog:
        """The training set of a short memory: rows of the last few generations whose reward has arrived.

        Generations are counted back from the newest one with any known reward, so that a delay shifts the window
        rather than emptying it.

        Args:
            generation: the one that is about to start.
            generations: length W of the memory, at least 1; None for all.

        Returns:
            The known rows within the window, possibly none.

        Raises:
            UsageError: a window below 1.

        Source: arXiv 2412.00569.
        """
        if generations is not None and generations < 1:
            raise UsageError(f"generations={generations} must be at least 1, or None for all")
        known = self.known_at(generation)
        if generations is None or not len(known):
            return known
        return known.rows(known.generation > known.generation.max() - generations)

    def bucket(self) -> BanditLog:
        """The uniformly served rows alone, with the propensity 1 / (available actions) that holds among them."""
        chosen = self.rows(self.uniform_bucket)
        return dataclasses.replace(chosen, propensity=1.0 / chosen.mask.sum(1))

    @staticmethod
    def concatenate(logs: Sequence[BanditLog]) -> BanditLog:
        """All rows of several logs in order.

        Raises:
            UsageError: no log is given.
        """
        if not logs:
            raise UsageError("concatenate needs at least one log")
        return BanditLog(**{name: np.concatenate([getattr(log, name) for log in logs]) for name in _AXES})


_AXES = {
    "t": 1,
    "generation": 1,
    "x": 2,
    "action_features": 3,
    "mask": 2,
    "action": 1,
    "propensity": 1,
    "reward": 1,
    "arrival": 1,
    "uniform_bucket": 1,
}


def _refuse(wrong: NDArray[np.bool_], message: str, log: BanditLog) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        values = {name: getattr(log, name)[row] for name in ("action", "propensity", "reward")}
        raise DataError(f"row {row} of the log: {message.format(**values)}")
