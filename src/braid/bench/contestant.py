"""What a library must offer to be timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class StepTiming:
    """One step of training.

    Args:
        seconds: wall time of the whole step.
        units: work done, in the workload's unit (generated tokens, …).
        phases: name -> seconds, as far as the library lets them be told apart; `other` is filled up with the rest.
        flops: phase -> useful FLOPs.
        facts: further numbers of the step, which show that the libraries did the same (lengths, rewards …).
    """

    seconds: float
    units: float
    phases: dict[str, float] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All fields, with the phase `other` for the time that no phase accounts for."""
        rest = max(0.0, self.seconds - sum(self.phases.values()))
        return {**asdict(self), "phases": {**self.phases, "other": rest}}


class Contestant(Protocol):
    """A library with a workload; lives in a process of its own.

    Attributes:
        library: its name.
        version: of the library.
        configuration: what it was told, as plain JSON, for the record.
    """

    library: str
    version: str
    configuration: dict[str, Any]

    def prepare(self) -> None:
        """Load and build everything that is not part of a step."""

    def run(self, orders: Iterator[int], report: Callable[[list[StepTiming]], None]) -> None:
        """Take steps whenever asked to, and return when `orders` ends.

        A library that lets itself be called has `for steps in orders: report([self.step() for _ in range(steps)])`. One
        that owns its loop asks for the next order from a callback between two steps. Waiting for an order is no part
        of a step.

        Args:
            orders: numbers of steps to take in a row; the next one blocks while another library is being timed.
            report: takes the timings of one order.
        """

    def close(self) -> None:
        """Let go of files and threads."""
