"""Gymnasium's vector environments behind the protocol of `VectorEnv`."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from braid.errors import MissingExtra, UsageError
from braid.tasks.control.vector import State, StepResult, check_continuous, check_discrete

if TYPE_CHECKING:
    from braid.tasks.control.gym import GymTask


def gymnasium_module() -> ModuleType:
    """The package gymnasium; raises MissingExtra if it is not installed."""
    try:
        import gymnasium
    except ImportError as error:
        raise MissingExtra("gymnasium", "control") from error
    return gymnasium


class GymEnv:
    """Gymnasium environments in one process, or one process each, behind the protocol of `VectorEnv`.

    Observations are float32, or uint8 where the environment's are. Numeric infos that every environment gives become
    tensors; `is_success` is also called `success`.

    Args:
        task: the options.
        num_envs: N, at least 1.
        seed: number i begins with `seed` + i.
        device: of the tensors.

    Raises:
        UsageError: fewer than one environment.
    """

    def __init__(self, task: GymTask, num_envs: int, seed: int, device: str | torch.device = "cpu") -> None:
        if num_envs < 1:
            raise UsageError(f"num_envs={num_envs} makes no environment; use at least 1")
        vector = gymnasium_module().vector
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.task = task
        self._space: Any = task.action_space  # also says what is wrong before processes are started
        kind = vector.AsyncVectorEnv if task.asynchronous else vector.SyncVectorEnv
        self._env = kind([task.make_single] * num_envs, autoreset_mode=vector.AutoresetMode.SAME_STEP)
        self._seed: int | None = seed
        self._begun = False

    def reset(self, seed: int | None = None) -> Tensor:
        """Begin N episodes; the first time, without a seed, with that of the constructor. Returns [N, ...]."""
        observation, _ = self._env.reset(seed=self._seed if seed is None else seed)
        self._seed, self._begun = None, True
        return self._tensor(observation)

    def step(self, action: Tensor) -> StepResult:
        """One step of all environments.

        Args:
            action: [N, A] float for Box, [N] int64 for Discrete, [N, A] int64 for MultiDiscrete.

        Raises:
            UsageError: before the first `reset`, or actions of the wrong shape, type or value.
        """
        if not self._begun:
            raise UsageError("step was called before reset; call reset() first")
        found = self._env.step(self._array(action))
        observation, reward, terminated, truncated, infos = found
        done = np.flatnonzero(terminated | truncated)
        final = observation
        if len(done):
            final = observation.copy()
            for row in done:
                final[row] = infos["final_obs"][row]
        ended = torch.from_numpy(terminated).to(self.device)
        return StepResult(
            self._tensor(observation),
            torch.from_numpy(reward).float().to(self.device),
            ended,
            torch.from_numpy(truncated).to(self.device) & ~ended,
            self._tensor(final),
            self._info(infos, done),
        )

    def state(self) -> State:
        """Positions `qpos` [N, nq] and speeds `qvel` [N, nv] of MuJoCo environments, float64, and `elapsed` [N].

        Raises:
            UsageError: environments of another kind, or in other processes.
        """
        envs = self._simulations()
        rows = {
            "qpos": [env.unwrapped.data.qpos for env in envs],
            "qvel": [env.unwrapped.data.qvel for env in envs],
            "elapsed": [env.get_wrapper_attr("_elapsed_steps") for env in envs],
        }
        return {name: torch.from_numpy(np.array(values)).to(self.device) for name, values in rows.items()}

    def reset_to(self, state: State) -> Tensor:
        """Set `qpos` and `qvel` of MuJoCo environments, and `elapsed` (0 if absent); returns observations [N, ...].

        Raises:
            UsageError: as `state`, or entries that are missing or of the wrong shape.
        """
        envs = self._simulations()
        if not self._begun:
            self.reset()
        needed = {name: value.shape for name, value in self.state().items()}
        given = {"elapsed": torch.zeros(self.num_envs, dtype=torch.int64), **state}
        if {name: value.shape for name, value in given.items()} != needed:
            shapes = {name: list(value.shape) for name, value in given.items()}
            raise UsageError(f"the state has {shapes}; needed: { ({name: list(s) for name, s in needed.items()}) }")
        seen = []
        for env, qpos, qvel, elapsed in zip(envs, *(given[k].cpu() for k in ("qpos", "qvel", "elapsed")), strict=True):
            env.unwrapped.set_state(qpos.double().numpy(), qvel.double().numpy())
            env.set_wrapper_attr("_elapsed_steps", int(elapsed))
            seen.append(env.unwrapped._get_obs())
        return self._tensor(np.stack(seen))

    def close(self) -> None:
        """End the environments and their processes."""
        self._env.close()

    def _simulations(self) -> list[Any]:
        envs = [] if self.task.asynchronous else self._env.envs
        if not envs or not all(hasattr(env.unwrapped, "set_state") for env in envs):
            raise UsageError(
                f"{self.task.registered_id} cannot be set to a state here: that needs a MuJoCo environment and "
                "asynchronous=false. The tasks maze, pendulum and cartpole can"
            )
        return list(envs)

    def _array(self, action: Tensor) -> np.ndarray:
        spaces = gymnasium_module().spaces
        own = self._env.single_action_space
        if isinstance(own, spaces.Discrete):
            check_discrete(action, self.num_envs, int(own.n))
            return action.cpu().numpy().astype(own.dtype) + own.start
        if isinstance(own, spaces.MultiDiscrete):
            size = len(self._space.nvec)
            if action.shape != (self.num_envs, size) or action.is_floating_point():
                raise UsageError(
                    f"actions of shape {list(action.shape)} and type {action.dtype}; "
                    f"needed: [{self.num_envs}, {size}] of whole numbers"
                )
            return action.cpu().numpy().reshape(self.num_envs, *own.shape).astype(own.dtype) + own.start
        check_continuous(action, self.num_envs, self._space.shape[0])
        return action.detach().cpu().numpy().reshape(self.num_envs, *own.shape).astype(own.dtype)

    def _tensor(self, observation: np.ndarray) -> Tensor:
        kept = observation if observation.dtype == np.uint8 else observation.astype(np.float32)
        return torch.from_numpy(kept.copy()).to(self.device)

    def _info(self, infos: Mapping[str, Any], done: np.ndarray) -> dict[str, Tensor]:
        """Infos of the step. Where an episode ended, Gymnasium gives those of the new one and hides these."""
        last = infos.get("final_info", {})
        found = {}
        for name in {*infos, *last} - {"final_obs", "final_info"}:
            if name.startswith("_"):
                continue
            values, present = infos.get(name), infos.get(f"_{name}", np.zeros(self.num_envs, dtype=bool)).copy()
            present[done] = False
            if name in last:
                values = np.zeros_like(last[name]) if values is None else np.array(values)
                values[done] = last[name][done]
                present[done] = last[f"_{name}"][done]
            if isinstance(values, np.ndarray) and values.dtype.kind in "biuf" and present.all():
                found[name] = torch.from_numpy(values.copy()).to(self.device)
        if "is_success" in found and "success" not in found:
            found["success"] = found["is_success"].bool()
        return found
