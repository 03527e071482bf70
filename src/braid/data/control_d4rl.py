"""D4RL's HDF5 files (arXiv 2004.07219): read and written with timeouts and terminals apart."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from braid.data.control_arrays import Array, chunks, release
from braid.data.control_flat import BEHAVIOUR, FINAL_INFOS, UNFINISHED, UNKNOWN
from braid.data.control_npz import damaged, description
from braid.data.episodes import Episodes
from braid.errors import DataError, MissingExtra, StorageError, UsageError

DESCRIPTION = "metadata/braid"


def import_h5py() -> Any:
    """The h5py module.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra("h5py", "control") from error
    return h5py


@contextmanager
def open_d4rl(path: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """All data sets of an HDF5 file by their names, unread, and Braid's description of the whole.

    Numbers and texts below `metadata` that are no arrays become attributes under their own names.

    Raises:
        DataError: the file is damaged.
    """
    h5py = import_h5py()
    try:
        with h5py.File(path, "r") as file:
            arrays: dict[str, Any] = {}

            def collect(name: str, item: Any) -> None:
                if isinstance(item, h5py.Dataset) and item.shape is not None:  # None is HDF5's empty data set
                    arrays[name] = item

            file.visititems(collect)
            value = _description(arrays)
            yield arrays, value
    except (DataError, UsageError, StorageError):
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise damaged(path, error) from error


def _description(arrays: dict[str, Any]) -> Any:
    own = arrays.get(DESCRIPTION)
    if own is not None:
        return json.loads(own.asstr()[()])
    found = {}
    for name, array in arrays.items():
        if name.startswith("metadata/") and array.shape == ():
            plain = array[()]
            plain = plain.decode("utf-8", "replace") if isinstance(plain, bytes) else plain
            found[name.removeprefix("metadata/")] = plain.item() if isinstance(plain, np.generic) else plain
    return {"attributes": {k: v for k, v in found.items() if isinstance(v, str | int | float)}}


def write_d4rl(episodes: Episodes, path: str | Path) -> Path:
    """Writes a D4RL HDF5 file; an existing file is replaced at the very end.

    `next_observations` are written if any final observation is known. The file says three more things below `metadata`,
    where other readers do not look: which time limits stand for an unfinished episode, which next observations are not
    known (they repeat the observation), and the infos of final observations.

    Args:
        episodes: to be written.
        path: of the file.

    Raises:
        UsageError: infos with the name of a field, or attributes that JSON cannot hold.
        StorageError: the file cannot be written.
        MissingExtra: h5py is not installed.
    """
    h5py, path = import_h5py(), Path(path)
    wrong = [key for key in ("action_log_probs", "action_mask") if key in episodes.infos]
    if wrong:
        raise UsageError(f"infos[{wrong[0]!r}] would be read back as a field of its own; rename it")
    text = json.dumps(description(episodes))
    last = episodes.starts[1:] - 1
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".hdf5")
        os.close(handle)
        try:
            with h5py.File(unfinished, "w") as file:
                _write_arrays(file, episodes, last)
                file[DESCRIPTION] = text
            os.replace(unfinished, path)
        finally:
            Path(unfinished).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def _write_arrays(file: Any, episodes: Episodes, last: Array) -> None:
    steps = episodes.num_steps
    every = np.arange(steps)
    rows = every + np.repeat(episodes.observation_starts[:-1] - episodes.starts[:-1], episodes.lengths)
    truncated = np.array(episodes.truncated)
    stopped = last[~episodes.finished & (last != steps - 1)]
    truncated[stopped] = True
    if len(stopped):
        file[UNFINISHED] = stopped
    _write_rows(file, "observations", episodes.observations, rows)
    if episodes.final_known.any():
        following, unknown = rows + 1, last[~episodes.final_known]
        following[unknown] = rows[unknown]
        _write_rows(file, "next_observations", episodes.observations, following)
        if len(unknown):
            file[UNKNOWN] = unknown
    per_step = {
        "actions": episodes.actions,
        "rewards": episodes.rewards,
        "terminals": episodes.terminated,
        "timeouts": truncated,
        BEHAVIOUR: episodes.behaviour_log_prob,
        "infos/action_mask": episodes.action_mask,
    }
    for name, array in per_step.items():
        if array is not None:
            _write_rows(file, name, array, every)
    finals = episodes.observation_starts[1:][episodes.final_known] - 1
    for key, array in episodes.infos.items():
        _write_rows(file, f"infos/{key}", array, every if len(array) == steps else rows)
        if len(array) != steps:
            file[FINAL_INFOS + key] = array[finals]


def _write_rows(file: Any, name: str, array: Array, rows: Array) -> None:
    """Writes rows of an array as a data set, a little at a time."""
    target = file.create_dataset(name, shape=(len(rows), *array.shape[1:]), dtype=array.dtype)
    for part in chunks(len(rows), array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))):
        target[part] = array[rows[part]]
        release(array)
