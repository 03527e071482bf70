"""The cart-pole of Gymnasium (CartPole-v1), batched, with a linear-quadratic expert."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from braid.errors import MissingExtra, UsageError
from braid.options import option
from braid.tasks.control.task import ControlTask, box
from braid.tasks.control.vector import BatchedEnv, Expert, State, check_discrete

if TYPE_CHECKING:
    from gymnasium.spaces import Space

GRAVITY, CART, POLE, HALF_LENGTH, FORCE, DT = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
"""m/s^2, kg, kg, m, N, s."""
TOTAL = CART + POLE
MAX_POSITION, MAX_ANGLE = 2.4, 12 * 2 * math.pi / 360
"""m and rad: beyond either the episode is lost."""


@dataclass(frozen=True)
class CartPoleTask(ControlTask):
    """Balance a pole on a cart by pushing left (0) or right (1): Gymnasium's CartPole-v1, number for number.

    Observation: position, speed, angle, angular speed. Reward: 1 per step, that of the fall included. It terminates
    beyond 2.4 m or 12 degrees.

    Experts: `lqr` never falls; `angle` pushes towards the side to which the pole leans, which is mediocre.
    """

    name: ClassVar[str] = "cartpole"
    styles: ClassVar[tuple[str, ...]] = ("lqr", "angle")

    horizon: int = option(500, "length of an episode", unit="steps", low=1, source="Gymnasium")

    @property
    def observation_space(self) -> Space:
        """Box [4]; no bounds of the speeds."""
        high = np.array([2 * MAX_POSITION, np.inf, 2 * MAX_ANGLE, np.inf])
        return box(-high, high, (4,))

    @property
    def action_space(self) -> Space:
        """Discrete, 2 actions."""
        try:
            from gymnasium import spaces
        except ImportError as error:
            raise MissingExtra("gymnasium", "control") from error
        return spaces.Discrete(2)

    def make(self, num_envs: int, seed: int, device: str = "cpu") -> CartPoleEnv:
        """Cart-poles that step together; state entry: `physics` [N, 4] float64, as an observation."""
        return CartPoleEnv(self, num_envs, seed, device)

    def _expert(self, style: str, seed: int) -> Expert:
        return {"lqr": regulate, "angle": follow_angle}[style]


class CartPoleEnv(BatchedEnv):
    """Cart-poles; the state is float64 as in Gymnasium, observations and rewards float32.

    Args:
        task: the options.
        num_envs: N.
        seed: of the random stream.
        device: where everything lives.
    """

    def __init__(self, task: CartPoleTask, num_envs: int, seed: int, device: str | torch.device = "cpu") -> None:
        super().__init__(num_envs, task.horizon, seed, device)

    def _begin(self, count: int) -> dict[str, Tensor]:
        return {"physics": self._uniform(count, 4, low=-0.05, high=0.05).double()}

    def _observe(self, state: State) -> Tensor:
        return state["physics"].float()

    def _check_action(self, action: Tensor) -> None:
        check_discrete(action, self.num_envs, 2)

    def _check_state(self, state: State) -> None:
        bad = ~state["physics"].isfinite().all(-1) | _fallen(state["physics"])
        if bad.any():
            index = int(bad.nonzero()[0])
            raise UsageError(
                f"the state {state['physics'][index].tolist()} of environment {index} is not finite, or already lost: "
                f"positions are within {MAX_POSITION:g} m and angles within {MAX_ANGLE:.4g} rad"
            )

    def _advance(self, state: State, action: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor, dict[str, Tensor]]:
        _, speed, angle, turning = state["physics"].unbind(-1)
        force = torch.where(action == 1, FORCE, -FORCE)
        cos, sin = angle.cos(), angle.sin()
        push = (force + POLE * HALF_LENGTH * turning.square() * sin) / TOTAL
        angular = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE * cos.square() / TOTAL))
        linear = push - POLE * HALF_LENGTH * angular * cos / TOTAL
        rates = torch.stack([speed, linear, turning, angular], -1)
        physics = state["physics"] + DT * rates
        terminated = _fallen(physics)
        reward = torch.ones(self.num_envs, device=self.device)
        return {"physics": physics}, reward, terminated, {"success": ~terminated}


def _fallen(physics: Tensor) -> Tensor:
    return (physics[:, 0].abs() > MAX_POSITION) | (physics[:, 2].abs() > MAX_ANGLE)


def follow_angle(state: State) -> Tensor:
    """Actions [N] int64: right if the pole leans to the right."""
    return (state["physics"][:, 2] > 0).long()


def regulate(state: State) -> Tensor:
    """Actions [N] int64: the sign of the force that a linear-quadratic regulator would choose."""
    physics = state["physics"]
    return (physics @ _gain().to(physics.device) < 0).long()


@lru_cache(maxsize=1)
def _gain() -> Tensor:
    """[4], such that -gain @ state is the best force near the upright state, by the discrete Riccati equation."""
    from scipy.linalg import solve_discrete_are

    inertia = HALF_LENGTH * (4.0 / 3.0 - POLE / TOTAL)
    fall, lever = GRAVITY / inertia, -1 / (TOTAL * inertia)
    ratio = POLE * HALF_LENGTH / TOTAL
    rates = np.array([[0, 1, 0, 0], [0, 0, -ratio * fall, 0], [0, 0, 0, 1], [0, 0, fall, 0]])
    dynamics = np.eye(4) + DT * rates
    control = DT * np.array([[0], [1 / TOTAL - ratio * lever], [0], [lever]])
    force_cost = np.array([[0.01]])
    value = solve_discrete_are(dynamics, control, np.diag([1.0, 0.1, 10.0, 0.1]), force_cost)
    gain = np.linalg.solve(force_cost + control.T @ value @ control, control.T @ value @ dynamics)
    return torch.from_numpy(gain[0].copy())
