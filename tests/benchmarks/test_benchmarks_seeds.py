"""The benchmark of several seeds as one program runs on small sizes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_seeds_are_timed_together_and_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    small = "--device cpu --parameters 1.2e5 --seeds 1 2 --steps 2 --prompts 2 --tokens 4"
    monkeypatch.setattr(sys, "argv", ["seeds.py", *small.split()])
    __import__("seeds").main()
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert [int(row[0]) for row in rows] == [1, 2]
    for count, together, alone, ratio in rows:
        assert float(ratio) == pytest.approx(float(together) / float(alone), rel=0.2), count
