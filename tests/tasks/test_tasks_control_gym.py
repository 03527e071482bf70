"""Gymnasium environments as batches of tensors."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
import torch

from braid.errors import MissingExtra, UsageError
from braid.tasks.control.episodes import collect_episodes, random_policy
from braid.tasks.control.gym import GymTask, gym_task

gymnasium = pytest.importorskip("gymnasium")
spaces = gymnasium.spaces


class Ladder(gymnasium.Env):
    """Climbs one rung per step and ends at the third; the observation is a Dict, the action is 5 or 6."""

    observation_space = spaces.Dict(rung=spaces.Box(0, 9, (1,), np.float32), kind=spaces.Discrete(2))
    action_space = spaces.Discrete(2, start=5)

    def _seen(self) -> dict[str, Any]:
        return {"rung": np.array([self.rung], dtype=np.float32), "kind": 1}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.rung = 0
        return self._seen(), {"height": -1.0}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in (5, 6)
        self.rung += 1
        top = self.rung == 3
        return self._seen(), float(action), top, False, {"height": float(self.rung), "is_success": top}


class Sequences(Ladder):
    observation_space = spaces.Sequence(spaces.Discrete(2))


class Matrix(Ladder):
    observation_space = spaces.Box(0, 255, (4, 4), np.uint8)
    action_space = spaces.Box(-1, 1, (2, 3), np.float32)

    def _seen(self) -> np.ndarray:
        return np.full((4, 4), self.rung, dtype=np.uint8)

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action.shape == (2, 3)
        self.rung += 1
        return self._seen(), float(action[1, 0]), False, False, {}


for name, kind in (("Ladder", Ladder), ("Sequences", Sequences), ("Matrix", Matrix)):
    if f"Braid{name}-v0" not in gymnasium.registry:
        gymnasium.register(f"Braid{name}-v0", kind, max_episode_steps=5)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_ends_keep_their_observation_and_info_and_a_new_episode_begins(asynchronous: bool) -> None:
    task = gym_task("gym:BraidLadder-v0", asynchronous=asynchronous)
    assert task.observation_space.shape == (3,)  # the rung, then the kind as two columns
    assert task.action_space == spaces.Discrete(2)
    env = task.make(2, seed=0)
    try:
        assert env.reset().tolist() == [[0, 0, 1], [0, 0, 1]]
        for rung in (1, 2):
            result = env.step(torch.tensor([0, 1]))
            assert result.final_observation.tolist() == result.observation.tolist() == [[rung, 0, 1]] * 2
            assert result.reward.tolist() == [5, 6]
            assert not result.done.any()
        result = env.step(torch.tensor([0, 1]))
        assert result.terminated.all()
        assert not result.truncated.any()
        assert result.final_observation.tolist() == [[3, 0, 1]] * 2
        assert result.observation.tolist() == [[0, 0, 1]] * 2
        assert result.info["height"].tolist() == [3, 3]
        assert result.info["success"].tolist() == [True, True]
        assert env.step(torch.tensor([1, 1])).final_observation.tolist() == [[1, 0, 1]] * 2
    finally:
        env.close()


def test_time_limits_truncate_and_actions_of_any_shape_are_flat() -> None:
    task = GymTask("BraidMatrix-v0", max_steps=2)
    assert task.action_space.shape == (6,)
    env = task.make(3, seed=0)
    assert env.reset().dtype == torch.uint8
    action = torch.arange(6.0).expand(3, 6) / 10
    assert env.step(action).reward.tolist() == pytest.approx([0.3] * 3)
    result = env.step(action)
    assert result.truncated.all()
    assert not result.terminated.any()
    assert result.final_observation[0, 0].tolist() == [2] * 4
    assert result.observation[0, 0].tolist() == [0] * 4
    with pytest.raises(UsageError, match=r"needed: \[3, 6\]"):
        env.step(torch.zeros(3, 2, 3))
    assert task.reference_scores is None
    with pytest.raises(UsageError, match="no reference scores"):
        task.normalised_score(1.0)
    with pytest.raises(UsageError, match="no scripted expert"):
        task.expert()


def test_episodes_are_those_of_gymnasium_itself() -> None:
    task = gym_task("gym:Acrobot-v1", max_steps=30)
    generator = torch.Generator().manual_seed(0)
    episodes = collect_episodes(task.make(2, seed=0), random_policy(task.action_space, generator), 2, seed=11)
    theirs = gymnasium.make("Acrobot-v1", max_episode_steps=30)
    for row, episode in enumerate(episodes):
        seen, _ = theirs.reset(seed=11 + row)
        assert episode["observations"][0] == pytest.approx(seen, abs=1e-6)
        for step, action in enumerate(episode["actions"]):
            seen, reward, terminated, truncated, _ = theirs.step(int(action))
            assert episode["observations"][step + 1] == pytest.approx(seen, abs=1e-6)
            assert episode["rewards"][step] == reward
            assert (episode["terminated"][step], episode["truncated"][step]) == (terminated, truncated)
        assert truncated


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gym:CartPol-v1", r"unknown Gymnasium environment 'CartPol-v1'; did you mean CartPole-v1"),
        ("gym:hoper", "did you mean hopper"),
        ("gym:", "write for instance gym:Pendulum-v1"),
        ("gym:missing_module:Thing-v0", "unknown Gymnasium environment"),
    ],
)
def test_unknown_environments_are_explained(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gym_task(name)


def test_unsupported_observations_and_uses_are_explained() -> None:
    with pytest.raises(UsageError, match="cannot be flattened"):
        gym_task("gym:BraidSequences-v0").make(1, 0)
    env = gym_task("gym:CartPole-v1").make(1, 0)
    with pytest.raises(UsageError, match="call reset"):
        env.step(torch.zeros(1, dtype=torch.int64))
    env.reset()
    with pytest.raises(UsageError, match="environment 0 is 2; actions are 0 to 1"):
        env.step(torch.tensor([2]))
    with pytest.raises(UsageError, match="tasks maze, pendulum and cartpole can"):
        env.state()
    with pytest.raises(UsageError, match="num_envs=0"):
        gym_task("gym:CartPole-v1").make(0, 0)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(env_id: str, **options: Any) -> None:
        raise gymnasium.error.DependencyNotInstalled("no simulator")

    with monkeypatch.context() as patch:
        patch.setattr(gymnasium, "make", refuse)
        with pytest.raises(MissingExtra, match=r"mujoco is not installed; run: pip install 'braid\[mujoco\]'"):
            gym_task("hopper").make_single()
        patch.setattr(gymnasium, "make", lambda *_, **__: importlib.import_module("imageio_of_nobody"))
        with pytest.raises(MissingExtra, match="imageio_of_nobody is not installed"):
            gym_task("hopper").make_single()
        patch.setattr(gymnasium, "make", refuse)
        with pytest.raises(UsageError, match="CartPole-v1 needs a package that is not installed: no simulator"):
            gym_task("CartPole-v1").make_single()
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingExtra, match=r"braid\[control\]"):
        gym_task("CartPole-v1")


@pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in ("mujoco", "imageio")), reason="needs the extra mujoco"
)
def test_mujoco_states_can_be_returned_to() -> None:
    task = gym_task("gym:hopper")
    assert task.registered_id == "Hopper-v5"
    assert task.horizon == 1000
    # D4RL's published reference returns
    assert task.normalised_score(3234.3) == 100
    assert task.normalised_score(-20.272305) == 0
    env = task.make(2, seed=0)
    env.reset()
    push = torch.tensor([[0.3, -0.2, 0.1], [0.0, 0.1, -0.3]])
    for _ in range(5):
        before = env.step(push).observation
    saved = env.state()
    assert saved["elapsed"].tolist() == [5, 5]
    after = [env.step(push) for _ in range(10)]
    env.reset()
    assert env.reset_to(saved).numpy() == pytest.approx(before.numpy(), abs=1e-5)
    again = [env.step(push) for _ in range(10)]
    for one, two in zip(after, again, strict=True):
        assert two.final_observation.numpy() == pytest.approx(one.final_observation.numpy(), abs=1e-3)
        assert two.reward.numpy() == pytest.approx(one.reward.numpy(), abs=1e-3)
    with pytest.raises(UsageError, match="the state has"):
        env.reset_to({"qpos": saved["qpos"]})
