"""One-token rollout."""

from __future__ import annotations

from dataclasses import dataclass

from braid.data.records import Rollouts
from braid.losses import imitation
from braid.losses.aggregation import Aggregation
from braid.methods.registry import register
from braid.methods.token import Loss, TokenMethod
from braid.options import inherit, option
from braid.policies.causal import Scores


@register(
    "otr",
    title="One-Token Rollout: Guiding Supervised Fine-Tuning of LLMs with Policy Gradient",
    family="rlvr",
    arxiv="2509.26313",
)
@dataclass(frozen=True)
class OTR(TokenMethod):
    """Supervised fine-tuning as a bandit at every token: draw tokens, reward the one the demonstration has.

    Strands:
        experience: demonstrations; at every position K tokens drawn from the flattened policy
        feedback: 1 for the demonstrated token, a small negative reward for any other
        credit: that reward, no baseline
        update: reward times log-likelihood at temperature 1, [B, T], mean over draws and positions

    Source: arXiv 2509.26313, equations 4 to 6. The values of the temperature and of the wrong token's reward are not
    settled by a public source; `exact` is the closed form without sampling.
    """

    draws: int = option(256, "tokens drawn per position (K)", unit="tokens", source="arXiv 2509.26313", low=1)
    draw_temperature: float = option(
        1.3, "flattens the policy that is drawn from (kappa)", source="arXiv 2509.26313: above 1", low=1
    )
    wrong_reward: float = option(
        -0.1, "reward of any token but the demonstrated one (beta)", source="arXiv 2509.26313: small, negative", below=1
    )
    exact: bool = option(False, "closed form: expectation over draws")
    aggregation: Aggregation = inherit(
        TokenMethod, "aggregation", "seq-mean-token-mean", source="arXiv 2509.26313, eq. 5"
    )

    published = {"learning_rate": 1e-5}

    def update(self, batch: Rollouts, scores: Scores) -> Loss:
        """Draws come from PyTorch's global generator, which the learner seeds anew at every step."""
        mask = batch.loss_mask
        logits, target, weight = scores.logits_at(mask).float(), batch.tokens[mask], batch.weights["policy"][mask]
        if self.exact:
            loss = imitation.one_token_rollout_exact(logits, target, self.draw_temperature, self.wrong_reward)
            return Loss((weight * loss).sum())
        drawn = imitation.sample_one_token(logits, self.draws, self.draw_temperature)
        loss = imitation.one_token_rollout(logits.log_softmax(-1), target, drawn, self.wrong_reward)
        missed = (drawn != target.unsqueeze(-1)).all(-1)
        return Loss((weight * loss).sum(), {"otr/no_hit_fraction": (weight * missed).sum()})
