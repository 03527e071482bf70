"""From numbers per seed to a verdict: paired differences, their intervals, and what these say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import stats

from braid.evaluation.statistics import Interval, bootstrap_interval, probability_of_improvement, student_interval
from braid.evidence.claim import BASE, Claim, Comparison

Verdict = Literal["reproduced", "direction only", "inconclusive", "not reproduced"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From the strongest to the weakest."""
CONFIDENCE = 0.95
Numbers = Mapping[str, Mapping[str, Sequence[float]]]
"""Arm -> metric -> one number per seed."""


@dataclass(frozen=True)
class Finding:
    """What was found of one comparison.

    Args:
        comparison: what should hold.
        differences: per seed, positive where the arm is better.
        effect: their mean.
        interval: of the mean, at the confidence that all comparisons of the claim together have at least 95 %.
        confidence: of this interval alone.
        improvement: the chance that a run of the arm beats a run of the other.
        verdict: what the interval says.
    """

    comparison: Comparison
    differences: tuple[float, ...]
    effect: float
    interval: Interval
    confidence: float
    improvement: float
    verdict: Verdict


def judge(claim: Claim, numbers: Numbers) -> list[Finding]:
    """The findings of a claim, in the order of its comparisons; the verdict of the claim is that of the weakest.

    Several comparisons are corrected by Holm's rule: the clearest gets the widest interval.

    Args:
        claim: what should hold.
        numbers: of all runs; `base` has the same number for every seed.
    """
    differences = [_differences(comparison, numbers) for comparison in claim.comparisons]
    order = np.argsort([_p_value(found, c.smallest) for found, c in zip(differences, claim.comparisons, strict=True)])
    confidence = {int(which): 1 - (1 - CONFIDENCE) / (len(order) - rank) for rank, which in enumerate(order)}
    findings = []
    for number, (comparison, found) in enumerate(zip(claim.comparisons, differences, strict=True)):
        interval = careful_interval(found, confidence[number])
        pair = [
            np.asarray(numbers[name][comparison.metric], dtype=float) for name in (comparison.arm, comparison.other)
        ]
        better, worse = reversed(pair) if comparison.lower else pair
        findings.append(
            Finding(
                comparison,
                tuple(found),
                float(np.mean(found)),
                interval,
                confidence[number],
                probability_of_improvement(better, worse),
                verdict_of(interval, comparison.smallest),
            )
        )
    return findings


def verdict_of(interval: Interval, smallest: float) -> Verdict:
    """What an interval of a difference says.

    Args:
        interval: of the difference, positive where the claim is right.
        smallest: the smallest difference worth calling an effect; negative: it must only not be less than this.
    """
    if interval.low > smallest:
        return "reproduced"
    if interval.low > 0:
        return "direction only"
    if interval.high <= min(0.0, smallest):
        return "not reproduced"
    return "inconclusive"


def weakest(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim all of whose comparisons have to hold."""
    return max(verdicts, key=VERDICTS.index)


def careful_interval(values: Sequence[float], confidence: float) -> Interval:
    """The interval that covers both the BCa bootstrap's and Student's: of few seeds the first alone is too narrow.

    Args:
        values: one per seed.
        confidence: nominal, in (0, 1).
    """
    both = [bootstrap_interval(values, confidence), student_interval(values, confidence)]
    return Interval(min(one.low for one in both), max(one.high for one in both))


def _differences(comparison: Comparison, numbers: Numbers) -> list[float]:
    arm, other = (
        np.asarray(numbers[name][comparison.metric], dtype=float) for name in (comparison.arm, comparison.other)
    )
    return [float(value) for value in (other - arm if comparison.lower else arm - other)]


def _p_value(differences: Sequence[float], smallest: float) -> float:
    """Of the one-sided t-test that the difference is beyond the smallest effect; it only orders comparisons."""
    shifted = np.asarray(differences) - smallest
    if np.ptp(shifted) == 0:
        return 0.0 if shifted[0] > 0 else 1.0
    return float(stats.ttest_1samp(shifted, 0.0, alternative="greater").pvalue)


def with_base(numbers: Mapping[str, Mapping[str, Sequence[float]]], base: Mapping[str, float], seeds: int) -> Numbers:
    """Numbers of all arms with those of the common start as one more."""
    return {**numbers, BASE: {name: [value] * seeds for name, value in base.items()}}
