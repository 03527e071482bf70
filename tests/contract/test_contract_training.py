"""Every method trains, repeats itself under a seed, and resumes from files bit for bit."""

import json
import math
import re

import torch

from braid.policies import tiny
from braid.policies.causal import CausalPolicy

STEPS = 3


def test_trains_repeats_and_resumes(slug, method, learner, copied, identical, parity_task, tmp_path):
    """Three steps change the policy; again they end in the same weights, and so does a run restored after two."""
    first = learner(method(slug), parity_task)
    start = copied(first.policy)
    for step in range(STEPS):
        metrics = first.step(step / STEPS)
        for name, value in metrics.items():
            assert re.fullmatch(r"[A-Za-z_@/]+", name), name
            assert isinstance(value, float), name
            assert math.isfinite(value), name
        if step == 1:
            first.policy.save(tmp_path / "policy")
            torch.save(first.tensors(), tmp_path / "state.pt")
            (tmp_path / "counters.json").write_text(json.dumps(first.counters()))
    end = copied(first.policy)
    assert not identical(start, end)
    assert metrics["step/skipped"] == 0
    assert first.step_count == STEPS

    again = learner(method(slug), parity_task)
    for step in range(STEPS):
        again.step(step / STEPS)
    assert identical(copied(again.policy), end)

    restored = CausalPolicy.load(tmp_path / "policy", device="cpu")
    resumed = learner(method(slug), parity_task, restored)
    if resumed.method.needs_reference:
        tiny(1.2e5, seed=1).save(tmp_path / "reference")
        restored.keep_reference(tmp_path / "reference")
    resumed.restore(
        torch.load(tmp_path / "state.pt", weights_only=True), json.loads((tmp_path / "counters.json").read_text())
    )
    resumed.step(2 / STEPS)
    assert identical(copied(restored), end)
    assert resumed.counters() == first.counters()


def test_another_seed_gives_other_weights(slug, method, learner, copied, identical, parity_task):
    ends = []
    for seed in (0, 1):
        trained = learner(method(slug), parity_task, seed=seed)
        trained.step(0.0)
        ends.append(copied(trained.policy))
    assert not identical(*ends)
