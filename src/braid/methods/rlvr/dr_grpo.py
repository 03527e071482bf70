"""Dr. GRPO."""

from __future__ import annotations

from dataclasses import dataclass

from braid.losses.advantages import Scale
from braid.losses.aggregation import Aggregation
from braid.methods.registry import register
from braid.methods.rlvr.grpo import GRPO
from braid.options import inherit


@register("dr-grpo", title="Dr. GRPO", family="rlvr", arxiv="2503.20783")
@dataclass(frozen=True)
class DrGRPO(GRPO):
    """GRPO without its two biases: no division by the group's deviation, none by the response's length.

    Strands:
        experience: a group of rollouts of each prompt
        feedback: verifier
        credit: reward minus the mean of its group, [B] spread over [B, T]
        update: clipped surrogate, summed over tokens and divided by a constant length

    Source: arXiv 2503.20783, section 3.2; TRL's `dr_grpo` aggregation.
    """

    scale: Scale = inherit(GRPO, "scale", "none", source="arXiv 2503.20783")
    aggregation: Aggregation = inherit(GRPO, "aggregation", "seq-mean-token-sum-norm", source="arXiv 2503.20783")

    published = {"learning_rate": 1e-6, "prompts_per_step": 128}
