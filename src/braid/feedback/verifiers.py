"""Verifiers: reward functions that compare a completion with its reference answer, or check its form.

Each is a frozen dataclass of its options, called as TRL calls a reward function:
`verifier(completions, prompts=…, answer=…, **columns) -> list[float]`, with 1.0 for right and 0.0 for wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from braid.errors import MissingExtra, UsageError
from braid.feedback.extraction import FALLBACKS, Fallback, extract_answer, last_box
from braid.feedback.formula_value import formulas_equal
from braid.feedback.math_verify_process import MathVerifyProcess, math_verify_installed
from braid.feedback.number_text import parse_number, same_number

Reference = str | int | float | Sequence[str | int | float] | None
"""A reference answer, or several of which each is right."""

_MATH_VERIFY = MathVerifyProcess()
LONGEST_MATH_ANSWER = 1000
"""Characters of an extracted answer that `math` still reads."""


@dataclass(frozen=True)
class Exact:
    """Right if the extracted text equals a reference, up to case and white space.

    Args:
        fallback: what an unmarked completion's answer is; `last_number`, `text` or `none`.
    """

    name: ClassVar[str] = "exact"
    fallback: Fallback = "text"

    def __post_init__(self) -> None:
        _check_fallback(self.fallback)

    def __call__(self, completions: Sequence[str], answer: Sequence[Reference] | None = None, **_: Any) -> list[float]:
        """1.0 or 0.0 per completion; raises UsageError only if `answer` is missing, None or of another length."""
        return [
            float(any(_same_text(found, reference) for reference in references))
            for found, references in _pairs(self.name, completions, answer, self.fallback)
        ]


@dataclass(frozen=True)
class Numeric:
    """Right if the extracted number equals a reference number; a reference that is no number is compared as text.

    Args:
        tolerance: relative, at least 0; whole numbers are always compared exactly.
        units: whether words may follow a number, as in `5 apples`.
        fallback: what an unmarked completion's answer is; `last_number`, `text` or `none`.
    """

    name: ClassVar[str] = "numeric"
    tolerance: float = 1e-6
    units: bool = True
    fallback: Fallback = "last_number"

    def __post_init__(self) -> None:
        _check_fallback(self.fallback)
        _check_not_negative("tolerance", self.tolerance)

    def __call__(self, completions: Sequence[str], answer: Sequence[Reference] | None = None, **_: Any) -> list[float]:
        """1.0 or 0.0 per completion; raises UsageError only if `answer` is missing, None or of another length."""
        return [
            float(any(self._equal(found, reference) for reference in references))
            for found, references in _pairs(self.name, completions, answer, self.fallback)
        ]

    def _equal(self, found: str, reference: str) -> bool:
        return _same_text(found, reference) or bool(same_number(found, reference, self.tolerance, self.units))


@dataclass(frozen=True)
class Math:
    """Right if the extracted formula has the same value as a reference formula.

    Numbers are compared exactly and formulas by Braid's own parser (`braid.feedback.formula`), which evaluates nothing
    it does not know. What that parser does not understand (intervals, matrices, sets, units) goes to math-verify in a
    process with a time limit, if it is installed.

    Args:
        tolerance: relative, for answers with a decimal point.
        engine: `auto` as described, `builtin` never to use math-verify, `math-verify` to use it for all but numbers.
        seconds: time limit of one comparison by math-verify, from 0.01 to 60; a late comparison counts as wrong.
        fallback: what an unmarked completion's answer is; `last_number`, `text` or `none`.

    Raises:
        MissingExtra: `engine="math-verify"` and it is not installed.
    """

    name: ClassVar[str] = "math"
    tolerance: float = 1e-6
    engine: Literal["auto", "builtin", "math-verify"] = "auto"
    seconds: float = 2.0
    fallback: Fallback = "text"

    def __post_init__(self) -> None:
        _check_fallback(self.fallback)
        _check_not_negative("tolerance", self.tolerance)
        if self.engine not in ("auto", "builtin", "math-verify"):
            raise UsageError(f"engine={self.engine!r} is unknown; use auto, builtin or math-verify")
        if not 0.01 <= self.seconds <= 60:
            raise UsageError(f"seconds={self.seconds!r} is out of range; use 0.01 to 60")
        if self.engine == "math-verify" and not math_verify_installed():
            raise MissingExtra("math-verify", "math")

    def __call__(self, completions: Sequence[str], answer: Sequence[Reference] | None = None, **_: Any) -> list[float]:
        """1.0 or 0.0 per completion; raises UsageError only if `answer` is missing, None or of another length."""
        return [
            float(any(self._equal(found, reference) for reference in references))
            for found, references in _pairs(self.name, completions, answer, self.fallback)
        ]

    def _equal(self, found: str, reference: str) -> bool:
        if _same_text(_plain(found), _plain(reference)):
            return True
        if len(found) > LONGEST_MATH_ANSWER:
            return False
        verdict = same_number(found, reference, self.tolerance, units=False)
        if verdict is None and self.engine != "math-verify":
            verdict = formulas_equal(found, reference, self.tolerance)
        if verdict is None and self.engine != "builtin" and math_verify_installed():
            verdict = _MATH_VERIFY.equal(found, reference, self.seconds)
        return bool(verdict)


@dataclass(frozen=True)
class Format:
    r"""Right if the completion has the required form; needs no reference answer.

    Args:
        pattern: a regular expression that must match the whole completion (`.` also matches line ends). By default the
            completion must end with its only `<answer>…</answer>`, with a last line `#### number`, or with `\boxed{…}`.
        longest: characters; a longer completion is wrong without being matched.
    """

    name: ClassVar[str] = "format"
    pattern: str | None = None
    longest: int = 100_000

    def __post_init__(self) -> None:
        if self.longest < 1:
            raise UsageError(f"longest={self.longest} is out of range; use at least 1")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise UsageError(f"pattern={self.pattern!r} is not a regular expression: {error}") from None

    def __call__(self, completions: Sequence[str], **_: Any) -> list[float]:
        """1.0 or 0.0 per completion; never raises."""
        return [float(len(text) <= self.longest and self._matches(text)) for text in completions]

    def _matches(self, text: str) -> bool:
        if self.pattern is None:
            return states_answer_once_at_end(text)
        return re.fullmatch(self.pattern, text, flags=re.DOTALL) is not None


def states_answer_once_at_end(text: str) -> bool:
    r"""Whether `text` ends with its only, non-empty `<answer>…</answer>`, a line `#### number`, or `\boxed{…}`."""
    text = text.rstrip()
    if "<answer>" in text or "</answer>" in text:
        start = text.find("<answer>") + len("<answer>")
        once = text.count("<answer>") == 1 and text.count("</answer>") == 1 and text.endswith("</answer>")
        return once and bool(text[start : -len("</answer>")].strip())
    last_line = text[text.rfind("\n") + 1 :]
    if last_line.startswith("####"):
        return parse_number(last_line[4:]) is not None
    span = last_box(text)
    return span is not None and span[1] > span[0] and not text[span[1] + 1 :].strip("$.)]\\ \n")


def _same_text(text: str, reference: str) -> bool:
    return " ".join(text.split()).casefold() == " ".join(reference.split()).casefold()


def _plain(text: str) -> str:
    """Without dollar signs, blanks and `\\text{…}` around words, which do not change a formula's meaning."""
    return re.sub(r"\\(?:text|mathrm|mbox)\{([^{}]*)\}", r"\1", text).replace("$", "").replace(" ", "").rstrip(".")


def _pairs(
    name: str, completions: Sequence[str], answers: Sequence[Reference] | None, fallback: Fallback
) -> list[tuple[str, list[str]]]:
    """Each completion's extracted answer (empty if it states none) with the reference answers that count as right."""
    if answers is None:
        raise UsageError(f"verifier {name!r} needs the column 'answer'; the data have none")
    if len(answers) != len(completions):
        raise UsageError(f"verifier {name!r} got {len(answers)} answers for {len(completions)} completions")
    pairs = []
    for index, (completion, answer) in enumerate(zip(completions, answers, strict=True)):
        if answer is None:
            raise UsageError(f"verifier {name!r} needs an answer in every row; row {index} has None")
        accepted = [answer] if isinstance(answer, str) or not isinstance(answer, Sequence) else answer
        references = [extract_answer(str(reference), "text") or "" for reference in accepted]
        found = extract_answer(completion, fallback)
        pairs.append((found, references) if found else ("", []))
    return pairs


def _check_fallback(fallback: str) -> None:
    if fallback not in FALLBACKS:
        raise UsageError(f"fallback={fallback!r} is unknown; use {', '.join(FALLBACKS)}")


def _check_not_negative(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise UsageError(f"{name}={value!r} is out of range; use a number of at least 0")
