"""Files of logged episodes: round trips in every format, ends kept apart, and every fault named."""

from __future__ import annotations

import json
import shutil
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from braid.data import control_arrays, control_files
from braid.data.control_cache import cache_directory
from braid.data.control_files import (
    Decision,
    collect,
    read_episodes,
    write_d4rl,
    write_minari,
    write_npy,
    write_npz,
)
from braid.data.episodes import Episodes
from braid.errors import DataError, MissingExtra, StorageError, UsageError

gymnasium = pytest.importorskip("gymnasium")
h5py = pytest.importorskip("h5py")
minari = pytest.importorskip("minari")

Write = Callable[[Episodes, Path], Path]
FORMATS: dict[str, Write] = {
    "npz": lambda episodes, folder: write_npz(episodes, folder / "log.npz"),
    "npy": lambda episodes, folder: write_npy(episodes, folder / "log"),
    "d4rl": lambda episodes, folder: write_d4rl(episodes, folder / "log.hdf5"),
    "minari": lambda episodes, folder: write_minari(episodes, "test/maze/log-v0", folder / "minari"),
}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRAID_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def sample(kind: str = "continuous", seed: int = 0) -> Episodes:
    """Four episodes: a terminal, a time limit, a terminal at the time limit, and one that just stops."""
    generator = np.random.default_rng(seed)
    lengths = [3, 2, 4, 2]
    steps, rows = 11, 15
    terminated, truncated = np.zeros(steps, bool), np.zeros(steps, bool)
    terminated[[2, 8]], truncated[[4, 8]] = True, True
    fields: dict[str, Any] = {
        "observations": generator.normal(size=(rows, 3)),
        "actions": generator.uniform(-1, 1, size=(steps, 2)).astype(np.float32),
        "rewards": generator.normal(size=steps),
        "attributes": {"environment": "Maze", "seed": 7, "policy": "expert", "notes": [1, None]},
        "action_space": gymnasium.spaces.Box(-1, 1, (2,), np.float32),
        "observation_space": gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64),
    }
    if kind == "discrete":
        actions = generator.integers(1, 4, size=steps)
        mask = generator.random((steps, 3)) < 0.5
        mask[np.arange(steps), actions - 1] = True
        fields |= {
            "observations": generator.integers(0, 9, size=rows),
            "actions": actions,
            "action_mask": mask,
            "behaviour_log_prob": np.log(generator.uniform(0.1, 1, size=steps)),
            "action_space": gymnasium.spaces.Discrete(3, start=1),
            "observation_space": gymnasium.spaces.Discrete(9),
            "infos": {"step_cost": generator.normal(size=steps), "state/qpos": generator.normal(size=(rows, 2))},
        }
    if kind == "images":
        fields |= {
            "observations": generator.integers(0, 256, size=(rows, 32, 32, 3), dtype=np.uint8),
            "rewards": generator.normal(size=steps).astype(np.float32),
            "observation_space": None,
            "action_space": None,
        }
    return Episodes(terminated=terminated, truncated=truncated, lengths=np.array(lengths), **fields)


def assert_same(one: Episodes, two: Episodes) -> None:
    """Bit-identical arrays of one type, the same attributes and spaces."""
    names = ["observations", "actions", "rewards", "terminated", "truncated", "lengths", "final_known"]
    for name in [*names, "behaviour_log_prob", "action_mask"]:
        left, right = getattr(one, name), getattr(two, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype, name
            np.testing.assert_array_equal(left, right, err_msg=name)
    assert set(one.infos) == set(two.infos)
    for key, info in one.infos.items():
        np.testing.assert_array_equal(info, two.infos[key])
    assert dict(one.attributes) == dict(two.attributes)
    assert one.action_space == two.action_space
    assert one.observation_space == two.observation_space


@pytest.mark.parametrize("memory_map", [False, True])
@pytest.mark.parametrize("kind", ["continuous", "discrete", "images"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_round_trip(file_format: str, kind: str, memory_map: bool, tmp_path: Path) -> None:
    original = sample(kind)
    path = FORMATS[file_format](original, tmp_path)
    found = read_episodes(path, memory_map=memory_map)
    assert_same(original, found)
    assert found.terminated.nonzero()[0].tolist() == [2, 8]
    assert found.truncated.nonzero()[0].tolist() == [4, 8]
    assert found.finished.tolist() == [True, True, True, False]
    batch = found.transitions([2, 4, 10])
    assert (batch.terminated.tolist(), batch.truncated.tolist()) == ([True, False, False], [False, True, True])
    if kind == "images" and memory_map:
        assert isinstance(found.observations, np.memmap)
    assert_same(original, read_episodes(path, memory_map=memory_map))


@pytest.mark.parametrize("file_format", ["npz", "npy", "d4rl"])
@pytest.mark.parametrize("known", [[False] * 4, [False, True, False, False], [True, False, True, True]])
def test_unknown_final_observations_stay_unknown(file_format: str, known: list[bool], tmp_path: Path) -> None:
    whole = sample("discrete")
    rows = np.delete(np.arange(15), [end - 1 for end, k in zip((4, 7, 12, 15), known, strict=True) if not k])
    infos = {"state/qpos": whole.infos["state/qpos"][rows]}
    fields = {"observations": whole.observations[rows], "final_known": np.array(known), "infos": infos}
    original = Episodes(
        actions=whole.actions,
        rewards=whole.rewards,
        terminated=whole.terminated,
        truncated=whole.truncated,
        lengths=whole.lengths,
        **fields,
    )
    assert_same(original, read_episodes(FORMATS[file_format](original, tmp_path)))


def test_minari_keeps_terminal_ends_only_if_others_are_known(tmp_path: Path) -> None:
    whole = sample()
    rows = np.delete(np.arange(15), [3])
    fields = {name: getattr(whole, name) for name in ("actions", "rewards", "terminated", "truncated", "lengths")}
    known = np.array([False, True, True, True])
    original = Episodes(observations=whole.observations[rows], final_known=known, **fields)
    path = write_minari(original, "log-v0")
    assert_same(original, read_episodes(path))
    assert len(minari.load_dataset("log-v0")[0].observations) == 4
    unknown = Episodes(observations=whole.observations[np.delete(np.arange(15), [3, 6, 11, 14])], **fields)
    with pytest.raises(DataError, match=r"last step of episode 1 is not known.*without_unknown_successors"):
        write_minari(unknown, "other-v0")
    write_minari(unknown.without_unknown_successors(), "other-v0")
    assert [len(episode) for episode in minari.load_dataset("other-v0")] == [3, 1, 4, 1]


def test_an_unfinished_episode_in_the_middle_of_a_d4rl_file(tmp_path: Path) -> None:
    original = sample().subset([3, 0])
    path = write_d4rl(original, tmp_path / "log.hdf5")
    assert_same(original, read_episodes(path))
    with h5py.File(path) as file:  # other readers must not join the two episodes
        assert file["timeouts"][()].tolist() == [False, True, False, False, False]
        assert file["terminals"][()].tolist() == [False] * 4 + [True]
        np.testing.assert_array_equal(file["next_observations"][0], file["observations"][1])
        np.testing.assert_array_equal(file["next_observations"][1], original.observations[2])


def test_minari_itself_opens_what_is_written() -> None:
    original = sample("discrete")
    write_minari(original, "test/maze/log-v0")
    dataset = minari.load_dataset("test/maze/log-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (4, 11)
    assert dataset.action_space == original.action_space
    np.testing.assert_array_equal(dataset[1].observations, original.episode(1).observations)
    assert dataset[1].truncations.tolist() == [False, True]
    assert dataset[1].terminations.tolist() == [False, False]
    assert dataset[0].infos["state"]["qpos"].shape == (4, 2)
    assert list(minari.list_local_datasets()) == ["test/maze/log-v0"]
    assert dataset.storage.metadata["algorithm_name"] == "expert"
    assert_same(original, read_episodes("test/maze/log-v0"))
    with pytest.raises(UsageError, match=r"is there already"):
        write_minari(original, "test/maze/log-v0")
    with pytest.raises(UsageError, match=r"not of the form"):
        write_minari(original, "no version")


def test_a_data_set_that_minari_wrote(tmp_path: Path) -> None:
    space = gymnasium.spaces.Box(-9, 9, (2,), np.float64)
    buffers = [
        minari.data_collector.EpisodeBuffer(
            seed=number,
            observations={"observation": np.full((4, 2), 1.0 + number), "goal": np.full((4, 2), 5.0)},
            actions=np.array([0, 1, 1]),
            rewards=np.array([0.0, 0.0, 1.0]),
            terminations=np.array([False, False, number == 0]),
            truncations=np.array([False, False, number == 1]),
            infos={"qpos": np.arange(4.0), "sometimes": np.arange(3 + number)},
        )
        for number in range(2)
    ]
    minari.create_dataset_from_buffers(
        "goals-v0",
        buffers,
        env="CartPole-v1",
        observation_space=gymnasium.spaces.Dict({"observation": space, "goal": space}),
        algorithm_name="scripted",
    )
    with pytest.raises(DataError, match=r"parts (goal, observation|observation, goal).*observation_keys="):
        read_episodes("goals-v0")
    with pytest.raises(DataError, match=r"no part 'start'"):
        read_episodes("goals-v0", observation_keys=("start",))
    episodes = read_episodes(tmp_path / "minari" / "goals-v0", observation_keys=("observation", "goal"))
    assert episodes.observations[0].tolist() == [1.0, 1.0, 5.0, 5.0]
    assert episodes.observations.shape == (8, 4)
    assert episodes.terminated.tolist() == [False, False, True, False, False, False]
    assert episodes.truncated.tolist() == [False, False, False, False, False, True]
    assert (episodes.attributes["policy"], episodes.attributes["environment"]) == ("scripted", "CartPole-v1")
    assert episodes.attributes["infos_left_out"] == ["sometimes"]
    assert episodes.infos["qpos"].tolist() == [0.0, 1.0, 2.0, 3.0] * 2
    assert episodes.action_space == gymnasium.spaces.Discrete(2)
    mapped = read_episodes("goals-v0", observation_keys=("observation", "goal"), memory_map=True)
    np.testing.assert_array_equal(mapped.observations, episodes.observations)
    file = read_episodes(tmp_path / "minari/goals-v0/data/main_data.hdf5", observation_keys=("observation", "goal"))
    assert file.num_steps == 6


def test_nothing_is_downloaded_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fetch(name: str) -> None:
        asked.append(name)
        if name == "gone-v0":
            raise ValueError("no such data set")
        write_minari(sample(), name)

    monkeypatch.setattr(minari, "download_dataset", fetch)
    with pytest.raises(DataError, match=r"neither a file nor a Minari data set in .*download=True"):
        read_episodes("test/maze/log-v0")
    assert asked == []
    assert read_episodes("test/maze/log-v0", download=True).num_steps == 11
    read_episodes("test/maze/log-v0", download=True)
    assert asked == ["test/maze/log-v0"]
    with pytest.raises(DataError, match=r"cannot download gone-v0 \(no such data set\)"):
        read_episodes("gone-v0", download=True)


def flat(rows: int = 6, **changes: Any) -> dict[str, Any]:
    """D4RL's keys; the observation of a row is its number. Time limit at row 2, terminal at row 4."""
    arrays: dict[str, Any] = {
        "observations": np.arange(rows, dtype=np.float32)[:, None],
        "actions": np.zeros((rows, 1), np.float32),
        "rewards": np.ones(rows, np.float32),
        "terminals": np.arange(rows) == 4,
        "timeouts": np.arange(rows) == 2,
    }
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


def hdf5(path: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


@pytest.mark.parametrize("kind", ["hdf5", "npz", "npy"])
def test_the_toy_file_in_every_container(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"toy.{kind}"
    if kind == "hdf5":
        hdf5(path, flat())
    elif kind == "npz":
        np.savez(path, **flat())
    else:
        path.mkdir()
        for name, array in flat().items():
            np.save(path / f"{name}.npy", array)
    for memory_map in (False, True):
        episodes = read_episodes(path, memory_map=memory_map)
        assert episodes.lengths.tolist() == [3, 2, 1]
        assert episodes.finished.tolist() == [True, True, False]
        assert episodes.final_known.tolist() == [False] * 3
        assert episodes.usable_steps().tolist() == [0, 1, 3, 4]
        batch = episodes.transitions(episodes.usable_steps())
        assert batch.next_observation.flatten().tolist() == [1.0, 2.0, 4.0, 4.0]
        assert batch.terminated.tolist() == [False, False, False, True]
        assert batch.truncated.tolist() == [False] * 4
        assert episodes.usable_steps(require_next_observation=True).tolist() == [0, 1, 3]


def test_next_observations_are_the_final_ones(tmp_path: Path) -> None:
    following = np.array([1, 2, 90, 4, 91, 92], np.float32)[:, None]
    path = hdf5(tmp_path / "a.hdf5", flat(next_observations=following))
    episodes = read_episodes(path)
    assert episodes.observations.flatten().tolist() == [0, 1, 2, 90, 3, 4, 91, 5, 92]
    assert episodes.usable_steps().tolist() == [0, 1, 2, 3, 4, 5]
    assert episodes.transitions(range(6)).next_observation.flatten().tolist() == following.flatten().tolist()
    assert episodes.transitions([2]).terminated.tolist() == [False]


def test_files_without_timeouts(tmp_path: Path) -> None:
    following = np.array([1, 2, 90, 4, 91, 92], np.float32)[:, None]
    jumps = read_episodes(hdf5(tmp_path / "a.hdf5", flat(timeouts=None, next_observations=following)))
    assert jumps.lengths.tolist() == [3, 2, 1]
    assert jumps.truncated.tolist() == [False, False, True, False, False, False]
    assert jumps.finished.tolist() == [True, True, False]
    plain = hdf5(tmp_path / "b.hdf5", flat(timeouts=None))
    assert read_episodes(plain).lengths.tolist() == [5, 1]
    limited = read_episodes(plain, horizon=2)
    assert limited.lengths.tolist() == [2, 2, 1, 1]
    assert limited.truncated.tolist() == [False, True, False, True, False, False]
    assert limited.terminated.tolist() == [False] * 4 + [True, False]
    assert read_episodes(plain, horizon=5).truncated.tolist() == [False] * 6
    with pytest.raises(UsageError, match=r"horizon=0 must be at least 1"):
        read_episodes(plain, horizon=0)


def test_what_d4rl_files_hold_beside_the_steps(tmp_path: Path) -> None:
    arrays = flat(
        rewards=np.ones((6, 1)),
        terminals=(np.arange(6) == 4).astype(np.float32),
        **{
            "infos/qpos": np.arange(12.0).reshape(6, 2),
            "infos/goal": np.arange(3.0),
            "infos/action_log_probs": np.full(6, -0.5, np.float32),
            "metadata/algorithm": "SAC",
            "metadata/policy/weights": np.zeros((2, 2)),
        },
    )
    episodes = read_episodes(hdf5(tmp_path / "a.hdf5", arrays), attributes={"seed": 4})
    assert episodes.rewards.shape == (6,)
    assert episodes.infos["qpos"][5].tolist() == [10.0, 11.0]
    assert episodes.behaviour_log_prob is not None
    assert episodes.behaviour_log_prob.tolist() == [-0.5] * 6
    assert dict(episodes.attributes) == {"algorithm": "SAC", "seed": 4, "infos_left_out": ["goal"]}
    broken = {**arrays, "infos/action_log_probs": np.full(6, -np.inf)}
    kept = read_episodes(hdf5(tmp_path / "b.hdf5", broken))
    assert kept.behaviour_log_prob is None
    assert "action_log_probs" in kept.infos


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"actions": None}, {}, r"log.hdf5 has no 'actions'; its arrays: observations, rewards"),
        ({"rewards": np.ones(5)}, {}, r"log.hdf5: rewards has the shape \(5,\), but there are 6 observations"),
        ({"terminals": np.arange(6)}, {}, "terminals of row 2 is 2; give 0 or 1"),
        ({"timeouts": np.zeros((6, 2))}, {}, "timeouts has the shape"),
        ({"observations": np.array([[0], [1], [2], [3], [np.nan], [5]])}, {}, r"episode 1, step 1 \(row 4\)"),
        ({"next_observations": np.zeros((6, 2))}, {}, "next_observations has the shape"),
        (
            {"next_observations": np.array([[1], [7], [9], [4], [9], [9]], np.float32)},
            {},
            "next_observations of row 1 is not the observation of row 2.*split_discontinuities=True",
        ),
        ({"actions": np.full((6, 1), 2.0)}, {"action_space": "unit box"}, r"action \[2.0\] of episode 0, step 0"),
        ({"metadata/unfinished_episode_ends": np.array([9])}, {}, "must hold numbers of the 6 rows"),
        ({"metadata/braid": json.dumps({"action_space": {"type": "Box"}})}, {}, "action_space is .* no Box"),
        ({"metadata/braid": "{"}, {}, "damaged or cut short"),
    ],
)
def test_faults_of_d4rl_files(changes: dict[str, Any], options: dict[str, Any], words: str, tmp_path: Path) -> None:
    if options:
        options = {"action_space": gymnasium.spaces.Box(-1, 1, (1,), np.float32)}
    with pytest.raises(DataError, match=words):
        read_episodes(hdf5(tmp_path / "log.hdf5", flat(**changes)), **options)


def test_discontinuities_split_episodes_if_asked_to(tmp_path: Path) -> None:
    following = np.array([[1], [7], [9], [4], [9], [9]], np.float32)
    path = hdf5(tmp_path / "a.hdf5", flat(next_observations=following))
    episodes = read_episodes(path, split_discontinuities=True)
    assert episodes.lengths.tolist() == [2, 1, 2, 1]
    assert episodes.transitions(range(6)).next_observation.flatten().tolist() == following.flatten().tolist()


def test_options_that_have_no_meaning_are_refused(tmp_path: Path) -> None:
    with_timeouts = hdf5(tmp_path / "a.hdf5", flat())
    with pytest.raises(UsageError, match=r"horizon=5 was given, but .*a.hdf5 has timeouts"):
        read_episodes(with_timeouts, horizon=5)
    with pytest.raises(UsageError, match=r"observation_keys=.* has no meaning"):
        read_episodes(with_timeouts, observation_keys=("x",))
    with pytest.raises(UsageError, match=r"horizon=5 has no meaning for .*lengths"):
        read_episodes(write_npz(sample(), tmp_path / "b.npz"), horizon=5)
    with pytest.raises(UsageError, match=r"horizon=5 has no meaning for .*Minari"):
        read_episodes(write_minari(sample(), "log-v0"), horizon=5)
    with pytest.raises(DataError, match=r"plain observations"):
        read_episodes("log-v0", observation_keys=("x",))
    with pytest.raises(UsageError, match=r"no meaning for episodes in memory"):
        read_episodes(list(sample()), horizon=5)


def test_episodes_in_memory_and_from_another_set() -> None:
    original = sample("discrete")
    found = read_episodes(
        iter(original),
        attributes=original.attributes,
        observation_space=original.observation_space,
        action_space=original.action_space,
    )
    assert_same(original, found)
    write_minari(original, "log-v0")
    from_minari = read_episodes(minari.load_dataset("log-v0"))
    np.testing.assert_array_equal(from_minari.observations, original.observations)
    np.testing.assert_array_equal(from_minari.truncated, original.truncated)
    with pytest.raises(DataError, match=r"the source is a int"):
        read_episodes(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("memory_map", [False, True])
@pytest.mark.parametrize("file_format", ["npz", "d4rl", "npy", "minari"])
def test_files_that_were_cut_short(file_format: str, memory_map: bool, tmp_path: Path) -> None:
    path = FORMATS[file_format](sample("images"), tmp_path)
    inside = {"npy": "observations.npy", "minari": "data/main_data.hdf5"}.get(file_format)
    file = path / inside if inside else path
    content = file.read_bytes()
    for size in (len(content) // 2, 16):
        file.write_bytes(content[:size])
        with pytest.raises(DataError) as raised:
            read_episodes(path, memory_map=memory_map)
        assert str(path.name) in str(raised.value)
        assert "again" in str(raised.value)
    assert not list(cache_directory().glob("*"))


def test_sources_that_cannot_be_read(tmp_path: Path) -> None:
    write_npz(sample(), tmp_path / "hopper.npz")
    with pytest.raises(DataError, match=r"hoper.npz does not exist; did you mean .*hopper.npz\?"):
        read_episodes(tmp_path / "hoper.npz")
    with pytest.raises(DataError, match=r"empty string"):
        read_episodes("")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"notes.txt is of no known format; give"):
        read_episodes(tmp_path / "notes.txt")
    (tmp_path / "bad.hdf5").write_text("hello")
    with pytest.raises(DataError, match=r"does not begin like a .hdf5 file"):
        read_episodes(tmp_path / "bad.hdf5")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"a folder without .npy files"):
        read_episodes(tmp_path / "folder")
    np.savez(tmp_path / "objects.npz", observations=np.array([None]))
    with pytest.raises(DataError, match=r"objects.npz is damaged or cut short .*allow_pickle"):
        read_episodes(tmp_path / "objects.npz")
    own = {**flat(), "episode_lengths": np.array([6])}
    np.savez(tmp_path / "own.npz", **{k: v for k, v in own.items() if k != "timeouts"})
    with pytest.raises(DataError, match=r"own.npz has no 'timeouts'"):
        read_episodes(tmp_path / "own.npz")
    np.savez(tmp_path / "long.npz", **own)
    with pytest.raises(DataError, match=r"long.npz: episode 0 is terminated at step 4"):
        read_episodes(tmp_path / "long.npz")


def test_minari_data_sets_that_contradict_themselves(tmp_path: Path) -> None:
    path = write_minari(sample(), "log-v0")
    metadata = json.loads((path / "data" / "metadata.json").read_text())
    for steps, words in ((12, "announces 12 steps, but its episodes have 11"), (10, "goes beyond the 10 steps")):
        (path / "data" / "metadata.json").write_text(json.dumps({**metadata, "total_steps": steps}))
        with pytest.raises(DataError, match=words):
            read_episodes(path)
    (path / "data" / "metadata.json").write_text(json.dumps({**metadata, "minari_version": "0.0.1"}))
    with pytest.raises(DataError, match=r"does not support the dataset generated by Minari 0\.0\.1"):
        read_episodes(path)
    (path / "data" / "metadata.json").write_text(json.dumps(metadata))
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/actions"][1] = 3.0
    with pytest.raises(DataError, match=r"action \[3.0, 3.0\] of episode 1, step 1 \(row 4\) is outside"):
        read_episodes(path)
    wide = gymnasium.spaces.Box(-3, 3, (2,), np.float32)
    assert read_episodes(path, action_space=wide).action_space == wide
    assert read_episodes(path, action_space=wide, memory_map=True).action_space == wide
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        del file["episode_2/rewards"]
    with pytest.raises(DataError, match=r"cannot be read as a Minari data set .*rewards"):
        read_episodes(path)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not end in .npz"):
        write_npz(sample(), tmp_path / "a.npy")
    write_npy(sample(), tmp_path / "b")
    with pytest.raises(UsageError, match=r"b is there already"):
        write_npy(sample(), tmp_path / "b")
    (tmp_path / "file").write_text("")
    for write in (
        lambda: write_npz(sample(), tmp_path / "file" / "a.npz"),
        lambda: write_npy(sample(), tmp_path / "file" / "a"),
        lambda: write_d4rl(sample(), tmp_path / "file" / "a.hdf5"),
        lambda: write_minari(sample(), "a-v0", tmp_path / "file"),
    ):
        with pytest.raises(StorageError, match=r"cannot be written"):
            write()
    odd = list(sample())
    with pytest.raises(UsageError, match=r"cannot be written as JSON"):
        write_npz(read_episodes(odd, attributes={"policy": object()}), tmp_path / "a.npz")
    for key in ("../escape", "/root", "a//b"):
        assert key not in read_episodes([{**vars(odd[0]), "infos": {key: np.zeros(3)}}]).infos
        with pytest.raises(UsageError, match=r"cannot be a file name"):
            write_npy(Episodes(**_with_info(key)), tmp_path / "c")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["b", "file"]


def _with_info(key: str) -> dict[str, Any]:
    whole = sample()
    names = ("observations", "actions", "rewards", "terminated", "truncated", "lengths")
    return {**{name: getattr(whole, name) for name in names}, "infos": {key: np.zeros(11)}}


def test_large_files_are_converted_once_and_never_resident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, width = 300_000, 24
    monkeypatch.setattr(control_arrays, "CHUNK_BYTES", 2**20)
    monkeypatch.setattr(control_files, "MAP_BYTES", 2**20)
    observations = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    arrays = {
        "observations": observations,
        "next_observations": observations + width,
        "actions": np.zeros((rows, 3), np.float32),
        "rewards": np.ones(rows, np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(rows) % 1000 == 999,
    }
    path = hdf5(tmp_path / "large.hdf5", arrays)
    size = observations.nbytes
    del observations, arrays
    tracemalloc.start()
    episodes = read_episodes(path)
    batch = episodes.transitions(np.random.default_rng(0).integers(0, rows, size=4096))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size
    assert isinstance(episodes.observations, np.memmap)
    assert isinstance(episodes.actions, np.memmap)
    assert len(episodes) == 300
    assert len(episodes.observations) == rows + 300
    assert (batch.next_observation - batch.observation == width).all()
    (folder,) = cache_directory().iterdir()
    written = (folder / "observations.npy").stat().st_mtime_ns
    assert_same(episodes, read_episodes(path))
    assert (folder / "observations.npy").stat().st_mtime_ns == written
    with h5py.File(path, "a") as file:
        file["rewards"][0] = 5.0
    assert read_episodes(path).rewards[0] == 5.0
    assert len(list(cache_directory().iterdir())) == 2


def test_a_failed_conversion_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hdf5(tmp_path / "bad.hdf5", flat(rewards=np.full(6, np.nan)))
    with pytest.raises(DataError, match=r"rewards of episode 0, step 0"):
        read_episodes(path, memory_map=True)
    assert list(cache_directory().iterdir()) == []
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file where the cache should be")
    with pytest.raises(StorageError, match=r"memory_map=False"):
        read_episodes(path, memory_map=True)


@pytest.mark.parametrize(("package", "read"), [("h5py", "log.hdf5"), ("minari", "log-v0"), ("gymnasium", "log.npz")])
def test_missing_packages_are_named(package: str, read: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_d4rl(sample(), tmp_path / "log.hdf5")
    write_npz(sample(), tmp_path / "log.npz")
    write_minari(sample(), "log-v0")
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=rf"{package}.*pip install 'braid\[control\]'"):
        read_episodes(read if read == "log-v0" else tmp_path / read)
    if package == "gymnasium":
        with pytest.raises(MissingExtra, match=r"gymnasium"):
            collect("CartPole-v1", lambda *_: 0, seed=0, steps=1)


class Corridor(gymnasium.Env):  # type: ignore[misc]
    """Walk right from 0; the world ends at 3, and the first two actions of an episode may not be 0."""

    observation_space = gymnasium.spaces.Box(0, 9, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = 0
        return self._seen()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place += int(action)
        observation, info = self._seen()
        return observation, float(action), self.place == 3, False, {**info, "moved": float(action)}

    def _seen(self) -> tuple[Any, dict[str, Any]]:
        info = {"action_mask": np.array([self.place > 1, True], np.int8), "place": self.place}
        return np.array([self.place], np.float32), info


def limited(steps: int) -> Any:
    return gymnasium.wrappers.TimeLimit(Corridor(), steps)


def test_collecting_keeps_time_limits_and_ends_apart() -> None:
    def right(observation: Any, info: Any, generator: np.random.Generator) -> Decision:
        return Decision(1, -0.25)

    ended = collect(limited(5), right, seed=0, episodes=2, info_keys=("place", "moved"), attributes={"policy": "right"})
    assert ended.lengths.tolist() == [3, 3]
    assert ended.terminated.tolist() == [False, False, True] * 2
    assert not ended.truncated.any()
    assert ended.observations.flatten().tolist() == [0.0, 1.0, 2.0, 3.0] * 2
    assert ended.behaviour_log_prob is not None
    assert ended.behaviour_log_prob.tolist() == [-0.25] * 6
    assert ended.action_mask is not None
    assert ended.action_mask[:3].tolist() == [[False, True], [False, True], [True, True]]
    assert ended.infos["place"].tolist() == [0, 1, 2, 3] * 2
    assert ended.infos["moved"].tolist() == [1.0] * 6
    assert dict(ended.attributes) == {"environment": "Corridor", "seed": 0, "policy": "right"}
    cut = collect(limited(2), right, seed=0, steps=5)
    assert cut.lengths.tolist() == [2, 2, 1]
    assert cut.truncated.tolist() == [False, True, False, True, False]
    assert not cut.terminated.any()
    assert cut.finished.tolist() == [True, True, False]
    assert cut.transitions([1]).next_observation.item() == 2.0


def test_collecting_depends_on_the_seed_alone() -> None:
    def noise(observation: Any, info: Any, generator: np.random.Generator) -> Any:
        return generator.integers(2)

    one, same, other = (collect("CartPole-v1", noise, seed=seed, steps=60) for seed in (3, 3, 4))
    assert_same(one, same)
    assert not np.array_equal(one.observations, other.observations)
    assert one.attributes["environment"] == "CartPole-v1"
    assert one.returns.tolist() == one.lengths.tolist()
    assert one.action_space == gymnasium.spaces.Discrete(2)


@pytest.mark.parametrize(
    ("act", "options", "error", "words"),
    [
        (lambda *_: 1, {}, UsageError, "give one of them"),
        (lambda *_: 1, {"steps": 1, "episodes": 1}, UsageError, "give one of them"),
        (lambda *_: 1, {"steps": 0}, UsageError, "steps=0"),
        (lambda *_: 1, {"steps": 2, "info_keys": ("speed",)}, DataError, "episode 0, step 0: info has no 'speed'"),
        (lambda *_: 0, {"steps": 2}, DataError, r"action 0 of episode 0, step 0 \(row 0\) is forbidden"),
        (lambda *_: -1, {"steps": 2}, DataError, "action -1 of episode 0, step 0"),
        (lambda o, *_: 1 if o[0] else Decision(1, 0.0), {"steps": 2}, DataError, "for some steps only"),
    ],
)
def test_faults_while_collecting(act: Any, options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        collect(limited(5), act, seed=0, **options)
    with pytest.raises(UsageError, match=r"environment='Nowhere-v0' cannot be made"):
        collect("Nowhere-v0", act, seed=0, steps=1)
