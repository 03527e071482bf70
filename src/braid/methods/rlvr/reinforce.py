"""REINFORCE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from braid.data.records import Rollouts
from braid.losses import advantages
from braid.losses.advantages import Center, Scale
from braid.losses.aggregation import Aggregation, masked_whiten
from braid.losses.divergences import KLEstimator
from braid.methods.context import Context
from braid.methods.registry import register
from braid.methods.rlvr.grpo import GRPO, Surrogate
from braid.methods.token import State, per_token
from braid.options import inherit, option


@register("reinforce", title="REINFORCE", family="rlvr")
@dataclass(frozen=True)
class REINFORCE(GRPO):
    """Likelihood-ratio policy gradient with an optional running baseline; whitened over tokens it is REINFORCE++.

    Strands:
        experience: rollouts
        feedback: verifier; optionally a KL penalty per token
        credit: discounted return minus a running mean of the reward, [B, T]; optionally whitened over the batch
        update: advantage times log-likelihood, through an unclipped ratio

    Source: Williams 1992; `--whiten --surrogate clip` is REINFORCE++ (arXiv 2501.03262), with `--center group` its
    baseline variant.
    """

    center: Center = inherit(GRPO, "center", "none")
    scale: Scale = inherit(GRPO, "scale", "none")
    surrogate: Surrogate = inherit(GRPO, "surrogate", "none")
    kl_estimator: KLEstimator = inherit(GRPO, "kl_estimator", "k1", source="arXiv 2501.03262")
    kl_placement: Literal["loss", "reward"] = inherit(GRPO, "kl_placement", "reward", source="arXiv 2501.03262")
    aggregation: Aggregation = inherit(GRPO, "aggregation", "token-mean")
    baseline: Literal["none", "running_mean"] = option("running_mean", "what is subtracted from every reward")
    baseline_decay: float = option(0.9, "of the running mean", unit="per step", low=0, below=1)
    discount: float = option(1.0, "of rewards after a token", unit="per token", low=0, high=1)
    whiten: bool = option(False, "normalise returns over all tokens of the batch", source="arXiv 2501.03262")

    published = {"learning_rate": 1e-6}

    def initial_state(self) -> State:
        return {"baseline": torch.zeros(()), "weight": torch.zeros(())}

    def next_state(self, state: State, batch: Rollouts) -> State:
        decay = self.baseline_decay
        return {
            "baseline": decay * state["baseline"] + (1 - decay) * batch.reward.mean(),
            "weight": decay * state["weight"] + (1 - decay),
        }

    def credit(self, batch: Rollouts, context: Context) -> Rollouts:
        batch = self.mask_lengths(batch)
        score = self.advantage(batch.reward, batch.group_id)
        if self.baseline == "running_mean" and self.center == "none":
            state = context.state
            score = advantages.monte_carlo(score, state["baseline"] / state["weight"].clamp_min(1e-8))
        returns = advantages.return_to_go(
            batch.token_reward + at_last_token(score, batch.response_mask), batch.response_mask, self.discount
        )
        advantage = masked_whiten(returns, batch.response_mask) if self.whiten else returns
        return batch.replace(advantage=advantage, returns=returns)


def at_last_token(values: Tensor, mask: Tensor) -> Tensor:
    """[B, T]: one value per row [B], placed on the last True of its mask [B, T]."""
    last = mask & (mask.cumsum(-1) == mask.sum(-1, keepdim=True))
    return per_token(values, last)
