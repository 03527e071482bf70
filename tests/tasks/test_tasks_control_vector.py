"""The spine of batched environments, logging of episodes, and policies made worse."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from braid.errors import UsageError
from braid.tasks.control.episodes import collect_episodes, noisy_policy, random_actions, random_policy, shortened
from braid.tasks.control.vector import BatchedEnv, check_continuous, check_discrete


class Counter(BatchedEnv):
    """Counts up by the action from a random start below 1; terminates at `end`."""

    def __init__(self, num_envs: int = 3, horizon: int = 4, end: float = 100.0) -> None:
        super().__init__(num_envs, horizon, seed=0, device="cpu")
        self.end = end

    def _begin(self, count: int) -> dict[str, Tensor]:
        return {"total": self._uniform(count)}

    def _observe(self, state: Mapping[str, Tensor]) -> Tensor:
        return state["total"][:, None].clone()

    def _check_action(self, action: Tensor) -> None:
        check_continuous(action, self.num_envs, 1)

    def _advance(
        self, state: Mapping[str, Tensor], action: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, Tensor, dict[str, Tensor]]:
        total = state["total"] + action[:, 0]
        return {"total": total}, action[:, 0], total >= self.end, {"total": total}


def test_a_timeout_is_not_a_terminal_and_its_observation_is_kept() -> None:
    env = Counter(horizon=2)
    first = env.reset()
    one = torch.ones(3, 1)
    middle = env.step(one)
    assert torch.equal(middle.observation, first + 1)
    assert torch.equal(middle.final_observation, middle.observation)
    assert not middle.done.any()
    last = env.step(one)
    assert torch.equal(last.final_observation, first + 2)
    assert bool((last.observation < 1).all())  # a new episode
    assert last.truncated.all()
    assert not last.terminated.any()
    assert not env.step(one).done.any()


def test_an_end_at_the_time_limit_is_an_end_and_other_environments_go_on() -> None:
    env = Counter(num_envs=2, horizon=1, end=5.0)
    env.reset()
    result = env.step(torch.tensor([[6.0], [1.0]]))
    assert result.terminated.tolist() == [True, False]
    assert result.truncated.tolist() == [False, True]
    env = Counter(num_envs=2, horizon=9, end=5.0)
    start = env.reset()
    result = env.step(torch.tensor([[6.0], [1.0]]))
    assert result.done.tolist() == [True, False]
    assert float(result.observation[0]) < 1
    assert float(result.final_observation[0]) == pytest.approx(float(start[0]) + 6)
    assert torch.equal(result.observation[1], start[1] + 1)


def test_what_follows_depends_only_on_the_seed_and_on_the_state() -> None:
    env, other = Counter(), Counter()
    assert torch.equal(env.reset(seed=5), other.reset(seed=5))
    assert not torch.equal(env.reset(seed=6), other.reset(seed=5))
    one = torch.ones(3, 1)
    env.step(one)
    saved = env.state()
    after = [env.step(one).observation for _ in range(9)]
    assert torch.equal(other.reset_to(saved), saved["total"][:, None])
    assert all(torch.equal(other.step(one).observation, seen) for seen in after)
    env.reset_to(saved)
    assert all(torch.equal(env.step(one).observation, seen) for seen in after)


def test_a_part_of_a_state_begins_the_time_anew() -> None:
    env = Counter(horizon=2)
    env.reset()
    env.step(torch.ones(3, 1))
    assert env.reset_to({"total": torch.tensor([7.0, 8.0, 9.0])}).tolist() == [[7.0], [8.0], [9.0]]
    assert not env.step(torch.ones(3, 1)).done.any()
    assert env.step(torch.ones(3, 1)).truncated.all()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"totl": torch.zeros(3)}, r"unknown entry of the state 'totl'; did you mean total\?"),
        ({"total": torch.zeros(2)}, r"total has shape \[2\]; needed: \[3\]"),
    ],
)
def test_wrong_states_are_named(state: dict[str, Tensor], message: str) -> None:
    env = Counter()
    env.reset()
    with pytest.raises(UsageError, match=message):
        env.reset_to(state)


def test_wrong_use_is_named() -> None:
    with pytest.raises(UsageError, match="num_envs=0"):
        Counter(num_envs=0)
    with pytest.raises(UsageError, match="call reset"):
        Counter().step(torch.zeros(3, 1))
    with pytest.raises(UsageError, match=r"shape \[3\].*needed: \[3, 1\]"):
        check_continuous(torch.zeros(3), 3, 1)
    with pytest.raises(UsageError, match="environment 1 is nan"):
        check_continuous(torch.tensor([[0.0], [float("nan")]]), 2, 1)
    with pytest.raises(UsageError, match="environment 1 is 2; actions are 0 to 1"):
        check_discrete(torch.tensor([0, 2]), 2, 2)
    with pytest.raises(UsageError, match="whole numbers"):
        check_discrete(torch.tensor([0.0, 1.0]), 2, 2)


def test_episodes_have_one_observation_more_than_actions_and_the_true_last_one() -> None:
    env = Counter(num_envs=2, horizon=3)
    episodes = collect_episodes(env, lambda seen: torch.ones(len(seen), 1), 5, seed=1)
    assert len(episodes) == 5  # three of the first environment, two of the second
    for episode in episodes:
        assert episode["observations"].shape == (4, 1)
        steps = np.diff(episode["observations"][:, 0])
        assert steps == pytest.approx(np.ones(3))
        assert episode["rewards"].tolist() == [1, 1, 1]
        assert episode["truncated"].tolist() == [False, False, True]
        assert not episode["terminated"].any()
        assert episode["infos"]["total"].tolist() == episode["observations"][1:, 0].tolist()
    assert len({float(episode["observations"][0, 0]) for episode in episodes}) == 5


def test_collected_episodes_of_different_lengths_are_not_biased_to_short_ones() -> None:
    # an action of 1 reaches 3 in three steps; the second environment never moves
    env = Counter(num_envs=2, horizon=10, end=3.0)
    still = torch.tensor([[1.0], [0.0]])
    episodes = collect_episodes(env, lambda seen: still, 6, seed=0)
    lengths = [len(episode["rewards"]) for episode in episodes]
    assert lengths == [3, 3, 3, 10, 10, 10]
    assert [bool(episode["terminated"][-1]) for episode in episodes] == [True] * 3 + [False] * 3


def test_shortened_episodes_end_by_truncation() -> None:
    env = Counter(num_envs=1, horizon=3)
    (episode,) = collect_episodes(env, lambda seen: torch.ones(1, 1), 1, seed=1)
    short = shortened(episode, 2)
    assert len(short["observations"]) == 3
    assert short["truncated"].tolist() == [False, True]
    assert shortened(episode, 3) is episode
    with pytest.raises(UsageError, match="steps=0"):
        shortened(episode, 0)


def test_random_actions_fill_their_space() -> None:
    spaces = pytest.importorskip("gymnasium").spaces
    generator = torch.Generator().manual_seed(0)
    low, high = np.array([-2.0, 0.0], dtype="f4"), np.array([-1.0, 4.0], dtype="f4")
    box = random_actions(spaces.Box(low, high), 4000, generator)
    assert box.mean(0).tolist() == pytest.approx([-1.5, 2.0], abs=0.1)
    assert bool((box >= torch.from_numpy(low)).all())
    assert bool((box <= torch.from_numpy(high)).all())
    assert random_actions(spaces.Discrete(3), 200, generator).unique().tolist() == [0, 1, 2]
    several = random_actions(spaces.MultiDiscrete([2, 4]), 200, generator)
    assert several.amax(0).tolist() == [1, 3]
    half = random_actions(spaces.Box(np.float32(0), np.float32(np.inf), (1,)), 100, generator)
    assert bool((half >= 0).all())
    with pytest.raises(UsageError, match="supported: Box"):
        random_actions(spaces.Dict(a=spaces.Discrete(2)), 1, generator)


def test_noisy_policies_take_the_stated_share_of_random_actions() -> None:
    spaces = pytest.importorskip("gymnasium").spaces
    seen = torch.zeros(10_000, 1)
    generator = torch.Generator().manual_seed(0)
    always_two = noisy_policy(lambda x: torch.full((len(x),), 2), spaces.Discrete(4), generator, 0.4, 0.0)
    assert float((always_two(seen) == 2).float().mean()) == pytest.approx(0.6 + 0.4 / 4, abs=0.02)
    middle = noisy_policy(lambda x: torch.zeros(len(x), 1), spaces.Box(-2, 2, (1,)), generator, 0.0, 0.25)
    assert float(middle(seen).std()) == pytest.approx(0.5, abs=0.02)
    edge = noisy_policy(lambda x: torch.full((len(x), 1), 2.0), spaces.Box(-2, 2, (1,)), generator, 0.0, 0.25)
    assert float((edge(seen) == 2).float().mean()) == pytest.approx(0.5, abs=0.02)
    with pytest.raises(UsageError, match="epsilon=2"):
        noisy_policy(edge, spaces.Discrete(4), generator, 2, 0.0)
    with pytest.raises(UsageError, match="use epsilon"):
        noisy_policy(edge, spaces.Discrete(4), generator, 0.1, 0.1)
    assert random_policy(spaces.Discrete(4), generator)(seen).shape == (10_000,)
