"""A bandit of ordered bins with one bump of reward, where the initial policy is likely (aligned) or hardly ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from braid.errors import UsageError
from braid.options import check_options, option
from braid.tasks.task import Split, check_split, stable_integer


@dataclass(frozen=True)
class BinsTask:
    """K arms in a row, reward exp(-((a - peak) / width)^2), contexts that do not matter, and a skewed initial policy.

    The initial policy falls on the bins of [-1, 1] as tanh of a Cauchy variable of location -0.7 and scale 0.4 does:
    most of it lies left of the middle. Its probabilities are exact rather than counted from draws, so none is 0.

    Source: arXiv 2404.14367, the didactic bandit (peaks 20 and 70 of 100 arms, width 10).
    """

    name: ClassVar[str] = "bins"

    arms: int = option(100, "number of arms K", unit="arms", low=2, high=100_000)
    geometry: Literal["aligned", "misaligned"] = option(
        "misaligned", "whether the peak (at 0.2 K, or at 0.7 K) is where the initial policy is likely"
    )
    width: float = option(10.0, "width of the bump", unit="arms", source="arXiv 2404.14367", above=0)
    context_size: int = option(100, "length of a context", unit="numbers", source="arXiv 2404.14367", low=1)

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def rewards(self) -> NDArray[np.float64]:
        """[K], the reward of every arm, in [0, 1] and without noise."""
        peak = self.arms * (0.2 if self.geometry == "aligned" else 0.7)
        return np.exp(-(((np.arange(self.arms) - peak) / self.width) ** 2))

    @property
    def initial_probabilities(self) -> NDArray[np.float64]:
        """[K], the initial (reference) policy in every context."""
        inner = np.arctanh(np.linspace(-1, 1, self.arms + 1)[1:-1])
        cumulated = 0.5 + np.arctan((inner + 0.7) / 0.4) / np.pi
        return np.diff(cumulated, prepend=0.0, append=1.0)

    def contexts(self, split: Split, n: int, seed: int = 0) -> NDArray[np.float32]:
        """[n, context_size], uniform in [0, 1); context i depends only on its size, the seed, the split and i.

        Raises:
            UsageError: an unknown split, or a negative number.
        """
        check_split(split, n)
        generator = np.random.default_rng(stable_integer("bins", seed, split))
        return generator.random((n, self.context_size)).astype(np.float32)

    def value(self, probabilities: ArrayLike) -> float:
        """The exact expected reward of a policy.

        Args:
            probabilities: [..., K], averaged over all leading axes.

        Raises:
            UsageError: not K arms.
        """
        given = np.asarray(probabilities, dtype=np.float64)
        if given.ndim == 0 or given.shape[-1] != self.arms:
            raise UsageError(f"probabilities has shape {given.shape}; its last axis must have {self.arms} arms")
        return float((given @ self.rewards).mean())
