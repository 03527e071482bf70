"""The perceptron and initial weights."""

import math

import pytest
import torch
from torch.nn import functional as F

from braid.errors import UsageError
from braid.nn.initialisation import ORTHOGONAL, SMALL_OUTPUT, Initialisation, seeded_by
from braid.nn.mlp import MLP


def seed(number=0):
    return torch.Generator().manual_seed(number)


def test_it_is_linear_norm_activation_linear():
    mlp = MLP(3, (5, 4), 2, generator=seed(), activation="tanh", layer_norm=True)
    x = torch.randn(6, 7, 3, generator=seed(1))
    expected = x
    for i in range(2):
        width = mlp.layers[i].out_features
        expected = F.linear(expected, mlp.layers[i].weight, mlp.layers[i].bias)
        expected = torch.tanh(F.layer_norm(expected, (width,)))
    expected = F.linear(expected, mlp.layers[2].weight, mlp.layers[2].bias)
    torch.testing.assert_close(mlp(x), expected)
    assert mlp(x).shape == (6, 7, 2)


def test_by_hand():
    mlp = MLP(1, (2,), 1, generator=seed())
    with torch.no_grad():
        mlp.layers[0].weight.copy_(torch.tensor([[1.0], [-2.0]]))
        mlp.layers[0].bias.copy_(torch.tensor([0.5, 0.0]))
        mlp.layers[1].weight.copy_(torch.tensor([[2.0, 3.0]]))
        mlp.layers[1].bias.fill_(-1.0)
    assert mlp(torch.tensor([[1.0], [-1.0]])).flatten().tolist() == [2.0, 5.0]  # 2 * 1.5 - 1, 3 * 2 - 1


def test_weights_depend_on_the_generator_alone():
    before = torch.get_rng_state()
    first = MLP(3, (4,), 2, generator=seed(7))
    torch.manual_seed(99)
    second = MLP(3, (4,), 2, generator=seed(7))
    other = MLP(3, (4,), 2, generator=seed(8))
    for a, b, c in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    torch.set_rng_state(before)
    MLP(3, (4,), 2, generator=seed(7))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_generator_makes_one_network_after_another():
    generator = seed()
    first, second = (MLP(3, (4,), 2, generator=generator) for _ in range(2))
    assert not torch.equal(first.layers[0].weight, second.layers[0].weight)


def test_the_global_state_survives_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="size"), seeded_by(seed()):
        torch.rand(3) + torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights():
    mlp = MLP(8, (8, 8), 8, generator=seed(), initialisation=ORTHOGONAL)
    torch.testing.assert_close(mlp.layers[0].weight @ mlp.layers[0].weight.T, 2 * torch.eye(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(mlp.layers[2].weight @ mlp.layers[2].weight.T, torch.eye(8), atol=1e-5, rtol=0)
    assert mlp.layers[1].bias.tolist() == [0.0] * 8
    small = MLP(8, (8,), 500, generator=seed(), initialisation=SMALL_OUTPUT)
    assert small.layers[0].bias.unique().item() == pytest.approx(0.1)
    for tensor in (small.layers[1].weight, small.layers[1].bias):
        assert 2.8e-3 < tensor.abs().max() <= 3e-3
    plain = MLP(16, (1000,), 1, generator=seed())
    assert 0.24 < plain.layers[0].weight.abs().max() <= 1 / math.sqrt(16)


def test_dropout_drops_in_training_only_and_layer_by_layer():
    mlp = MLP(4, (1000, 1000), 1, generator=seed(), dropout=(0.0, 0.9))
    x = torch.ones(1, 4)
    mlp.eval()
    assert torch.equal(mlp(x), mlp(x))
    mlp.train()
    assert not torch.equal(mlp(x), mlp(x))
    with torch.no_grad():  # what the last layer sees: a tenth of the units, ten times as large
        mlp.layers[1].weight.zero_()
        mlp.layers[1].bias.fill_(1.0)
        mlp.layers[2].weight.fill_(1 / 1000)
        mlp.layers[2].bias.zero_()
    assert mlp(x).item() == pytest.approx(1.0, abs=0.3)


def test_no_hidden_layer_is_a_linear_map():
    mlp = MLP(3, (), 2, generator=seed())
    x = torch.randn(5, 3, generator=seed(1))
    torch.testing.assert_close(mlp(2 * x) - mlp(x), mlp(x) - mlp(torch.zeros(5, 3)))


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="activation"):
        MLP(1, (1,), 1, generator=seed(), activation="rely")
    with pytest.raises(UsageError, match="every size"):
        MLP(1, (0,), 1, generator=seed())
    with pytest.raises(UsageError, match="dropout"):
        MLP(1, (1,), 1, generator=seed(), dropout=1.0)
    with pytest.raises(UsageError, match="2 entries for 1"):
        MLP(1, (1,), 1, generator=seed(), dropout=(0.1, 0.1))
    with pytest.raises(UsageError, match="orthogonal"):
        Initialisation(weights="ortho")
