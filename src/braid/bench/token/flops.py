"""Useful floating-point operations of a language model: what the mathematics asks for, whatever a library does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Row = tuple[int, int]
"""Tokens of a prompt and of the response to it, the end included."""


@dataclass(frozen=True)
class TokenFlops:
    """Counts operations, a multiplication with its addition as two.

    Forward, a token at position p (the first is 1) costs `2 x matmul_parameters + 4 x layers x heads x head_dim x p`:
    every weight of a linear layer once, the language-model head among them, and the attention to p tokens, scores and
    mixture. Embeddings are looked up, not multiplied; norms, activations and softmax are left out; so is padding.

    Args:
        matmul_parameters: weights of all linear layers.
        layers: number of layers.
        heads: query heads of a layer.
        head_dim: size of a head.
    """

    matmul_parameters: int
    layers: int
    heads: int
    head_dim: int

    @classmethod
    def of(cls, options: dict[str, Any], vocabulary: int) -> TokenFlops:
        """For a workload's `hidden`, `layers`, `heads` and `intermediate`, with as many key heads as query heads."""
        hidden, layers = options["hidden"], options["layers"]
        weights = layers * (4 * hidden**2 + 3 * hidden * options["intermediate"]) + hidden * vocabulary
        return cls(weights, layers, options["heads"], hidden // options["heads"])

    def forward(self, first: int, last: int) -> float:
        """FLOPs of the tokens at positions `first` to `last`, both included; 0 if there are none."""
        count = max(0, last - first + 1)
        positions = count * (first + last) // 2
        return 2.0 * self.matmul_parameters * count + 4.0 * self.layers * self.heads * self.head_dim * positions

    def prefill(self, prompts: Sequence[int]) -> float:
        """Reading prompts of these lengths, each once, however many responses it gets."""
        return sum(self.forward(1, prompt) for prompt in prompts)

    def decode(self, rows: Sequence[Row]) -> float:
        """Feeding every response token but the last, which nothing follows; prefill gives the first one."""
        return sum(self.forward(prompt + 1, prompt + response - 1) for prompt, response in rows)

    def update(self, rows: Sequence[Row], group: int = 1) -> float:
        """Forward and backward (twice the forward) over everything from which a response token is predicted.

        Args:
            rows: of one step; every prompt counts `group` times.
            group: responses per prompt, which need its states only once.
        """
        return 3.0 * (self.prefill([prompt for prompt, _ in rows]) / group + self.decode(rows))

    def of_step(self, rows: Sequence[Row], group: int) -> dict[str, float]:
        """FLOPs of each phase of a step that generates the rows and learns from them.

        Args:
            rows: of one step; every prompt counts `group` times.
            group: responses per prompt.
        """
        read = self.prefill([prompt for prompt, _ in rows]) / group
        return {"prefill": read, "decode": self.decode(rows), "update": self.update(rows, group)}
