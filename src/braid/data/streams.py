"""Endless, seeded, resumable orders over examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from braid.data.examples import Example


class ExampleStream:
    """Examples in a random order without end; a new permutation is drawn for every pass.

    The order depends on the seed alone and the position is one number, so that a resumed run goes on where it was.

    Args:
        examples: what is streamed; at least one.
        seed: of all permutations.
        position: number of examples already taken.
    """

    def __init__(self, examples: Sequence[Example], seed: int, position: int = 0) -> None:
        if not examples:
            raise ValueError("a stream needs at least one example")
        self.examples = examples
        self.seed = seed
        self.position = position
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def take(self, count: int) -> list[Example]:
        """The next `count` examples; within one pass none comes twice."""
        taken = []
        for _ in range(count):
            epoch, index = divmod(self.position, len(self.examples))
            if self._order[0] != epoch:
                self._order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.examples)))
            taken.append(self.examples[self._order[1][index]])
            self.position += 1
        return taken
