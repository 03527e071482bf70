"""Call a reward function and check everything it returns."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from braid.errors import BraidError, UsageError

RewardFunction = Callable[..., Sequence[Any]]
"""`f(completions, prompts=…, answer=…, **columns)` returning one float, or one dict of named terms, per completion."""


def score(
    reward_function: RewardFunction,
    prompts: Sequence[Any] | None,
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
) -> dict[str, list[float]]:
    """The named reward terms of completions, checked.

    Args:
        reward_function: see `get_reward`; it is given those of `prompts` and `columns` that its signature takes.
        prompts: one per completion, or None if there are none.
        completions: N texts.
        columns: further columns, such as `answer`, each of length N.

    Returns:
        lists of N finite floats: `reward` (the total), `correct` (1.0 where the function gives at least 1, or what its
        own term `correct` says), and one list per named term. A dict without `reward` has the sum of its terms,
        `correct` left out, as its total.

    Raises:
        UsageError: a column or result of the wrong length, a value that is not a finite number, terms that differ
            between rows, or an exception in the function; the message names the function and the row.
    """
    completions = list(completions)
    name = name_of(reward_function)
    given = {"prompts": prompts, **columns} if prompts is not None else dict(columns)
    for column, values in given.items():
        if len(values) != len(completions):
            raise UsageError(f"column {column!r} has {len(values)} rows for {len(completions)} completions")
    accepted = _accepted(reward_function, name, given)
    results = _results(reward_function, name, completions, accepted)
    if len(results) != len(completions):
        raise UsageError(f"reward function {name!r} returned {len(results)} values for {len(completions)} completions")
    if not completions:
        return {"reward": [], "correct": []}
    if any(isinstance(result, Mapping) for result in results):
        return _terms(name, results)
    values = [_number(name, index, "value", result) for index, result in enumerate(results)]
    terms = {"reward": values, "correct": [float(value >= 1) for value in values]}
    return terms if name in terms else {**terms, name: list(values)}


def name_of(function: RewardFunction) -> str:
    """The name of a reward function's term: its `name`, else its `__name__`, else its class's name."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "name", None)
    return name if isinstance(name, str) else getattr(function, "__name__", type(function).__name__)


def _accepted(function: RewardFunction, name: str, columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The columns that the function's signature takes; raises if it requires one that there is not."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return dict(columns)
    for parameter in list(parameters.values())[0 if "completions" in parameters else 1 :]:
        required = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if required and parameter.name != "completions" and parameter.name not in columns:
            have = ", ".join(columns) or "none"
            raise UsageError(f"reward function {name!r} needs the column {parameter.name!r}; the data have: {have}")
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(columns)
    return {column: values for column, values in columns.items() if column in parameters}


def _results(
    function: RewardFunction, name: str, completions: list[str], columns: Mapping[str, Sequence[Any]]
) -> list[Any]:
    try:
        results = _call(function, completions, columns)
    except BraidError:
        raise
    except Exception as error:
        row = _first_failing_row(function, completions, columns)
        where = "on the whole batch, though on no single row" if row is None else f"on row {row}"
        raise UsageError(f"reward function {name!r} failed {where} with {type(error).__name__}: {error}") from error
    if (
        isinstance(results, str | bytes | Mapping)
        or not hasattr(results, "__len__")
        or not hasattr(results, "__iter__")
    ):
        raise UsageError(f"reward function {name!r} returned {_shown(results)}; return a list with one float per row")
    return list(results)


def _call(function: RewardFunction, completions: list[str], columns: Mapping[str, Sequence[Any]]) -> Any:
    try:
        positional = "completions" not in inspect.signature(function).parameters
    except (TypeError, ValueError):
        positional = True
    return function(completions, **columns) if positional else function(completions=completions, **columns)


def _first_failing_row(
    function: RewardFunction, completions: list[str], columns: Mapping[str, Sequence[Any]]
) -> int | None:
    """A row on which the function fails, sought by halving the batch; None if it fails on no part of it."""
    start, end = 0, len(completions)
    while end - start > 1:
        middle = (start + end) // 2
        for part in ((start, middle), (middle, end)):
            if _fails(function, completions, columns, *part):
                start, end = part
                break
        else:
            return None
    return start if end > start and _fails(function, completions, columns, start, end) else None


def _fails(
    function: RewardFunction, completions: list[str], columns: Mapping[str, Sequence[Any]], start: int, end: int
) -> bool:
    try:
        _call(function, completions[start:end], {name: values[start:end] for name, values in columns.items()})
    except Exception:
        return True
    return False


def _terms(name: str, results: Sequence[Any]) -> dict[str, list[float]]:
    terms: dict[str, list[float]] = {}
    for index, result in enumerate(results):
        if not isinstance(result, Mapping):
            raise UsageError(f"reward function {name!r} returned {_shown(result)} for row {index}, dicts for others")
        if not result:
            raise UsageError(f"reward function {name!r} returned no terms for row {index}")
        if index and set(result) != set(terms):
            differing = ", ".join(sorted(map(str, set(result) ^ set(terms))))
            raise UsageError(f"reward function {name!r} gave other terms for row {index} than for row 0: {differing}")
        for term, value in result.items():
            terms.setdefault(term, []).append(_number(name, index, f"{term!r}", value))
    if "reward" not in terms:
        parts = [values for term, values in terms.items() if term != "correct"] or [terms["correct"]]
        terms["reward"] = [sum(row) for row in zip(*parts, strict=True)]
    decisive = terms.get("correct", terms["reward"])
    return {"reward": terms.pop("reward"), **terms, "correct": [float(value >= 1) for value in decisive]}


def _number(name: str, index: int, what: str, value: Any) -> float:
    try:
        item = value.item() if hasattr(value, "item") else value
        number = float(item) if isinstance(item, numbers.Real) else math.nan
    except (ValueError, RuntimeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(
            f"reward function {name!r} returned {what} {_shown(value)} for row {index}; return a finite number"
        )
    return number


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 80 else text[:77] + '...'} ({type(value).__name__})"
