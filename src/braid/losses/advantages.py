"""From rewards to advantages: how much better than its alternatives every response, or token, was.

Every advantage is returned detached. Statistics over a group or the batch have to be taken over the whole rollout
batch, before it is shuffled into mini-batches. The three ``group_*`` statistics keep the graph.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from braid.errors import UsageError, unknown_name

Center = Literal["none", "group", "batch", "leave_one_out"]
Scale = Literal["none", "group", "batch", "batch_centered"]
Singleton = Literal["reward", "zero"]


def group_size(group_id: Tensor) -> Tensor:
    """The number of rows in the group of every row.

    Args:
        group_id: [B], any integers.

    Returns:
        [B], int64, at least 1.
    """
    _, inverse, count = torch.unique(group_id, return_inverse=True, return_counts=True)
    return count[inverse]


def group_mean(values: Tensor, group_id: Tensor) -> Tensor:
    """The mean of its group, for every row; exact when all members are equal, and differentiable.

    Args:
        values: [B].
        group_id: [B], any integers.

    Returns:
        [B].
    """
    if values.shape != group_id.shape:
        raise UsageError(f"values {tuple(values.shape)} and group_id {tuple(group_id.shape)} must both be [B]")
    values = values if values.is_floating_point() else values.to(torch.float32)
    _, inverse, count = torch.unique(group_id, return_inverse=True, return_counts=True)
    # Measured from the group's largest member: equal members then have no rounding error for a std of 0 to magnify.
    top = values.detach().new_full(count.shape, -torch.inf).scatter_reduce(0, inverse, values.detach(), "amax")[inverse]
    total = values.new_zeros(count.shape).index_add(0, inverse, values - top)
    return top + (total / count)[inverse]


def group_std(values: Tensor, group_id: Tensor, ddof: int = 1) -> Tensor:
    """The standard deviation of its group, for every row; differentiable, with gradient 0 where it is 0.

    Args:
        values: [B].
        group_id: [B], any integers.
        ddof: 1 for the sample, 0 for the population standard deviation.

    Returns:
        [B], not negative; 0 in groups of at most ``ddof`` rows.

    Raises:
        UsageError: ``ddof`` is neither 0 nor 1.
    """
    _check_ddof(ddof)
    size = group_size(group_id)
    mean_square = group_mean((values - group_mean(values, group_id)).square(), group_id)
    return _safe_sqrt(mean_square * size / (size - ddof).clamp(min=1))


def monte_carlo(reward: Tensor, baseline: float | Tensor = 0.0) -> Tensor:
    """The reward above a baseline that does not depend on the response.

    Args:
        reward: [B].
        baseline: number or [B], for example a running mean.

    Returns:
        [B], detached.

    Source: REINFORCE, Williams 1992.
    """
    return (reward - baseline).detach()


def remax(reward: Tensor, greedy_reward: Tensor) -> Tensor:
    """The reward above that of the greedy response to the same prompt.

    Args:
        reward: [B].
        greedy_reward: [B], the greedy response's reward, repeated for every row of its prompt.

    Returns:
        [B], detached.

    Source: arXiv 2310.10505.
    """
    return monte_carlo(reward, greedy_reward)


def leave_one_out(reward: Tensor, group_id: Tensor, singleton: Singleton = "zero") -> Tensor:
    """The reward above the mean of the *other* rewards of its group.

    Args:
        reward: [B].
        group_id: [B], any integers.
        singleton: advantage of a group of one: ``zero`` (TRL) or the ``reward`` itself (baseline 0, verl).

    Returns:
        [B], detached.

    Source: RLOO, arXiv 2402.14740.
    """
    return normalise(reward, group_id, "leave_one_out", "none", singleton=singleton)


def normalise(
    reward: Tensor,
    group_id: Tensor,
    center: Center,
    scale: Scale,
    epsilon: float = 1e-6,
    ddof: int = 1,
    singleton: Singleton = "reward",
) -> Tensor:
    """The reward minus a centre, divided by (a spread + epsilon).

    A group of one has neither a mean nor a spread of its own. With ``singleton="reward"`` its mean counts as 0 and its
    standard deviation as 1 (verl); with ``"zero"`` its group-centred advantage is 0. A batch of one row has spread 1.
    Equal rewards have no spread to scale by: it counts as 1 there, which only ``center="none"`` can tell from 0.

    Args:
        reward: [B].
        group_id: [B], any integers.
        center: what is subtracted: nothing, the mean of the group, of the batch, or of the rest of the group.
        scale: what divides: nothing, the std of the group, of the raw rewards of the batch (``batch``), or of the
            centred rewards of the batch (``batch_centered``).
        epsilon: in units of reward, at least 0 (verl 1e-6, TRL 1e-4).
        ddof: 1 for sample, 0 for population standard deviations.
        singleton: what a group of one gets, see above.

    Returns:
        [B], detached.

    Raises:
        UsageError: an unknown name, a ddof other than 0 and 1, or a negative epsilon.

    Source: GRPO arXiv 2402.03300 (group, group); Dr. GRPO 2503.20783 (group, none); Lite PPO 2508.08221 (group, batch);
    ROLL ``reward_norm``.
    """
    _check_ddof(ddof)
    if not epsilon >= 0:
        raise UsageError(f"epsilon={epsilon} must be at least 0")
    reward = reward.detach() if reward.is_floating_point() else reward.to(torch.float32)
    centred = _centred(reward, group_id, center, singleton)
    match scale:
        case "none":
            return centred
        case "group":
            spread = torch.where(group_size(group_id) > 1, group_std(reward, group_id, ddof), 1.0)
        case "batch":
            spread = _batch_std(reward, ddof)
        case "batch_centered":
            spread = _batch_std(centred, ddof)
        case _:
            raise unknown_name("scale", scale, get_args(Scale))
    return centred / torch.where(spread > 0, spread + epsilon, torch.ones_like(spread))


def group_normalised(reward: Tensor, group_id: Tensor, epsilon: float = 1e-6) -> Tensor:
    """GRPO's advantage: centred and scaled by the mean and sample standard deviation of the group.

    Args:
        reward: [B].
        group_id: [B], any integers.
        epsilon: in units of reward.

    Returns:
        [B], detached.

    Source: arXiv 2402.03300.
    """
    return normalise(reward, group_id, "group", "group", epsilon)


def group_centred(reward: Tensor, group_id: Tensor) -> Tensor:
    """Dr. GRPO's advantage: the reward above the mean of the group, unscaled.

    Args:
        reward: [B].
        group_id: [B], any integers.

    Returns:
        [B], detached.

    Source: arXiv 2503.20783.
    """
    return normalise(reward, group_id, "group", "none")


def batch_normalised(reward: Tensor, group_id: Tensor, epsilon: float = 1e-6) -> Tensor:
    """Lite PPO's advantage: the reward above the mean of the group, over the standard deviation of the whole batch.

    Args:
        reward: [B], the whole rollout batch.
        group_id: [B], any integers.
        epsilon: in units of reward.

    Returns:
        [B], detached.

    Source: arXiv 2508.08221.
    """
    return normalise(reward, group_id, "group", "batch", epsilon)


def signed_outcome(correct: Tensor, positive_weight: float = 1.0, negative_weight: float = 1.0) -> Tensor:
    """An advantage by sign alone: +positive_weight for correct, -negative_weight for wrong responses.

    (1, 0) is PSR, (0, 1) NSR, (0.1, 1) W-REINFORCE, (1, 1) REINFORCE with rewards of +1 and -1.

    Args:
        correct: [B], bool or 0/1.
        positive_weight: at least 0.
        negative_weight: at least 0.

    Returns:
        [B], float, detached.

    Source: arXiv 2506.01347.
    """
    dtype = correct.dtype if correct.is_floating_point() else torch.float32
    is_correct = (correct.detach() != 0).to(dtype)
    return positive_weight * is_correct - negative_weight * (1 - is_correct)


def success_rate(correct: Tensor, group_id: Tensor) -> Tensor:
    """The share of correct responses in its group, for every row.

    Args:
        correct: [B], bool or 0/1.
        group_id: [B], any integers.

    Returns:
        [B], in [0, 1], detached.
    """
    dtype = correct.dtype if correct.is_floating_point() else torch.float32
    return group_mean((correct.detach() != 0).to(dtype), group_id)


def gae(reward: Tensor, value: Tensor, mask: Tensor, discount: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates over the policy's own tokens.

    Positions outside the mask (tool output in the middle, padding) take no part: their rewards and values are ignored,
    and the token before them sees the next valid one as its successor. After the last valid token the value is 0.

    Args:
        reward: [B, T], reward of each token.
        value: [B, T], estimate before each token.
        mask: [B, T], bool or 0/1.
        discount: gamma, in [0, 1].
        gae_lambda: lambda, in [0, 1].

    Returns:
        Advantages (not whitened) and returns (advantage + value), [B, T] each, detached, 0 outside the mask.

    Raises:
        UsageError: a discount or lambda outside [0, 1].

    Source: arXiv 1506.02438, equation 16; verl ``compute_gae_advantage_return``.
    """
    _check_unit("discount", discount)
    _check_unit("gae_lambda", gae_lambda)
    reward, value, valid = reward.detach(), value.detach(), mask != 0
    zero = value.new_zeros(value.shape[0])
    next_value, next_advantage = zero, zero
    advantage = torch.zeros_like(value)
    for t in reversed(range(value.shape[1])):
        step = reward[:, t] + discount * next_value - value[:, t] + discount * gae_lambda * next_advantage
        next_value = torch.where(valid[:, t], value[:, t], next_value)
        next_advantage = torch.where(valid[:, t], step, next_advantage)
        advantage[:, t] = torch.where(valid[:, t], step, zero)
    return advantage, torch.where(valid, advantage + value, torch.zeros_like(value))


def return_to_go(reward: Tensor, mask: Tensor, discount: float) -> Tensor:
    """The discounted sum of the rewards from each valid token on, counting valid tokens only.

    Args:
        reward: [B, T], reward of each token.
        mask: [B, T], bool or 0/1.
        discount: gamma per valid token, in [0, 1].

    Returns:
        [B, T], detached, 0 outside the mask.

    Raises:
        UsageError: a discount outside [0, 1].

    Source: REINFORCE++, arXiv 2501.03262 (whiten the result over all tokens of the batch).
    """
    return gae(reward, torch.zeros_like(reward), mask, discount, 1.0)[0]


def _centred(reward: Tensor, group_id: Tensor, center: Center, singleton: Singleton) -> Tensor:
    if singleton not in get_args(Singleton):
        raise unknown_name("singleton", singleton, get_args(Singleton))
    if center == "none":
        return reward
    if center == "batch":
        return reward - group_mean(reward, torch.zeros_like(group_id))
    if center not in ("group", "leave_one_out"):
        raise unknown_name("center", center, get_args(Center))
    size = group_size(group_id)
    centred = reward - group_mean(reward, group_id)
    if center == "leave_one_out":
        centred = centred * size / (size - 1).clamp(min=1)
    return torch.where(size > 1, centred, reward) if singleton == "reward" else centred


def _batch_std(values: Tensor, ddof: int) -> Tensor:
    if values.numel() < 2:
        return torch.ones_like(values)
    return group_std(values, torch.zeros_like(values, dtype=torch.int64), ddof)


def _safe_sqrt(square: Tensor) -> Tensor:
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


def _check_ddof(ddof: int) -> None:
    if ddof not in (0, 1):
        raise UsageError(f"ddof={ddof}; use 1 (sample) or 0 (population standard deviation)")


def _check_unit(name: str, number: float) -> None:
    if not 0 <= number <= 1:
        raise UsageError(f"{name}={number} must lie in [0, 1]")
