"""Policy-gradient surrogates per token: from log-probabilities and advantages to losses that are minimised.

``advantage`` is [B] (one number per response) or has the shape of the ratio; it is always detached.
"""

from __future__ import annotations

import torch
from torch import Tensor

from braid.errors import UsageError
from braid.losses.aggregation import masked_sum


def log_ratio(log_prob: Tensor, behaviour_log_prob: Tensor, limit: float = 20.0) -> Tensor:
    """The log of the importance ratio, clamped to +-limit (no gradient beyond).

    Args:
        log_prob: [B, T], current policy, nats.
        behaviour_log_prob: [B, T], policy that sampled; detached.
        limit: nats, above 0.

    Returns:
        [B, T], in [-limit, limit].

    Source: verl ``compute_policy_loss``.
    """
    return (log_prob - behaviour_log_prob.detach()).clamp(-limit, limit)


def importance_ratio(log_prob: Tensor, behaviour_log_prob: Tensor, limit: float = 20.0) -> Tensor:
    """The importance ratio of every token, exp(log_ratio).

    Args:
        log_prob: [B, T], current policy, nats.
        behaviour_log_prob: [B, T], policy that sampled; detached.
        limit: nats, above 0; bound on the log.

    Returns:
        [B, T], above 0.

    Source: arXiv 1707.06347, equation 6.
    """
    return log_ratio(log_prob, behaviour_log_prob, limit).exp()


def sequence_ratio(
    log_prob: Tensor,
    behaviour_log_prob: Tensor,
    mask: Tensor,
    limit: float = 10.0,
    length_normalised: bool = True,
) -> Tensor:
    """One importance ratio per sequence, spread over its tokens.

    With s the sequence's ratio, every token carries sg(s) exp(k (l - sg(l))), where k is 1 for the length-normalised
    ratio and the number of valid tokens for the plain product. Under the aggregation ``seq-mean-token-mean`` value
    and gradient of any function of it are those of s itself.

    Args:
        log_prob: [B, T], current policy, nats.
        behaviour_log_prob: [B, T], policy that sampled; detached.
        mask: [B, T], bool or 0/1; all valid tokens of a sequence must be present.
        limit: nats; the log of the ratio is clamped from above (no gradient beyond).
        length_normalised: True for the geometric mean over tokens (GSPO), False for the product (RLOO in TRL).

    Returns:
        [B, T], not negative, the same value along a row.

    Source: GSPO-token, arXiv 2507.18071; TRL ``RLOOTrainer`` for the product.
    """
    count = (mask != 0).sum(dim=-1, keepdim=True).clamp(min=1)
    total = masked_sum(log_prob.detach() - behaviour_log_prob.detach(), mask, dim=-1).unsqueeze(-1)
    surplus = log_prob - log_prob.detach()
    token_log = total / count + surplus if length_normalised else total + count * surplus
    return token_log.clamp(max=limit).exp()


def plain(ratio: Tensor, advantage: Tensor) -> Tensor:
    """The unclipped surrogate, -A rho.

    Args:
        ratio: [B, T], above 0.
        advantage: [B] or [B, T].

    Returns:
        [B, T].

    Source: arXiv 1707.06347, equation 6.
    """
    return -_like(advantage, ratio) * ratio


def reinforce(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """The score-function surrogate, -A log pi.

    Args:
        log_prob: [B, T], current policy, nats.
        advantage: [B] or [B, T].

    Returns:
        [B, T].

    Source: REINFORCE, Williams 1992.
    """
    return -_like(advantage, log_prob) * log_prob


def clip(ratio: Tensor, advantage: Tensor, clip_low: float, clip_high: float, dual_clip: float | None = None) -> Tensor:
    """PPO's pessimistic clipped surrogate, max(-A rho, -A clip(rho)), with an optional bound for negative advantages.

    Args:
        ratio: [B, T], above 0.
        advantage: [B] or [B, T].
        clip_low: the ratio is clipped at 1 - clip_low; in [0, 1].
        clip_high: the ratio is clipped at 1 + clip_high; at least 0.
        dual_clip: c above 1; where A < 0 the loss is at most -A c, so no gradient once rho > c.

    Returns:
        [B, T].

    Raises:
        UsageError: a clip value out of range.

    Source: arXiv 1707.06347, equation 7; dual clip arXiv 1912.09729; clip-higher arXiv 2503.14476.
    """
    _check_clip(clip_low, clip_high, dual_clip)
    advantage = _like(advantage, ratio)
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip_low, 1 + clip_high))
    if dual_clip is None:
        return loss
    return torch.where(advantage < 0, torch.minimum(loss, -advantage * dual_clip), loss)


def cispo(log_prob: Tensor, ratio: Tensor, advantage: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """REINFORCE weighted by the detached, clipped ratio, -sg(clip(rho)) A log pi: no token loses its gradient.

    Args:
        log_prob: [B, T], current policy, nats.
        ratio: [B, T], above 0; detached.
        advantage: [B] or [B, T].
        clip_low: lower bound 1 - clip_low; in [0, 1], 1 clips from above only.
        clip_high: upper bound 1 + clip_high; at least 0 (TRL's ``epsilon_high`` is the bound itself).

    Returns:
        [B, T].

    Raises:
        UsageError: a clip value out of range.

    Source: CISPO, arXiv 2506.13585.
    """
    _check_clip(clip_low, clip_high, None)
    return reinforce(log_prob, _like(advantage, ratio) * ratio.detach().clamp(1 - clip_low, 1 + clip_high))


def gradient_preserving_clip(
    log_prob: Tensor,
    behaviour_log_prob: Tensor,
    advantage: Tensor,
    clip_low: float,
    clip_high: float,
    beta_low: float = 1.0,
    beta_high: float = 1.0,
    dual_clip: float | None = None,
) -> Tensor:
    """The value of ``clip``, with a bounded gradient where ``clip`` has none.

    The derivative with respect to log_prob is -A F: F = beta_high (1 + clip_high) where A > 0 and rho is above the
    range, beta_low (1 - clip_low) where A < 0 and rho is below it, rho elsewhere. With both betas 0 it is ``clip``.

    Args:
        log_prob: [B, T], current policy, nats.
        behaviour_log_prob: [B, T], policy that sampled; detached.
        advantage: [B] or [B, T].
        clip_low: in [0, 1].
        clip_high: at least 0.
        beta_low: scales only the gradient of tokens clipped below.
        beta_high: scales only the gradient of tokens clipped above.
        dual_clip: c above 1, as in ``clip``: for A < 0 and rho > c the gradient is still 0.

    Returns:
        [B, T].

    Raises:
        UsageError: a clip value out of range.

    Source: GPPO, arXiv 2508.07629.
    """
    _check_clip(clip_low, clip_high, dual_clip)
    ratio = importance_ratio(log_prob, behaviour_log_prob)
    advantage = _like(advantage, ratio)
    below, above = clip_fraction(ratio, advantage, clip_low, clip_high)
    beta = beta_low * below.to(ratio.dtype) + beta_high * above.to(ratio.dtype)
    bound = ratio.detach().clamp(1 - clip_low, 1 + clip_high)
    # Carried by log_prob rather than rho / sg(rho), which would lose the gradient at the limit of the log-ratio.
    preserved = bound * (1 + beta * (log_prob - log_prob.detach()))
    loss = -advantage * torch.where(below | above, preserved, ratio)
    if dual_clip is None:
        return loss
    return torch.where(advantage < 0, torch.minimum(loss, -advantage * dual_clip), loss)


def unified(log_prob: Tensor, denominator_log_prob: Tensor, advantage: Tensor, stable_mask: Tensor) -> Tensor:
    """The unified policy-gradient estimator as a surrogate, -sg(1_stable A / pi_ref) pi.

    With pi_ref = pi it is likelihood (A = 1) or REINFORCE, with the behaviour policy PPO and GRPO inside the clip
    range, with pi / clip(rho) CISPO, with pi / s GSPO, with 1 SRFT's demonstrations.

    Args:
        log_prob: [B, T], current policy, nats.
        denominator_log_prob: [B, T], log of pi_ref; detached.
        advantage: [B] or [B, T].
        stable_mask: [B] or [B, T], bool or 0/1: tokens that keep their gradient (the clip indicator, or ones).

    Returns:
        [B, T].

    Source: arXiv 2509.04419, the unified policy gradient estimator.
    """
    ratio = importance_ratio(log_prob, denominator_log_prob)
    return plain(ratio, _like(advantage, ratio) * _like(stable_mask != 0, ratio).to(ratio.dtype))


def clip_fraction(ratio: Tensor, advantage: Tensor, clip_low: float, clip_high: float) -> tuple[Tensor, Tensor]:
    """Which tokens the clip is active on; their masked means are the two clip fractions.

    Args:
        ratio: [B, T], above 0.
        advantage: [B] or [B, T].
        clip_low: in [0, 1].
        clip_high: at least 0.

    Returns:
        Two bool tensors [B, T]: A < 0 with the ratio below 1 - clip_low, and A > 0 with it above 1 + clip_high.

    Source: arXiv 1707.06347, figure 1.
    """
    advantage, ratio = _like(advantage, ratio), ratio.detach()
    return (advantage < 0) & (ratio < 1 - clip_low), (advantage > 0) & (ratio > 1 + clip_high)


def _like(per_row_or_token: Tensor, per_token: Tensor) -> Tensor:
    """Detached, with a token axis when it has one entry per row."""
    values = per_row_or_token.detach()
    return values.unsqueeze(-1) if values.dim() == 1 and per_token.dim() == 2 else values


def _check_clip(clip_low: float, clip_high: float, dual_clip: float | None) -> None:
    if not 0 <= clip_low <= 1:
        raise UsageError(f"clip_low={clip_low} must lie in [0, 1]: the ratio is clipped at 1 - clip_low")
    if not clip_high >= 0:
        raise UsageError(f"clip_high={clip_high} must be at least 0: the ratio is clipped at 1 + clip_high")
    if dual_clip is not None and not dual_clip > 1:
        raise UsageError(f"dual_clip={dual_clip} must be above 1, or None for no dual clip")
