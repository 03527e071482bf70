"""Contrastive bounds on information."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses import information

LAW = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
NOISE = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
KL = (LAW * (LAW / NOISE).log()).sum()


def bound(energy):
    """The mean contrast of an energy [3] over outcomes drawn from LAW, with the noise law enumerated."""
    return (LAW * information.contrast(energy, energy.expand(3, 3), NOISE.log())).sum()


def test_a_constant_energy_says_nothing():
    constant = torch.full((4,), 7.0)
    torch.testing.assert_close(information.contrast(constant, constant.unsqueeze(1).expand(4, 9)), torch.zeros(4))
    assert bound(torch.full((3,), 2.5).double()).item() == pytest.approx(0)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=3), st.floats(-10, 10))
def test_the_best_energy_reaches_the_divergence_and_no_other_exceeds_it(change, shift):
    best = (LAW / NOISE).log()
    torch.testing.assert_close(bound(best + shift), KL)
    assert bound(best + torch.tensor(change, dtype=torch.float64)) <= KL + 1e-12


def test_a_latent_that_says_nothing_of_the_outcome_gets_no_gradient():
    """z ~ softmax(logits) independent of r: with the best energy the bound is KL(p || rho) for every law of z."""
    logits = torch.tensor([0.3, -1.0], dtype=torch.float64, requires_grad=True)
    energy = (LAW / NOISE).log().expand(2, 3)
    of_latent = torch.stack([bound(energy[z]) for z in range(2)])
    total = (torch.softmax(logits, 0) * of_latent).sum()
    torch.testing.assert_close(total, KL)
    torch.testing.assert_close(torch.autograd.grad(total, logits)[0], torch.zeros(2).double())


def test_samples_of_equal_weight_are_the_enumerated_law():
    energy, noise = torch.tensor([1.0]), torch.tensor([[0.0, 2.0, 2.0, 2.0]])
    enumerated = information.contrast(energy, torch.tensor([[0.0, 2.0]]), torch.tensor([0.25, 0.75]).log())
    torch.testing.assert_close(information.contrast(energy, noise), enumerated)


def test_info_nce_by_hand():
    similarity = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
    torch.testing.assert_close(information.info_nce(similarity), torch.tensor([math.log(4 / 3), math.log(2)]))
    torch.testing.assert_close(information.info_nce(torch.zeros(8, 8)), torch.full((8,), math.log(8)))
    with pytest.raises(UsageError, match="every row"):
        information.info_nce(torch.zeros(2, 3))
