"""Decide whether two formulas are equal, by exact fractions or by 40-digit values at random points.

Everything is bounded by construction (sizes of inputs, exponents, factorials and intermediate values), so no verdict
needs a timer and the functions work in any thread.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from braid.feedback.formula import FormulaError, Node, parse_formula

DIGITS = 40
"""Decimal digits of the numerical comparison."""
AGREEING_DIGITS = 25
"""Two values that agree in so many digits are equal."""
POINTS = 6
"""Random points at which formulas with symbols are compared; at least half must be within both domains."""
LARGEST_POWER = 10_000
"""Bound of exponents in absolute value, and of the bits of an exact power."""
LARGEST_FACTORIAL = 200
LARGEST_MAGNITUDE = 2000
"""Binary orders of magnitude of any intermediate value."""

_DEFINITION = re.compile(r"^\s*\$?\s*[A-Za-z](?:_\w)?(?:\([a-z]\))?\s*=(?!=)")
_LIST = re.compile(r"^\s*(\\?[{(\[]|)(.*?)(\\?[})\]]|)\s*$", re.DOTALL)
_CONTEXT = threading.local()


class BoundsError(ArithmeticError):
    """A value that is undefined, or larger than this module calculates with."""


def formulas_equal(text: str, reference: str, tolerance: float = 1e-6) -> bool | None:
    r"""Whether two formulas have the same value wherever both are defined.

    A definition `x = …` stands for its right-hand side. `(a, b)` is compared in order and with its brackets, `a, b`
    and `\{a, b\}` without order. Formulas with a decimal point are compared up to `tolerance`, relative
    to the reference.

    Args:
        text: the formula to judge.
        reference: the formula to compare with.
        tolerance: relative, at least 0.

    Returns:
        the verdict, or None if either text is not understood (see `parse_formula`); never raises.
    """
    try:
        return _equal_lists(_elements(text), _elements(reference), tolerance)
    except (FormulaError, BoundsError, RecursionError):
        return None


def _elements(text: str) -> tuple[str, list[Node]]:
    """The kind of brackets around a list (`""` for a single formula) and its parsed elements."""
    text = _DEFINITION.sub("", text[:2000])
    parts = _split_at_commas(text)
    if len(parts) == 1:
        return "", [parse_formula(text)]
    match = _LIST.match(text)
    opening, inside, closing = match.groups() if match else ("", text, "")
    if opening in {"(", "["} and closing in {")", "]"}:
        return opening + closing, [parse_formula(part) for part in _split_at_commas(inside)]
    if opening.endswith("{") and closing.endswith("}"):
        return "set", [parse_formula(part) for part in _split_at_commas(inside)]
    return "set", [parse_formula(part) for part in parts]


def _split_at_commas(text: str) -> list[str]:
    """Parts between commas; a comma between groups of thousands, or before a space in LaTeX (`\\,`), is none."""
    parts = re.split(r"(?<!\\),(?![0-9]{3}(?![0-9]))", text)
    if len(parts) > 32:
        raise FormulaError("a list of more than 32 elements")
    return parts


def _equal_lists(given: tuple[str, list[Node]], expected: tuple[str, list[Node]], tolerance: float) -> bool:
    (kind, nodes), (expected_kind, expected_nodes) = given, expected
    if kind != expected_kind or len(nodes) != len(expected_nodes):
        return False
    if kind != "set":
        return all(_equal(a, b, tolerance) for a, b in zip(nodes, expected_nodes, strict=True))
    left = list(expected_nodes)
    for node in nodes:
        match = next((other for other in left if _equal(node, other, tolerance)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _equal(node: Node, reference: Node, tolerance: float) -> bool:
    approximate = any(part[0] == "decimal" for tree in (node, reference) for part in _walk(tree))
    value, expected = exact_value(node), exact_value(reference)
    if value is not None and expected is not None:
        return value == expected or (approximate and abs(value - expected) <= Fraction(tolerance) * abs(expected))
    symbols = {part[1] for tree in (node, reference) for part in _walk(tree) if part[0] == "symbol"} - {"pi", "e", "i"}
    if len(symbols) > 12:
        raise BoundsError("more than 12 symbols")
    return _equal_at_points(node, reference, sorted(symbols), tolerance if approximate else 10.0**-AGREEING_DIGITS)


def _walk(node: Node) -> Iterator[Node]:
    pending = [node]
    while pending:
        part = pending.pop()
        yield part
        pending.extend(child for child in part[1:] if isinstance(child, tuple))


def exact_value(node: Node) -> Fraction | None:
    """The value of a formula of rational numbers and whole exponents; None if it is not of this kind.

    Raises:
        BoundsError: division by zero, or a power of more than `LARGEST_POWER` bits.
    """
    kind = node[0]
    if kind in {"number", "decimal"}:
        return node[1]
    if kind in {"symbol", "call"}:
        return None
    values = [exact_value(child) for child in node[1:]]
    if None in values:
        return None
    return _exact_operation(kind, *[value for value in values if value is not None])


def _exact_operation(kind: str, left: Fraction, right: Fraction = Fraction(0)) -> Fraction | None:
    if kind == "negative":
        return -left
    if kind == "+":
        return left + right
    if kind == "-":
        return left - right
    if kind == "*":
        return _bounded(left * right)
    if kind == "/":
        if not right:
            raise BoundsError("division by zero")
        return _bounded(left / right)
    if kind == "^" and right.denominator == 1:
        bits = max(left.numerator.bit_length(), left.denominator.bit_length())
        if abs(right) * bits > LARGEST_POWER or (right < 0 and not left):
            raise BoundsError("a power too large or of zero")
        return left ** int(right)
    return None


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > 4 * LARGEST_POWER:
        raise BoundsError("a number too large")
    return value


def _equal_at_points(node: Node, reference: Node, symbols: list[str], tolerance: float) -> bool:
    context = _context()
    generator = random.Random(20_240_607)
    compared = 0
    for point in range(POINTS if symbols else 1):
        sign = 1 if point % 2 == 0 else -1
        values = {symbol: context.mpf(sign * generator.uniform(0.2, 3.0)) for symbol in symbols}
        try:
            value, expected = _value(node, values, context), _value(reference, values, context)
        except BoundsError:
            continue
        if abs(value - expected) > tolerance * max(abs(expected), context.mpf(10) ** -AGREEING_DIGITS):
            return False
        compared += 1
    if not symbols and not compared:
        raise BoundsError("an undefined value")
    return 2 * compared >= (POINTS if symbols else 1)


def _context() -> Any:
    """This thread's own arbitrary-precision context: mpmath's global one changes precision under other threads."""
    if not hasattr(_CONTEXT, "value"):
        from mpmath.ctx_mp import MPContext

        _CONTEXT.value = MPContext()
        _CONTEXT.value.dps = DIGITS
    return _CONTEXT.value


def _value(node: Node, values: dict[str, Any], context: Any) -> Any:
    """The value of a formula at a point, as an arbitrary-precision real or complex number; may raise BoundsError."""
    kind = node[0]
    if kind in {"number", "decimal"}:
        return context.mpf(node[1].numerator) / node[1].denominator
    if kind == "symbol":
        constants = {"pi": context.pi, "e": context.e, "i": context.j}
        return values[node[1]] if node[1] in values else +constants[node[1]]
    try:
        if kind == "call":
            result = _call(node[1], _value(node[2], values, context), context)
        else:
            result = _operation(kind, [_value(child, values, context) for child in node[1:]], context)
    except (ZeroDivisionError, ValueError, OverflowError, context.NoConvergence) as error:
        raise BoundsError(str(error)) from None
    if not context.isfinite(result) or (result and abs(context.mag(result)) > LARGEST_MAGNITUDE):
        raise BoundsError("too large or too small a value")
    return result


def _operation(kind: str, values: list[Any], context: Any) -> Any:
    left, right = values[0], values[-1]
    if kind == "+":
        return left + right
    if kind == "-":
        return left - right
    if kind == "*":
        return left * right
    if kind == "/":
        return left / right
    if kind == "negative":
        return -left
    if kind == "factorial":
        if not context.isint(left) or not 0 <= left <= LARGEST_FACTORIAL:
            raise BoundsError("a factorial out of bounds")
        return context.factorial(left)
    if abs(right) > LARGEST_POWER:
        raise BoundsError("an exponent out of bounds")
    return left**right


def _call(function: str, value: Any, context: Any) -> Any:
    if function in {"exp", "sinh", "cosh", "tanh"} and abs(value) > LARGEST_POWER:
        raise BoundsError("an exponential out of bounds")
    short = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "abs": "fabs"}
    return getattr(context, short.get(function, function))(value)
