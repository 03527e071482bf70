"""The torque-limited pendulum of Gymnasium (Pendulum-v1), batched, with an expert that swings it up and holds it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from braid.errors import UsageError
from braid.options import option
from braid.tasks.control.task import ControlTask, box
from braid.tasks.control.vector import BatchedEnv, Expert, State, check_continuous

if TYPE_CHECKING:
    from gymnasium.spaces import Space

GRAVITY, DT, MAX_SPEED, MAX_TORQUE = 10.0, 0.05, 8.0, 2.0
"""m/s^2, s, rad/s, N m; mass 1 kg, length 1 m."""
UPRIGHT_ENERGY = GRAVITY / 2
"""Joule: of the pendulum at rest and upright; hanging it is the negative of it."""
ENERGY_GAIN = 2.0
"""Torque per joule missing and rad/s."""
CATCH = 1.0
"""Where the linear regulator takes over: its value function, in units of cost."""


@dataclass(frozen=True)
class PendulumTask(ControlTask):
    """Swing a pendulum up with too weak a motor, then hold it: Gymnasium's Pendulum-v1, number for number.

    Observation: cos and sin of the angle (0 upright) and the speed in rad/s. Action: a torque in [-2, 2]; beyond is
    clipped. Reward: -(angle^2 + 0.1 speed^2 + 0.001 torque^2) of the state before the step. Nothing terminates.

    Experts: `swing-up` pumps energy and then holds by a linear-quadratic regulator; `energy` only pumps and `lqr` only
    regulates, so that both are mediocre.
    """

    name: ClassVar[str] = "pendulum"
    styles: ClassVar[tuple[str, ...]] = ("swing-up", "energy", "lqr")

    horizon: int = option(200, "length of an episode", unit="steps", low=1, source="Gymnasium")

    @property
    def observation_space(self) -> Space:
        """Box [3]."""
        high = np.array([1, 1, MAX_SPEED])
        return box(-high, high, (3,))

    @property
    def action_space(self) -> Space:
        """Box [1] from -2 to 2."""
        return box(-MAX_TORQUE, MAX_TORQUE, (1,))

    def make(self, num_envs: int, seed: int, device: str = "cpu") -> PendulumEnv:
        """Pendulums that step together; state entries: `angle` and `speed`, each [N] float64."""
        return PendulumEnv(self, num_envs, seed, device)

    def _expert(self, style: str, seed: int) -> Expert:
        return {"swing-up": swing_up, "energy": pump_energy, "lqr": regulate}[style]


class PendulumEnv(BatchedEnv):
    """Pendulums; angles and speeds are float64 as in Gymnasium, observations and rewards float32.

    Args:
        task: the options.
        num_envs: N.
        seed: of the random stream.
        device: where everything lives.
    """

    def __init__(self, task: PendulumTask, num_envs: int, seed: int, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, task.horizon, seed, device)

    def _begin(self, count: int) -> dict[str, Tensor]:
        drawn = self._uniform(count, 2, low=-1, high=1).double()
        return {"angle": math.pi * drawn[:, 0], "speed": drawn[:, 1]}

    def _observe(self, state: State) -> Tensor:
        angle = state["angle"]
        return torch.stack([angle.cos(), angle.sin(), state["speed"]], -1).float()

    def _check_action(self, action: Tensor) -> None:
        check_continuous(action, self.num_envs, 1)

    def _check_state(self, state: State) -> None:
        allowed = state["angle"].isfinite() & (state["speed"].abs() <= MAX_SPEED)
        if not allowed.all():
            index = int((~allowed).nonzero()[0])
            raise UsageError(
                f"the angle {float(state['angle'][index]):g} and speed {float(state['speed'][index]):g} of environment "
                f"{index}: angles must be finite, and speeds within {MAX_SPEED:g} rad/s"
            )

    def _advance(self, state: State, action: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor, dict[str, Tensor]]:
        angle, speed = state["angle"], state["speed"]
        # the terms of the torque are rounded to float32 before they are added, as Gymnasium does
        torque = action[:, 0].float().clamp(-MAX_TORQUE, MAX_TORQUE)
        cost = _wrapped(angle).square() + 0.1 * speed.square() + (0.001 * torque.square()).double()
        speed = (speed + (1.5 * GRAVITY * angle.sin() + (3.0 * torque).double()) * DT).clamp(-MAX_SPEED, MAX_SPEED)
        angle = angle + speed * DT
        success = (_wrapped(angle).abs() < 0.1) & (speed.abs() < 0.5)
        terminated = torch.zeros_like(success)
        return {"angle": angle, "speed": speed}, -cost.float(), terminated, {"success": success}


def _wrapped(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def pump_energy(state: State) -> Tensor:
    """Torques [N, 1] that bring the energy to that of the upright pendulum: along the speed while some is missing."""
    angle, speed = state["angle"], state["speed"]
    missing = UPRIGHT_ENERGY - (speed.square() / 6 + GRAVITY / 2 * angle.cos())
    push = ENERGY_GAIN * missing * speed
    hanging_still = (speed.abs() < 1e-3) & (missing.abs() > 1e-3)
    torque = torch.where(hanging_still, torch.full_like(push, MAX_TORQUE), push)
    return torque.clamp(-MAX_TORQUE, MAX_TORQUE).float()[:, None]


def regulate(state: State) -> Tensor:
    """Torques [N, 1] of the regulator that is optimal for the task's cost near the upright state."""
    gain, _ = _regulator()
    near = torch.stack([_wrapped(state["angle"]), state["speed"]], -1)
    torque = -(near @ gain.to(near.device))
    return torque.clamp(-MAX_TORQUE, MAX_TORQUE).float()[:, None]


def swing_up(state: State) -> Tensor:
    """Torques [N, 1]: `pump_energy` far from the upright state, `regulate` near it."""
    _, value = _regulator()
    near = torch.stack([_wrapped(state["angle"]), state["speed"]], -1)
    caught = torch.einsum("ni,ij,nj->n", near, value.to(near.device), near) < CATCH
    return torch.where(caught[:, None], regulate(state), pump_energy(state))


@lru_cache(maxsize=1)
def _regulator() -> tuple[Tensor, Tensor]:
    """Gain [2] and value matrix [2, 2] of the linearised system, by the discrete Riccati equation."""
    from scipy.linalg import solve_discrete_are

    swing = 1.5 * GRAVITY * DT
    dynamics = np.array([[1 + DT * swing, DT], [swing, 1]])
    control = np.array([[3 * DT * DT], [3 * DT]])
    state_cost, torque_cost = np.diag([1.0, 0.1]), np.array([[0.001]])
    value = solve_discrete_are(dynamics, control, state_cost, torque_cost)
    gain = np.linalg.solve(torque_cost + control.T @ value @ control, control.T @ value @ dynamics)
    return torch.from_numpy(gain[0].copy()), torch.from_numpy(value)
