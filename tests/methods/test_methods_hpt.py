"""HPT and the two hybrids it is compared with, LUFFY and SRFT."""

import math

import pytest
import torch

from braid.methods.rlvr.dr_grpo import DrGRPO
from braid.methods.rlvr.hpt import HPT, successes
from braid.methods.rlvr.luffy import LUFFY
from braid.methods.rlvr.sft import SFT
from braid.methods.rlvr.srft import SRFT


def outcomes(rows, counts, size=4):
    """Groups 10, 11 … with the given number of successes among `size` responses."""
    correct = [float(i < count) for count in counts for i in range(size)]
    group = [10 + g for g in range(len(counts)) for _ in range(size)]
    return rows([2] * len(correct), correct, group=group)


@pytest.fixture
def teaching(rows, context):
    """A context that has a demonstration of three tokens for every group."""

    def demonstrate(batch):
        groups = torch.unique(batch.group_id).tolist()
        return rows([3] * len(groups), [1] * len(groups), group=groups, demonstrated=True)

    return lambda **fields: context(demonstrate=demonstrate, **fields)


@pytest.mark.parametrize(
    ("gate", "imitated"), [(-1, []), (0, [10]), (1, [10, 11]), (2, [10, 11, 12]), (4, [10, 11, 12, 13])]
)
def test_the_gate_counts_successes(gate, imitated, rows, teaching):
    found = HPT(switch_gate=gate).select(outcomes(rows, [0, 1, 2, 3]), teaching())
    assert found.group_id[found.demonstrated].tolist() == imitated
    kept = [g for g in (10, 11, 12, 13) if g not in imitated]
    assert found.group_id[found.online].tolist() == [g for g in kept for _ in range(4)]


def test_the_gate_reads_correctness_not_the_shaped_reward(rows, teaching):
    batch = outcomes(rows, [0, 4]).replace(reward=torch.tensor([0.9] * 4 + [0.1] * 4))
    found = HPT().select(batch, teaching())
    assert found.group_id[found.demonstrated].tolist() == [10]
    assert successes(batch).tolist() == [0] * 4 + [4] * 4


def test_everything_imitated_is_fine_tuning(rows, scores, gradient, teaching):
    method = HPT(switch_gate=4)
    batch = method.credit(method.select(outcomes(rows, [0, 3]), teaching()), teaching())
    plain = batch.replace(advantage=batch.response_mask.float())
    torch.testing.assert_close(gradient(method, batch, scores(batch)), gradient(SFT(), plain, scores(plain)))


def test_nothing_imitated_is_dr_grpo_without_clip(rows, scores, gradient, teaching):
    method = HPT(switch_gate=-1, entropy_coefficient=0.0)
    other = DrGRPO(surrogate="none", aggregation="token-sum-norm")
    batch = method.select(outcomes(rows, [0, 1, 2, 3]), teaching())
    drifted = -0.4  # far outside any clip range
    found = gradient(method, method.credit(batch, teaching()), scores(batch, drifted))
    expected = gradient(other, other.credit(batch, teaching()), scores(batch, drifted))
    torch.testing.assert_close(found, expected)
    assert found.abs().sum() > 0


def test_mixture_by_hand(rows, scores, gradient, teaching):
    """One group of 1 success in 4 (advantages 3/4 and -1/4, over length 8) and one demonstration of 3 tokens."""
    method = HPT(sft_coefficient=0.3, entropy_coefficient=0.0)
    batch = method.credit(method.select(outcomes(rows, [0, 1]), teaching()), teaching())
    found = gradient(method, batch, scores(batch), teaching(max_new_tokens=8))
    right, wrong = [-0.75 / 8] * 2 + [0], [0.25 / 8] * 2 + [0]
    torch.testing.assert_close(found, torch.tensor([right, wrong, wrong, wrong, [-0.1] * 3]))


def test_demonstrations_of_imitated_questions_leave_the_statistics(rows, teaching):
    method = HPT(center="batch", scale="batch")
    batch = method.credit(method.select(outcomes(rows, [0, 1]), teaching()), teaching())
    assert batch.advantage[:, 2].tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5, 0.0], rel=1e-4)


@pytest.mark.parametrize("owner", [LUFFY, SRFT])
def test_the_demonstration_is_compared_with_the_rollouts(owner, rows, teaching):
    batch = outcomes(rows, [0, 3])
    found = owner().credit(owner().feedback(batch, teaching()), teaching())
    advantage = found.advantage[:, 2]
    assert advantage.tolist() == pytest.approx([-0.2] * 4 + [0.2] * 3 + [-0.8] + [0.8, 0.2])


def test_luffy_keeps_a_penalty_inside_the_reward(rows, teaching):
    method = LUFFY(beta=0.1, kl_placement="reward", kl_estimator="k1")
    batch = rows([1, 1], [1, 0])
    batch = batch.replace(reference_log_prob=-2.0 * batch.response_mask)
    found = method.credit(method.feedback(batch, teaching()), teaching())
    assert found.advantage[:, 2].tolist() == pytest.approx([0.9 - 0.6, -0.1 - 0.6, 1.0 - 0.6])


@pytest.mark.parametrize("owner", [LUFFY, SRFT])
def test_a_demonstrated_token_is_shaped(owner, rows, scores, gradient, context):
    """p = 0.1, A = 1: -p 0.1 / (p + 0.1)^2 = -0.25; SRFT adds its likelihood, 0.5 at entropy 0. Over length 4."""
    batch = rows([1], [1], demonstrated=True).replace(advantage=torch.ones(1, 3))
    found = gradient(owner(entropy_coefficient=0.0), batch, scores(batch, math.log(0.1)))
    assert found.item() == pytest.approx((-0.25 - (0.5 if owner is SRFT else 0.0)) / 4)


def test_luffy_does_not_clip_rollouts(rows, scores, gradient):
    batch = rows([1], [1]).replace(advantage=torch.ones(1, 3))
    assert gradient(LUFFY(), batch, scores(batch, math.log(3) - 1.0)).item() == pytest.approx(-3 / 4)


@pytest.mark.parametrize(
    ("entropy", "right", "wrong", "shown"), [(0.0, 0.1, -1.0, 0.5), (math.log(2), 0.2, -1.0, 0.25)]
)
def test_srft_weights_follow_the_entropy(entropy, right, wrong, shown, rows, joined, scores, gradient):
    batch = joined(rows([1, 1], [1, 0]), rows([1], [1], demonstrated=True))
    found = gradient(SRFT(entropy_coefficient=0.0), batch, scores(batch, entropy=entropy))
    torch.testing.assert_close(found.flatten(), -torch.tensor([right, wrong, shown]) / 4)


def test_srft_sends_no_gradient_through_its_weights(rows, scores, loss, context):
    batch = rows([2], [1])
    told = scores(batch, entropy=1.0)
    value = loss(SRFT(entropy_coefficient=0.0), batch, told, context()).value
    (gradient,) = torch.autograd.grad(value, told.entropy, allow_unused=True)
    assert gradient is None or gradient.abs().sum() == 0
