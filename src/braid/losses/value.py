"""Losses of the critic."""

from __future__ import annotations

import torch
from torch import Tensor

from braid.errors import UsageError


def clipped_value_loss(value: Tensor, old_value: Tensor, returns: Tensor, clip_range: float | None) -> Tensor:
    """Half the squared error of the value, or of the value clipped around its old estimate, whichever is larger.

    Args:
        value: [B, T], current estimate.
        old_value: [B, T], estimate when the data were collected; detached.
        returns: [B, T], regression target; detached.
        clip_range: largest counted move away from ``old_value``, in units of return, at least 0; None for no clip.

    Returns:
        [B, T], not negative.

    Raises:
        UsageError: a negative clip range.

    Source: openai/baselines ``ppo2``; verl ``compute_value_loss``; the factor 1/2 is in both.
    """
    returns, old_value = returns.detach(), old_value.detach()
    error = (value - returns).square()
    if clip_range is None:
        return 0.5 * error
    if not clip_range >= 0:
        raise UsageError(f"clip_range={clip_range} must be at least 0, or None for no clip")
    clipped = torch.minimum(torch.maximum(value, old_value - clip_range), old_value + clip_range)
    return 0.5 * torch.maximum(error, (clipped - returns).square())
