"""CHORD: expert data as a weighted auxiliary loss inside on-policy RL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from braid.data.records import Rollouts
from braid.errors import UsageError
from braid.losses import imitation
from braid.losses.aggregation import Aggregation, token_weights
from braid.losses.imitation import LikelihoodWeight
from braid.methods.context import Context
from braid.methods.registry import register
from braid.methods.rlvr.grpo import GRPO
from braid.methods.token import Loss
from braid.options import inherit, option
from braid.policies.causal import Scores


@register("chord", title="On-Policy RL Meets Off-Policy Experts (CHORD)", family="rlvr", arxiv="2508.11408")
@dataclass(frozen=True)
class CHORD(GRPO):
    """GRPO and demonstrations in one loss, (1 - mu) RL + mu expert, with a detached weight on each expert token.

    `variant` chooses between the paper's two: `phi` (constant small mu, tokens weighted by p(1-p)) and `mu` (mu decays,
    tokens weigh 1); `expert_weight` and the four schedule options override what it implies.

    Strands:
        experience: a group of rollouts of each prompt, and a fifth of expert sequences
        feedback: verifier, for the rollouts
        credit: group-normalised reward for rollouts; p(1-p) for expert tokens, [B, T]
        update: (1 - mu) clipped surrogate + mu weighted NLL, each averaged over its own tokens

    Source: arXiv 2508.11408, equations 4 to 8; modelscope/Trinity-RFT mix_chord for dual clip and batch mix.
    """

    variant: Literal["phi", "mu"] = option("phi", "constant mu with p(1-p), or decaying mu with plain likelihood")
    expert_weight: Literal["variant", "one", "probability", "uncertainty"] = option(
        "variant", "weight of an expert token: that of the variant, 1, p (importance sampling), or p(1-p)"
    )
    expert_fraction: float = option(0.2, "share of expert sequences among all", source="mix_chord.yaml", low=0, below=1)
    mu_warmup: int = option(0, "steps over which mu rises from 0", unit="steps", source="mix_chord.yaml", low=0)
    mu_decay: int = option(
        -1, "steps over which mu falls; -1 is 200 for `mu`, 0 for `phi`", unit="steps", source="mix_chord.yaml", low=-1
    )
    mu_peak: float = option(
        -1.0, "largest mu; -1 is 0.9 for `mu`, 0.1 for `phi`", source="mix_chord.yaml", low=-1, high=1
    )
    mu_valley: float = option(
        -1.0, "final mu; -1 is 0.05 for `mu`, 0.1 for `phi`", source="mix_chord.yaml", low=-1, high=1
    )
    cutoff_prob: float = option(
        1.0, "expert tokens likelier than this get no gradient", unit="probability", above=0, high=1
    )
    expert_aggregation: Aggregation = option(
        "token-mean", "how expert token losses are averaged", source="mix_chord.yaml"
    )
    aggregation: Aggregation = inherit(GRPO, "aggregation", "token-mean", source="arXiv 2508.11408, eq. 3")
    dual_clip: float = inherit(GRPO, "dual_clip", 3.0, source="Trinity-RFT")

    needs = frozenset({"reward", "demonstrations"})
    published = {"learning_rate": 1e-6, "prompts_per_step": 32}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mu_peak", "mu_valley"):
            if -1 < getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)} must be at least 0, or -1 for that of the variant")

    def mu(self, step: int) -> float:
        """Share of the expert loss at a step: linear warm-up, cosine decay, constant."""
        decay_steps, peak, valley = (200, 0.9, 0.05) if self.variant == "mu" else (0, 0.1, 0.1)
        decay_steps = self.mu_decay if self.mu_decay >= 0 else decay_steps
        peak = self.mu_peak if self.mu_peak >= 0 else peak
        valley = self.mu_valley if self.mu_valley >= 0 else valley
        if step < self.mu_warmup:
            return peak * step / self.mu_warmup
        if step < self.mu_warmup + decay_steps:
            return valley + (peak - valley) * 0.5 * (1 + math.cos(math.pi * (step - self.mu_warmup) / decay_steps))
        return valley

    @property
    def token_weight(self) -> LikelihoodWeight:
        """The weight of an expert token that is in force."""
        if self.expert_weight != "variant":
            return self.expert_weight
        return "uncertainty" if self.variant == "phi" else "one"

    def credit(self, batch: Rollouts, context: Context) -> Rollouts:
        """Advantages of the rollouts; then the experts join, who belong to no group."""
        batch = super().credit(batch, context)
        experts = round(len(batch) * self.expert_fraction / (1 - self.expert_fraction))
        return context.join(batch, context.demonstrations(experts)) if experts else batch

    def weights(self, batch: Rollouts, context: Context) -> dict[str, Tensor]:
        mu = self.mu(context.step)
        weights = super().weights(batch, context)
        expert = batch.loss_mask & batch.demonstrated.unsqueeze(-1)
        length = self.aggregation_length or float(context.max_new_tokens)
        return {
            "policy": (1 - mu) * weights["policy"],
            "token": weights["token"],
            "expert": mu * token_weights(expert, self.expert_aggregation, length),
        }

    def update(self, batch: Rollouts, scores: Scores) -> Loss:
        policy = super().update(batch, scores)
        per_token = imitation.weighted_likelihood(scores.log_prob, self.token_weight, self.cutoff_prob)
        expert = (batch.weights["expert"] * per_token).sum()
        return policy + Loss(expert, {"expert_loss": expert.detach()})
