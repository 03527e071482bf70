"""LUFFY: a demonstration joins each group of rollouts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from braid.data.records import Rollouts
from braid.losses import imitation
from braid.losses.advantages import Scale
from braid.losses.aggregation import Aggregation
from braid.methods.context import Context
from braid.methods.registry import register
from braid.methods.rlvr.grpo import GRPO, Surrogate
from braid.methods.token import Loss
from braid.options import inherit, option
from braid.policies.causal import Scores


@register("luffy", title="Learning to Reason under Off-Policy Guidance (LUFFY)", family="rlvr", arxiv="2504.14945")
@dataclass(frozen=True)
class LUFFY(GRPO):
    """GRPO over groups that each hold one demonstration, whose tokens go through a shaping function.

    Strands:
        experience: a group of rollouts of each question plus its demonstration
        feedback: verifier; the demonstration has reward 1
        credit: reward minus the mean of the joint group, [B] spread over [B, T]
        update: unclipped ratio for rollouts, -A p / (p + gamma) for demonstration tokens

    Source: arXiv 2504.14945, equations 4 to 6, as the baseline in TsinghuaC3I/Unify-Post-Training.
    """

    shaping: float = option(0.1, "gamma of p / (p + gamma)", unit="probability", source="mix_core_alg.py", above=0)
    scale: Scale = inherit(GRPO, "scale", "none", source="mix_core_alg.py")
    surrogate: Surrogate = inherit(GRPO, "surrogate", "none", source="mix_core_alg.py")
    aggregation: Aggregation = inherit(GRPO, "aggregation", "token-sum-norm", source="mix_core_alg.py")
    entropy_coefficient: float = inherit(GRPO, "entropy_coefficient", 0.001, source="mix_actor.py")
    updates_per_batch: int = inherit(GRPO, "updates_per_batch", 2, source="train.sh")

    needs = frozenset({"reward", "demonstrations"})
    published = {"learning_rate": 1e-6, "prompts_per_step": 128}

    def feedback(self, batch: Rollouts, context: Context) -> Rollouts:
        batch = super().feedback(batch, context)
        return context.join(batch, context.demonstrations_of(batch))

    def compared(self, batch: Rollouts) -> Tensor:
        """The demonstration and the rollouts of a group together."""
        return torch.ones_like(batch.online)

    def weights(self, batch: Rollouts, context: Context) -> dict[str, Tensor]:
        demonstrated = self.aggregate(batch.loss_mask & batch.demonstrated.unsqueeze(-1), context)
        return {**super().weights(batch, context), "demonstration": demonstrated}

    def update(self, batch: Rollouts, scores: Scores) -> Loss:
        shaped = imitation.luffy_shaping(scores.log_prob, batch.advantage, self.shaping)
        demonstration = (batch.weights["demonstration"] * shaped).sum()
        return super().update(batch, scores) + Loss(demonstration, {"demonstration_loss": demonstration.detach()})
