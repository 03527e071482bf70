"""Episodes: what a step becomes, what is refused, and which views of them agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.data.control_arrays import ResidentLimit, in_folder, release
from braid.data.control_joining import concatenate, join_episodes
from braid.data.control_windows import iterate_windows, windows
from braid.data.episodes import Episodes
from braid.errors import DataError, UsageError


def make(sizes: list[int], seen: list[bool] | None = None, **changes: Any) -> Episodes:
    """Episodes whose observation is 100 * episode + step; even episodes terminate, odd ones are truncated."""
    known = seen or [True] * len(sizes)
    rows = [100 * e + t for e, (n, k) in enumerate(zip(sizes, known, strict=True)) for t in range(n + k)]
    steps = sum(sizes)
    last = np.cumsum(sizes) - 1
    terminated, truncated = np.zeros(steps, bool), np.zeros(steps, bool)
    terminated[last[::2]], truncated[last[1::2]] = True, True
    fields: dict[str, Any] = {
        "observations": np.array(rows, np.float32)[:, None],
        "actions": np.arange(steps, dtype=np.float32)[:, None] / 100,
        "rewards": np.arange(1.0, steps + 1),
        "terminated": terminated,
        "truncated": truncated,
        "lengths": sizes,
        "final_known": known,
    }
    return Episodes(**{**fields, **changes})


def test_a_step_becomes_a_transition() -> None:
    batch = make([2, 3]).transitions([0, 1, 4])
    assert batch.observation.flatten().tolist() == [0.0, 1.0, 102.0]
    assert batch.next_observation.flatten().tolist() == [1.0, 2.0, 103.0]
    assert batch.terminated.tolist() == [False, True, False]
    assert batch.truncated.tolist() == [False, False, True]
    assert batch.reward.tolist() == [1.0, 2.0, 5.0]
    torch.testing.assert_close(batch.action, torch.tensor([[0.0], [0.01], [0.04]]))
    assert (batch.observation.dtype, batch.reward.dtype) == (torch.float32, torch.float32)
    assert batch.behaviour_log_prob is None
    assert batch.action_mask is None
    assert len(batch) == 3
    assert batch[1:].reward.tolist() == [2.0, 5.0]


def test_discrete_actions_masks_and_log_probs_keep_their_types() -> None:
    episodes = make(
        [2, 2],
        observations=np.arange(6, dtype=np.int32),
        actions=np.array([0, 1, 2, 0], np.int32),
        behaviour_log_prob=np.log([0.5, 0.25, 0.125, 1.0]),
        action_mask=np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], bool),
    )
    batch = episodes.transitions(torch.tensor([2]))
    assert (batch.action.dtype, batch.observation.dtype) == (torch.int64, torch.int64)
    assert batch.action.tolist() == [2]
    assert batch.behaviour_log_prob is not None
    assert batch.behaviour_log_prob.item() == pytest.approx(-2.0794415)
    assert batch.action_mask is not None
    assert batch.action_mask.tolist() == [[False, False, True]]
    images = make([2, 2], observations=np.zeros((6, 4, 4, 3), np.uint8)).transitions([0]).observation
    assert (images.dtype, images.shape) == (torch.uint8, (1, 4, 4, 3))


def test_an_unknown_final_observation_is_never_invented() -> None:
    episodes = make([2, 2, 2], [False, False, True])
    assert episodes.usable_steps().tolist() == [0, 1, 2, 4, 5]
    assert episodes.usable_steps(require_next_observation=True).tolist() == [0, 2, 4, 5]
    batch = episodes.transitions([1, 2, 5])
    assert batch.next_observation.flatten().tolist() == [1.0, 101.0, 202.0]  # row 0: its own, as nothing follows
    assert batch.terminated.tolist() == [True, False, True]
    with pytest.raises(DataError, match=r"after step 1 of episode 1 is not known.*usable_steps"):
        episodes.transitions([0, 3])


def test_leaving_out_unknown_successors_keeps_all_other_transitions() -> None:
    episodes = make([2, 3, 1, 1], [False, False, True, False], infos={"x": np.arange(7)})
    shorter = episodes.without_unknown_successors()
    assert shorter.lengths.tolist() == [2, 2, 1]
    assert shorter.truncated.tolist() == [False, False, False, True, False]
    assert shorter.final_known.tolist() == [False, True, True]
    before, after = episodes.transitions(episodes.usable_steps()), shorter.transitions(shorter.usable_steps())
    for name in ("observation", "action", "reward", "next_observation", "terminated"):
        torch.testing.assert_close(getattr(before, name), getattr(after, name))
    assert shorter.infos["x"].tolist() == [0, 1, 2, 3, 5]
    assert shorter.usable_steps().tolist() == [0, 1, 2, 3, 4]
    complete = make([2, 2])
    assert complete.without_unknown_successors() is complete
    with pytest.raises(DataError, match="no step is left"):
        make([1], [False], terminated=np.array([False]), truncated=np.array([True])).without_unknown_successors()


def test_an_unfinished_episode_is_cut_but_not_finished() -> None:
    episodes = make([2, 2], truncated=np.zeros(4, bool))
    assert episodes.finished.tolist() == [True, False]
    assert episodes.transitions([1, 3]).truncated.tolist() == [False, True]


def test_returns_and_rewards_to_go() -> None:
    episodes = make([3, 1, 2])
    assert episodes.returns.tolist() == [6.0, 4.0, 11.0]
    assert episodes.rewards_to_go().tolist() == [6.0, 5.0, 3.0, 4.0, 11.0, 6.0]
    assert episodes.rewards_to_go(0.5).tolist() == [2.75, 3.5, 3.0, 4.0, 8.0, 6.0]
    assert episodes.rewards_to_go(0.0).tolist() == episodes.rewards.tolist()
    with pytest.raises(UsageError, match=r"discount=1\.5"):
        episodes.rewards_to_go(1.5)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_rewards_to_go_is_the_sum_over_the_rest(lengths: list[int], discount: float) -> None:
    episodes = make(lengths)
    expected = [
        sum(discount**k * float(reward) for k, reward in enumerate(episode.rewards[t:]))
        for episode in episodes
        for t in range(len(episode))
    ]
    np.testing.assert_allclose(episodes.rewards_to_go(discount), expected, rtol=1e-12)


def test_single_episodes_are_views() -> None:
    episodes = make([2, 3], [False, True], infos={"x": np.arange(5), "y": np.arange(6)})
    assert len(episodes) == 2
    assert episodes.num_steps == 5
    first, second = episodes
    assert (len(first), len(second)) == (2, 3)
    assert first.observations.flatten().tolist() == [0.0, 1.0]
    assert second.observations.flatten().tolist() == [100.0, 101.0, 102.0, 103.0]
    assert (second.infos["x"].tolist(), second.infos["y"].tolist()) == ([2, 3, 4], [2, 3, 4, 5])
    assert np.shares_memory(second.rewards, episodes.rewards)
    assert episodes.episode(-1).rewards.tolist() == second.rewards.tolist()
    with pytest.raises(UsageError, match="episode 2 is not there"):
        episodes.episode(2)


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_subset_and_concatenation_agree_with_the_episodes(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=6))
    known = data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=6))
    episodes = make(lengths, known)
    part = episodes.subset(chosen)
    for index, episode in zip(chosen, part, strict=True):
        original = episodes.episode(index)
        for name in ("observations", "actions", "rewards", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(episode, name), getattr(original, name))
    joined = concatenate([episodes.subset([index]) for index in chosen])
    np.testing.assert_array_equal(joined.observations, part.observations)
    np.testing.assert_array_equal(joined.lengths, part.lengths)
    np.testing.assert_array_equal(joined.final_known, part.final_known)
    usable = part.usable_steps()
    if len(usable):
        batch = part.transitions(usable)
        moved = (batch.next_observation - batch.observation).flatten()
        assert moved[~batch.terminated].eq(1).all()


def test_subset_by_booleans_and_what_it_refuses() -> None:
    episodes = make([1, 2, 3])
    assert episodes.subset(np.array([True, False, True])).lengths.tolist() == [1, 3]
    assert np.shares_memory(episodes.subset([1, 2]).rewards, episodes.rewards)
    for wrong in ([], [3], [-1], [0.5]):
        with pytest.raises(UsageError):
            episodes.subset(wrong)  # type: ignore[arg-type]


def test_concatenation_keeps_what_all_parts_share(tmp_path: Any) -> None:
    one = make([2], attributes={"environment": "a", "seed": 1}, infos={"x": np.arange(2), "y": np.arange(3)})
    two = make([1], [False], attributes={"environment": "a", "seed": 2}, infos={"x": np.arange(1), "y": np.arange(1)})
    joined = concatenate([one, two], in_folder(tmp_path))
    assert isinstance(joined.observations, np.memmap)
    assert joined.attributes == {"environment": "a"}
    assert joined.infos["x"].tolist() == [0, 1, 0]
    assert joined.infos["y"].tolist() == [0, 1, 2, 0]
    assert joined.final_known.tolist() == [True, False]
    assert "z" not in concatenate([make([1], infos={"z": np.arange(1)}), one]).infos
    with pytest.raises(UsageError, match=r"observations of .* cannot be joined"):
        concatenate([one, make([1], observations=np.zeros((2, 7), np.float32))])
    whole = {"actions": np.zeros(1, np.int64)}
    with pytest.raises(UsageError, match=r"action_mask of .* cannot be joined"):
        concatenate([make([1], action_mask=np.ones((1, k), bool), **whole) for k in (2, 3)])
    with pytest.raises(UsageError, match="no episodes"):
        concatenate([])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rewards": np.ones(4)}, "rewards has 4 rows, the episodes have 5 steps"),
        ({"observations": np.zeros((9, 1))}, "observations has 9 rows, but 5 steps and 2 known final"),
        ({"final_known": None, "observations": np.zeros((6, 1))}, "say which with final_known"),
        ({"final_known": [True]}, "final_known must have a value for each of 2"),
        ({"lengths": [5, 0]}, "episode 1 has 0 steps"),
        ({"lengths": []}, "lengths must be a row of whole numbers"),
        ({"infos": {"qpos": np.zeros(3)}}, r"infos\['qpos'\] has 3 rows; give 5"),
        ({"rewards": np.array([1, 2, np.nan, 4, 5])}, r"rewards of episode 1, step 0 \(row 2\) is nan"),
        ({"rewards": np.ones((5, 1))}, "rewards has the shape"),
        ({"actions": np.zeros(5)}, "actions have the shape"),
        ({"actions": np.full((5, 2), np.inf)}, "actions of episode 0, step 0 .*component 0 is inf"),
        ({"observations": np.array([["a"]] * 7)}, "give numbers"),
        ({"terminated": np.array([1, 0, 0, 0, 0], bool)}, "episode 0 is terminated at step 0, but has 2 steps"),
        ({"truncated": np.array([0, 0, 1, 0, 0], bool)}, "episode 1 is truncated at step 0, but has 3 steps"),
        ({"truncated": np.zeros(5)}, "truncated has the shape .* give booleans"),
        ({"behaviour_log_prob": np.full(5, -np.inf)}, "behaviour_log_prob of episode 0, step 0"),
        ({"action_mask": np.ones((5, 2), bool)}, "needs whole-number actions"),
        (
            {"actions": np.array([0, 1, 0, 1, 0]), "action_mask": np.array([[1, 1], [1, 0]] + 3 * [[1, 1]], bool)},
            r"action 1 of episode 0, step 1 \(row 1\) is forbidden",
        ),
        ({"actions": np.array([0, 1, 2, 1, 0]), "action_mask": np.ones((5, 2), bool)}, "action 2 of episode 1, step 0"),
    ],
)
def test_faults_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        make([2, 3], **changes)


def test_a_bad_observation_is_named_by_episode_and_step() -> None:
    observations = np.zeros((7, 2))
    observations[6, 1] = np.nan
    with pytest.raises(DataError, match=r"episode 1, step 3, its final observation \(row 6\), component 1 is nan"):
        make([2, 3], observations=observations)
    observations[6, 1], observations[4, 0] = 0.0, -np.inf
    with pytest.raises(DataError, match=r"episode 1, step 1 \(row 4\), component 0 is -inf"):
        make([2, 3], observations=observations)


def test_actions_outside_their_space_are_named() -> None:
    spaces = pytest.importorskip("gymnasium.spaces")
    box = spaces.Box(-1, 1, (1,), np.float32)
    assert make([2, 3], action_space=box).action_space == box
    with pytest.raises(DataError, match=r"action \[1\.5\] of episode 1, step 2 \(row 4\) is outside Box"):
        make([2, 3], actions=np.array([[0], [1], [-1], [0], [1.5]], np.float32), action_space=box)
    whole = np.array([1, 2, 3, 2, 0])
    with pytest.raises(DataError, match=r"action 0 of episode 1, step 2 .* is outside Discrete\(3, start=1\)"):
        make([2, 3], actions=whole, action_space=spaces.Discrete(3, start=1))
    with pytest.raises(DataError, match="are none of Box"):
        make([2, 3], actions=np.zeros((5, 2), np.float32), action_space=box)
    with pytest.raises(UsageError, match="is a MultiBinary"):
        make([2, 3], action_space=spaces.MultiBinary(2))
    masked = {"actions": np.array([1, 2, 1, 1, 2]), "action_space": spaces.Discrete(2, start=1)}
    allowed = np.array([[1, 0], [0, 1], [1, 0], [1, 1], [0, 1]], bool)
    assert make([2, 3], action_mask=allowed, **masked).action_mask is allowed  # column 0 is action 1
    with pytest.raises(DataError, match="forbidden"):
        make([2, 3], action_mask=~allowed, **masked)


def test_steps_that_are_not_there() -> None:
    with pytest.raises(UsageError, match="step 5 is not there: there are 5"):
        make([2, 3]).transitions([0, 5])
    with pytest.raises(UsageError, match="whole numbers"):
        make([2, 3]).transitions(np.array([0.5]))
    assert len(make([2, 3]).transitions(np.array([], np.int64))) == 0


def test_windows_are_padded_on_the_left_and_stay_in_their_episode() -> None:
    batch = windows(make([2, 3], [False, True]), [1, 2, 4], 3)
    assert batch.observation[..., 0].tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 100.0], [100.0, 101.0, 102.0]]
    assert batch.mask.tolist() == [[False, True, True], [False, False, True], [True, True, True]]
    assert batch.time_step.tolist() == [[0, 0, 1], [0, 0, 0], [0, 1, 2]]
    assert batch.step.tolist() == [[0, 0, 1], [0, 0, 2], [2, 3, 4]]
    assert batch.reward.tolist() == [[0.0, 1.0, 2.0], [0.0, 0.0, 3.0], [3.0, 4.0, 5.0]]
    assert batch.terminated.tolist() == [[False, False, True], [False] * 3, [False] * 3]
    assert batch.truncated.tolist() == [[False] * 3, [False] * 3, [False, False, True]]
    with pytest.raises(UsageError, match="length=0"):
        windows(make([2]), [0], 0)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_windows_with_stride_of_their_length_cover_each_step_once(lengths: list[int], length: int, batch: int) -> None:
    episodes = make(lengths)
    generator = np.random.default_rng(0)
    drawn = list(iterate_windows(episodes, length, batch_size=batch, stride=length, generator=generator))
    steps = torch.cat([window.step[window.mask] for window in drawn])
    assert sorted(steps.tolist()) == list(range(sum(lengths)))
    assert all(len(window) == batch for window in drawn[:-1])
    every = list(iterate_windows(episodes, length, batch_size=batch))
    assert torch.cat([window.step[:, -1] for window in every]).tolist() == list(range(sum(lengths)))


@pytest.mark.parametrize("name", ["length", "batch_size", "stride"])
def test_window_sizes_below_one_are_refused(name: str) -> None:
    options = {"length": 2, "batch_size": 2, "stride": 1, name: 0}
    with pytest.raises(UsageError, match=f"{name}=0"):
        iterate_windows(make([2]), **options)  # type: ignore[arg-type]


def test_episodes_recorded_elsewhere_are_joined() -> None:
    record = {
        "observations": [[0.0], [1.0], [2.0]],
        "actions": [1, 0],
        "rewards": [0, 1],
        "terminations": [False, True],
        "truncations": [False, False],
        "infos": {"x": [1, 2], "odd": ["a", "b"]},
    }
    other = {**record, "observations": [[5], [6]], "terminated": [False, False], "terminations": None, "infos": {}}
    episodes = join_episodes([record, other], attributes={"seed": 3})
    assert episodes.lengths.tolist() == [2, 2]
    assert episodes.final_known.tolist() == [True, False]
    assert episodes.observations.flatten().tolist() == [0.0, 1.0, 2.0, 5.0, 6.0]
    assert episodes.rewards.dtype == np.float64
    assert episodes.finished.tolist() == [True, False]
    assert episodes.attributes == {"seed": 3, "infos_left_out": ["odd", "x"]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rewards": None}, r"episode 1 has no 'rewards'; it holds: observations, actions"),
        ({"rewards": [1.0]}, r"episode 1 has 1 rewards but 2 actions"),
        ({"observations": [[0.0]]}, r"episode 1 has 1 observations for 2 steps; give 3"),
        ({"observations": [[0.0], [1.0, 2.0], [3.0]]}, r"observations of .*episode 1 makes no array"),
        ({"observations": np.zeros((3, 2))}, r"episode 1: observations of shape \(2,\)"),
        ({"behaviour_log_prob": [0.0, 0.0]}, r"episode 1 differs from episode 0 in having behaviour_log_prob"),
        ({"terminated": [True, False]}, r"episode 1 is terminated at step 0"),
    ],
)
def test_faults_of_single_episodes_are_named(change: dict[str, Any], words: str) -> None:
    good = {
        "observations": np.zeros((3, 1)),
        "actions": np.zeros(2, np.int64),
        "rewards": np.zeros(2),
        "terminated": [False, True],
        "truncated": [False, False],
    }
    with pytest.raises(DataError, match=words):
        join_episodes([good, {**good, **change}])
    with pytest.raises(DataError, match="no episode"):
        join_episodes([])


def test_memory_maps_are_released_without_losing_anything(tmp_path: Any) -> None:
    array = in_folder(tmp_path)("deep/x", (1000, 3), np.float64)
    array[:] = np.arange(3000.0).reshape(1000, 3)
    release(array, None, np.zeros(3))
    assert array[999].tolist() == [2997.0, 2998.0, 2999.0]
    assert np.load(tmp_path / "deep" / "x.npy")[1].tolist() == [3.0, 4.0, 5.0]
    limit = ResidentLimit(limit=20_000)  # the array has 24,000 bytes, one row makes all of them resident
    limit.after(1, np.zeros(9999), None)
    assert limit.rows == 1
    limit.after(1, array)
    assert limit.rows == 0
    assert array[999].tolist() == [2997.0, 2998.0, 2999.0]
