"""PACS: gradients of the card, its options, and whole groups in micro-batches."""

import math

import pytest
import torch

from braid.data.ragged import micro_batches
from braid.methods.rlvr.pacs import PACS


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [-1 / 3, 1 / 9, 1 / 9, 1 / 9]),
        ({"class_balance": "one"}, [-1 / 4, 1 / 12, 1 / 12, 1 / 12]),
        ({"class_balance": "one", "score": "naive"}, [-1 / 8, 1 / 8, 1 / 8, 1 / 8]),
        ({"proxy_scale": 2.0}, [-2 / 3, 2 / 9, 2 / 9, 2 / 9]),
    ],
)
def test_first_gradient_on_every_token(options, expected, rows, scores, gradient):
    batch = rows([1, 2, 1, 3], [1, 0, 0, 0])
    found = gradient(PACS(**options), batch, scores(batch))
    torch.testing.assert_close(found, torch.tensor(expected).unsqueeze(-1) * batch.response_mask[:, 2:])


def test_mean_log_prob_proxy_divides_by_length(rows, scores, gradient):
    batch = rows([1, 2, 1, 4], [1, 0, 0, 0])
    found = gradient(PACS(proxy="mean_log_prob"), batch, scores(batch))
    per_row = torch.tensor([-1 / 3, 1 / 9 / 2, 1 / 9, 1 / 9 / 4]).unsqueeze(-1)
    torch.testing.assert_close(found, per_row * batch.response_mask[:, 2:])


def test_group_scores_can_be_standardised(rows, scores, gradient, loss, context):
    """Proxies (0.5, -0.5): mean 0, sample std 0.7071, scores +-0.7071; the right one is the higher."""
    batch = rows([1, 1], [1, 0])
    log_prob = batch.behaviour_log_prob + torch.tensor([[0, 0, 0.5], [0, 0, -0.5]])
    value = loss(PACS(score="grpo"), batch, scores(batch, log_prob), context()).value.item()
    assert value == pytest.approx(math.log1p(math.exp(-math.sqrt(0.5))), rel=1e-4)


@pytest.mark.parametrize("correct", [[1, 0, 0, 0], [1, 1, 0, 1]])
@pytest.mark.parametrize("balance", ["balanced", "one"])
def test_the_first_loss_is_log_two(correct, balance, rows, scores, loss, context):
    batch = rows([1, 2, 3, 1], correct)
    value = loss(PACS(class_balance=balance), batch, scores(batch), context()).value.item()
    assert value == pytest.approx(math.log(2))


@pytest.mark.parametrize("outcome", [0, 1])
def test_uniform_groups_push_nothing(outcome, rows, scores, gradient):
    batch = rows([1, 2, 3], [outcome] * 3)
    assert gradient(PACS(), batch, scores(batch)).abs().max() < 1e-7


@pytest.mark.parametrize("balance", ["only_negative", "only_positive"])
def test_one_sided_weights(balance, rows, scores, loss, context):
    batch = rows([1, 1], [1, 0])
    value = loss(PACS(class_balance=balance), batch, scores(batch), context()).value.item()
    assert value == pytest.approx(0.5 * math.log(2))


def test_micro_batches_keep_groups_whole_and_the_gradient_unchanged(rows, scores, gradient, context):
    method = PACS()
    batch = rows([1, 6, 2, 5, 3, 4], [1, 0, 0, 1, 1, 0], group=[0, 1, 2, 0, 1, 2])
    told = scores(batch, -0.8)
    whole = gradient(method, batch, told)
    pieces = micro_batches(batch, 8, whole_groups=method.whole_groups)
    assert len(pieces) > 1
    for rows_of in pieces:
        part = batch[rows_of]
        inside = set(part.group_id.tolist())
        assert len(part) == sum(g in inside for g in batch.group_id.tolist())
        for name, weight in method.weights(batch, context()).items():
            part.weights[name] = weight[rows_of]
        sub = scores(part, told.log_prob[rows_of])
        found = torch.autograd.grad(method.update(part, sub).value, sub.log_prob)[0]
        torch.testing.assert_close(found[:, 2:], whole[rows_of])


def test_the_label_is_correctness_not_the_shaped_reward(rows, scores, gradient):
    batch = rows([1] * 4, [1, 0, 0, 0], reward=[0.1, 0.9, 0.9, 0.9])
    torch.testing.assert_close(
        gradient(PACS(), batch, scores(batch)).flatten(), torch.tensor([-1 / 3, 1 / 9, 1 / 9, 1 / 9])
    )
