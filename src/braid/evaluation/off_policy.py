"""What a policy would have earned, estimated from decisions logged under another one.

N logged decisions, A actions. ``target`` is the evaluated policy, ``propensity`` the probability with which the logged
action was served. All estimators assume that every action the target may take had a positive probability in the log;
`weight_diagnostics` shows where that fails (weights then average below 1).

=====================  ==========================================  ==============================================
estimator              expectation                                 use
=====================  ==========================================  ==============================================
inverse_propensity     exact                                       few, large or well-covered logs
 … with clip           too low for rewards of at least 0           heavy weights; bias for variance
self_normalised        exact in the limit; within the rewards      the usual choice without a reward model
direct_method          that of the reward model                    a trusted model, or no propensities
doubly_robust          exact if propensities or model are right    the usual choice with a reward model
=====================  ==========================================  ==============================================

Standard errors are those of the sampling of decisions; a bias of a clipped weight or of a model is not in them. Use
only rewards that have arrived, and a reward model that was not fitted on the same rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from braid.errors import UsageError
from braid.evaluation.statistics import Interval

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OffPolicyEstimate:
    """An estimated value of a policy.

    Args:
        value: in units of reward.
        standard_error: of the value over draws of the log; nan for a single decision.
        n: number of logged decisions.
        effective_sample_size: how many on-policy decisions the weighted log is worth, between 0 and n; n for the direct
            method, which weighs nothing.
    """

    value: float
    standard_error: float
    n: int
    effective_sample_size: float

    def interval(self, confidence: float = 0.95) -> Interval:
        """The normal interval; too narrow where the effective sample size is small (below some tens).

        Raises:
            UsageError: a confidence outside (0, 1).
        """
        if not 0 < confidence < 1:
            raise UsageError(f"confidence={confidence} is not between 0 and 1; 0.95 is usual")
        half = float(stats.norm.ppf(0.5 + confidence / 2)) * self.standard_error
        return Interval(self.value - half, self.value + half)


@dataclass(frozen=True, slots=True)
class WeightDiagnostics:
    """What importance weights say of the overlap of two policies.

    Args:
        mean: 1 in expectation where the log covers the target; clearly below 1 where it does not.
        mean_standard_error: of that mean; nan for a single weight.
        largest: the largest weight.
        largest_share: its share of the sum of weights, in [0, 1]; one decision should not decide.
        zero_share: share of decisions the target would never have taken, in [0, 1].
        effective_sample_size: square of the sum over sum of squares.
    """

    mean: float
    mean_standard_error: float
    largest: float
    largest_share: float
    zero_share: float
    effective_sample_size: float


def importance_weights(target: ArrayLike, propensity: ArrayLike, clip: float | None = None) -> FloatArray:
    """The ratio of the target's to the logged probability of each logged action.

    Args:
        target: [N], the target's probability of the logged action, in [0, 1].
        propensity: [N], in (0, 1].
        clip: largest weight, above 0; None for no clip.

    Returns:
        [N], not negative.

    Raises:
        UsageError: no rows, different lengths, or a number out of range.
    """
    chosen, served = _column(target, "target"), _column(propensity, "propensity")
    _same_length(target=chosen, propensity=served)
    if (chosen < 0).any() or (chosen > 1 + 1e-6).any():
        raise UsageError("target has a probability outside [0, 1]; give the probability of the logged action")
    if (served <= 0).any() or (served > 1 + 1e-6).any():
        raise UsageError("propensity has a value outside (0, 1]; log the probability of the action that was served")
    if clip is not None and not clip > 0:
        raise UsageError(f"clip={clip} must be above 0, or None for no clip")
    weight = chosen / served
    return weight if clip is None else np.minimum(weight, clip)


def effective_sample_size(weight: ArrayLike) -> float:
    """(sum of w)^2 / sum of w^2, the number of equal weights with the same relative variance; 0 if all are 0.

    Args:
        weight: [N], at least 0.

    Returns:
        Between 0 and N.

    Raises:
        UsageError: no weight, a negative or a non-finite one.
    """
    values = _column(weight, "weight")
    if (values < 0).any():
        raise UsageError("weight has a negative value")
    largest = values.max()
    if largest == 0:
        return 0.0
    scaled = values / largest  # squares of very large or very small weights would leave the range of floats
    return float(scaled.sum() ** 2 / (scaled**2).sum())


def weight_diagnostics(weight: ArrayLike) -> WeightDiagnostics:
    """Judges the overlap of the target with the log by its importance weights.

    Args:
        weight: [N], at least 0, unclipped.

    Raises:
        UsageError: no weight, a negative or a non-finite one.
    """
    values, size = _column(weight, "weight"), effective_sample_size(weight)
    total = values.sum()
    return WeightDiagnostics(
        mean=float(values.mean()),
        mean_standard_error=_standard_error(values),
        largest=float(values.max()),
        largest_share=float(values.max() / total) if total > 0 else 0.0,
        zero_share=float((values == 0).mean()),
        effective_sample_size=size,
    )


def inverse_propensity(
    target: ArrayLike, propensity: ArrayLike, reward: ArrayLike, clip: float | None = None
) -> OffPolicyEstimate:
    """The mean of weighted rewards (IPS): unbiased, but of high variance where the policies differ.

    With a clip its expectation is the sum over actions of min(target, clip * propensity) * reward, hence never higher
    for rewards of at least 0.

    Args:
        target: [N], the target's probability of the logged action.
        propensity: [N], in (0, 1].
        reward: [N].
        clip: largest weight, above 0; None for no clip.

    Raises:
        UsageError: no rows, different lengths, or a number out of range.

    Source: Horvitz and Thompson, doi 10.1080/01621459.1952.10483446; clipped: arXiv 1003.0120.
    """
    weight, rewards = importance_weights(target, propensity, clip), _column(reward, "reward")
    _same_length(target=weight, reward=rewards)
    return _mean_of(weight * rewards, weight)


def self_normalised(
    target: ArrayLike, propensity: ArrayLike, reward: ArrayLike, clip: float | None = None
) -> OffPolicyEstimate:
    """The weighted mean of rewards (SNIPS): between the lowest and the highest reward, and equivariant to shifts.

    Its bias falls as 1 / N. The standard error is that of the linearised ratio.

    Args:
        target: [N], the target's probability of the logged action.
        propensity: [N], in (0, 1].
        reward: [N].
        clip: largest weight, above 0; None for no clip.

    Raises:
        UsageError: all weights are 0, no rows, different lengths, or a number out of range.

    Source: Swaminathan and Joachims, "The self-normalized estimator for counterfactual learning", NeurIPS 2015.
    """
    weight, rewards = importance_weights(target, propensity, clip), _column(reward, "reward")
    _same_length(target=weight, reward=rewards)
    total = weight.sum()
    if total == 0:
        raise UsageError("all weights are 0: the target never takes a logged action, so the log says nothing of it")
    value = float(weight @ rewards / total)
    error = math.sqrt(float(((weight * (rewards - value)) ** 2).sum())) / float(total)
    return OffPolicyEstimate(value, error if len(weight) > 1 else math.nan, len(weight), effective_sample_size(weight))


def direct_method(target: ArrayLike, predicted: ArrayLike) -> OffPolicyEstimate:
    """The mean reward that a model predicts for the target: as biased as the model, of low variance.

    Args:
        target: [N, A], the target's probabilities in every logged context, 0 on unavailable actions.
        predicted: [N, A], the model's expected rewards; where the target is 0 it may hold anything.

    Returns:
        Its standard error is the spread over contexts; errors of the model are not in it.

    Raises:
        UsageError: different shapes, no rows, or a number out of range.
    """
    by_context = _model_value(_distribution(target), predicted)
    return _mean_of(by_context, np.ones_like(by_context))


def doubly_robust(
    target: ArrayLike,
    action: ArrayLike,
    propensity: ArrayLike,
    reward: ArrayLike,
    predicted: ArrayLike,
    clip: float | None = None,
) -> OffPolicyEstimate:
    """The model's value corrected by weighted residuals (DR): unbiased if the propensities or the model are right.

    With a model that predicts 0 it is `inverse_propensity`; with one that is exact for the logged actions it is
    `direct_method`.

    Args:
        target: [N, A], the target's probabilities in every logged context, 0 on unavailable actions.
        action: [N], logged actions, in [0, A).
        propensity: [N], in (0, 1].
        reward: [N].
        predicted: [N, A], the model's expected rewards, finite for logged actions and where the target is positive.
        clip: largest weight, above 0; None for no clip.

    Raises:
        UsageError: different shapes, no rows, or a number out of range.

    Source: arXiv 1103.4601, equation 1.
    """
    distribution, rewards = _distribution(target), _column(reward, "reward")
    by_context = _model_value(distribution, predicted)
    _same_length(target=by_context, reward=rewards)
    rows, chosen = np.arange(len(distribution)), _actions(action, distribution)
    weight = importance_weights(distribution[rows, chosen], propensity, clip)
    prediction = np.asarray(predicted, dtype=np.float64)[rows, chosen]
    if not np.isfinite(prediction).all():
        raise UsageError("predicted is not finite for a logged action")
    return _mean_of(by_context + weight * (rewards - prediction), weight)


def compare_estimators(
    target: ArrayLike,
    action: ArrayLike,
    propensity: ArrayLike,
    reward: ArrayLike,
    predicted: ArrayLike | None = None,
    clip: float = 10.0,
) -> dict[str, OffPolicyEstimate]:
    """All estimators on one log: where they disagree by more than their errors, look at `weight_diagnostics`.

    Args:
        target: [N, A], the target's probabilities in every logged context, 0 on unavailable actions.
        action: [N], logged actions, in [0, A).
        propensity: [N], in (0, 1].
        reward: [N], arrived rewards.
        predicted: [N, A], a model's expected rewards; None leaves out the estimators that need one.
        clip: of `clipped_inverse_propensity`.

    Returns:
        `inverse_propensity`, `clipped_inverse_propensity`, `self_normalised` and, with a model, `direct_method` and
        `doubly_robust`.

    Raises:
        UsageError: as the estimators.
    """
    distribution = _distribution(target)
    chosen = distribution[np.arange(len(distribution)), _actions(action, distribution)]
    found = {
        "inverse_propensity": inverse_propensity(chosen, propensity, reward),
        "clipped_inverse_propensity": inverse_propensity(chosen, propensity, reward, clip),
        "self_normalised": self_normalised(chosen, propensity, reward),
    }
    if predicted is not None:
        found["direct_method"] = direct_method(distribution, predicted)
        found["doubly_robust"] = doubly_robust(distribution, action, propensity, reward, predicted)
    return found


def _mean_of(terms: FloatArray, weight: FloatArray) -> OffPolicyEstimate:
    return OffPolicyEstimate(float(terms.mean()), _standard_error(terms), len(terms), effective_sample_size(weight))


def _standard_error(terms: FloatArray) -> float:
    return float(terms.std(ddof=1) / math.sqrt(len(terms))) if len(terms) > 1 else math.nan


def _model_value(distribution: FloatArray, predicted: ArrayLike) -> FloatArray:
    model = np.asarray(predicted, dtype=np.float64)
    if model.shape != distribution.shape:
        raise UsageError(f"predicted has shape {model.shape} and target {distribution.shape}; they must agree")
    used = np.where(distribution > 0, model, 0.0)
    if not np.isfinite(used).all():
        raise UsageError("predicted is not finite for an action that the target takes")
    return np.asarray((distribution * used).sum(1))


def _distribution(target: ArrayLike) -> FloatArray:
    values = np.asarray(target, dtype=np.float64)
    if values.ndim != 2 or not len(values):
        raise UsageError(f"target has shape {values.shape}; expected one row of action probabilities per decision")
    if not ((values >= 0).all() and (np.abs(values.sum(1) - 1) < 1e-3).all()):
        raise UsageError("target has a row that is no distribution: probabilities must be at least 0 and sum to 1")
    return values


def _actions(action: ArrayLike, distribution: FloatArray) -> NDArray[np.int64]:
    chosen = np.asarray(action)
    if chosen.shape != distribution.shape[:1] or not np.issubdtype(chosen.dtype, np.integer):
        raise UsageError(f"action has shape {chosen.shape} {chosen.dtype}; expected {len(distribution)} whole numbers")
    if ((chosen < 0) | (chosen >= distribution.shape[1])).any():
        raise UsageError(f"action has a value outside 0 … {distribution.shape[1] - 1}")
    return chosen.astype(np.int64)


def _column(values: ArrayLike, name: str) -> FloatArray:
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not column.size:
        raise UsageError(f"{name} has shape {column.shape}; expected one number per decision, at least one")
    if not np.isfinite(column).all():
        raise UsageError(f"{name} has {int((~np.isfinite(column)).sum())} non-finite of {column.size} values")
    return column


def _same_length(**columns: FloatArray) -> None:
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name} {len(column)}" for name, column in columns.items())
        raise UsageError(f"columns of different lengths: {lengths}; give one value per logged decision")
