"""Declared options: dataclass fields that know their unit, source and range, for methods, tasks and run settings alike."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
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
    """
    bounds = {"low": low, "high": high, "above": above, "below": below}
    metadata = {"help": help, "unit": unit, "source": source, **{k: v for k, v in bounds.items() if v is not None}}
    return dataclasses.field(default=default, metadata=metadata)


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
        return self.help + (f" [{self.unit}]" if self.unit else "") + (f" (source: {self.source})" if self.source else "")


@cache
def options_of(owner: type) -> tuple[Option, ...]:
    """The declared options of a dataclass in their order."""
    hints = get_type_hints(owner)
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
        if f.init
    )


def check_options(instance: Any) -> None:
    """Refuse values of the wrong type or outside their range.

    Raises:
        UsageError: names the option, its value and what is allowed.
    """
    hints = get_type_hints(type(instance))
    for f in dataclasses.fields(instance):
        value = getattr(instance, f.name)
        _check_type(f.name, value, hints[f.name])
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_range(f.name, value, f.metadata)


def _check_type(name: str, value: Any, hint: Any) -> None:
    if get_origin(hint) is Literal:
        choices: Sequence[Any] = get_args(hint)
        if value not in choices:
            raise UsageError(f"{name}={value!r} is not one of {', '.join(map(str, choices))}")
    elif hint is float and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise UsageError(f"{name}={value!r} must be a number")
    elif hint is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise UsageError(f"{name}={value!r} must be a whole number")
    elif hint is bool and not isinstance(value, bool):
        raise UsageError(f"{name}={value!r} must be true or false")


def _check_range(name: str, value: float, metadata: Any) -> None:
    limits = {
        "low": (lambda bound: value >= bound, "at least"),
        "high": (lambda bound: value <= bound, "at most"),
        "above": (lambda bound: value > bound, "above"),
        "below": (lambda bound: value < bound, "below"),
    }
    present = [(key, metadata[key]) for key in limits if key in metadata]
    if math.isnan(value) or any(not limits[key][0](bound) for key, bound in present):
        rule = " and ".join(f"{limits[key][1]} {bound:g}" for key, bound in present) or "a number"
        raise UsageError(f"{name}={value} must be {rule}")
