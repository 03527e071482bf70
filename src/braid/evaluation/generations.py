"""What changes from one policy generation to the next when each is trained on what its predecessors logged.

Three views of a generation: its policy (`diagnose_policy`), its reward model on hold-out rows (`diagnose_model`, once
on uniformly served rows and once on its own policy's) and its logged rows (`summarise_log`). Series over generations
are judged by `fluctuation` and `oscillation_count`. N rows, K actions.

Source: the diagnostics of the study in arXiv 2412.00569.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from braid.data.bandit_log import NEVER, BanditLog
from braid.errors import UsageError
from braid.evaluation.off_policy import effective_sample_size

PROPENSITY_EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.9, 1.0)
"""Default bins of a propensity histogram: roughly logarithmic, as it is the small ones that matter."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PolicyDiagnostics:
    """A frozen policy on a set of requests; all are means over the requests.

    Args:
        value: exact expected reward.
        regret: expected reward of the best available actions minus `value`, at least 0.
        coverage: the smallest probability of an available action, in [0, 1/2] where there are at least two.
        exploration_mass: probability of not serving the greedy action.
        entropy: of the served action, nats.
    """

    value: float
    regret: float
    coverage: float
    exploration_mass: float
    entropy: float


@dataclass(frozen=True, slots=True)
class ModelDiagnostics:
    """A reward model on logged rows.

    Args:
        log_loss: mean negative log-likelihood of the rewards, nats.
        area_under_curve: chance that a success is predicted higher than a failure, ties counting half; nan where the
            rewards are all equal.
        calibration_error: see `calibration_error`.
    """

    log_loss: float
    area_under_curve: float
    calibration_error: float


@dataclass(frozen=True, slots=True)
class LogSummary:
    """The rows that one generation logged.

    Args:
        generation: which.
        rows: how many.
        known_share: share of rows whose reward has arrived.
        positive_rate: mean reward of those; nan if there are none.
        class_imbalance: larger of the positive rate and its complement, in [1/2, 1]; nan if there are none.
        smallest_propensity: of any row.
        propensity_histogram: number of rows per bin of the edges.
        uniform_sample_size: how many uniformly served rows the log is worth, by the effective sample size of the
            weights of the uniform policy over the available actions.
        action_shares: [K], share of rows with each action.
    """

    generation: int
    rows: int
    known_share: float
    positive_rate: float
    class_imbalance: float
    smallest_propensity: float
    propensity_histogram: tuple[int, ...]
    uniform_sample_size: float
    action_shares: tuple[float, ...]


def diagnose_policy(
    probabilities: ArrayLike, scores: ArrayLike, expected_reward: ArrayLike, mask: ArrayLike
) -> PolicyDiagnostics:
    """Judges a policy against the exact expectations of a simulated world.

    Args:
        probabilities: [N, K], 0 on unavailable actions.
        scores: [N, K], the predictions by which an action is greedy (the lowest index among ties).
        expected_reward: [N, K], exact.
        mask: [N, K] bool, the available actions; the other columns may hold anything in scores and expectations.

    Raises:
        UsageError: different shapes, no rows, a row without an available action, or probabilities that are none.
    """
    available = np.asarray(mask, dtype=bool)
    if available.ndim != 2 or not len(available) or not available.any(1).all():
        raise UsageError(f"mask has shape {available.shape}; expected rows of actions, at least one of them available")
    policy = _policy(probabilities, available.shape, "probabilities")
    if policy[~available].any():
        raise UsageError("probabilities has an unavailable action with a probability above 0")
    predicted = np.where(available, _table(scores, available.shape, "scores"), -np.inf)
    expected = np.where(available, _table(expected_reward, available.shape, "expected_reward"), -np.inf)
    value = np.where(available, policy * np.where(available, expected, 0.0), 0.0).sum(1)
    greedy = policy[np.arange(len(policy)), predicted.argmax(1)]
    return PolicyDiagnostics(
        value=float(value.mean()),
        regret=float((expected.max(1) - value).mean()),
        coverage=float(np.where(available, policy, np.inf).min(1).mean()),
        exploration_mass=float((1 - greedy).mean()),
        entropy=float(stats.entropy(policy, axis=1).mean()),
    )


def total_variation(first: ArrayLike, second: ArrayLike) -> float:
    """Half the summed absolute difference of two policies' probabilities, averaged over requests: in [0, 1].

    Args:
        first: [N, K], rows summing to 1.
        second: [N, K], on the same requests.

    Raises:
        UsageError: different shapes, no rows, or probabilities that are none.
    """
    one = _policy(first, np.shape(first), "first")
    return float(0.5 * np.abs(one - _policy(second, one.shape, "second")).sum(1).mean())


def diagnose_model(predicted: ArrayLike, reward: ArrayLike, bins: int = 10) -> ModelDiagnostics:
    """Judges predicted probabilities of success by the rewards of logged rows that did not train them.

    Args:
        predicted: [N], for the logged actions, in [0, 1]; clipped to 1e-12 from both ends for the log loss.
        reward: [N], zeros and ones.
        bins: of the calibration error.

    Raises:
        UsageError: different lengths, no rows, a prediction outside [0, 1], or a reward that is neither 0 nor 1.
    """
    probability, outcome = _pairs(predicted, reward)
    inside = np.clip(probability, 1e-12, 1 - 1e-12)
    loss = -(outcome * np.log(inside) + (1 - outcome) * np.log1p(-inside))
    return ModelDiagnostics(
        log_loss=float(loss.mean()),
        area_under_curve=area_under_curve(probability, outcome),
        calibration_error=calibration_error(probability, outcome, bins),
    )


def area_under_curve(predicted: ArrayLike, reward: ArrayLike) -> float:
    """The chance that a success is predicted higher than a failure, ties counting half; nan without both.

    Args:
        predicted: [N], in [0, 1].
        reward: [N], zeros and ones.

    Raises:
        UsageError: as `diagnose_model`.
    """
    probability, outcome = _pairs(predicted, reward)
    positives = int(outcome.sum())
    negatives = len(outcome) - positives
    if not positives or not negatives:
        return math.nan
    ranks = stats.rankdata(probability)
    return float((ranks[outcome == 1].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def calibration_error(predicted: ArrayLike, reward: ArrayLike, bins: int = 10) -> float:
    """The mean absolute difference of predicted and observed success, over bins with about the same number of rows.

    Bins end at quantiles of the predictions, as these crowd around the base rate; equal predictions share a bin.

    Args:
        predicted: [N], in [0, 1].
        reward: [N], zeros and ones.
        bins: at most so many, at least 1.

    Returns:
        Bins weighted by their rows, in [0, 1]; 0 for exact predictions, and above 0 by chance alone for few rows.

    Raises:
        UsageError: as `diagnose_model`, or no bin.
    """
    probability, outcome = _pairs(predicted, reward)
    if bins < 1:
        raise UsageError(f"bins={bins} must be at least 1")
    inner = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1]))
    which = np.searchsorted(inner, probability, side="right")
    # A bin's rows times its mean difference is its sum of differences.
    return float(np.abs(np.bincount(which, weights=probability - outcome)).sum() / len(outcome))


def class_imbalance(reward: ArrayLike) -> float:
    """The larger of the shares of successes and failures: from 1/2, balanced, to 1; nan for no rows.

    Args:
        reward: [N], zeros and ones.

    Raises:
        UsageError: a reward that is neither 0 nor 1.
    """
    outcome = np.asarray(reward, dtype=np.float64)
    if not np.isin(outcome, (0, 1)).all():
        raise UsageError("reward must hold only 0 and 1")
    return float(max(outcome.mean(), 1 - outcome.mean())) if outcome.size else math.nan


def summarise_log(
    log: BanditLog, now: int | None = None, edges: Sequence[float] = PROPENSITY_EDGES
) -> list[LogSummary]:
    """One summary per generation in a log, in their order.

    Args:
        log: rows of any generations with rewards of 0 and 1.
        now: the generation about to start, by which rewards have to have arrived; None counts all that ever will.
        edges: of the propensity histogram, rising from 0 to 1; each bin has its lower edge, the last also its upper.

    Returns:
        Nothing for an empty log.

    Raises:
        UsageError: edges that do not rise from 0 to 1, or a known reward that is neither 0 nor 1.
    """
    limits = np.asarray(edges, dtype=np.float64)
    if len(limits) < 2 or limits[0] != 0 or limits[-1] != 1 or not (np.diff(limits) > 0).all():
        raise UsageError(f"edges={tuple(edges)} must rise from 0 to 1")
    latest = NEVER - 1 if now is None else now
    return [
        _summary(log.rows(log.generation == generation), int(generation), latest, limits)
        for generation in np.unique(log.generation)
    ]


def fluctuation(values: ArrayLike) -> float:
    """The sample standard deviation of the steps from generation to generation; a steady rise does not fluctuate.

    Args:
        values: [G], one value per generation; at least 3.

    Raises:
        UsageError: fewer than 3 values, or a non-finite one.
    """
    return float(np.diff(_series(values, 3)).std(ddof=1))


def oscillation_count(values: ArrayLike) -> int:
    """How often a series turns: sign changes of the steps from generation to generation, steps of 0 left out.

    Args:
        values: [G], one value per generation; at least 1.

    Returns:
        From 0 to G - 2.

    Raises:
        UsageError: no value, or a non-finite one.
    """
    signs = np.sign(np.diff(_series(values, 1)))
    signs = signs[signs != 0]
    return int((signs[1:] != signs[:-1]).sum())


def _summary(log: BanditLog, generation: int, latest: int, edges: FloatArray) -> LogSummary:
    known = log.known_at(latest)
    available = log.mask.sum(1)
    shares = np.bincount(log.action, minlength=log.mask.shape[1]) / len(log)
    return LogSummary(
        generation=generation,
        rows=len(log),
        known_share=len(known) / len(log),
        positive_rate=float(known.reward.mean()) if len(known) else math.nan,
        class_imbalance=class_imbalance(known.reward),
        smallest_propensity=float(log.propensity.min()),
        propensity_histogram=tuple(np.histogram(log.propensity, edges)[0].tolist()),
        uniform_sample_size=effective_sample_size(1 / (available * log.propensity)),
        action_shares=tuple(shares.tolist()),
    )


def _pairs(predicted: ArrayLike, reward: ArrayLike) -> tuple[FloatArray, FloatArray]:
    probability, outcome = np.asarray(predicted, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    if probability.ndim != 1 or probability.shape != outcome.shape or not probability.size:
        raise UsageError(
            f"predicted has shape {probability.shape}, reward {outcome.shape}; expected one of each per row"
        )
    if not ((probability >= 0) & (probability <= 1)).all():
        raise UsageError("predicted has a value outside [0, 1]; give probabilities, not logits")
    if not np.isin(outcome, (0, 1)).all():
        raise UsageError("reward must hold only 0 and 1")
    return probability, outcome


def _policy(probabilities: ArrayLike, shape: tuple[int, ...], name: str) -> FloatArray:
    values = _table(probabilities, shape, name)
    if values.ndim != 2 or not len(values):
        raise UsageError(f"{name} has shape {values.shape}; expected rows of action probabilities")
    if not ((values >= 0).all() and (np.abs(values.sum(1) - 1) < 1e-3).all()):
        raise UsageError(f"{name} has a row that is no distribution: it must be at least 0 and sum to 1")
    return values


def _table(values: ArrayLike, shape: tuple[int, ...], name: str) -> FloatArray:
    table = np.asarray(values, dtype=np.float64)
    if table.shape != shape:
        raise UsageError(f"{name} has shape {table.shape}; expected {shape}, one row per request")
    return table


def _series(values: ArrayLike, fewest: int) -> FloatArray:
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1 or len(series) < fewest or not np.isfinite(series).all():
        raise UsageError(f"expected at least {fewest} finite values, one per generation, got {series.tolist()}")
    return series
