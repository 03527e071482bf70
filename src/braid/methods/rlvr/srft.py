"""SRFT: entropy-aware supervised and reinforcement fine-tuning in one stage."""

from __future__ import annotations

from dataclasses import dataclass

from braid.data.records import Rollouts
from braid.losses import imitation, policy_gradient
from braid.losses.aggregation import masked_mean
from braid.methods.registry import register
from braid.methods.rlvr.luffy import LUFFY
from braid.methods.token import Loss
from braid.policies.causal import Scores


@register(
    "srft",
    title="SRFT: A Single-Stage Method with Supervised and Reinforcement Fine-Tuning",
    family="rlvr",
    arxiv="2506.19767",
)
@dataclass(frozen=True)
class SRFT(LUFFY):
    """Demonstrations and rollouts weighted by the policy's own entropy on them.

    Strands:
        experience: a group of rollouts of each question plus its demonstration
        feedback: verifier; the demonstration has reward 1
        credit: 0.1 exp(H) for right and -1 for wrong rollouts, H mean entropy [B]; the joint group's for demonstrations
        update: ratio times that for rollouts; 0.5 exp(-H) NLL plus LUFFY's shaped term for demonstration tokens, [B, T]

    Source: arXiv 2506.19767, equations 6 to 10, as the baseline in TsinghuaC3I/Unify-Post-Training.
    """

    unused = frozenset({"surrogate", "dual_clip"})

    def update(self, batch: Rollouts, scores: Scores) -> Loss:
        entropy = masked_mean(scores.entropy, batch.loss_mask, dim=-1)
        imitate, reinforce = imitation.srft_weights(entropy, batch.correct)
        nll = imitate.unsqueeze(-1) * imitation.negative_log_likelihood(scores.log_prob)
        shaped = imitation.luffy_shaping(scores.log_prob, batch.advantage, self.shaping)
        ratio = self.ratio(batch, scores.log_prob)
        own = (batch.weights["policy"] * policy_gradient.plain(ratio, reinforce)).sum()
        demonstration = (batch.weights["demonstration"] * (nll + shaped)).sum()
        metrics = {**self.ratio_metrics(batch, ratio), "demonstration_loss": demonstration.detach()}
        return Loss(own + demonstration, metrics)
