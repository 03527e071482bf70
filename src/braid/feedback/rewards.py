"""Find reward functions by name, path or combination, and call them with their results checked."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from braid.errors import UsageError, unknown_name
from braid.feedback.scoring import RewardFunction, name_of, score
from braid.feedback.verifiers import Exact, Format, Math, Numeric
from braid.user_code import import_source

VERIFIERS: dict[str, type[Exact] | type[Numeric] | type[Math] | type[Format]] = {
    verifier.name: verifier for verifier in (Exact, Numeric, Math, Format)
}

_WEIGHTED = re.compile(r"\s*(-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e-?[0-9]+)?)\s*\*\s*(.+)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """A reward function that adds others; the first one decides what is correct.

    Args:
        parts: (weight, name, reward function), at least one.
    """

    parts: tuple[tuple[float, str, RewardFunction], ...]

    def __call__(
        self, completions: Sequence[str], prompts: Sequence[Any] | None = None, **columns: Sequence[Any]
    ) -> list[dict[str, float]]:
        """Per completion the terms `reward`, `correct` and one for each part, not yet weighted."""
        rows: list[dict[str, float]] = [{"reward": 0.0} for _ in completions]
        for position, (weight, name, function) in enumerate(self.parts):
            terms = score(function, prompts, completions, columns)
            for index, row in enumerate(rows):
                row["reward"] += weight * terms["reward"][index]
                row[name] = terms["reward"][index]
                if position == 0:
                    row["correct"] = terms["correct"][index]
        return rows


def get_reward(spec: str | RewardFunction, **options: Any) -> RewardFunction:
    """The reward function that a specification stands for.

    Args:
        spec: a verifier (`exact`, `numeric`, `math`, `format`); a function `package.module:name` or
            `path/to/file.py:name`; several of these joined by `+`, each with an optional weight, as in
            `math+0.1*format`; or a callable, which is returned as it is.
        options: of the verifiers (`tolerance=0.01`, `pattern=…`), each given to those that have it; for a single user's
            function, keyword arguments bound to it.

    Raises:
        UsageError: an unknown name or option, a module or attribute that is missing, an object that is not callable.
    """
    if not isinstance(spec, str):
        if not callable(spec):
            raise UsageError(f"reward={spec!r} is not callable; give a function, a name or 'module:function'")
        return _bound(spec, options)
    parts = _split(spec)
    known = {field.name for _, name in parts if name in VERIFIERS for field in dataclasses.fields(VERIFIERS[name])}
    if len(parts) == 1 and ":" in parts[0][1]:
        return _weighted(parts[0][0], parts[0][1], _bound(_load(parts[0][1]), options))
    functions = [(weight, name, _load(name) if ":" in name else _verifier(name, options)) for weight, name in parts]
    for option in options:
        if option not in known:
            raise unknown_name(f"option of the reward {spec!r}", option, known)
    if len(functions) == 1:
        return _weighted(*functions[0])
    names = [name_of(function) for _, _, function in functions]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"reward {spec!r} names {name!r} twice; give each once, with a weight such as 2*{name}")
    return WeightedSum(tuple((weight, name, f) for (weight, _, f), name in zip(functions, names, strict=True)))


def _split(spec: str) -> list[tuple[float, str]]:
    whole_is_file = ":" in spec and Path(spec.rpartition(":")[0]).is_file()
    parts = []
    for part in [spec] if whole_is_file else spec.split("+"):
        match = _WEIGHTED.fullmatch(part)
        weight, name = (float(match[1]), match[2].strip()) if match else (1.0, part.strip())
        if not name:
            raise UsageError(f"reward {spec!r} has an empty part; join names as in 'math+0.1*format'")
        parts.append((weight, name))
    return parts


def _weighted(weight: float, name: str, function: RewardFunction) -> RewardFunction:
    return function if weight == 1 else WeightedSum(((weight, name_of(function), function),))


def _bound(function: RewardFunction, options: Mapping[str, Any]) -> RewardFunction:
    if not options:
        return function
    parameters = inspect.signature(function).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if not open_ended and option not in parameters:
            raise unknown_name(f"option of the reward function {name_of(function)!r}", option, parameters)
    return functools.partial(function, **options)


def _verifier(name: str, options: Mapping[str, Any]) -> RewardFunction:
    if name not in VERIFIERS:
        raise unknown_name("reward", name, VERIFIERS)
    fields = {field.name for field in dataclasses.fields(VERIFIERS[name])}
    return VERIFIERS[name](**{option: value for option, value in options.items() if option in fields})


def _load(spec: str) -> RewardFunction:
    """The user's function `module:name` or `file.py:name`."""
    place, _, attribute = spec.rpartition(":")
    module = import_source(place, "reward")
    if not hasattr(module, attribute):
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise unknown_name(f"function in {place}", attribute, functions)
    function = getattr(module, attribute)
    if not callable(function):
        raise UsageError(f"{spec} is {function!r}, which is not callable; name a function there")
    return function
