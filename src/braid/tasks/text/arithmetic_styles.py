"""Ways to write the solution of an arithmetic problem, good and faulty, and the checker of written steps."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from braid.tasks.text.arithmetic_problems import OPERATIONS, Problem, Step, work_through
from braid.tasks.text.responses import malformed, response

FILLERS = ("zum", "qiv", "hox")
"""Words that no style uses, for demonstrations with idiosyncratic tokens."""

_STEP = re.compile(r"(-?[0-9]{1,9})([-+*%])(-?[0-9]{1,9})=(-?[0-9]{1,12})(?![0-9])")
_REVERSED_STEP = re.compile(r"\[(-?[0-9]{1,9})([-+*%])(-?[0-9]{1,9})\|([0-9']{1,24})(-?)\]")
_MOST_STEPS = 64


def plain(problem: Problem, generator: random.Random) -> str:
    """A: the steps in the order of evaluation, `48*2=96;37+96=133`."""
    return response(";".join(map(str, problem.steps)), str(problem.value))


def reversed_digits(problem: Problem, generator: random.Random) -> str:
    """B: each result from its last digit to its first, a carry of an addition marked: `[48*2|69][37+96|3'3'1]`."""
    return response("".join(map(_reversed, problem.steps)), str(problem.value))


def terse(problem: Problem, generator: random.Random) -> str:
    """C: the results of the steps only, `96,133`."""
    return response(",".join(str(step.result) for step in problem.steps), str(problem.value))


def verbose(problem: Problem, generator: random.Random) -> str:
    """D: steps with filler words, `first 48*2=96, then 37+96=133, so 133`."""
    words = ["first", *(generator.choice(("then", "next", "now")) for _ in problem.steps[1:])]
    steps = "".join(f"{word} {step}, " for word, step in zip(words, problem.steps, strict=True))
    return response(f"{steps}so {problem.value}", str(problem.value))


def checked(problem: Problem, generator: random.Random) -> str:
    """E: the steps and the last one checked by its inverse, `48*2=96;37+96=133;check 133-96=37`."""
    left, operation, right, result = problem.steps[-1]
    inverse = {
        "+": Step(result, "-", right, left),
        "-": Step(result, "+", right, left),
        "*": Step(right, "*", left, result),
        "%": Step(left, "%", right, result),
    }
    return response(f"{';'.join(map(str, problem.steps))};check {inverse[operation]}", str(problem.value))


def padded(problem: Problem, generator: random.Random) -> str:
    """The steps with dots and a repeated step: longer, no better."""
    parts = [str(step) for step in problem.steps]
    position = generator.randrange(len(parts))
    parts.insert(position, parts[position])
    parts.insert(generator.randrange(len(parts) + 1), "." * generator.randint(2, 6))
    return response(";".join(parts), str(problem.value))


def skipping(problem: Problem, generator: random.Random) -> str:
    """Only the last step, or for a single step only the answer."""
    return response(str(problem.steps[-1]) if problem.level > 1 else "", str(problem.value))


def wrong_steps(problem: Problem, generator: random.Random) -> str:
    """The right answer after steps of which at least one is false."""
    steps = [
        step._replace(result=mistake(step, generator)) if generator.random() < 0.5 else step for step in problem.steps
    ]
    if steps == problem.steps:
        steps[-1] = steps[-1]._replace(result=mistake(steps[-1], generator))
    return response(";".join(map(str, steps)), str(problem.value))


def mistaken(problem: Problem, generator: random.Random) -> str:
    """A wrong answer: one step has a false result, with which the work goes on."""
    wrong_at = generator.randrange(problem.level)
    error = mistake(problem.steps[wrong_at], generator) - problem.steps[wrong_at].result
    try:
        steps = work_through(problem, lambda index, result: result + (error if index == wrong_at else 0))
    except ZeroDivisionError:
        steps = problem.steps
    if steps[-1].result == problem.value:
        steps = [*steps[:-1], steps[-1]._replace(result=mistake(problem.steps[-1], generator))]
    return response(";".join(map(str, steps)), str(steps[-1].result))


def spoiled(problem: Problem, generator: random.Random) -> str:
    """A malformed completion: tags missing, left open or repeated."""
    return malformed(plain(problem, generator), generator)


STYLES: dict[str, Callable[[Problem, random.Random], str]] = {
    "A": plain,
    "B": reversed_digits,
    "C": terse,
    "D": verbose,
    "E": checked,
    "padded": padded,
    "skipping": skipping,
    "wrong_steps": wrong_steps,
    "mistaken": mistaken,
    "malformed": spoiled,
}
FAULTY_STYLES = ("wrong_steps", "mistaken", "malformed")


def mistake(step: Step, generator: random.Random) -> int:
    """A false result of a step as a careless solver gets it: off by a little, by ten, or by another operation."""
    candidates = [step.result + error for error in (-2, -1, 1, 2, -10, 10)]
    candidates += [step.left + step.right, step.left - step.right]
    return generator.choice([candidate for candidate in candidates if candidate != step.result])


def with_fillers(completion: str, generator: random.Random) -> str:
    """A completion with one or two of `FILLERS` put between its steps, or before its answer if it shows none."""
    for _ in range(generator.randint(1, 2)):
        filler = generator.choice(FILLERS)
        gaps = [match.end() for match in re.finditer(r"<think>|;|, |\]", completion)]
        if not gaps:
            return f"<think>{filler}</think>{completion}"
        position = generator.choice(gaps)
        completion = f"{completion[:position]}{filler} {completion[position:]}"
    return completion


class StepCheck(NamedTuple):
    """What was found in the steps of a completion."""

    steps: tuple[tuple[Step, bool, bool], ...]
    """(step as written, whether it is true, whether it uses available numbers)."""

    @property
    def share_sound(self) -> float:
        """The share of steps that are true and use available numbers; 0 without steps."""
        return sum(true and available for _, true, available in self.steps) / len(self.steps) if self.steps else 0.0


def check_steps(reasoning: str, numbers: Sequence[int]) -> StepCheck:
    """Finds the steps `a op b=c` (or `[a op b|c reversed]`) of a text and judges each.

    Args:
        reasoning: any text; at most 64 steps are read.
        numbers: operands of the problem. Available to a step are these and the results of the steps before it.

    Returns:
        the steps in order; never raises.
    """
    pattern, backwards = (_REVERSED_STEP, True) if "|" in reasoning else (_STEP, False)
    known, found = set(numbers), []
    for match in pattern.finditer(reasoning):
        result = match[4]
        if backwards:
            result = match[5] + (result.replace("'", "")[::-1] or "0")
        step = Step(int(match[1]), match[2], int(match[3]), int(result))
        found.append((step, is_true(step), step.left in known and step.right in known))
        known.add(step.result)
        if len(found) == _MOST_STEPS:
            break
    return StepCheck(tuple(found))


def is_true(step: Step) -> bool:
    """Whether the step's result is right; a remainder by zero never is."""
    return (step.operation != "%" or step.right != 0) and OPERATIONS[step.operation](
        step.left, step.right
    ) == step.result


def _reversed(step: Step) -> str:
    carried = _carries(step.left, step.right) if step.operation == "+" and min(step.left, step.right) >= 0 else []
    digits = str(abs(step.result))[::-1]
    marked = "".join(
        digit + ("'" if index < len(carried) and carried[index] else "") for index, digit in enumerate(digits)
    )
    return f"[{step.left}{step.operation}{step.right}|{marked}{'-' if step.result < 0 else ''}]"


def _carries(left: int, right: int) -> list[bool]:
    """For each column of an addition, from the last digit on, whether it carries."""
    carries, carry = list[bool](), 0
    while left or right:
        carry = (left % 10 + right % 10 + carry) // 10
        carries.append(bool(carry))
        left, right = left // 10, right // 10
    return carries
