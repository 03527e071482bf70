"""A method of one's own: a file with a subclass that overrides one strand trains like those of the library."""

import math

import pytest
import torch

from braid.errors import UsageError
from braid.methods.registry import find_method, method_name

OWN = '''"""A method of one's own."""

from __future__ import annotations

from dataclasses import dataclass

from braid.data.records import Rollouts
from braid.methods.rlvr.grpo import GRPO
from braid.methods.token import Loss
from braid.options import option
from braid.policies.causal import Scores


@dataclass(frozen=True)
class Mine(GRPO):
    """Policy gradient without a ratio."""

    strength: float = option(1.0, "factor of the loss", low=0)

    def update(self, batch: Rollouts, scores: Scores) -> Loss:
        loss = -self.strength * (batch.weights["policy"] * batch.advantage * scores.log_prob).sum()
        return Loss(loss, {"mine/loss": loss.detach()})
'''


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return find_method(f"{path}:Mine"), path


def test_it_trains(own, learner, parity_task, copied, identical):
    owner, _ = own
    trained = learner(owner(group_size=4), parity_task)
    before = copied(trained.policy)
    metrics = trained.step(0.0)
    assert math.isfinite(metrics["mine/loss"])
    assert not identical(before, copied(trained.policy))


def test_its_options_and_name_are_known(own):
    owner, path = own
    assert method_name(owner(strength=2.0)) == f"{path}:Mine"
    with pytest.raises(UsageError, match="strength"):
        owner(strength=-1.0)


def test_on_policy_it_has_the_gradient_of_grpo(own, learner, parity_task):
    owner, _ = own
    gradients = []
    for method in (owner(group_size=4), find_method("grpo")(group_size=4)):
        trained = learner(method, parity_task)
        context = trained._context()
        trained._update(trained._collect(context)[0], context)
        gradients.append(torch.cat([weight.grad.flatten() for weight in trained.policy.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_a_misspelt_class_is_named(own):
    _, path = own
    with pytest.raises(UsageError, match="Yours"):
        find_method(f"{path}:Yours")
