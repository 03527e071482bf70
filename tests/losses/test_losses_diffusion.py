"""Denoising losses and noise levels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses import diffusion, noise_levels

KINDS = ["noise", "sample", "velocity"]


def chunk(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_noise_by_hand():
    sample, noise = torch.tensor([[2.0], [2.0]]), torch.tensor([[1.0], [1.0]])
    level = torch.tensor([0.64, 0.36])
    torch.testing.assert_close(diffusion.add_noise(sample, noise, level), torch.tensor([[2.2], [2.0]]))
    torch.testing.assert_close(
        diffusion.denoising_target(sample, noise, level, "velocity"), torch.tensor([[0.8 - 1.2], [0.6 - 1.6]])
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_prediction_costs_nothing_and_recovers_the_sample_from_any_level(kind):
    sample, noise = chunk(0, 100, 4, 2), chunk(1, 100, 4, 2)
    level = noise_levels.cosine_alpha_bar(100).double()
    noisy = diffusion.add_noise(sample, noise, level)
    output = diffusion.denoising_target(sample, noise, level, kind)
    assert diffusion.denoising(output, sample, noise, level, kind).max() == 0
    torch.testing.assert_close(diffusion.denoised(output, noisy, level, kind), sample, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(diffusion.implied_noise(sample, noisy, level), noise)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_differ_by_a_weight_for_every_level(kind):
    """The error of the implied sample, times 1, (alpha-bar) / (1 - alpha-bar) or 1 / (1 - alpha-bar)."""
    sample, noise, output = chunk(0, 5, 3), chunk(1, 5, 3), chunk(2, 5, 3)
    level = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    error = diffusion.denoised(output, diffusion.add_noise(sample, noise, level), level, kind) - sample
    weight = {"noise": level / (1 - level), "sample": torch.ones(5).double(), "velocity": 1 / (1 - level)}[kind]
    torch.testing.assert_close(
        diffusion.denoising(output, sample, noise, level, kind), weight.unsqueeze(-1) * error.square()
    )


def test_the_velocitys_limits():
    sample, noise = chunk(0, 2, 3), chunk(1, 2, 3)
    target = diffusion.denoising_target(sample, noise, torch.tensor([1.0, 0.0]).double(), "velocity")
    torch.testing.assert_close(target, torch.stack([noise[0], -sample[1]]))


def test_the_squared_cosine_schedule():
    share = noise_levels.cosine_alpha_bar(100).double()

    def f(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    for k in (0, 49, 98):  # the product telescopes as long as no step is bounded
        assert share[k].item() == pytest.approx(f((k + 1) / 100) / f(0), rel=1e-5)
    assert share[99].item() == pytest.approx(share[98].item() * 0.001, rel=1e-4)
    assert (share.diff() < 0).all()


@settings(deadline=None, max_examples=30)
@given(sigma=st.floats(1e-4, 100), sigma_data=st.floats(0.05, 5))
def test_preconditioning_identities(sigma, sigma_data):
    level = torch.tensor([sigma], dtype=torch.float64)
    factors = diffusion.preconditioning(level, sigma_data)
    assert (factors.input.square() * (sigma**2 + sigma_data**2)).item() == pytest.approx(1)
    assert factors.output.item() == pytest.approx(sigma * sigma_data * factors.input.item())
    assert factors.skip.item() == pytest.approx(sigma_data**2 / (sigma**2 + sigma_data**2))
    assert factors.noise.item() == pytest.approx(math.log(sigma) / 4)
    assert diffusion.edm_weight(level, sigma_data).item() == pytest.approx(1 / factors.output.item() ** 2)
    sample, noise, output = chunk(0, 1, 3), chunk(1, 1, 3), chunk(2, 1, 3)
    noisy = sample + sigma * noise
    weighted = (
        diffusion.edm_weight(level, sigma_data)
        * (diffusion.edm_denoised(output, noisy, level, sigma_data) - sample).square()
    )
    torch.testing.assert_close(diffusion.edm(output, sample, noise, level, sigma_data), weighted, rtol=1e-5, atol=1e-7)
    target = (sample - factors.skip * noisy) / factors.output
    torch.testing.assert_close(diffusion.edm_target(sample, noise, level, sigma_data), target, rtol=1e-5, atol=1e-7)


def test_without_noise_the_denoiser_is_the_identity():
    sample, noise = chunk(0, 1, 3), chunk(1, 1, 3)
    level = torch.tensor([1e-12], dtype=torch.float64)
    factors = diffusion.preconditioning(level, 0.5)
    assert (factors.skip.item(), factors.output.item()) == (pytest.approx(1), pytest.approx(0, abs=1e-11))
    torch.testing.assert_close(diffusion.edm_denoised(chunk(2, 1, 3), sample, level, 0.5), sample)
    torch.testing.assert_close(diffusion.edm_target(sample, noise, torch.zeros(1).double(), 0.5), -noise)
    large = diffusion.edm_target(sample, noise, torch.tensor([1e12]).double(), 0.5)
    torch.testing.assert_close(large, sample / 0.5)


@pytest.mark.parametrize("sigma", [0.01, 0.5, 20.0])
def test_for_gaussian_data_silence_is_optimal_and_costs_one(sigma):
    sample, noise = 0.5 * chunk(0, 100_000, 1), chunk(1, 100_000, 1)
    level = torch.full((100_000,), sigma, dtype=torch.float64)
    loss = diffusion.edm(torch.zeros(100_000, 1).double(), sample, noise, level, 0.5)
    assert loss.mean().item() == pytest.approx(1, abs=0.02)
    # The target is uncorrelated with the input of the network, so nothing better than 0 can be said of it.
    target = diffusion.edm_target(sample, noise, level, 0.5)
    assert (target * (sample + sigma * noise)).mean().item() == pytest.approx(0, abs=0.02 * max(sigma, 0.5))


def test_steps_with_the_gaussian_denoiser_follow_the_closed_form():
    levels = torch.tensor([1.0, 0.3, 0.05, 0.0], dtype=torch.float64)
    start = x = chunk(0, 4, 2)
    expected = 1.0
    for i in range(3):
        sigma, following = levels[i], levels[i + 1]
        denoised = diffusion.edm_denoised(torch.zeros_like(x), x, sigma.expand(4), 0.5)
        ddim = following / sigma * x + (1 - following / sigma) * denoised
        euler = x + (x - denoised) / sigma * (following - sigma)
        torch.testing.assert_close(ddim, euler, atol=1e-10, rtol=0)
        expected *= ((sigma * following + 0.25) / (sigma**2 + 0.25)).item()
        x = ddim
    torch.testing.assert_close(x, start * expected)


def test_gradients_reach_the_network_alone():
    output = torch.zeros(2, 3, requires_grad=True)
    sample, noise = torch.ones(2, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    level = torch.full((2,), 0.5)
    for loss in (
        *(diffusion.denoising(output, sample, noise, level, kind) for kind in KINDS[:2]),
        diffusion.edm(output, sample, noise, level, 0.1),
    ):
        gradients = torch.autograd.grad(loss.sum(), [output, sample, noise], allow_unused=True)
        assert gradients[0].abs().min() > 0
        assert gradients[1:] == (None, None)


def test_log_logistic_levels():
    uniform = torch.tensor([0.0, 0.5, 0.25, 1 - 1e-7])
    levels = noise_levels.log_logistic(uniform, 0.05, 5.0, math.log(0.5))
    # The range is symmetric about log 0.5, so the middle rank is the median and the ends are the bounds.
    assert levels[0].item() == pytest.approx(0.05, rel=1e-5)
    assert levels[1].item() == pytest.approx(0.5, rel=1e-5)
    assert levels[3].item() == pytest.approx(5.0, rel=1e-4)

    def distribution(x):
        return 1 / (1 + math.exp(-(math.log(x) - math.log(0.5)) / 0.5))

    share = (distribution(levels[2].item()) - distribution(0.05)) / (distribution(5.0) - distribution(0.05))
    assert share == pytest.approx(0.25, rel=1e-5)


def test_log_normal_levels():
    levels = noise_levels.log_normal(torch.tensor([0.0, 1.0]), -0.6, 1.6)
    torch.testing.assert_close(levels, torch.tensor([math.exp(-0.6), math.e]))


def test_mistakes_are_named():
    one = torch.zeros(1, 1)
    with pytest.raises(UsageError, match="sample"):
        diffusion.denoising(one, one, one, torch.ones(1), "samples")
    with pytest.raises(UsageError, match="same shape"):
        diffusion.denoising(torch.zeros(2, 1), torch.zeros(2, 1, 1), torch.zeros(2, 1, 1), torch.ones(2))
    with pytest.raises(UsageError, match="sigma_data"):
        diffusion.edm(one, one, one, torch.ones(1), 0.0)
    with pytest.raises(UsageError, match="low=2"):
        noise_levels.log_logistic(torch.zeros(1), 2.0, 1.0, 0.0)
    with pytest.raises(UsageError, match="steps"):
        noise_levels.cosine_alpha_bar(0)
