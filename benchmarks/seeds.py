"""Several seeds of a small model as one program, beside one after another: GRPO steps per second of each seed.

    python benchmarks/seeds.py                                        # on the first CUDA device
    python benchmarks/seeds.py --device cpu --parameters 1.2e5 --steps 4 --prompts 4   # seconds; shows that it works

Nothing is downloaded; the weights are random, so responses are as long as they may be. Start-up is not counted.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from braid.policies import tiny
from braid.training.configuration import Configuration
from braid.training.loop import start
from braid.training.run import Run
from braid.training.together import train_together

WARM_UP = 2
"""Steps that do not count: kernels are loaded and memory is taken."""


def main() -> None:
    """Read the options, time, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parameters", type=float, default=1e6, help="of the model")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 4, 8], help="how many seeds at a time")
    parser.add_argument("--steps", type=int, default=10, help="that are timed")
    parser.add_argument("--prompts", type=int, default=16, help="per step, 8 responses each")
    parser.add_argument("--tokens", type=int, default=64, help="of a response")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny(chosen.parameters).save(folder / "model")
        configurations = [configuration(chosen, folder / "model", seed) for seed in range(max(chosen.seeds))]
        alone = seconds_per_step(start(configurations[0], folder / "alone", show_progress=False))
        table = Table("seeds", "together, steps/s of each", "one after another, steps/s of each", "ratio")
        for count in chosen.seeds:
            paths = [folder / f"{count}-{seed}" for seed in range(count)]
            runs = train_together(configurations[:count], paths, show_progress=False)
            together = mean(seconds_per_step(run) for run in runs)
            rates = (1 / together, 1 / (count * alone), count * alone / together)
            table.add_row(str(count), *(f"{rate:.2f}" for rate in rates))
    Console().print(table)


def configuration(chosen: argparse.Namespace, model: Path, seed: int) -> Configuration:
    """A run without evaluations worth mentioning."""
    options = {
        "model": str(model),
        "device": chosen.device,
        "seed": seed,
        "steps": WARM_UP + chosen.steps,
        "prompts_per_step": chosen.prompts,
        "max_new_tokens": chosen.tokens,
        "micro_batch_tokens": 2**16,
        "eval_every": 0,
        "eval_examples": 1,
        "test_examples": 0,
        "checkpoint_every": 0,
        "track": "",
    }
    return Configuration.build("grpo", "arithmetic", {**options, "group_size": 8})


def seconds_per_step(run: Run) -> float:
    """The mean of the steps that count; of runs that are trained together, seconds of all of them."""
    return mean(row["time/step"] for row in run.metrics()[1 + WARM_UP :])


if __name__ == "__main__":
    main()
