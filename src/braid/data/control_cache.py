"""Large files converted once: the plain format in a cache folder, whose arrays are memory maps."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from braid.data.control_npz import fill_folder
from braid.data.episodes import Episodes
from braid.errors import StorageError

FORMAT = 1
"""To be raised when the conversion of any file changes."""


def cache_directory() -> Path:
    """Where conversions are kept: `control` below `$BRAID_CACHE`, or below `braid` in the user's cache directory."""
    own = os.environ.get("BRAID_CACHE")
    base = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "braid"
    return base / "control"


def size_of(source: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(size for _, size, _ in _files(source))


def cached_folder(source: Path, options: dict[str, Any], convert: Callable[[Path], Episodes]) -> Path:
    """The folder with the plain format of a source, made on first use and again when the source has changed.

    Args:
        source: a file or folder.
        options: values for JSON that change what the conversion makes.
        convert: makes the episodes in a new folder, their large arrays in `.npy` files there; what it puts beside
            that folder is removed afterwards.

    Raises:
        StorageError: the cache cannot be written.
    """
    identity = [FORMAT, str(source.resolve()), _files(source), options]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_directory() / f"{source.stem}-{key}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".unfinished-"))
        try:
            made = unfinished / "made"
            made.mkdir()
            fill_folder(convert(made), made)
            if not folder.is_dir():  # another process may have been faster
                os.replace(made, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        if folder.is_dir():
            return folder
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"{source} cannot be converted in {folder.parent}: {error.strerror or error}; free some space there, name "
            "another place with BRAID_CACHE, or read it into memory with memory_map=False"
        ) from error
    return folder


def _files(source: Path) -> list[tuple[str, int, int]]:
    paths = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    stats = [(path, path.stat()) for path in paths]
    return [(str(path.relative_to(source)), stat.st_size, stat.st_mtime_ns) for path, stat in stats]
