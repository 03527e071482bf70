"""Proximal policy optimisation on tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from braid.data.records import Rollouts
from braid.losses import advantages
from braid.losses.aggregation import Aggregation, masked_whiten
from braid.losses.divergences import KLEstimator
from braid.losses.value import clipped_value_loss
from braid.methods.context import Context
from braid.methods.registry import register
from braid.methods.rlvr.grpo import GRPO
from braid.methods.rlvr.reinforce import at_last_token
from braid.methods.token import Loss
from braid.options import inherit, option
from braid.policies.causal import Scores


@register("ppo", title="Proximal policy optimisation", family="rlvr", arxiv="1707.06347")
@dataclass(frozen=True)
class PPO(GRPO):
    """Clipped policy gradient with a learned critic: a value head on the policy's last hidden state.

    Strands:
        experience: rollouts; the group size only sets how many there are
        feedback: verifier at the last token minus a KL penalty at every token
        credit: generalised advantage estimate from the critic, [B, T], whitened over the batch
        update: clipped surrogate plus a clipped squared error of the critic

    Source: arXiv 1707.06347, equations 7 and 9; arXiv 1506.02438 for the advantage; constants as in TRL.
    """

    discount: float = option(1.0, "of rewards", unit="per token", source="verl, TRL", low=0, high=1)
    gae_lambda: float = option(0.95, "trace decay of the advantage estimate", source="TRL", low=0, high=1)
    value_clip: float = option(0.2, "the critic moves at most this far from its old estimate", source="TRL", above=0)
    value_coefficient: float = option(0.1, "weight of the critic's loss", source="TRL", low=0)
    whiten: bool = option(True, "normalise advantages over all tokens of the batch", source="verl, TRL")

    beta: float = inherit(GRPO, "beta", 0.05, source="TRL PPOTrainer")
    kl_estimator: KLEstimator = inherit(GRPO, "kl_estimator", "k1", source="TRL PPOTrainer")
    kl_placement: Literal["loss", "reward"] = inherit(GRPO, "kl_placement", "reward", source="TRL PPOTrainer")
    aggregation: Aggregation = inherit(GRPO, "aggregation", "token-mean", source="verl")
    epochs: int = inherit(GRPO, "epochs", 4, source="TRL PPOTrainer")

    needs_critic = True
    unused = frozenset({"center", "scale", "epsilon"})
    published = {"learning_rate": 1e-6}

    def credit(self, batch: Rollouts, context: Context) -> Rollouts:
        batch = context.with_value(self.mask_lengths(batch))
        mask = batch.response_mask
        reward = batch.token_reward + at_last_token(batch.reward, mask)
        advantage, returns = advantages.gae(reward, batch.value, mask, self.discount, self.gae_lambda)
        if self.whiten:
            advantage = masked_whiten(advantage, mask)
        return batch.replace(advantage=advantage * mask, returns=returns)

    def update(self, batch: Rollouts, scores: Scores) -> Loss:
        error = clipped_value_loss(scores.value, batch.value, batch.returns, self.value_clip)
        value_loss: Tensor = (batch.weights["policy"] * error).sum()
        policy = super().update(batch, scores)
        return policy + Loss(self.value_coefficient * value_loss, {"value_loss": value_loss.detach()})
