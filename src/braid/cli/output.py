"""Where tables are printed."""

from __future__ import annotations

from rich.console import Console


def console() -> Console:
    """Standard output without markup: square brackets in help texts, paths and data are just brackets."""
    return Console(markup=False, highlight=False)
