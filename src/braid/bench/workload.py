"""What is timed: a piece of work that several libraries can do, and where those are found."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from braid.errors import unknown_name

BRAID = "braid"


@dataclass(frozen=True)
class Workload:
    """A piece of work.

    Args:
        name: on the command line.
        title: one phrase.
        unit: what throughput counts, in the plural (`generated tokens`).
        contestants: import name of a library -> `module:factory` of a `Contestant`; Braid's is `braid`. The factory
            gets `options` and is called in a process of its own. The same library set up in another way takes part as
            `LIBRARY-WAY`; no bar is set for it.
        options: what the work looks like; plain JSON.
        steps: of one run.
        warmup: steps before the first run.
        setup: `module:function` called with `options` and an empty folder before the contestants start; returns further
            options. Empty if there is nothing to set up.
        bar: the least acceptable throughput of Braid over that of each other library, or over its own on `relative_to`.
        relative_to: another workload on which Braid's throughput should be the same; empty if there is none.
    """

    name: str
    title: str
    unit: str
    contestants: Mapping[str, str]
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 2
    warmup: int = 2
    setup: str = ""
    bar: float | None = None
    relative_to: str = ""


@cache
def workloads() -> dict[str, Workload]:
    """All workloads by name: those in the `WORKLOADS` of every module of `braid.bench.workloads`, in their order."""
    from braid.bench import workloads as package

    modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    found = [w for name in modules for w in importlib.import_module(f"{package.__name__}.{name}").WORKLOADS]
    return {workload.name: workload for workload in found}


def find_workload(name: str) -> Workload:
    """The workload of a name.

    Raises:
        UsageError: there is none, with the closest names.
    """
    if name not in workloads():
        raise unknown_name("workload", name, workloads())
    return workloads()[name]


def libraries() -> list[str]:
    """The libraries that some workload compares Braid with."""
    return sorted({library for workload in workloads().values() for library in workload.contestants} - {BRAID})


def locate(specification: str) -> Any:
    """The object that `module:name` stands for."""
    module, _, name = specification.partition(":")
    return getattr(importlib.import_module(module), name)
