"""Minari data sets: read episode by episode, and written so that Minari itself opens them."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from braid.data.control_arrays import Allocate, Array
from braid.data.control_assembly import EpisodeArrays
from braid.data.control_joining import as_episode
from braid.data.control_npz import described, description
from braid.data.episodes import Episodes
from braid.errors import BraidError, DataError, MissingExtra, StorageError, UsageError

DESCRIPTION = "braid"
"""Key of `metadata.json` that holds what Minari has no words for."""

IDENTIFIER = re.compile(r"(?:[\w-]+/)*[\w-]+-v\d+")
OWN_INFOS = ("behaviour_log_prob", "action_mask")


def import_minari() -> Any:
    """The minari package with its HDF5 storage.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import h5py  # noqa: F401
        import minari
    except ImportError as error:
        raise MissingExtra("minari[hdf5]", "control") from error
    return minari


def minari_root() -> Path:
    """Where Minari keeps its data sets: `$MINARI_DATASETS_PATH`, or `~/.minari/datasets`."""
    own = os.environ.get("MINARI_DATASETS_PATH")
    return Path(own) if own else Path.home() / ".minari" / "datasets"


def read_minari(
    folder: Path,
    *,
    allocate: Allocate,
    source: str,
    observation_keys: Sequence[str] | None = None,
    **known: Any,
) -> Episodes:
    """All episodes of a Minari data set.

    The spaces are the file's own unless others are given; every step is kept, as Minari has all final observations.

    Args:
        folder: with `metadata.json`.
        allocate: where the arrays go.
        source: for error messages.
        observation_keys: parts of a Dict observation that are put one after another into one vector, in this order.
        known: as in `braid.data.control_npz.described`.

    Raises:
        DataError: a damaged data set, Dict observations without `observation_keys`, or bad contents.
        MissingExtra: minari is not installed.
    """
    minari = import_minari()
    try:
        dataset = minari.MinariDataset(folder)
        metadata = dataset.storage.metadata
        own = metadata.get(DESCRIPTION, {})
        described_as = own.get("description")
        unknown = frozenset(own.get("final_observation_unknown", ()))
        steps, count = int(dataset.total_steps), int(dataset.total_episodes)
        arrays = EpisodeArrays(steps, steps + count - len(unknown), allocate, source)
        for number, data in enumerate(dataset.iterate_episodes()):
            place = f"{source}: episode {number}"
            observations = _observations(data.observations, observation_keys, place)
            infos = _flatten(data.infos or {})
            own_infos = {
                name: infos.pop(name) for name in OWN_INFOS if _a_row_a_step(infos.get(name), len(data.rewards))
            }
            value = {
                "observations": observations[:-1] if number in unknown else observations,
                "actions": data.actions,
                "rewards": data.rewards,
                "terminated": data.terminations,
                "truncated": data.truncations,
                "infos": infos,
                **own_infos,
            }
            arrays.add(as_episode(value, place))
    except BraidError:
        raise
    except (OSError, KeyError, ValueError, TypeError, AssertionError, RuntimeError) as error:
        raise DataError(
            f"{source} cannot be read as a Minari data set ({error}); copy or download it again, or write it with "
            "write_minari"
        ) from error
    if described_as is None:
        described_as = {"attributes": _attributes(metadata)}
    fields = described(described_as, source, known)
    spaces = own.get("spaces", ["action_space"] if observation_keys else ["observation_space", "action_space"])
    for name in spaces:
        if fields[name] is None:
            fields[name] = getattr(dataset, name)
    return arrays.finish(fields["attributes"], fields["observation_space"], fields["action_space"])


def write_minari(episodes: Episodes, dataset_id: str, root: str | Path | None = None) -> Path:
    """Writes a Minari data set that `minari.load_dataset(dataset_id)` opens.

    Args:
        episodes: to be written; without `action_space` or `observation_space` the data set gets unbounded ones.
        dataset_id: `<namespace>/<environment>/<name>-v<number>`; the namespaces may be left out.
        root: folder of data sets; None for Minari's own.

    Returns:
        The folder of the data set.

    Raises:
        UsageError: a malformed id, a data set that is there already, or attributes that JSON cannot hold.
        DataError: an episode that did not terminate and whose final observation is not known, but Minari has a row for
            it.
        StorageError: the folder cannot be written.
        MissingExtra: minari is not installed.
    """
    minari = import_minari()
    from minari.dataset.minari_storage import MinariStorage

    if not IDENTIFIER.fullmatch(dataset_id):
        raise UsageError(f"dataset_id={dataset_id!r} is not of the form namespace/environment/name-v0; rename it")
    lost = np.flatnonzero(~episodes.final_known & ~episodes.terminated[episodes.starts[1:] - 1])
    if len(lost):
        raise DataError(
            f"{episodes.source}: what was seen after the last step of episode {lost[0]} is not known, but Minari has "
            "a row for it; write episodes.without_unknown_successors() instead"
        )
    target = (Path(root) if root is not None else minari_root()) / dataset_id
    if target.exists():
        raise UsageError(f"{target} is there already; raise the version of dataset_id or remove it")
    own = {
        "description": description(episodes),
        "spaces": [name for name in ("observation_space", "action_space") if getattr(episodes, name) is not None],
        "final_observation_unknown": np.flatnonzero(~episodes.final_known).tolist(),
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=".unfinished-"))
        try:
            spec = _environment_spec(episodes.attributes.get("environment"))
            storage = MinariStorage.new(unfinished / "data", *_spaces(episodes), env_spec=spec, jpeg_encoding=False)
            about = {"algorithm_name": episodes.attributes.get("policy")}
            storage.update_metadata(
                {
                    "dataset_id": dataset_id,
                    "minari_version": minari.__version__,
                    DESCRIPTION: own,
                    **{key: value for key, value in about.items() if isinstance(value, str)},
                }
            )
            storage.update_episodes(_buffers(episodes))
            os.replace(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def _buffers(episodes: Episodes) -> Iterator[Any]:
    from minari.data_collector import EpisodeBuffer

    for known, episode in zip(episodes.final_known, episodes, strict=True):
        observations = episode.observations
        if not known:  # a terminal one: nothing is ever made of it, and the metadata say so
            observations = np.concatenate([observations, observations[-1:]])
        infos = dict(episode.infos)
        infos |= {name: getattr(episode, name) for name in OWN_INFOS if getattr(episode, name) is not None}
        yield EpisodeBuffer(
            observations=np.asarray(observations),
            actions=np.asarray(episode.actions),
            rewards=np.asarray(episode.rewards),
            terminations=np.asarray(episode.terminated),
            truncations=np.asarray(episode.truncated),
            infos=infos,
        )


def _spaces(episodes: Episodes) -> tuple[Any, Any]:
    """Observation and action space; where none is known, one that holds everything of the type."""
    from gymnasium.spaces import Box, Discrete

    def unbounded(array: Array) -> Any:
        if array.dtype.kind == "f":
            return Box(-np.inf, np.inf, array.shape[1:], array.dtype.type)
        if array.dtype == np.bool_:
            return Box(0, 1, array.shape[1:], np.int8)
        limits = np.iinfo(array.dtype)
        return Box(limits.min, limits.max, array.shape[1:], array.dtype.type)

    action_space = episodes.action_space
    if action_space is None:
        whole = episodes.actions.dtype.kind in "iu"
        action_space = Discrete(int(episodes.actions.max()) + 1) if whole else unbounded(episodes.actions)
    return episodes.observation_space or unbounded(episodes.observations), action_space


def _environment_spec(name: Any) -> Any:
    """The specification of an environment that is registered under this name; None otherwise."""
    import gymnasium

    try:
        return gymnasium.spec(name) if isinstance(name, str) else None
    except (gymnasium.error.Error, ImportError):
        return None


def _attributes(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the metadata of a data set written elsewhere tell."""
    names = ("dataset_id", "minari_version", "code_permalink", "description", "ref_min_score", "ref_max_score")
    found = {name: metadata[name] for name in names if isinstance(metadata.get(name), str | int | float)}
    if isinstance(metadata.get("algorithm_name"), str):
        found["policy"] = metadata["algorithm_name"]
    if isinstance(metadata.get("env_spec"), str):
        found["environment"] = json.loads(metadata["env_spec"]).get("id")
    return found


def _observations(value: Any, keys: Sequence[str] | None, place: str) -> Array:
    if isinstance(value, Mapping):
        if keys is None:
            raise DataError(
                f"{place} has observations with the parts {', '.join(value)}; name those to be put into one vector "
                f"with observation_keys={tuple(value)}"
            )
        missing = [key for key in keys if key not in value]
        if missing or not keys:
            shown = repr(missing[0]) if missing else "without a name"
            raise DataError(f"{place} has no part {shown} in its observations; there are: {', '.join(value)}")
        parts = [np.asarray(value[key]) for key in keys]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
    if keys is not None:
        raise DataError(
            f"{place} has plain observations, which have no parts {', '.join(keys)}; leave observation_keys out"
        )
    if not isinstance(value, np.ndarray):
        raise DataError(
            f"{place} has observations of type {type(value).__name__}; only arrays and dictionaries can be read"
        )
    return value


def _flatten(infos: Mapping[str, Any], prefix: str = "") -> dict[str, Array]:
    flat: dict[str, Array] = {}
    for key, value in infos.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = np.asarray(value)
    return flat


def _a_row_a_step(array: Array | None, steps: int) -> bool:
    return array is not None and array.ndim > 0 and len(array) == steps
