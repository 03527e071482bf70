"""Hybrid post-training: per question, imitate or reinforce."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from braid.data.records import Rollouts
from braid.losses import imitation
from braid.losses.advantages import Scale
from braid.losses.aggregation import Aggregation, token_weights
from braid.methods.context import Context
from braid.methods.registry import register
from braid.methods.rlvr.grpo import GRPO, Surrogate
from braid.methods.token import Loss, rows_where
from braid.options import inherit, option
from braid.policies.causal import Scores


@register(
    "hpt", title="Towards a Unified View of Large Language Model Post-Training (HPT)", family="rlvr", arxiv="2509.04419"
)
@dataclass(frozen=True)
class HPT(GRPO):
    """Questions the policy rarely solves are learned from their demonstration, the others from its own rollouts.

    Strands:
        experience: a group of rollouts of each question
        feedback: verifier; a question with too few successes trades its rollouts for one demonstration
        credit: reward minus the mean of its group (Dr. GRPO), [B] spread over [B, T]
        update: unclipped surrogate summed over tokens by a constant, plus token-mean NLL of demonstrations

    Source: arXiv 2509.04419, equations 7 to 9 and algorithm 1; TsinghuaC3I/Unify-Post-Training for constants.
    """

    switch_gate: int = option(
        0,
        "a question with at most this many successes is imitated; -1 never",
        unit="successes",
        source="train.sh (2 of 8 for Llama)",
        low=-1,
    )
    sft_coefficient: float = option(1.0, "weight of the imitation loss", source="train.sh", low=0)
    scale: Scale = inherit(GRPO, "scale", "none", source="train.sh")
    surrogate: Surrogate = inherit(GRPO, "surrogate", "none", source="mix_core_alg.py")
    aggregation: Aggregation = inherit(GRPO, "aggregation", "token-sum-norm", source="mix_core_alg.py")
    entropy_coefficient: float = inherit(GRPO, "entropy_coefficient", 0.001, source="mix_actor.py")
    updates_per_batch: int = inherit(GRPO, "updates_per_batch", 2, source="train.sh: 1024 rows by 512")
    skip_gradient_norm: float = inherit(GRPO, "skip_gradient_norm", 80.0, source="train.sh")

    needs = frozenset({"reward", "demonstrations"})
    published = {"learning_rate": 5e-6, "prompts_per_step": 128}

    def select(self, batch: Rollouts, context: Context) -> Rollouts:
        imitated = successes(batch) <= self.switch_gate
        if not imitated.any():
            return batch
        demonstrations = context.demonstrations_of(rows_where(batch, imitated))
        return context.join(rows_where(batch, ~imitated), demonstrations)

    def weights(self, batch: Rollouts, context: Context) -> dict[str, Tensor]:
        demonstrated = batch.loss_mask & batch.demonstrated.unsqueeze(-1)
        return {**super().weights(batch, context), "demonstration": token_weights(demonstrated, "token-mean")}

    def update(self, batch: Rollouts, scores: Scores) -> Loss:
        imitation_loss = (batch.weights["demonstration"] * imitation.negative_log_likelihood(scores.log_prob)).sum()
        share = batch.demonstrated.float()
        metrics = {"sft_loss": imitation_loss.detach(), "hpt/demonstrations": share.sum()}
        return super().update(batch, scores) + Loss(self.sft_coefficient * imitation_loss, metrics)


def successes(batch: Rollouts) -> Tensor:
    """[B]: number of right responses in the group of each row."""
    _, group = torch.unique(batch.group_id, return_inverse=True)
    return torch.zeros(int(group.max()) + 1).index_add(0, group, batch.correct.float())[group]
