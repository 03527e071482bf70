"""Expressions of whole numbers with + - * / and brackets: a bounded parser, exact values, and a canonical form."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

LONGEST_EXPRESSION = 200
"""Characters."""
DEEPEST_BRACKETS = 16
MOST_NUMBERS = 16
MOST_DIGITS = 6

_TOKENS = re.compile(r"\s*([0-9]{1,6}(?![0-9])|[-+*/()])")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


class Expression(NamedTuple):
    """A number (`operation` empty) or an operation on two expressions."""

    operation: str
    left: Any
    """An `Expression`, or the number as an int."""
    right: Any = None
    """An `Expression`; None for a number."""

    @property
    def numbers(self) -> list[int]:
        """The numbers from left to right."""
        return [*self.left.numbers, *self.right.numbers] if self.operation else [self.left]

    @property
    def value(self) -> Fraction:
        """The exact value; raises ZeroDivisionError."""
        if not self.operation:
            return Fraction(self.left)
        left, right = self.left.value, self.right.value
        if self.operation == "+":
            return left + right
        if self.operation == "-":
            return left - right
        return left * right if self.operation == "*" else left / right


class ExpressionError(ValueError):
    """The text is not an expression of whole numbers within the limits."""


def parse_expression(text: str) -> Expression:
    """The tree of an expression.

    Args:
        text: whole numbers of at most `MOST_DIGITS` ASCII digits, `+ - * /`, brackets and blanks; no signs before
            numbers.

    Raises:
        ExpressionError: anything else, or a text beyond the limits of this module.
    """
    if len(text) > LONGEST_EXPRESSION:
        raise ExpressionError("too long")
    return _parse(text)


def write_expression(expression: Expression, outer: str = "", right: bool = False) -> str:
    """The expression with only the brackets it needs."""
    operation = expression.operation
    if not operation:
        return str(expression.left)
    inside = (
        write_expression(expression.left, operation) + operation + write_expression(expression.right, operation, True)
    )
    if not outer or _PRECEDENCE[operation] > _PRECEDENCE[outer]:
        return inside
    needed = _PRECEDENCE[operation] < _PRECEDENCE[outer] or (right and outer in "-/")
    return f"({inside})" if needed else inside


@lru_cache(maxsize=65_536)
def canonical_form(expression: Expression) -> str:
    """The same text for expressions that differ in the order of summands or factors, or in brackets of no effect."""
    operation = expression.operation
    if not operation:
        return str(expression.left)
    first, second = ("+", "-") if operation in "+-" else ("*", "/")
    parts = sorted(f"{sign}{text}" for sign, text in _parts(expression, first, second, False))
    return f"({''.join(parts)})"


def _parts(expression: Expression, plain: str, inverse: str, inverted: bool) -> list[tuple[str, str]]:
    """The summands (or factors) of nested sums (or products), each with its sign."""
    if expression.operation not in (plain, inverse):
        return [(inverse if inverted else plain, canonical_form(expression))]
    flipped = inverted ^ (expression.operation == inverse)
    return _parts(expression.left, plain, inverse, inverted) + _parts(expression.right, plain, inverse, flipped)


@lru_cache(maxsize=65_536)
def _parse(text: str) -> Expression:
    """Operator precedence with two stacks, so that no nesting can exhaust the interpreter's."""
    values: list[Expression] = []
    waiting: list[str] = []
    position, expects_number, numbers, depth = 0, True, 0, 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKENS.match(text, position)
        if not match:
            raise ExpressionError(f"unexpected {text[position]!r}")
        position, token = match.end(), match[1]
        if expects_number != (token == "(" or token.isdigit()):
            raise ExpressionError(f"misplaced {token!r}")
        if token == "(":
            waiting.append(token)
            depth += 1
        elif token == ")":
            depth -= 1
            while waiting and waiting[-1] != "(":
                _reduce(values, waiting)
            if not waiting:
                raise ExpressionError("a bracket closed that was not opened")
            waiting.pop()
        elif token.isdigit():
            values.append(Expression("", int(token)))
            numbers += 1
            expects_number = False
        else:
            while waiting and _PRECEDENCE.get(waiting[-1], 0) >= _PRECEDENCE[token]:
                _reduce(values, waiting)
            waiting.append(token)
            expects_number = True
        if numbers > MOST_NUMBERS or depth > DEEPEST_BRACKETS:
            raise ExpressionError("too large")
    if expects_number or depth:
        raise ExpressionError("incomplete")
    while waiting:
        _reduce(values, waiting)
    return values[0]


def _reduce(values: list[Expression], waiting: list[str]) -> None:
    right, left = values.pop(), values.pop()
    values.append(Expression(waiting.pop(), left, right))
