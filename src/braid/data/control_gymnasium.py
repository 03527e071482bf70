"""Episodes from stepping a Gymnasium environment with a policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from braid.data.control_arrays import Array
from braid.data.control_joining import join_episodes
from braid.data.episodes import Episode, Episodes
from braid.errors import DataError, MissingExtra, UsageError

if TYPE_CHECKING:
    import gymnasium


class Decision(NamedTuple):
    """An action with its log-probability (density) under the policy that took it."""

    action: Any
    log_prob: float


Act = Callable[[Any, Mapping[str, Any], np.random.Generator], Any]
"""(observation, info of the environment, generator) -> an action of the environment, or a `Decision`."""


def collect(
    environment: gymnasium.Env[Any, Any] | str,
    act: Act,
    *,
    seed: int,
    episodes: int | None = None,
    steps: int | None = None,
    observation_keys: Sequence[str] | None = None,
    info_keys: Sequence[str] = (),
    attributes: Mapping[str, Any] | None = None,
) -> Episodes:
    """Steps an environment with a policy; a time limit of the environment truncates, the end of the world terminates.

    An info `action_mask` of the environment (ones where an action is allowed) is kept as the mask of the step that
    follows it. The result depends on the seed alone if environment and policy draw from what they are given.

    Args:
        environment: a Gymnasium environment, or the id of one, which is then closed at the end.
        act: the policy.
        seed: of the first reset and of the generator that the policy is given.
        episodes: stop after this many.
        steps: stop after this many; the last episode may then be unfinished.
        observation_keys: parts of a Dict observation that are put one after another into one vector, in this order.
        info_keys: numbers or arrays of the environment's infos that are kept.
        attributes: added to `environment`, `seed` and `policy` (the name of `act`).

    Raises:
        UsageError: neither or both of `episodes` and `steps`, one below 1, or an environment that cannot be made.
        DataError: an observation that is not finite, an action outside the space, Dict observations without
            `observation_keys`, or an info that is missing.
        MissingExtra: Gymnasium is not installed.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise MissingExtra("gymnasium", "control") from error
    if (episodes is None) == (steps is None):
        raise UsageError(f"episodes={episodes} and steps={steps} were given; give one of them")
    for name, value in (("episodes", episodes), ("steps", steps)):
        if value is not None and value < 1:
            raise UsageError(f"{name}={value} must be at least 1")
    if isinstance(environment, str):
        try:
            world: gymnasium.Env[Any, Any] = gymnasium.make(environment)
        except gymnasium.error.Error as error:
            raise UsageError(f"environment={environment!r} cannot be made: {error}") from error
    else:
        world = environment
    name = world.spec.id if world.spec is not None else type(world.unwrapped).__name__
    generator = np.random.default_rng(seed)
    recorded: list[Episode] = []
    left = steps
    try:
        while len(recorded) < (episodes or np.inf) and (left is None or left > 0):
            first_seed = None if recorded else seed
            recorder = _Recorder(world, observation_keys, info_keys, f"{name}: episode {len(recorded)}")
            recorded.append(recorder.run(act, generator, first_seed, left))
            left = None if left is None else left - len(recorded[-1])
    finally:
        if isinstance(environment, str):
            world.close()
    known = {"environment": name, "seed": seed, "policy": getattr(act, "__name__", type(act).__name__)}
    spaces = gymnasium.spaces
    return join_episodes(
        recorded,
        attributes={**known, **(attributes or {})},
        observation_space=world.observation_space if observation_keys is None else None,
        action_space=world.action_space if isinstance(world.action_space, spaces.Box | spaces.Discrete) else None,
        source=name,
    )


class _Recorder:
    """One episode while it happens."""

    def __init__(
        self, world: Any, observation_keys: Sequence[str] | None, info_keys: Sequence[str], place: str
    ) -> None:
        self.world, self.keys, self.info_keys, self.place = world, observation_keys, info_keys, place
        self.observations: list[Array] = []
        self.infos: list[Mapping[str, Any]] = []

    def run(self, act: Act, generator: np.random.Generator, seed: int | None, limit: int | None) -> Episode:
        """One episode from a reset to its end, or to `limit` steps."""
        observation, info = self.world.reset(seed=seed)
        self._see(observation, info)
        actions: list[Array] = []
        log_probs: list[float | None] = []
        rewards: list[float] = []
        terminated: list[bool] = []
        truncated: list[bool] = []
        while limit is None or len(rewards) < limit:
            choice = act(observation, info, generator)
            action = choice.action if isinstance(choice, Decision) else choice
            observation, reward, ended, cut, info = self.world.step(action)
            self._see(observation, info)
            actions.append(np.array(action))
            log_probs.append(float(choice.log_prob) if isinstance(choice, Decision) else None)
            rewards.append(float(reward))
            terminated.append(bool(ended))
            truncated.append(bool(cut))
            if ended or cut:
                break
        if any(value is None for value in log_probs) and any(value is not None for value in log_probs):
            raise DataError(f"{self.place}: the policy gave a log-probability for some steps only; give it for all")
        masked = all("action_mask" in info for info in self.infos[:-1])
        return Episode(
            observations=np.stack(self.observations),
            actions=np.stack(actions),
            rewards=np.array(rewards),
            terminated=np.array(terminated),
            truncated=np.array(truncated),
            behaviour_log_prob=None if log_probs[0] is None else np.array(log_probs, dtype=np.float64),
            action_mask=np.array([i["action_mask"] for i in self.infos[:-1]]).astype(np.bool_) if masked else None,
            infos={key: self._info(key) for key in self.info_keys},
        )

    def _see(self, observation: Any, info: Mapping[str, Any]) -> None:
        if isinstance(observation, Mapping):
            if not self.keys:
                raise DataError(
                    f"{self.place} has observations with the parts {', '.join(observation)}; name those to be put "
                    f"into one vector with observation_keys={tuple(observation)}"
                )
            missing = [key for key in self.keys if key not in observation]
            if missing:
                raise DataError(
                    f"{self.place} has no part {missing[0]!r} in its observations; there are: {', '.join(observation)}"
                )
            observation = np.concatenate([np.ravel(observation[key]) for key in self.keys])
        self.observations.append(np.array(observation))
        self.infos.append(info)

    def _info(self, key: str) -> Array:
        """A row per observation, or per step where the reset gives none."""
        infos = self.infos if key in self.infos[0] else self.infos[1:]
        missing = next((step for step, info in enumerate(infos) if key not in info), None)
        if missing is not None:
            raise DataError(f"{self.place}, step {missing}: info has no {key!r}; it has: {', '.join(infos[missing])}")
        return np.stack([np.asarray(info[key]) for info in infos])
