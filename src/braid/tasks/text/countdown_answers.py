"""Read and judge answers of the countdown task: an expression, or a trace of steps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from braid.tasks.text.countdown_expressions import (
    LONGEST_EXPRESSION,
    Expression,
    ExpressionError,
    canonical_form,
    parse_expression,
)

_INTEGER = re.compile(r"-?[0-9]{1,6}")


class Verdict(NamedTuple):
    """What is known of an answer."""

    parses: bool
    """Whether it is an expression, or a trace whose equations hold."""
    legal: bool
    """Whether it uses available numbers only, each at most once."""
    correct: bool
    """Whether it is legal and reaches the target."""
    canonical: str | None
    """The canonical form of a correct answer, else None."""


_WRONG = Verdict(False, False, False, None)


def judge_answer(answer: str, numbers: Sequence[int], target: int) -> Verdict:
    """Judges `(25+8)*3-5`, `(25+8)*3-5=94`, or a trace `25+8=33;33*3=99;99-5=94`. Never raises.

    In a trace each step takes numbers that are still available and adds its result to them; its last result counts.

    Args:
        answer: any text; one longer than `LONGEST_EXPRESSION` is wrong.
        numbers: available, each once.
        target: to be reached exactly.
    """
    if len(answer) > LONGEST_EXPRESSION:
        return _WRONG
    try:
        expression, legal = _trace(answer, numbers) if "=" in answer else _single(answer, numbers)
        reached = expression.value == target
    except (ExpressionError, ZeroDivisionError):
        return _WRONG
    correct = legal and reached
    return Verdict(True, legal, correct, canonical_form(expression) if correct else None)


def _single(answer: str, numbers: Sequence[int]) -> tuple[Expression, bool]:
    expression = parse_expression(answer)
    return expression, not Counter(expression.numbers) - Counter(numbers)


def _trace(answer: str, numbers: Sequence[int]) -> tuple[Expression, bool]:
    """The expression that the steps of a trace amount to, and whether they took available numbers only."""
    available = [(number, Expression("", number)) for number in numbers]
    legal = True
    result = Expression("", 0)
    for step in answer.removesuffix(";").split(";"):
        left, _, right = step.partition("=")
        if not _INTEGER.fullmatch(right.strip()):
            raise ExpressionError(f"{right!r} is not a whole number")
        written = parse_expression(left)
        if written.value != int(right):
            raise ExpressionError(f"{step!r} does not hold")
        result, taken_legally = _substituted(written, available)
        legal = legal and taken_legally
        available.append((int(right), result))
    return result, legal


def _substituted(expression: Expression, available: list[tuple[int, Expression]]) -> tuple[Expression, bool]:
    """The expression with its numbers replaced by what they stand for, which is then no longer available."""
    if expression.operation:
        left, left_legal = _substituted(expression.left, available)
        right, right_legal = _substituted(expression.right, available)
        return Expression(expression.operation, left, right), left_legal and right_legal
    for position in range(len(available) - 1, -1, -1):
        if available[position][0] == expression.left:
            return available.pop(position)[1], True
    return expression, False
