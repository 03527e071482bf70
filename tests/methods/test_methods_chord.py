"""CHORD: schedule of mu, its two limits, the weights of expert tokens, micro-batches."""

import math

import pytest
import torch

from braid.errors import UsageError
from braid.methods.rlvr.chord import CHORD
from braid.methods.rlvr.grpo import GRPO
from braid.methods.rlvr.sft import SFT


@pytest.fixture
def mixed(rows, joined, context):
    """Two groups of two rollouts and two expert sequences, credited."""
    own = GRPO().credit(rows([1, 2, 3, 4], [1, 0, 1, 0], group=[0, 0, 1, 1]), context())
    return joined(own, rows([2, 6], [1, 1], group=[8, 9], demonstrated=True))


@pytest.mark.parametrize(
    ("options", "step", "expected"),
    [
        ({"variant": "mu"}, 0, 0.9),
        ({"variant": "mu"}, 100, 0.475),
        ({"variant": "mu"}, 200, 0.05),
        ({"variant": "mu"}, 5000, 0.05),
        ({"variant": "phi"}, 0, 0.1),
        ({"variant": "phi"}, 5000, 0.1),
        ({"mu_warmup": 200, "mu_decay": 400, "mu_peak": 0.5, "mu_valley": 0.02}, 0, 0.0),
        ({"mu_warmup": 200, "mu_decay": 400, "mu_peak": 0.5, "mu_valley": 0.02}, 100, 0.25),
        ({"mu_warmup": 200, "mu_decay": 400, "mu_peak": 0.5, "mu_valley": 0.02}, 200, 0.5),
        ({"mu_warmup": 200, "mu_decay": 400, "mu_peak": 0.5, "mu_valley": 0.02}, 400, 0.26),
        ({"mu_warmup": 200, "mu_decay": 400, "mu_peak": 0.5, "mu_valley": 0.02}, 600, 0.02),
        ({"mu_peak": 0.7, "mu_valley": 0.3}, 0, 0.3),
    ],
)
def test_mu_schedule(options, step, expected):
    assert CHORD(**options).mu(step) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["mu_peak", "mu_valley"])
def test_a_negative_mu_is_refused(name):
    with pytest.raises(UsageError, match=name):
        CHORD(**{name: -0.5})


def test_mu_zero_is_grpo(mixed, scores, gradient):
    own = GRPO(aggregation="token-mean", dual_clip=3.0)
    drifted = mixed.behaviour_log_prob + 0.15 * mixed.online.unsqueeze(-1) - 1.0 * mixed.demonstrated.unsqueeze(-1)
    found = gradient(CHORD(mu_peak=0.0, mu_valley=0.0), mixed, scores(mixed, drifted))
    expected = gradient(own, mixed[:4], scores(mixed[:4], drifted[:4]))
    torch.testing.assert_close(found[:4], expected)
    assert found[4:].abs().sum() == 0


@pytest.mark.parametrize("weight", ["one", "probability", "uncertainty"])
def test_mu_one_is_fine_tuning(weight, mixed, scores, gradient):
    method = CHORD(mu_peak=1.0, mu_valley=1.0, expert_weight=weight)
    found = gradient(method, mixed, scores(mixed, -0.7))
    experts = mixed[4:].replace(advantage=mixed[4:].response_mask.float())
    torch.testing.assert_close(found[4:], gradient(SFT(token_weight=weight), experts, scores(experts, -0.7)))
    assert found[:4].abs().sum() == 0


@pytest.mark.parametrize(
    ("options", "weight"),
    [
        ({}, "uncertainty"),
        ({"variant": "mu"}, "one"),
        ({"expert_weight": "probability"}, "probability"),
        ({"variant": "mu", "expert_weight": "uncertainty"}, "uncertainty"),
        ({"expert_weight": "one"}, "one"),
    ],
)
def test_variants(options, weight):
    assert CHORD(**options).token_weight == weight


@pytest.mark.parametrize(
    ("options", "probability", "value", "slope"),
    [
        ({}, 0.5, 0.25 * math.log(2), -0.25),
        ({}, 0.9, -0.09 * math.log(0.9), -0.09),
        ({"expert_weight": "probability"}, 0.3, -0.3 * math.log(0.3), -0.3),
        ({"cutoff_prob": 0.8}, 0.9, -0.09 * math.log(0.8), 0.0),
    ],
)
def test_one_expert_token(options, probability, value, slope, rows, scores, gradient, loss, context):
    method = CHORD(mu_peak=1.0, mu_valley=1.0, **options)
    batch = rows([1], [1], demonstrated=True)
    assert loss(method, batch, scores(batch, math.log(probability)), context()).value.item() == pytest.approx(value)
    assert gradient(method, batch, scores(batch, math.log(probability))).item() == pytest.approx(slope)


def test_mu_follows_the_step_of_the_run(mixed, context):
    weights = [CHORD(variant="mu").weights(mixed, context(step=step))["expert"].sum().item() for step in (0, 100, 300)]
    assert weights == pytest.approx([0.9, 0.475, 0.05])


def test_both_parts_are_normalised_apart(mixed, context):
    weights = CHORD().weights(mixed, context())
    assert weights["policy"].sum().item() == pytest.approx(0.9)
    assert weights["expert"].sum().item() == pytest.approx(0.1)
    assert weights["token"].sum().item() == pytest.approx(1.0)


def test_expert_sequences_can_weigh_the_same(mixed, context):
    weights = CHORD(expert_aggregation="seq-mean-token-mean").weights(mixed, context())["expert"]
    assert weights.sum(-1).tolist() == pytest.approx([0, 0, 0, 0, 0.05, 0.05])


@pytest.mark.parametrize("pieces", [[[0, 1, 2], [3, 4, 5]], [[5], [0, 4], [1, 2, 3]]])
def test_micro_batches_leave_the_gradient_unchanged(pieces, mixed, scores, gradient, context):
    whole = gradient(CHORD(), mixed, scores(mixed, -0.9))
    weights, told = CHORD().weights(mixed, context()), scores(mixed, -0.9)
    for piece in pieces:
        part = mixed[torch.tensor(piece)]
        for name, weight in weights.items():
            part.weights[name] = weight[torch.tensor(piece)]
        sub = scores(part, told.log_prob[torch.tensor(piece)])
        found = torch.autograd.grad(CHORD().update(part, sub).value, sub.log_prob)[0]
        torch.testing.assert_close(found[:, 2:], whole[torch.tensor(piece)])


@pytest.mark.parametrize(("fraction", "experts"), [(0.2, 2), (0.5, 8), (0.0, 0)])
def test_experts_join_after_the_groups_are_compared(fraction, experts, rows, context):
    batch = rows([1] * 8, [1, 0] * 4, group=[0] * 4 + [1] * 4)
    stub = context(experts=lambda count: rows([3] * count, [1] * count, group=range(50, 50 + count), demonstrated=True))
    found = CHORD(expert_fraction=fraction).credit(batch, stub)
    assert int(found.demonstrated.sum()) == experts
    torch.testing.assert_close(found.advantage[:8, :3], GRPO().credit(batch, stub).advantage)
    assert found.advantage[8:].abs().sum() == 0
