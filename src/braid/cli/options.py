"""Command-line options made from declared ones: every hyper-parameter with default, unit and source in `--help`."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from braid.errors import UsageError
from braid.options import Option, options_of
from braid.training.configuration import ALIASES


def parse(
    program: str, description: str, groups: dict[str, Sequence[Option]], own: Sequence[Option], arguments: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read options.

    Args:
        program: shown in the usage line.
        description: shown above the options.
        groups: title -> options of a method, a task, the run.
        own: options of the command itself.
        arguments: what was typed.

    Returns:
        The command's own options, all of them; and of the groups only those that were given.
    """
    import tyro

    fields: dict[str, tuple[str, Any, Any]] = {}
    for title, options in groups.items():
        for option in options:
            fields.setdefault(option.name, (option.name, *_field(option, title)))
    own_fields = {option.name: (option.name, *_field(option, "command")) for option in own}
    shape = dataclasses.make_dataclass("Options", [*own_fields.values(), *(f for n, f in fields.items() if n not in own_fields)])
    parsed = tyro.cli(shape, prog=program, description=description, args=list(arguments))
    defaults = {f.name: f.default for f in dataclasses.fields(shape)}
    values = {name: getattr(parsed, name) for name in defaults}
    given = {n: v for n, v in values.items() if n not in own_fields and v != defaults[n]}
    return {n: values[n] for n in own_fields}, given


def _field(option: Option, group: str) -> tuple[Any, Any]:
    import tyro

    short = [alias for alias, name in ALIASES.items() if name == option.name]
    note = tyro.conf.arg(
        help=option.description.replace("%", "%%"),
        aliases=[f"--{alias}" for alias in short] or None,
        help_behavior_hint=f"(default: {option.default})" if option.default not in ("", None) else "(default: none)",
    )
    default = option.default
    return Annotated[_typed(option.type), note], dataclasses.field(default=default)


def _typed(hint: Any) -> Any:
    """The annotation as the command line can read it: what is not a plain value is read as text."""
    if hint in (int, float, str, bool) or get_origin(hint) in (Literal, tuple):
        return hint
    if get_origin(hint) in (Union, types.UnionType):
        members = get_args(hint)
        plain = [m for m in members if m in (int, float, str)]
        base = plain[0] if plain else str
        return base | None if type(None) in members else base
    return str


def take_option(arguments: Sequence[str], name: str, default: str) -> str:
    """The value of `--name value` or `--name=value`, before the rest can be read.

    Raises:
        UsageError: the value is missing.
    """
    for index, word in enumerate(arguments):
        if word == f"--{name}":
            if index + 1 == len(arguments):
                raise UsageError(f"--{name} needs a value")
            return arguments[index + 1]
        if word.startswith(f"--{name}="):
            return word.partition("=")[2]
    return default


def words_before_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split `a b --c d` into `[a, b]` and `[--c, d]`."""
    for index, word in enumerate(arguments):
        if word.startswith("-"):
            return list(arguments[:index]), list(arguments[index:])
    return list(arguments), []


