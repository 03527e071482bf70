"""Checkpoints that are either whole or absent, in Hugging Face format plus the state of the learner."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from braid.errors import StorageError

STATE_FILE = "learner.pt"
PROGRESS_FILE = "progress.json"
_PREFIX = "step-"


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file or directory, flush it to disk, then give it its name.

    Args:
        path: the final name; an existing file or directory is replaced.
        write: is called with the temporary path.

    Raises:
        StorageError: the disk is full or the folder cannot be written; nothing that was there before is harmed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        write(temporary)
        _flush(temporary)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
        _flush_one(path.parent)
    except OSError as error:
        _remove(temporary)
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    except RuntimeError as error:  # torch and safetensors wrap a failed write
        _remove(temporary)
        raise StorageError(f"cannot write {path}: {error}") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    write_atomically(path, lambda temporary: _write_text(temporary, json.dumps(content, indent=2, sort_keys=True)))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def save_checkpoint(
    folder: Path, step: int, save_policy: Callable[[Path], None], state: dict[str, Any], progress: dict[str, Any], keep: int
) -> Path:
    """Write one checkpoint and delete the oldest ones.

    Args:
        folder: of all checkpoints.
        step: number of steps done.
        save_policy: writes model and tokenizer into the directory it is given.
        state: tensors of optimiser and method, loadable with `weights_only=True`.
        progress: counters, as JSON.
        keep: number of checkpoints that stay.

    Raises:
        StorageError: it could not be written; earlier checkpoints are intact.
    """
    path = folder / f"{_PREFIX}{step:08d}"

    def write(temporary: Path) -> None:
        temporary.mkdir()
        save_policy(temporary)
        torch.save(state, temporary / STATE_FILE)
        _write_text(temporary / PROGRESS_FILE, json.dumps(progress))

    write_atomically(path, write)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """All whole checkpoints, the oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / PROGRESS_FILE).is_file())


def load_progress(checkpoint: Path) -> dict[str, Any]:
    """The counters of a checkpoint.

    Raises:
        StorageError: it is damaged.
    """
    try:
        return dict(json.loads((checkpoint / PROGRESS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise StorageError(f"checkpoint {checkpoint} is damaged ({error}); delete it to go on from an earlier one") from error


def load_state(checkpoint: Path, device: torch.device) -> dict[str, Any]:
    """The tensors of optimiser and method.

    Raises:
        StorageError: it is damaged.
    """
    try:
        return dict(torch.load(checkpoint / STATE_FILE, map_location=device, weights_only=True))
    except Exception as error:
        raise StorageError(f"checkpoint {checkpoint} is damaged ({error}); delete it to go on from an earlier one") from error


def _flush(path: Path) -> None:
    for item in [*path.rglob("*"), path] if path.is_dir() else [path]:
        _flush_one(item)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
