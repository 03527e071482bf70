"""Gaussian laws, checked against torch.distributions and numbers by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributions as D

from braid.errors import UsageError
from braid.losses import gaussian

CASES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 999))


def laws(batch, actions, seed, count=2):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, actions, generator=generator, dtype=torch.float64) for _ in range(count)]


@settings(deadline=None, max_examples=25)
@given(CASES)
def test_densities_are_those_of_torch(case):
    mean, log_std, noise = laws(*case, count=3)
    plain = D.Independent(D.Normal(mean, log_std.exp()), 1)
    torch.testing.assert_close(gaussian.log_prob(noise, mean, log_std), plain.log_prob(noise))
    torch.testing.assert_close(gaussian.entropy(log_std), plain.entropy())
    squashed = D.TransformedDistribution(plain, [D.TanhTransform(cache_size=1)])
    action = torch.tanh(noise)
    expected = squashed.log_prob(action)
    torch.testing.assert_close(gaussian.squashed_log_prob(noise, mean, log_std), expected)
    torch.testing.assert_close(
        gaussian.squashed_log_prob_of_action(action, mean, log_std, margin=1e-12), expected, atol=1e-6, rtol=1e-6
    )


@settings(deadline=None, max_examples=25)
@given(CASES)
def test_the_divergence_is_that_of_torch(case):
    mean, log_std, other_mean, other_log_std = laws(*case, count=4)
    first, second = D.Normal(mean, log_std.exp()), D.Normal(other_mean, other_log_std.exp())
    actual = gaussian.kl(mean, log_std, other_mean, other_log_std)
    torch.testing.assert_close(actual, D.kl_divergence(first, second).sum(-1))
    assert (actual >= 0).all()
    torch.testing.assert_close(gaussian.kl(mean, log_std, mean, log_std), torch.zeros(case[0], dtype=torch.float64))


def test_divergences_by_hand():
    zero, one = torch.zeros(1), torch.ones(1)
    assert gaussian.kl(one, zero, zero, zero).item() == 0.5
    # ACT's divergence from the standard normal, -(1 + log var - mean^2 - var) / 2, summed over the latent
    mean, log_std = torch.tensor([0.3, -1.0]), torch.tensor([0.2, -0.5])
    expected = -0.5 * (1 + 2 * log_std - mean.square() - (2 * log_std).exp()).sum()
    torch.testing.assert_close(gaussian.kl(mean, log_std, torch.zeros(2), torch.zeros(2)), expected)


def test_the_squashed_density_at_the_origin():
    assert gaussian.squashed_log_prob_of_action(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1)).item() == (
        pytest.approx(-0.9189385)
    )


def test_the_squashed_density_integrates_to_one():
    grid = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    middle = ((grid[1:] + grid[:-1]) / 2).unsqueeze(-1)
    law = torch.tensor([0.4]).double(), torch.tensor([-0.3]).double()
    density = gaussian.squashed_log_prob_of_action(middle, *law, margin=1e-12).exp()
    assert (density.sum() * (grid[1] - grid[0])).item() == pytest.approx(1, abs=1e-4)


def test_saturated_samples_stay_finite_with_finite_gradients():
    pre_tanh = torch.tensor([[40.0, -40.0]], requires_grad=True)
    log_prob = gaussian.squashed_log_prob(pre_tanh, torch.tensor([[40.0, -40.0]]), torch.zeros(2))
    # log N(0) - log(4 exp(-80)) per dimension
    assert log_prob.item() == pytest.approx(2 * (-0.9189385 - (math.log(4) - 80)), rel=1e-6)
    assert torch.isfinite(torch.autograd.grad(log_prob.sum(), pre_tanh)[0]).all()
    recorded = gaussian.squashed_log_prob_of_action(torch.tensor([[1.0, -1.0]]), torch.zeros(1, 2), torch.zeros(2))
    assert torch.isfinite(recorded).all()


def test_a_mixture_by_hand_and_against_torch():
    # Two components at 0 with stds 1 and 2 and weights 1/4 and 3/4.
    logits = torch.tensor([[math.log(1.0), math.log(3.0)]])
    log_std = torch.tensor([[[0.0], [math.log(2.0)]]])
    density = gaussian.mixture_log_prob(torch.zeros(1, 1), logits, torch.zeros(1, 2, 1), log_std).exp()
    assert density.item() == pytest.approx((0.25 + 0.75 / 2) / math.sqrt(2 * math.pi))
    generator = torch.Generator().manual_seed(0)
    logits, action = (torch.randn(4, n, generator=generator, dtype=torch.float64) for n in (5, 3))
    mean, log_std = (torch.randn(4, 5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    law = D.MixtureSameFamily(D.Categorical(logits=logits), D.Independent(D.Normal(mean, log_std.exp()), 1))
    torch.testing.assert_close(gaussian.mixture_log_prob(action, logits, mean, log_std), law.log_prob(action))


def test_a_mixture_of_one_is_its_component():
    mean, log_std = laws(4, 2, 0)
    action = torch.zeros(4, 2, dtype=torch.float64)
    single = gaussian.mixture_log_prob(action, torch.full((4, 1), 7.0), mean.unsqueeze(1), log_std.unsqueeze(1))
    torch.testing.assert_close(single, gaussian.log_prob(action, mean, log_std))


def test_what_an_ensemble_says_together():
    mean, variance = gaussian.mixture_of_predictions(torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1))
    assert (mean.item(), variance.item()) == (0.5, 0.25)
    mean, variance = gaussian.mixture_of_predictions(torch.tensor([[3.0]]), torch.tensor([[2.0]]))
    assert (mean.item(), variance.item()) == (3.0, 4.0)


def test_a_margin_without_sense_is_named():
    with pytest.raises(UsageError, match="margin"):
        gaussian.squashed_log_prob_of_action(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1), margin=0.0)
