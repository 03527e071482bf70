"""Reach a target with given numbers (`N: 3 7 8 T: 29`), each used at most once: search with many solutions."""

from __future__ import annotations

import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from braid.data.examples import Example
from braid.errors import UsageError
from braid.options import option
from braid.tasks.task import Split, TextTask, check_split, draw, generator_for, parse_mixture, split_of
from braid.tasks.text.countdown_answers import judge_answer
from braid.tasks.text.countdown_expressions import Expression, write_expression
from braid.tasks.text.countdown_solver import solutions
from braid.tasks.text.countdown_styles import DEAD_ENDS, FAULTY_STYLES, STYLES, Problem
from braid.tasks.text.responses import read_response

MOST_DRAWS = 20_000
"""After so many draws without a problem within the limits, the options are taken to allow none."""


@dataclass(frozen=True)
class CountdownTask(TextTask):
    """Countdown, also known as Game of 24; the default suits a model of about a million parameters.

    An answer is an expression, `<answer>3*7+8</answer>`, or a trace, `<answer>3*7=21;21+8=29</answer>`. Styles of
    demonstrations: `solution`, `trace`, `reasoned` (steps as reasoning), `optimal` (fewest numbers), the transcripts
    `dfs` and `bfs`, and the faulty `greedy` (right by luck), `mistaken` and `malformed`.
    """

    name: ClassVar[str] = "countdown"
    styles: ClassVar[tuple[str, ...]] = tuple(STYLES)
    faulty_styles: ClassVar[tuple[str, ...]] = FAULTY_STYLES

    min_count: int = option(3, "fewest numbers given", unit="numbers", low=2, high=4)
    max_count: int = option(3, "most numbers given", unit="numbers", low=2, high=4)
    max_number: int = option(12, "largest given number", low=4, high=100)
    max_target: int = option(50, "largest target", low=5, high=1000)
    operations: str = option("+-*", "operations from which problems are made, of + - * /; answers may use all")
    use_all: bool = option(True, "make every problem from all of its numbers (an answer need not use them all)")
    min_solutions: int = option(1, "fewest different solutions of a problem", unit="solutions", low=1)
    max_solutions: int = option(0, "most different solutions of a problem; 0: any number", unit="solutions", low=0)
    ood_count: int = option(4, "how many numbers are given in the ood split", unit="numbers", low=3, high=5)
    ood_max_target: int = option(0, "largest target in the ood split; 0: the same as `max_target`", low=0, high=10_000)
    corpus_styles: str = option("solution", "styles of sound corpus rows with their weights")
    corruption: float = option(0.35, "share of corpus rows with a faulty completion", low=0, high=1)
    corruption_styles: str = option("mistaken:0.9,malformed:0.1", "styles of faulty corpus rows")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_count > self.max_count:
            raise UsageError(f"min_count={self.min_count} is greater than max_count={self.max_count}")
        if not self.operations or set(self.operations) - set("+-*/"):
            raise UsageError(f"operations={self.operations!r} should be a choice of + - * /, as in '+-*'")
        if 0 < self.max_solutions < self.min_solutions:
            raise UsageError(f"max_solutions={self.max_solutions} is less than min_solutions={self.min_solutions}")
        if self.ood_count <= self.max_count and self.ood_max_target <= self.max_target:
            raise UsageError(
                f"the ood split would not be apart: use ood_count greater than max_count={self.max_count}, "
                f"or ood_max_target greater than max_target={self.max_target}"
            )
        self._mixtures  # noqa: B018

    def demonstrations(self, split: Split, n: int, seed: int = 0, style: str | None = None) -> list[Example]:
        """Problems in a style (default `solution`); `extra` has `level`, `numbers`, `target`, `kind`, `style`."""
        check_split(split, n)
        style = self.check_style(style)
        return [self._example(split, seed, index, style) for index in range(n)]

    def corpus(self, n: int, seed: int = 0) -> list[Example]:
        """`n` rows of the train split in sound and faulty styles, in the configured shares."""
        check_split("train", n)
        sound, faulty = self._mixtures
        rows = []
        for index in range(n):
            generator = generator_for("corpus", seed, index)
            weights = faulty if generator.random() < self.corruption else sound
            rows.append(self._example("train", seed, index, draw(weights, generator)))
        return rows

    @property
    def judges_alone(self) -> bool:
        return True

    def reward(self, examples: Sequence[Example], completions: Sequence[str]) -> dict[str, list[float]]:
        """Per completion `reward` (equal to `correct`), `correct`, `format`, `parses`, `numbers`; each 0.0 or 1.0.

        `correct`: well-formed, legal and equal to the target; `parses`: the answer is an expression or a trace that
        holds; `numbers`: it also uses given numbers only, each at most once. There is no partial reward.
        """
        terms: dict[str, list[float]] = {name: [] for name in ("reward", "correct", "format", "parses", "numbers")}
        for example, completion in zip(examples, completions, strict=True):
            found = read_response(completion)
            verdict = judge_answer(found.answer or "", example.extra["numbers"], example.extra["target"])
            values = (verdict.correct, verdict.correct, found.well_formed, verdict.parses, verdict.legal)
            for name, value in zip(terms, values, strict=True):
                terms[name].append(float(value))
        return terms

    def solutions(self, example: Example) -> list[str]:
        """All solutions of a problem that differ in more than order and needless brackets; see the solver."""
        return solutions(example.extra["numbers"], example.extra["target"])

    def distinct_correct(self, example: Example, completions: Sequence[str]) -> int:
        """How many correct solutions there are among completions for one problem, counting variants of one once."""
        answers = (read_response(completion).answer or "" for completion in completions)
        verdicts = (judge_answer(answer, example.extra["numbers"], example.extra["target"]) for answer in answers)
        return len({verdict.canonical for verdict in verdicts if verdict.correct})

    @property
    def max_prompt_tokens(self) -> int:
        """Longest prompt of any split, in characters."""
        count = max(self.max_count, self.ood_count)
        return len("N: T: ") + count * (len(str(self.max_number)) + 1) + len(str(self._largest_target))

    @property
    def max_new_tokens(self) -> int:
        """Longest answer of the styles in the corpus and of `trace`, in characters; search transcripts get more."""
        count = max(self.max_count, self.ood_count)
        number, result = len(str(self.max_number)), len(str(self._largest_result))
        steps = (count - 1) * (3 * result + 3)
        expression = count * (number + 1) + 2 * (count - 1)
        longest = {"reasoned": steps + expression, "dfs": 8 * DEAD_ENDS * steps, "bfs": 2 * DEAD_ENDS * steps}
        used = {*self._mixtures[0], *self._mixtures[1]}
        return 4 + max([steps, expression, *(longest[style] for style in used & set(longest))])

    def alphabet(self) -> str:
        """Digits and the signs of prompts and styles, the same for every configuration."""
        return "".join(sorted(set(string.digits + "NT: +-*/()=;|x~")))

    @cached_property
    def _mixtures(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        return (
            parse_mixture("corpus_styles", self.corpus_styles, self.styles),
            parse_mixture("corruption_styles", self.corruption_styles, self.styles),
        )

    @property
    def _largest_target(self) -> int:
        return max(self.max_target, self.ood_max_target)

    @property
    def _largest_result(self) -> int:
        """Bound of intermediate results of made problems."""
        return max(2 * self._largest_target, 99)

    def _problem(self, split: Split, seed: int, index: int) -> Problem:
        generator = generator_for(self.name, seed, split, index)
        for _ in range(MOST_DRAWS):
            problem = self._draw(generator, split == "ood")
            if problem is not None and self._belongs(problem, split) and self._has_wanted_solutions(problem):
                return problem
        raise UsageError(
            f"found no problem of max_count={self.max_count}, max_number={self.max_number}, "
            f"max_target={self.max_target}, min_solutions={self.min_solutions}, max_solutions={self.max_solutions} "
            f"in the {split} split; use wider limits"
        )

    def _draw(self, generator: random.Random, ood: bool) -> Problem | None:
        """Random numbers combined at random to a target; None if a result is out of bounds or the target is given."""
        count = self.ood_count if ood else generator.randint(self.min_count, self.max_count)
        numbers = tuple(generator.randint(1, self.max_number) for _ in range(count))
        used = count if self.use_all else generator.randint(2, count)
        parts = [(number, Expression("", number)) for number in generator.sample(numbers, used)]
        while len(parts) > 1:
            (a, left), (b, right) = (parts.pop(generator.randrange(len(parts))) for _ in range(2))
            operation = generator.choice(self.operations)
            if operation in "-/" and a < b:
                a, b, left, right = b, a, right, left
            if operation == "/" and a % b:
                return None
            result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[operation]
            if not 1 <= result <= self._largest_result:
                return None
            parts.append((result, Expression(operation, left, right)))
        target, witness = parts[0]
        largest = (self.ood_max_target or self.max_target) if ood else self.max_target
        return Problem(numbers, target, witness) if target <= largest and target not in numbers else None

    def _belongs(self, problem: Problem, split: Split) -> bool:
        if split == "ood":
            return len(problem.numbers) > self.max_count or problem.target > self.max_target
        return split_of(problem.canonical) == split

    def _has_wanted_solutions(self, problem: Problem) -> bool:
        if self.min_solutions == 1 and not self.max_solutions:
            return True
        return self.min_solutions <= len(solutions(problem.numbers, problem.target)) <= (self.max_solutions or 10**9)

    def _example(self, split: Split, seed: int, index: int, style: str) -> Example:
        problem = self._problem(split, seed, index)
        return Example(
            id=f"{self.name}-{split}-{seed}-{index}",
            prompt=f"N: {' '.join(map(str, problem.numbers))} T: {problem.target}",
            answer=write_expression(problem.witness),
            completion=STYLES[style](problem, generator_for("style", style, seed, split, index)),
            extra={
                "kind": self.name,
                "level": len(problem.numbers),
                "numbers": problem.numbers,
                "target": problem.target,
                "style": style,
            },
        )
