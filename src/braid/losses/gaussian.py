"""What Gaussian laws, plain, squashed by tanh or mixed, say of continuous actions, and their exact divergences.

A law is given by its mean and log standard deviation, [..., A]; log-densities are summed over the A dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from braid.errors import UsageError

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def log_prob(action: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """The log-density of an action under a diagonal Gaussian.

    Args:
        action: [..., A].
        mean: [..., A].
        log_std: [..., A] or [A], natural logarithm of the standard deviation.

    Returns:
        [...], nats, the sum over dimensions.

    Source: the normal density; IQL, arXiv 2110.06169, uses it with an unsquashed action.
    """
    standardised = (action - mean) * (-log_std).exp()
    return (-0.5 * standardised.square() - log_std - _HALF_LOG_TWO_PI).sum(dim=-1)


def log_tanh_slope(pre_tanh: Tensor) -> Tensor:
    """The logarithm of tanh's derivative, log(1 - tanh(u)^2), without cancellation at large |u|.

    Args:
        pre_tanh: u, any shape.

    Returns:
        The shape of ``pre_tanh``, at most 0: 0 at u = 0, about log 4 - 2 |u| far from it.

    Source: tensorflow_probability ``Tanh.forward_log_det_jacobian``.
    """
    return 2 * (math.log(2) - pre_tanh - F.softplus(-2 * pre_tanh))


def squashed_log_prob(pre_tanh: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """The log-density of the action tanh(u), where u is a diagonal Gaussian, from u itself.

    Use it for fresh samples, whose u is known: nothing is lost when tanh(u) rounds to 1.

    Args:
        pre_tanh: u, [..., A].
        mean: [..., A], of u.
        log_std: [..., A] or [A], of u.

    Returns:
        [...], nats, a density over actions in (-1, 1)^A.

    Source: SAC, arXiv 1812.05905, appendix C.
    """
    return log_prob(pre_tanh, mean, log_std) - log_tanh_slope(pre_tanh).sum(dim=-1)


def squashed_log_prob_of_action(action: Tensor, mean: Tensor, log_std: Tensor, margin: float = 1e-6) -> Tensor:
    """The log-density of a recorded action under a diagonal Gaussian squashed by tanh.

    At an action of +-1 the density has no finite value, so actions are first moved inside by ``margin``.

    Args:
        action: [..., A], in [-1, 1].
        mean: [..., A], before tanh.
        log_std: [..., A] or [A], before tanh.
        margin: distance kept from +-1, in (0, 1); below 1e-7 it vanishes in float32.

    Returns:
        [...], nats.

    Raises:
        UsageError: a margin outside (0, 1).

    Source: as ``squashed_log_prob``; SS-ORL, arXiv 2210.06518.
    """
    if not 0 < margin < 1:
        raise UsageError(f"margin={margin} must lie between 0 and 1")
    return squashed_log_prob(torch.atanh(action.clamp(-1 + margin, 1 - margin)), mean, log_std)


def mixture_log_prob(action: Tensor, logits: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """The log-density of an action under a mixture of M diagonal Gaussians.

    Args:
        action: [..., A].
        logits: [..., M], unnormalised log-weights of the components.
        mean: [..., M, A].
        log_std: [..., M, A].

    Returns:
        [...], nats.

    Source: Bishop 1994, "Mixture density networks"; robomimic's BC-GMM.
    """
    return torch.logsumexp(torch.log_softmax(logits, dim=-1) + log_prob(action.unsqueeze(-2), mean, log_std), dim=-1)


def entropy(log_std: Tensor) -> Tensor:
    """The differential entropy of a diagonal Gaussian.

    Args:
        log_std: [..., A].

    Returns:
        [...], nats, the sum over dimensions; may be negative.
    """
    return (log_std + 0.5 + _HALF_LOG_TWO_PI).sum(dim=-1)


def kl(mean: Tensor, log_std: Tensor, other_mean: Tensor, other_log_std: Tensor) -> Tensor:
    """The divergence KL(N(mean, std^2) || N(other_mean, other_std^2)) of diagonal Gaussians, exactly.

    Gradients flow into both laws; detach the one that is held fixed.

    Args:
        mean: [..., A].
        log_std: [..., A].
        other_mean: [..., A]; zeros for a standard normal prior.
        other_log_std: [..., A]; zeros for a standard normal prior.

    Returns:
        [...], nats, the sum over dimensions, not negative.
    """
    log_ratio = log_std - other_log_std
    shift = (mean - other_mean) * (-other_log_std).exp()
    # expm1 keeps the difference of nearly equal spreads: exp(2x) - 1 - 2x would cancel.
    return 0.5 * (torch.expm1(2 * log_ratio) - 2 * log_ratio + shift.square()).sum(dim=-1)


def mixture_of_predictions(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the variance of what an ensemble of Gaussian predictions says together.

    Args:
        mean: [E, ..., A], one prediction of every member.
        std: [E, ..., A], standard deviations.

    Returns:
        Mean and variance of the equally weighted mixture, [..., A] each; the variance is the mean of the members'
        variances plus the (population) variance of their means.

    Source: arXiv 1612.01474, section 2.4; SS-ORL, arXiv 2210.06518.
    """
    return mean.mean(dim=0), std.square().mean(dim=0) + mean.var(dim=0, unbiased=False)
