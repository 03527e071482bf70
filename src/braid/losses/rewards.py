"""Reward terms that are functions of the response's shape rather than of what it says."""

from __future__ import annotations

import torch
from torch import Tensor

from braid.errors import UsageError


def soft_overlong(length: Tensor, maximum: float, buffer: float, penalty: float = 1.0) -> Tensor:
    """A penalty that grows linearly over the last tokens before the length limit.

    Args:
        length: [B], response tokens.
        maximum: longest response, tokens.
        buffer: tokens before ``maximum`` over which the penalty grows; in (0, maximum].
        penalty: its size at ``maximum``, in units of reward.

    Returns:
        [B], float: 0 up to maximum - buffer, -penalty at maximum (and further down beyond).

    Raises:
        UsageError: a buffer outside (0, maximum].

    Source: DAPO, arXiv 2503.14476, equation 13; verl ``DAPORewardManager``.
    """
    if not 0 < buffer <= maximum:
        raise UsageError(f"buffer={buffer} must lie in (0, maximum={maximum}]")
    length = length if length.is_floating_point() else length.to(torch.float32)
    excess = (length - (maximum - buffer)) / buffer
    return -penalty * excess.clamp(min=0)
