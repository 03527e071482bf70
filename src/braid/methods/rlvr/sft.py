"""Supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from braid.data.records import Rollouts
from braid.losses import imitation
from braid.losses.imitation import LikelihoodWeight
from braid.methods.registry import register
from braid.methods.token import Loss, TokenMethod
from braid.options import option
from braid.policies.causal import Scores


@register("sft", title="Supervised fine-tuning", family="rlvr")
@dataclass(frozen=True)
class SFT(TokenMethod):
    """Imitate demonstrations by maximum likelihood.

    Strands:
        experience: demonstrations of the next prompts
        feedback: none
        credit: one, or a detached function of the token's probability
        update: negative log-likelihood of the response tokens, [B, T]

    Source: the supervised baseline of every paper here; `probability` is DFT (arXiv 2508.05629).
    """

    token_weight: LikelihoodWeight = option(
        "one", "weight of a token: 1, its probability p (DFT), or p(1-p) (the phi of CHORD)"
    )
    cutoff_prob: float = option(1.0, "tokens likelier than this get no gradient", unit="probability", above=0, high=1)

    published = {"learning_rate": 1e-5}

    def update(self, batch: Rollouts, scores: Scores) -> Loss:
        per_token = (
            imitation.weighted_likelihood(scores.log_prob, self.token_weight, self.cutoff_prob) * batch.advantage
        )
        return Loss((batch.weights["policy"] * per_token).sum())
