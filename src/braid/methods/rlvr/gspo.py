"""Group sequence policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass

from braid.methods.registry import register
from braid.methods.rlvr.grpo import GRPO, RatioLevel
from braid.options import inherit


@register("gspo", title="Group sequence policy optimisation", family="rlvr", arxiv="2507.18071")
@dataclass(frozen=True)
class GSPO(GRPO):
    """GRPO with one importance ratio per response: the geometric mean over its tokens.

    Strands:
        experience: a group of rollouts of each prompt
        feedback: verifier
        credit: group-normalised reward, [B] spread over [B, T]
        update: surrogate of the sequence ratio, clipped within a few ten-thousandths

    Source: arXiv 2507.18071, equations 5, 7 and 13.
    """

    ratio_level: RatioLevel = inherit(GRPO, "ratio_level", "sequence", source="arXiv 2507.18071, eq. 7")
    clip_low: float = inherit(GRPO, "clip_low", 3e-4, source="arXiv 2507.18071, section 5.1")
    clip_high: float = inherit(GRPO, "clip_high", 4e-4, source="arXiv 2507.18071, section 5.1")
    updates_per_batch: int = inherit(GRPO, "updates_per_batch", 4, source="arXiv 2507.18071, section 5.1")

    published = {"learning_rate": 1e-6}
