"""RLOO, GSPO, DAPO, PPO and REINFORCE: the strand in which each differs, by hand."""

import math

import pytest
import torch
from tensordict import TensorDict

from braid.methods.rlvr.dapo import DAPO
from braid.methods.rlvr.gspo import GSPO
from braid.methods.rlvr.ppo import PPO
from braid.methods.rlvr.reinforce import REINFORCE
from braid.methods.rlvr.rloo import RLOO


def test_rloo_compares_with_the_others(rows, context):
    advantage = RLOO().credit(rows([1] * 4, [1, 0, 0, 0]), context()).advantage[:, 2]
    assert advantage.tolist() == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])


def test_rloo_has_one_ratio_per_response(rows, scores, gradient):
    """Two tokens with ratio 1.05 each: the product 1.1025 is inside the clip range, and 1.05^4 = 1.2155 is not."""
    batch = rows([2, 4], [1, 1]).replace(advantage=torch.ones(2, 6))
    found = gradient(RLOO(beta=0), batch, scores(batch, math.log(1.05) - 1.0))
    torch.testing.assert_close(found, torch.tensor([[-1.1025 / 2] * 2 + [0, 0], [0] * 4]))


def test_rloo_at_token_level_clips_token_by_token(rows, scores, gradient):
    batch = rows([2, 4], [1, 1]).replace(advantage=torch.ones(2, 6))
    method = RLOO(beta=0, ratio_level="token", aggregation="token-mean")
    found = gradient(method, batch, scores(batch, math.log(1.05) - 1.0))
    torch.testing.assert_close(found, -1.05 / 6 * batch.response_mask[:, 2:].float())


def test_rloo_puts_the_penalty_of_the_whole_response_into_the_reward(rows, context):
    batch = rows([1, 3], [1, 0])
    batch = batch.replace(reference_log_prob=-2.0 * batch.response_mask)
    judged = RLOO().feedback(batch, context())
    advantage = RLOO().credit(judged, context()).advantage[:, 2]
    assert advantage.tolist() == pytest.approx([1.1, -1.1])  # rewards 1 - 0.05 and 0 - 0.15


def test_gspo_has_the_geometric_mean_and_a_narrow_clip(rows, scores, gradient):
    batch = rows([2, 2], [1, 1]).replace(advantage=torch.tensor([[1.0] * 4, [-1.0] * 4]))
    log_prob = batch.behaviour_log_prob + torch.tensor([[0, 0, 4e-4, 2e-4], [0, 0, -1e-3, 0]])
    found = gradient(GSPO(), batch, scores(batch, log_prob))
    inside = -math.exp(3e-4) / 4  # ratio exp(3e-4) is below 1 + 4e-4; exp(-5e-4) is below 1 - 3e-4
    torch.testing.assert_close(found, torch.tensor([[inside, inside], [0, 0]]))


def test_gspo_on_policy_is_the_policy_gradient(rows, scores, gradient):
    batch = rows([1, 4], [1, 0]).replace(advantage=torch.tensor([[1.0] * 6, [-1.0] * 6]))
    found = gradient(GSPO(), batch, scores(batch))
    torch.testing.assert_close(found, torch.tensor([[-0.5, 0, 0, 0], [0.125] * 4]))


def test_dapo_filters_on_accuracy_not_on_the_shaped_reward(rows, context):
    """Group 0 is mixed in correctness with equal rewards; group 1 is all right with different rewards."""
    batch = rows([1, 1, 1, 1], [1, 0, 1, 1], group=[0, 0, 1, 1], reward=[0.5, 0.5, 1.0, 0.2])
    assert DAPO().select(batch, context()).group_id.tolist() == [0, 0]


def test_dapo_penalises_the_last_fifth_of_the_limit(rows, context):
    batch = rows([80, 90, 100], [1, 1, 1])
    judged = DAPO().feedback(batch, context(max_new_tokens=100))
    assert judged.reward.tolist() == pytest.approx([1.0, 0.5, 0.0])
    assert judged.terms["overlong"].tolist() == pytest.approx([0.0, -0.5, -1.0])
    assert judged.correct.all()
    assert DAPO(overlong_buffer=0.0).feedback(batch, context(max_new_tokens=100)).reward.tolist() == [1.0] * 3


def test_dapo_weighs_all_tokens_alike_and_clips_higher(rows, scores, gradient):
    batch = rows([1, 3], [1, 1]).replace(advantage=torch.ones(2, 5))
    torch.testing.assert_close(
        gradient(DAPO(), batch, scores(batch, math.log(1.25) - 1.0)), -1.25 / 4 * batch.response_mask[:, 2:].float()
    )
    assert gradient(DAPO(), batch, scores(batch, math.log(1.3) - 1.0)).abs().sum() == 0


def test_ppo_advantages_and_returns_by_hand(rows, context):
    """Reward 1 at the last of two tokens, values 0.5 and 0.25, lambda 0.5: deltas -0.25 and 0.75."""
    batch = rows([2, 1], [1, 0])
    critic = torch.tensor([[0, 0, 0.5, 0.25], [0, 0, 0.0, 9.0]])
    found = PPO(gae_lambda=0.5, whiten=False, beta=0).credit(batch, context(critic=critic))
    torch.testing.assert_close(found.advantage[:, 2:], torch.tensor([[0.125, 0.75], [0.0, 0.0]]))
    torch.testing.assert_close(found.returns[:, 2:], torch.tensor([[0.625, 1.0], [0.0, 0.0]]))


def test_ppo_whitens_advantages_but_not_returns(rows, context):
    batch = rows([2, 1], [1, 0])
    stub = context(critic=torch.zeros(2, 4))
    plain, white = PPO(whiten=False).credit(batch, stub), PPO().credit(batch, stub)
    torch.testing.assert_close(plain.returns, white.returns)
    valid = white.advantage[batch.response_mask]
    assert valid.mean().item() == pytest.approx(0, abs=1e-6)
    assert valid.std().item() == pytest.approx(1, abs=1e-5)
    assert (white.advantage[~batch.response_mask] == 0).all()


def test_ppo_gives_the_penalty_at_every_token(rows, context):
    batch = rows([3], [1])
    batch = batch.replace(reference_log_prob=-1.5 * batch.response_mask)
    judged = PPO(beta=0.2).feedback(batch, context())
    found = PPO(beta=0.2, gae_lambda=1.0, whiten=False).credit(judged, context(critic=torch.zeros(1, 5)))
    assert found.advantage[0, 2:].tolist() == pytest.approx([0.7, 0.8, 0.9])


def test_ppo_adds_a_tenth_of_the_clipped_value_loss(rows, scores, loss, context):
    """Old value 0, return 1, new value 0.5: unclipped error 0.25, clipped at 0.2 it is 0.64; half of the larger."""
    batch = rows([2], [1])
    batch = batch.replace(returns=batch.response_mask.float())
    found = loss(PPO(beta=0), batch, scores(batch, value=0.5), context())
    assert found.metrics["value_loss"].item() == pytest.approx(0.32)
    assert found.value.item() == pytest.approx(0.032)


def test_reinforce_subtracts_a_running_mean_of_earlier_rewards(rows, context):
    method, batch = REINFORCE(baseline_decay=0.5), rows([2, 1], [1, 0])
    state = method.initial_state()
    first = method.credit(batch, context(state=state))
    torch.testing.assert_close(first.advantage[:, 2:], torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    state = method.next_state(state, first)  # the mean of one batch, free of the start at 0
    second = method.credit(batch, context(state=state))
    torch.testing.assert_close(second.advantage[:, 2:], torch.tensor([[0.5, 0.5], [-0.5, 0.0]]))


def test_reinforce_discounts_over_tokens(rows, context):
    method = REINFORCE(discount=0.5, baseline="none")
    found = method.credit(rows([3], [1]), context(state=method.initial_state()))
    assert found.advantage[0, 2:].tolist() == pytest.approx([0.25, 0.5, 1.0])


def test_reinforce_plus_plus_whitens_over_all_tokens(rows, context):
    method = REINFORCE(whiten=True, baseline="none")
    found = method.credit(rows([1, 3], [1, 0]), context(state=method.initial_state())).advantage
    assert found[0, 2].item() == pytest.approx(0.75 / 0.5, rel=1e-4)  # returns 1, 0, 0, 0: mean 1/4, sample std 1/2
    assert found[1, 2:].tolist() == pytest.approx([-0.5] * 3, rel=1e-4)


def test_reinforce_plus_plus_baseline_centres_on_the_group_first(rows, context):
    method = REINFORCE(center="group")
    found = method.credit(rows([1, 1], [1, 0]), context(state=method.initial_state())).advantage[:, 2]
    assert found.tolist() == pytest.approx([0.5, -0.5])


def test_reinforce_penalises_by_the_log_ratio_token_by_token(rows, context):
    method = REINFORCE(beta=0.2, baseline="none")
    batch = rows([2], [1])
    judged = method.feedback(batch.replace(reference_log_prob=-1.5 * batch.response_mask), context())
    found = method.credit(judged, context(state=method.initial_state()))
    assert found.advantage[0, 2:].tolist() == pytest.approx([0.8, 0.9])


def test_reinforce_is_not_clipped(rows, scores, gradient):
    batch = rows([1], [1]).replace(advantage=torch.ones(1, 3))
    assert gradient(REINFORCE(), batch, scores(batch, math.log(3.0) - 1.0)).item() == pytest.approx(-3.0)


def test_the_overlong_penalty_spares_demonstrations(rows, joined, context):
    batch = joined(rows([10], [1]), rows([10], [1], demonstrated=True))
    batch = batch.replace(terms=TensorDict({"correct": torch.ones(2)}, batch_size=[2]))
    assert DAPO().feedback(batch, context(max_new_tokens=10)).reward.tolist() == [0.0, 1.0]
