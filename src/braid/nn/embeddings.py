"""Numbers as vectors: levels of noise and positions in time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from braid.errors import UsageError
from braid.nn.initialisation import seeded_by


def sinusoidal(position: Tensor, width: int, longest_period: float = 10_000.0) -> Tensor:
    """Sines, then cosines, of a number at geometrically spaced frequencies from 1 down to 1 / longest_period.

    Args:
        position: [...], any numbers.
        width: even, at least 4.
        longest_period: the slowest frequency is its inverse, radians per unit of position; above 1.

    Returns:
        [..., width], in [-1, 1].

    Raises:
        UsageError: an odd width, or one below 4.

    Source: arXiv 1706.03762, section 3.5; spacing as in Diffusion Policy.
    """
    half = width // 2
    if width % 2 or half < 2:
        raise UsageError(f"width={width} must be even and at least 4")
    index = torch.arange(half, device=position.device, dtype=torch.float32)
    angle = position.to(torch.float32).unsqueeze(-1) * torch.exp(-math.log(longest_period) / (half - 1) * index)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def thermometer(remaining: Tensor, size: int) -> Tensor:
    """A number of steps as a vector that is 0 before that index and 1 from it on (GCSL's horizon).

    Args:
        remaining: [...], int64, steps, in [0, size].
        size: longest horizon, steps.

    Returns:
        [..., size], float.

    Source: GCSL, arXiv 1912.06088; dibyaghosh/gcsl.
    """
    return (torch.arange(size, device=remaining.device) >= remaining.unsqueeze(-1)).to(torch.float32)


class LevelEmbedding(nn.Module):
    """The level of noise as a vector: sinusoidal, then a perceptron with one hidden layer. [B] -> [B, width].

    Args:
        width: even, at least 4.
        generator: on the CPU; decides the initial weights.
        scale: levels are multiplied by it first; 1 for step numbers, about 1000 for times in [0, 1].
    """

    def __init__(self, width: int, *, generator: torch.Generator, scale: float = 1.0) -> None:
        super().__init__()
        self.width, self.scale = width, scale
        with seeded_by(generator):
            self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))

    def forward(self, level: Tensor) -> Tensor:
        """[B, width] of levels [B]."""
        embedded: Tensor = self.network(sinusoidal(self.scale * level, self.width))
        return embedded
