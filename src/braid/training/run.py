"""A run's folder: configuration, environment, metrics, samples, checkpoints, result."""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braid.errors import StorageError, UsageError
from braid.training.checkpoint import checkpoints, write_json

if TYPE_CHECKING:
    from braid.policies.causal import CausalPolicy

CONFIG, ENVIRONMENT, METRICS, RESULT = "config.json", "environment.json", "metrics.jsonl", "result.json"


class Run:
    """One run: its files, and the policy it trained.

    Args:
        path: its folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoint_folder = self.path / "checkpoints"

    @classmethod
    def create(cls, path: str | Path, config: dict[str, Any]) -> Run:
        """Make a new folder with its configuration.

        Raises:
            UsageError: a run is there already.
            StorageError: it cannot be written.
        """
        run = cls(path)
        if (run.path / CONFIG).exists():
            raise UsageError(f"{run.path} already holds a run; continue it with `braid resume {run.path}` or choose another")
        write_json(run.path / ENVIRONMENT, describe_environment())
        write_json(run.path / CONFIG, config)
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run.

        Raises:
            UsageError: there is none.
        """
        run = cls(path)
        if not (run.path / CONFIG).is_file():
            raise UsageError(f"{run.path} is not a run: it has no {CONFIG}")
        return run

    @property
    def config(self) -> dict[str, Any]:
        """What the run was told."""
        return self._read(CONFIG)

    @property
    def result(self) -> dict[str, Any] | None:
        """The final numbers, or None if the run has not ended."""
        return self._read(RESULT) if (self.path / RESULT).is_file() else None

    @property
    def latest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint."""
        found = checkpoints(self.checkpoint_folder)
        return found[-1] if found else None

    @property
    def policy(self) -> CausalPolicy:
        """The trained policy, loaded from the newest checkpoint.

        Raises:
            UsageError: there is no checkpoint yet.
        """
        from braid.training.models import load_policy
        from braid.training.settings import Settings

        if self.latest_checkpoint is None:
            raise UsageError(f"{self.path} has no checkpoint yet")
        return load_policy(self.latest_checkpoint, Settings(**self.config["settings"]))

    def write_result(self, result: dict[str, Any]) -> None:
        """Write the final numbers; their presence says that the run has ended."""
        write_json(self.path / RESULT, result)

    def metrics(self) -> list[dict[str, Any]]:
        """All logged rows; a line cut short by a crash is left out."""
        rows = []
        file = self.path / METRICS
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps after `step`, which a resumed run makes again."""
        kept = [row for row in self.metrics() if row["step"] <= step]
        file = self.path / METRICS
        partial = file.with_suffix(".partial")
        partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        os.replace(partial, file)

    def log(self, row: dict[str, Any]) -> None:
        """Append one row of metrics.

        Raises:
            StorageError: it cannot be written.
        """
        finite = {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in row.items()}
        try:
            with open(self.path / METRICS, "a", encoding="utf-8") as file:
                file.write(json.dumps(finite) + "\n")
        except OSError as error:
            raise StorageError(f"cannot write {self.path / METRICS}: {error.strerror}") from error

    def write_samples(self, step: int, samples: list[dict[str, Any]]) -> None:
        """Write a few prompts with their completions as readable text."""
        parts = [
            f"--- prompt\n{s['prompt']}\n--- completion (reward {s['reward']:g}, answer {s['answer']})\n{s['completion']}\n"
            for s in samples
        ]
        file = self.path / "samples" / f"step-{step:08d}.txt"
        try:
            file.parent.mkdir(exist_ok=True)
            file.write_text("\n".join(parts), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error.strerror}") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            UsageError: another process trains it.
        """
        with open(self.path / ".lock", "w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"{self.path} is being trained by another process") from error
            yield

    def _read(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.path / name).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise StorageError(f"{self.path / name} cannot be read: {error}") from error


def describe_environment() -> dict[str, Any]:
    """Versions, machine, command and git revision."""
    import torch

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    packages = ("braid", "torch", "transformers", "tokenizers", "tensordict", "peft", "numpy")
    return {
        "command": sys.argv,
        "git_revision": git_revision(),
        "python": platform.python_version(),
        "packages": {name: installed(name) for name in packages},
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def git_revision() -> str | None:
    """The commit of the working directory, with `-dirty` if it has changes; None outside a repository."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
