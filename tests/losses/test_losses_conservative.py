"""CQL and EDAC."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses import conservative


@pytest.mark.parametrize("constant", [0.0, -3.5])
def test_a_constant_critic_under_uniform_actions(constant):
    """30 uniform actions in [-1, 1]^2: log 30 + 2 log 2 = 4.7875 above the data, whatever the constant."""
    sampled, data = torch.full((2, 4, 30), constant), torch.full((2, 4), constant)
    difference = conservative.cql(sampled, data, log_density=torch.full((4, 30), -2 * math.log(2)))
    torch.testing.assert_close(difference, torch.full((2, 4), 4.7875), atol=1e-4, rtol=0)


def test_the_temperature_softens_the_maximum_and_bounds_stop_the_gradient():
    sampled, data = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor([0.5])
    assert conservative.cql(sampled, data, temperature=1e-2).item() == pytest.approx(1.5)
    expected = 3 * math.log(math.exp(1 / 3) + math.exp(2 / 3)) - 0.5
    assert conservative.cql(sampled, data, temperature=3.0).item() == pytest.approx(expected)
    clipped = conservative.cql(sampled, data, high=1.0)
    assert clipped.item() == 1.0
    assert torch.autograd.grad(clipped.sum(), sampled)[0].tolist() == [[0.0, 0.0]]


def test_the_gradient_lowers_likely_samples_and_raises_the_data():
    sampled, data = torch.tensor([[0.0, math.log(3)]], requires_grad=True), torch.zeros(1, requires_grad=True)
    density = torch.zeros(1, 2, requires_grad=True)
    gradients = torch.autograd.grad(
        conservative.cql(sampled, data, density).sum(), [sampled, data, density], allow_unused=True
    )
    torch.testing.assert_close(gradients[0], torch.tensor([[0.25, 0.75]]))
    assert gradients[1].item() == -1
    assert gradients[2] is None


def test_the_discrete_form_is_a_cross_entropy():
    value = torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[3.0, 0.0], [1.0, 5.0]]])
    action = torch.tensor([1, 0])
    loss = conservative.discrete_cql(value, action)
    expected = torch.stack([torch.nn.functional.cross_entropy(each, action, reduction="none") for each in value])
    torch.testing.assert_close(loss, expected)
    assert loss[0, 1].item() == pytest.approx(math.log(2))
    torch.testing.assert_close(conservative.discrete_cql(value[0], action), expected[0])


def test_the_multiplier_grows_while_the_gap_is_exceeded():
    difference = torch.tensor([3.0, 1.0], requires_grad=True)
    log_multiplier = torch.tensor(math.log(2.0), requires_grad=True)
    penalty, multiplier_loss = conservative.lagrangian(difference, log_multiplier, gap=1.5, weight=10.0)
    torch.testing.assert_close(penalty, torch.tensor([30.0, -10.0]))
    (slope,) = torch.autograd.grad(penalty.sum(), difference, retain_graph=True)
    torch.testing.assert_close(slope, torch.tensor([20.0, 20.0]))
    assert torch.autograd.grad(penalty.sum(), log_multiplier, allow_unused=True) == (None,)
    (rise,) = torch.autograd.grad(multiplier_loss.mean(), log_multiplier)
    assert rise.item() == pytest.approx(-2 * 10 * 0.5)  # mean excess 0.5 above the gap: descent raises it


def test_the_multiplier_is_bounded():
    log_multiplier = torch.tensor(100.0, requires_grad=True)
    penalty, multiplier_loss = conservative.lagrangian(torch.tensor([2.0]), log_multiplier, gap=1.0)
    assert penalty.item() == pytest.approx(1e6)
    assert torch.autograd.grad(multiplier_loss.sum(), log_multiplier)[0].item() == 0


@pytest.mark.parametrize("critics", [2, 5])
def test_alignment_of_equal_and_orthogonal_slopes(critics):
    same = torch.tensor([0.0, 3.0, 4.0, 0.0, 0.0]).expand(critics, 7, 5)
    torch.testing.assert_close(conservative.gradient_alignment(same), torch.full((7,), float(critics)))
    orthogonal = 2 * torch.eye(5)[:critics].unsqueeze(1)
    torch.testing.assert_close(conservative.gradient_alignment(orthogonal), torch.zeros(1))


@settings(deadline=None, max_examples=30)
@given(critics=st.integers(2, 6), batch=st.integers(1, 3), actions=st.integers(1, 4), seed=st.integers(0, 99))
def test_alignment_is_the_sum_over_pairs(critics, batch, actions, seed):
    slope = torch.randn(critics, batch, actions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    unit = torch.nn.functional.normalize(slope, dim=-1)
    cosine = torch.einsum("kba,lba->bkl", unit, unit)
    expected = (cosine.sum((1, 2)) - cosine.diagonal(dim1=1, dim2=2).sum(-1)) / (critics - 1)
    actual = conservative.gradient_alignment(slope)
    torch.testing.assert_close(actual, expected, atol=1e-8, rtol=1e-6)
    assert (actual >= -critics / (critics - 1) - 1e-8).all()


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="temperature"):
        conservative.cql(torch.zeros(1, 2), torch.zeros(1), temperature=0.0)
    with pytest.raises(UsageError, match="two critics"):
        conservative.gradient_alignment(torch.ones(1, 2, 3))
