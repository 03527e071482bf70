"""Policies: what they say of an action and how they draw one."""

import pytest
import torch
from torch import distributions as D

from braid.errors import UsageError
from braid.nn.actors import (
    CategoricalActor,
    DeterministicActor,
    GaussianActor,
    GaussianMixtureActor,
    SquashedGaussianActor,
)
from braid.nn.mlp import MLP

S, A = 3, 2


def seed(number=0):
    return torch.Generator().manual_seed(number)


def mlp(outputs):
    return MLP(S, (16,), outputs, generator=seed())


def observations(*shape):
    return torch.randn(*shape, S, generator=seed(1))


def test_deterministic_actions_stay_within_their_limit():
    actor = DeterministicActor(mlp(A), limit=2.0)
    action = actor(1000 * observations(50))
    assert action.abs().max() <= 2
    torch.testing.assert_close(actor(observations(4)), 2 * torch.tanh(actor.network(observations(4))))
    with pytest.raises(UsageError, match="limit"):
        DeterministicActor(mlp(A), limit=0)


@pytest.mark.parametrize(("std", "outputs"), [("free", A), ("dependent", 2 * A)])
def test_gaussian_actors_are_torchs(std, outputs):
    actor = GaussianActor(mlp(outputs), A, std=std, squash_mean=True, initial_log_std=-0.5)
    observation = observations(5, 4)
    mean, log_std = actor(observation)
    law = D.Independent(D.Normal(mean, log_std.exp()), 1)
    action, log_prob = actor.sample(observation, seed(2))
    torch.testing.assert_close(log_prob, law.log_prob(action))
    torch.testing.assert_close(actor.log_prob(observation, action), log_prob)
    torch.testing.assert_close(actor.mode(observation), mean)
    assert mean.abs().max() < 1
    assert action.shape == (5, 4, A)


def test_a_free_std_is_learned_bounded_and_the_same_everywhere():
    actor = GaussianActor(mlp(A), A, log_std_bounds=(-2.0, 1.0), initial_log_std=-7.0)
    _, log_std = actor(observations(5))
    assert log_std.unique().item() == -2.0
    assert "log_std" in actor.state_dict()
    assert GaussianActor(mlp(2 * A), A, std="dependent").log_std is None


def test_squashed_actors_are_torchs():
    actor = SquashedGaussianActor(mlp(2 * A))
    observation = observations(6)
    mean, log_std = actor(observation)
    law = D.TransformedDistribution(D.Independent(D.Normal(mean, log_std.exp()), 1), [D.TanhTransform(cache_size=1)])
    action, log_prob = actor.sample(observation, seed(2))
    torch.testing.assert_close(log_prob, law.log_prob(action), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(actor.log_prob(observation, action), log_prob, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(actor.mode(observation), torch.tanh(mean))
    assert action.abs().max() <= 1


def test_squashed_log_stds_are_bounded_in_both_ways():
    huge = torch.nn.Identity()
    output = torch.tensor([[0.0, 0.0, -100.0, 100.0], [0.0, 0.0, 0.0, 1.0]])
    clipped = SquashedGaussianActor(huge)(output)[1]
    assert clipped.tolist() == [[-5.0, 2.0], [0.0, 1.0]]
    smooth = SquashedGaussianActor(huge, bounding="tanh")(output)[1]
    assert smooth[0].tolist() == [-5.0, 2.0]
    assert smooth[1, 0].item() == -1.5
    assert SquashedGaussianActor(huge, log_std_offset=-1.0)(output)[1][1].tolist() == [-1.0, 0.0]


def test_sampled_actions_carry_a_gradient_and_saturation_stays_finite():
    actor = SquashedGaussianActor(mlp(2 * A))
    with torch.no_grad():
        actor.network.layers[1].bias.fill_(30.0)
    action, log_prob = actor.sample(observations(8), seed(2))
    assert action.abs().max() == 1
    (action.sum() + log_prob.sum()).backward()
    assert torch.isfinite(log_prob).all()
    assert all(torch.isfinite(p.grad).all() for p in actor.parameters())
    assert actor.network.layers[1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "actor",
    [
        GaussianActor(mlp(A), A),
        SquashedGaussianActor(mlp(2 * A)),
        GaussianMixtureActor(mlp(5 * (1 + 2 * A)), A),
        CategoricalActor(mlp(A)),
    ],
    ids=lambda actor: type(actor).__name__,
)
def test_samples_depend_on_the_generator_alone(actor):
    def draw(number):
        drawn = actor.sample(observations(64), seed(number))
        return drawn if isinstance(drawn, torch.Tensor) else drawn[0]

    first = draw(3)
    torch.manual_seed(5)
    assert torch.equal(first, draw(3))
    assert not torch.equal(first, draw(4))


def test_samples_follow_the_law():
    actor = GaussianActor(mlp(A), A, initial_log_std=-1.0)
    observation = observations(1).expand(40_000, S)
    action, _ = actor.sample(observation, seed(2))
    torch.testing.assert_close(action.mean(0), actor.mode(observation)[0], atol=0.01, rtol=0)
    torch.testing.assert_close(action.std(0), torch.full((A,), -1.0).exp(), atol=0.01, rtol=0)
    categorical = CategoricalActor(mlp(A))
    drawn, _ = categorical.sample(observation, seed(2))
    probability = torch.softmax(categorical(observation[:1]), -1)[0, 1].item()
    assert drawn.float().mean().item() == pytest.approx(probability, abs=0.01)


def test_mixtures_are_torchs():
    actor = GaussianMixtureActor(mlp(5 * (1 + 2 * A)), A)
    observation, action = observations(4, 3), torch.rand(4, 3, A, generator=seed(2))
    logits, mean, log_std = actor(observation)
    law = D.MixtureSameFamily(D.Categorical(logits=logits), D.Independent(D.Normal(mean, log_std.exp()), 1))
    torch.testing.assert_close(actor.log_prob(observation, action), law.log_prob(action))


def test_mixtures_keep_two_ways_apart():
    """Two components at +-tanh(2) with weights 1/4 and 3/4: samples lie at either, never between."""
    output = torch.tensor([0.0, 1.0986, 2.0, -2.0, -20.0, -20.0]).expand(20_000, 6)
    actor = GaussianMixtureActor(torch.nn.Identity(), 1, components=2)
    action = actor.sample(output, seed(2))
    first = (action - torch.tanh(torch.tensor(2.0))).abs() < 1e-2
    second = (action + torch.tanh(torch.tensor(2.0))).abs() < 1e-2
    assert (first | second).all()
    assert first.float().mean().item() == pytest.approx(0.25, abs=0.01)
    wide = torch.tensor([0.0, 1.0986, 2.0, -2.0, 1.0, 1.0]).expand(1000, 6)
    quiet = actor.sample(wide, seed(2), std=1e-4)
    assert (quiet.abs() - torch.tanh(torch.tensor(2.0))).abs().max() < 1e-3


def test_categorical_actors_are_torchs_and_obey_the_mask():
    actor = CategoricalActor(mlp(4))
    observation = observations(200)
    law = D.Categorical(logits=actor(observation))
    action, log_prob = actor.sample(observation, seed(2))
    torch.testing.assert_close(log_prob, law.log_prob(action))
    torch.testing.assert_close(actor.log_prob(observation, action), log_prob)
    torch.testing.assert_close(actor.entropy(observation), law.entropy())
    allowed = torch.tensor([True, False, True, False]).expand(200, 4)
    action, _ = actor.sample(observation, seed(2), allowed)
    assert set(action.tolist()) == {0, 2}
    assert set(actor.mode(observation, allowed).tolist()) <= {0, 2}
    assert torch.isfinite(actor.entropy(observation, allowed)).all()
    one = torch.tensor([False, False, False, True]).expand(200, 4)
    torch.testing.assert_close(actor.log_prob(observation, torch.full((200,), 3), one), torch.zeros(200))


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="std"):
        GaussianActor(mlp(A), A, std="fixed")
    with pytest.raises(UsageError, match="log_std_bounds"):
        SquashedGaussianActor(mlp(2 * A), log_std_bounds=(2.0, -5.0))
    with pytest.raises(UsageError, match="bounding"):
        SquashedGaussianActor(mlp(2 * A), bounding="none")
    with pytest.raises(UsageError, match="smallest_std"):
        GaussianMixtureActor(mlp(5), A, smallest_std=0.0)
