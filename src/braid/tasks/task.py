"""What every task for a language model offers, and what tasks share."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, get_args

from braid.data.examples import Example
from braid.errors import UsageError, unknown_name
from braid.options import check_options

Split = Literal["train", "validation", "test", "ood"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclasses.dataclass(frozen=True)
class TextTask(ABC):
    """A world of prompts with a verifier. A subclass is a frozen dataclass whose fields are made by `option`.

    Instance `i` of a split depends only on the configuration, the seed, the split and `i`, so that the first k of n
    examples are the k examples. Which of the splits train (80 %), validation and test (10 % each) a problem belongs to
    is a hash of its canonical form: they are disjoint for all seeds together.
    """

    name: ClassVar[str]
    styles: ClassVar[tuple[str, ...]]
    """Of demonstrations; the first is the default."""
    faulty_styles: ClassVar[tuple[str, ...]] = ()
    """Those whose completions are (or may be) wrong on purpose."""
    oracle_score: ClassVar[float | None] = 1.0
    """The mean of `correct` that a perfect policy gets."""
    random_score: ClassVar[float | None] = 0.0
    """The mean of `correct` that uniformly random text gets."""

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def judges_alone(self) -> bool:
        """Whether what `reward` says of a completion depends on nothing but that completion and its example."""
        return False

    def examples(self, split: Split, n: int, seed: int = 0) -> list[Example]:
        """The first `n` problems of a split, each with `answer` and a demonstration in the default style."""
        return self.demonstrations(split, n, seed)

    @abstractmethod
    def demonstrations(self, split: Split, n: int, seed: int = 0, style: str | None = None) -> list[Example]:
        """The problems of `examples` with `completion` in one of `styles` (default: the first)."""

    @abstractmethod
    def corpus(self, n: int, seed: int = 0) -> list[Example]:
        """`n` prompts of the train split with completions of mixed quality, to pretrain a mediocre base model on."""

    @abstractmethod
    def reward(self, examples: Sequence[Example], completions: Sequence[str]) -> dict[str, list[float]]:
        """Named terms, one float per completion; at least `reward`, `correct` and `format`. Never raises on a text."""

    @property
    @abstractmethod
    def max_prompt_tokens(self) -> int:
        """Upper bound of a prompt's length in characters; `<think>`, `<answer>` and their ends count as one each."""

    @property
    @abstractmethod
    def max_new_tokens(self) -> int:
        """Recommended bound of a completion's length, in the same unit."""

    @abstractmethod
    def alphabet(self) -> str:
        """The characters that prompts and completions use, sorted; the tags `<think>`, `<answer>` apart."""

    def check_style(self, style: str | None) -> str:
        """The style, or the default for None; raises UsageError with suggestions for an unknown one."""
        if style is not None and style not in self.styles:
            raise unknown_name(f"style of task {self.name!r}", style, self.styles)
        return style or self.styles[0]


def check_split(split: str, n: int) -> None:
    """Raises UsageError unless `split` is one of `SPLITS` and `n` is not negative."""
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if n < 0:
        raise UsageError(f"n={n} is negative; ask for 0 or more examples")


def stable_integer(*parts: object) -> int:
    """64 bits that depend only on the text of `parts`, the same in every process and version."""
    text = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def stable_fraction(*parts: object) -> float:
    """A number in [0, 1) that depends only on the text of `parts`."""
    return (stable_integer(*parts) >> 11) / 2**53


def split_of(canonical: str) -> Split:
    """The split to which a problem belongs by the hash of its canonical form."""
    fraction = stable_fraction("split", canonical)
    return "train" if fraction < 0.8 else "validation" if fraction < 0.9 else "test"


def generator_for(*parts: object) -> random.Random:
    """A random generator seeded by the text of `parts`, the same in every process."""
    return random.Random(stable_integer(*parts))


def parse_mixture(option: str, text: str, known: Sequence[str]) -> Mapping[str, float]:
    """Weights written as `A:0.7,C:0.3` (a name alone weighs 1), normalised to sum 1.

    Raises:
        UsageError: an unknown name, a weight that is not a positive number, or no names at all.
    """
    weights: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = (piece.strip() for piece in part.partition(":"))
        if name not in known:
            raise unknown_name(f"style in {option}", name, known)
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            raise UsageError(f"{option}={text!r}: {weight!r} is not a number; write {name}:0.5") from None
        if not 0 < weights[name] < float("inf"):
            raise UsageError(f"{option}={text!r}: the weight of {name} must be greater than 0")
    if not weights:
        raise UsageError(f"{option}={text!r} names no style; write for instance {known[0]}:0.8,{known[-1]}:0.2")
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def draw(weights: Mapping[str, float], generator: random.Random) -> str:
    """A name drawn with the probability of its weight."""
    return generator.choices(list(weights), list(weights.values()))[0]
