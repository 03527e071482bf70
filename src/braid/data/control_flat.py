"""Episodes from D4RL's flat rows, one observation per action, wherever the arrays come from.

Row i holds the observation before action i, so the observation after the last action of an episode is in the file only
if it has `next_observations`. Without them the final observation stays unknown (see `Episodes`): the observation of row
i + 1 belongs to the next episode and is never used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from braid.data.control_arrays import Allocate, Array, chunks, chunks_of, copy_rows, release
from braid.data.control_npz import described, missing_key
from braid.data.episodes import Episodes
from braid.errors import DataError, UsageError

BEHAVIOUR = "infos/action_log_probs"
"""What D4RL calls the log-probability of the action under the policy that took it."""

UNFINISHED = "metadata/unfinished_episode_ends"
"""Rows whose time limit is none: the recording just stopped there, in the middle of the file."""

UNKNOWN = "metadata/next_observation_unknown"
"""Rows of `next_observations` that hold no observation."""

FINAL_INFOS = "metadata/final_infos/"
"""Infos of the final observations, where infos have a row per observation."""


def episodes_from_flat(
    arrays: Mapping[str, Any],
    *,
    source: str,
    allocate: Allocate,
    horizon: int | None = None,
    split_discontinuities: bool = False,
    value: Any = None,
    **known: Any,
) -> Episodes:
    """Cuts flat rows into episodes.

    An episode ends where `terminals` or `timeouts` say so. Without `timeouts` it is also truncated where
    `next_observations` is not the observation of the next row, and after `horizon` steps. What is left at the end of
    the file is an unfinished episode.

    Args:
        arrays: arrays or HDF5 data sets by their names in the file.
        source: for error messages.
        allocate: where large new arrays go.
        horizon: steps after which an episode is truncated, for files without `timeouts`.
        split_discontinuities: truncate episodes where `next_observations` is not the observation of the next row
            although the file has `timeouts`; otherwise that is an error.
        value: description of Braid's own files, or None.
        known: as in `braid.data.control_npz.described`.

    Raises:
        DataError: a missing key, lengths that differ, ends that are not 0 or 1, a discontinuity, or bad contents.
        UsageError: a horizon below 1, or for a file with `timeouts`.
    """
    for name in ("observations", "actions", "rewards", "terminals"):
        if name not in arrays:
            raise missing_key(source, name, arrays)
    rows = len(arrays["observations"])
    for name in ("next_observations", "actions", "rewards", "terminals", "timeouts"):
        if name in arrays and (arrays[name].ndim == 0 or len(arrays[name]) != rows):
            raise DataError(
                f"{source}: {name} has the shape {arrays[name].shape}, but there are {rows} observations; every key "
                "needs one row a step, so write the file again"
            )
    if rows == 0:
        raise DataError(f"{source} holds no step")
    terminated = _flags(arrays, "terminals", source)
    truncated = _flags(arrays, "timeouts", source) if "timeouts" in arrays else np.zeros(rows, np.bool_)
    _mark_discontinuities(arrays, terminated, truncated, split_discontinuities, source)
    if horizon is not None:
        _mark_horizon(terminated, truncated, horizon, "timeouts" in arrays, source)
    ends = np.flatnonzero(terminated | truncated)
    if not len(ends) or ends[-1] != rows - 1:
        ends = np.append(ends, rows - 1)
    if UNFINISHED in arrays:
        truncated[_row_numbers(arrays, UNFINISHED, rows, source)] = False
    final_known = np.full(len(ends), "next_observations" in arrays)
    if UNKNOWN in arrays:
        final_known &= ~np.isin(ends, _row_numbers(arrays, UNKNOWN, rows, source))
    behaviour = _column(arrays, BEHAVIOUR, rows)
    if behaviour is not None and not (behaviour.dtype.kind == "f" and np.isfinite(behaviour).all()):
        behaviour = None
    mask = arrays.get("infos/action_mask")
    if mask is not None and (mask.ndim != 2 or mask.dtype != np.bool_):
        mask = None
    taken = {BEHAVIOUR} if behaviour is not None else set()
    taken |= {"infos/action_mask"} if mask is not None else set()
    infos, left_out = _infos(arrays, rows, taken, ends[final_known], allocate)
    if "next_observations" in arrays:
        finals = arrays["next_observations"]
        observations = _with_finals("observations", arrays["observations"], finals, ends[final_known], allocate)
    else:
        observations = _loaded("observations", arrays["observations"], allocate)
    rewards = _column(arrays, "rewards", rows)
    fields = described(value, source, known)
    if left_out:
        fields["attributes"]["infos_left_out"] = left_out
    return Episodes(
        observations=observations,
        actions=_loaded("actions", arrays["actions"], allocate),
        rewards=arrays["rewards"][()] if rewards is None else rewards,
        terminated=terminated,
        truncated=truncated,
        lengths=np.diff(ends, prepend=-1),
        final_known=final_known,
        behaviour_log_prob=behaviour,
        action_mask=None if mask is None else _loaded("action_mask", mask, allocate),
        infos=infos,
        source=source,
        **fields,
    )


def _flags(arrays: Mapping[str, Any], name: str, source: str) -> Array:
    values = _column(arrays, name, len(arrays[name]))
    if values is None:
        raise DataError(f"{source}: {name} has the shape {arrays[name].shape}; give one value a step")
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if len(wrong):
        raise DataError(f"{source}: {name} of row {wrong[0]} is {values[wrong[0]]}; give 0 or 1")
    return values.astype(np.bool_)


def _column(arrays: Mapping[str, Any], name: str, rows: int) -> Array | None:
    """A number a row, read into memory; None if there is no such thing."""
    array = arrays.get(name)
    if array is None or array.shape not in ((rows,), (rows, 1)):
        return None
    return np.array(array[()]).reshape(rows)


def _row_numbers(arrays: Mapping[str, Any], name: str, rows: int, source: str) -> Array:
    numbers = np.asarray(arrays[name][()])
    if numbers.ndim != 1 or (len(numbers) and (numbers.dtype.kind not in "iu" or numbers.max() >= rows)):
        raise DataError(f"{source}: {name} must hold numbers of the {rows} rows; write the file again")
    return numbers.astype(np.int64)


def _mark_discontinuities(
    arrays: Mapping[str, Any], terminated: Array, truncated: Array, split: bool, source: str
) -> None:
    if "next_observations" not in arrays:
        return
    here, after = arrays["observations"], arrays["next_observations"]
    if after.shape != here.shape:
        raise DataError(
            f"{source}: next_observations has the shape {after.shape}, observations {here.shape}; make them equal"
        )
    for part in chunks_of(here):
        stop = min(part.stop, len(here) - 1)
        if part.start >= stop:
            break
        differs = (after[part.start : stop] != here[part.start + 1 : stop + 1]).reshape(stop - part.start, -1).any(1)
        ended = terminated[part.start : stop] | truncated[part.start : stop]
        broken = part.start + np.flatnonzero(differs & ~ended)
        release(here, after)
        if len(broken) and "timeouts" in arrays and not split:
            raise DataError(
                f"{source}: next_observations of row {broken[0]} is not the observation of row {broken[0] + 1}, but "
                "neither terminals nor timeouts end an episode there; repair the file, or end episodes at such rows "
                "with split_discontinuities=True"
            )
        truncated[broken] = True


def _mark_horizon(terminated: Array, truncated: Array, horizon: int, has_timeouts: bool, source: str) -> None:
    if has_timeouts:
        raise UsageError(f"horizon={horizon} was given, but {source} has timeouts; leave it out")
    if horizon < 1:
        raise UsageError(f"horizon={horizon} must be at least 1")
    ends = np.flatnonzero(terminated | truncated)
    starts = np.concatenate([[0], ends + 1])
    row = np.arange(len(terminated))
    step = row - starts[np.searchsorted(ends, row, side="left")]
    truncated |= ((step + 1) % horizon == 0) & ~terminated


def _infos(
    arrays: Mapping[str, Any], rows: int, taken: set[str], known_ends: Array, allocate: Allocate
) -> tuple[dict[str, Array], list[str]]:
    infos, left_out = {}, []
    for name, array in arrays.items():
        if not name.startswith("infos/") or name in taken:
            continue
        key = name.removeprefix("infos/")
        if array.ndim == 0 or len(array) != rows or array.dtype.kind not in "fiub":
            left_out.append(key)
        elif FINAL_INFOS + key in arrays:
            infos[key] = _with_finals(name, array, None, known_ends, allocate, arrays[FINAL_INFOS + key])
        else:
            infos[key] = _loaded(name, array, allocate)
    return infos, left_out


def _loaded(name: str, array: Any, allocate: Allocate) -> Array:
    """An array as it is; a HDF5 data set copied to where large arrays go."""
    if isinstance(array, np.ndarray):
        return array
    target = allocate(name, array.shape, array.dtype)
    copy_rows(array, target)
    return target


def _with_finals(
    name: str, array: Any, following: Any, known_ends: Array, allocate: Allocate, finals: Any = None
) -> Array:
    """Rows with the final ones put in behind the ends: those that follow the end rows, or a list of final ones."""
    target = allocate(name, (len(array) + len(known_ends), *array.shape[1:]), array.dtype)
    row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
    for part in chunks(len(array), row_bytes):
        rows = np.arange(part.start, part.stop)
        before = np.searchsorted(known_ends, rows, side="left")
        target[rows + before] = array[part]
        first, stop = np.searchsorted(known_ends, [part.start, part.stop])
        here = known_ends[first:stop]
        places = here + np.arange(first, stop) + 1
        target[places] = following[part][here - part.start] if finals is None else finals[first:stop]
        release(array, following, target)
    return target
