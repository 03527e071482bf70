"""Base checkpoints of the embedded tasks: small, competent, mediocre, made from the task's own corpus and cached."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import inspect
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from braid.training.checkpoint import write_atomically

if TYPE_CHECKING:
    from braid.tasks.task import TextTask

RECIPE = 1
"""Raised when the way of making base checkpoints changes, so that cached ones are made anew."""


@dataclass(frozen=True)
class Pretraining:
    """How a base checkpoint is made.

    Args:
        rows: of the corpus, each seen once.
        batch: rows per step.
        learning_rate: its peak; warm-up over 20 steps, then a cosine to 0.
        seed: of weights and order.
    """

    rows: int = 40_000
    batch: int = 32
    learning_rate: float = 4e-3
    seed: int = 0


def can_have_base(task: TextTask) -> bool:
    """Whether the task makes its own corpus; the user's rows do not."""
    return task.name != "jsonl"


def cache_directory() -> Path:
    """Where base checkpoints are kept: `$BRAID_CACHE`, or `braid` in the user's cache directory."""
    own = os.environ.get("BRAID_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "braid"


def base_checkpoint(
    task: TextTask,
    parameters: float,
    *,
    pretraining: Pretraining | None = None,
    threads: int = 0,
    show_progress: bool = True,
) -> Path:
    """The base checkpoint of a task, made on first use.

    Args:
        task: whose corpus it learns.
        parameters: of the model.
        pretraining: how it is made.
        threads: CPU threads; 0 is PyTorch's choice.
        show_progress: while it is made.

    Returns:
        A directory in Hugging Face format, named by a hash of everything it was made from.
    """
    pretraining = pretraining or Pretraining()
    path = cache_directory() / "base" / f"{task.name}-{_fingerprint(task, parameters, pretraining, threads)}"
    if path.is_dir():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it just now
        if not path.is_dir():
            _make(task, parameters, pretraining, path, threads, show_progress)
    return path


def _make(
    task: TextTask, parameters: float, pretraining: Pretraining, path: Path, threads: int, show_progress: bool
) -> None:
    import torch

    from braid.methods.rlvr.sft import SFT
    from braid.policies.small import tiny
    from braid.training.learner import Learner
    from braid.training.progress import progress_bar
    from braid.training.settings import Settings

    if threads:
        torch.set_num_threads(threads)
    steps = pretraining.rows // pretraining.batch
    settings = Settings(
        steps=steps,
        seed=pretraining.seed,
        prompts_per_step=pretraining.batch,
        learning_rate=pretraining.learning_rate,
        schedule="cosine",
        warmup_steps=20,
        adam_beta2=0.98,
        weight_decay=0.01,
    )
    policy = tiny(parameters, seed=pretraining.seed)
    rows = task.corpus(pretraining.rows, seed=pretraining.seed)
    learner = Learner(
        policy, SFT(), task, settings, prompts=rows, demonstrations=rows, max_new_tokens=task.max_new_tokens
    )
    with progress_bar(f"base checkpoint of {task.name} (made once)", steps, show=show_progress) as bar:
        for step in range(steps):
            metrics = learner.step(step / steps)
            bar.update(step + 1, f"loss {metrics['loss']:.3f}  {metrics['num_tokens']:.0f} tokens")
    write_atomically(path, policy.save)


def _fingerprint(task: TextTask, parameters: float, pretraining: Pretraining, threads: int) -> str:
    """A hash of the task with its options and source, the model and the recipe; weights round with the threads."""
    import transformers

    package = sys.modules[type(task).__module__]
    folder = Path(inspect.getfile(package)).parent
    source = [file.read_bytes() for file in sorted(folder.glob("*.py")) if file.stem != "jsonl"]
    content = {
        "task": dataclasses.asdict(task),
        "parameters": parameters,
        "pretraining": dataclasses.asdict(pretraining),
        "recipe": RECIPE,
        "threads": threads,
        "transformers": transformers.__version__.split(".")[0],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for text in source:
        digest.update(text)
    return digest.hexdigest()[:16]
