"""KL estimators and entropies."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses.aggregation import aggregate
from braid.losses.divergences import entropy, entropy_from_log_softmax, kl

ESTIMATORS = ["k1", "k2", "k3", "k1+", "k3+"]


def value_and_gradient(difference, estimator):
    reference = torch.tensor([[-1.5]], dtype=torch.float64)
    log_prob = (reference + difference).requires_grad_()
    estimate = kl(log_prob, reference, estimator)
    (gradient,) = torch.autograd.grad(estimate.sum(), log_prob)
    return estimate.item(), gradient.item()


@given(st.floats(-2, 3))
@settings(deadline=None)
def test_values_and_gradients_by_formula(d):
    values = {"k1": d, "k2": d * d / 2, "k3": math.exp(-d) + d - 1}
    gradients = {"k1": 1, "k2": d, "k3": 1 - math.exp(-d)}
    for estimator in ESTIMATORS:
        expected = values[estimator[:2]], gradients["k2" if estimator.endswith("+") else estimator]
        assert value_and_gradient(d, estimator) == pytest.approx(expected, abs=1e-12)
    assert value_and_gradient(d, "k3")[0] >= -1e-15


def test_every_estimator_is_zero_at_equality():
    for estimator in ESTIMATORS:
        assert value_and_gradient(0.0, estimator)[0] == 0


def test_k3_is_bounded():
    assert value_and_gradient(-50.0, "k3") == (10.0, 0.0)
    assert value_and_gradient(50.0, "k3") == (10.0, 0.0)
    assert value_and_gradient(-50.0, "k3+") == (10.0, -50.0)


def test_k1_and_k3_are_unbiased_and_k2_has_the_gradient_of_the_divergence():
    logits, reference = torch.tensor([0.3, -0.4, 1.0], dtype=torch.float64, requires_grad=True), torch.zeros(3).double()
    log_policy, log_reference = torch.log_softmax(logits, 0), torch.log_softmax(reference, 0)
    policy = log_policy.exp()
    exact = (policy * (log_policy - log_reference)).sum()
    for estimator in ("k1", "k3"):
        torch.testing.assert_close((policy * kl(log_policy, log_reference, estimator)).sum(), exact)
    (expected,) = torch.autograd.grad(exact, logits, retain_graph=True)
    for estimator in ("k2", "k1+", "k3+"):
        loss = (policy.detach() * kl(log_policy, log_reference, estimator)).sum()
        torch.testing.assert_close(torch.autograd.grad(loss, logits, retain_graph=True)[0], expected)
    constant = (policy.detach() * kl(log_policy, log_reference, "k1")).sum()
    torch.testing.assert_close(torch.autograd.grad(constant, logits)[0], torch.zeros(3).double())


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(ESTIMATORS))
@settings(deadline=None)
def test_padding_does_not_leak(junk, other, estimator):
    log_prob = torch.tensor([[-1.0, junk]], requires_grad=True)
    loss = aggregate(kl(log_prob, torch.tensor([[-1.5, other]]), estimator), torch.tensor([[1, 0]]), "token-mean")
    expected = value_and_gradient(0.5, estimator)
    assert loss.item() == pytest.approx(expected[0])
    (gradient,) = torch.autograd.grad(loss, log_prob)
    assert gradient.tolist()[0] == pytest.approx([expected[1], 0.0])


def test_the_reference_is_detached_and_the_type_kept():
    reference = torch.tensor([[-1.0]], dtype=torch.bfloat16, requires_grad=True)
    for estimator in ESTIMATORS:
        estimate = kl(torch.tensor([[-2.0]], dtype=torch.bfloat16), reference, estimator)
        assert not estimate.requires_grad
        assert estimate.dtype == torch.bfloat16


def test_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -torch.inf, -torch.inf], [0.0] + [-torch.inf] * 3])
    torch.testing.assert_close(entropy(logits), torch.tensor([math.log(4), math.log(2), 0.0]))
    torch.testing.assert_close(entropy_from_log_softmax(logits.log_softmax(-1)), entropy(logits))
    half = torch.tensor([0.5, 0.25, 0.25]).log() + 3.0
    assert entropy(half).item() == pytest.approx(1.5 * math.log(2))


def test_entropy_has_finite_gradients_with_impossible_tokens():
    logits = torch.tensor([[0.3, 1.2, -torch.inf]], requires_grad=True)
    entropy(logits).sum().backward()
    probability, surprise = logits.detach().softmax(-1), logits.detach().log_softmax(-1)
    expected = -(probability * (surprise + entropy(logits.detach()).unsqueeze(-1)))[:, :2]
    torch.testing.assert_close(logits.grad[:, :2], expected)
    assert logits.grad[0, 2] == 0
    assert torch.autograd.gradcheck(entropy, torch.randn(2, 3, dtype=torch.float64, requires_grad=True))


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="estimator"):
        kl(torch.zeros(1, 1), torch.zeros(1, 1), "k2+")
