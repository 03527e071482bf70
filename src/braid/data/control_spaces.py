"""Gymnasium's Box and Discrete spaces as JSON, so that files can keep them."""

from __future__ import annotations

from typing import Any

import numpy as np

from braid.errors import DataError, MissingExtra


def space_to_json(space: Any) -> dict[str, Any] | None:
    """What `space_from_json` makes the space of; None for no space and for spaces that are neither Box nor Discrete."""
    kind = type(space).__name__
    if kind == "Discrete":
        return {"type": kind, "n": int(space.n), "start": int(space.start)}
    if kind == "Box":
        low, high = space.low.tolist(), space.high.tolist()
        return {"type": kind, "low": low, "high": high, "dtype": str(space.dtype)}
    return None


def space_from_json(value: Any, place: str) -> Any:
    """The space of a description; None for None.

    Args:
        value: of `space_to_json`.
        place: what to call it in an error.

    Raises:
        DataError: no such description.
        MissingExtra: Gymnasium is not installed.
    """
    if value is None:
        return None
    try:
        from gymnasium.spaces import Box, Discrete
    except ImportError as error:
        raise MissingExtra("gymnasium", "control") from error
    try:
        if value["type"] == "Discrete":
            return Discrete(value["n"], start=value["start"])
        dtype = np.dtype(value["dtype"])
        return Box(np.array(value["low"], dtype), np.array(value["high"], dtype), dtype=dtype.type)
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise DataError(f"{place} is {value!r}, which describes no Box or Discrete space; write it again") from error
