"""Errors of predicted actions against recorded ones, per action: regression, discretised actions, code books.

Shapes: [..., A] actions, where ... is [B], or [B, H] for chunks of H steps. The likelihoods of continuous actions are
in ``gaussian``. What is padding in a chunk is left out by ``aggregation``: ``aggregate(error, ~is_pad, "token-mean")``
is the mean over valid steps (LeRobot); ``"token-sum-norm"`` with ``length`` B * H counts padded steps as zeros (ACT's
released code).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from braid.errors import UsageError, unknown_name

Norm = Literal["squared", "absolute", "smooth"]
Dimensions = Literal["mean", "sum"]


def action_error(prediction: Tensor, action: Tensor, norm: Norm = "squared", dimensions: Dimensions = "mean") -> Tensor:
    """The error of every predicted action, over its dimensions.

    Args:
        prediction: [..., A].
        action: same shape; detached.
        norm: ``squared`` (BC), ``absolute`` (ACT), or ``smooth``: half the square below 1, |u| - 1/2 above.
        dimensions: their ``mean`` (BC, TD3+BC, ACT) or their ``sum`` (RIQL, IQL's deterministic policy).

    Returns:
        [...], not negative.

    Raises:
        UsageError: shapes that differ, which would broadcast silently, or an unknown name.

    Source: ACT, arXiv 2304.13705 (absolute); RIQL, arXiv 2310.12955 (summed squares).
    """
    if prediction.shape != action.shape:
        raise UsageError(f"prediction {tuple(prediction.shape)} and action {tuple(action.shape)} must agree")
    difference = prediction - action.detach()
    match norm:
        case "squared":
            error = difference.square()
        case "absolute":
            error = difference.abs()
        case "smooth":
            error = F.huber_loss(difference, torch.zeros_like(difference), reduction="none")
        case _:
            raise unknown_name("norm", norm, get_args(Norm))
    match dimensions:
        case "mean":
            return error.mean(dim=-1)
        case "sum":
            return error.sum(dim=-1)
        case _:
            raise unknown_name("dimensions", dimensions, get_args(Dimensions))


def discretise(action: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """The bin that every dimension of an action falls into, of equally wide bins.

    Args:
        action: [..., A]; what lies outside the range goes to the outermost bin.
        low: [A], lower edge of the first bin.
        high: [A], upper edge of the last bin.
        bins: K, at least 1.

    Returns:
        [..., A] int64, in [0, K).

    Raises:
        UsageError: fewer than one bin, or a dimension whose high is not above its low.
    """
    if bins < 1:
        raise UsageError(f"bins={bins} must be at least 1")
    if bool((high <= low).any()):
        raise UsageError("every dimension needs high above low; leave constant dimensions out or widen their range")
    return ((action - low) / (high - low) * bins).floor().long().clamp(0, bins - 1)


def bin_centre(index: Tensor, low: Tensor, high: Tensor, bins: int) -> Tensor:
    """The action in the middle of its bins: at most half a bin from every action in the range that fell into them.

    Args:
        index: [..., A] int64, in [0, K).
        low: [A].
        high: [A].
        bins: K.

    Returns:
        [..., A], float.
    """
    return low + (index.to(low.dtype) + 0.5) * (high - low) / bins


def discretised_cross_entropy(logits: Tensor, index: Tensor) -> Tensor:
    """The negative log-likelihood of an action's bins, with the dimensions independent.

    Args:
        logits: [..., A, K].
        index: [..., A] int64, in [0, K).

    Returns:
        [...], nats, the sum over dimensions, not negative.
    """
    return -torch.log_softmax(logits, dim=-1).gather(-1, index.unsqueeze(-1)).squeeze(-1).sum(dim=-1)


def focal(logits: Tensor, index: Tensor, focus: float = 2.0) -> Tensor:
    """The cross-entropy of a class, discounted where it is predicted well already: -(1 - p)^focus log p.

    Args:
        logits: [..., K].
        index: [...] int64, in [0, K).
        focus: at least 0; 0 is the cross-entropy.

    Returns:
        [...], not negative.

    Raises:
        UsageError: a negative focus.

    Source: arXiv 1708.02002, equation 4; VQ-BeT, arXiv 2403.03181.
    """
    if not focus >= 0:
        raise UsageError(f"focus={focus} must be at least 0")
    log_prob = torch.log_softmax(logits, dim=-1).gather(-1, index.unsqueeze(-1)).squeeze(-1)
    return -(-torch.expm1(log_prob)).pow(focus) * log_prob
