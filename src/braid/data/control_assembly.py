"""Episodes that come one after another, put into flat arrays whose size is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from braid.data.control_arrays import CHUNK_BYTES, Allocate, Array, plain_name, release
from braid.data.episodes import Episode, Episodes
from braid.errors import DataError

FILE_NAMES = {"terminated": "terminals", "truncated": "timeouts"}
"""Names of arrays in files, where they differ from those in `Episodes`; D4RL's words."""

OPTIONAL = ("behaviour_log_prob", "action_mask")
NAMES = ("observations", "actions", "rewards", "terminated", "truncated", *OPTIONAL)


class EpisodeArrays:
    """Flat arrays under construction; the first episode tells shapes and types.

    Infos are kept where every episode has them, in one shape; the names of others end in the attribute
    `infos_left_out`.

    Args:
        steps: of all episodes.
        rows: of observations of all episodes.
        allocate: where the arrays go.
        source: for error messages.
    """

    def __init__(self, steps: int, rows: int, allocate: Allocate, source: str) -> None:
        self.steps, self.rows, self.allocate, self.source = steps, rows, allocate, source
        self.arrays: dict[str, Array] = {}
        self.infos: dict[str, Array] = {}
        self.left_out: set[str] = set()
        self.lengths: list[int] = []
        self.final_known: list[bool] = []
        self.step = self.row = self._resident = 0

    def add(self, episode: Episode) -> None:
        """Copies one episode behind those before it.

        Raises:
            DataError: lengths that differ, more steps than were announced, or shapes, types or arrays that differ from
                those of the first episode.
        """
        place, length, seen = f"{self.source}: episode {len(self.lengths)}", len(episode), len(episode.observations)
        arrays = {name: getattr(episode, name) for name in NAMES if getattr(episode, name) is not None}
        for name, array in arrays.items():
            if name != "observations" and len(array) != length:
                raise DataError(f"{place} has {length} rewards but {len(array)} {name}; give one of each a step")
        if seen not in (length, length + 1):
            raise DataError(f"{place} has {seen} observations for {length} steps; give {length + 1}")
        if self.step + length > self.steps or self.row + seen > self.rows:
            raise DataError(f"{place} goes beyond the {self.steps} steps that the data set announces; write it again")
        if not self.lengths:
            self._allocate(episode, arrays)
        odd = sorted(set(arrays) ^ set(self.arrays))
        if odd:
            raise DataError(f"{place} differs from episode 0 in having {', '.join(odd)}; give it for all or for none")
        for name, array in arrays.items():
            target = self.arrays[name]
            if array.shape[1:] != target.shape[1:] or not np.can_cast(array.dtype, target.dtype, "safe"):
                raise DataError(
                    f"{place}: {name} of shape {array.shape[1:]} and type {array.dtype} do not fit those of "
                    f"episode 0, {target.shape[1:]} and {target.dtype}; write all episodes alike"
                )
            at = self.row if name == "observations" else self.step
            target[at : at + len(array)] = array
            self._resident += array.nbytes
        self._add_infos(episode.infos, length, seen)
        self.lengths.append(length)
        self.final_known.append(seen > length)
        self.step, self.row = self.step + length, self.row + seen
        if self._resident > CHUNK_BYTES:
            release(*self.arrays.values(), *self.infos.values())
            self._resident = 0

    def finish(self, attributes: Mapping[str, Any], observation_space: Any, action_space: Any) -> Episodes:
        """The checked episodes.

        Raises:
            DataError: no episode, fewer steps than were announced, or bad contents.
        """
        if not self.lengths:
            raise DataError(f"{self.source} holds no episode")
        if (self.step, self.row) != (self.steps, self.rows):
            raise DataError(
                f"{self.source} announces {self.steps} steps, but its episodes have {self.step}; write it again"
            )
        left_out = {"infos_left_out": sorted(self.left_out)} if self.left_out else {}
        arrays: dict[str, Any] = dict(self.arrays)
        return Episodes(
            **arrays,
            lengths=np.array(self.lengths),
            final_known=np.array(self.final_known),
            infos=self.infos,
            attributes={**attributes, **left_out},
            observation_space=observation_space,
            action_space=action_space,
            source=self.source,
        )

    def _allocate(self, episode: Episode, arrays: Mapping[str, Array]) -> None:
        length, seen = len(episode), len(episode.observations)
        for name, array in arrays.items():
            size = self.rows if name == "observations" else self.steps
            self.arrays[name] = self.allocate(FILE_NAMES.get(name, name), (size, *array.shape[1:]), array.dtype)
        for key, info in episode.infos.items():
            if info.ndim and info.dtype.kind in "fiub" and len(info) in (length, seen) and plain_name(key):
                size = self.rows if len(info) == seen else self.steps
                self.infos[key] = self.allocate(f"infos/{key}", (size, *info.shape[1:]), info.dtype)

    def _add_infos(self, infos: Mapping[str, Array], length: int, seen: int) -> None:
        for key in list(self.infos):
            target, info = self.infos[key], infos.get(key)
            at, size = (self.row, seen) if len(target) == self.rows else (self.step, length)
            if info is None or info.shape != (size, *target.shape[1:]):
                del self.infos[key]
                self.left_out.add(key)
            else:
                target[at : at + size] = info
                self._resident += info.nbytes
        self.left_out |= set(infos) - set(self.infos)
