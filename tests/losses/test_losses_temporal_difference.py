"""Targets, ensembles and errors of critics."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses import regression
from braid.losses import temporal_difference as td

FLOAT = st.floats(-100, 100)


def test_a_time_limit_bootstraps_and_a_terminal_does_not():
    reward, value = torch.tensor([1.0, 1.0]), torch.tensor([10.0, 10.0])
    terminated = torch.tensor([True, False])  # the second transition was cut off by a time limit
    assert td.td_target(reward, terminated, value, 0.5).tolist() == [1.0, 6.0]
    assert td.td_target(reward, terminated.float(), value, 0.5).tolist() == [1.0, 6.0]


def test_what_follows_a_terminal_cannot_poison_its_target():
    target = td.td_target(torch.ones(1), torch.ones(1), torch.tensor([math.nan]), 0.99)
    assert target.tolist() == [1.0]


def test_targets_are_clipped_detached_and_per_critic():
    value = torch.tensor([[5000.0, -500.0], [2.0, 4.0]], requires_grad=True)
    target = td.td_target(torch.zeros(2), torch.zeros(2), value, 1.0, low=-100, high=1000)
    assert target.tolist() == [[1000.0, -100.0], [2.0, 4.0]]
    assert not target.requires_grad


def test_quantiles_by_hand():
    heads = torch.tensor([[3.0], [1.0], [5.0], [4.0], [2.0]])
    assert td.quantile(heads, 0.25).tolist() == [2.0]
    assert td.quantile(torch.tensor([[10.0], [0.0]]), 0.25).tolist() == [2.5]
    assert td.quantile(heads, 0.0).tolist() == td.minimum(heads).tolist() == [1.0]
    assert td.quantile(heads, 1.0).tolist() == [5.0]
    assert td.quantile(torch.tensor([[7.0]]), 0.25).tolist() == [7.0]


@settings(deadline=None, max_examples=50)
@given(
    heads=st.lists(st.lists(FLOAT, min_size=3, max_size=3), min_size=1, max_size=7),
    level=st.floats(0, 1),
)
def test_quantiles_are_torchs_over_critics_for_every_sample(heads, level):
    values = torch.tensor(heads, dtype=torch.float64)
    torch.testing.assert_close(td.quantile(values, level), torch.quantile(values, level, dim=0))


def test_the_lower_bound_by_hand():
    value = torch.tensor([[1.0, 2.0], [3.0, 2.0]], requires_grad=True)
    bound = td.lower_confidence_bound(value, 4.0)
    torch.testing.assert_close(bound, torch.tensor([2 - 4 * math.sqrt(2), 2.0]))
    bound[1].backward()
    assert value.grad is not None
    assert value.grad.tolist() == [[0.0, 0.5], [0.0, 0.5]]


def test_the_double_value_is_the_targets_of_the_online_choice():
    online, target = torch.tensor([[1.0, 3.0], [2.0, 0.0]]), torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    assert td.double_value(online, target).tolist() == [20.0, 30.0]


@pytest.mark.parametrize(("threshold", "error", "loss"), [(1, 0.5, 0.125), (1, 3, 2.5), (4, 3, 1.125), (4, -3, 1.125)])
def test_huber_by_hand(threshold, error, loss):
    assert td.huber_td(torch.tensor([float(error)]), torch.zeros(1), threshold).item() == pytest.approx(loss)


@settings(deadline=None, max_examples=50)
@given(error=FLOAT, threshold=st.floats(0.1, 50))
def test_huber_is_continuous_with_a_slope_of_at_most_one(error, threshold):
    leaf = torch.tensor(
        [error, threshold * (1 - 1e-9), threshold * (1 + 1e-9)], dtype=torch.float64, requires_grad=True
    )
    loss = td.huber_td(leaf, torch.zeros(3, dtype=torch.float64), threshold)
    (slope,) = torch.autograd.grad(loss.sum(), leaf)
    assert slope.abs().max() <= 1
    assert loss[1].item() == pytest.approx(loss[2].item(), rel=1e-6)
    expected = torch.nn.functional.smooth_l1_loss(leaf, torch.zeros(3).double(), reduction="none", beta=threshold)
    torch.testing.assert_close(loss, expected)


def test_robust_iql_tends_to_iql():
    """Two critics, the lowest of both, and a Huber threshold without bound times that threshold: IQL's gradients."""
    generator = torch.Generator().manual_seed(0)
    q, target_q = (torch.randn(2, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    v, target = (torch.randn(8, generator=generator, dtype=torch.float64) for _ in range(2))
    q.requires_grad_(True)
    v.requires_grad_(True)
    robust = 1e9 * td.huber_td(q, target, 1e9).mean(1).sum()
    plain = 0.5 * td.squared_td(q, target).mean(1).sum()
    torch.testing.assert_close(torch.autograd.grad(robust, q), torch.autograd.grad(plain, q))
    first = regression.expectile(v, td.quantile(target_q, 0.0), 0.7).mean()
    second = regression.expectile(v, torch.minimum(target_q[0], target_q[1]), 0.7).mean()
    torch.testing.assert_close(torch.autograd.grad(first, v), torch.autograd.grad(second, v))


@pytest.mark.parametrize("loss", [lambda q, y: td.squared_td(q, y), lambda q, y: td.huber_td(q, y, 1.0)])
def test_one_target_serves_all_critics_and_gets_no_gradient(loss):
    value, target = torch.zeros(3, 2, requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    actual = loss(value, target)
    assert actual.shape == (3, 2)
    actual.sum().backward()
    assert target.grad is None
    assert value.grad is not None
    assert (value.grad < 0).all()


def test_mistakes_are_named():
    one = torch.zeros(1)
    with pytest.raises(UsageError, match="discount"):
        td.td_target(one, one, one, 1.5)
    with pytest.raises(UsageError, match="above high"):
        td.td_target(one, one, one, 0.9, low=1, high=0)
    with pytest.raises(UsageError, match="level"):
        td.quantile(one.unsqueeze(0), -0.1)
    with pytest.raises(UsageError, match="two critics"):
        td.lower_confidence_bound(one.unsqueeze(0), 1.0)
    with pytest.raises(UsageError, match="threshold"):
        td.huber_td(one, one, 0.0)
