"""Exploration rules of contextual bandits: from scores to probabilities over the available actions.

Shapes: ``scores`` [..., A] are predicted rewards, ``mask`` [..., A] is True where an action is available; scores of
unavailable actions may hold anything, NaN included. Every rule returns [..., A] in the dtype of its scores, 0 on
unavailable actions, summing to 1 up to rounding; a single available action has probability 1. The greedy action is the
one with the highest score, the lowest index among ties.

The rules weigh gaps between scores, so scores have to be on the scale of the reward: a probability of success, never
a logit, and calibrated if the training set was re-balanced.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from braid.errors import UsageError


def uniform(mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same probability 1 / A for every available action.

    Args:
        mask: [..., A], bool.
        dtype: of the result.

    Returns:
        [..., A].

    Raises:
        UsageError: a row without an available action.
    """
    return mask.to(dtype) / _action_count(mask).to(dtype)


def greedy_action(scores: Tensor, mask: Tensor) -> Tensor:
    """The available action with the highest score, the lowest index among ties.

    Args:
        scores: [..., A].
        mask: [..., A], bool.

    Returns:
        [...] int64.

    Raises:
        UsageError: a row without an available action, or a score of an available one that is not finite.
    """
    return _available_scores(scores, mask).argmax(-1)


def greedy(scores: Tensor, mask: Tensor) -> Tensor:
    """All probability on the greedy action.

    Args:
        scores: [..., A].
        mask: [..., A], bool.

    Returns:
        [..., A], zeros and ones.

    Raises:
        UsageError: as `greedy_action`.
    """
    return F.one_hot(greedy_action(scores, mask), scores.shape[-1]).to(scores.dtype)


def epsilon_greedy(scores: Tensor, mask: Tensor, epsilon: float) -> Tensor:
    """Uniform with probability epsilon, greedy otherwise: epsilon / A + (1 - epsilon) [a = a*].

    It is also the propensity of the industrial form, which sends a share epsilon of requests to a uniform bucket.

    Args:
        scores: [..., A].
        mask: [..., A], bool.
        epsilon: in [0, 1]; 0 is greedy, 1 uniform.

    Returns:
        [..., A].

    Raises:
        UsageError: epsilon out of range, or as `greedy_action`.
    """
    if not 0 <= epsilon <= 1:
        raise UsageError(f"epsilon={epsilon} must be at least 0 and at most 1")
    return epsilon * uniform(mask, scores.dtype) + (1 - epsilon) * greedy(scores, mask)


def boltzmann(scores: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Probabilities proportional to exp(score / temperature).

    Args:
        scores: [..., A].
        mask: [..., A], bool.
        temperature: in units of score, above 0; towards 0 all greedy actions share, towards infinity it is uniform.

    Returns:
        [..., A].

    Raises:
        UsageError: a temperature that is not above 0, or as `greedy_action`.
    """
    if not 0 < temperature < math.inf:
        raise UsageError(
            f"temperature={temperature} must be a finite number above 0; for its limits use greedy, uniform"
        )
    available = _available_scores(scores, mask)
    return ((available - available.amax(-1, keepdim=True)) / temperature).softmax(-1)


def inverse_gap_weighting(scores: Tensor, mask: Tensor, gamma: float | Tensor, mu: float | None = None) -> Tensor:
    """SquareCB: p(a) = 1 / (mu + gamma (score of the greedy action - score of a)), the rest on the greedy action.

    With mu = A the greedy action keeps at least 1 / A. gamma = 0 is then uniform and gamma towards infinity greedy
    (actions that tie with the greedy one keep 1 / A each). FALCON is this rule with gamma from `falcon_gamma`.

    Args:
        scores: [..., A], expected rewards; in [0, 1] for the schedules of this module to have their meaning.
        mask: [..., A], bool; leave out eliminated actions here (`confident_actions`).
        gamma: at least 0, one number or [...], per unit of reward.
        mu: at least the number of available actions of every row; None for exactly that number.

    Returns:
        [..., A].

    Raises:
        UsageError: a negative or infinite gamma, mu below the number of available actions, or as `greedy_action`.

    Source: SquareCB, arXiv 2002.04926, algorithm 1; the same rule in VowpalWabbit ``squarecb``.
    """
    available = _available_scores(scores, mask)
    count = _action_count(mask).to(scores.dtype)
    if mu is not None and not count.max() <= mu < math.inf:
        raise UsageError(
            f"mu={mu} must be finite and at least the number of available actions, here {int(count.max())}"
        )
    best = available.argmax(-1, keepdim=True)
    gap = (available.gather(-1, best) - available).masked_fill(~mask, 0.0)
    others = 1.0 / ((count if mu is None else mu) + _column(gamma, scores) * gap)
    return _rest_on(best, others.masked_fill(~mask, 0.0))


def fast_cb(scores: Tensor, mask: Tensor, gamma: float | Tensor, smallest_cost: float = 1e-6) -> Tensor:
    """FastCB: p(a) = c(b) / (A c(b) + gamma (c(a) - c(b))) with costs c = 1 - score and b the cheapest action.

    It explores little where the best action is almost surely good. gamma = 0 is uniform.

    Args:
        scores: [..., A], probabilities of success; costs are clipped to [smallest_cost, 1].
        mask: [..., A], bool.
        gamma: at least 0, one number or [...].
        smallest_cost: keeps a certain success from ending exploration and the quotient defined, in (0, 1].

    Returns:
        [..., A]; the cheapest action keeps at least 1 / A.

    Raises:
        UsageError: a negative or infinite gamma, smallest_cost out of range, or as `greedy_action`.

    Source: FastCB, arXiv 2107.02237, algorithm 1.
    """
    if not 0 < smallest_cost <= 1:
        raise UsageError(f"smallest_cost={smallest_cost} must be above 0 and at most 1")
    cost = (1 - _available_scores(scores, mask)).clamp(smallest_cost, 1.0)
    # Unavailable actions got the score minus infinity; 2 is dearer than any clipped cost.
    cost = cost.masked_fill(~mask, 2.0)
    best = cost.argmin(-1, keepdim=True)
    cheapest = cost.gather(-1, best)
    count = _action_count(mask).to(scores.dtype)
    others = cheapest / (count * cheapest + _column(gamma, scores) * (cost - cheapest))
    return _rest_on(best, others.masked_fill(~mask, 0.0))


def square_cb_gamma(learnt: int, scale: float = 10.0, exponent: float = 0.5) -> float:
    """The growing schedule gamma = scale * learnt ** exponent.

    Args:
        learnt: number of examples learnt so far (not of requests served: delayed rewards do not count), at least 0.
        scale: at least 0.
        exponent: above 0.

    Returns:
        gamma; 0 before the first example, so that serving starts uniform.

    Raises:
        UsageError: an argument out of range.

    Source: VowpalWabbit ``squarecb``: ``--gamma_scale 10 --gamma_exponent 0.5``.
    """
    if learnt < 0 or not 0 <= scale < math.inf or not 0 < exponent < math.inf:
        raise UsageError(
            f"learnt={learnt} and scale={scale} must be at least 0 and exponent={exponent} above 0, all finite"
        )
    return float(scale * learnt**exponent)


def falcon_gamma(
    action_count: Tensor, epoch_size: int, class_size: float = 2.0, delta: float = 0.05, scale: float = 1.0
) -> Tensor:
    """FALCON's gamma for an epoch: scale * sqrt(A n / log(F n / delta)), where n rows trained the epoch's model.

    Args:
        action_count: [...], number of available actions A of each request.
        epoch_size: n, rows of the epoch before, on which alone the model was fitted; 0 in the first epoch.
        class_size: F, number of functions in the model class, at least 1; for a large class tune `scale` instead.
        delta: failure probability, in (0, 1).
        scale: c; 1/30 in theory, 0.1 to 10 in practice.

    Returns:
        [...] float32, above 0; 1 in the first epoch.

    Raises:
        UsageError: an argument out of range.

    Source: FALCON, arXiv 2003.12699, algorithm 1.
    """
    if epoch_size < 0 or not class_size >= 1 or not 0 < delta < 1 or not 0 < scale < math.inf:
        raise UsageError(
            f"epoch_size={epoch_size} must be at least 0, class_size={class_size} at least 1, delta={delta} between "
            f"0 and 1 and scale={scale} above 0"
        )
    count = action_count.to(torch.float32)
    if epoch_size == 0:
        return torch.ones_like(count)
    return scale * (count * epoch_size / math.log(class_size * epoch_size / delta)).sqrt()


def confident_actions(lower: Tensor, upper: Tensor, mask: Tensor) -> Tensor:
    """The available actions that may still be best: those whose upper bound reaches the highest lower bound.

    Give the result to a rule as its mask, and log it as the mask: an eliminated action was unavailable. `uniform` of
    it is the rule that is uniform within confidence.

    Args:
        lower: [..., A], lower confidence bound of the expected reward.
        upper: [..., A], upper confidence bound, at least `lower`.
        mask: [..., A], bool.

    Returns:
        [..., A] bool, at least one True per row.

    Raises:
        UsageError: an upper bound below its lower bound, or as `greedy_action`.
    """
    highest = _available_scores(lower, mask).amax(-1, keepdim=True)
    if not (upper >= lower)[mask].all():
        raise UsageError("upper has a bound below that of lower, or NaN; were the two exchanged?")
    return mask & (upper >= highest)


def with_floor(probabilities: Tensor, mask: Tensor, floor: float) -> Tensor:
    """The mixture with the uniform rule that gives every available action at least `floor`: f + (1 - A f) p.

    Args:
        probabilities: [..., A], 0 on unavailable actions.
        mask: [..., A], bool.
        floor: smallest probability, in [0, 1]; in rows with more than 1 / floor actions it is 1 / A instead.

    Returns:
        [..., A]; the order of the probabilities is kept.

    Raises:
        UsageError: a floor out of range, or a row without an available action.
    """
    if not 0 <= floor <= 1:
        raise UsageError(f"floor={floor} must be at least 0 and at most 1")
    share = (floor * _action_count(mask).to(probabilities.dtype)).clamp(max=1.0)
    return (1 - share) * probabilities + share * uniform(mask, probabilities.dtype)


def exploration_mass(probabilities: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    """The probability of not serving the greedy action.

    Args:
        probabilities: [..., A].
        scores: [..., A], by which an action is greedy.
        mask: [..., A], bool.

    Returns:
        [...], in [0, 1].

    Raises:
        UsageError: as `greedy_action`.
    """
    best = greedy_action(scores, mask).unsqueeze(-1)
    return 1 - probabilities.gather(-1, best).squeeze(-1)


def gamma_for_exploration_mass(
    scores: Tensor,
    mask: Tensor,
    mass: float,
    rule: Callable[[Tensor, Tensor, float], Tensor] = inverse_gap_weighting,
) -> float:
    """The gamma at which a gap-weighting rule explores as much as wanted on average, found by bisection.

    For a comparison with epsilon-greedy, its mass is epsilon (1 - mean of 1 / A), not epsilon.

    Args:
        scores: [B, A].
        mask: [B, A], bool.
        mass: wanted mean of `exploration_mass` over the rows.
        rule: `inverse_gap_weighting` or `fast_cb`; its mass falls as gamma grows.

    Returns:
        gamma, at least 0, to a relative precision of 1e-6 (absolute 1e-9 near 0) or that of the dtype.

    Raises:
        UsageError: more exploration than uniform has, or less than ties allow; names the range.
    """

    def mass_at(gamma: float) -> float:
        return float(exploration_mass(rule(scores, mask, gamma), scores, mask).mean(dtype=torch.float64))

    low, high = 0.0, 1e12
    most, least = mass_at(low), mass_at(high)
    if not least <= mass <= most:
        raise UsageError(f"mass={mass} is out of reach: on these scores it can be from {least:.3g} to {most:.3g}")
    high = 1.0
    while mass_at(high) > mass:
        low, high = high, 2 * high
    while high - low > 1e-6 * max(high, 1e-3):
        middle = (low + high) / 2
        if mass_at(middle) > mass:
            low = middle
        else:
            high = middle
    return high


def _action_count(mask: Tensor) -> Tensor:
    count = mask.sum(-1, keepdim=True)
    if not (count > 0).all():
        raise UsageError("mask has a row without an available action; every request needs at least one")
    return count


def _available_scores(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores with minus infinity on unavailable actions."""
    if not scores.is_floating_point() or mask.dtype != torch.bool or scores.shape != mask.shape:
        raise UsageError(
            f"scores {tuple(scores.shape)} {scores.dtype} and mask {tuple(mask.shape)} {mask.dtype} must be floats and "
            "booleans of the same shape"
        )
    _action_count(mask)
    if not scores[mask].isfinite().all():
        raise UsageError("scores has an available action whose score is not finite")
    return scores.masked_fill(~mask, -math.inf)


def _column(gamma: float | Tensor, scores: Tensor) -> Tensor:
    column = torch.as_tensor(gamma, dtype=scores.dtype, device=scores.device)
    if not ((column >= 0) & column.isfinite()).all():
        raise UsageError(f"gamma={gamma} must be at least 0 and finite; for its limit use greedy")
    return column.unsqueeze(-1) if column.ndim else column


def _rest_on(best: Tensor, others: Tensor) -> Tensor:
    others = others.scatter(-1, best, 0.0)
    return others.scatter(-1, best, 1 - others.sum(-1, keepdim=True))
