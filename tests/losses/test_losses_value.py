"""The critic's loss."""

import pytest
import torch

from braid.errors import UsageError
from braid.losses.value import clipped_value_loss


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "gradient"),
    [
        (0.1, 0.0, 1.0, 0.405, -0.9),  # inside the range: plain squared error
        (0.8, 0.0, 1.0, 0.32, 0.0),  # moved towards the target beyond the range: no further push
        (-0.8, 0.0, 1.0, 1.62, -1.8),  # moved away: the larger, unclipped error pulls it back
    ],
)
def test_by_hand(value, old, target, loss, gradient):
    leaf = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    actual = clipped_value_loss(leaf, torch.tensor([[old]]).double(), torch.tensor([[target]]).double(), 0.2)
    assert actual.item() == pytest.approx(loss)
    assert torch.autograd.grad(actual.sum(), leaf)[0].item() == pytest.approx(gradient)


def test_without_a_clip_it_is_half_the_squared_error():
    value, old, target = torch.tensor([[2.0, -1.0]]), torch.zeros(1, 2), torch.tensor([[1.0, 1.0]])
    assert clipped_value_loss(value, old, target, None).tolist() == [[0.5, 2.0]]
    torch.testing.assert_close(clipped_value_loss(value, old, target, 100.0), torch.tensor([[0.5, 2.0]]))


def test_targets_are_detached_and_the_type_kept():
    fixed = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True)
    loss = clipped_value_loss(torch.zeros(1, 1, dtype=torch.bfloat16), fixed, fixed, 0.2)
    assert not loss.requires_grad
    assert loss.dtype == torch.bfloat16


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="clip_range"):
        clipped_value_loss(torch.zeros(1), torch.zeros(1), torch.zeros(1), -0.1)
