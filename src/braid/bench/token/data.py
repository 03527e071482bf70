"""The rows and the reward that every library gets."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from braid.bench.token.language import ALPHABET, PROMPT, PROMPT_LENGTH, REWARDED, draw_length, draw_text

ROWS = 1024


def make_rows(options: dict[str, Any]) -> list[dict[str, str]]:
    """Rows with `prompt` (16 random characters) and `completion` (at least one), in a form that all libraries read.

    Args:
        options: `lengths`, `max_new_tokens` and `seed` of a token workload.
    """
    generator = random.Random(options["seed"])
    rows = []
    for _ in range(ROWS):
        length = max(2, draw_length(options["lengths"], options["max_new_tokens"], generator))
        prompt = draw_text(PROMPT_LENGTH, PROMPT, generator)
        rows.append({"prompt": prompt, "completion": draw_text(length - 1, ALPHABET, generator)})
    return rows


def letters(completions: Sequence[str], **columns: Any) -> list[float]:
    """The reward, a number in [0, 1] per completion: the share of its characters in one half of the alphabet."""
    return [sum(character in REWARDED for character in text) / max(1, len(text)) for text in completions]
