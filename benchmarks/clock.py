"""Timing work on a device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Clock:
    """Times work on a device.

    Args:
        device: waited for before and after.
        repeats: timings of each piece of work, after one that does not count.
    """

    def __init__(self, device: str, repeats: int) -> None:
        self.device, self.repeats = torch.device(device), repeats

    def now(self) -> float:
        """Seconds, once the device has done all it was told to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def seconds(self, work: Callable[[], object]) -> list[float]:
        """How long each repetition took."""
        return [self._once(work) for _ in range(self.repeats + 1)][1:]

    def _once(self, work: Callable[[], object]) -> float:
        started = self.now()
        work()
        return self.now() - started

    @contextmanager
    def peak_memory(self, row: dict[str, Any]) -> Iterator[None]:
        """Adds the most GPU memory taken inside to a row."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        if self.device.type == "cuda":
            row["peak_gib"] = torch.cuda.max_memory_allocated(self.device) / 2**30
