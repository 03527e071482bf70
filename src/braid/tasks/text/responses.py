"""The grammar of answers in the text worlds: `<think>…</think><answer>…</answer>`, the reasoning optional."""

from __future__ import annotations

import random
import re
from typing import NamedTuple

LONGEST_READ = 8192
"""Characters of a completion that are read; a longer one is malformed."""

_GRAMMAR = re.compile(r"\s*(?:<think>([^<>]*)</think>)?\s*<answer>([^<>]*)</answer>\s*")


class Response(NamedTuple):
    """A completion taken apart."""

    reasoning: str
    answer: str | None
    """None if the completion is malformed."""

    @property
    def well_formed(self) -> bool:
        """Whether the whole completion follows the grammar."""
        return self.answer is not None


def read_response(completion: str) -> Response:
    """The parts of a completion; of a malformed one the reasoning is all its text up to `<answer>`. Never raises."""
    match = _GRAMMAR.fullmatch(completion) if len(completion) <= LONGEST_READ else None
    if match:
        return Response(match[1] or "", match[2].strip())
    return Response(completion[:LONGEST_READ].partition("<answer>")[0].replace("<think>", ""), None)


def response(reasoning: str, answer: str) -> str:
    """A well-formed completion; without reasoning there is no `<think>`."""
    return f"<think>{reasoning}</think><answer>{answer}</answer>" if reasoning else f"<answer>{answer}</answer>"


def malformed(completion: str, generator: random.Random) -> str:
    """A well-formed completion spoiled in one of several ways, so that it states no answer in the grammar."""
    answer = completion.rpartition("<answer>")[2].removesuffix("</answer>")
    way = generator.randrange(4)
    if way == 0:
        return completion.removesuffix("</answer>")
    if way == 1:
        return completion.replace("<answer>", "").replace("</answer>", "")
    if way == 2:
        return completion + f"<answer>{answer}</answer>"
    return completion.rpartition("<answer>")[0] + answer
