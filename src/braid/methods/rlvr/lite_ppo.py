"""Lite PPO."""

from __future__ import annotations

from dataclasses import dataclass

from braid.losses.advantages import Scale
from braid.losses.aggregation import Aggregation
from braid.methods.registry import register
from braid.methods.rlvr.grpo import GRPO
from braid.options import inherit


@register(
    "lite-ppo",
    title="Part I: Tricks or Traps? A Deep Dive into RL for LLM Reasoning",
    family="rlvr",
    arxiv="2508.08221",
)
@dataclass(frozen=True)
class LitePPO(GRPO):
    """Critic-free PPO with exactly two techniques: group mean with batch deviation, and a token-level mean.

    Every factor of the paper's study is an option: `center`, `scale` (`batch_centered` takes the deviation of centred
    rewards), `aggregation`, `clip_high`, `mask_truncated`.

    Strands:
        experience: a group of rollouts of each prompt
        feedback: verifier
        credit: reward minus the mean of its group, over the deviation of all rewards of the batch, [B] over [B, T]
        update: clipped surrogate, mean over all tokens

    Source: arXiv 2508.08221, section 5; alibaba/ROLL.
    """

    scale: Scale = inherit(GRPO, "scale", "batch", source="arXiv 2508.08221")
    aggregation: Aggregation = inherit(GRPO, "aggregation", "token-mean", source="arXiv 2508.08221")
    temperature: float = inherit(GRPO, "temperature", 0.99, source="TRL paper index")
    top_p: float = inherit(GRPO, "top_p", 0.99, source="TRL paper index")
    top_k: int = inherit(GRPO, "top_k", 100, source="TRL paper index")

    published = {"learning_rate": 1e-6, "prompts_per_step": 128}
