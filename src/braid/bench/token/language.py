"""A made-up language whose responses have a known distribution of lengths, as a table of what follows what.

A model that follows the table ends its responses by itself, so that libraries see the same lengths without any of them
being told.
"""

from __future__ import annotations

import math
import random
import string
from typing import Literal, get_args

import torch
from torch import Tensor

from braid.errors import unknown_name

Lengths = Literal["fixed", "ragged", "skewed"]

ALPHABET = string.ascii_lowercase + string.ascii_uppercase + string.digits[:9]
"""61 characters, which with padding, end and unknown make 64 tokens."""
VOCABULARY = 64
EOS, FIRST = 1, 3
"""Token ids of the end and of the first character; 0 is padding, 2 is the unknown token."""
PROMPT = ALPHABET[:12]
"""The characters that prompts are made of."""
SHORT = ALPHABET[12:35]
"""23 characters, each of which is followed by the next or by the end: responses of at most 24 tokens."""
LONG = ALPHABET[35:]
"""The characters of responses that never end."""
REWARDED = frozenset(ALPHABET[::2])
PROMPT_LENGTH = 16

END_RATE = 1 / 72
"""Of `ragged`: the chance that a response ends, at every token; cut at 128 tokens, the mean is 60."""
LONG_SHARE = 0.1
"""Of `skewed`: the share of responses that never end."""
NEVER = -20.0
"""Log-odds of what never happens: once in 10⁸ tokens."""


def token_id(character: str) -> int:
    """The token of a character."""
    return FIRST + ALPHABET.index(character)


def log_odds(lengths: Lengths) -> Tensor:
    """What follows what.

    Args:
        lengths: `fixed`: no response ends; `ragged`: each ends at a constant rate; `skewed`: a tenth never ends, the
            others have 1 to 24 tokens, all lengths alike.

    Returns:
        [VOCABULARY, VOCABULARY] log-probabilities of the next token (column) after a token (row).

    Raises:
        UsageError: `lengths` is none of these.
    """
    if lengths not in get_args(Lengths):
        raise unknown_name("distribution of lengths", lengths, get_args(Lengths))
    chance = torch.zeros(VOCABULARY, VOCABULARY)
    if lengths == "skewed":
        long, short = [token_id(c) for c in LONG], [token_id(c) for c in SHORT]
        chance[:, long] = 1 / len(long)
        for position, token in enumerate(short):
            end = 1 / (len(short) - position)
            chance[token] = 0.0
            chance[token, EOS] = end
            if end < 1:
                chance[token, token + 1] = 1 - end
        for token in map(token_id, PROMPT):
            chance[token] *= LONG_SHARE
            end = (1 - LONG_SHARE) / (len(short) + 1)
            chance[token, EOS] = end
            chance[token, short[0]] = 1 - LONG_SHARE - end
    else:
        end = END_RATE if lengths == "ragged" else 0.0
        chance[:, FIRST:] = (1 - end) / len(ALPHABET)
        chance[:, EOS] = end
    return chance.log().clamp_min(NEVER)


def mean_length(lengths: Lengths, max_new_tokens: int) -> float:
    """Mean length of a response, the end included, tokens."""
    if lengths == "fixed":
        return float(max_new_tokens)
    if lengths == "ragged":
        return (1 - (1 - END_RATE) ** max_new_tokens) / END_RATE
    short = sum(min(n, max_new_tokens) for n in range(1, len(SHORT) + 2)) / (len(SHORT) + 1)
    return (1 - LONG_SHARE) * short + LONG_SHARE * max_new_tokens


def draw_length(lengths: Lengths, max_new_tokens: int, generator: random.Random) -> int:
    """A length with that distribution, tokens, the end included."""
    if lengths == "fixed":
        return max_new_tokens
    if lengths == "ragged":
        drawn = 1 + int(math.log(1 - generator.random()) / math.log(1 - END_RATE))
    else:
        drawn = max_new_tokens if generator.random() < LONG_SHARE else generator.randint(1, len(SHORT) + 1)
    return min(drawn, max_new_tokens)


def draw_text(length: int, characters: str, generator: random.Random) -> str:
    """Random characters."""
    return "".join(generator.choices(characters, k=length))
