"""What a categorical distribution says of a token drawn from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def log_prob_and_entropy(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probability of a token and the entropy of the distribution it is drawn from, from one softmax.

    Both are differentiable once. Of all tensors as large as the logits, only the log-softmax is kept for the gradient,
    and the gradient of the entropy costs nothing where it is not asked for.

    Args:
        logits: [M, V], float; -inf marks impossible tokens.
        tokens: [M] int64, in [0, V).

    Returns:
        Log-probability [M] and entropy [M], nats; the latter is in [0, log V].
    """
    log_prob, entropy = _LogProbAndEntropy.apply(logits, tokens)
    return log_prob, entropy


class _LogProbAndEntropy(torch.autograd.Function):
    """With p the softmax: d log p_k / d logits = onehot_k - p, and d H / d logits = -p (log p + H)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        log_softmax = logits.log_softmax(-1)
        log_prob = log_softmax.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
        entropy = log_softmax.exp().mul_(_finite(log_softmax)).sum(-1).neg_()
        ctx.save_for_backward(log_softmax, tokens, entropy)
        ctx.set_materialize_grads(False)
        return log_prob, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_log_prob: Tensor | None, of_entropy: Tensor | None) -> tuple[Tensor, None]:
        log_softmax, tokens, entropy = ctx.saved_tensors
        weight = (torch.zeros_like(entropy) if of_log_prob is None else of_log_prob).unsqueeze(-1)
        slope = weight
        if of_entropy is not None:
            slope = weight + of_entropy.unsqueeze(-1) * (_finite(log_softmax) + entropy.unsqueeze(-1))
        gradient = log_softmax.exp().mul_(-slope)
        return gradient.scatter_add_(-1, tokens.unsqueeze(-1), weight), None


def _finite(log_softmax: Tensor) -> Tensor:
    """Keeps 0 log 0 from being NaN and changes nothing else: the exponential of the bound is 0 in every float type."""
    return log_softmax.clamp(min=-1e3)
