"""The soft value, the actor and the temperature."""

import math

import pytest
import torch

from braid.errors import UsageError
from braid.losses import maximum_entropy as me


def test_soft_values_by_hand():
    value, log_prob = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([-1.0, 0.5])
    torch.testing.assert_close(me.soft_value(value, log_prob, 0.2), torch.tensor([[1.2, 1.9], [3.2, 3.9]]))
    torch.testing.assert_close(me.soft_actor(value[0], log_prob, 0.2), torch.tensor([-1.2, -1.9]))


def test_the_soft_maximum_is_the_best_policys_soft_value():
    value = torch.tensor([[1.0, 0.0, -2.0]], dtype=torch.float64)
    temperature = 0.7
    best = torch.log_softmax(value / temperature, -1)
    expected = (best.exp() * me.soft_value(value, best, temperature)).sum(-1)
    torch.testing.assert_close(me.soft_maximum(value, temperature), expected)
    other = torch.log_softmax(torch.tensor([[0.3, 0.3, 0.3]], dtype=torch.float64), -1)
    assert (other.exp() * me.soft_value(value, other, temperature)).sum() < expected


def test_limits_of_the_soft_maximum():
    value = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    assert me.soft_maximum(value, 1e-3).item() == pytest.approx(3.0)
    prior = torch.tensor([[0.25, 0.75]], dtype=torch.float64).log()
    assert me.soft_maximum(value, 1e6, prior).item() == pytest.approx(2.5, abs=1e-4)  # the prior's mean
    assert me.soft_maximum(torch.zeros(1, 4), 2.0).item() == pytest.approx(2 * math.log(4))
    with pytest.raises(UsageError, match="temperature"):
        me.soft_maximum(value, 0.0)


@pytest.mark.parametrize(("log_prob", "rises"), [(3.0, True), (1.0, False)])  # entropy -3 is below, -1 above -2
def test_the_temperature_rises_below_the_target_entropy(log_prob, rises):
    log_temperature = torch.zeros((), requires_grad=True)
    loss = me.temperature_loss(log_temperature, torch.tensor([log_prob]), target_entropy=-2.0)
    (gradient,) = torch.autograd.grad(loss.sum(), log_temperature)
    assert gradient.item() == pytest.approx(-(log_prob - 2.0))
    assert (gradient.item() < 0) == rises


def test_the_other_side_is_constant():
    temperature, log_prob = torch.tensor(0.1, requires_grad=True), torch.zeros(1, requires_grad=True)
    me.soft_actor(torch.zeros(1), log_prob, temperature).sum().backward()
    assert temperature.grad is None
    assert log_prob.grad is not None
    assert log_prob.grad.item() == pytest.approx(0.1)
    loss = me.temperature_loss(torch.zeros((), requires_grad=True), log_prob, -1.0)
    assert torch.autograd.grad(loss.sum(), log_prob, allow_unused=True) == (None,)
