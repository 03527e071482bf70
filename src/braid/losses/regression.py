"""Asymmetric and robust regression of a value onto a target. The target is detached; nothing is averaged."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from braid.errors import UsageError


def expectile(value: Tensor, target: Tensor, level: float) -> Tensor:
    """The squared error, weighted by ``level`` where the target is above the value and by 1 - ``level`` below.

    Its minimiser is the expectile of the targets: the mean at level 0.5 (where the loss is half the squared error),
    their maximum as the level tends to 1.

    Args:
        value: any shape.
        target: same shape; detached.
        level: tau, in (0, 1).

    Returns:
        The shape of ``value``, not negative.

    Raises:
        UsageError: a level outside (0, 1).

    Source: IQL, arXiv 2110.06169, equation 5.
    """
    difference = target.detach() - value
    return _asymmetry(difference, level) * difference.square()


def quantile(value: Tensor, target: Tensor, level: float) -> Tensor:
    """The absolute error, weighted by ``level`` where the target is above the value and by 1 - ``level`` below.

    Its minimiser is the quantile of the targets: the median at level 0.5.

    Args:
        value: any shape.
        target: same shape; detached.
        level: in (0, 1).

    Returns:
        The shape of ``value``, not negative.

    Raises:
        UsageError: a level outside (0, 1).

    Source: Koenker and Bassett 1978, "Regression quantiles".
    """
    difference = target.detach() - value
    return _asymmetry(difference, level) * difference.abs()


def huber(value: Tensor, target: Tensor, threshold: float) -> Tensor:
    """Half the squared error u^2 / 2 up to a threshold, and threshold (|u| - threshold / 2) beyond it.

    Args:
        value: any shape.
        target: a shape that broadcasts to it; detached.
        threshold: error from which on the loss is linear, above 0.

    Returns:
        The shape of ``value``, not negative.

    Raises:
        UsageError: a threshold that is not positive.

    Source: Huber 1964.
    """
    if not threshold > 0:
        raise UsageError(f"threshold={threshold} must be above 0")
    return F.huber_loss(value, target.detach().expand_as(value), reduction="none", delta=threshold)


def _asymmetry(difference: Tensor, level: float) -> Tensor:
    if not 0 < level < 1:
        raise UsageError(f"level={level} must lie between 0 and 1; 0.5 is symmetric")
    return torch.where(difference.detach() < 0, 1 - level, level)
