"""Every method at the edges: nothing to learn from, one token, one prompt, one response, masked rows."""

import math

import pytest
import torch

from braid.data.records import Rollouts


class Constant:
    """The parity task with the same verdict on every completion."""

    def __init__(self, task, verdict):
        self.task, self.verdict = task, verdict

    def __getattr__(self, name):
        return getattr(self.task, name)

    def reward(self, examples, completions):
        verdicts = [self.verdict] * len(completions)
        return {"reward": verdicts, "correct": verdicts, "format": verdicts}


def finite(learner, metrics):
    """Whether metrics and weights are finite and no step was skipped."""
    sound = all(bool(torch.isfinite(weight).all()) for weight in learner.policy.parameters())
    return sound and all(map(math.isfinite, metrics.values())) and metrics["step/skipped"] == 0


@pytest.mark.parametrize("verdict", [0.0, 1.0])
def test_equal_rewards(verdict, slug, method, learner, parity_task, copied, identical):
    """Groups without contrast: finite, and where every row was filtered out the step is empty and changes nothing."""
    trained = learner(method(slug), Constant(parity_task, verdict))
    before = copied(trained.policy)
    metrics = trained.step(0.0)
    assert finite(trained, metrics)
    right = metrics.get("rewards/correct/mean")
    assert right == verdict if "reward" in trained.method.needs else right is None
    if metrics["step/rows"] == 0:
        assert metrics["step/empty"] == 1
        assert identical(before, copied(trained.policy))
        assert trained.optimizer_steps == 0


def test_nothing_selected(slug, method, learner, parity_task, copied, identical, monkeypatch):
    trained = learner(method(slug), parity_task)
    before = copied(trained.policy)
    monkeypatch.setattr(type(trained.method), "select", lambda self, batch, context: batch[:0])
    for done in (1, 2):
        metrics = trained.step(0.0)
        assert (metrics["step/rows"], metrics["step/empty"]) == (0, done)
    assert identical(before, copied(trained.policy))
    assert trained.optimizer_steps == 0
    assert trained.step_count == 2
    monkeypatch.undo()
    assert finite(trained, trained.step(0.0))


@pytest.mark.parametrize(
    "limits",
    [
        {"max_new_tokens": 1, "max_demonstration_tokens": 1},
        {"prompts_per_step": 1},
        {"prompts_per_step": 1, "micro_batch_tokens": 1},
    ],
    ids=["one-token", "one-group", "one-row-at-a-time"],
)
def test_small_batches(limits, slug, method, learner, parity_task):
    trained = learner(method(slug), parity_task, **limits)
    for _ in range(2):
        assert finite(trained, trained.step(0.0))


def test_group_of_one(slug, method, learner, parity_task):
    trained = learner(method(slug, group_size=1), parity_task)
    assert finite(trained, trained.step(0.0))


def without_advantage(batch):
    return batch.replace(advantage=torch.zeros_like(batch.advantage))


def first_row_masked(batch):
    mask = batch.loss_mask.clone()
    mask[0] = False
    return batch.replace(loss_mask=mask)


def every_row_masked(batch):
    return batch.replace(loss_mask=torch.zeros_like(batch.loss_mask))


@pytest.mark.parametrize("change", [without_advantage, first_row_masked, every_row_masked])
def test_degenerate_credit(change, slug, method, learner, parity_task, monkeypatch):
    """No advantage, or no token to train on, in rows that are scored one at a time."""
    trained = learner(method(slug), parity_task, micro_batch_tokens=1)
    credit = type(trained.method).credit

    def changed(self, batch: Rollouts, context) -> Rollouts:
        return change(credit(self, batch, context))

    monkeypatch.setattr(type(trained.method), "credit", changed)
    metrics = trained.step(0.0)
    assert finite(trained, metrics)
    if change is every_row_masked:
        assert metrics["loss"] == 0
        assert metrics["grad_norm"] == 0


def test_masked_tokens_have_no_influence(slug, method, learner, parity_task):
    """The gradient of a batch does not depend on what stands in a row that is masked."""
    gradients = []
    for token in (5, 9):
        trained = learner(method(slug, exact=True), parity_task)
        context = trained._context()
        batch, _ = trained._collect(context)
        if not len(batch):
            pytest.skip("every group of this batch was filtered out")
        batch = first_row_masked(batch)
        batch.tokens[0, batch.response_mask[0]] = token
        trained._update(batch, context)
        gradients.append([w.grad.clone() for w in trained.policy.parameters() if w.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_micro_batches_do_not_change_the_gradient(slug, method, learner, parity_task):
    """Gradients before clipping, from one forward pass and from many, with sampling replaced by its expectation."""
    gradients, pieces = [], []
    for budget in (100_000, 1):
        trained = learner(method(slug, exact=True, max_gradient_norm=1e9), parity_task, micro_batch_tokens=budget)
        context = trained._context()
        batch, _ = trained._collect(context)
        assert len(batch)
        passes, score = [], trained.policy.score

        def counted(part, _score=score, _passes=passes, **options):
            _passes.append(len(part))
            return _score(part, **options)

        trained.policy.score = counted
        trained._update(batch, context)
        pieces.append(len(passes))
        gradients.append([w.grad.clone() for w in trained.policy.parameters() if w.grad is not None])
    assert pieces[0] == 1
    assert pieces[1] > 1
    scale = max(gradient.abs().max().item() for gradient in gradients[0])
    assert scale > 0
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * max(1.0, scale))
