"""Logging episodes of any batch of environments as plain arrays, and policies made worse on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from braid.errors import UsageError
from braid.tasks.control.vector import Expert, Policy, State, VectorEnv

if TYPE_CHECKING:
    from gymnasium.spaces import Space


class Episode(TypedDict):
    """One logged episode of T steps, with one observation more than actions.

    Keys:
        observations: [T + 1, ...].
        actions: [T, A] float32, or [T] int64.
        rewards: [T] float32.
        terminated: [T] bool, True at most at the end.
        truncated: [T] bool, True at most at the end, where `terminated` is not.
        infos: named arrays [T, ...], of what each step led to.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    infos: dict[str, np.ndarray]


@torch.no_grad()
def collect_episodes(
    env: VectorEnv,
    policy: Policy,
    episodes: int,
    seed: int,
    *,
    start: State | None = None,
    annotate: Callable[[], Mapping[str, Tensor]] | None = None,
) -> list[Episode]:
    """Whole episodes of a policy. Each environment gives an equal share, so that short episodes are not preferred.

    Args:
        env: N environments; it is reset.
        policy: observations [N, ...] -> actions.
        episodes: how many, at least 1.
        seed: of the environments.
        start: state of the first episodes, as `reset_to` takes it.
        annotate: called after each action for more infos, each [N, ...].

    Returns:
        The episodes, those of the first environment first.

    Raises:
        UsageError: fewer than one episode.
    """
    if episodes < 1:
        raise UsageError(f"episodes={episodes} collects nothing; use at least 1")
    share, rest = divmod(episodes, env.num_envs)
    quota = share + (np.arange(env.num_envs) < rest)
    ended = np.zeros(env.num_envs, dtype=np.int64)
    observation = env.reset(seed)
    if start is not None:
        observation = env.reset_to(start)
    steps: list[dict[str, Tensor]] = []
    infos: list[dict[str, Tensor]] = []
    while (ended < quota).any():
        action = policy(observation)
        extra = annotate() if annotate is not None else {}
        infos.append({name: value.cpu() for name, value in extra.items()})
        result = env.step(action)
        infos[-1].update((name, value.cpu()) for name, value in result.info.items())
        row = {"observations": observation, "final": result.final_observation, "actions": action}
        row |= {"rewards": result.reward, "terminated": result.terminated, "truncated": result.truncated}
        steps.append({name: value.cpu() for name, value in row.items()})
        ended += result.done.cpu().numpy()
        observation = result.observation
    return _cut(_stacked(steps), _stacked(infos), quota)


def _stacked(rows: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """What all rows have, as arrays [steps, N, ...]."""
    names = set.intersection(*map(set, rows))
    return {name: torch.stack([row[name] for row in rows]).numpy() for name in sorted(names)}


def _cut(steps: dict[str, np.ndarray], infos: dict[str, np.ndarray], quota: np.ndarray) -> list[Episode]:
    found = []
    for row, count in enumerate(quota):
        ends = np.flatnonzero(steps["terminated"][:, row] | steps["truncated"][:, row])[:count] + 1
        for begin, end in zip([0, *ends[:-1]], ends, strict=True):
            span = (slice(begin, end), row)
            found.append(
                Episode(
                    observations=np.concatenate([steps["observations"][span], steps["final"][end - 1, row][None]]),
                    actions=steps["actions"][span],
                    rewards=steps["rewards"][span],
                    terminated=steps["terminated"][span],
                    truncated=steps["truncated"][span],
                    infos={name: values[span] for name, values in infos.items()},
                )
            )
    return found


def shortened(episode: Episode, steps: int) -> Episode:
    """The first `steps` steps of an episode; if that leaves steps out, the last one left is truncated.

    Raises:
        UsageError: fewer than one step.
    """
    length = len(episode["rewards"])
    if steps < 1:
        raise UsageError(f"steps={steps} leaves nothing of an episode; use at least 1")
    if steps >= length:
        return episode
    truncated = np.zeros(steps, dtype=bool)
    truncated[-1] = True
    return Episode(
        observations=episode["observations"][: steps + 1],
        actions=episode["actions"][:steps],
        rewards=episode["rewards"][:steps],
        terminated=episode["terminated"][:steps],
        truncated=truncated,
        infos={name: values[:steps] for name, values in episode["infos"].items()},
    )


def expert_policy(env: VectorEnv, expert: Expert) -> Policy:
    """An expert as a policy of the environments whose state it looks at."""
    return lambda _: expert(env.state())


def random_actions(space: Space, count: int, generator: torch.Generator) -> Tensor:
    """Uniform actions of a space; standard normal along directions without bounds.

    Args:
        space: Box, Discrete or MultiDiscrete.
        count: how many, N.
        generator: on its device the actions are made.

    Returns:
        [N, A] float32, [N] int64 from 0 (Discrete), or [N, A] int64 (MultiDiscrete).

    Raises:
        UsageError: another kind of space.
    """
    from gymnasium import spaces

    device = generator.device
    if isinstance(space, spaces.Discrete):
        return torch.randint(int(space.n), (count,), generator=generator, device=device)
    if isinstance(space, spaces.MultiDiscrete):
        columns = [torch.randint(int(n), (count,), generator=generator, device=device) for n in space.nvec.reshape(-1)]
        return torch.stack(columns, -1)
    if isinstance(space, spaces.Box):
        low, high = (torch.as_tensor(bound, dtype=torch.float32).reshape(-1) for bound in (space.low, space.high))
        low, high = low.to(device), high.to(device)
        drawn = torch.rand(count, len(low), generator=generator, device=device)
        bounded = low.isfinite() & high.isfinite()
        if bounded.all():
            return low + (high - low) * drawn
        normal = torch.randn(count, len(low), generator=generator, device=device)
        uniform = low + torch.where(bounded, high - low, 0) * drawn
        return torch.where(bounded, uniform, torch.minimum(torch.maximum(normal, low), high))
    raise UsageError(f"no random actions for the space {space}; supported: Box, Discrete, MultiDiscrete")


def random_policy(space: Space, generator: torch.Generator) -> Policy:
    """Uniformly random actions, whatever is observed."""
    return lambda observation: random_actions(space, len(observation), generator)


def noisy_policy(policy: Policy, space: Space, generator: torch.Generator, epsilon: float, noise: float) -> Policy:
    """A policy made worse: now and then a uniformly random action, else Gaussian noise, clipped to the bounds.

    Args:
        policy: the better one.
        space: of its actions; Box is the only one to which noise is added.
        generator: of the randomness.
        epsilon: chance of a random action, in [0, 1].
        noise: standard deviation, at least 0, as a share of half the range of an action.

    Raises:
        UsageError: a value out of range, or noise on actions that are not bounded and continuous.
    """
    from gymnasium import spaces

    if not 0 <= epsilon <= 1:
        raise UsageError(f"epsilon={epsilon} must be at least 0 and at most 1")
    if not 0 <= noise < float("inf"):
        raise UsageError(f"noise={noise} must be at least 0")
    bounds: Any = (space.low, space.high) if isinstance(space, spaces.Box) else ()
    if noise and not (bounds and np.isfinite(bounds).all()):
        raise UsageError(f"noise={noise} needs continuous actions with bounds, not {space}; use epsilon")

    def act(observation: Tensor) -> Tensor:
        action = policy(observation)
        if noise:
            low, high = (torch.as_tensor(bound).reshape(-1).to(action) for bound in bounds)
            drawn = torch.randn(action.shape, generator=generator, device=action.device)
            action = torch.minimum(torch.maximum(action + noise * (high - low) / 2 * drawn, low), high)
        if epsilon:
            chance = torch.rand(len(action), generator=generator, device=action.device) < epsilon
            other = random_actions(space, len(action), generator)
            action = torch.where(chance.reshape(-1, *[1] * (action.ndim - 1)), other, action)
        return action

    return act
