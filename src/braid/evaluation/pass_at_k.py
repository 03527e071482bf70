"""pass@k: the chance that at least one of k answers is correct, estimated without bias from n >= k answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from braid.errors import UsageError


def pass_at_k(correct: ArrayLike, k: int) -> NDArray[np.float64]:
    """The unbiased estimate of pass@k for every problem, from which samples were correct.

    Args:
        correct: [..., n] booleans (or 0 and 1): whether each of the n samples of a problem is correct.
        k: number of attempts, 1 <= k <= n.

    Returns:
        [...] estimates in [0, 1]; their mean over problems is the benchmark's pass@k.

    Raises:
        UsageError: k is not in 1..n, or an entry is neither 0 nor 1.

    Source: arXiv 2107.03374, equation 1.
    """
    samples = np.asarray(correct)
    if samples.ndim == 0:
        raise UsageError("correct must have a last axis of samples, but is a single value; wrap it in a list")
    if not np.isin(samples, (0, 1)).all():
        raise UsageError("correct must hold only True and False (or 1 and 0); threshold graded scores first")
    return pass_at_k_from_counts(samples.astype(bool).sum(axis=-1), samples.shape[-1], k)


def pass_at_k_from_counts(correct_count: ArrayLike, sample_count: ArrayLike, k: int) -> NDArray[np.float64]:
    """The unbiased estimate 1 - C(n - c, k) / C(n, k) of pass@k for every problem, from counts.

    The quotient of binomials is taken as the product of (n - c - j) / (n - j) over j = 0..k-1: no factorial is formed,
    so nothing overflows, and c = 0 gives exactly 0 and c > n - k exactly 1.

    Args:
        correct_count: [...] integers c, correct samples per problem, 0 <= c <= n.
        sample_count: integer n, or [...] integers where problems have different numbers of samples.
        k: number of attempts, 1 <= k <= the smallest n.

    Returns:
        [...] estimates in [0, 1].

    Raises:
        UsageError: k is not in 1..n, or a count is negative, fractional, or larger than n.

    Source: arXiv 2107.03374, equation 1.
    """
    c, n = np.broadcast_arrays(np.asarray(correct_count), np.asarray(sample_count))
    for name, count in (("correct_count", c), ("sample_count", n)):
        if count.size and not (np.isfinite(count).all() and (count == np.floor(count)).all()):
            raise UsageError(f"{name} must hold whole numbers")
    if isinstance(k, bool) or k != int(k) or k < 1:
        raise UsageError(f"k={k} is not a number of attempts; use a whole number of at least 1")
    if n.size and k > n.min():
        raise UsageError(f"k={k} exceeds the {int(n.min())} samples of a problem; draw at least {k} or lower k")
    if c.size and ((c < 0) | (c > n)).any():
        raise UsageError("correct_count must lie between 0 and sample_count")
    drawn = np.arange(int(k))
    all_wrong = np.clip(n[..., None] - c[..., None] - drawn, 0, None) / (n[..., None] - drawn)
    return np.asarray(1.0 - all_wrong.prod(axis=-1), dtype=np.float64)
