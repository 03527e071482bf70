"""Lite PPO: advantages of the card through credit, and the factors of its study."""

import pytest
import torch

from braid.methods.rlvr.grpo import GRPO
from braid.methods.rlvr.lite_ppo import LitePPO

REWARD, GROUP = [1, 1, 1, 0, 0, 0, 0, 0], [0] * 4 + [1] * 4


def advantage(method, batch, context):
    return method.credit(batch, context()).advantage[:, 2]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.483, 0.483, 0.483, -1.449, 0, 0, 0, 0]),
        ({"scale": "batch_centered"}, [0.764, 0.764, 0.764, -2.291, 0, 0, 0, 0]),
        ({"scale": "none"}, [0.25, 0.25, 0.25, -0.75, 0, 0, 0, 0]),
        ({"scale": "group"}, [0.5, 0.5, 0.5, -1.5, 0, 0, 0, 0]),
        ({"center": "batch", "scale": "none"}, [0.625] * 3 + [-0.375] * 5),
        ({"center": "batch"}, [1.208] * 3 + [-0.725] * 5),
        ({"center": "none", "scale": "none"}, REWARD),
        ({"center": "none"}, [1.932] * 3 + [0] * 5),
    ],
)
def test_centre_and_scale(options, expected, rows, context):
    found = advantage(LitePPO(**options), rows([1] * 8, REWARD, group=GROUP), context)
    assert found.tolist() == pytest.approx(expected, abs=1e-3)


def test_in_a_batch_of_one_group_it_is_grpo(rows, context):
    batch = rows([1] * 4, [1, 0, 0, 1])
    torch.testing.assert_close(advantage(LitePPO(), batch, context), advantage(GRPO(), batch, context))


def test_the_scale_of_the_reward_does_not_matter(rows, context):
    batch = rows([1] * 8, REWARD, group=GROUP)
    larger = batch.replace(reward=10 * batch.reward)
    torch.testing.assert_close(
        advantage(LitePPO(), larger, context), advantage(LitePPO(), batch, context), rtol=1e-5, atol=1e-5
    )


def test_a_constant_per_prompt_changes_the_scale_only(rows, context):
    """Rewards (11, 11, 11, 10, 0, 0, 0, 0) have the sample standard deviation 5.75388."""
    batch = rows([1] * 8, REWARD, group=GROUP, reward=[11, 11, 11, 10, 0, 0, 0, 0])
    spread = batch.reward.std().item()
    expected = [0.25 / spread] * 3 + [-0.75 / spread] + [0] * 4
    assert advantage(LitePPO(), batch, context).tolist() == pytest.approx(expected, rel=1e-4)


def test_a_uniform_batch_has_no_advantage(rows, context):
    assert advantage(LitePPO(), rows([1] * 8, [1] * 8, group=GROUP), context).abs().max() == 0


def test_responses_of_equal_length_make_both_aggregations_equal(rows, scores, gradient, context):
    batch = LitePPO().credit(rows([3, 3], [1, 0]), context())
    by_sequence = LitePPO(aggregation="seq-mean-token-mean")
    torch.testing.assert_close(gradient(LitePPO(), batch, scores(batch)), gradient(by_sequence, batch, scores(batch)))


def test_uniform_groups_stay_in_the_denominator(rows, scores, gradient, context):
    batch = LitePPO().credit(rows([1] * 4, [1, 0, 1, 1], group=[0, 0, 1, 1]), context())
    found = gradient(LitePPO(), batch, scores(batch)).flatten()
    torch.testing.assert_close(found, torch.tensor([-1.0, 1.0, 0.0, 0.0]) / 4, rtol=1e-4, atol=1e-6)
