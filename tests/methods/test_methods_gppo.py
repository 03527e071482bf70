"""GPPO: table of the card through weights and update, likelihood of correct responses, dropped groups."""

import math

import pytest
import torch

from braid.methods.rlvr.gppo import GPPO
from braid.methods.rlvr.grpo import GRPO


@pytest.mark.parametrize(
    ("options", "advantage", "ratio", "expected"),
    [
        ({}, 1.0, 1.5, -1.28),
        ({}, 1.0, 0.5, -0.5),
        ({}, -1.0, 0.5, 0.8),
        ({}, -1.0, 1.5, 1.5),
        ({}, -1.0, 12.0, 0.0),
        ({"beta_high": 0.0}, 1.0, 1.5, 0.0),
        ({"beta_high": 0.0}, -1.0, 0.5, 0.8),
        ({"beta_low": 0.0}, 1.0, 1.5, -1.28),
        ({"beta_low": 0.0}, -1.0, 0.5, 0.0),
        ({"dual_clip": 0.0}, -1.0, 12.0, 12.0),
    ],
)
def test_gradient_table(options, advantage, ratio, expected, rows, scores, gradient):
    method = GPPO(positive_nll=0.0, **options)
    batch = rows([1], [1]).replace(advantage=torch.full((1, 3), advantage))
    assert gradient(method, batch, scores(batch, math.log(ratio) - 1.0)).item() == pytest.approx(expected)


def test_on_policy_without_the_likelihood_term_it_is_grpo(rows, scores, gradient, context):
    batch = GRPO().credit(rows([1, 3, 2, 2], [1, 0, 0, 1]), context())
    same = GRPO(aggregation="token-mean", clip_high=0.28, dual_clip=10.0)
    torch.testing.assert_close(
        gradient(GPPO(positive_nll=0.0), batch, scores(batch)), gradient(same, batch, scores(batch))
    )


def test_likelihood_is_a_mean_over_the_tokens_of_correct_responses(rows, scores, gradient):
    batch = rows([1, 3, 4], [1, 1, 0])
    found = gradient(GPPO(), batch, scores(batch))
    torch.testing.assert_close(found, torch.tensor([[-0.025, 0, 0, 0], [-0.025] * 3 + [0], [0] * 4]))


def test_without_a_correct_response_the_likelihood_is_zero(rows, scores, loss, context):
    batch = rows([1, 3], [0, 0])
    assert loss(GPPO(), batch, scores(batch), context()).metrics["positive_nll"].item() == 0


def test_groups_without_contrast_are_dropped_unless_asked_for(rows, context):
    batch = rows([1] * 4, [1, 0, 1, 1], group=[0, 0, 1, 1])
    assert GPPO().select(batch, context()).group_id.tolist() == [0, 0]
    assert len(GPPO(drop_uniform_groups=False).select(batch, context())) == 4
