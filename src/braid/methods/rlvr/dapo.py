"""DAPO."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDict

from braid.data.records import Rollouts
from braid.losses import advantages
from braid.losses.aggregation import Aggregation
from braid.losses.rewards import soft_overlong
from braid.methods.context import Context
from braid.methods.registry import register
from braid.methods.rlvr.grpo import GRPO
from braid.methods.token import rows_where
from braid.options import inherit, option


@register("dapo", title="Decoupled clip and dynamic sampling policy optimisation", family="rlvr", arxiv="2503.14476")
@dataclass(frozen=True)
class DAPO(GRPO):
    """GRPO with a higher upper clip, dynamic sampling, a token-level mean and a soft length penalty.

    Strands:
        experience: groups of rollouts, sampled until enough prompts have both right and wrong responses
        feedback: verifier plus a penalty that grows over the last part of the length limit
        credit: group-normalised reward, [B] spread over [B, T]
        update: surrogate clipped at 1 - 0.2 and 1 + 0.28, mean over all tokens

    Source: arXiv 2503.14476, equations 8 to 13.
    """

    group_size: int = inherit(GRPO, "group_size", 16, source="arXiv 2503.14476, section 4.1")
    clip_high: float = inherit(GRPO, "clip_high", 0.28, source="arXiv 2503.14476, section 4.1")
    aggregation: Aggregation = inherit(GRPO, "aggregation", "token-mean", source="arXiv 2503.14476, eq. 12")
    max_generation_batches: int = inherit(GRPO, "max_generation_batches", 10, source="verl recipe/dapo")
    updates_per_batch: int = inherit(GRPO, "updates_per_batch", 16, source="arXiv 2503.14476, section 4.1")
    overlong_buffer: float = option(
        0.2,
        "last part of the length limit over which the penalty grows from 0; 0 is off",
        unit="fraction of max_new_tokens",
        source="arXiv 2503.14476, section 4.1: 4096 of 20480",
        low=0,
        high=1,
    )
    overlong_penalty: float = option(1.0, "penalty of a response at the length limit", unit="reward", low=0)

    published = {"learning_rate": 1e-6, "prompts_per_step": 512}

    def feedback(self, batch: Rollouts, context: Context) -> Rollouts:
        batch = super().feedback(batch, context)
        if not self.overlong_buffer:
            return batch
        limit = context.max_new_tokens
        penalty = soft_overlong(batch.response_length, limit, self.overlong_buffer * limit, self.overlong_penalty)
        penalty = torch.where(batch.online, penalty, torch.zeros_like(penalty))
        terms = TensorDict({**batch.terms, "overlong": penalty}, batch_size=[len(batch)])
        return batch.replace(reward=batch.reward + penalty, terms=terms)

    def select(self, batch: Rollouts, context: Context) -> Rollouts:
        return rows_where(batch, mixed_outcome(batch))


def mixed_outcome(batch: Rollouts) -> torch.Tensor:
    """[B] bool: rows of groups that hold both right and wrong responses."""
    rate = advantages.success_rate(batch.correct, batch.group_id)
    return (rate > 0) & (rate < 1)
