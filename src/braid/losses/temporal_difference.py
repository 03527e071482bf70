"""Targets of action values, what an ensemble of critics says of them, and the error of a critic against its target.

Shapes: B transitions, E critics, A actions. Values of an ensemble are [E, B], the critics first. Nothing is averaged:
a method decides whether it sums over critics (TD3, IQL, EDAC) or averages over them (RIQL).
"""

from __future__ import annotations

import torch
from torch import Tensor

from braid.errors import UsageError
from braid.losses import regression


def td_target(
    reward: Tensor,
    terminated: Tensor,
    next_value: Tensor,
    discount: float,
    low: float | None = None,
    high: float | None = None,
) -> Tensor:
    """The one-step target, r + discount (1 - terminated) V(s'), optionally clipped.

    ``terminated`` is the true end of an episode, after which nothing can be earned. A time limit (``truncated``) is
    not part of it: the episode would have gone on, so its last transition bootstraps like any other.

    Args:
        reward: [B].
        terminated: [B], bool or 0/1.
        next_value: [B], or [E, B] for a target of each critic's own; detached. Ignored where terminated, even if NaN.
        discount: gamma, in [0, 1].
        low: smallest target, in units of return; None for no bound.
        high: largest target; None for no bound.

    Returns:
        The shape of ``next_value``, detached.

    Raises:
        UsageError: a discount outside [0, 1], or low above high.

    Source: Watkins 1989; the clip to [-100, 1000] is RIQL's, arXiv 2310.12955.
    """
    if not 0 <= discount <= 1:
        raise UsageError(f"discount={discount} must lie in [0, 1]")
    if low is not None and high is not None and low > high:
        raise UsageError(f"low={low} is above high={high}; swap them")
    next_value = next_value.detach()
    future = torch.where(terminated != 0, torch.zeros_like(next_value), next_value)
    target = (reward + discount * future).detach()
    return target if low is None and high is None else target.clamp(min=low, max=high)


def minimum(value: Tensor) -> Tensor:
    """The lowest of an ensemble's values: the target of TD3 and SAC (two critics) and of SAC-N (many).

    Args:
        value: [E, B].

    Returns:
        [B]; the gradient goes to the lowest critic.

    Source: arXiv 1802.09477, equation 10; SAC-N, arXiv 2110.01548.
    """
    return value.amin(dim=0)


def quantile(value: Tensor, level: float) -> Tensor:
    """A quantile of an ensemble's values, interpolated linearly between neighbouring critics.

    With the values sorted, q_0 <= .. <= q_(E-1), and h = level (E - 1), it is q_floor(h) + (h - floor(h)) (q_ceil(h) -
    q_floor(h)). Level 0 is the minimum, 1 the maximum.

    Args:
        value: [E, B].
        level: in [0, 1].

    Returns:
        [B]; the gradient goes to the two neighbouring critics.

    Raises:
        UsageError: a level outside [0, 1].

    Source: RIQL, arXiv 2310.12955.
    """
    if not 0 <= level <= 1:
        raise UsageError(f"level={level} must lie in [0, 1]: 0 is the lowest critic, 1 the highest")
    position = level * (value.shape[0] - 1)
    below = min(int(position), value.shape[0] - 1)
    ascending = value.sort(dim=0).values
    if position == below:
        return ascending[below]
    return torch.lerp(ascending[below], ascending[below + 1], position - below)


def lower_confidence_bound(value: Tensor, width: float) -> Tensor:
    """The mean of an ensemble's values less a multiple of their sample standard deviation.

    Args:
        value: [E, B], E at least 2.
        width: standard deviations below the mean (MSG: 4), at least 0.

    Returns:
        [B]; where all critics agree it is their value, and the gradient is that of the mean.

    Raises:
        UsageError: fewer than two critics, or a negative width.

    Source: MSG, arXiv 2205.13703.
    """
    if value.shape[0] < 2:
        raise UsageError(
            f"a spread needs at least two critics, not {value.shape[0]}; use 2 or more, or the value itself"
        )
    if not width >= 0:
        raise UsageError(f"width={width} must be at least 0")
    variance = value.var(dim=0)
    spread = torch.where(variance > 0, torch.where(variance > 0, variance, 1.0).sqrt(), 0.0)
    return value.mean(dim=0) - width * spread


def double_value(online_value: Tensor, target_value: Tensor) -> Tensor:
    """The target network's value of the action that the online network prefers.

    Args:
        online_value: [B, A], values of all actions in the next state; only its argmax matters.
        target_value: [B, A], from the target network.

    Returns:
        [B].

    Source: double DQN, arXiv 1509.06461.
    """
    return target_value.gather(-1, online_value.argmax(dim=-1, keepdim=True)).squeeze(-1)


def squared_td(value: Tensor, target: Tensor) -> Tensor:
    """The squared error of every critic, without a factor of 1/2 (TD3, SAC, CQL; IQL's paper halves it).

    Args:
        value: [B] or [E, B], of the action taken.
        target: [B] or [E, B]; detached.

    Returns:
        The shape of ``value``, not negative.

    Source: arXiv 1802.09477, algorithm 1.
    """
    return (value - target.detach()).square()


def huber_td(value: Tensor, target: Tensor, threshold: float) -> Tensor:
    """The Huber error of every critic over its threshold: u^2 / (2 threshold) inside, |u| - threshold / 2 outside.

    Its slope lies in [-1, 1], so one corrupted target cannot move a critic far. Times ``threshold`` it tends to half
    the squared error as the threshold grows. RIQL's code has a ``sigma`` instead, with threshold 1 / sigma^2.

    Args:
        value: [B] or [E, B], of the action taken.
        target: [B] or [E, B]; detached.
        threshold: error from which on the loss is linear, in units of return, above 0.

    Returns:
        The shape of ``value``, not negative.

    Raises:
        UsageError: a threshold that is not positive.

    Source: RIQL, arXiv 2310.12955; torch ``smooth_l1_loss``.
    """
    return regression.huber(value, target, threshold) / threshold
