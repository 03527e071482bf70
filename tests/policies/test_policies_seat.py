"""Policies at a table say and learn the same as alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from braid.data.ragged import build_rollouts
from braid.data.records import Rollouts
from braid.errors import UsageError
from braid.policies import CausalPolicy, tiny
from braid.policies.seat import Table
from braid.training.meeting import Member, hold


def make_policy(seed: int, autocast: bool = False) -> CausalPolicy:
    policy = tiny(1.2e5, seed=seed)
    policy.autocast = autocast
    policy.keep_reference()
    policy.add_value_head()
    assert policy.value_head is not None
    torch.manual_seed(seed)
    with torch.no_grad():
        policy.value_head.weight.normal_()
        for parameter in policy.model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)  # away from the reference
    return policy


def make_batch(seed: int) -> Rollouts:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, 90, (4 + seed + i,), generator=generator).tolist() for i in range(3 + seed)]
    return build_rollouts([row[:2] for row in rows], [row[2:] for row in rows], pad_token_id=0)


def learn(policy: CausalPolicy, seed: int) -> dict[str, Tensor]:
    """What a policy says of a batch, and the gradients of two losses of it."""
    batch = make_batch(seed)
    read = policy.score(batch, temperature=0.7)
    found = {
        "log_prob": read.log_prob,
        "entropy": read.entropy,
        "value": read.value,
        "reference": policy.reference_log_prob(batch),
    }
    for part in (batch[:2], batch[2:]):
        scores = policy.score(part, training=True)
        policy.backward((scores.log_prob + 0.3 * scores.value - 0.1 * scores.entropy).mean())
    gradients = [p.grad for p in policy.parameters() if p.grad is not None]
    assert len(gradients) == len(policy.parameters())
    return {**found, **{str(i): gradient for i, gradient in enumerate(gradients)}}


@pytest.mark.parametrize("autocast", [False, True])
def test_scores_and_gradients_are_those_of_single_policies(autocast: bool) -> None:
    table = Table()

    def body(seed: int) -> Callable[[Member[dict[str, Tensor]]], dict[str, Tensor]]:
        return lambda member: learn(table.seat(make_policy(seed, autocast), member.ask), seed)

    for seed, outcome in enumerate(hold([body(seed) for seed in range(3)])):
        expected = learn(make_policy(seed, autocast), seed)
        found = outcome.result()
        assert found.keys() == expected.keys()
        for name, value in found.items():
            error = float((value - expected[name]).norm() / expected[name].norm())
            assert error < (0.03 if autocast else 1e-5), name
            assert value.requires_grad == expected[name].requires_grad, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda policy: setattr(policy, "autocast", True), "must have the same autocast"),
        (lambda policy: setattr(policy.tokenizer, "eos_token", "<think>"), "must have the same eos_token_ids"),
    ],
)
def test_policies_that_would_decode_differently_are_refused(change: Callable[[Any], None], message: str) -> None:
    table, other = Table(), tiny(1.2e5, seed=1)
    table.seat(tiny(1.2e5, seed=0), lambda *arguments: None)
    change(other)
    with pytest.raises(UsageError, match=message):
        table.seat(other, lambda *arguments: None)
