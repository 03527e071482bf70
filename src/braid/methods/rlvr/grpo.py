"""Group relative policy optimisation, with every axis of normalisation as an option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from braid.data.records import Rollouts
from braid.errors import UsageError
from braid.losses import advantages, divergences, policy_gradient
from braid.losses.advantages import Center, Scale
from braid.losses.aggregation import Aggregation, masked_sum, token_weights
from braid.losses.divergences import KLEstimator
from braid.methods.context import Context
from braid.methods.registry import register
from braid.methods.token import Loss, TokenMethod, per_token
from braid.options import inherit, option
from braid.policies.causal import Scores
from braid.rollout.sampler import Sampling

RatioLevel = Literal["token", "sequence", "product"]
Surrogate = Literal["clip", "none", "cispo"]


@register("grpo", title="Group relative policy optimisation", family="rlvr", arxiv="2402.03300")
@dataclass(frozen=True)
class GRPO(TokenMethod):
    """Policy gradient with a clipped ratio and the group's own rewards as baseline.

    Strands:
        experience: a group of rollouts of each prompt
        feedback: verifier; optionally a KL penalty per token
        credit: reward minus the mean of its group, over the standard deviation of its group, [B] spread over [B, T]
        update: clipped surrogate; optionally KL to the reference and an entropy bonus

    Source: arXiv 2402.03300, equation 3; options as in verl and TRL. The KL coefficient is TRL's 0, not the paper's
    0.04.
    """

    group_size: int = option(8, "responses per prompt", source="verl, TRL", low=1)
    temperature: float = option(1.0, "of sampling; divides the logits", source="verl, TRL", above=0)
    top_p: float = option(
        1.0, "smallest set of tokens with at least this probability", unit="probability", above=0, high=1
    )
    top_k: int = option(0, "number of likeliest tokens kept; 0 is off", unit="tokens", low=0)

    center: Center = option("group", "what is subtracted from the reward", source="arXiv 2402.03300")
    scale: Scale = option("group", "what the reward is divided by", source="arXiv 2402.03300")
    epsilon: float = option(1e-6, "added to the standard deviation", source="verl", low=0)
    mask_truncated: bool = option(
        False, "responses cut at the length limit are not trained on; they stay in the statistics"
    )

    ratio_level: RatioLevel = option(
        "token", "importance ratio per token, its geometric mean, or its product, per sequence"
    )
    surrogate: Surrogate = option("clip", "clipped, not clipped, or the clipped weight on the log-likelihood (CISPO)")
    clip_low: float = option(
        0.2, "the ratio is clipped below 1 - clip_low", unit="fraction", source="arXiv 1707.06347", low=0, high=1
    )
    clip_high: float = option(
        0.2, "the ratio is clipped above 1 + clip_high", unit="fraction", source="arXiv 1707.06347", low=0
    )
    dual_clip: float = option(
        0.0, "bound of the ratio for negative advantages; 0 is off", source="arXiv 1912.09729", low=0
    )

    beta: float = option(0.0, "coefficient of the KL divergence to the reference policy", source="TRL", low=0)
    kl_estimator: KLEstimator = option("k3", "estimator of the KL divergence", source="arXiv 2402.03300, eq. 4")
    kl_placement: Literal["loss", "reward"] = option("loss", "where the KL divergence enters")
    entropy_coefficient: float = option(0.0, "weight of the entropy bonus", unit="per nat", low=0)

    aggregation: Aggregation = inherit(
        TokenMethod, "aggregation", "seq-mean-token-mean", source="arXiv 2402.03300, eq. 3"
    )

    needs = frozenset({"reward"})
    published = {"learning_rate": 1e-6, "prompts_per_step": 128}

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.dual_clip <= 1:
            raise UsageError(f"dual_clip={self.dual_clip} must be above 1, or 0 for no dual clip")

    @property
    def sampling_temperature(self) -> float:
        return self.temperature

    @property
    def needs_reference(self) -> bool:
        return self.beta > 0

    def experience(self, context: Context) -> Rollouts:
        sampling = Sampling(context.max_new_tokens, self.temperature, self.top_p, self.top_k)
        return context.rollouts(self.group_size, sampling)

    def feedback(self, batch: Rollouts, context: Context) -> Rollouts:
        batch = context.judge(batch)
        if not self.needs_reference:
            return batch
        batch = context.with_reference(batch, self.temperature)
        if self.kl_placement == "loss":
            return batch
        penalty = divergences.kl(batch.behaviour_log_prob, batch.reference_log_prob, self.kl_estimator)
        return batch.replace(token_reward=batch.token_reward - self.beta * penalty * batch.response_mask)

    def credit(self, batch: Rollouts, context: Context) -> Rollouts:
        batch = self.mask_lengths(batch)
        reward = batch.reward + masked_sum(batch.token_reward, batch.response_mask, dim=-1)
        rows = self.compared(batch)
        advantage = torch.zeros_like(reward)
        advantage[rows] = self.advantage(reward[rows], batch.group_id[rows])
        return batch.replace(advantage=per_token(advantage, batch.response_mask))

    def compared(self, batch: Rollouts) -> Tensor:
        """[B] bool: rows whose rewards are compared with each other; the others have advantage 0."""
        return batch.online

    def advantage(self, reward: Tensor, group_id: Tensor) -> Tensor:
        """[B]: rewards centred and scaled."""
        return advantages.normalise(reward, group_id, self.center, self.scale, self.epsilon)

    def mask_lengths(self, batch: Rollouts) -> Rollouts:
        """The batch with truncated rollouts out of the loss, if the method asks for it."""
        if not self.mask_truncated:
            return batch
        return batch.replace(loss_mask=batch.loss_mask & ~(batch.truncated & batch.online).unsqueeze(-1))

    def weights(self, batch: Rollouts, context: Context) -> dict[str, Tensor]:
        mask = batch.loss_mask & batch.online.unsqueeze(-1)
        return {"policy": self.aggregate(mask, context), "token": token_weights(mask, "token-mean")}

    def ratio(self, batch: Rollouts, log_prob: Tensor) -> Tensor:
        """[B, T]: importance ratio of each token at the level chosen."""
        if self.ratio_level == "token":
            return policy_gradient.importance_ratio(log_prob, batch.behaviour_log_prob)
        normalised = self.ratio_level == "sequence"
        return policy_gradient.sequence_ratio(
            log_prob, batch.behaviour_log_prob, batch.loss_mask, length_normalised=normalised
        )

    def update(self, batch: Rollouts, scores: Scores) -> Loss:
        """The surrogate of each token, [B, T], weighted and summed."""
        ratio = self.ratio(batch, scores.log_prob)
        if self.surrogate == "clip":
            bound = self.dual_clip or None
            loss = policy_gradient.clip(ratio, batch.advantage, self.clip_low, self.clip_high, bound)
        elif self.surrogate == "cispo":
            loss = policy_gradient.cispo(scores.log_prob, ratio, batch.advantage, self.clip_low, self.clip_high)
        else:
            loss = policy_gradient.plain(ratio, batch.advantage)
        return Loss((batch.weights["policy"] * loss).sum(), self.ratio_metrics(batch, ratio))

    def ratio_metrics(self, batch: Rollouts, ratio: Tensor) -> dict[str, Tensor]:
        """Mean ratio and the fractions of tokens at which the clip is active."""
        low, high = policy_gradient.clip_fraction(ratio, batch.advantage, self.clip_low, self.clip_high)
        weight = batch.weights["token"]
        return {
            "ratio/mean": (weight * ratio).sum().detach(),
            "clip_ratio/low_mean": (weight * low).sum(),
            "clip_ratio/high_mean": (weight * high).sum(),
            "clip_ratio": (weight * (low | high)).sum(),
        }

    def regularise(self, batch: Rollouts, scores: Scores) -> Loss:
        """The KL divergence to the reference, where it belongs to the loss, minus the entropy bonus."""
        value = scores.log_prob.new_zeros(())
        metrics: dict[str, Tensor] = {}
        if self.beta > 0 and self.kl_placement == "loss":
            divergence = divergences.kl(scores.log_prob, batch.reference_log_prob, self.kl_estimator)
            value = value + self.beta * (batch.weights["policy"] * divergence).sum()
            metrics["kl"] = (batch.weights["token"] * divergence).sum().detach()
        elif self.beta > 0:
            divergence = divergences.kl(batch.behaviour_log_prob, batch.reference_log_prob, "k1")
            metrics["kl"] = (batch.weights["token"] * divergence).sum()
        if self.entropy_coefficient:
            value = value - self.entropy_coefficient * (batch.weights["token"] * scores.entropy).sum()
        return Loss(value, metrics)
