"""Positive, negative and weighted sample reinforcement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from braid.data.records import Rollouts
from braid.losses import advantages
from braid.losses.aggregation import Aggregation
from braid.methods.context import Context
from braid.methods.registry import register
from braid.methods.rlvr.grpo import GRPO
from braid.methods.token import per_token, rows_where
from braid.options import inherit, option


@register(
    "nsr",
    title="The Surprising Effectiveness of Negative Reinforcement in LLM Reasoning",
    family="rlvr",
    arxiv="2506.01347",
)
@dataclass(frozen=True)
class NSR(GRPO):
    """Reinforce only right responses, only wrong ones, or both with unequal weight.

    Strands:
        experience: rollouts; only those with the sign asked for are trained on
        feedback: verifier, right or wrong; the exact outcome, not a shaped reward
        credit: +positive_weight for right, -1 for wrong responses, no baseline, [B] spread over [B, T]
        update: clipped surrogate, mean over the kept tokens, with a small entropy bonus

    Source: arXiv 2506.01347, equations 3 to 6; TianHongZXY/RLVR-Decomposed for clip and entropy.
    """

    mode: Literal["negative", "positive", "weighted"] = option(
        "weighted", "which samples are reinforced: NSR, PSR, or W-REINFORCE", source="arXiv 2506.01347, eq. 8"
    )
    positive_weight: float = option(
        0.1, "lambda of W-REINFORCE; 1 is REINFORCE with rewards of +1 and -1", source="README", low=0
    )
    entropy_coefficient: float = inherit(GRPO, "entropy_coefficient", 0.001, source="RLVR-Decomposed, config default")
    aggregation: Aggregation = inherit(GRPO, "aggregation", "token-mean", source="RLVR-Decomposed")
    updates_per_batch: int = inherit(GRPO, "updates_per_batch", 4, source="RLVR-Decomposed: 1024 prompts by 256")

    unused = frozenset({"center", "scale", "epsilon"})
    published = {"learning_rate": 1e-6, "prompts_per_step": 1024}

    def select(self, batch: Rollouts, context: Context) -> Rollouts:
        if self.mode == "weighted":
            return batch
        return rows_where(batch, batch.correct if self.mode == "positive" else ~batch.correct)

    def credit(self, batch: Rollouts, context: Context) -> Rollouts:
        batch = self.mask_lengths(batch)
        positive = self.positive_weight if self.mode == "weighted" else 1.0
        outcome = advantages.signed_outcome(batch.correct, positive)
        return batch.replace(advantage=per_token(outcome, batch.response_mask))
