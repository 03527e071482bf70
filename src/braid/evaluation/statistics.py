"""What a handful of seeds says: intervals for means and differences, and robust aggregates.

Which interval to use. With the 3 to 10 seeds that training affords, a bootstrap over seeds is too narrow: its resamples
hold no more spread than the sample, so a nominal 95 % interval from 3 seeds covers the truth about 75 % of the time.
`student_interval` and `paired_difference` are calibrated there (if the scores are roughly normal) and should carry any
verdict; `bootstrap_interval` is what comparison tables of the field show, and is trustworthy from about 20 values on.
`hierarchical_bootstrap` adds the luck of which held-out problems were drawn.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from braid.errors import UsageError


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval in the unit of the values; both ends are nan where too few values allow none."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """high - low."""
        return self.high - self.low

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its confidence interval.

    Args:
        mean: the point estimate.
        low: lower end of the interval; nan if there is no interval.
        high: upper end of the interval; nan if there is no interval.
        n: number of independent units behind it (seeds, or pairs of seeds).
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> Interval:
        """The two ends."""
        return Interval(self.low, self.high)

    @property
    def has_interval(self) -> bool:
        """False where too few units (n < 2) allow no interval: such an estimate supports no verdict."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __str__(self) -> str:
        ends = f"[{self.low:.3g}, {self.high:.3g}]" if self.has_interval else "[no interval]"
        return f"{self.mean:.3g} {ends} (n={self.n})"


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, seed: int = 0, *, resamples: int = 9999
) -> Interval:
    """The bootstrap interval of the mean: bias-corrected and accelerated, or percentile where that is degenerate.

    Args:
        values: [N] finite numbers, one per independent unit (seed).
        confidence: nominal coverage, in (0, 1).
        seed: seed of the resampling.
        resamples: number of bootstrap samples.

    Returns:
        The interval; zero-width for constant values, nan for a single value.

    Raises:
        UsageError: no value, a non-finite value, or a confidence outside (0, 1).
    """
    sample = _finite(values, "values", ndim=(1,))
    _check_confidence(confidence)
    if sample.size < 2:
        return Interval(math.nan, math.nan)
    if (sample == sample[0]).all():
        return Interval(float(sample[0]), float(sample[0]))
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # degenerate BCa warns and returns nan, which is handled here
            low, high = stats.bootstrap(
                (sample,),
                np.mean,
                confidence_level=confidence,
                n_resamples=resamples,
                method=method,
                random_state=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(low) and math.isfinite(high):
            break
    return Interval(float(low), float(high))


def student_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """The Student-t interval of the mean, calibrated for few roughly normal values.

    Args:
        values: [N] finite numbers, one per independent unit (seed).
        confidence: nominal coverage, in (0, 1).

    Returns:
        The interval; zero-width for constant values, nan for a single value.

    Raises:
        UsageError: no value, a non-finite value, or a confidence outside (0, 1).
    """
    sample = _finite(values, "values", ndim=(1,))
    _check_confidence(confidence)
    if sample.size < 2:
        return Interval(math.nan, math.nan)
    centre = float(sample.mean())
    if (sample == sample[0]).all():
        return Interval(float(sample[0]), float(sample[0]))
    half = float(stats.t.ppf(0.5 + confidence / 2, sample.size - 1) * sample.std(ddof=1) / math.sqrt(sample.size))
    return Interval(centre - half, centre + half)


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The mean of a - b, paired by seed, with its Student-t interval.

    Pairing removes what the two methods share (initial weights, data order). For a bootstrap over the same pairs, call
    `bootstrap_interval(a - b)`.

    Args:
        a: [N] scores of one method; entry i belongs to seed i.
        b: [N] scores of the other method on the same seeds, in the same order.
        confidence: nominal coverage, in (0, 1).

    Returns:
        The estimate with n = N; for N = 1 its ends are nan and `has_interval` is False.

    Raises:
        UsageError: the lengths differ, there is no value or a non-finite one, or confidence is outside (0, 1).
    """
    first, second = _finite(a, "a", ndim=(1,)), _finite(b, "b", ndim=(1,))
    if first.size != second.size:
        raise UsageError(f"a has {first.size} values and b has {second.size}; give one of each per seed, in order")
    difference = first - second
    interval = student_interval(difference, confidence)
    return Estimate(float(difference.mean()), interval.low, interval.high, difference.size)


def hierarchical_bootstrap(
    scores: ArrayLike, confidence: float = 0.95, seed: int = 0, *, resamples: int = 9999
) -> Estimate:
    """The mean score with a percentile interval that resamples both the seeds and the held-out problems.

    Every seed is judged on the same problems, so the two are crossed: one resample draws S seeds and P problems with
    replacement and averages the S x P table of their scores. For two methods, pass the table of differences.
    With few seeds the caution of the module's docstring holds for the seeds' share of the spread.

    Args:
        scores: [S, P] finite scores of S training seeds on P held-out problems.
        confidence: nominal coverage, in (0, 1).
        seed: seed of the resampling.
        resamples: number of bootstrap samples.

    Returns:
        The estimate with n = S. With S = 1 the interval covers the choice of problems only; with S = P = 1 it is nan.

    Raises:
        UsageError: the table is empty, not two-dimensional or has a non-finite entry, or confidence is outside (0, 1).

    Source: doi 10.1214/07-AOAS122 (the pigeonhole bootstrap).
    """
    table = _finite(scores, "scores", ndim=(2,))
    _check_confidence(confidence)
    seeds, problems = table.shape
    mean = float(table.mean())
    if table.size == 1:
        return Estimate(mean, math.nan, math.nan, seeds)
    generator = np.random.default_rng(seed)
    seed_counts = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)
    means = np.empty(resamples)
    chunk = max(1, 4_000_000 // problems)  # keeps the counts of a chunk near 32 MB
    for start in range(0, resamples, chunk):
        rows = slice(start, min(start + chunk, resamples))
        problem_counts = generator.multinomial(problems, np.full(problems, 1 / problems), size=rows.stop - rows.start)
        means[rows] = ((seed_counts[rows] @ table) * problem_counts).sum(axis=1) / table.size
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(mean, float(low), float(high), seeds)


def interquartile_mean(scores: ArrayLike) -> float:
    """The mean of the middle half of all scores: floor(N / 4) are left out at either end.

    Args:
        scores: [N] or [seeds, tasks] finite scores; all entries count alike.

    Returns:
        The mean of what is left.

    Raises:
        UsageError: no score, or a non-finite one.

    Source: arXiv 2108.13264.
    """
    return float(stats.trim_mean(_finite(scores, "scores", ndim=(1, 2)), 0.25, axis=None))


def probability_of_improvement(a: ArrayLike, b: ArrayLike) -> float:
    """The chance that a run of one method beats a run of the other, ties counting half, averaged over tasks.

    Args:
        a: [N] or [N, tasks] finite scores of one method's runs.
        b: [M] or [M, tasks] finite scores of the other method's runs.

    Returns:
        A number in [0, 1]; 0.5 where neither is better.

    Raises:
        UsageError: no score, a non-finite one, or different numbers of tasks.

    Source: arXiv 2108.13264.
    """
    first, second = _finite(a, "a", ndim=(1, 2)), _finite(b, "b", ndim=(1, 2))
    if first.shape[1:] != second.shape[1:]:
        raise UsageError(f"a has shape {first.shape} and b has {second.shape}; the tasks (second axis) must agree")
    return float((0.5 + 0.5 * np.sign(first[:, None] - second[None, :])).mean())


def _finite(values: ArrayLike, name: str, ndim: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in ndim:
        raise UsageError(f"{name} has shape {array.shape}; expected {' or '.join(map(str, ndim))} axes")
    if array.size == 0:
        raise UsageError(f"{name} is empty; at least one value is needed")
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise UsageError(f"{name} has {count} non-finite of {array.size} values; report failed runs apart")
    return array


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UsageError(f"confidence={confidence} is not between 0 and 1; 0.95 is usual")
