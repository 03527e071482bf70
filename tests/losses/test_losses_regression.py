"""Asymmetric and robust regression."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses import regression


def test_by_hand():
    value, target = torch.zeros(2), torch.tensor([2.0, -2.0])  # above the value, below it
    torch.testing.assert_close(regression.expectile(value, target, 0.7), torch.tensor([2.8, 1.2]))
    torch.testing.assert_close(regression.quantile(value, target, 0.7), torch.tensor([1.4, 0.6]))
    assert regression.huber(torch.tensor([0.5, 3.0, -3.0]), torch.zeros(3), 2.0).tolist() == [0.125, 4.0, 4.0]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=6))
def test_the_middle_levels_are_half_the_symmetric_losses(pairs):
    value, target = torch.tensor(pairs, dtype=torch.float64).unbind(-1)
    difference = target - value
    torch.testing.assert_close(regression.expectile(value, target, 0.5), 0.5 * difference.square())
    torch.testing.assert_close(regression.quantile(value, target, 0.5), 0.5 * difference.abs())


@pytest.mark.parametrize("level", [0.3, 0.5, 0.9])
def test_minimisers_are_the_expectile_and_the_quantile(level):
    target = torch.tensor([0.0, 1.0, 4.0, 9.0, 11.0], dtype=torch.float64)
    grid = torch.linspace(-1, 12, 13001, dtype=torch.float64).unsqueeze(1)
    best = grid[regression.expectile(grid.expand(-1, 5), target.expand(13001, 5), level).mean(1).argmin()]
    # The first-order condition of an expectile.
    above, below = (target - best).clamp(min=0).mean(), (best - target).clamp(min=0).mean()
    assert (level * above).item() == pytest.approx(((1 - level) * below).item(), abs=2e-3)
    median_like = grid[regression.quantile(grid.expand(-1, 5), target.expand(13001, 5), level).mean(1).argmin()]
    assert median_like.item() == pytest.approx(
        torch.quantile(target, level, interpolation="nearest").item(), abs=1.1e-3
    )


def test_a_value_at_its_target_costs_nothing_and_targets_get_no_gradient():
    same = torch.ones(3, requires_grad=True)
    target = torch.ones(3, requires_grad=True)
    for loss in (
        regression.expectile(same, target, 0.7),
        regression.quantile(same, target, 0.7),
        regression.huber(same, target, 1.0),
    ):
        assert loss.tolist() == [0.0] * 3
        (gradient,) = torch.autograd.grad(loss.sum(), target, allow_unused=True)
        assert gradient is None


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1])
def test_levels_outside_the_unit_interval_are_named(level):
    for loss in (regression.expectile, regression.quantile):
        with pytest.raises(UsageError, match="level"):
            loss(torch.zeros(1), torch.zeros(1), level)
