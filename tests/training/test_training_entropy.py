"""The entropy that is logged is that of the policy's own responses; experts and demonstrations stay out of it."""

from __future__ import annotations

from typing import Any

import pytest

from braid.losses.aggregation import masked_mean
from braid.methods.rlvr.chord import CHORD
from braid.methods.rlvr.sft import SFT
from braid.training.learner import Learner
from braid.training.settings import Settings


@pytest.mark.parametrize("micro_batch_tokens", [4096, 40])
@pytest.mark.parametrize("method", [CHORD(group_size=4, expert_fraction=0.5), SFT()], ids=["chord", "sft"])
def test_entropy_of_the_policy_alone(method: Any, micro_batch_tokens: int, tiny_policy: Any, parity_task: Any) -> None:
    examples = parity_task.examples("train", 16)
    settings = Settings(prompts_per_step=2, micro_batch_tokens=micro_batch_tokens, learning_rate=1e-9)
    learner = Learner(
        tiny_policy, method, parity_task, settings, prompts=examples, demonstrations=examples, max_new_tokens=6
    )
    context = learner._context()
    batch, _ = learner._collect(context)
    own = batch.loss_mask & batch.online.unsqueeze(-1) if batch.online.any() else batch.loss_mask
    assert own.any()
    expected = float(masked_mean(tiny_policy.score(batch).entropy, own))
    everything = float(masked_mean(tiny_policy.score(batch).entropy, batch.loss_mask))
    assert (expected == everything) == (method == SFT())
    assert learner._update(batch, context)["entropy"] == pytest.approx(expected, rel=1e-6)
