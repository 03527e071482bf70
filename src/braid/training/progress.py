"""What a person sees while something runs: a bar with rates, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Bar(Protocol):
    """A running job as far as its display is concerned."""

    def update(self, completed: float, note: str = "") -> None:
        """Say how far the job is, in the unit of its total, with a note of its latest numbers."""

    def say(self, text: str) -> None:
        """Print a line above the bar."""


class SilentBar:
    """Shows nothing."""

    def update(self, completed: float, note: str = "") -> None:
        """Ignore it."""

    def say(self, text: str) -> None:
        """Ignore it."""


class _RichBar:
    def __init__(self, progress: Any, task: Any) -> None:
        self._progress, self._task = progress, task

    def update(self, completed: float, note: str = "") -> None:
        self._progress.update(self._task, completed=completed, note=note)

    def say(self, text: str) -> None:
        self._progress.console.print(text, highlight=False)


@contextmanager
def progress_bar(title: str, total: float, *, show: bool = True) -> Iterator[Bar]:
    """A progress bar on standard error with elapsed and remaining time.

    Args:
        title: stands before the bar.
        total: the value of `completed` at the end.
        show: False gives a bar that shows nothing.
    """
    if not show:
        yield SilentBar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=4, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total, note="")
        bar: Bar = _RichBar(progress, task) if console.is_terminal else _LineBar(title, total)
        yield bar


class _LineBar:
    """For logs and pipes: a line whenever another tenth is done."""

    def __init__(self, title: str, total: float) -> None:
        self._title, self._total, self._tenths = title, total, 0

    def update(self, completed: float, note: str = "") -> None:
        tenths = int(10 * completed / self._total) if self._total else 0
        if tenths > self._tenths:
            self._tenths = tenths
            self.say(f"{self._title} {10 * tenths}% {note}")

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
