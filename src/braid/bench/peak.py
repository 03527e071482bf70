"""The matrix-multiplication rate that this machine reaches, by which the useful FLOPs of a step are judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from braid.errors import BraidError

SIZES = (256, 512, 1024, 2048)
SECONDS_PER_SIZE = 0.4


def peak_gflops(threads: int = 0) -> float:
    """Measure the best float32 rate of square matrix products, in a process of its own.

    Args:
        threads: that may be used; 0 leaves it to PyTorch.

    Returns:
        GFLOP/s.

    Raises:
        BraidError: the measurement failed.
    """
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    done = subprocess.run([sys.executable, "-m", __name__], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise BraidError(f"the peak could not be measured: {done.stderr.strip()[-300:]}")
    return float(json.loads(done.stdout))


def best_rate(size: int, seconds: float) -> float:
    """The best rate of products of two square matrices, GFLOP/s.

    Args:
        size: rows and columns.
        seconds: how long to try.
    """
    import torch

    a, b = torch.rand(size, size), torch.rand(size, size)
    out = torch.empty(size, size)
    best, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


if __name__ == "__main__":
    print(json.dumps(max(best_rate(size, SECONDS_PER_SIZE) for size in SIZES)))
