"""Contestants that take no time, fail or die, for the processes that the tests of the harness start."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from braid.bench.contestant import StepTiming
from braid.errors import BraidError

Report = Callable[[list[StepTiming]], None]


class Steady:
    """Says that a step took `seconds` and did 10 units, and notes every order in the file `diary`."""

    library, version = "steady", "1.0"

    def __init__(self, options: dict[str, Any], name: str = "steady", seconds: float = 1.0) -> None:
        self.configuration, self.name, self.seconds = {"options": options}, name, seconds

    def prepare(self) -> None:
        print("this is not an answer")

    def run(self, orders: Iterator[int], report: Report) -> None:
        for steps in orders:
            with Path(self.configuration["options"]["diary"]).open("a", encoding="utf-8") as diary:
                diary.write(f"{self.name} {steps}\n")
            report([StepTiming(self.seconds, 10.0, {"work": self.seconds / 2}, {"work": 1e9})] * steps)

    def close(self) -> None:
        pass


def slow(options: dict[str, Any]) -> Steady:
    """Takes three times as long."""
    return Steady(options, "slow", 3.0)


class Failing(Steady):
    """Fails at its third order."""

    def run(self, orders: Iterator[int], report: Report) -> None:
        for index, steps in enumerate(orders):
            if index == 2:
                raise ValueError("the third is too much")
            report([StepTiming(1.0, 10.0)] * steps)


class Dying(Steady):
    """Its process ends without a word of why."""

    def run(self, orders: Iterator[int], report: Report) -> None:
        next(orders)
        print("out of cheese", file=sys.stderr, flush=True)
        os._exit(3)


class Unready(Steady):
    """Cannot be prepared."""

    def prepare(self) -> None:
        raise BraidError("there is no such checkpoint")
