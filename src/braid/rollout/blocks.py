"""The rows of a decoding batch in equal blocks: one block for each of several policies that decode as one, or one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

STAY = 0.8  # leaving costs a copy of the cache, so rows that have ended leave once this share of the batch is left


class Blocks:
    """Which rows still write, which are drawn for, and which leave.

    A block draws for the rows that would be in the batch if it were decoded alone, so that its generator gives it the
    same tokens. Blocks stay equally large; rows that make them so are drawn for by nobody.

    Args:
        sizes: rows of each block that write, the first ones.
        width: rows of every block.
        generators: one per block, the source of its randomness; None is the global one.
        device: of the rows.

    Attributes:
        rows: [N], the number that each row of the batch had at first.
        live: [N] bool, rows that still write; whoever decodes keeps it up to date.
        left: live rows of each block when `count` was last asked.
    """

    def __init__(
        self, sizes: Sequence[int], width: int, generators: Sequence[torch.Generator | None], device: torch.device
    ) -> None:
        self._sizes, self.left = list(sizes), list(sizes)
        self._generators = generators
        self.rows = torch.arange(len(sizes) * width, device=device)
        first = torch.arange(width, device=device) < torch.tensor(self._sizes, device=device).unsqueeze(-1)
        self.live, self._drawn = first.flatten(), first.flatten().clone()
        self._index = torch.nonzero(self._drawn).flatten()

    def draw(self, probability: Tensor) -> Tensor:
        """A token for every row: [N, V] -> [N]; 0 for rows that nobody draws for."""
        if len(self._generators) == 1:
            return torch.multinomial(probability, 1, generator=self._generators[0]).squeeze(-1)
        # weights that have diverged are the trouble of one policy; `multinomial` would end all
        probability = probability[self._index].nan_to_num(1.0)
        pieces = zip(probability.split(self._sizes), self._generators, strict=True)
        drawn = [torch.multinomial(piece, 1, generator=source) for piece, source in pieces if len(piece)]
        return torch.zeros_like(self.rows).index_copy(0, self._index, torch.cat(drawn).squeeze(-1))

    def count(self) -> bool:
        """Count the rows that still write; returns whether there are fewer than before."""
        before, self.left = self.left, self.live.view(len(self._sizes), -1).sum(-1).tolist()
        return self.left != before

    def leave(self) -> Tensor | None:
        """Let rows that have ended go once they are many.

        Returns:
            Indices of the rows to go on with, block by block, or None if all stay.
        """
        sizes = [left if left <= STAY * size else size for left, size in zip(self.left, self._sizes, strict=True)]
        if sizes == self._sizes:
            return None
        width, device = len(self.rows) // len(sizes), self.rows.device
        changed = torch.tensor([new != old for new, old in zip(sizes, self._sizes, strict=True)], device=device)
        self._drawn &= self.live | ~changed.repeat_interleave(width)
        self._sizes, largest = sizes, max(sizes)
        keep = None
        if largest <= STAY * width:
            order = (~self._drawn).view(len(sizes), width).int().argsort(dim=-1, stable=True)[:, :largest]
            keep = (order + torch.arange(0, len(self.rows), width, device=device).unsqueeze(-1)).flatten()
            self.rows, self.live, self._drawn = self.rows[keep], self.live[keep], self._drawn[keep]
        self._index = torch.nonzero(self._drawn).flatten()
        return keep
