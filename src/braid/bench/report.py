"""Numbers of a benchmark: medians over runs, ratios of paired runs, and how they are written and shown.

The JSON file holds

    machine       cpu, cores, threads, system, python, packages (name -> version)
    command       runs, steps (0: the workload's own), threads, against (libraries), quick
    peak_gflops   before, after, used (the larger): GFLOP/s of float32 matrix products
    workloads     name -> title, unit, bar, relative_to, options, and
        contestants   library -> version, configuration, threads, peak_memory_mib,
            runs      list of: steps, seconds, units (sums), phases (seconds), flops, facts (means over steps)
            median    over the runs: units_per_second, step_ms, phases_ms, mfu, mfu_step; empty without runs
            error     why it did not finish; absent if it did
        ratio         library -> median, min, max, rounds: Braid's units per second over the library's, in each round;
                      `relative` instead of a library's name where Braid is compared with its own median elsewhere
        passed        whether every ratio's median reaches the bar; null without a bar or ratio

`mfu` is the share of the peak that the useful FLOPs of a phase reach; `mfu_step` that of the whole step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from braid.bench.workload import BRAID

if TYPE_CHECKING:
    from rich.table import Table

RELATIVE = "relative"
PHASES = ("prefill", "decode", "reward", "update")
"""Their order in tables; further ones follow, `other` last."""


def total(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A run: the sums of its steps' times, units and FLOPs, and the means of their facts.

    Args:
        steps: at least one, as `StepTiming.to_json` makes them.
    """

    def combined(name: str, how: Any) -> dict[str, float]:
        keys = dict.fromkeys(key for step in steps for key in step[name])
        return {key: float(how([step[name].get(key, 0.0) for step in steps])) for key in keys}

    return {
        "steps": len(steps),
        "seconds": sum(step["seconds"] for step in steps),
        "units": sum(step["units"] for step in steps),
        "phases": combined("phases", sum),
        "flops": combined("flops", sum),
        "facts": combined("facts", fmean),
    }


def medians(runs: Sequence[Mapping[str, Any]], peak_gflops: float) -> dict[str, Any]:
    """Medians over runs; each number has its own.

    Args:
        runs: as `total` makes them.
        peak_gflops: what counts as full use of the machine, GFLOP/s.
    """
    if not runs:
        return {}
    peak = peak_gflops * 1e9

    def use(run: Mapping[str, Any], phase: str) -> float:
        seconds = run["phases"].get(phase, 0.0)
        return run["flops"].get(phase, 0.0) / seconds / peak if seconds else 0.0

    return {
        "units_per_second": median(run["units"] / run["seconds"] for run in runs),
        "step_ms": median(1e3 * run["seconds"] / run["steps"] for run in runs),
        "phases_ms": {
            phase: median(1e3 * run["phases"].get(phase, 0.0) / run["steps"] for run in runs)
            for phase in runs[0]["phases"]
        },
        "mfu": {
            phase: median(use(run, phase) for run in runs) for phase in runs[0]["flops"] if phase in runs[0]["phases"]
        },
        "mfu_step": median(sum(run["flops"].values()) / run["seconds"] / peak for run in runs),
    }


def paired_ratio(own: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Throughput of one library over that of another, round by round; None without a round that both finished.

    Args:
        own: runs of the first library, in order of the rounds.
        other: runs of the second.
    """
    rounds = [
        (a["units"] / a["seconds"]) / (b["units"] / b["seconds"]) for a, b in zip(own, other, strict=False)
    ]  # one of them may have failed in a later round
    if not rounds:
        return None
    return {"median": median(rounds), "min": min(rounds), "max": max(rounds), "rounds": rounds}


def summarise(record: dict[str, Any]) -> dict[str, Any]:
    """The record of a benchmark with everything that follows from its runs, in the form of the JSON file.

    Args:
        record: `peak_gflops` with `before` and maybe `after`, and `workloads` with the `runs` of their contestants.
    """
    peaks = record["peak_gflops"]
    peak = max(value for name, value in peaks.items() if name != "used")
    workloads = {}
    for name, workload in record["workloads"].items():
        contestants = {
            library: {**entry, "median": medians(entry["runs"], peak)}
            for library, entry in workload["contestants"].items()
        }
        workloads[name] = {**workload, "contestants": contestants}
    for workload in workloads.values():
        workload["ratio"] = _ratios(workload, workloads)
        reached = (
            [ratio["median"] >= workload["bar"] for name, ratio in workload["ratio"].items() if "-" not in name]
            if workload["bar"]
            else []
        )
        workload["passed"] = all(reached) if reached else None
    return {**record, "peak_gflops": {**peaks, "used": peak}, "workloads": workloads}


def _ratios(workload: Mapping[str, Any], workloads: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    contestants = workload["contestants"]
    own = contestants.get(BRAID, {"runs": []})["runs"]
    ratios = {library: paired_ratio(own, entry["runs"]) for library, entry in contestants.items() if library != BRAID}
    elsewhere = workloads.get(workload["relative_to"], {}).get("contestants", {}).get(BRAID, {}).get("median")
    if elsewhere and own:
        value = contestants[BRAID]["median"]["units_per_second"] / elsewhere["units_per_second"]
        ratios[RELATIVE] = {"median": value, "min": value, "max": value, "rounds": [value]}
    return {library: ratio for library, ratio in ratios.items() if ratio is not None}


def verdict(workload: Mapping[str, Any], library: str) -> str:
    """`1.42x ✓`, its range over the rounds and what was asked, in lines; empty where Braid is not compared."""
    ratio, bar = workload["ratio"].get(library), None if "-" in library else workload["bar"]
    if ratio is None:
        return ""
    lines = [f"{ratio['median']:.2f}x"]
    if bar is not None:
        lines = [lines[0] + (" ✓" if ratio["median"] >= bar else " ✗")]
    if library == RELATIVE:
        lines.append(f"of {workload['relative_to']}")
    elif len(ratio["rounds"]) > 1:
        lines.append(f"{ratio['min']:.2f}–{ratio['max']:.2f}")
    return "\n".join(lines + ([f"asked {bar:g}"] if bar is not None else []))


def phases_of(workloads: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """All phases of a benchmark, in the order of tables and charts."""
    medians_ = [entry["median"] for workload in workloads.values() for entry in workload["contestants"].values()]
    found = dict.fromkeys(phase for numbers in medians_ if numbers for phase in numbers["phases_ms"])
    known = [phase for phase in PHASES if phase in found]
    return known + [p for p in found if p not in (*PHASES, "other")] + [p for p in ("other",) if p in found]


def benchmark_table(summary: Mapping[str, Any]) -> Table:
    """A table with a row per workload and library, for a terminal of 80 columns."""
    from rich.box import SIMPLE
    from rich.table import Table

    workloads = summary["workloads"]
    medians_ = [entry["median"] for workload in workloads.values() for entry in workload["contestants"].values()]
    phases = [p for p in phases_of(workloads) if any(p in numbers["mfu"] for numbers in medians_ if numbers)]
    table = Table(
        title=f"{summary['machine']['cpu']}, matrix peak {summary['peak_gflops']['used']:.0f} GFLOP/s",
        caption="Medians over runs. Times in ms a step; below them the share of the matrix peak that they reach.",
        box=SIMPLE,
        padding=0,
        show_edge=False,
    )
    for name in ("workload", "by", "per s", "step", *phases, "other", "GiB", "Braid is"):
        text = name in ("workload", "by", "Braid is")
        table.add_column(name, justify="left" if text else "right", no_wrap=text)
    for name, workload in workloads.items():
        for position, (library, entry) in enumerate(workload["contestants"].items()):
            shown = verdict(workload, RELATIVE if library == BRAID else library)
            cells = _cells(entry, phases) if entry["median"] else [""] * (len(phases) + 4)
            table.add_row("" if position else name, library, *cells, "failed" if "error" in entry else shown)
        table.add_section()
    return table


def _cells(entry: Mapping[str, Any], phases: Sequence[str]) -> list[str]:
    numbers = entry["median"]
    times, shares = numbers["phases_ms"], {"step": numbers["mfu_step"], **numbers["mfu"]}

    def cell(milliseconds: float, phase: str) -> str:
        return f"{milliseconds:,.0f}" + (f"\n{100 * shares[phase]:.0f} %" if phase in shares else "")

    rest = sum(time for phase, time in times.items() if phase not in phases)
    return [
        f"{numbers['units_per_second']:,.0f}",
        cell(numbers["step_ms"], "step"),
        *(cell(times[phase], phase) if phase in times else "" for phase in phases),
        f"{rest:,.0f}",
        f"{entry['peak_memory_mib'] / 1024:.2f}",
    ]


def plot_benchmark(summary: Mapping[str, Any], file: Path) -> None:
    """A bar chart: for each workload and library, the time of 1,000 units by phase.

    Args:
        summary: as `summarise` makes it.
        file: PNG.
    """
    from matplotlib.figure import Figure

    workloads = {
        name: workload
        for name, workload in summary["workloads"].items()
        if any(entry["median"] for entry in workload["contestants"].values())
    }
    phases = phases_of(workloads)
    figure = Figure(figsize=(2 + 2.2 * max(1, len(workloads)), 4.2))  # not pyplot: a notebook's backend stays as it is
    axes = figure.subplots(1, max(1, len(workloads)), squeeze=False)[0]
    for axis, (name, workload) in zip(axes, workloads.items(), strict=False):
        entries = {library: entry["median"] for library, entry in workload["contestants"].items() if entry["median"]}
        bottom = dict.fromkeys(entries, 0.0)
        for index, phase in enumerate(phases):
            heights = {
                library: numbers["phases_ms"].get(phase, 0.0)
                / (numbers["units_per_second"] * numbers["step_ms"] / 1e3)
                * 1e3
                for library, numbers in entries.items()
            }
            axis.bar(list(heights), list(heights.values()), 0.7, list(bottom.values()), label=phase, color=f"C{index}")
            bottom = {library: bottom[library] + height for library, height in heights.items()}
        title = [verdict(workload, library).replace("\n", ", ") for library in workload["ratio"]]
        axis.set_title("\n".join([name, *title]), fontsize=8)
        axis.set_xlabel(workload["unit"], fontsize=8)
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("ms per 1,000 units")
    if workloads:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    figure.set_layout_engine("constrained")
    figure.savefig(file, dpi=120, format="png")
