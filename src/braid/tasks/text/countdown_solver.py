"""Exhaustive search for the solutions of countdown problems, with exact fractions kept as pairs of integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations
from math import gcd

from braid.tasks.text.countdown_expressions import Expression, canonical_form, write_expression

Valued = tuple[int, int, Expression]
"""Numerator, positive denominator, expression."""


def solutions(numbers: Sequence[int], target: int) -> list[str]:
    """All solutions that differ in more than order and brackets of no effect, those with the fewest numbers first.

    Args:
        numbers: 1 to 5 of them (4 take about 20 ms, 5 about a second), each usable once; results are cached.
        target: to be reached exactly; intermediate values may be negative or fractions.
    """
    return list(_solutions(tuple(sorted(numbers)), target))


@lru_cache(maxsize=16_384)
def _solutions(numbers: tuple[int, ...], target: int) -> tuple[str, ...]:
    found: dict[str, Expression] = {}
    for numerator, denominator, expression in _all_expressions(numbers):
        if denominator == 1 and numerator == target:
            found.setdefault(canonical_form(expression), expression)
    texts = [write_expression(expression) for expression in found.values()]
    return tuple(sorted(texts, key=lambda text: (sum(sign in text for sign in "+-*/"), len(text), text)))


@lru_cache(maxsize=256)
def _all_expressions(numbers: tuple[int, ...]) -> tuple[Valued, ...]:
    """Every expression of some of the numbers."""
    built: dict[tuple[int, ...], list[Valued]] = {}
    for size in range(1, len(numbers) + 1):
        for positions in combinations(range(len(numbers)), size):
            built[positions] = list(_expressions(positions, numbers, built))
    return tuple(valued for group in built.values() for valued in group)


def _expressions(
    positions: tuple[int, ...], numbers: tuple[int, ...], built: dict[tuple[int, ...], list[Valued]]
) -> Iterator[Valued]:
    """Every expression of exactly the numbers at `positions`, from those of all ways to part them in two."""
    if len(positions) == 1:
        yield numbers[positions[0]], 1, Expression("", numbers[positions[0]])
        return
    for size in range(1, len(positions)):
        for chosen in combinations(positions[1:], size):
            rest = tuple(position for position in positions if position not in chosen)
            for left in built[rest]:
                for right in built[chosen]:
                    yield from _combined(left, right)


def _combined(left: Valued, right: Valued) -> Iterator[Valued]:
    (a, b, first), (c, d, second) = left, right
    yield _valued(a * d + c * b, b * d, "+", first, second)
    yield _valued(a * d - c * b, b * d, "-", first, second)
    yield _valued(c * b - a * d, b * d, "-", second, first)
    yield _valued(a * c, b * d, "*", first, second)
    if c:
        yield _valued(a * d, b * c, "/", first, second)
    if a:
        yield _valued(c * b, d * a, "/", second, first)


def _valued(numerator: int, denominator: int, operation: str, left: Expression, right: Expression) -> Valued:
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    divisor = gcd(numerator, denominator)
    return numerator // divisor, denominator // divisor, Expression(operation, left, right)
