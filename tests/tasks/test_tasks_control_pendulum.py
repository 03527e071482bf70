"""Pendulum and cart-pole: step by step as in Gymnasium, and experts that are worth imitating."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from braid.errors import UsageError
from braid.tasks.control.cartpole import CartPoleTask
from braid.tasks.control.pendulum import MAX_TORQUE, UPRIGHT_ENERGY, PendulumTask, pump_energy

STARTS = [(0.0, 0.0), (math.pi, 0.0), (3.0, -1.0), (-0.5, 7.9), (9.0, -8.0), (1e-3, 0.2)]


def test_pendulum_steps_as_in_gymnasium() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    theirs = [gymnasium.make("Pendulum-v1") for _ in STARTS]
    for env, start in zip(theirs, STARTS, strict=True):
        env.reset()
        env.unwrapped.state = np.array(start)
    ours = PendulumTask().make(len(STARTS), 0)
    angle, speed = torch.tensor(STARTS, dtype=torch.float64).unbind(-1)
    seen = ours.reset_to({"angle": angle, "speed": speed})
    assert seen.numpy() == pytest.approx(np.stack([env.unwrapped._get_obs() for env in theirs]), abs=1e-6)
    generator = np.random.default_rng(0)
    for step in range(200):
        action = generator.uniform(-3, 3, (len(STARTS), 1)).astype(np.float32)
        result = ours.step(torch.from_numpy(action))
        wanted = [env.step(row) for env, row in zip(theirs, action, strict=True)]
        assert result.final_observation.numpy() == pytest.approx(
            np.stack([found[0] for found in wanted]), abs=1e-6, rel=1e-6
        )
        assert result.reward.numpy() == pytest.approx(np.array([found[1] for found in wanted]), abs=1e-6, rel=1e-6)
        assert result.truncated.tolist() == [found[3] for found in wanted] == [step == 199] * len(STARTS)
        assert not result.terminated.any()


def test_cartpole_steps_as_in_gymnasium() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    generator = np.random.default_rng(1)
    count = 32
    starts = generator.uniform(-0.2, 0.2, (count, 4)) * np.array([10, 5, 1, 5])
    theirs = [gymnasium.make("CartPole-v1") for _ in range(count)]
    for env, start in zip(theirs, starts, strict=True):
        env.reset()
        env.unwrapped.state = start
    ours = CartPoleTask().make(count, 0)
    ours.reset_to({"physics": torch.from_numpy(starts)})
    going = np.ones(count, dtype=bool)
    falls = 0
    for _ in range(60):
        action = generator.integers(2, size=count)
        result = ours.step(torch.from_numpy(action))
        for row in np.flatnonzero(going):
            seen, reward, terminated, _, _ = theirs[row].step(int(action[row]))
            assert result.final_observation[row].numpy() == pytest.approx(seen, abs=1e-5)
            assert float(result.reward[row]) == reward == 1
            assert bool(result.terminated[row]) == terminated
            going[row] = not terminated
            falls += terminated
    assert falls > count / 2


def test_spaces_and_beginnings_are_those_of_gymnasium() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    for task, env_id in ((PendulumTask(), "Pendulum-v1"), (CartPoleTask(), "CartPole-v1")):
        theirs = gymnasium.make(env_id)
        assert task.observation_space == theirs.observation_space
        assert task.action_space == theirs.action_space
        assert task.horizon == theirs.spec.max_episode_steps
    state = PendulumTask().make(5000, 0)
    state.reset()
    angle, speed = state.state()["angle"], state.state()["speed"]
    assert float(angle.abs().max()) == pytest.approx(math.pi, abs=0.01)
    assert float(angle.std()) == pytest.approx(math.pi / math.sqrt(3), rel=0.03)
    assert float(speed.std()) == pytest.approx(1 / math.sqrt(3), rel=0.03)
    poles = CartPoleTask().make(5000, 0).reset()
    assert float(poles.abs().max()) <= 0.05
    assert float(poles.std()) == pytest.approx(0.05 / math.sqrt(3), rel=0.03)


def returns(task: PendulumTask | CartPoleTask, style: str, **noise: float) -> np.ndarray:
    return np.array([episode["rewards"].sum() for episode in task.demonstrations(200, 7, style, **noise)])


def test_the_pendulum_expert_swings_up_and_holds() -> None:
    task = PendulumTask()
    best = returns(task, "swing-up")
    # trained agents are reported at about -150 on average; from hanging at rest even the best lose several hundred
    assert best.mean() > -175
    assert best.min() > -500
    assert -900 < returns(task, "energy").mean() < -500
    assert returns(task, "lqr").mean() < -700
    held = [episode["infos"]["success"][-20:].all() for episode in task.demonstrations(200, 7)]
    assert all(held)


def test_the_cartpole_expert_never_falls() -> None:
    task = CartPoleTask()
    assert returns(task, "lqr").tolist() == [500.0] * 200
    assert 25 < returns(task, "angle").mean() < 80
    pytest.importorskip("gymnasium")
    assert returns(task, "lqr", epsilon=0.5).mean() < 500
    scores = task.reference_scores
    assert scores is not None
    assert scores.expert == 500
    # uniformly random pushing is known to last about 22 steps
    assert scores.random == pytest.approx(22, abs=2)


def test_pumping_needs_no_torque_at_the_energy_of_the_upright_state() -> None:
    bottom = {"angle": torch.tensor([math.pi]), "speed": torch.tensor([math.sqrt(6 * 2 * UPRIGHT_ENERGY)])}
    assert float(pump_energy(bottom)[0, 0]) == pytest.approx(0, abs=1e-3)
    slower = {"angle": torch.tensor([math.pi, math.pi]), "speed": torch.tensor([2.0, -2.0])}
    assert pump_energy(slower)[:, 0].tolist() == [MAX_TORQUE, -MAX_TORQUE]
    hanging = {"angle": torch.tensor([math.pi]), "speed": torch.tensor([0.0])}
    assert float(pump_energy(hanging)[0, 0]) == MAX_TORQUE


def test_wrong_use_is_explained() -> None:
    poles = CartPoleTask().make(2, 0)
    poles.reset()
    with pytest.raises(UsageError, match=r"needed: \[2\] of whole numbers"):
        poles.step(torch.zeros(2, 1))
    with pytest.raises(UsageError, match="already lost"):
        poles.reset_to({"physics": torch.tensor([[0.0, 0, 0, 0], [3.0, 0, 0, 0]])})
    pendulums = PendulumTask().make(1, 0)
    with pytest.raises(UsageError, match="speeds within 8 rad/s"):
        pendulums.reset_to({"angle": torch.zeros(1), "speed": torch.full((1,), 9.0)})
    with pytest.raises(UsageError, match="horizon=0"):
        PendulumTask(horizon=0)
