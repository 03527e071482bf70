"""Losses, advantages and weights as pure functions: tensors in, tensors out, usable without anything else of Braid.

Shapes throughout: B sequences, T tokens, V vocabulary. Per-token tensors are [B, T]; ``mask`` [B, T] is True where a
token counts; ``reward`` is [B]; ``group_id`` [B] is an arbitrary integer shared by the rows of one prompt. Every loss
is minimised and returned per token (or per sequence), so that one module, ``aggregation``, decides what divides it.
Positions outside the mask may hold any finite number.

===================  ====================================================================================
aggregation          masked sums, means and whitening; the weight of every token in the step's loss
advantages           baselines, group and batch normalisation, leave-one-out, GAE, signed outcomes
policy_gradient      ratios and surrogates: plain, clipped, CISPO, gradient-preserving, unified estimator
imitation            likelihood losses: weighted, unlikelihood, negative-aware, one-token rollouts, LUFFY, SRFT
score_function       the policy as a classifier of outcomes: proxies, group scores, class balance, cross-entropy
divergences          KL estimators to a reference, entropy
categorical          log-probability and entropy from one softmax, with a lean gradient
value                the critic's clipped squared error
rewards              shaping terms: soft overlong penalty
===================  ====================================================================================
"""

from braid.losses import (
    advantages,
    aggregation,
    categorical,
    divergences,
    imitation,
    policy_gradient,
    rewards,
    score_function,
    value,
)

__all__ = [
    "advantages",
    "aggregation",
    "categorical",
    "divergences",
    "imitation",
    "policy_gradient",
    "rewards",
    "score_function",
    "value",
]
