"""The policy as a classifier of its own outcomes (PACS): proxies, scores within a group, weights and cross-entropy.

Nothing here is detached except the labels and the weights: the gradient flows through every member of a group, so a
micro-batch has to hold whole groups.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from braid.errors import unknown_name
from braid.losses.advantages import group_mean, group_size, group_std, success_rate
from braid.losses.aggregation import masked_mean, masked_sum

ProxyKind = Literal["log_ratio", "mean_log_prob"]
ScoreKind = Literal["rloo", "grpo", "naive"]
ClassBalance = Literal["balanced", "one", "only_positive", "only_negative"]


def reward_proxy(
    log_prob: Tensor, behaviour_log_prob: Tensor, mask: Tensor, scale: float, kind: ProxyKind = "log_ratio"
) -> Tensor:
    """The reward that the policy's own likelihood stands for.

    Args:
        log_prob: [B, T], current policy, nats.
        behaviour_log_prob: [B, T], policy at the start of the step; detached, unused by ``mean_log_prob``.
        mask: [B, T], bool or 0/1.
        scale: beta.
        kind: ``log_ratio`` is beta times the *sum* of the log-ratios, ``mean_log_prob`` beta times the mean of log pi.

    Returns:
        [B].

    Raises:
        UsageError: unknown kind.

    Source: PACS, arXiv 2509.02522; ritzz-ai/PACS ``reward_method`` 1 and 2.
    """
    match kind:
        case "log_ratio":
            return scale * masked_sum(log_prob - behaviour_log_prob.detach(), mask, dim=-1)
        case "mean_log_prob":
            return scale * masked_mean(log_prob, mask, dim=-1)
        case _:
            raise unknown_name("proxy kind", kind, get_args(ProxyKind))


def group_score(proxy: Tensor, group_id: Tensor, kind: ScoreKind = "rloo", epsilon: float = 1e-6) -> Tensor:
    """The logit of "this response is correct", from the proxies of its group.

    Args:
        proxy: [B], whole groups.
        group_id: [B], any integers.
        kind: ``rloo`` subtracts the mean of the others, ``grpo`` the mean of all and divides by the sample standard
            deviation (its gradient is of order 1/epsilon while all proxies are equal), ``naive`` is the proxy.
        epsilon: added to the standard deviation by ``grpo``.

    Returns:
        [B]; a group of one scores 0 under ``rloo`` and ``grpo``.

    Raises:
        UsageError: unknown kind.

    Source: PACS, arXiv 2509.02522.
    """
    match kind:
        case "rloo":
            size = group_size(group_id)
            return (proxy - group_mean(proxy, group_id)) * size / (size - 1).clamp(min=1)
        case "grpo":
            return (proxy - group_mean(proxy, group_id)) / (group_std(proxy, group_id) + epsilon)
        case "naive":
            return proxy
        case _:
            raise unknown_name("score kind", kind, get_args(ScoreKind))


def class_balance_weight(correct: Tensor, group_id: Tensor, kind: ClassBalance = "balanced") -> Tensor:
    """Weights that give the correct and the wrong responses of a question the same total.

    Args:
        correct: [B], bool or 0/1.
        group_id: [B], any integers.
        kind: ``balanced`` is G / (2 n) with n the members of the group with the same label, and 1 in uniform groups;
            ``one`` is 1; ``only_positive`` and ``only_negative`` are 1 for that label and 0 for the other.

    Returns:
        [B], not negative, detached, mean 1 in every group when balanced.

    Raises:
        UsageError: unknown kind.

    Source: PACS, arXiv 2509.02522.
    """
    rate, is_correct = success_rate(correct, group_id), correct != 0
    ones, zeros = torch.ones_like(rate), torch.zeros_like(rate)
    match kind:
        case "balanced":
            share = torch.where(is_correct, rate, 1 - rate)
            return torch.where((rate > 0) & (rate < 1), 0.5 / share, ones)
        case "one":
            return ones
        case "only_positive":
            return torch.where(is_correct, ones, zeros)
        case "only_negative":
            return torch.where(is_correct, zeros, ones)
        case _:
            raise unknown_name("class balance", kind, get_args(ClassBalance))


def outcome_cross_entropy(score: Tensor, correct: Tensor, weight: Tensor) -> Tensor:
    """The weighted cross-entropy between predicted and verified outcomes; average it over all responses.

    Args:
        score: [B], logits.
        correct: [B], bool or 0/1.
        weight: [B], not renormalised; detached.

    Returns:
        [B], not negative.

    Source: PACS, arXiv 2509.02522.
    """
    label = (correct != 0).to(score.dtype)
    return weight.detach() * F.binary_cross_entropy_with_logits(score, label, reduction="none")
