"""Imitation weighted by a critic."""

import math

import pytest
import torch

from braid.errors import UsageError
from braid.losses import behaviour_cloning, weighted_imitation
from braid.losses.regression import expectile


def test_weights_by_hand():
    weight = weighted_imitation.exponential_weight(torch.tensor([0.0, 1.0, -1.0, 10.0, 1e6]), 3.0)
    torch.testing.assert_close(weight, torch.tensor([1.0, math.exp(3), math.exp(-3), 100.0, 100.0]))
    assert weight[3].item() == 100.0


def test_weights_are_constants():
    advantage, loss = torch.tensor([0.5], requires_grad=True), torch.tensor([2.0], requires_grad=True)
    weighted = weighted_imitation.advantage_weighted(loss, advantage, 2.0)
    assert weighted.item() == pytest.approx(2 * math.e)
    gradients = torch.autograd.grad(weighted.sum(), [advantage, loss], allow_unused=True)
    assert gradients[0] is None
    assert gradients[1].item() == pytest.approx(math.e)


def test_at_inverse_temperature_zero_it_is_imitation():
    loss = torch.tensor([1.0, -4.0])
    assert weighted_imitation.advantage_weighted(loss, torch.tensor([5.0, -5.0]), 0.0).tolist() == [1.0, -4.0]


def test_robust_iql_without_advantages_is_behaviour_cloning():
    prediction, action = torch.tensor([[0.5, 0.0], [0.2, 0.1]]), torch.tensor([[0.0, 0.0], [0.2, 0.3]])
    value = torch.tensor([1.0, 2.0])
    advantage = value - value
    assert expectile(value, value, 0.5).tolist() == [0.0, 0.0]
    error = behaviour_cloning.action_error(prediction, action, dimensions="sum")
    torch.testing.assert_close(weighted_imitation.advantage_weighted(error, advantage, 3.0), torch.tensor([0.25, 0.04]))


def test_td3_bc_by_hand_and_its_scale_is_free_of_the_rewards():
    value = torch.tensor([4.0, -2.0], requires_grad=True)
    action, data = torch.tensor([[0.5, 0.0], [0.0, 1.0]], requires_grad=True), torch.zeros(2, 2)
    loss = weighted_imitation.td3_bc(value, action, data, alpha=2.5)
    # lambda = 2.5 / 3; the squared distances have the means 0.125 and 0.5
    torch.testing.assert_close(loss, torch.tensor([-10 / 3 + 0.125, 5 / 3 + 0.5]))
    slopes = torch.autograd.grad(loss.mean(), [value, action])
    torch.testing.assert_close(slopes[0], torch.full((2,), -2.5 / 3 / 2))
    torch.testing.assert_close(slopes[1], action.detach() / 2)  # 2 (pi - a) / (B A)
    scaled = weighted_imitation.td3_bc(1000 * value, action, data, alpha=2.5)
    torch.testing.assert_close(scaled, loss)


def test_with_alpha_zero_it_is_behaviour_cloning_even_for_values_of_zero():
    action, data = torch.tensor([[0.3]], requires_grad=True), torch.tensor([[0.1]], requires_grad=True)
    loss = weighted_imitation.td3_bc(torch.zeros(1), action, data, alpha=0.0)
    torch.testing.assert_close(loss, torch.tensor([0.04]))
    gradients = torch.autograd.grad(loss.sum(), [action, data], allow_unused=True)
    torch.testing.assert_close(gradients[0], torch.tensor([[0.4]]))
    assert gradients[1] is None
    guarded = weighted_imitation.td3_bc(torch.zeros(1), action, data, alpha=2.5, epsilon=1e-8)
    torch.testing.assert_close(guarded, torch.tensor([0.04]))


@pytest.mark.parametrize(("weight", "squares", "nearest"), [(1.0, [0.97, 0.37], 1), (10.0, [16.81, 36.01], 0)])
def test_the_nearest_pair_by_hand(weight, squares, nearest):
    """Data (0, 0) and (1, 1), s = 0.4, pi(s) = 0.9."""
    pairs = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    distance = weighted_imitation.pair_distance(
        torch.tensor([0.4]).double(), torch.tensor([0.9]).double(), pairs, pairs, weight
    )
    torch.testing.assert_close(distance.square(), torch.tensor(squares, dtype=torch.float64))
    assert distance.argmin().item() == nearest


def test_limits_of_the_state_weight():
    generator = torch.Generator().manual_seed(0)
    states, actions = torch.randn(50, 3, generator=generator), torch.rand(50, 2, generator=generator)
    chosen = torch.rand(50, 2, generator=generator)
    args = states.unsqueeze(1), chosen.unsqueeze(1), states, actions
    only_state = weighted_imitation.pair_distance(*args, 1e6).argmin(-1)
    assert only_state.tolist() == list(range(50))  # every state is nearest to itself, so its own action is imitated
    only_action = weighted_imitation.pair_distance(*args, 0.0)
    torch.testing.assert_close(only_action, torch.cdist(chosen, actions), atol=1e-5, rtol=1e-4)


def test_an_action_of_the_data_is_free_and_pulls_nowhere():
    action = torch.tensor([[0.2, -0.4]], requires_grad=True)
    data = action.detach().clone()
    for loss in (
        weighted_imitation.data_constraint(action, data),
        weighted_imitation.pair_distance(torch.ones(1, 3), action, torch.ones(1, 3), data, 2.0),
    ):
        assert loss.item() == 0
        assert torch.autograd.grad(loss.sum(), action)[0].tolist() == [[0.0, 0.0]]


def test_the_distance_and_the_constraint_pull_the_same_way():
    action, data = torch.tensor([[0.2, -0.4]], requires_grad=True), torch.tensor([[0.5, 0.5]])
    distance = weighted_imitation.pair_distance(torch.zeros(1, 1), action, torch.ones(1, 1), data, 2.0)
    first = torch.autograd.grad(distance.sum(), action)[0]
    second = torch.autograd.grad(weighted_imitation.data_constraint(action, data).sum(), action)[0]
    torch.testing.assert_close(first / first.norm(), second / second.norm())


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="agree"):
        weighted_imitation.data_constraint(torch.zeros(4, 2), torch.zeros(4, 1, 2))
    with pytest.raises(UsageError, match="alpha"):
        weighted_imitation.td3_bc(torch.ones(1), torch.zeros(1, 1), torch.zeros(1, 1), alpha=-1)
    with pytest.raises(UsageError, match="inverse_temperature"):
        weighted_imitation.exponential_weight(torch.zeros(1), -1.0)
