"""Implicit actor-critic coupling through supervised learning."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from braid.data.records import Rollouts
from braid.losses import score_function
from braid.losses.aggregation import sequence_weights
from braid.losses.score_function import ClassBalance, ProxyKind, ScoreKind
from braid.methods.context import Context
from braid.methods.registry import register
from braid.methods.rlvr.grpo import GRPO
from braid.methods.token import Loss
from braid.options import inherit, option
from braid.policies.causal import Scores


@register(
    "pacs",
    title="Implicit Actor Critic Coupling via a Supervised Learning Framework for RLVR",
    family="rlvr",
    arxiv="2509.02522",
)
@dataclass(frozen=True)
class PACS(GRPO):
    """Predict each response's outcome from its own log-ratio, by cross-entropy: the policy is its own critic.

    Strands:
        experience: a group of rollouts of each prompt
        feedback: verifier, right or wrong
        credit: class-balance weight within the group, [B]
        update: binary cross-entropy of the outcome on the leave-one-out score of the log-ratio sum, mean over responses

    Source: arXiv 2509.02522, equations 4 to 7; ritzz-ai/PACS. The paper clips no gradients.
    """

    proxy_scale: float = option(1.0, "beta: scale of the reward proxy", unit="per nat", source="scripts/pacs", above=0)
    proxy: ProxyKind = option("log_ratio", "sum of log-ratios, or mean log-probability", source="scripts/pacs")
    score: ScoreKind = option("rloo", "how a proxy is compared with its group", source="scripts/pacs")
    class_balance: ClassBalance = option(
        "balanced", "weight of right and wrong responses in a group", source="scripts/pacs"
    )
    updates_per_batch: int = inherit(GRPO, "updates_per_batch", 4, source="scripts/pacs: 1024 prompts by 256")
    max_gradient_norm: float = inherit(GRPO, "max_gradient_norm", float("inf"), source="pacs_actor.py")

    whole_groups = True
    unused = frozenset({"surrogate", "dual_clip"})
    published = {"learning_rate": 1e-6, "prompts_per_step": 1024}

    def weights(self, batch: Rollouts, context: Context) -> dict[str, Tensor]:
        weight = score_function.class_balance_weight(batch.correct, batch.group_id, self.class_balance)
        return {**super().weights(batch, context), "outcome": weight * sequence_weights(batch.loss_mask)}

    def update(self, batch: Rollouts, scores: Scores) -> Loss:
        proxy = score_function.reward_proxy(
            scores.log_prob, batch.behaviour_log_prob, batch.loss_mask, self.proxy_scale, self.proxy
        )
        score = score_function.group_score(proxy, batch.group_id, self.score)
        loss = score_function.outcome_cross_entropy(score, batch.correct, batch.weights["outcome"])
        return Loss(loss.sum(), self.ratio_metrics(batch, self.ratio(batch, scores.log_prob)))
