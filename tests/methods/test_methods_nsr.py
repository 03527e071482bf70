"""PSR, NSR and W-REINFORCE: which rows are kept, their advantages, and identities between the modes."""

import pytest
import torch

from braid.losses.imitation import negative_log_likelihood
from braid.methods.rlvr.nsr import NSR

SCORES = [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("mode", "kept", "expected"),
    [("positive", [0, 2], [1, 1]), ("negative", [1, 3], [-1, -1]), ("weighted", [0, 1, 2, 3], [0.1, -1, 0.1, -1])],
)
def test_filtering_and_advantages(mode, kept, expected, rows, context):
    method, batch = NSR(mode=mode), rows([1] * 4, SCORES, group=[0, 1, 2, 3])
    selected = method.select(batch, context())
    assert selected.group_id.tolist() == kept
    assert method.credit(selected, context()).advantage[:, 2].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("mode", "score"), [("positive", 0), ("negative", 1)])
def test_without_a_sample_of_the_sign_nothing_is_kept(mode, score, rows, context):
    assert len(NSR(mode=mode).select(rows([1] * 4, [score] * 4), context())) == 0


def test_the_exact_outcome_counts_not_the_shaped_reward(rows, context):
    batch = rows([1] * 4, SCORES, reward=[0.2, 0.9, 0.2, 0.9])
    assert NSR(positive_weight=1.0).credit(batch, context()).advantage[:, 2].tolist() == [1, -1, 1, -1]


def test_weight_one_is_reinforce_with_signed_rewards(rows, scores, gradient, context):
    method = NSR(positive_weight=1.0, entropy_coefficient=0.0)
    batch = method.credit(rows([1, 2, 1, 4], SCORES), context())
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0]).unsqueeze(-1)
    expected = -sign * batch.response_mask[:, 2:] / 8
    torch.testing.assert_close(gradient(method, batch, scores(batch)), expected)


def test_positive_mode_on_policy_is_fine_tuning_on_right_answers(rows, scores, gradient, context):
    method = NSR(mode="positive")
    batch = method.credit(method.select(rows([1, 2, 3, 4], SCORES), context()), context())
    told = scores(batch)
    nll = negative_log_likelihood(told.log_prob)[batch.response_mask].mean()
    (expected,) = torch.autograd.grad(nll, told.log_prob)
    torch.testing.assert_close(gradient(method, batch, scores(batch)), expected[:, 2:])


def test_weighted_is_the_weighted_sum_of_the_others(rows, scores, gradient, context):
    batch = rows([1, 2, 3, 4], SCORES)
    found = {}
    for weight in (0.1, 1.0):
        method = NSR(positive_weight=weight)
        found[weight] = gradient(method, method.credit(batch, context()), scores(batch))
    right = batch.correct.unsqueeze(-1)
    torch.testing.assert_close(found[0.1], torch.where(right, 0.1 * found[1.0], found[1.0]))


def test_the_entropy_bonus_is_a_thousandth(rows, scores, loss, context):
    batch = rows([1, 3], [1, 0])
    assert loss(NSR(), batch, scores(batch, entropy=2.0), context()).value.item() == pytest.approx(-0.002)
