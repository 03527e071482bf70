"""Logged data of mazes: navigation, play and stitching."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from braid.errors import MissingExtra, UsageError
from braid.tasks.control.episodes import Episode
from braid.tasks.control.maze import MazeTask
from braid.tasks.control.maze_logs import navigation, play, regions, stitching


def same(one: list[Episode], two: list[Episode]) -> bool:
    return len(one) == len(two) and all(
        np.array_equal(a["observations"], b["observations"]) and np.array_equal(a["actions"], b["actions"])
        for a, b in zip(one, two, strict=True)
    )


def test_navigation_is_multimodal_and_depends_only_on_the_seed() -> None:
    task = MazeTask(layout="four-rooms", horizon=110)
    episodes = navigation(task, 40, seed=1, routes=("north", "south"))
    assert same(episodes, navigation(task, 40, seed=1, routes=("north", "south")))
    assert not same(episodes, navigation(task, 40, seed=2, routes=("north", "south")))
    for episode in episodes:
        assert episode["infos"]["success"].any()
        assert (episode["infos"]["route"] == episode["infos"]["route"][0]).all()
        # north of the diagonal by the upper door, south of it by the left one
        x, y = episode["observations"][:, :2].T
        assert ((x - y).max() > 3) == (episode["infos"]["route"][0] == 0)
        assert ((y - x).max() > 3) == (episode["infos"]["route"][0] == 1)
    chosen = np.mean([episode["infos"]["route"][0] for episode in episodes])
    assert 0.2 < chosen < 0.8


def test_worse_navigation_succeeds_less_often() -> None:
    pytest.importorskip("gymnasium")
    task = MazeTask(layout="medium", horizon=80)
    shares = [
        np.mean([episode["infos"]["success"].any() for episode in navigation(task, 60, 0, epsilon=epsilon)])
        for epsilon in (0.0, 0.6, 1.0)
    ]
    assert shares[0] == 1
    assert shares[0] > shares[1] > shares[2]
    noisy = navigation(task, 4, 0, noise=0.5)
    assert all(np.abs(episode["actions"]).max() <= 1 for episode in noisy)


def test_play_goes_from_landmark_to_landmark_without_restarts() -> None:
    task = MazeTask(layout="four-rooms", horizon=400, terminate_at_goal=True)
    episodes = play(task, 12, seed=3, landmarks=5)
    assert same(episodes, play(task, 12, seed=3, landmarks=5))
    visited = set()
    for episode in episodes:
        assert len(episode["rewards"]) == 400
        assert not episode["terminated"].any()
        places, heading = episode["observations"][1:, :2], episode["infos"]["landmark"]
        changes = np.flatnonzero((heading[1:] != heading[:-1]).any(-1))
        assert len(changes) >= 3
        assert np.linalg.norm(places[changes] - heading[changes], axis=-1).max() <= 0.3 + 1e-5
        assert np.linalg.norm(np.diff(places, axis=0), axis=-1).max() < 0.5
        visited |= {tuple(place) for place in heading.tolist()}
    assert len(visited) == 5
    assert task.terminate_at_goal


@pytest.mark.parametrize(("layout", "noise"), [("fork", 0.0), ("umaze", 0.5), ("medium", 0.5), ("open", 1.0)])
def test_no_stitching_episode_visits_both_regions_but_together_they_do(layout: str, noise: float) -> None:
    if noise:
        pytest.importorskip("gymnasium")
    task = MazeTask(layout=layout, horizon=150)
    from_start, to_goal = regions(task)
    assert not (from_start & to_goal).any()
    episodes = stitching(task, 60, seed=5, noise=noise)
    starts = goals = 0
    shared: list[set[tuple[int, int]]] = [set(), set()]
    for episode in episodes:
        column, row = episode["observations"][:, :2].astype(int).T
        in_start, in_goal = from_start[row, column].any(), to_goal[row, column].any()
        assert not (in_start and in_goal)
        starts += in_start
        goals += in_goal
        shared[int(episode["infos"]["part"][0])] |= set(zip(row.tolist(), column.tolist(), strict=True))
        assert not episode["truncated"][:-1].any()
        assert episode["truncated"][-1]
    assert starts >= 25
    assert goals >= 20
    assert shared[0] & shared[1]  # cells at which the parts can be joined


def test_arrived_episodes_linger_for_the_stated_time() -> None:
    task = MazeTask(layout="medium", horizon=300)
    long, short = stitching(task, 40, seed=0, linger=30), stitching(task, 40, seed=0, linger=0)
    more = np.array([len(a["rewards"]) - len(b["rewards"]) for a, b in zip(long, short, strict=True)])
    assert set(more) == {0, 30}  # those without arrival were cut before the other region
    assert (more == 30).mean() > 0.6
    arrived = [episode for episode, longer in zip(short, more, strict=True) if longer]
    assert all(episode["rewards"][-1] == (episode["infos"]["part"][0] == 1) for episode in arrived)
    assert all(episode["rewards"][:-1].max(initial=0) == 0 for episode in arrived)


def test_mazes_need_gymnasium_only_for_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    task = MazeTask(layout="fork", horizon=30)
    for episodes in (navigation(task, 4), play(task, 4, landmarks=3), stitching(task, 4)):
        assert len(episodes) == 4
    with pytest.raises(MissingExtra, match=r"gymnasium is not installed; run: pip install 'braid\[control\]'"):
        task.observation_space  # noqa: B018


def test_wrong_use_is_explained() -> None:
    task = MazeTask()
    with pytest.raises(UsageError, match=r"routes=\('up',\) must be one or more of shortest, north"):
        navigation(task, 1, routes=("up",))
    with pytest.raises(UsageError, match="episodes=0"):
        navigation(task, 0)
    with pytest.raises(UsageError, match="landmarks=1"):
        play(task, 1, landmarks=1)
    with pytest.raises(UsageError, match="episodes=1 cannot show both"):
        stitching(task, 1)
    with pytest.raises(UsageError, match="put S and G farther apart"):
        stitching(MazeTask(map="####/#SG#/####"), 4)
