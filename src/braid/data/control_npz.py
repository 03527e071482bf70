"""Braid's own plain format for episodes: NumPy arrays in one `.npz` file, or `.npy` files in a folder (memory maps).

The names are D4RL's with the bounds of the episodes added:

- `observations` [N + known final observations, ...], episode after episode, each with its final observation if known;
- `actions` [N, ...], `rewards` [N], `terminals` [N] bool, `timeouts` [N] bool;
- `episode_lengths` [E], and `final_observation_known` [E] bool;
- where there are any: `behaviour_log_prob` [N], `action_mask` [N, K] bool, `infos/<name>`;
- `attributes` (in a folder: `attributes.json`): JSON with `attributes`, `observation_space` and `action_space`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from braid.data.control_arrays import Array, copy_rows, in_folder, plain_name
from braid.data.control_spaces import space_from_json, space_to_json
from braid.data.episodes import Episodes
from braid.errors import DataError, StorageError, UsageError

REQUIRED = ("observations", "actions", "rewards", "terminals", "timeouts", "episode_lengths")


def write_npz(episodes: Episodes, path: str | Path) -> Path:
    """Writes all episodes into one uncompressed `.npz` file; an existing file is replaced at the very end.

    Raises:
        UsageError: a path that does not end in .npz.
        StorageError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise UsageError(f"{path} does not end in .npz; name a .npz file, or write a folder with write_npy")
    arrays = {**file_arrays(episodes), "attributes": np.array(json.dumps(description(episodes)))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".npz")
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]
            os.replace(unfinished, path)
        finally:
            Path(unfinished).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def write_npy(episodes: Episodes, folder: str | Path) -> Path:
    """Writes all episodes into a new folder of `.npy` files, which `read_episodes` maps into memory.

    Raises:
        UsageError: the folder is there and not empty.
        StorageError: it cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already; name a new folder or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
        try:
            fill_folder(episodes, unfinished)
            os.replace(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def fill_folder(episodes: Episodes, folder: Path) -> None:
    """Writes the files of the plain format that a folder lacks, and removes infos that the episodes do not have."""
    allocate, arrays = in_folder(folder), file_arrays(episodes)
    for name, array in arrays.items():
        if not (folder / f"{name}.npy").exists():
            copy_rows(array, allocate(name, array.shape, array.dtype))
    for file in folder.glob("infos/**/*.npy"):
        if file.relative_to(folder).with_suffix("").as_posix() not in arrays:
            file.unlink()
    (folder / "attributes.json").write_text(json.dumps(description(episodes)), encoding="utf-8")


def file_arrays(episodes: Episodes) -> dict[str, Array]:
    """The arrays of the plain format by their names in files.

    Raises:
        UsageError: the name of an info that cannot be a file name.
    """
    wrong = [key for key in episodes.infos if not plain_name(key)]
    if wrong:
        raise UsageError(f"infos[{wrong[0]!r}] cannot be a file name; rename it")
    optional = {"behaviour_log_prob": episodes.behaviour_log_prob, "action_mask": episodes.action_mask}
    return {
        "observations": episodes.observations,
        "actions": episodes.actions,
        "rewards": episodes.rewards,
        "terminals": episodes.terminated,
        "timeouts": episodes.truncated,
        "episode_lengths": episodes.lengths,
        "final_observation_known": episodes.final_known,
        **{name: array for name, array in optional.items() if array is not None},
        **{f"infos/{key}": array for key, array in episodes.infos.items()},
    }


def description(episodes: Episodes) -> dict[str, Any]:
    """What is known of the episodes as a whole, for JSON.

    Raises:
        UsageError: attributes that JSON cannot hold.
    """
    try:
        attributes = json.loads(json.dumps(dict(episodes.attributes)))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the attributes of the episodes cannot be written as JSON: {error}; use plain values"
        ) from error
    spaces = {name: space_to_json(getattr(episodes, name)) for name in ("observation_space", "action_space")}
    return {"attributes": attributes, **spaces}


def described(value: Any, source: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes and spaces for `Episodes` from a `description`; what the caller knows comes first.

    Args:
        value: a description, or None.
        source: for error messages.
        known: `attributes`, `observation_space`, `action_space`, each perhaps None.
    """
    value = {} if value is None else value
    if not isinstance(value, Mapping) or not isinstance(value.get("attributes", {}), Mapping):
        raise DataError(f"{source}: its attributes are {value!r}; they must be a JSON object")
    found: dict[str, Any] = {"attributes": {**value.get("attributes", {}), **(known.get("attributes") or {})}}
    for name in ("observation_space", "action_space"):
        given = known.get(name)
        found[name] = space_from_json(value.get(name), f"{source}: {name}") if given is None else given
    return found


def episodes_from_plain(
    arrays: Mapping[str, Array], value: Any, source: str, *, check: bool = True, **known: Any
) -> Episodes:
    """Episodes from the arrays of the plain format.

    Args:
        arrays: by their names in files.
        value: the description that belongs to them, or None.
        source: for error messages.
        check: as in `Episodes`.
        known: as in `described`.

    Raises:
        DataError: a missing array, or bad contents.
    """
    for name in REQUIRED:
        if name not in arrays:
            raise missing_key(source, name, arrays)
    return Episodes(
        observations=arrays["observations"],
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        terminated=arrays["terminals"],
        truncated=arrays["timeouts"],
        lengths=arrays["episode_lengths"],
        final_known=arrays.get("final_observation_known"),  # type: ignore[arg-type]
        behaviour_log_prob=arrays.get("behaviour_log_prob"),
        action_mask=arrays.get("action_mask"),
        infos={name.removeprefix("infos/"): array for name, array in arrays.items() if name.startswith("infos/")},
        source=source,
        check=check,
        **described(value, source, known),
    )


def load_npz(path: Path) -> tuple[dict[str, Array], Any]:
    """All arrays of a `.npz` file, and its description or None.

    Raises:
        DataError: the file is damaged, or holds Python objects.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        text = arrays.pop("attributes", None)
        return arrays, None if text is None else json.loads(str(text))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise damaged(path, error) from error


def load_npy(folder: Path) -> tuple[dict[str, Array], Any]:
    """All arrays below a folder of `.npy` files as read-only memory maps, and its description or None.

    Raises:
        DataError: a file is damaged, or holds Python objects.
    """
    arrays: dict[str, Array] = {}
    for path in sorted(folder.rglob("*.npy")):
        try:
            array = np.load(path, mmap_mode="r" if path.stat().st_size > 4096 else None, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise damaged(path, error) from error
        arrays[path.relative_to(folder).with_suffix("").as_posix()] = array
    path = folder / "attributes.json"
    try:
        return arrays, json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error


def unpack_npz(path: Path, folder: Path) -> None:
    """Writes the arrays of a `.npz` file as `.npy` files into a folder, a little at a time.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                stem = name.removesuffix(".npy")
                if not name.endswith(".npy") or not plain_name(stem):
                    raise DataError(f"{path} holds {name!r}, which is no array; write it with write_npz or numpy.savez")
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, target.open("wb") as stream:
                    shutil.copyfileobj(source, stream, 2**20)
        text = folder / "attributes.npy"
        if text.exists():
            (folder / "attributes.json").write_text(str(np.load(text, allow_pickle=False)), encoding="utf-8")
            text.unlink()
    except DataError:
        raise
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise damaged(path, error) from error


def missing_key(source: str, name: str, known: Mapping[str, Any]) -> DataError:
    """The error for an array that a file lacks."""
    listed = ", ".join(list(known)[:20]) or "none"
    return DataError(f"{source} has no {name!r}; its arrays: {listed}. Add it under that name")


def damaged(path: Path, error: Exception) -> DataError:
    """The error for a file that cannot be read."""
    return DataError(f"{path} is damaged or cut short ({error}); copy, download or write it again")
