"""How much memory a step takes, each measurement in a process of its own.

    python benchmarks/memory.py growth      # does an update take more memory when batches or responses grow?
    python benchmarks/memory.py step        # a step of GRPO on a model of 0.5 B parameters, on the CPU

`growth` trains on 1, 2, 4 and 8 times the rows, then on rows of 1, 2, 4 and 8 times the length, with the same
`micro_batch_tokens`. The least is two micro-batches, the second of which is computed beside the gradients of the first.
`step` takes two steps of GRPO (4 prompts x 4 responses x 32 tokens) with the shape of
Qwen2.5-0.5B and random weights, which are first written to a checkpoint and loaded as `braid train --model` does.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

GIB = 2**30
LIMIT = 24.0
VARIANTS: dict[str, dict[str, Any]] = {
    "bfloat16": {"weight_type": "bfloat16"},
    "lora, bfloat16 base": {"weight_type": "bfloat16", "adapter": "lora"},
    "lora, float32 base": {"weight_type": "float32", "adapter": "lora"},
    "float32": {"weight_type": "float32"},
}
console = Console(width=None if sys.stdout.isatty() else 130)


# in a process of its own


def peak_memory() -> float:
    """The most memory this process has held so far, GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def status(name: str) -> float:
    """GiB of this process under a name of /proc/self/status; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / GIB for line in lines if line.startswith(f"{name}:")), 0.0)


def available_memory() -> float:
    """GiB that the machine could give to a new process; infinite where it does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float("inf")
    return next(int(line.split()[1]) * 1024 / GIB for line in lines if line.startswith("MemAvailable:"))


def measure_growth(order: dict[str, Any]) -> dict[str, Any]:
    """Memory of an update on `prompts` x 4 rows of `tokens` tokens, a quarter of them the prompt's."""
    import torch
    from qwen_shaped import GivenRollouts, Shape, make_learner, make_policy

    from braid.training.settings import Settings

    policy = make_policy(Shape(**order["shape"]), torch.float32, "cpu")
    before = peak_memory()
    prompt = order["tokens"] // 4
    method = GivenRollouts(group_size=4, prompt_tokens=prompt, response_tokens=order["tokens"] - prompt)
    settings = Settings(device="cpu", prompts_per_step=order["prompts"], micro_batch_tokens=order["micro_batch_tokens"])
    learner = make_learner(policy, method, settings, prompt_tokens=prompt, max_new_tokens=order["tokens"] - prompt)
    seconds = [learner.step(0.0)["time/update"] for _ in range(2)]
    return {"before_gib": before, "peak_gib": peak_memory(), "seconds": min(seconds)}


def measure_step(order: dict[str, Any]) -> dict[str, Any]:
    """Memory and time of each phase of GRPO on a checkpoint."""
    marks: list[dict[str, Any]] = []
    started = time.perf_counter()

    def mark(phase: str, **more: Any) -> None:
        nonlocal started
        now = time.perf_counter()
        held = {"now_gib": status("VmRSS"), "peak_gib": peak_memory(), "swap_gib": status("VmSwap")}
        marks.append({"phase": phase, "seconds": now - started, **held, **more})
        print(f"    {phase}: {now - started:.1f} s, peak {held['peak_gib']:.2f} GiB", file=sys.stderr, flush=True)
        started = time.perf_counter()

    from qwen_shaped import make_learner

    from braid.methods.rlvr.grpo import GRPO
    from braid.training.models import load_policy
    from braid.training.settings import Settings

    mark("import")
    settings = Settings(model=order["checkpoint"], device="cpu", prompts_per_step=4, **order["settings"])
    policy = load_policy(settings.model, settings)
    mark("load")
    learner = make_learner(policy, GRPO(group_size=4), settings, prompt_tokens=32, max_new_tokens=32)
    watched = watch(policy.model)
    for step in (1, 2):
        metrics = learner.step(0.0)
        phases = {name.removeprefix("time/"): value for name, value in metrics.items() if name.startswith("time/")}
        mark(f"step {step}", phases=phases, grad_norm=metrics["grad_norm"])
    trained = sum(parameter.numel() for parameter in policy.parameters())
    changed = {name: changed_share(parameter, before) for name, parameter, before in watched}
    return {"marks": marks, "trained": trained, "learning_rate": learner.learning_rate, "changed": changed}


def watch(model: Any) -> list[tuple[str, Any, Any]]:
    """The first, the middle and the last trained weight matrix and vector, with copies: name, weights, copy."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad and p.numel() < 2**24]
    chosen = {}
    for matrices in (True, False):
        found = [(name, p) for name, p in named if (p.ndim > 1) == matrices]
        chosen |= {found[i][0]: found[i][1] for i in (0, len(found) // 2, -1) if found}
    return [(name, parameter, parameter.detach().clone()) for name, parameter in chosen.items()]


def changed_share(now: Any, before: Any) -> dict[str, float]:
    """The share of weights that are no longer what they were, and their size."""
    return {"share": float((now != before).float().mean()), "mean_size": float(before.abs().float().mean())}


# the parent


def in_own_process(kind: str, order: dict[str, Any]) -> dict[str, Any]:
    """The result of a measurement, or its `error`."""
    command = [sys.executable, __file__, "measure", kind, json.dumps(order)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {"error": f"ended with code {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def growth(arguments: argparse.Namespace) -> dict[str, Any]:
    """The memory of updates on more and on longer rows."""
    shape = {"hidden": 64, "layers": 2, "heads": 4, "intermediate": 128, "vocabulary": 4096}
    if not arguments.small:
        shape = {"hidden": 256, "layers": 4, "heads": 4, "intermediate": 1024, "vocabulary": 32000}
    tokens, budget = (64, 256) if arguments.small else (256, 2048)
    base = {"shape": shape, "micro_batch_tokens": budget}
    rows = []
    for what, sizes in (
        ("rows", [(times * 2 * budget // (4 * tokens), tokens) for times in (1, 2, 4, 8)]),
        ("length", [(8, times * tokens // 2) for times in (1, 2, 4, 8)]),
    ):
        for prompts, length in sizes:
            found = in_own_process("growth", {**base, "prompts": prompts, "tokens": length})
            rows.append({"grows": what, "rows": 4 * prompts, "tokens": length, **found})
            console.print(f"  {4 * prompts} rows of {length} tokens: {found.get('peak_gib', float('nan')):.3f} GiB")
    table = Table(
        "what grows", "rows", "tokens", "before, GiB", "peak, GiB", "seconds", title=f"{budget} tokens at once"
    )
    for row in rows:
        numbers = [f"{row.get(name, float('nan')):.3f}" for name in ("before_gib", "peak_gib", "seconds")]
        table.add_row(row["grows"], str(row["rows"]), str(row["tokens"]), *numbers)
    console.print(table)
    return {"shape": shape, "micro_batch_tokens": budget, "rows": rows}


def step(arguments: argparse.Namespace) -> dict[str, Any]:
    """Steps of GRPO with each variant of weights."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        console.print("  writing the checkpoint")
        in_own_process("write", {"folder": folder, "small": arguments.small})
        for variant in arguments.variants:
            if available_memory() < arguments.need:
                console.print(f"  {variant}: left out, {available_memory():.1f} GiB are free")
                continue
            console.print(f"  {variant}")
            results[variant] = in_own_process("step", {"checkpoint": folder, "settings": VARIANTS[variant]})
    table = Table("weights", "phase", "seconds", "now, GiB", "peak, GiB", "swap, GiB", "prefill", "decode", "update")
    for variant, result in results.items():
        for mark in result.get("marks", []):
            phases = [
                f"{mark['phases'][name]:.1f}" if "phases" in mark else "" for name in ("prefill", "decode", "update")
            ]
            numbers = [f"{mark[name]:.2f}" for name in ("seconds", "now_gib", "peak_gib", "swap_gib")]
            table.add_row(variant, mark["phase"], *numbers, *phases)
        if "error" in result:
            table.add_row(variant, result["error"])
        else:
            result["fits"] = result["marks"][-1]["peak_gib"] <= LIMIT
    console.print(table)
    changes = Table("weights", "learning rate", "of these trained weights", "mean size", "changed in two steps")
    for variant, result in results.items():
        for name, change in result.get("changed", {}).items():
            numbers = f"{change['mean_size']:.2g}", f"{change['share']:.2%}"
            changes.add_row(variant, f"{result['learning_rate']:g}", name.removeprefix("base_model.model."), *numbers)
    console.print(changes)
    return {"limit_gib": LIMIT, "variants": results}


def write_checkpoint(order: dict[str, Any]) -> dict[str, Any]:
    """Write random weights in bfloat16."""
    import torch
    from qwen_shaped import QWEN, SMALL, make_policy

    make_policy(SMALL if order["small"] else QWEN, torch.bfloat16, "cpu").save(order["folder"])
    return {}


MEASUREMENTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "growth": measure_growth,
    "step": measure_step,
    "write": write_checkpoint,
}


def main() -> None:
    """Run the benchmark, or one measurement of it."""
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(MEASUREMENTS[sys.argv[2]](json.loads(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["growth", "step"])
    parser.add_argument("--small", action="store_true", help="a tiny model: does it run?")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), help="of `step`")
    parser.add_argument("--need", type=float, default=14.0, help="GiB that must be free before a variant is tried")
    parser.add_argument("--output", default="", help="JSON file; benchmarks/results/memory-WHAT.json by default")
    arguments = parser.parse_args()
    content = {"growth": growth, "step": step}[arguments.what](arguments)

    from qwen_shaped import write_result

    write_result(arguments.output or f"benchmarks/results/memory-{arguments.what}.json", content, arguments)


if __name__ == "__main__":
    main()
