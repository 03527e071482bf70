"""Small skills unrelated to arithmetic, to measure what fine-tuning makes a model forget."""

from __future__ import annotations

import random
import string

from braid.data.examples import Example
from braid.tasks.task import Split, generator_for, split_of
from braid.tasks.text.responses import response

SKILLS = ("reverse", "copy", "lookup")
LONGEST_PROMPT = 16
"""Characters."""


def skill_example(kind: str, split: Split, index: int, seed: int) -> Example:
    """Example `index` of a skill: `R: fbqa=?` (reversal), `C: fbqa=?` (copying) or `K: a3 f7 q1 f=?` (look-up).

    The `ood` split has words of 7 and 8 letters, and 3-digit values to look up; the others are disjoint by hash.
    """
    generator = generator_for("skill", kind, seed, split, index)
    while True:
        prompt, answer = _draw(kind, split == "ood", generator)
        if split in ("ood", split_of(prompt)):
            return Example(
                id=f"{kind}-{split}-{seed}-{index}",
                prompt=prompt,
                answer=answer,
                completion=response("", answer),
                extra={"kind": kind, "level": 0, "numbers": ()},
            )


def _draw(kind: str, longer: bool, generator: random.Random) -> tuple[str, str]:
    if kind == "lookup":
        keys = generator.sample(string.ascii_lowercase, 2 if longer else 3)
        values = [generator.randint(100, 999) if longer else generator.randint(0, 9) for _ in keys]
        chosen = generator.randrange(len(keys))
        table = " ".join(f"{key}{value}" for key, value in zip(keys, values, strict=True))
        return f"K: {table} {keys[chosen]}=?", str(values[chosen])
    word = "".join(
        generator.choices(string.ascii_lowercase, k=generator.randint(7, 8) if longer else generator.randint(3, 6))
    )
    return (f"R: {word}=?", word[::-1]) if kind == "reverse" else (f"C: {word}=?", word)
