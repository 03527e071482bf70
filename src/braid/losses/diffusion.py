"""Denoising losses: DDPM-type noise at discrete levels, and EDM's continuous noise with its preconditioning.

Shapes: samples, noises and predictions are [B, ...] (actions [B, A] or chunks [B, H, A]); noise levels are [B], one for
each sample. Losses are per entry, [B, ...], and their mean over all entries is the published one; what is padding in
a chunk is left out by ``aggregation`` after a mean over the last axis. Flow matching is in ``flow_matching``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from torch import Tensor

from braid.errors import UsageError, unknown_name

Prediction = Literal["noise", "sample", "velocity"]


def expand_level(level: Tensor, like: Tensor) -> Tensor:
    """A level of every sample, with enough trailing axes to multiply the samples.

    Args:
        level: [B], or a scalar.
        like: [B, ...].

    Returns:
        [B, 1, ...], or the scalar.
    """
    return level if level.dim() == 0 else level.reshape(-1, *[1] * (like.dim() - 1))


def add_noise(sample: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noisy sample sqrt(alpha_bar) x + sqrt(1 - alpha_bar) noise, of the variance of x if that is 1.

    Args:
        sample: [B, ...].
        noise: [B, ...], standard normal.
        alpha_bar: [B], share of the signal's variance, in [0, 1]; 1 is clean.

    Returns:
        [B, ...].

    Source: DDPM, arXiv 2006.11239, equation 4.
    """
    signal = expand_level(alpha_bar, sample)
    return signal.sqrt() * sample + (1 - signal).sqrt() * noise


def denoising_target(sample: Tensor, noise: Tensor, alpha_bar: Tensor, prediction: Prediction = "noise") -> Tensor:
    """What a network of that kind should have said of ``add_noise(sample, noise, alpha_bar)``.

    Args:
        sample: [B, ...].
        noise: [B, ...].
        alpha_bar: [B], in [0, 1].
        prediction: the ``noise``, the clean ``sample``, or the ``velocity`` sqrt(alpha_bar) noise - sqrt(1 - alpha_bar)
            sample, which is the noise at alpha_bar 1 and minus the sample at 0.

    Returns:
        [B, ...], detached.

    Raises:
        UsageError: unknown kind.

    Source: arXiv 2006.11239; velocity arXiv 2202.00512, appendix D.
    """
    match prediction:
        case "noise":
            return noise.detach()
        case "sample":
            return sample.detach()
        case "velocity":
            signal = expand_level(alpha_bar, sample)
            return (signal.sqrt() * noise - (1 - signal).sqrt() * sample).detach()
        case _:
            raise unknown_name("prediction", prediction, get_args(Prediction))


def denoising(
    output: Tensor, sample: Tensor, noise: Tensor, alpha_bar: Tensor, prediction: Prediction = "noise"
) -> Tensor:
    """The squared error of a network's output for ``add_noise(sample, noise, alpha_bar)``.

    Args:
        output: [B, ...], of the network.
        sample: [B, ...].
        noise: [B, ...], the very noise that was added.
        alpha_bar: [B], in [0, 1].
        prediction: see ``denoising_target``.

    Returns:
        [B, ...], not negative.

    Raises:
        UsageError: unknown kind, or an output of another shape.

    Source: arXiv 2006.11239, equation 14; Diffusion Policy, arXiv 2303.04137, equation 3.
    """
    _check_shape(output, sample)
    return (output - denoising_target(sample, noise, alpha_bar, prediction)).square()


def denoised(output: Tensor, noisy: Tensor, alpha_bar: Tensor, prediction: Prediction = "noise") -> Tensor:
    """The clean sample that a network's output stands for.

    Args:
        output: [B, ...], of the network for ``noisy``.
        noisy: [B, ...].
        alpha_bar: [B], in [0, 1]; above 0 for ``noise``, which says nothing of the sample there.
        prediction: see ``denoising_target``.

    Returns:
        [B, ...].

    Raises:
        UsageError: unknown kind.

    Source: arXiv 2006.11239, equation 15; arXiv 2202.00512, appendix D.
    """
    signal = expand_level(alpha_bar, noisy)
    match prediction:
        case "noise":
            return (noisy - (1 - signal).sqrt() * output) / signal.sqrt()
        case "sample":
            return output
        case "velocity":
            return signal.sqrt() * noisy - (1 - signal).sqrt() * output
        case _:
            raise unknown_name("prediction", prediction, get_args(Prediction))


def implied_noise(sample: Tensor, noisy: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise between a (predicted) clean sample and a noisy one; over -sqrt(1 - alpha_bar) it is the score.

    Args:
        sample: [B, ...].
        noisy: [B, ...].
        alpha_bar: [B], in [0, 1).

    Returns:
        [B, ...].

    Source: arXiv 2010.02502, equation 12.
    """
    signal = expand_level(alpha_bar, noisy)
    return (noisy - signal.sqrt() * sample) / (1 - signal).sqrt()


class Preconditioning(NamedTuple):
    """How EDM wraps a network F: denoised = skip * noisy + output * F(input * noisy, noise).

    Args:
        skip: [B].
        output: [B].
        input: [B].
        noise: [B], log(sigma) / 4, what the network is told of the level.
    """

    skip: Tensor
    output: Tensor
    input: Tensor
    noise: Tensor


def preconditioning(sigma: Tensor, sigma_data: float) -> Preconditioning:
    """The factors that keep input and target of the network at variance 1 for every noise level.

    Args:
        sigma: [B], standard deviation of the added noise, in units of the data, above 0.
        sigma_data: standard deviation of the data, above 0.

    Returns:
        Four tensors [B].

    Raises:
        UsageError: a ``sigma_data`` that is not positive.

    Source: EDM, arXiv 2206.00364, table 1.
    """
    _check_sigma_data(sigma_data)
    total = (sigma.square() + sigma_data**2).sqrt()
    return Preconditioning((sigma_data / total).square(), sigma * sigma_data / total, 1 / total, sigma.log() / 4)


def edm_denoised(output: Tensor, noisy: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """The clean sample that the output of a preconditioned network stands for.

    Args:
        output: [B, ...], F(input * noisy, noise).
        noisy: [B, ...], sample + sigma * noise.
        sigma: [B], above 0.
        sigma_data: above 0.

    Returns:
        [B, ...]; the score of the noisy density is (denoised - noisy) / sigma^2.

    Raises:
        UsageError: a ``sigma_data`` that is not positive.

    Source: EDM, arXiv 2206.00364, equation 7.
    """
    factors = preconditioning(sigma, sigma_data)
    return expand_level(factors.skip, noisy) * noisy + expand_level(factors.output, noisy) * output


def edm_target(sample: Tensor, noise: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """What the network inside the preconditioning should say of sample + sigma * noise, (x - skip * noisy) / output.

    Written out it is (sigma / sigma_data * x - sigma_data * noise) / sqrt(sigma^2 + sigma_data^2), which does not
    divide by a small number at low noise: minus the noise at sigma 0, x / sigma_data as sigma grows.

    Args:
        sample: [B, ...].
        noise: [B, ...], standard normal.
        sigma: [B], at least 0.
        sigma_data: above 0.

    Returns:
        [B, ...], detached.

    Raises:
        UsageError: a ``sigma_data`` that is not positive.

    Source: EDM, arXiv 2206.00364, equation 8.
    """
    _check_sigma_data(sigma_data)
    level = expand_level(sigma, sample)
    total = (level.square() + sigma_data**2).sqrt()
    return ((level / sigma_data * sample - sigma_data * noise) / total).detach()


def edm(output: Tensor, sample: Tensor, noise: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """The squared error of the network inside the preconditioning: the weighted error of the denoised sample.

    It equals ``edm_weight`` times the squared error of ``edm_denoised``.

    Args:
        output: [B, ...], F(input * noisy, noise) for noisy = sample + sigma * noise.
        sample: [B, ...].
        noise: [B, ...], the very noise that was added.
        sigma: [B], at least 0.
        sigma_data: above 0.

    Returns:
        [B, ...], not negative; of mean 1 for an output of 0 if the data have mean 0 and deviation ``sigma_data``.

    Raises:
        UsageError: a ``sigma_data`` that is not positive, or an output of another shape.

    Source: EDM, arXiv 2206.00364, equation 8; BESO, arXiv 2304.02532.
    """
    _check_shape(output, sample)
    return (output - edm_target(sample, noise, sigma, sigma_data)).square()


def edm_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """The weight of the denoised sample's squared error, (sigma^2 + sigma_data^2) / (sigma sigma_data)^2.

    Args:
        sigma: [B], above 0.
        sigma_data: above 0.

    Returns:
        [B], above 0.

    Raises:
        UsageError: a ``sigma_data`` that is not positive.

    Source: EDM, arXiv 2206.00364, table 1.
    """
    return preconditioning(sigma, sigma_data).output.pow(-2)


def _check_sigma_data(sigma_data: float) -> None:
    if not sigma_data > 0:
        raise UsageError(f"sigma_data={sigma_data} must be above 0: it is the standard deviation of the data")


def _check_shape(output: Tensor, sample: Tensor) -> None:
    if output.shape != sample.shape:
        raise UsageError(f"output {tuple(output.shape)} and sample {tuple(sample.shape)} must have the same shape")
