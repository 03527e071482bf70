"""Checkpoints that are either whole or absent, in Hugging Face format plus the state of the learner."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from braid.errors import StorageError

STATE_FILE = "learner.pt"
PROGRESS_FILE = "progress.json"
_PREFIX = "step-"
_PARTIAL = ".partial"


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file or directory, flush it to disk, then give it its name.

    Args:
        path: the final name; an existing file or directory is replaced.
        write: is called with the temporary path.

    Raises:
        StorageError: the disk is full or the folder cannot be written; nothing that was there before is harmed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        write(temporary)
        _flush(temporary)
        if path.is_dir():
            discard(path)
        os.replace(temporary, path)
        _flush_one(path.parent)
    except OSError as error:
        _remove(temporary)
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    except (RuntimeError, SafetensorError) as error:  # how torch and safetensors report a failed write
        _remove(temporary)
        raise StorageError(f"cannot write {path}: {_reason(error)}") from error
    except BaseException:
        _remove(temporary)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; numbers that are not finite become null, since JSON has no word for them."""
    text = json.dumps(finite(content), indent=2, sort_keys=True, allow_nan=False)
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error


def finite(content: Any) -> Any:
    """The same JSON content with None for numbers that are not finite."""
    if isinstance(content, Mapping):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _write_text(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def save_checkpoint(
    folder: Path,
    step: int,
    save_policy: Callable[[Path], None],
    state: dict[str, Any],
    progress: dict[str, Any],
    keep: int,
) -> Path:
    """Write one checkpoint and delete the oldest ones; one that is there already is left as it is.

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
    if (path / PROGRESS_FILE).is_file():
        return path

    def write(temporary: Path) -> None:
        temporary.mkdir()
        save_policy(temporary)
        torch.save(state, temporary / STATE_FILE)
        _write_text(temporary / PROGRESS_FILE, json.dumps(progress))

    write_atomically(path, write)
    for old in checkpoints(folder)[:-keep]:
        discard(old)
    return path


def discard(checkpoint: Path) -> None:
    """Delete a checkpoint in such an order that a crash leaves nothing that looks whole."""
    with contextlib.suppress(OSError):
        (checkpoint / PROGRESS_FILE).unlink(missing_ok=True)
        shutil.rmtree(checkpoint)


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left half-done in a run's folder or in that of its checkpoints."""
    for path in folder.glob(f".*{_PARTIAL}"):
        _remove(path)
    for path in folder.glob(f"{_PREFIX}*"):
        if path.is_dir() and not (path / PROGRESS_FILE).is_file():
            _remove(path)


def checkpoints(folder: Path) -> list[Path]:
    """All whole checkpoints, the oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / PROGRESS_FILE).is_file())


def load_progress(checkpoint: Path) -> dict[str, Any]:
    """The counters of a checkpoint.

    Raises:
        StorageError: it is damaged.
    """
    try:
        return read_json(checkpoint / PROGRESS_FILE)
    except StorageError as error:
        raise damaged(checkpoint, error) from error


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The tensors of optimiser and method, on the CPU.

    Raises:
        StorageError: it is damaged.
    """
    try:
        return dict(torch.load(checkpoint / STATE_FILE, map_location="cpu", weights_only=True))
    except Exception as error:
        raise damaged(checkpoint, error) from error


def damaged(checkpoint: Path, error: Exception) -> StorageError:
    """The error for a checkpoint that is there but cannot be used."""
    return StorageError(
        f"checkpoint {checkpoint} is damaged ({_reason(error)}); delete it to go on from an earlier one"
    )


def _reason(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


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
        with contextlib.suppress(OSError):
            path.unlink()
