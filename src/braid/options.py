"""Declared options: dataclass fields that know their unit, source and range, for methods, tasks and run settings."""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from braid.errors import UsageError


def option(
    default: Any,
    help: str,
    *,
    unit: str = "",
    source: str = "",
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A dataclass field that knows what it means.

    Args:
        default: its value if nothing else is said.
        help: one phrase.
        unit: what a value of 1 is one of.
        source: where the default comes from.
        low: smallest allowed value.
        high: largest allowed value.
        above: every allowed value is larger than this.
        below: every allowed value is smaller than this.
        choices: the allowed values, where the annotation does not list them.

    The bounds of a tuple hold for each of its items.
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    metadata = {"help": help, "unit": unit, "source": source, **{k: v for k, v in bounds.items() if v is not None}}
    return dataclasses.field(default=default, metadata={**metadata, "choices": tuple(choices)})


def inherit(owner: type, name: str, default: Any, source: str = "") -> Any:
    """The field `name` of another dataclass with a new default; everything else about it stays.

    Args:
        owner: the dataclass that declares the field.
        name: of the field.
        default: the new default.
        source: where the new default comes from.
    """
    declared = {f.name: f for f in dataclasses.fields(owner)}[name]
    return dataclasses.field(default=default, metadata={**declared.metadata, "source": source})


@dataclass(frozen=True)
class Option:
    """A declared option, for help texts and tables.

    Args:
        name: of the field.
        type: annotation with aliases resolved.
        default: its default; `dataclasses.MISSING` if it has none.
        help: one phrase.
        unit: of the value.
        source: of the default.
    """

    name: str
    type: Any
    default: Any
    help: str
    unit: str
    source: str

    @property
    def description(self) -> str:
        """Help, unit and source in one line."""
        return (
            self.help + (f" [{self.unit}]" if self.unit else "") + (f" (source: {self.source})" if self.source else "")
        )


@cache
def options_of(owner: type) -> tuple[Option, ...]:
    """The declared options of a dataclass in their order, without those its `unused` names."""
    hints = get_type_hints(owner)
    unused: frozenset[str] = getattr(owner, "unused", frozenset())
    return tuple(
        Option(
            f.name,
            hints[f.name],
            f.default,
            f.metadata.get("help", ""),
            f.metadata.get("unit", ""),
            f.metadata.get("source", ""),
        )
        for f in dataclasses.fields(owner)
        if f.init and f.name not in unused
    )


def check_options(instance: Any) -> None:
    """Refuse values of the wrong type or outside their range, and options that the class says have no effect.

    Raises:
        UsageError: names the option, its value and what is allowed.
    """
    hints = get_type_hints(type(instance))
    unused: frozenset[str] = getattr(instance, "unused", frozenset())
    for f in dataclasses.fields(instance):
        if f.name in unused and getattr(instance, f.name) != f.default:
            raise UsageError(f"{f.name} has no effect on {type(instance).__name__}; leave it out")
        value, hint = getattr(instance, f.name), hints[f.name]
        choices = get_args(hint) if get_origin(hint) is Literal else f.metadata.get("choices")
        if choices:
            if value not in choices:
                close = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise UsageError(f"{f.name}={value!r} is not one of {', '.join(map(str, choices))}{hint}")
        elif get_origin(hint) is tuple:
            if not isinstance(value, tuple):
                raise UsageError(f"{f.name}={value!r} must be a tuple")
            for item in value:
                _check_value(f"{f.name}={value!r}: {item!r}", item, get_args(hint)[0], f.metadata)
        else:
            _check_value(f"{f.name}={value!r}", value, hint, f.metadata)


def _check_value(shown: str, value: Any, hint: Any, metadata: Mapping[str, Any]) -> None:
    kind = _KINDS.get(hint)
    if kind is not None and (not isinstance(value, kind[0]) or (isinstance(value, bool) and hint is not bool)):
        raise UsageError(f"{shown} must be {kind[1]}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        present = [(words, metadata[key], holds) for key, words, holds in _BOUNDS if key in metadata]
        if math.isnan(value) or not all(holds(value, bound) for _, bound, holds in present):
            rule = " and ".join(f"{words} {bound:g}" for words, bound, _ in present) or "a number"
            raise UsageError(f"{shown} must be {rule}")


_KINDS: dict[Any, tuple[Any, str]] = {
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    bool: (bool, "true or false"),
    str: (str, "text"),
}
_BOUNDS = (
    ("low", "at least", operator.ge),
    ("high", "at most", operator.le),
    ("above", "above", operator.gt),
    ("below", "below", operator.lt),
)
