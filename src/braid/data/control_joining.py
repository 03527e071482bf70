"""Episodes from single ones, and from several sets of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from braid.data.control_arrays import Allocate, Array, in_memory, join
from braid.data.control_assembly import EpisodeArrays
from braid.data.episodes import Episode, Episodes
from braid.errors import DataError, UsageError

ALIASES = {"terminated": ("terminated", "terminations"), "truncated": ("truncated", "truncations")}
"""What Gymnasium and Minari call the same arrays."""


def as_episode(value: Any, place: str) -> Episode:
    """One episode as recorded elsewhere: a mapping or an object such as Minari's `EpisodeData`.

    Args:
        value: with `observations`, `actions`, `rewards`, `terminations` (or `terminated`), `truncations` (or
            `truncated`), and perhaps `infos`, `behaviour_log_prob` and `action_mask`.
        place: what to call it in an error.

    Raises:
        DataError: a missing key, or lists that make no array.
    """
    if isinstance(value, Episode):
        return value
    found: dict[str, Any] = {}
    for name in (f.name for f in fields(Episode)):
        for key in ALIASES.get(name, (name,)):
            item = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
            if item is not None:
                found[name] = item
    infos = found.pop("infos", {})
    for name in ("observations", "actions", "rewards", "terminated", "truncated"):
        if name not in found:
            known = ", ".join(value) if isinstance(value, Mapping) else type(value).__name__
            raise DataError(f"{place} has no {' or '.join(ALIASES.get(name, (name,)))!r}; it holds: {known}")
    arrays = {name: _as_array(item, f"{name} of {place}") for name, item in found.items()}
    if arrays["rewards"].dtype.kind in "iu":
        arrays["rewards"] = arrays["rewards"].astype(np.float64)
    return Episode(**arrays, infos={str(k): _as_array(v, f"infos[{k!r}] of {place}") for k, v in infos.items()})


def join_episodes(
    episodes: Iterable[Any],
    *,
    attributes: Mapping[str, Any] | None = None,
    observation_space: Any = None,
    action_space: Any = None,
    source: str = "the episodes",
) -> Episodes:
    """Single episodes as one set in memory.

    Args:
        episodes: `Episode`, mappings or objects as `as_episode` takes them.
        attributes: as in `Episodes`, and so are all others.
        observation_space: as in `Episodes`.
        action_space: as in `Episodes`.
        source: as in `Episodes`.

    Raises:
        DataError: no episode, or a bad one.
    """
    parts = [as_episode(value, f"{source}: episode {number}") for number, value in enumerate(episodes)]
    steps, rows = sum(map(len, parts)), sum(len(part.observations) for part in parts)
    arrays = EpisodeArrays(steps, rows, in_memory, source)
    for part in _of_one_type(parts):
        arrays.add(part)
    return arrays.finish(attributes or {}, observation_space, action_space)


def concatenate(parts: Sequence[Episodes], allocate: Allocate = in_memory) -> Episodes:
    """All episodes of several sets, in order.

    Args:
        parts: with observations and actions of one shape; optional arrays and infos that one lacks are left out, and
            so are attributes and spaces in which they differ.
        allocate: `in_folder(path)` of `braid.data.control_arrays` for more than fits into memory.

    Raises:
        UsageError: no parts, or shapes that differ.
    """
    if not parts:
        raise UsageError("there are no episodes to concatenate")
    for name in ("observations", "actions", "action_mask"):
        given = [getattr(part, name) for part in parts if getattr(part, name) is not None]
        shapes = {(array.shape[1:], array.dtype.kind) for array in given}
        if len(shapes) > 1:
            shown = " and ".join(f"{shape} of kind {kind!r}" for shape, kind in sorted(shapes))
            raise UsageError(f"{name} of {shown} cannot be joined; concatenate episodes of one environment")

    def joined(name: str) -> Array | None:
        arrays = [getattr(part, name) for part in parts]
        return None if any(array is None for array in arrays) else join(name, arrays, allocate)

    def shared(values: Sequence[Any]) -> bool:
        return all(value == values[0] for value in values[1:])

    first = parts[0]
    infos = {}
    for key in first.infos:
        arrays = [part.infos.get(key) for part in parts]
        known = [array for array in arrays if array is not None]
        per_step = all(len(array) == part.num_steps for array, part in zip(known, parts, strict=False))
        per_row = all(len(array) == len(part.observations) for array, part in zip(known, parts, strict=False))
        if len(known) == len(parts) and (per_step or per_row) and shared([array.shape[1:] for array in known]):
            infos[key] = join(f"infos/{key}", known, allocate)
    return Episodes(
        observations=join("observations", [part.observations for part in parts], allocate),
        actions=join("actions", [part.actions for part in parts], allocate),
        rewards=join("rewards", [part.rewards for part in parts], allocate),
        terminated=join("terminals", [part.terminated for part in parts], allocate),
        truncated=join("timeouts", [part.truncated for part in parts], allocate),
        lengths=np.concatenate([part.lengths for part in parts]),
        final_known=np.concatenate([part.final_known for part in parts]),
        behaviour_log_prob=joined("behaviour_log_prob"),
        action_mask=joined("action_mask"),
        infos=infos,
        attributes={k: v for k, v in first.attributes.items() if all(p.attributes.get(k) == v for p in parts)},
        observation_space=first.observation_space if shared([p.observation_space for p in parts]) else None,
        action_space=first.action_space if shared([p.action_space for p in parts]) else None,
        source=first.source if shared([p.source for p in parts]) else "the joined episodes",
        check=False,
    )


def _as_array(value: Any, place: str) -> Array:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{place} makes no array ({error}); give rows of one shape") from error
    return array


def _of_one_type(parts: Sequence[Episode]) -> list[Episode]:
    """The episodes with each array in the smallest type that holds it in all of them."""
    types = {}
    for name in ("observations", "actions", "rewards"):
        kinds = {getattr(part, name).dtype for part in parts}
        types[name] = np.result_type(*kinds) if kinds and all(kind.kind in "fiub" for kind in kinds) else None
    return [
        replace(part, **{k: getattr(part, k).astype(v, copy=False) for k, v in types.items() if v is not None})
        for part in parts
    ]
