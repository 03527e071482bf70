"""Ways to write down a countdown solution: direct, as a trace, as a search transcript, greedily, or faultily."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from braid.tasks.text.countdown_answers import judge_answer
from braid.tasks.text.countdown_expressions import Expression, write_expression
from braid.tasks.text.countdown_solver import solutions
from braid.tasks.text.responses import malformed, response

DEAD_ENDS = 3
"""Most dead ends per level that a search transcript shows."""


@dataclass(frozen=True)
class Problem:
    """Numbers, a target, and the expression from which the target was made.

    Args:
        numbers: in the order of the prompt.
        target: reachable with `witness`.
        witness: an expression of some of the numbers; all its intermediate values are positive integers.
    """

    numbers: tuple[int, ...]
    target: int
    witness: Expression

    @property
    def canonical(self) -> str:
        """The same text for every order of the numbers."""
        return f"{sorted(self.numbers)}={self.target}"


def solution(problem: Problem, generator: random.Random) -> str:
    """The expression from which the problem was made."""
    return response("", write_expression(problem.witness))


def trace(problem: Problem, generator: random.Random) -> str:
    """The same as steps, `3*7=21;21+8=29`, in the answer."""
    return response("", ";".join(steps_of(problem.witness)))


def reasoned(problem: Problem, generator: random.Random) -> str:
    """The steps as reasoning and the expression as the answer."""
    return response(";".join(steps_of(problem.witness)), write_expression(problem.witness))


def optimal(problem: Problem, generator: random.Random) -> str:
    """A solution with the fewest numbers; runs the exhaustive solver."""
    return response("", solutions(problem.numbers, problem.target)[0])


def depth_first(problem: Problem, generator: random.Random) -> str:
    """A search with backtracking: `3+7=10;10*8=80x;10-8=2x;~;3*7=21;21+8=29`, dead ends marked `x`, `~` going back."""
    lines: list[str] = []
    left = list(problem.numbers)
    for step in _operations(problem.witness):
        for wrong in _other_steps(left, step, generator, generator.randint(0, DEAD_ENDS - 1)):
            after = _after(left, wrong)
            leaves = [leaf for leaf in _other_steps(after, step, generator, 2) if leaf[3] != problem.target]
            if len(after) == 2 and wrong[3] != problem.target:
                lines += [_line(wrong), *(_line(leaf) + "x" for leaf in leaves), "~"]
            elif wrong[3] != problem.target:
                lines.append(_line(wrong) + "x")
        lines.append(_line(step))
        left = _after(left, step)
    return response(";".join(lines), write_expression(problem.witness))


def breadth_first(problem: Problem, generator: random.Random) -> str:
    """A search level by level: all tried first steps, `|`, all tried second steps and so on, the right one last."""
    levels: list[str] = []
    left = list(problem.numbers)
    for step in _operations(problem.witness):
        tried = [
            wrong
            for wrong in _other_steps(left, step, generator, generator.randint(1, DEAD_ENDS))
            if wrong[3] != problem.target
        ]
        levels.append(";".join(map(_line, [*tried, step])))
        left = _after(left, step)
    return response("|".join(levels), write_expression(problem.witness))


def greedy(problem: Problem, generator: random.Random) -> str:
    """Always the step whose result is nearest to the target, kept while it comes nearer; often wrong."""
    available = [(number, Expression("", number)) for number in problem.numbers]
    best = min(available, key=lambda item: abs(item[0] - problem.target))
    while len(available) > 1:
        options = [
            (result, Expression(operation, first, second), i, j)
            for i, (a, first) in enumerate(available)
            for j, (b, second) in enumerate(available)
            if i != j
            for operation, result in _results(a, b)
        ]
        result, expression, i, j = min(options, key=lambda option: (abs(option[0] - problem.target), option[2:]))
        available = [item for k, item in enumerate(available) if k not in (i, j)] + [(result, expression)]
        if not best[1].operation or abs(result - problem.target) < abs(best[0] - problem.target):
            best = (result, expression)
    return response("", write_expression(best[1]))


def mistaken(problem: Problem, generator: random.Random) -> str:
    """The made solution with one operation or one number changed, so that it no longer solves the problem."""
    text = write_expression(problem.witness)
    for _ in range(20):
        positions = [position for position, sign in enumerate(text) if sign in "+-*/"]
        if generator.random() < 0.5:
            position = generator.choice(positions)
            changed = text[:position] + generator.choice("+-*/") + text[position + 1 :]
        else:
            numbers = list(problem.numbers)
            generator.shuffle(numbers)
            names = iter(numbers)
            changed = write_expression(_renumbered(problem.witness, names))
        if not judge_answer(changed, problem.numbers, problem.target).correct:
            return response("", changed)
    return response("", f"{text}+{problem.numbers[0]}")


def spoiled(problem: Problem, generator: random.Random) -> str:
    """A malformed completion: tags missing, left open or repeated."""
    return malformed(solution(problem, generator), generator)


STYLES: dict[str, Callable[[Problem, random.Random], str]] = {
    "solution": solution,
    "trace": trace,
    "reasoned": reasoned,
    "optimal": optimal,
    "dfs": depth_first,
    "bfs": breadth_first,
    "greedy": greedy,
    "mistaken": mistaken,
    "malformed": spoiled,
}
FAULTY_STYLES = ("greedy", "mistaken", "malformed")

Operation = tuple[int, str, int, int]
"""Left number, sign, right number, result."""


def steps_of(expression: Expression) -> list[str]:
    """The operations of an expression with whole intermediate values, innermost first, as `a*b=c`."""
    return [_line(step) for step in _operations(expression)]


def _operations(expression: Expression) -> Iterator[Operation]:
    if expression.operation:
        yield from _operations(expression.left)
        yield from _operations(expression.right)
        left, right = int(expression.left.value), int(expression.right.value)
        yield left, expression.operation, right, int(expression.value)


def _line(step: Operation) -> str:
    return "{}{}{}={}".format(*step)


def _after(left: list[int], step: Operation) -> list[int]:
    """The numbers left after a step."""
    remaining = list(left)
    remaining.remove(step[0])
    remaining.remove(step[2])
    return [*remaining, step[3]]


def _results(a: int, b: int) -> Iterator[tuple[str, int]]:
    """The operations on two positive integers, in this order, that give a positive integer."""
    yield "+", a + b
    if a > b:
        yield "-", a - b
    yield "*", a * b
    if b and a % b == 0:
        yield "/", a // b


def _other_steps(left: list[int], step: Operation, generator: random.Random, count: int) -> list[Operation]:
    """Up to `count` different steps on the numbers left, none of them `step`."""
    options = {
        (a, operation, b, result)
        for i, a in enumerate(left)
        for j, b in enumerate(left)
        if i != j and (a >= b)
        for operation, result in _results(a, b)
    } - {step, (step[2], step[1], step[0], step[3])}
    return generator.sample(sorted(options), min(count, len(options)))


def _renumbered(expression: Expression, numbers: Iterator[int]) -> Expression:
    if not expression.operation:
        return Expression("", next(numbers))
    left = _renumbered(expression.left, numbers)
    return Expression(expression.operation, left, _renumbered(expression.right, numbers))
