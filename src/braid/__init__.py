"""Braid trains a policy from whatever signal there is, and compares methods fairly.

`braid.train`, `braid.compare`, `braid.resume` and `braid.load` are the front door; `braid.losses` stands alone.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braid.evidence.compare import compare as compare
    from braid.training.loop import resume as resume
    from braid.training.loop import train as train
    from braid.training.run import Run as Run

try:
    __version__ = version("braid")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "unknown"

_HOME = {
    "train": "braid.training.loop",
    "resume": "braid.training.loop",
    "Run": "braid.training.run",
    "compare": "braid.evidence.compare",
}

__all__ = ["Run", "__version__", "compare", "load", "resume", "train"]


def load(run: str) -> Run:
    """A run by its folder: `.policy`, `.metrics()`, `.config`, `.result`.

    Args:
        run: the folder.

    Raises:
        UsageError: no run is there.
    """
    from braid.training.run import Run

    return Run.open(run)


def __getattr__(name: str) -> Any:
    """Import what is asked for: `import braid` alone loads neither torch nor transformers."""
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'braid' has no attribute {name!r}")
