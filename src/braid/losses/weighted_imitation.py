"""Imitating the data where a critic likes them: exponential advantage weights, TD3+BC, and PRDC's data set constraint.

Shapes: B states, A action dimensions, S observation dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from braid.errors import UsageError


def exponential_weight(advantage: Tensor, inverse_temperature: float, largest: float = 100.0) -> Tensor:
    """The weight min(exp(inverse_temperature * advantage), largest).

    Args:
        advantage: [B], in units of return.
        inverse_temperature: beta (IQL), 1 / lambda (AWAC), per unit of return, at least 0; 0 gives every weight 1.
        largest: bound of the weight, above 0.

    Returns:
        [B], in [0, largest], detached.

    Raises:
        UsageError: a negative inverse temperature, or a bound that is not positive.

    Source: AWAC, arXiv 2006.09359; IQL, arXiv 2110.06169, equation 7; the bound is that of their code.
    """
    if not inverse_temperature >= 0:
        raise UsageError(f"inverse_temperature={inverse_temperature} must be at least 0")
    if not largest > 0:
        raise UsageError(f"largest={largest} must be above 0; use inf for no bound")
    return (inverse_temperature * advantage.detach()).exp().clamp(max=largest)


def advantage_weighted(
    imitation_loss: Tensor, advantage: Tensor, inverse_temperature: float, largest: float = 100.0
) -> Tensor:
    """An imitation loss, counted by the exponential of the advantage of what it imitates.

    Args:
        imitation_loss: [B], for example -log pi(a | s), or the summed squared error of a deterministic policy.
        advantage: [B], in units of return; detached.
        inverse_temperature: see ``exponential_weight``.
        largest: see ``exponential_weight``.

    Returns:
        [B].

    Raises:
        UsageError: as ``exponential_weight``.

    Source: AWAC, arXiv 2006.09359; IQL, arXiv 2110.06169; RIQL, arXiv 2310.12955.
    """
    return exponential_weight(advantage, inverse_temperature, largest) * imitation_loss


def scale_by_mean_magnitude(value: Tensor, alpha: float, epsilon: float = 0.0) -> Tensor:
    """TD3+BC's lambda, alpha over the mean of |Q| in the batch: what makes alpha independent of the scale of rewards.

    Args:
        value: [B], Q(s, pi(s)).
        alpha: weight of the value against imitation, at least 0.
        epsilon: added to the mean; the paper adds nothing, so a batch of zeros needs a positive one.

    Returns:
        Scalar, detached.

    Raises:
        UsageError: a negative alpha.

    Source: TD3+BC, arXiv 2106.06860, equation 5.
    """
    if not alpha >= 0:
        raise UsageError(f"alpha={alpha} must be at least 0; 0 is pure imitation")
    return alpha / (value.detach().abs().mean() + epsilon)


def td3_bc(value: Tensor, policy_action: Tensor, imitated_action: Tensor, alpha: float, epsilon: float = 0.0) -> Tensor:
    """The actor's loss of TD3+BC, -lambda Q(s, pi(s)) + mean_j (pi(s)_j - a_j)^2, with lambda over the whole batch.

    With the action of the nearest pair in the data as ``imitated_action`` it is PRDC's. With alpha 0 it is imitation.
    Lambda is a statistic of the batch, so micro-batches give another loss than the whole batch.

    Args:
        value: [B], Q_1(s, pi(s)), with its gradient towards the action.
        policy_action: [B, A].
        imitated_action: [B, A]; detached.
        alpha: see ``scale_by_mean_magnitude``.
        epsilon: see ``scale_by_mean_magnitude``.

    Returns:
        [B].

    Raises:
        UsageError: a negative alpha, or actions of different shapes.

    Source: TD3+BC, arXiv 2106.06860, equation 3; PRDC, arXiv 2306.06569; LAMDA-RL/PRDC.
    """
    imitation = data_constraint(policy_action, imitated_action)
    return imitation if alpha == 0 else imitation - scale_by_mean_magnitude(value, alpha, epsilon) * value


def data_constraint(policy_action: Tensor, imitated_action: Tensor) -> Tensor:
    """The squared distance to an action of the data, as a mean over the action's dimensions.

    Args:
        policy_action: [B, A].
        imitated_action: [B, A], of the same transition (TD3+BC) or the nearest pair (PRDC); detached.

    Returns:
        [B], not negative; its gradient is 2 (pi(s) - a) / A.

    Raises:
        UsageError: actions of different shapes, which would broadcast silently.

    Source: PRDC, arXiv 2306.06569; LAMDA-RL/PRDC.
    """
    if policy_action.shape != imitated_action.shape:
        raise UsageError(
            f"policy_action {tuple(policy_action.shape)} and imitated_action {tuple(imitated_action.shape)} must agree"
        )
    return (policy_action - imitated_action.detach()).square().mean(dim=-1)


def pair_distance(
    observation: Tensor, action: Tensor, data_observation: Tensor, data_action: Tensor, state_weight: float
) -> Tensor:
    """The distance between state-action pairs with the states scaled by beta; its minimum over the data is PRDC's.

    A large beta lets only the same state count, beta = 0 any action of the data.

    Args:
        observation: [..., S], normalised.
        action: [..., A].
        data_observation: [..., S], normalised the same way; leading axes broadcast.
        data_action: [..., A].
        state_weight: beta, at least 0.

    Returns:
        [...], not negative; differentiable in ``action``, with gradient 0 at distance 0. The data are detached.

    Raises:
        UsageError: a negative weight.

    Source: PRDC, arXiv 2306.06569, definition 1.
    """
    if not state_weight >= 0:
        raise UsageError(f"state_weight={state_weight} must be at least 0")
    states = state_weight * (observation - data_observation).detach()
    actions = action - data_action.detach()
    leading = torch.broadcast_shapes(states.shape[:-1], actions.shape[:-1])
    joint = torch.cat([states.expand(*leading, -1), actions.expand(*leading, -1)], dim=-1)
    return torch.linalg.vector_norm(joint, dim=-1)
