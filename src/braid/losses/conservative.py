"""Keeping critics low, or at odds with one another, where there are no data: CQL and EDAC.

Shapes: B states, E critics, N sampled actions, A action dimensions or discrete actions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from braid.errors import UsageError


def cql(
    sampled_value: Tensor,
    data_value: Tensor,
    log_density: Tensor | None = None,
    temperature: float = 1.0,
    low: float | None = None,
    high: float | None = None,
) -> Tensor:
    """How far a soft maximum over actions lies above the action in the data.

    It is temperature logsumexp_n((Q(s, a_n) - log mu(a_n | s)) / temperature) - Q(s, a), where mu is the density that
    a_n was drawn from. As in the released code the samples are summed, not averaged: log N more, without a gradient.
    With a constant Q and N uniform actions in [-1, 1]^A it is log N + A log 2 at temperature 1.

    Args:
        sampled_value: [E, B, N] or [B, N], at the sampled actions; all evaluated at the states of the data.
        data_value: [E, B] or [B], at the actions of the data.
        log_density: [B, N], nats (-A log 2 for uniform actions); detached. None for no importance correction, and
            then the action of the data belongs among the samples.
        temperature: in units of return, above 0.
        low: smallest difference counted; None for no bound.
        high: largest difference counted; None for no bound.

    Returns:
        The shape of ``data_value``.

    Raises:
        UsageError: a temperature that is not positive.

    Source: CQL(H), arXiv 2006.04779, equation 4 and appendix F; corl-team/CORL ``cql.py``.
    """
    if not temperature > 0:
        raise UsageError(f"temperature={temperature} must be above 0")
    corrected = sampled_value if log_density is None else sampled_value - log_density.detach()
    difference = temperature * torch.logsumexp(corrected / temperature, dim=-1) - data_value
    return difference if low is None and high is None else difference.clamp(min=low, max=high)


def discrete_cql(value: Tensor, action: Tensor) -> Tensor:
    """How far the log-sum-exp of all actions' values lies above the action in the data.

    It is the negative log-likelihood of that action under softmax(Q).

    Args:
        value: [B, A] or [E, B, A].
        action: [B] int64.

    Returns:
        [B] or [E, B], not negative.

    Source: CQL(H), arXiv 2006.04779, equation 4.
    """
    index = action.expand(value.shape[:-1]).unsqueeze(-1)
    return -torch.log_softmax(value, dim=-1).gather(-1, index).squeeze(-1)


class LagrangianPenalty(NamedTuple):
    """Both sides of a constraint whose multiplier is learned.

    Args:
        penalty: the critic's loss; the multiplier is detached.
        multiplier_loss: the multiplier's loss; the difference is detached.
    """

    penalty: Tensor
    multiplier_loss: Tensor


def lagrangian(
    difference: Tensor, log_multiplier: Tensor, gap: float, weight: float = 1.0, largest: float = 1e6
) -> LagrangianPenalty:
    """The penalty multiplier * weight * (difference - gap), with a multiplier that grows while the gap is exceeded.

    Args:
        difference: [E, B] or [B], from ``cql``.
        log_multiplier: scalar parameter; the multiplier is its exponential, at most ``largest``.
        gap: tolerated difference, in units of return.
        weight: fixed factor, at least 0.
        largest: bound of the multiplier, above 0; beyond it the multiplier's loss has no gradient, as in the released
            code.

    Returns:
        Penalty and multiplier loss, each of the shape of ``difference``.

    Source: CQL, arXiv 2006.04779, appendix F; corl-team/CORL ``cql.py``.
    """
    # Bounded before the exponential, which would overflow and leave a gradient of nan.
    multiplier = log_multiplier.clamp(max=math.log(largest)).exp()
    excess = weight * (difference - gap)
    return LagrangianPenalty(multiplier.detach() * excess, -multiplier * excess.detach())


def gradient_alignment(gradient: Tensor, epsilon: float = 1e-10) -> Tensor:
    """How far the critics' slopes with respect to the action point in one direction: EDAC's diversity loss.

    It is sum_{k != l} <g_k, g_l> / (E - 1) with every g_k scaled to length 1: E when all agree, 0 when they are
    orthogonal, and at least -E / (E - 1).

    Args:
        gradient: [E, B, A], dQ_k / da at the actions of the data, made with ``create_graph=True``; E at least 2.
        epsilon: added to the length of every gradient.

    Returns:
        [B].

    Raises:
        UsageError: fewer than two critics.

    Source: EDAC, arXiv 2110.01548; corl-team/CORL ``edac.py``.
    """
    critics = gradient.shape[0]
    if critics < 2:
        raise UsageError(f"diversity needs at least two critics, not {critics}")
    unit = gradient / (torch.linalg.vector_norm(gradient, dim=-1, keepdim=True) + epsilon)
    # The sum over all pairs is the squared length of the sum; the E critics paired with themselves are taken off.
    return (unit.sum(dim=0).square().sum(-1) - unit.square().sum(dim=(0, -1))) / (critics - 1)
