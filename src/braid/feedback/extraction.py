"""Find the answer that a completion states."""

from __future__ import annotations

import re
from typing import Literal

Fallback = Literal["last_number", "text", "none"]
"""What counts as the answer of a completion that marks none: its last number, its whole stripped text, or nothing."""

FALLBACKS: tuple[Fallback, ...] = ("last_number", "text", "none")

SEARCHED_CHARACTERS = 4096
"""How far from the end of an unmarked completion a last number is sought."""

_NUMBER = re.compile(
    r"(?:(?<![\w)\]}.])[-+])?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]+(?![\w.]))?(?:/[0-9]+)?%?"
)
_HASHES = re.compile(r"####[ \t]*([^\n]*)")


def extract_answer(text: str, fallback: Fallback = "text") -> str | None:
    r"""The answer stated by `text`, stripped of surrounding white space.

    Reasoning up to the last `</think>` is left out (all of the text, if `<think>` was never closed). Tried in this
    order: the last `<answer>…</answer>`, the last `\boxed{…}` with balanced braces, the last `#### …`, `fallback`.

    Args:
        text: a completion of any length and content; the time taken grows at most linearly with it.
        fallback: see `Fallback`.

    Returns:
        the answer, or None if there is none; never raises.
    """
    conclusion = text_after_reasoning(text)
    for find in (answer_in_tags, answer_in_box, answer_after_hashes):
        found = find(conclusion)
        if found is not None:
            return found
    if fallback == "last_number":
        return last_number(conclusion)
    if fallback == "text":
        return conclusion.strip() or None
    return None


def text_after_reasoning(text: str) -> str:
    """What follows the last `</think>`; nothing if a `<think>` is still open; all of a text without these tags."""
    closed = text.rfind("</think>")
    if text.find("<think>", max(closed, 0)) >= 0:
        return ""
    return text if closed < 0 else text[closed + len("</think>") :]


def answer_in_tags(text: str) -> str | None:
    """The stripped content of the last `<answer>…</answer>`; None without one."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, max(end, 0))
    return text[start + len("<answer>") : end].strip() if 0 <= start < end else None


def answer_in_box(text: str) -> str | None:
    r"""The stripped content of the last `\boxed{…}` (or `\fbox{…}`) with balanced braces; None without one."""
    span = last_box(text)
    return text[span[0] : span[1]].strip() if span else None


def last_box(text: str) -> tuple[int, int] | None:
    r"""Where the content of the last `\boxed{…}` starts and ends; None if there is none or its braces never close."""
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    start = text.index("{", start) + 1
    depth = 1
    for brace in re.finditer(r"\\.|[{}]", text[start:], flags=re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return start, start + brace.start()
    return None


def answer_after_hashes(text: str) -> str | None:
    """What follows the last `####` on its line, as in GSM8K; None if nothing does."""
    start = text.rfind("####")
    match = _HASHES.match(text, start) if start >= 0 else None
    return (match.group(1).strip() or None) if match else None


def last_number(text: str) -> str | None:
    """The last number written in ASCII digits within the final `SEARCHED_CHARACTERS` of `text`; None without one."""
    found = _NUMBER.findall(text[-SEARCHED_CHARACTERS:])
    return found[-1] if found else None
