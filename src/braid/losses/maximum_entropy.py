"""Rewarding a policy for its entropy: the soft value, the actor's loss and the temperature that keeps the balance."""

from __future__ import annotations

import torch
from torch import Tensor

from braid.errors import UsageError


def soft_value(value: Tensor, log_prob: Tensor, temperature: float | Tensor) -> Tensor:
    """The value of an action with the entropy it is a sample of, Q(s, a) - temperature log pi(a | s).

    As a target its next action is drawn from the policy at s', and ``temporal_difference.td_target`` detaches it.

    Args:
        value: [B] or [E, B].
        log_prob: [B], of that action, nats.
        temperature: alpha, in units of return per nat, at least 0; a tensor is detached.

    Returns:
        The shape of ``value``.

    Source: SAC, arXiv 1812.05905, equation 3.
    """
    return value - _constant(temperature) * log_prob


def soft_maximum(value: Tensor, temperature: float, log_prior: Tensor | None = None) -> Tensor:
    """The value of the best policy that pays for its divergence from a prior: T log sum_a prior(a) exp(Q(a) / T).

    Without a prior the policy is paid for its entropy instead. As the temperature tends to 0 both are max_a Q.

    Args:
        value: [B, A], of all actions.
        temperature: in units of return per nat, above 0.
        log_prior: [B, A], normalised log-probabilities, nats; None for entropy.

    Returns:
        [B].

    Raises:
        UsageError: a temperature that is not positive.

    Source: soft Q-learning, arXiv 1702.08165.
    """
    if not temperature > 0:
        raise UsageError(f"temperature={temperature} must be above 0; take the maximum of the values for 0")
    logits = value / temperature
    return temperature * torch.logsumexp(logits if log_prior is None else logits + log_prior, dim=-1)


def soft_actor(value: Tensor, log_prob: Tensor, temperature: float | Tensor) -> Tensor:
    """The actor's loss, temperature log pi(a | s) - Q(s, a), for an action drawn with a gradient (reparameterised).

    Args:
        value: [B], already reduced over critics; keeps its gradient towards the action.
        log_prob: [B], of the same action, nats.
        temperature: alpha, at least 0; a tensor is detached.

    Returns:
        [B].

    Source: SAC, arXiv 1812.05905, equation 9.
    """
    return -soft_value(value, log_prob, temperature)


def temperature_loss(log_temperature: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """The loss of the temperature's logarithm: it rises while the policy's entropy is below its target.

    Args:
        log_temperature: scalar parameter.
        log_prob: [B], of actions of the policy, nats; detached.
        target_entropy: nats, usually minus the number of action dimensions.

    Returns:
        [B], -log_temperature (log_prob + target_entropy).

    Source: SAC, arXiv 1812.05905, equation 18, with the logarithm in place of the temperature as in the released code.
    """
    return -log_temperature * (log_prob.detach() + target_entropy)


def _constant(number: float | Tensor) -> float | Tensor:
    return number.detach() if isinstance(number, Tensor) else number
