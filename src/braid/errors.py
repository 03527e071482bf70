"""Errors addressed to the person running Braid: what was wrong, with its value, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar


class BraidError(Exception):
    """A mistake or a circumstance that the user can mend; the command line prints its message without a traceback.

    `exit_code` is what the command line then exits with.
    """

    exit_code: ClassVar[int] = 1


class UsageError(BraidError, ValueError):
    """A wrong name, option or value."""

    exit_code = 2


class DataError(BraidError, ValueError):
    """A row or file that cannot be used, named by file, line and field."""

    exit_code = 2


class TrainingDiverged(BraidError, RuntimeError):
    """Too many non-finite steps in a row."""


class Interrupted(BraidError):
    """The person asked the run to stop; a checkpoint was written, and the message says how to go on."""

    exit_code = 130


class StorageError(BraidError, OSError):
    """A run directory that cannot be written, or a checkpoint that cannot be read."""


class MissingExtra(BraidError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'braid[{extra}]'")
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        """Errors of worker processes travel as pickles, which would call the class with the message alone."""
        return MissingExtra, (self.package, self.extra)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a misspelt name, with the closest known names."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
    return UsageError(f"unknown {kind} {name!r}; {hint}")
