"""Gradient-preserving clipping policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from braid.data.records import Rollouts
from braid.losses import imitation, policy_gradient
from braid.losses.aggregation import Aggregation
from braid.methods.context import Context
from braid.methods.registry import register
from braid.methods.rlvr.dapo import mixed_outcome
from braid.methods.rlvr.grpo import GRPO
from braid.methods.token import Loss, rows_where
from braid.options import inherit, option
from braid.policies.causal import Scores


@register(
    "gppo", title="Klear-Reasoner: Gradient-Preserving Clipping Policy Optimization", family="rlvr", arxiv="2508.07629"
)
@dataclass(frozen=True)
class GPPO(GRPO):
    """GRPO in which clipped tokens keep a bounded gradient, plus likelihood of correct responses.

    Strands:
        experience: a group of rollouts of each prompt; groups without contrast are dropped
        feedback: verifier
        credit: group-normalised reward, [B] spread over [B, T]
        update: gradient-preserving clip with a dual clip on top, plus 0.1 times the NLL of correct responses

    Source: arXiv 2508.07629, equation 5; suu990901/KlearReasoner for the recipe.
    """

    clip_high: float = inherit(GRPO, "clip_high", 0.28, source="KlearReasoner, perf_run_dapo_ours_math.sh")
    dual_clip: float = inherit(GRPO, "dual_clip", 10.0, source="KlearReasoner, perf_run_dapo_ours_math.sh")
    beta_low: float = option(1.0, "gradient kept below the lower clip", source="KlearReasoner README", low=0)
    beta_high: float = option(1.0, "gradient kept above the upper clip", source="KlearReasoner README", low=0)
    positive_nll: float = option(0.1, "weight of the likelihood of correct responses", source="KlearReasoner", low=0)
    drop_uniform_groups: bool = option(
        True, "train only on groups with right and wrong responses", source="KlearReasoner"
    )
    aggregation: Aggregation = inherit(GRPO, "aggregation", "token-mean", source="KlearReasoner")
    updates_per_batch: int = inherit(GRPO, "updates_per_batch", 8, source="KlearReasoner")

    unused = frozenset({"ratio_level", "surrogate"})
    published = {"learning_rate": 1e-6, "prompts_per_step": 128}

    def select(self, batch: Rollouts, context: Context) -> Rollouts:
        return rows_where(batch, mixed_outcome(batch)) if self.drop_uniform_groups else batch

    def weights(self, batch: Rollouts, context: Context) -> dict[str, Tensor]:
        positive = self.aggregate(batch.loss_mask & (batch.correct & batch.online).unsqueeze(-1), context)
        return {**super().weights(batch, context), "positive": positive}

    def update(self, batch: Rollouts, scores: Scores) -> Loss:
        per_token = policy_gradient.gradient_preserving_clip(
            scores.log_prob,
            batch.behaviour_log_prob,
            batch.advantage,
            self.clip_low,
            self.clip_high,
            self.beta_low,
            self.beta_high,
            self.dual_clip or None,
        )
        positive = (batch.weights["positive"] * imitation.negative_log_likelihood(scores.log_prob)).sum()
        metrics = {**self.ratio_metrics(batch, self.ratio(batch, scores.log_prob)), "positive_nll": positive.detach()}
        return Loss((batch.weights["policy"] * per_token).sum() + self.positive_nll * positive, metrics)
