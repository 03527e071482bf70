"""Dynamic fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from braid.losses.imitation import LikelihoodWeight
from braid.methods.registry import register
from braid.methods.rlvr.sft import SFT
from braid.options import inherit


@register("dft", title="Dynamic fine-tuning", family="rlvr", arxiv="2508.05629")
@dataclass(frozen=True)
class DFT(SFT):
    """Supervised fine-tuning whose tokens weigh as much as the policy already believes in them.

    Strands:
        experience: demonstrations of the next prompts
        feedback: none
        credit: the detached probability of the token, [B, T]
        update: weighted negative log-likelihood

    Source: arXiv 2508.05629, equation 9.
    """

    token_weight: LikelihoodWeight = inherit(SFT, "token_weight", "probability", source="arXiv 2508.05629, eq. 9")

    published = {"learning_rate": 5e-5}
