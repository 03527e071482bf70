"""Negative-aware fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from braid.data.records import Rollouts
from braid.losses import imitation
from braid.losses.aggregation import Aggregation
from braid.losses.imitation import PromptWeight
from braid.methods.context import Context
from braid.methods.registry import register
from braid.methods.rlvr.dapo import mixed_outcome
from braid.methods.rlvr.grpo import GRPO
from braid.methods.token import Loss, rows_where
from braid.options import inherit, option
from braid.policies.causal import Scores


@register(
    "nft",
    title="Bridging Supervised Learning and Reinforcement Learning in Math Reasoning",
    family="rlvr",
    arxiv="2505.18116",
)
@dataclass(frozen=True)
class NFT(GRPO):
    """Maximum likelihood of right responses, and of wrong ones under the negative policy that the new one implies.

    Strands:
        experience: groups of rollouts, sampled until enough prompts have right and wrong responses
        feedback: verifier, right or wrong
        credit: the prompt's success rate q over all its rollouts, [B]
        update: -log ratio for right tokens, -log (1 - q ratio) / (1 - q) for wrong ones, weighted by 1 - q

    Source: arXiv 2505.18116, equations 8 to 10; NVlabs/NFT. `negative_weight=0` is rejection fine-tuning (RFT).
    """

    group_size: int = inherit(GRPO, "group_size", 16, source="NVlabs/NFT train_7B.sh")
    negative_floor: float = option(
        1.0, "straight-through lower clamp of the negative policy's ratio", source="train_7B.sh", above=0
    )
    positive_floor: float = option(
        0.0, "straight-through lower clamp of the ratio of right tokens", source="train_7B.sh", low=0
    )
    negative_weight: float = option(
        1.0, "weight of wrong responses; 0 is rejection fine-tuning", source="train_7B.sh", low=0
    )
    prompt_weight: PromptWeight = option(
        "failure", "weight of a prompt: 1, 1 - q, or sqrt((1 - q) / q)", source="train_7B.sh"
    )
    likelihood: Literal["token", "sequence"] = option(
        "token", "ratio of tokens or of whole responses", source="train_7B.sh"
    )
    aggregation: Aggregation = inherit(GRPO, "aggregation", "token-sum-norm", source="NVlabs/NFT dp_actor.py")
    aggregation_length: float = inherit(GRPO, "aggregation_length", 1000.0, source="NVlabs/NFT dp_actor.py")
    updates_per_batch: int = inherit(GRPO, "updates_per_batch", 16, source="train_7B.sh: 512 prompts by 32")
    max_generation_batches: int = inherit(GRPO, "max_generation_batches", 10, source="train_7B.sh")

    unused = frozenset({"surrogate", "dual_clip"})
    published = {"learning_rate": 1e-6, "prompts_per_step": 512}

    def select(self, batch: Rollouts, context: Context) -> Rollouts:
        return rows_where(batch, mixed_outcome(batch))

    def weights(self, batch: Rollouts, context: Context) -> dict[str, Tensor]:
        """Token level: a sum over tokens by a constant; sequence level: a sum over responses by the same constant."""
        weights = super().weights(batch, context)
        responses = batch.loss_mask.any(-1) / (self.aggregation_length or float(context.max_new_tokens))
        return {**weights, "likelihood": weights["policy"] if self.likelihood == "token" else responses}

    def update(self, batch: Rollouts, scores: Scores) -> Loss:
        loss = imitation.negative_aware_likelihood(
            scores.log_prob,
            batch.behaviour_log_prob,
            batch.correct,
            batch.success_rate,
            self.negative_floor,
            self.positive_floor,
            self.negative_weight,
            self.prompt_weight,
            level=self.likelihood,
            mask=batch.loss_mask,
        )
        metrics = self.ratio_metrics(batch, self.ratio(batch, scores.log_prob))
        return Loss((batch.weights["likelihood"] * loss).sum(), metrics)
