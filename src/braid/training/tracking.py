"""Where metrics go beside the run's own file: TensorBoard, Weights & Biases, trackio."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from braid.errors import MissingExtra, StorageError
from braid.training.run import TENSORBOARD


class Tracker(Protocol):
    """Takes scalars by name."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record scalars at a step."""

    def close(self) -> None:
        """Flush and end."""


class TensorBoard:
    """Event files in the run's folder.

    Args:
        folder: of the run.
        step: the step that comes next; records of an interrupted run from there on are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder / TENSORBOARD
        self._failed = False
        try:
            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        except OSError as error:
            raise StorageError(f"cannot write {self._folder}: {error.strerror or error}") from error

    def log(self, metrics: dict[str, float], step: int) -> None:
        try:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)
        except OSError as error:
            self._failed = True
            raise StorageError(f"cannot write {self._folder}: {error.strerror or error}") from error

    def close(self) -> None:
        if self._failed:  # its writing thread is dead
            return
        try:
            self._writer.close()
        except OSError as error:
            self._failed = True
            raise StorageError(f"cannot write {self._folder}: {error.strerror or error}") from error


class Hosted:
    """Weights & Biases, or trackio, which has the same interface."""

    def __init__(self, package: str, folder: Path, config: dict[str, Any]) -> None:
        import importlib

        try:
            self._client = importlib.import_module(package)
        except ImportError as error:
            raise MissingExtra(package, "track") from error
        self._client.init(project="braid", name=folder.name, config=config, resume="allow")

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._client.log(metrics, step=step)

    def close(self) -> None:
        self._client.finish()


def make_trackers(names: list[str], folder: Path, step: int, config: dict[str, Any]) -> list[Tracker]:
    """The trackers named.

    Args:
        names: of `tensorboard`, `wandb`, `trackio`.
        folder: of the run.
        step: the step that comes next; later records of an interrupted run are dropped.
        config: shown beside the curves.
    """
    return [TensorBoard(folder, step) if name == "tensorboard" else Hosted(name, folder, config) for name in names]
