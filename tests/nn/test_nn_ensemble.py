"""An ensemble is its members, evaluated together."""

import pytest
import torch

from braid.errors import UsageError
from braid.losses.conservative import gradient_alignment
from braid.nn.ensemble import CriticEnsemble, MLPEnsemble
from braid.nn.initialisation import SMALL_OUTPUT
from braid.nn.mlp import MLP


def seed(number=0):
    return torch.Generator().manual_seed(number)


def draw(number, *shape):
    return torch.randn(*shape, generator=seed(number))


def members(count=3, inputs=5, outputs=1, **options):
    generator = seed(count)
    return [MLP(inputs, (8, 7), outputs, generator=generator, **options) for _ in range(count)]


@pytest.mark.parametrize(
    "options", [{}, {"layer_norm": True, "activation": "silu"}, {"initialisation": SMALL_OUTPUT, "activation": "tanh"}]
)
def test_outputs_are_those_of_the_members(options):
    nets = members(outputs=2, **options)
    ensemble = MLPEnsemble(nets)
    shared, own = draw(1, 6, 5), draw(2, 3, 6, 5)
    torch.testing.assert_close(ensemble(shared), torch.stack([net(shared) for net in nets]))
    torch.testing.assert_close(ensemble(own), torch.stack([net(x) for net, x in zip(nets, own, strict=True)]))


@pytest.mark.parametrize("layer_norm", [False, True])
def test_training_together_is_training_apart(layer_norm):
    nets = members(layer_norm=layer_norm)
    ensemble = MLPEnsemble(nets)
    x, y = draw(1, 16, 5), draw(2, 3, 16, 1)
    together = torch.optim.Adam(ensemble.parameters(), lr=1e-2)
    apart = [torch.optim.Adam(net.parameters(), lr=1e-2) for net in nets]
    for _ in range(5):
        together.zero_grad()
        (ensemble(x) - y).square().mean((1, 2)).sum().backward()
        together.step()
        for net, optimiser, target in zip(nets, apart, y, strict=True):
            optimiser.zero_grad()
            (net(x) - target).square().mean().backward()
            optimiser.step()
    torch.testing.assert_close(ensemble(x), torch.stack([net(x) for net in nets]), atol=1e-5, rtol=1e-4)


def test_members_are_copied_and_dropout_is_their_own():
    nets = members()
    ensemble = MLPEnsemble(nets)
    x = draw(1, 4, 5)
    before = ensemble(x)
    with torch.no_grad():
        nets[0].layers[0].weight.zero_()
    assert torch.equal(ensemble(x), before)
    twins = [MLP(5, (64,), 1, generator=seed(5), dropout=0.5) for _ in range(2)]
    dropped = MLPEnsemble(twins)
    values = dropped(x)
    assert not torch.equal(values[0], values[1])
    dropped.eval()
    assert torch.equal(*dropped(x))


def test_state_survives_saving():
    first, second = MLPEnsemble(members(layer_norm=True)), MLPEnsemble(members(layer_norm=True)[::-1])
    x = draw(1, 4, 5)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))
    assert all(isinstance(each, torch.nn.Parameter) for each in first.weights)


def test_critics_see_pairs_with_any_leading_axes():
    nets = members(inputs=5)
    critics = CriticEnsemble(nets)
    observation, action = draw(1, 4, 3), draw(2, 4, 2)
    pairs = torch.cat([observation, action], -1)
    expected = torch.stack([net(pairs).squeeze(-1) for net in nets])
    torch.testing.assert_close(critics(observation, action), expected)
    many = draw(3, 4, 6, 2)  # six actions for each state
    values = critics(observation.unsqueeze(1), many)
    assert values.shape == (3, 4, 6)
    torch.testing.assert_close(values[:, :, 2], critics(observation, many[:, 2]))


def test_slopes_with_respect_to_the_action_are_each_critics_own():
    nets = members(inputs=5, activation="tanh")
    critics = CriticEnsemble(nets)
    observation, action = draw(1, 4, 3), draw(2, 4, 2)
    value, slope = critics.value_and_slope(observation, action)
    torch.testing.assert_close(value, critics(observation, action))
    for net, own in zip(nets, slope, strict=True):
        leaf = action.clone().requires_grad_(True)
        (expected,) = torch.autograd.grad(net(torch.cat([observation, leaf], -1)).sum(), leaf)
        torch.testing.assert_close(own, expected)


def test_descending_the_alignment_diversifies():
    critics = CriticEnsemble(members(count=4, inputs=5, activation="tanh"))
    observation, action = draw(1, 32, 3), draw(2, 32, 2)
    optimiser = torch.optim.Adam(critics.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        loss = gradient_alignment(critics.value_and_slope(observation, action)[1]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="at least one"):
        MLPEnsemble([])
    with pytest.raises(UsageError, match="must agree"):
        MLPEnsemble([MLP(2, (3,), 1, generator=seed()), MLP(2, (4,), 1, generator=seed())])
    with pytest.raises(UsageError, match="must be"):
        MLPEnsemble(members())(torch.zeros(2, 4, 5))
    with pytest.raises(UsageError, match="one output"):
        CriticEnsemble(members(outputs=2))
