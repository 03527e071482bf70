"""Multi-step integer problems (`Q: 37+48*2=?`) with solutions in several styles and a checker of their steps."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from braid.data.examples import Example
from braid.errors import UsageError, unknown_name
from braid.options import option
from braid.tasks.task import (
    Split,
    TextTask,
    check_split,
    draw,
    generator_for,
    parse_mixture,
    split_of,
    stable_fraction,
)
from braid.tasks.text.arithmetic_problems import OPERATIONS, Problem, draw_problem
from braid.tasks.text.arithmetic_styles import FAULTY_STYLES, FILLERS, STYLES, check_steps, with_fillers
from braid.tasks.text.responses import read_response
from braid.tasks.text.side_skills import LONGEST_PROMPT, SKILLS, skill_example

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_MIX = {"uniform": lambda rank: 1.0, "easy": lambda rank: 0.3**rank, "hard": lambda rank: 0.3**-rank}


@dataclass(frozen=True)
class ArithmeticTask(TextTask):
    """Multi-step arithmetic; the default suits a model of about a million parameters.

    Completions are `<think>48*2=96;37+96=133</think><answer>133</answer>` in one of the styles A to E, `padded`,
    `skipping`, or faulty: `wrong_steps` (right answer, false steps), `mistaken` (wrong answer), `malformed`.
    """

    name: ClassVar[str] = "arithmetic"
    styles: ClassVar[tuple[str, ...]] = tuple(STYLES)
    faulty_styles: ClassVar[tuple[str, ...]] = FAULTY_STYLES
    skills: ClassVar[tuple[str, ...]] = SKILLS

    levels: tuple[int, ...] = option(
        (1, 2, 3), "levels of train, validation and test", unit="operations", low=1, high=5
    )
    level_mix: str = option("uniform", "which levels are frequent", choices=("uniform", "easy", "hard"))
    level_weights: tuple[float, ...] = option((), "weight of each of `levels`, instead of `level_mix`", low=0)
    digits: int = option(1, "most digits of an operand", unit="digits", low=1, high=4)
    largest_operand: int = option(9, "largest operand where digits is 1 (more digits: all are used)", low=1, high=9)
    operations: str = option("+-", "allowed operations, of + - * %")
    result_max: int = option(
        0, "largest result of any step, minus half of it the smallest; 0: 60 for 1 digit, else 2*100**digits", low=0
    )
    ood_levels: tuple[int, ...] = option((4,), "levels of the ood split", unit="operations", low=1, high=5)
    ood_digits: int = option(
        0, "most digits of an operand in the ood split; 0: the same as `digits`", unit="digits", low=0, high=4
    )
    corpus_levels: tuple[int, ...] = option(
        (), "levels of the corpus; none: the same as `levels`", unit="operations", low=1, high=5
    )
    corpus_styles: str = option("A:0.8,padded:0.1,skipping:0.1", "styles of sound corpus rows with their weights")
    corruption: float = option(0.45, "share of corpus rows with a faulty completion", low=0, high=1)
    corruption_styles: str = option("mistaken:0.55,malformed:0.35,wrong_steps:0.1", "styles of faulty corpus rows")
    side_skill_fraction: float = option(0.05, "share of corpus rows on reversal, copying and look-up", low=0, high=1)
    filler_probability: float = option(0.0, "share of demonstrations with idiosyncratic filler words", low=0, high=1)
    label_noise: float = option(0.0, "probability that `reward` is the opposite of `correct`", low=0, high=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.operations or set(self.operations) - set(OPERATIONS):
            raise UsageError(
                f"operations={self.operations!r} should be a choice of {' '.join(OPERATIONS)}, as in '+-*'"
            )
        if not self.levels or not self.ood_levels:
            raise UsageError("levels and ood_levels need at least one level of 1 to 5 each")
        if self.level_weights and (len(self.level_weights) != len(self.levels) or not sum(self.level_weights)):
            raise UsageError(f"level_weights={self.level_weights} should be {len(self.levels)} weights, one per level")
        known = {*self.levels, *self.corpus_levels} & set(self.ood_levels)
        if known and self.ood_digits <= self.digits:
            raise UsageError(
                f"ood_levels={self.ood_levels} shares level {min(known)} with levels={self.levels} or "
                f"corpus_levels={self.corpus_levels}, so the ood split would not be apart; "
                f"use other levels, or ood_digits greater than digits={self.digits}"
            )
        self._mixtures  # noqa: B018

    def demonstrations(self, split: Split, n: int, seed: int = 0, style: str | None = None) -> list[Example]:
        """Problems with `answer`, `extra` (`kind`, `level`, `expression`, `numbers`), solved in a style (default A)."""
        check_split(split, n)
        style = self.check_style(style)
        return [self._example(self._problem(split, seed, index), split, seed, index, style) for index in range(n)]

    def side_skill_examples(self, kind: str, split: Split, n: int, seed: int = 0) -> list[Example]:
        """`n` examples of a skill that is no arithmetic: `reverse`, `copy` or `lookup`."""
        check_split(split, n)
        if kind not in SKILLS:
            raise unknown_name("side skill", kind, SKILLS)
        return [skill_example(kind, split, index, seed) for index in range(n)]

    def corpus(self, n: int, seed: int = 0) -> list[Example]:
        """`n` rows of the train split: sound and faulty styles and side skills, in the configured shares."""
        check_split("train", n)
        sound, faulty = self._mixtures
        rows = []
        for index in range(n):
            generator = generator_for("corpus", seed, index)
            corrupted = generator.random() < self.corruption
            if generator.random() < self.side_skill_fraction:
                rows.append(skill_example(generator.choice(SKILLS), "train", index, seed))
            else:
                problem = self._problem("train", seed, index, self.corpus_levels)
                style = draw(faulty if corrupted else sound, generator)
                rows.append(self._example(problem, "train", seed, index, style))
        return rows

    @property
    def judges_alone(self) -> bool:
        return True

    def reward(self, examples: Sequence[Example], completions: Sequence[str]) -> dict[str, list[float]]:
        """Per completion `reward`, `correct`, `format`, `process`, `steps`; each a list of finite floats.

        `correct` is 1 for the right answer in a well-formed completion, `reward` the same but for label noise,
        `process` the share of written steps that are true and use available numbers (0 without steps), `steps` their
        number. Label noise is a fixed property of the pair of prompt and completion.
        """
        rows = [self._judge(example, text) for example, text in zip(examples, completions, strict=True)]
        names = ("reward", "correct", "format", "process", "steps")
        return {name: [row[position] for row in rows] for position, name in enumerate(names)}

    @property
    def max_prompt_tokens(self) -> int:
        """Longest prompt of any split, in characters."""
        level, digits = self._largest_level, max(self.digits, self.ood_digits)
        return max(len("Q: =?") + level + (level + 1) * digits, LONGEST_PROMPT)

    @property
    def max_new_tokens(self) -> int:
        """Longest demonstration of any style and split, in characters with each tag as one."""
        level, digits = self._largest_level, max(self.digits, self.ood_digits)
        number = max(len(str(bound)) for bound in self._bounds(digits))
        verbose = level * (3 * number + len("first +=, ")) + len("so ") + number
        checked_or_padded = (level + 1) * (3 * number + len("+=;")) + len("check ")
        fillers = 2 * (len(FILLERS[0]) + 1) if self.filler_probability else 0
        return 4 + number + max(verbose, checked_or_padded) + fillers

    def alphabet(self) -> str:
        """Digits, lower-case letters and the signs of prompts and styles, the same for every configuration."""
        return "".join(sorted(set(string.digits + string.ascii_lowercase + "QRCK: +-*%=?;,.|[]'")))

    @cached_property
    def _mixtures(self) -> tuple[Mapping[str, float], Mapping[str, float]]:
        return (
            parse_mixture("corpus_styles", self.corpus_styles, self.styles),
            parse_mixture("corruption_styles", self.corruption_styles, self.styles),
        )

    def _level_weights(self, levels: Sequence[int]) -> Sequence[float]:
        if self.level_weights and levels == self.levels:
            return self.level_weights
        ranks = {level: rank for rank, level in enumerate(sorted(set(levels)))}
        return [_MIX[self.level_mix](ranks[level]) for level in levels]

    @property
    def _largest_level(self) -> int:
        return max(*self.levels, *self.ood_levels, *self.corpus_levels)

    def _bounds(self, digits: int) -> tuple[int, int]:
        largest = self.result_max or (60 if digits == 1 else 2 * 100**digits)
        return -(largest // 2), largest

    def _top(self, digits: int) -> int:
        """The largest operand of so many digits."""
        return self.largest_operand if digits == 1 else 10**digits - 1

    def _problem(self, split: Split, seed: int, index: int, levels: tuple[int, ...] = ()) -> Problem:
        generator = generator_for(self.name, seed, split, index)
        if split != "ood":
            levels = levels or self.levels
            level = generator.choices(levels, self._level_weights(levels))[0]
            return draw_problem(
                generator, level, self.operations, self._top(self.digits), *self._bounds(self.digits),
                accept=lambda problem: split_of(problem.canonical) == split,
            )  # fmt: skip
        level, digits = generator.choice(self.ood_levels), self.ood_digits or self.digits
        known = {*self.levels, *self.corpus_levels}
        return draw_problem(
            generator, level, self.operations, self._top(digits), *self._bounds(digits),
            accept=lambda problem: level not in known or max(problem.numbers) >= 10**self.digits,
        )  # fmt: skip

    def _example(self, problem: Problem, split: Split, seed: int, index: int, style: str) -> Example:
        generator = generator_for("style", style, seed, split, index)
        completion = STYLES[style](problem, generator)
        if self.filler_probability and generator.random() < self.filler_probability:
            completion = with_fillers(completion, generator)
        return Example(
            id=f"{self.name}-{split}-{seed}-{index}",
            prompt=f"Q: {problem.expression}=?",
            answer=str(problem.value),
            completion=completion,
            extra={
                "kind": self.name,
                "level": problem.level,
                "expression": problem.expression,
                "numbers": problem.numbers,
                "style": style,
            },
        )

    def _judge(self, example: Example, completion: str) -> tuple[float, ...]:
        found = read_response(completion)
        answer = found.answer or ""
        if example.extra.get("kind") in SKILLS:
            correct = float(answer == example.answer)
            return self._noisy(example, completion, correct), correct, float(found.well_formed), 0.0, 0.0
        correct = float(
            _INTEGER.fullmatch(answer) is not None
            and example.answer is not None
            and _INTEGER.fullmatch(example.answer) is not None
            and int(answer) == int(example.answer)
        )
        check = check_steps(found.reasoning, example.extra.get("numbers", ()))
        return (
            self._noisy(example, completion, correct),
            correct,
            float(found.well_formed),
            check.share_sound,
            float(len(check.steps)),
        )

    def _noisy(self, example: Example, completion: str, correct: float) -> float:
        if self.label_noise and stable_fraction("noise", example.prompt, completion) < self.label_noise:
            return 1.0 - correct
        return correct
