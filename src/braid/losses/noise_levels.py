"""How much noise a denoiser is trained with: levels from uniform numbers, and the squared-cosine schedule."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from braid.errors import UsageError


def cosine_alpha_bar(steps: int, largest_beta: float = 0.999) -> Tensor:
    """The share of signal variance left after every step of the squared-cosine schedule.

    With f(u) = cos^2((u + 0.008) / 1.008 * pi / 2), step k has beta_k = min(1 - f((k + 1) / steps) / f(k / steps),
    largest_beta), and the result is the running product of 1 - beta.

    Args:
        steps: number of noise levels, at least 1.
        largest_beta: bound of the noise of one step, in (0, 1].

    Returns:
        [steps], falling; index 0 has the least noise.

    Raises:
        UsageError: fewer than one step.

    Source: arXiv 2102.09672, equation 17; diffusers ``squaredcos_cap_v2``.
    """
    if steps < 1:
        raise UsageError(f"steps={steps} must be at least 1")
    grid = torch.arange(steps + 1, dtype=torch.float64) / steps
    signal = torch.cos((grid + 0.008) / 1.008 * math.pi / 2).square()
    beta = (1 - signal[1:] / signal[:-1]).clamp(max=largest_beta)
    return (1 - beta).cumprod(dim=0).to(torch.float32)


def log_logistic(uniform: Tensor, low: float, high: float, location: float, scale: float = 0.5) -> Tensor:
    """Noise levels from a log-logistic density cut off at both ends.

    Args:
        uniform: [B], in [0, 1): the level's rank within the cut density.
        low: smallest level, above 0.
        high: largest level.
        location: natural logarithm of the median of the uncut density, log(sigma_data) in BESO.
        scale: spread of the logarithm, above 0.

    Returns:
        [B], in [low, high], rising with ``uniform``.

    Raises:
        UsageError: levels that are not 0 < low < high, or a scale that is not positive.

    Source: BESO, arXiv 2304.02532; intuitive-robots/beso ``rand_log_logistic``.
    """
    if not 0 < low < high:
        raise UsageError(f"low={low} and high={high} must satisfy 0 < low < high")
    if not scale > 0:
        raise UsageError(f"scale={scale} must be above 0")
    first, last = (_sigmoid((math.log(level) - location) / scale) for level in (low, high))
    rank = first + uniform.to(torch.float64) * (last - first)
    return (location + scale * torch.logit(rank)).exp().clamp(low, high).to(uniform.dtype)


def log_normal(normal: Tensor, location: float = -1.2, scale: float = 1.2) -> Tensor:
    """Noise levels whose logarithm is normal.

    Args:
        normal: [B], standard normal.
        location: mean of the natural logarithm of the level.
        scale: its standard deviation, at least 0.

    Returns:
        [B], above 0.

    Source: EDM, arXiv 2206.00364, table 1.
    """
    return (location + scale * normal).exp()


def _sigmoid(number: float) -> float:
    return 0.5 * (1 + math.tanh(number / 2))
