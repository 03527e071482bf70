"""Initial weights that depend on an explicit generator alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from braid.errors import UsageError


@contextmanager
def seeded_by(generator: torch.Generator) -> Iterator[None]:
    """Modules made inside draw their weights from a seed that ``generator`` gives; torch's global state is left alone.

    Args:
        generator: on the CPU; one number is drawn from it.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Initialisation:
    """Initial weights of the linear layers of a perceptron.

    Args:
        weights: ``torch`` leaves layers as torch makes them (uniform within 1 / sqrt(inputs), biases too);
            ``orthogonal`` has orthogonal weights and biases of 0.
        hidden_gain: factor of orthogonal hidden weights.
        output_gain: factor of orthogonal output weights (PPO: 0.01 for the actor, 1 for the critic).
        hidden_bias: what hidden biases are set to; None leaves them.
        output_bound: output weights and biases are drawn uniformly within +- this; None leaves them.
    """

    weights: Literal["torch", "orthogonal"] = "torch"
    hidden_gain: float = math.sqrt(2)
    output_gain: float = 1.0
    hidden_bias: float | None = None
    output_bound: float | None = None

    def __post_init__(self) -> None:
        if self.weights not in ("torch", "orthogonal"):
            raise UsageError(f"weights={self.weights!r}; use 'torch' or 'orthogonal'")
        if self.output_bound is not None and not self.output_bound >= 0:
            raise UsageError(f"output_bound={self.output_bound} must be at least 0")

    @torch.no_grad()
    def apply(self, layer: nn.Linear, is_output: bool) -> None:
        """Sets the weights of a layer, drawing from torch's global generator (see ``seeded_by``).

        Args:
            layer: with a bias.
            is_output: whether it is the last one of its network.
        """
        if self.weights == "orthogonal":
            nn.init.orthogonal_(layer.weight, self.output_gain if is_output else self.hidden_gain)
            nn.init.zeros_(layer.bias)
        if is_output and self.output_bound is not None:
            nn.init.uniform_(layer.weight, -self.output_bound, self.output_bound)
            nn.init.uniform_(layer.bias, -self.output_bound, self.output_bound)
        if not is_output and self.hidden_bias is not None:
            nn.init.constant_(layer.bias, self.hidden_bias)


TORCH = Initialisation()
ORTHOGONAL = Initialisation(weights="orthogonal")
SMALL_OUTPUT = Initialisation(hidden_bias=0.1, output_bound=3e-3)
"""Critics of SAC-N, EDAC and RIQL: hidden biases 0.1, outputs near 0."""
