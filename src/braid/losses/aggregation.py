"""From per-token losses to one number: the only module of Braid with masked means."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from braid.errors import UsageError, unknown_name

Aggregation = Literal[
    "token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm", "token-sum-norm"
]


def token_weights(
    mask: Tensor, mode: Aggregation, length: float | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The weight of every token, such that the loss of the whole optimiser step is ``(weights * per_token).sum()``.

    Compute the weights once over all rows of the step and slice them into micro-batches: the sum of the pieces is then
    exactly the loss of the whole, whatever the split. With N the number of rows that have a valid token and n_i the
    valid tokens of row i, a valid token weighs

    - ``token-mean``: 1 / sum_i n_i (DAPO; TRL ``dapo``)
    - ``seq-mean-token-mean``: 1 / (N n_i) (GRPO)
    - ``seq-mean-token-sum``: 1 / N
    - ``seq-mean-token-sum-norm``: 1 / (N length) (Dr. GRPO as in TRL)
    - ``token-sum-norm``: 1 / length (what verl calls seq-mean-token-sum-norm; HPT, NFT)

    Args:
        mask: [B, T], bool or 0/1.
        mode: one of the names above.
        length: tokens, above 0; required by the two ``-norm`` modes (usually the longest allowed response).
        dtype: floating type of the result.

    Returns:
        [B, T], not negative, 0 outside the mask (all zeros when nothing is valid).

    Raises:
        UsageError: unknown mode, or a missing or non-positive length.

    Source: verl ``core_algos.agg_loss``; TRL ``GRPOTrainer`` ``loss_type``; arXiv 2503.14476, 2503.20783.
    """
    if mode not in get_args(Aggregation):
        raise unknown_name("aggregation", mode, get_args(Aggregation))
    valid = (mask != 0).to(dtype)
    per_row = valid.sum(dim=-1, keepdim=True)
    rows = (per_row > 0).sum().clamp(min=1)
    match mode:
        case "token-mean":
            return valid / valid.sum().clamp(min=1)
        case "seq-mean-token-mean":
            return valid / (per_row.clamp(min=1) * rows)
        case "seq-mean-token-sum":
            return valid / rows
        case "seq-mean-token-sum-norm":
            return valid / (rows * _positive_length(mode, length))
        case "token-sum-norm":
            return valid / _positive_length(mode, length)


def aggregate(per_token: Tensor, mask: Tensor, mode: Aggregation, length: float | None = None) -> Tensor:
    """The loss of one self-contained batch, safe against inf and nan outside the mask.

    Args:
        per_token: [B, T].
        mask: [B, T], bool or 0/1.
        mode: see ``token_weights``.
        length: see ``token_weights``.

    Returns:
        Scalar in the type of ``per_token``; 0 when nothing is valid.

    Raises:
        UsageError: ``per_token`` and ``mask`` differ in shape, or as ``token_weights``.

    Source: as ``token_weights``.
    """
    if per_token.shape != mask.shape:
        raise UsageError(f"per_token {tuple(per_token.shape)} and mask {tuple(mask.shape)} must have the same shape")
    precise = torch.promote_types(per_token.dtype, torch.float32)
    weights = token_weights(mask, mode, length, dtype=precise)
    return masked_sum(per_token.to(precise) * weights, mask).to(per_token.dtype)


def sequence_weights(mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weight of every row in a mean over the rows that have at least one valid token.

    Args:
        mask: [B, T], bool or 0/1.
        dtype: floating type of the result.

    Returns:
        [B], 1/N for rows with a valid token and 0 for the others.

    Source: the sequence-level case of ``token_weights``.
    """
    present = (mask != 0).any(dim=-1).to(dtype)
    return present / present.sum().clamp(min=1)


def masked_sum(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """The sum of the valid entries.

    Args:
        values: any shape.
        mask: same shape, bool or 0/1.
        dim: axis to sum over; all axes when None.

    Returns:
        ``values`` without the axis ``dim``, or a scalar.
    """
    kept = torch.where(mask != 0, values, torch.zeros_like(values))
    return kept.sum() if dim is None else kept.sum(dim=dim)


def masked_mean(values: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """The mean of the valid entries, 0 where there is none.

    Args:
        values: any shape.
        mask: same shape, bool or 0/1.
        dim: axis to average over; all axes when None.

    Returns:
        ``values`` without the axis ``dim``, or a scalar.
    """
    valid = mask != 0
    count = valid.sum() if dim is None else valid.sum(dim=dim)
    return masked_sum(values, mask, dim) / count.clamp(min=1)


def masked_var(values: Tensor, mask: Tensor, unbiased: bool = True) -> Tensor:
    """The variance of the valid entries over all axes, 0 when there are too few of them.

    Args:
        values: any shape.
        mask: same shape, bool or 0/1.
        unbiased: divide by n - 1 instead of n.

    Returns:
        Scalar, not negative.

    Source: verl ``masked_var``.
    """
    squares = masked_sum((values - masked_mean(values, mask)).square(), mask)
    return squares / ((mask != 0).sum() - int(unbiased)).clamp(min=1)


def masked_whiten(values: Tensor, mask: Tensor) -> Tensor:
    """The valid entries shifted to mean 0 and scaled to variance 1: (x - mean) / sqrt(var + 1e-8).

    Args:
        values: any shape.
        mask: same shape, bool or 0/1.

    Returns:
        Shape of ``values``, 0 outside the mask; a single valid entry becomes 0.

    Source: verl and TRL ``masked_whiten`` (unbiased variance).
    """
    whitened = (values - masked_mean(values, mask)) * (masked_var(values, mask) + 1e-8).rsqrt()
    return torch.where(mask != 0, whitened, torch.zeros_like(whitened))


def _positive_length(mode: str, length: float | None) -> float:
    if length is None or not length > 0:
        raise UsageError(f"aggregation {mode!r} divides by length, but length={length}; give the longest response, > 0")
    return length
