"""What a run was timed on."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def describe_machine(libraries: Iterable[str], threads: int) -> dict[str, Any]:
    """Processor, cores, threads asked for (0: PyTorch's choice), system, and versions of Python and the libraries."""
    others = dict.fromkeys(library.partition("-")[0] for library in libraries)
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in ("braid", "torch", "transformers", *others)},
    }


def cpu_model() -> str:
    """The processor's name, or its architecture where the system does not tell."""
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def installed_version(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
