"""Medians, ratios and verdicts from made-up timings."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from braid.bench.contestant import StepTiming
from braid.bench.report import (
    RELATIVE,
    benchmark_table,
    medians,
    paired_ratio,
    plot_benchmark,
    summarise,
    total,
    verdict,
)


def timing(seconds: float, units: float, **phases: float) -> dict[str, Any]:
    flops = dict.fromkeys(phases, 1e9)
    return StepTiming(seconds, units, phases, flops, {"longest": units}).to_json()


def run(seconds: float, units: float = 100.0) -> dict[str, Any]:
    return total([timing(seconds, units, decode=0.5 * seconds, update=0.25 * seconds)])


def workload(bar: float | None, relative_to: str = "", **runs: list[dict[str, Any]]) -> dict[str, Any]:
    contestants = {library: {"runs": found, "peak_memory_mib": 100.0} for library, found in runs.items()}
    return {"bar": bar, "relative_to": relative_to, "unit": "made tokens", "contestants": contestants}


def summary(**workloads: dict[str, Any]) -> dict[str, Any]:
    peak = {"before": 8.0, "after": 10.0}
    return summarise({"machine": {"cpu": "abacus"}, "peak_gflops": peak, "workloads": workloads})


def test_time_of_no_phase_is_other() -> None:
    assert timing(2.0, 5.0, decode=0.5, update=1.0)["phases"] == {"decode": 0.5, "update": 1.0, "other": 0.5}
    assert timing(1.0, 5.0, decode=0.7, update=0.6)["phases"]["other"] == 0.0


def test_a_run_is_the_sum_of_its_steps() -> None:
    found = total([timing(1.0, 10, decode=0.5), timing(3.0, 30, decode=1.0, update=1.0)])
    assert (found["steps"], found["seconds"], found["units"]) == (2, 4.0, 40)
    assert found["phases"] == {"decode": 1.5, "other": 1.5, "update": 1.0}
    assert found["flops"] == {"decode": 2e9, "update": 1e9}
    assert found["facts"] == {"longest": 20.0}


def test_medians_by_hand() -> None:
    found = medians([run(1.0), run(2.0), run(8.0)], peak_gflops=10.0)
    assert found["units_per_second"] == 50.0
    assert found["step_ms"] == 2000.0
    assert found["phases_ms"] == {"decode": 1000.0, "update": 500.0, "other": 500.0}
    assert found["mfu"] == {"decode": pytest.approx(0.1), "update": pytest.approx(0.2)}
    assert found["mfu_step"] == pytest.approx(0.1)  # 2 GFLOP in 2 s of 10 GFLOP/s
    assert medians([], 10.0) == {}


def test_ratios_pair_round_with_round() -> None:
    own, other = [run(1.0), run(2.0), run(4.0)], [run(2.0), run(2.0, units=50.0)]
    assert paired_ratio(own, other) == {"median": 2.0, "min": 2.0, "max": 2.0, "rounds": [2.0, 2.0]}
    assert paired_ratio(own, [run(3.0), run(2.0), run(8.0)])["rounds"] == [3.0, 1.0, 2.0]  # type: ignore[index]
    assert paired_ratio(own, []) is None


def test_summary_judges_by_the_larger_peak_and_the_bar() -> None:
    found = summary(
        a=workload(1.5, braid=[run(1.0)] * 3, trl=[run(1.0), run(2.0), run(3.0)]),
        b=workload(1.5, braid=[run(2.0)], trl=[run(2.0)]),
        c=workload(None, braid=[run(1.0)], trl=[run(1.0)]),
        d=workload(0.9, relative_to="a", braid=[run(1.25)]),
        e=workload(0.9, relative_to="nowhere", braid=[run(1.0)]),
        f=workload(1.0, braid=[], trl=[run(1.0)]),
    )
    assert found["peak_gflops"]["used"] == 10.0
    works = found["workloads"]
    assert [w["passed"] for w in works.values()] == [True, False, None, False, None, None]
    assert verdict(works["a"], "trl") == "2.00x ✓\n1.00–3.00\nasked 1.5"
    assert verdict(works["b"], "trl") == "1.00x ✗\nasked 1.5"
    assert verdict(works["c"], "trl") == "1.00x"
    assert verdict(works["d"], RELATIVE) == "0.80x ✗\nof a\nasked 0.9"
    assert verdict(works["e"], RELATIVE) == verdict(works["f"], "trl") == ""


def test_table_fits_80_columns_and_chart_is_drawn(tmp_path: Path) -> None:
    phases = {"prefill": 0.1, "decode": 0.5, "reward": 0.01, "update": 0.5}
    flops = {"prefill": 1e8, "decode": 1e9, "update": 5e9}
    steps = [StepTiming(1.234, 5000.0, phases, flops).to_json()]
    failed = workload(1.2, braid=[total(steps)], trl=[])
    failed["contestants"]["trl"]["error"] = "it broke"
    found = summary(**{"sft-medium": workload(1.2, braid=[total(steps)] * 2, trl=[total(steps)] * 2), "broken": failed})
    screen = StringIO()
    Console(file=screen, width=80).print(benchmark_table(found))
    lines = screen.getvalue().splitlines()
    assert "…" not in screen.getvalue()
    assert any(line.split()[:4] == ["sft-medium", "braid", "4,052", "1,234"] for line in lines)
    assert any("1.00x ✗" in line for line in lines)
    assert any(line.split() == ["trl", "failed"] for line in lines)
    plot_benchmark(found, tmp_path / "chart.png")
    plot_benchmark(summary(), tmp_path / "empty.png")
    assert (tmp_path / "chart.png").stat().st_size > 5000
