"""Time several libraries on the same work in one run, alternating, each in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from braid.bench.machine import describe_machine
from braid.bench.peak import peak_gflops
from braid.bench.report import plot_benchmark, summarise, total
from braid.bench.worker import Worker
from braid.bench.workload import BRAID, Workload, locate
from braid.errors import BraidError
from braid.training.checkpoint import write_atomically, write_json
from braid.training.progress import progress_bar

Advance = Callable[[str], None]
"""Told what comes next, once for every piece of work that is done."""


def benchmark(
    workloads: Sequence[Workload],
    output: Path,
    *,
    against: Sequence[str] = (),
    runs: int = 5,
    steps: int = 0,
    threads: int = 0,
    quick: bool = False,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Time Braid and other libraries on some workloads.

    The results so far are written after every workload; a library that fails loses nothing of the others.

    Args:
        workloads: what is timed.
        output: JSON file; a bar chart is written beside it, with `.png` in place of its suffix.
        against: libraries beside Braid; each takes part in the workloads that it is a contestant of.
        runs: of every library and workload, in turns.
        steps: of a run; 0 is the workload's own number.
        threads: of every library; 0 is PyTorch's choice.
        quick: a single run of 2 steps after one step of warm-up.
        show_progress: print a progress bar.

    Returns:
        What the JSON file holds; `braid.bench.report` says what that is.

    Raises:
        BraidError: the peak could not be measured.
        StorageError: the results cannot be written.
    """
    if quick:
        runs, steps = 1, 2
    chosen = [replace(w, steps=steps or w.steps, warmup=1 if quick else w.warmup) for w in workloads]
    entrants = {w.name: [BRAID, *(name for name in against if name in w.contestants)] for w in chosen}
    record: dict[str, Any] = {
        "machine": describe_machine(against, threads),
        "command": {"runs": runs, "steps": steps, "threads": threads, "against": list(against), "quick": quick},
        "workloads": {},
    }
    with progress_bar("benchmark", 2 + sum(map(len, entrants.values())) * (runs + 2), show=show_progress) as bar:
        done = -1.0

        def advance(note: str) -> None:
            nonlocal done
            done += 1
            bar.update(done, note)

        advance("matrix peak")
        record["peak_gflops"] = {"before": peak_gflops(threads)}
        for workload in chosen:
            with tempfile.TemporaryDirectory(prefix="braid-bench-") as folder:
                record["workloads"][workload.name] = {
                    "title": workload.title,
                    "unit": workload.unit,
                    "bar": workload.bar,
                    "relative_to": workload.relative_to,
                    "options": dict(workload.options),
                    "contestants": race(workload, entrants[workload.name], runs, threads, Path(folder), advance),
                }
            write_json(output, summarise(record))
        advance("matrix peak")
        record["peak_gflops"]["after"] = peak_gflops(threads)
        advance("done")
    summary = summarise(record)
    write_json(output, summary)
    write_atomically(output.with_suffix(".png"), lambda path: plot_benchmark(summary, path))
    return summary


def race(
    workload: Workload, libraries: Sequence[str], runs: int, threads: int, folder: Path, advance: Advance
) -> dict[str, Any]:
    """Time libraries on one workload: all are prepared and warmed up, then they take turns.

    Args:
        workload: what is timed.
        libraries: contestants, in the order of the first round; every further round turns the order around.
        runs: rounds.
        threads: of each.
        folder: for the workload's files and the logs.
        advance: told of progress.

    Returns:
        library -> `runs`, `peak_memory_mib`, `version`, `configuration`, `threads`, and `error` if it failed.
    """
    options = dict(workload.options)
    if workload.setup:
        options |= locate(workload.setup)(options, folder)
    entries: dict[str, dict[str, Any]] = {library: {"runs": []} for library in libraries}
    workers: dict[str, Worker] = {}

    def attempt(library: str, action: Callable[[Worker], dict[str, Any]], note: str) -> dict[str, Any]:
        advance(f"{workload.name}: {library}, {note}")
        if "error" in entries[library]:
            return {}
        try:
            return action(workers[library])
        except BraidError as error:
            entries[library]["error"] = str(error)
            return {}

    try:
        for library in libraries:
            log = folder / f"{library}.log"
            workers[library] = Worker(workload.name, library, workload.contestants[library], options, threads, log)
        for library in libraries:
            entries[library] |= attempt(library, lambda worker: worker.ready(), "preparing")
        for library in libraries:
            attempt(library, lambda worker: worker.run(workload.warmup), "warm-up")
        for index in range(runs):
            for library in libraries if index % 2 == 0 else reversed(libraries):
                found = attempt(library, lambda worker: worker.run(workload.steps), f"run {index + 1} of {runs}")
                if found:
                    entries[library]["runs"].append(total(found["steps"]))
                    entries[library]["peak_memory_mib"] = found["peak_memory_mib"]
    except BaseException:
        for worker in workers.values():
            worker.kill()
        raise
    finally:
        for worker in workers.values():
            worker.close()
    return entries
