"""What episodes must fulfil before anything is learned from them; every fault is named by array, episode and step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from braid.data.control_arrays import Array, chunks_of, release
from braid.errors import DataError, MissingExtra, UsageError

if TYPE_CHECKING:
    from braid.data.episodes import Episodes


def check_episodes(episodes: Episodes) -> None:
    """Refuses episodes whose lengths, ends, numbers or actions are wrong.

    Args:
        episodes: with `lengths` and `final_known` already checked by their constructor.

    Raises:
        DataError: lengths that differ, an end before the last step, a number that is not finite, an action outside
            its space or its mask; names the array, the episode and the step.
        UsageError: an action space that is neither a Box nor a Discrete.
    """
    steps, source = episodes.num_steps, episodes.source
    per_step = {
        "actions": episodes.actions,
        "rewards": episodes.rewards,
        "terminated": episodes.terminated,
        "truncated": episodes.truncated,
        "behaviour_log_prob": episodes.behaviour_log_prob,
        "action_mask": episodes.action_mask,
    }
    for name, array in per_step.items():
        if array is not None and len(array) != steps:
            raise DataError(f"{source}: {name} has {len(array)} rows, the episodes have {steps} steps; give one a step")
    rows = steps + int(episodes.final_known.sum())
    if len(episodes.observations) != rows:
        raise DataError(
            f"{source}: observations has {len(episodes.observations)} rows, but {steps} steps and "
            f"{rows - steps} known final observations make {rows}"
        )
    for name, array in episodes.infos.items():
        if len(array) not in (steps, rows):
            raise DataError(
                f"{source}: infos[{name!r}] has {len(array)} rows; give {steps} (one a step) or {rows} "
                "(one an observation), or leave it out"
            )
    _check_kinds(episodes)
    _check_ends(episodes)
    _check_finite(episodes, "observations", episodes.observations)
    _check_finite(episodes, "actions", episodes.actions)
    _check_finite(episodes, "rewards", episodes.rewards)
    if episodes.behaviour_log_prob is not None:
        _check_finite(episodes, "behaviour_log_prob", episodes.behaviour_log_prob)
    if episodes.action_space is not None:
        _check_space(episodes)
    if episodes.action_mask is not None:
        _check_mask(episodes)


def _check_kinds(episodes: Episodes) -> None:
    source, actions = episodes.source, episodes.actions
    vectors = actions.dtype.kind == "f" and actions.ndim == 2
    if not vectors and not (actions.dtype.kind in "iu" and actions.ndim == 1):
        raise DataError(
            f"{source}: actions have the shape {actions.shape} and the type {actions.dtype}; give floats [steps, "
            "dimensions] or whole numbers [steps]"
        )
    if episodes.observations.dtype.kind not in "fiub":
        raise DataError(f"{source}: observations have the type {episodes.observations.dtype}; give numbers")
    for name in ("rewards", "behaviour_log_prob"):
        array = getattr(episodes, name)
        if array is not None and (array.ndim != 1 or array.dtype.kind not in "fiu"):
            raise DataError(
                f"{source}: {name} has the shape {array.shape} and type {array.dtype}; give a number a step"
            )
    for name, dimensions in (("terminated", 1), ("truncated", 1), ("action_mask", 2)):
        array = getattr(episodes, name)
        if array is not None and (array.ndim != dimensions or array.dtype != np.bool_):
            raise DataError(
                f"{source}: {name} has the shape {array.shape} and type {array.dtype}; "
                f"give booleans with {dimensions} dimension{'s' * (dimensions > 1)}"
            )


def _check_ends(episodes: Episodes) -> None:
    for name in ("terminated", "truncated"):
        ends = np.flatnonzero(getattr(episodes, name))
        early = ends[~np.isin(ends, episodes.starts[1:] - 1)]
        if len(early):
            episode, step = episodes.locate(int(early[0]))
            raise DataError(
                f"{episodes.source}: episode {episode} is {name} at step {step}, but has "
                f"{episodes.lengths[episode]} steps; an episode ends only at its last step, so split it there"
            )


def _check_finite(episodes: Episodes, name: str, array: Array) -> None:
    if array.dtype.kind != "f":
        return
    for part in chunks_of(array):
        block = array[part]
        if not np.isfinite(block).all():
            place = np.argwhere(~np.isfinite(block))[0]
            row = part.start + int(place[0])
            where = _observation_place(episodes, row) if name == "observations" else _place(episodes, row)
            component = f", component {', '.join(map(str, place[1:]))}" if len(place) > 1 else ""
            raise DataError(
                f"{episodes.source}: {name} of {where}{component} is {block[tuple(place)]}; "
                "repair the value or leave the episode out"
            )
        release(array)


def _check_space(episodes: Episodes) -> None:
    try:
        from gymnasium.spaces import Box, Discrete
    except ImportError as error:
        raise MissingExtra("gymnasium", "control") from error
    space, actions = episodes.action_space, episodes.actions
    if isinstance(space, Discrete):
        low: Any = int(space.start)
        high: Any = int(space.start + space.n - 1)
        shape: tuple[int, ...] = ()
    elif isinstance(space, Box):
        low, high, shape = space.low, space.high, space.shape
    else:
        raise UsageError(
            f"action_space={space} is a {type(space).__name__}; actions are checked against Box or Discrete"
        )
    if actions.shape[1:] != shape or (shape == ()) != (actions.dtype.kind in "iu"):
        raise DataError(
            f"{episodes.source}: actions of shape {actions.shape[1:]} and type {actions.dtype} are none of {space}; "
            "give the space they were taken in"
        )
    for part in chunks_of(actions):
        block = actions[part]
        outside = (block < low) | (block > high)
        if outside.any():
            place = np.argwhere(outside)[0]
            row = part.start + int(place[0])
            raise DataError(
                f"{episodes.source}: action {np.asarray(actions[row]).tolist()} of {_place(episodes, row)} is outside "
                f"{space}; clip or rescale the actions, or give the right space"
            )
        release(actions)


def _check_mask(episodes: Episodes) -> None:
    mask, actions = episodes.action_mask, episodes.actions
    assert mask is not None
    start = int(getattr(episodes.action_space, "start", 0))
    if actions.ndim != 1:
        raise DataError(f"{episodes.source}: an action_mask needs whole-number actions; these are vectors")
    for part in chunks_of(mask):
        choice, allowed = actions[part].astype(np.int64) - start, mask[part]
        inside = (choice >= 0) & (choice < allowed.shape[1])
        wrong = ~inside
        wrong[inside] = ~allowed[np.flatnonzero(inside), choice[inside]]
        if wrong.any():
            row = part.start + int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"{episodes.source}: action {actions[row]} of {_place(episodes, row)} is forbidden by its action_mask; "
                "repair the mask or leave the episode out"
            )
        release(mask, actions)


def _place(episodes: Episodes, row: int) -> str:
    episode, step = episodes.locate(row)
    return f"episode {episode}, step {step} (row {row})"


def _observation_place(episodes: Episodes, row: int) -> str:
    starts = episodes.observation_starts
    episode = int(np.searchsorted(starts, row, side="right")) - 1
    step = row - int(starts[episode])
    final = ", its final observation" if step == episodes.lengths[episode] else ""
    return f"episode {episode}, step {step}{final} (row {row})"
