"""Bounds on mutual information by contrast: what a variable says of another beyond a fixed noise law.

Gradients flow into every argument. A min-max game (Dichotomy of Control: the energy ascends, the posterior descends) is
made by detaching one side: loss of the energy -bound(energy(z.detach())), loss of the posterior +beta bound with the
energy's weights frozen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from braid.errors import UsageError


def contrast(energy: Tensor, noise_energy: Tensor, log_weight: Tensor | None = None) -> Tensor:
    """The energy of what happened, less that of what might have: f - log E_rho exp(f).

    Its largest mean over energies is E KL(p(x | context) || rho); it is 0 for a constant energy.

    Args:
        energy: [B], of the observed outcome in its context.
        noise_energy: [B, N], of N outcomes from the noise law in the same context.
        log_weight: [N] or [B, N], log-probabilities of those outcomes under the law if they are enumerated rather than
            sampled; None for N samples of equal weight.

    Returns:
        [B], nats; its mean bounds the divergence from below.

    Source: Donsker and Varadhan 1983; Dichotomy of Control, arXiv 2210.13435.
    """
    if log_weight is None:
        return energy - torch.logsumexp(noise_energy, dim=-1) + math.log(noise_energy.shape[-1])
    return energy - torch.logsumexp(noise_energy + log_weight, dim=-1)


def info_nce(similarity: Tensor) -> Tensor:
    """The negative log-likelihood of every row's own partner among all partners of the batch.

    Args:
        similarity: [B, B], of row i with partner j; the pairs that belong together lie on the diagonal.

    Returns:
        [B], nats, not negative; log B less its mean bounds the mutual information from below.

    Raises:
        UsageError: a matrix that is not square.

    Source: arXiv 1807.03748, equation 4.
    """
    if similarity.dim() != 2 or similarity.shape[0] != similarity.shape[1]:
        raise UsageError(f"similarity {tuple(similarity.shape)} must be [B, B], every row against every partner")
    return -torch.log_softmax(similarity, dim=-1).diagonal()
