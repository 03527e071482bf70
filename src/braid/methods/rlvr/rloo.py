"""REINFORCE leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from braid.losses.advantages import Center, Scale
from braid.losses.divergences import KLEstimator
from braid.methods.registry import register
from braid.methods.rlvr.grpo import GRPO, RatioLevel
from braid.options import inherit


@register("rloo", title="REINFORCE leave-one-out", family="rlvr", arxiv="2402.14740")
@dataclass(frozen=True)
class RLOO(GRPO):
    """Policy gradient whose baseline is the mean reward of the other responses to the prompt.

    Strands:
        experience: a group of rollouts of each prompt
        feedback: verifier minus a KL penalty to the reference
        credit: reward minus the mean of the others in its group, [B] spread over [B, T]
        update: one ratio per response (the product over its tokens), clipped; mean over responses

    Source: arXiv 2402.14740, section 2.3; ratio, clip and penalty as in TRL. `ratio_level=token` is verl's reading.
    """

    center: Center = inherit(GRPO, "center", "leave_one_out", source="arXiv 2402.14740")
    scale: Scale = inherit(GRPO, "scale", "none", source="arXiv 2402.14740")
    ratio_level: RatioLevel = inherit(GRPO, "ratio_level", "product", source="TRL RLOOTrainer")
    beta: float = inherit(GRPO, "beta", 0.05, source="TRL RLOOTrainer")
    kl_estimator: KLEstimator = inherit(GRPO, "kl_estimator", "k1", source="TRL RLOOTrainer")
    kl_placement: Literal["loss", "reward"] = inherit(GRPO, "kl_placement", "reward", source="TRL RLOOTrainer")

    published = {"learning_rate": 1e-6}
