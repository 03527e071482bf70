"""Log-probability and entropy from one softmax, and their gradient by formula."""

import math

import pytest
import torch

from braid.losses.categorical import log_prob_and_entropy
from braid.losses.divergences import entropy_from_log_softmax


def test_by_hand():
    logits = torch.tensor([[0.0, math.log(3.0)], [2.0, 2.0]], dtype=torch.float64)
    log_prob, entropy = log_prob_and_entropy(logits, torch.tensor([1, 0]))
    assert log_prob.tolist() == pytest.approx([math.log(0.75), math.log(0.5)])
    assert entropy.tolist() == pytest.approx([-0.75 * math.log(0.75) - 0.25 * math.log(0.25), math.log(2.0)])


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    logits = (3 * torch.randn(4, 5, dtype=torch.float64)).requires_grad_()
    tokens = torch.tensor([0, 4, 2, 2])
    assert torch.autograd.gradcheck(lambda values: log_prob_and_entropy(values, tokens), logits)


@pytest.mark.parametrize(("of_log_prob", "of_entropy"), [(1.0, None), (None, 1.0), (-0.3, 0.7)])
def test_gradients_of_either_and_of_both(of_log_prob, of_entropy):
    torch.manual_seed(0)
    logits = (3 * torch.randn(6, 9)).requires_grad_()
    tokens = torch.randint(9, (6,))
    log_softmax = logits.log_softmax(-1)
    plain = log_softmax.gather(-1, tokens[:, None])[:, 0], entropy_from_log_softmax(log_softmax)

    def gradient(values):
        factors = (of_log_prob, of_entropy)
        total = sum(factor * value.sum() for factor, value in zip(factors, values, strict=True) if factor is not None)
        return torch.autograd.grad(total, logits)[0]

    torch.testing.assert_close(gradient(log_prob_and_entropy(logits, tokens)), gradient(plain), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_impossible_tokens(dtype):
    """They have no probability, no share in the entropy and no gradient, whatever the gradient is scaled by."""
    logits = torch.tensor([[0.0, 0.0, -math.inf]], dtype=dtype, requires_grad=True)
    log_prob, entropy = log_prob_and_entropy(logits, torch.tensor([0]))
    assert entropy.item() == pytest.approx(math.log(2.0))
    (1e4 * (log_prob + entropy)).sum().backward()
    assert logits.grad.tolist() == [pytest.approx([5e3, -5e3, 0.0])]


def test_no_tokens():
    logits = torch.zeros(0, 7, requires_grad=True)
    log_prob, entropy = log_prob_and_entropy(logits, torch.zeros(0, dtype=torch.int64))
    assert log_prob.shape == entropy.shape == (0,)
    (log_prob.sum() + entropy.sum()).backward()
    assert logits.grad.shape == (0, 7)
