"""Arithmetic problems without brackets: drawing, solving, and the canonical form that decides their split."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from braid.errors import UsageError

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "%": operator.mod,
}
MOST_DRAWS = 20_000
"""After so many draws without a problem within the limits, the options are taken to allow none."""


class Step(NamedTuple):
    """One operation `left operation right = result`; the result may be a mistaken one."""

    left: int
    operation: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left}{self.operation}{self.right}={self.result}"


@dataclass(frozen=True)
class Problem:
    """An expression `numbers[0] operations[0] numbers[1] …` with the usual precedence (`*` and `%` before `+`, `-`).

    Args:
        numbers: operands, each at least 0.
        operations: one fewer, of `+ - * %`.
    """

    numbers: tuple[int, ...]
    operations: tuple[str, ...]

    @property
    def level(self) -> int:
        """The number of operations."""
        return len(self.operations)

    @property
    def expression(self) -> str:
        """The problem as written, without blanks."""
        return str(self.numbers[0]) + "".join(
            f"{operation}{number}" for operation, number in zip(self.operations, self.numbers[1:], strict=True)
        )

    @cached_property
    def steps(self) -> list[Step]:
        """The operations in the order of evaluation, with their true results."""
        return work_through(self, lambda _, result: result)

    @property
    def value(self) -> int:
        """The answer."""
        return self.steps[-1].result

    @cached_property
    def canonical(self) -> str:
        """The same text for expressions that differ only in the order of summands or factors."""
        terms, sign, factors = [], "+", [str(self.numbers[0])]
        for operation, number in zip(self.operations, self.numbers[1:], strict=True):
            if operation == "*":
                factors.append(str(number))
            elif operation == "%":
                factors = [f"({'*'.join(sorted(factors))}%{number})"]
            else:
                terms.append(sign + "*".join(sorted(factors)))
                sign, factors = operation, [str(number)]
        terms.append(sign + "*".join(sorted(factors)))
        return "".join(sorted(terms))


def work_through(problem: Problem, result_of: Callable[[int, int], int]) -> list[Step]:
    """The steps of a problem in the order of evaluation.

    Args:
        problem: the problem.
        result_of: from the step's index and its true result to the result written down, with which the work goes on.

    Raises:
        ZeroDivisionError: a remainder by zero.
    """
    numbers, operations, steps = list(problem.numbers), list(problem.operations), list[Step]()
    for level in ("*%", "+-"):
        position = 0
        while position < len(operations):
            operation = operations[position]
            if operation not in level:
                position += 1
                continue
            left, right = numbers[position], numbers[position + 1]
            result = result_of(len(steps), OPERATIONS[operation](left, right))
            steps.append(Step(left, operation, right, result))
            numbers[position : position + 2] = [result]
            del operations[position]
    return steps


def draw_problem(
    generator: random.Random,
    level: int,
    operations: Sequence[str],
    top: int,
    smallest: int,
    largest: int,
    accept: Callable[[Problem], bool],
) -> Problem:
    """A problem drawn uniformly from those within the limits that `accept` takes.

    Args:
        generator: source of randomness.
        level: number of operations, at least 1.
        operations: those allowed.
        top: the largest operand; the smallest is 1.
        smallest: bound of every step's result.
        largest: bound of every step's result.
        accept: for instance whether the problem belongs to a split.

    Raises:
        UsageError: none was found in `MOST_DRAWS` draws.
    """
    for _ in range(MOST_DRAWS):
        problem = Problem(
            tuple(generator.randint(1, top) for _ in range(level + 1)), tuple(generator.choices(operations, k=level))
        )
        within = all(smallest <= s.result <= largest and (s.operation != "%" or s.left >= 0) for s in problem.steps)
        if within and accept(problem):
            return problem
    raise UsageError(
        f"found no problem of level {level} with operations {''.join(operations)!r}, operands up to {top} and all "
        f"results within {smallest} to {largest}; use more operations or a larger result_max"
    )
