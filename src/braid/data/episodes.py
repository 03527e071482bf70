"""The record of control data: whole episodes as flat arrays that may be memory maps, read step by step as tensors.

A time limit is never a terminal. `terminated` says that the world ended (nothing is earned after it), `truncated` that
the recording was cut by a time limit (the value goes on), and an episode that is neither at its last step is
unfinished: the recording just stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from braid.data.control_arrays import Array, ResidentLimit
from braid.data.control_checks import check_episodes
from braid.data.transitions import Transitions
from braid.errors import DataError, UsageError


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode of T steps, the arrays of `Episodes` cut to it.

    Args:
        observations: [T + 1, ...], or [T, ...] if the final observation is not known.
        actions: [T, A] float or [T] int.
        rewards: [T].
        terminated: [T] bool, at most the last one True.
        truncated: [T] bool, at most the last one True.
        behaviour_log_prob: [T], or None.
        action_mask: [T, K] bool, or None.
        infos: named arrays with a row per step or per observation.
    """

    observations: Array
    actions: Array
    rewards: Array
    terminated: Array
    truncated: Array
    behaviour_log_prob: Array | None = None
    action_mask: Array | None = None
    infos: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True, eq=False)
class Episodes:
    """E episodes of N steps in all, one after another in flat arrays.

    The observations of an episode of T steps are T + 1 rows, so that what was seen after the last step is kept; T rows
    if that is not known (a D4RL file without `next_observations`). Nothing is ever put in its place: `transitions`
    refuses the last step of such an episode unless it terminated, and `usable_steps` leaves it out.

    Args:
        observations: [N + number of known final observations, ...].
        actions: [N, A] float or [N] whole numbers.
        rewards: [N].
        terminated: [N] bool, True only at last steps.
        truncated: [N] bool, True only at last steps; both may be True at once.
        lengths: [E] steps of each episode, each at least 1.
        final_known: [E] bool, whether the final observation is there; None for all or none, as the rows tell.
        behaviour_log_prob: [N], or None.
        action_mask: [N, K] bool, or None; column k is the action `action_space.start` + k.
        infos: named arrays with a row per step or per observation.
        attributes: what is known of the whole: `environment` (id), `seed`, `policy` …; values that JSON can hold.
        observation_space: Gymnasium space, or None.
        action_space: Gymnasium Box or Discrete that every action must be in, or None.
        source: where the episodes come from, for error messages.
        check: False leaves out the look at every single number, for arrays that were checked before.

    Raises:
        DataError: an array of the wrong length or kind, an end before the last step, a number that is not finite, an
            action outside its space or mask; names array, episode and step.
    """

    observations: Array
    actions: Array
    rewards: Array
    terminated: Array
    truncated: Array
    lengths: Array
    final_known: Array = None  # type: ignore[assignment]
    behaviour_log_prob: Array | None = None
    action_mask: Array | None = None
    infos: Mapping[str, Array] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    observation_space: Any = None
    action_space: Any = None
    source: str = "the episodes"
    check: InitVar[bool] = True
    _resident: ResidentLimit = field(default_factory=ResidentLimit, init=False, repr=False)

    def __post_init__(self, check: bool) -> None:
        lengths = np.asarray(self.lengths)
        if lengths.ndim != 1 or not len(lengths) or lengths.dtype.kind not in "iu":
            raise DataError(
                f"{self.source}: lengths must be a row of whole numbers, one for each of 1 or more episodes"
            )
        if lengths.min() < 1:
            episode = int(lengths.argmin())
            raise DataError(f"{self.source}: episode {episode} has {lengths[episode]} steps; leave empty episodes out")
        object.__setattr__(self, "lengths", lengths.astype(np.int64))
        if self.final_known is None:
            extra = len(self.observations) - self.num_steps
            if extra not in (0, len(lengths)):
                raise DataError(
                    f"{self.source}: observations has {len(self.observations)} rows; {self.num_steps} steps of "
                    f"{len(lengths)} episodes need {self.num_steps + len(lengths)} with their final observations, or "
                    f"{self.num_steps} without; if only some are known, say which with final_known"
                )
            object.__setattr__(self, "final_known", np.full(len(lengths), extra > 0))
        elif np.shape(self.final_known) != lengths.shape:
            raise DataError(f"{self.source}: final_known must have a value for each of {len(lengths)} episodes")
        object.__setattr__(self, "final_known", np.asarray(self.final_known, dtype=np.bool_))
        if check:
            check_episodes(self)

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.lengths)

    @property
    def num_steps(self) -> int:
        """Number of steps of all episodes."""
        return int(self.lengths.sum())

    @cached_property
    def starts(self) -> Array:
        """[E + 1] int64: where the steps of each episode begin, and the number of all."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @cached_property
    def observation_starts(self) -> Array:
        """[E + 1] int64: where the observations of each episode begin, and the number of all."""
        return np.concatenate([[0], np.cumsum(self.lengths + self.final_known)])

    @property
    def finished(self) -> Array:
        """[E] bool: the last step is terminated or truncated; False where the recording just stopped."""
        last = self.starts[1:] - 1
        return np.asarray(self.terminated[last] | self.truncated[last])

    @property
    def returns(self) -> Array:
        """[E] float64: undiscounted return of each episode."""
        return np.bincount(np.repeat(np.arange(len(self)), self.lengths), weights=self.rewards)

    def rewards_to_go(self, discount: float = 1.0) -> Array:
        """[N] float64: the discounted sum of the rewards from each step to the end of its episode, nothing after it.

        Args:
            discount: in [0, 1].
        """
        if not 0 <= discount <= 1:
            raise UsageError(f"discount={discount} must lie between 0 and 1")
        total = np.array(self.rewards, dtype=np.float64)
        order = np.argsort(-self.lengths, kind="stable")
        starts, lengths = self.starts[:-1][order], self.lengths[order]
        for step in range(int(lengths[0]) - 2, -1, -1):
            rows = starts[: np.searchsorted(-lengths, -(step + 1), side="left")] + step
            total[rows] += discount * total[rows + 1]
        return total

    def locate(self, step: int) -> tuple[int, int]:
        """Episode and step within it of a step counted over all episodes."""
        episode = int(np.searchsorted(self.starts, step, side="right")) - 1
        return episode, step - int(self.starts[episode])

    def usable_steps(self, *, require_next_observation: bool = False) -> Array:
        """The steps that `transitions` takes, counted over all episodes.

        Args:
            require_next_observation: also leave out terminal steps whose final observation is not known, for models of
                the dynamics; for values they are sound, as nothing follows them.

        Returns:
            [M] int64, all N steps where every final observation is known.
        """
        last = self.starts[1:] - 1
        out = last[~self.final_known & (require_next_observation | ~self.terminated[last])]
        return np.delete(np.arange(self.num_steps), out) if len(out) else np.arange(self.num_steps)

    def transitions(self, steps: Sequence[int] | Array | Tensor) -> Transitions:
        """The named steps as tensors; only their rows are read.

        Args:
            steps: [B] whole numbers in [0, N), counted over all episodes.

        Raises:
            UsageError: a step that is not there.
            DataError: the last step of an episode that did not terminate and whose final observation is not known.
        """
        rows = self.checked_steps(steps)
        episode = np.searchsorted(self.starts, rows, side="right") - 1
        last = rows == self.starts[episode + 1] - 1
        seen = rows - self.starts[episode] + self.observation_starts[episode]
        terminated = self.terminated[rows]
        unknown = last & ~self.final_known[episode]
        lost = unknown & ~terminated
        if lost.any():
            place, step = self.locate(int(rows[lost][0]))
            raise DataError(
                f"{self.source}: what was seen after step {step} of episode {place} is not known, so its value cannot "
                "be continued; take steps from usable_steps()"
            )
        batch = Transitions(
            observation=as_tensor(self.observations[seen]),
            action=as_tensor(self.actions[rows]),
            reward=as_tensor(self.rewards[rows]).float(),
            next_observation=as_tensor(self.observations[seen + ~unknown]),
            terminated=torch.from_numpy(np.array(terminated)),
            truncated=torch.from_numpy(np.array(self.truncated[rows] | (last & ~terminated))),
            behaviour_log_prob=None if self.behaviour_log_prob is None else as_tensor(self.behaviour_log_prob[rows]),
            action_mask=None if self.action_mask is None else as_tensor(self.action_mask[rows]),
            batch_size=[len(rows)],
        )
        self.note_read(2 * len(rows))
        return batch

    def episode(self, index: int) -> Episode:
        """One episode; its arrays are views."""
        if not -len(self) <= index < len(self):
            raise UsageError(f"episode {index} is not there: there are {len(self)}, counted from 0")
        part = self.subset([index % len(self)])
        return Episode(
            part.observations,
            part.actions,
            part.rewards,
            part.terminated,
            part.truncated,
            part.behaviour_log_prob,
            part.action_mask,
            part.infos,
        )

    def __iter__(self) -> Iterator[Episode]:
        return (self.episode(index) for index in range(len(self)))

    def subset(self, indices: Sequence[int] | Array) -> Episodes:
        """Some of the episodes, in the given order; a view if they follow one another, a copy in memory otherwise.

        To train on a part of a data set larger than memory, draw `transitions` from the steps of the part instead.

        Args:
            indices: whole numbers in [0, E), or [E] booleans.

        Raises:
            UsageError: no episode, or one that is not there.
        """
        chosen = np.asarray(indices)
        if chosen.dtype == np.bool_ and chosen.shape == (len(self),):
            chosen = np.flatnonzero(chosen)
        if chosen.ndim != 1 or not len(chosen) or chosen.dtype.kind not in "iu":
            raise UsageError("a subset needs the numbers of one or more episodes")
        if chosen.min() < 0 or chosen.max() >= len(self):
            wrong = chosen[(chosen < 0) | (chosen >= len(self))][0]
            raise UsageError(f"episode {wrong} is not there: there are {len(self)}, counted from 0")
        steps, rows = (_ranges(bounds, chosen) for bounds in (self.starts, self.observation_starts))
        return self._with_steps(steps, rows, self.lengths[chosen], self.final_known[chosen], self.truncated[steps])

    def without_unknown_successors(self) -> Episodes:
        """The same episodes without the steps that `usable_steps` leaves out, each ended one step earlier.

        The observation of the step that is left out is then the known final one, and the step before it carries the
        flags. Episodes of a single such step vanish. Whatever bootstraps reads the same numbers from the result; its
        returns lack the last rewards.
        """
        last = self.starts[1:] - 1
        short = ~self.final_known & ~self.terminated[last]
        if not short.any():
            return self
        if not (self.lengths - short).any():
            raise DataError(f"{self.source}: no step is left when those without a known next observation are left out")
        kept = np.flatnonzero(self.lengths > short)
        base = self.subset(kept) if len(kept) < len(self) else self
        short = short[kept]
        steps, last = base.usable_steps(), base.starts[1:] - 1
        truncated = np.array(base.truncated)
        truncated[last[short] - 1] = truncated[last[short]]
        everything = slice(0, len(base.observations))
        return base._with_steps(steps, everything, base.lengths - short, base.final_known | short, truncated[steps])

    def _with_steps(
        self, steps: slice | Array, rows: slice | Array, lengths: Array, final_known: Array, truncated: Array
    ) -> Episodes:
        """The named steps and rows of observations as episodes; they are known to be sound."""
        return replace(
            self,
            observations=self.observations[rows],
            actions=self.actions[steps],
            rewards=self.rewards[steps],
            terminated=self.terminated[steps],
            truncated=truncated,
            lengths=lengths,
            final_known=final_known,
            behaviour_log_prob=None if self.behaviour_log_prob is None else self.behaviour_log_prob[steps],
            action_mask=None if self.action_mask is None else self.action_mask[steps],
            infos={k: v[steps if len(v) == self.num_steps else rows] for k, v in self.infos.items()},
            check=False,
        )

    def note_read(self, rows: int) -> None:
        """To be called after random rows were read: keeps memory maps from becoming resident as a whole.

        Args:
            rows: read of each array.
        """
        self._resident.after(
            rows,
            self.observations,
            self.actions,
            self.rewards,
            self.terminated,
            self.truncated,
            self.behaviour_log_prob,
            self.action_mask,
        )

    def checked_steps(self, steps: Sequence[int] | Array | Tensor) -> Array:
        """Steps counted over all episodes as [B] int64.

        Raises:
            UsageError: not a row of whole numbers, or a step that is not there.
        """
        rows = np.asarray(steps)
        if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
            raise UsageError(f"steps of shape {rows.shape} and type {rows.dtype} must be a row of whole numbers")
        rows = rows.astype(np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= self.num_steps):
            wrong = rows[(rows < 0) | (rows >= self.num_steps)][0]
            raise UsageError(f"step {wrong} is not there: there are {self.num_steps}, counted from 0")
        return rows


def as_tensor(array: Array) -> Tensor:
    """A new tensor: floats as float32, images (uint8) and booleans as they are, other whole numbers as int64."""
    if array.dtype in (np.uint8, np.bool_):
        return torch.from_numpy(np.array(array))
    return torch.from_numpy(np.array(array, dtype=np.float32 if array.dtype.kind == "f" else np.int64))


def _ranges(bounds: Array, chosen: Array) -> slice | Array:
    """The rows of the chosen episodes: a slice where they follow one another."""
    if (np.diff(chosen) == 1).all():
        return slice(int(bounds[chosen[0]]), int(bounds[chosen[-1] + 1]))
    lengths = bounds[chosen + 1] - bounds[chosen]
    offsets = np.repeat(bounds[chosen] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return np.asarray(offsets + np.arange(lengths.sum()))
