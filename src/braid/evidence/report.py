"""Tables and plots of a comparison."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from braid.evaluation.statistics import Estimate
from braid.training.run import Run

if TYPE_CHECKING:
    from rich.table import Table

    from braid.evidence.compare import Comparison


def comparison_table(found: Comparison) -> Table:
    """A table with a row per arm, for a terminal."""
    from rich.table import Table

    first = next(iter(found.arms))
    table = Table(title=f"held-out {found.metric}, {len(found.seeds)} seeds (95 % intervals)")
    for name in ("arm", found.metric, "gain over base", f"difference to {first}", "tokens", "seconds"):
        table.add_column(name, justify="left" if name == "arm" else "right", overflow="fold")
    table.add_row("base", percent(found.base), "", "", "", "")
    for label, numbers in found.arms.items():
        difference = "" if label == first else percent(numbers["difference"], signed=True)
        table.add_row(
            label,
            percent(numbers["mean"]),
            percent(numbers["gain"], signed=True),
            difference,
            f"{numbers['tokens']:,.0f}",
            f"{numbers['seconds']:.0f}",
        )
    return table


def comparison_markdown(found: Comparison) -> str:
    """The same table in Markdown."""
    first = next(iter(found.arms))
    lines = [
        f"| arm | {found.metric} | gain over base | difference to {first} | tokens | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
        f"| base | {percent(found.base)} | | | | |",
    ]
    for label, numbers in found.arms.items():
        difference = "" if label == first else percent(numbers["difference"], signed=True)
        lines.append(
            f"| {label} | {percent(numbers['mean'])} | {percent(numbers['gain'], signed=True)} | {difference} "
            f"| {numbers['tokens']:,.0f} | {numbers['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def percent(estimate: Estimate, *, signed: bool = False) -> str:
    """`71.3 [68.0, 74.1]` for an estimate between 0 and 1."""
    sign = "+" if signed else ""
    mean = f"{100 * estimate.mean:{sign}.1f}"
    if not estimate.has_interval:
        return mean
    return f"{mean} [{100 * estimate.low:{sign}.1f}, {100 * estimate.high:{sign}.1f}]"


def plot_comparison(found: Comparison, file: Path) -> None:
    """Learning curves: the mean over seeds with the range of the seeds, against the tokens used.

    Args:
        found: a comparison.
        file: PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4))  # not pyplot: the backend of a notebook stays as it is
    axes = figure.subplots(1, 2, sharey=True)
    name = f"eval/{found.metric}"
    for label in found.arms:
        for axis, unit in zip(axes, ("step", "num_tokens"), strict=True):
            x, table = _curves(found.runs(label), name, unit)
            if not len(x):
                continue
            (line,) = axis.plot(x, table.mean(axis=0), label=label, marker="o", markersize=3)
            axis.fill_between(x, table.min(axis=0), table.max(axis=0), color=line.get_color(), alpha=0.15)
    for axis, unit in zip(axes, ("steps", "response tokens, sampled or demonstrated"), strict=True):
        axis.set_xlabel(unit)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"validation {found.metric}")
    axes[0].set_ylim(0, 1)
    axes[1].legend(loc="lower right")
    figure.suptitle(f"mean and range of {len(found.seeds)} seeds")
    figure.tight_layout()
    figure.savefig(file, dpi=120, format="png")


def _curves(runs: Sequence[Run], name: str, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """x [points] and one row of values per run, at the points that all runs share."""
    points: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for run in runs:
        rows: list[dict[str, Any]] = [row for row in run.metrics() if name in row]
        for index, row in enumerate(rows):
            points[index].append((float(row.get(unit, 0.0)), row[name]))
    shared = [pairs for _, pairs in sorted(points.items()) if len(pairs) == len(runs)]
    x = np.asarray([np.mean([pair[0] for pair in pairs]) for pairs in shared])
    return x, np.asarray([[pair[1] for pair in pairs] for pairs in shared]).T
