"""Windows of fixed length over episodes, padded on the left: what sequence models are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from tensordict import tensorclass
from torch import Tensor

from braid.data.control_arrays import Array
from braid.data.episodes import Episodes, as_tensor
from braid.errors import UsageError


@tensorclass(nocast=True)
class Windows:
    """The last L steps up to some step of an episode; batch size [B].

    Where an episode began less than L steps before, the window is padded on the left with zeros.

    Args:
        observation: [B, L, ...] as in `Transitions`.
        action: [B, L, A] float32 or [B, L] int64.
        reward: [B, L] float32.
        terminated: [B, L] bool.
        truncated: [B, L] bool, as recorded; False at the end of an unfinished episode.
        time_step: [B, L] int64, the step within its episode, from 0.
        step: [B, L] int64, the step counted over all episodes, to look other arrays up with; 0 where padded.
        mask: [B, L] bool, False where padded.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    time_step: Tensor
    step: Tensor
    mask: Tensor

    if TYPE_CHECKING:  # what tensorclass adds, for the type checker
        batch_size: Sequence[int] = ()

        def __len__(self) -> int: ...
        def __getitem__(self, index: object) -> Windows: ...
        def to(self, device: object) -> Windows: ...


def windows(episodes: Episodes, last_steps: Sequence[int] | Array | Tensor, length: int) -> Windows:
    """The windows that end at the named steps, never reaching into an earlier episode.

    Args:
        episodes: N steps.
        last_steps: [B] whole numbers in [0, N), counted over all episodes.
        length: L, at least 1.

    Raises:
        UsageError: a length below 1, or a step that is not there.
    """
    if length < 1:
        raise UsageError(f"length={length} must be at least 1")
    last = episodes.checked_steps(last_steps)
    episode = np.searchsorted(episodes.starts, last, side="right") - 1
    start = episodes.starts[episode][:, None]
    steps = last[:, None] + np.arange(1 - length, 1)
    mask = steps >= start
    steps = np.where(mask, steps, last[:, None])  # padded places read a row that is read anyway
    offset = steps - start
    present = torch.from_numpy(mask)

    def taken(array: Array, rows: Array) -> Tensor:
        values = as_tensor(array[rows.ravel()]).view(*mask.shape, *array.shape[1:])
        return values * present.view(*mask.shape, *[1] * (array.ndim - 1))

    batch = Windows(
        observation=taken(episodes.observations, episodes.observation_starts[episode][:, None] + offset),
        action=taken(episodes.actions, steps),
        reward=taken(episodes.rewards, steps).float(),
        terminated=taken(episodes.terminated, steps),
        truncated=taken(episodes.truncated, steps),
        time_step=torch.from_numpy(offset * mask),
        step=torch.from_numpy(steps * mask),
        mask=present,
        batch_size=[len(last)],
    )
    episodes.note_read(mask.size)
    return batch


def iterate_windows(
    episodes: Episodes,
    length: int,
    *,
    batch_size: int,
    stride: int = 1,
    generator: np.random.Generator | None = None,
) -> Iterator[Windows]:
    """Batches of windows over all episodes; the last batch may be smaller.

    Args:
        episodes: to be covered.
        length: L of each window.
        batch_size: windows at once, at least 1.
        stride: distance between the ends of two windows of an episode, counted back from its last step; with
            `stride == length` every step is in exactly one window.
        generator: shuffles the windows; None for the order of the episodes.

    Raises:
        UsageError: a length, batch size or stride below 1.
    """
    for name, value in (("length", length), ("batch_size", batch_size), ("stride", stride)):
        if value < 1:
            raise UsageError(f"{name}={value} must be at least 1")
    ends = np.repeat(episodes.starts[1:] - 1, episodes.lengths)
    last = np.flatnonzero((ends - np.arange(episodes.num_steps)) % stride == 0)
    if generator is not None:
        last = generator.permutation(last)
    return (windows(episodes, last[at : at + batch_size], length) for at in range(0, len(last), batch_size))
