"""GRPO and what every descendant inherits: statistics, surrogates, KL in loss and reward, truncated rows."""

import math

import pytest
import torch

from braid.errors import UsageError
from braid.methods.registry import catalogue, find_method
from braid.methods.rlvr.dr_grpo import DrGRPO
from braid.methods.rlvr.grpo import GRPO

DESCENDANTS = sorted(slug for slug in catalogue() if issubclass(find_method(slug), GRPO))


def test_advantages_by_hand(rows, context):
    batch = rows([1, 2, 3, 4], [1, 0, 0, 0])
    advantage = GRPO(epsilon=0).credit(batch, context()).advantage
    expected = torch.tensor([1.5, -0.5, -0.5, -0.5]).unsqueeze(-1) * batch.response_mask
    torch.testing.assert_close(advantage, expected)


def test_groups_are_found_by_id_not_by_position(rows, context):
    batch = rows([1] * 4, [1, 1, 0, 1], group=[5, 9, 5, 9])
    advantage = DrGRPO().credit(batch, context()).advantage[:, 2]
    torch.testing.assert_close(advantage, torch.tensor([0.5, 0.0, -0.5, 0.0]))


def test_the_mean_over_responses_gives_short_ones_heavier_tokens(rows, scores, gradient, context):
    batch = GRPO(epsilon=0).credit(rows([1, 2, 4, 4], [1, 0, 0, 0]), context())
    found = gradient(GRPO(), batch, scores(batch))
    expected = [[-1.5 / 4, 0, 0, 0], [0.5 / 8] * 2 + [0, 0], [0.5 / 16] * 4, [0.5 / 16] * 4]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_dr_grpo_divides_by_a_constant_length(rows, scores, gradient, context):
    method = DrGRPO()
    batch = method.credit(rows([1, 4], [1, 0]), context())
    found = gradient(method, batch, scores(batch), context(max_new_tokens=8))
    expected = [[-0.5 / 16, 0, 0, 0], [0.5 / 16] * 4]
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize(
    ("options", "ratio", "advantage", "expected"),
    [
        ({}, 1.1, 1.0, -1.1),
        ({}, 1.5, 1.0, 0.0),
        ({}, 0.5, -1.0, 0.0),
        ({}, 4.0, -1.0, 4.0),
        ({"dual_clip": 3.0}, 4.0, -1.0, 0.0),
        ({"surrogate": "none"}, 1.5, 1.0, -1.5),
        ({"surrogate": "cispo"}, 1.5, 1.0, -1.2),
        ({"surrogate": "cispo"}, 0.5, -1.0, 0.8),
    ],
)
def test_surrogates(options, ratio, advantage, expected, rows, scores, gradient):
    batch = rows([1], [1]).replace(advantage=torch.full((1, 3), advantage))
    found = gradient(GRPO(**options), batch, scores(batch, math.log(ratio) - 1.0))
    assert found.item() == pytest.approx(expected)


def test_kl_in_the_reward_is_taken_from_the_behaviour_policy(rows, context):
    """Two responses of 1 and 3 tokens, behaviour -1, reference -1.5: the penalty is 0.5 for each token."""
    method = DrGRPO(beta=0.1, kl_placement="reward", kl_estimator="k1")
    batch = rows([1, 3], [1, 0])
    batch = batch.replace(reference_log_prob=-1.5 * batch.response_mask)
    judged = method.feedback(batch, context())
    assert judged.token_reward.sum(-1).tolist() == pytest.approx([-0.05, -0.15])
    advantage = method.credit(judged, context()).advantage[:, 2]
    assert advantage.tolist() == pytest.approx([0.55, -0.55])


def test_kl_in_the_reward_adds_nothing_to_the_loss(rows, scores, loss, context):
    method = GRPO(beta=0.1, kl_placement="reward")
    batch = rows([2], [1])
    found = loss(method, batch, scores(batch), context())
    assert found.value.item() == 0
    assert found.metrics["kl"].item() == pytest.approx(-1.0)  # behaviour -1, reference 0


def test_kl_in_the_loss(rows, scores, gradient, context):
    """k3 has the gradient 1 - exp(-d); d = -1 + 1.5, and each of 2 tokens weighs 1/2."""
    batch = rows([2], [1])
    batch = batch.replace(reference_log_prob=-1.5 * batch.response_mask)
    assert GRPO(beta=0.1).feedback(batch, context()).token_reward.abs().sum() == 0
    found = gradient(GRPO(beta=0.1), batch, scores(batch))
    expected = 0.1 * (1 - math.exp(-0.5)) / 2
    assert found.flatten().tolist() == pytest.approx([expected] * 2)


def test_entropy_bonus(rows, scores, loss, context):
    batch = rows([1, 3], [1, 1])
    found = loss(GRPO(entropy_coefficient=0.1), batch, scores(batch, entropy=2.0), context())
    assert found.value.item() == pytest.approx(-0.2)


@pytest.mark.parametrize("slug", DESCENDANTS)
def test_truncated_rows_leave_the_loss_but_not_the_statistics(slug, rows, context):
    owner = find_method(slug)
    batch = rows([2, 2, 2, 2], [1, 0, 0, 1], truncated=[False, True, False, False])
    stub = context(critic=torch.zeros_like(batch.value), experts=lambda n: rows([1] * n, [1] * n, demonstrated=True))
    stub.state = owner().initial_state()
    kept, masked = (owner(mask_truncated=flag).credit(batch, stub) for flag in (False, True))
    torch.testing.assert_close(kept.advantage, masked.advantage)
    assert masked.loss_mask[:4].any(-1).tolist() == [True, False, True, True]
    assert owner(mask_truncated=True).weights(masked, stub)["policy"][1].abs().sum() == 0


@pytest.mark.parametrize("slug", DESCENDANTS)
def test_demonstrations_carry_no_surrogate_and_no_entropy_weight(slug, rows, joined, context):
    batch = joined(rows([2, 2], [1, 0]), rows([3], [1], demonstrated=True))
    weights = find_method(slug)().weights(batch, context())
    assert weights["policy"][2].abs().sum() == 0
    assert weights["token"][2].abs().sum() == 0
    assert weights["token"].sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize("bound", [0.5, 1.0])
def test_a_dual_clip_inside_the_trust_region_is_refused(bound):
    with pytest.raises(UsageError, match="dual_clip"):
        GRPO(dual_clip=bound)
