"""Errors of predicted actions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses import behaviour_cloning as bc
from braid.losses.aggregation import aggregate


@pytest.mark.parametrize(
    ("norm", "dimensions", "error"),
    [
        ("squared", "mean", 2.125),
        ("squared", "sum", 4.25),
        ("absolute", "mean", 1.25),
        ("absolute", "sum", 2.5),
        ("smooth", "sum", 0.125 + 1.5),
    ],
)
def test_by_hand(norm, dimensions, error):
    prediction, action = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.0, 1.0]], requires_grad=True)
    actual = bc.action_error(prediction, action, norm, dimensions)
    assert actual.tolist() == [error]
    assert not actual.requires_grad


def test_both_conventions_for_padded_chunks():
    """Two chunks of three steps; three of the six steps are padding."""
    error = bc.action_error(torch.full((2, 3, 4), 2.0), torch.zeros(2, 3, 4), "absolute")
    is_pad = torch.tensor([[False, False, True], [False, True, True]])
    assert aggregate(error, ~is_pad, "token-mean").item() == 2.0  # over valid steps
    assert aggregate(error, ~is_pad, "token-sum-norm", length=6).item() == 1.0  # over all steps, padded ones as zeros


@pytest.mark.parametrize("dimensions", ["mean", "sum"])
def test_padding_never_matters(dimensions):
    prediction, action = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 3, 4)
    valid = torch.tensor([[1, 1, 0], [1, 0, 0]])
    first = aggregate(bc.action_error(prediction, action, dimensions=dimensions), valid, "token-mean")
    prediction[valid == 0] = 1e6
    second = aggregate(bc.action_error(prediction, action, dimensions=dimensions), valid, "token-mean")
    assert first.item() == second.item()


@settings(deadline=None, max_examples=50)
@given(share=st.floats(0, 1), bins=st.integers(1, 256), low=st.floats(-5, 4), width=st.floats(0.1, 5))
def test_a_binned_action_is_at_most_half_a_bin_away(share, bins, low, width):
    low_edge, high_edge = torch.tensor([low], dtype=torch.float64), torch.tensor([low + width], dtype=torch.float64)
    action = low_edge + share * (high_edge - low_edge)
    index = bc.discretise(action, low_edge, high_edge, bins)
    assert 0 <= index.item() < bins
    centre = bc.bin_centre(index, low_edge, high_edge, bins)
    assert abs((centre - action).item()) <= width / bins / 2 + 1e-9
    assert bc.discretise(centre, low_edge, high_edge, bins).item() == index.item()


def test_bins_by_hand():
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 10.0])
    action = torch.tensor([[-1.0, 10.0], [0.1, 2.4], [-7.0, 99.0]])
    index = bc.discretise(action, low, high, 4)
    assert index.tolist() == [[0, 3], [2, 0], [0, 3]]
    assert bc.bin_centre(index, low, high, 4)[1].tolist() == [0.25, 1.25]


def test_the_cross_entropy_of_bins_is_summed_over_dimensions():
    logits = torch.zeros(2, 3, 4)
    logits[0, 1, 2] = math.log(3)  # probability 3 / 6
    index = torch.tensor([[0, 2, 0], [0, 0, 0]])
    loss = bc.discretised_cross_entropy(logits, index)
    torch.testing.assert_close(loss, torch.tensor([2 * math.log(4) + math.log(2), 3 * math.log(4)]))


def test_focal_by_hand_and_its_limit():
    logits, index = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([0])  # p = 3 / 4
    assert bc.focal(logits, index).item() == pytest.approx(-(0.25**2) * math.log(0.75))
    expected = torch.nn.functional.cross_entropy(logits, index, reduction="none")
    torch.testing.assert_close(bc.focal(logits, index, focus=0.0), expected)
    sure = torch.tensor([[200.0, 0.0]], requires_grad=True)
    loss = bc.focal(sure, index)
    assert loss.item() == 0
    assert torch.isfinite(torch.autograd.grad(loss.sum(), sure)[0]).all()


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="agree"):
        bc.action_error(torch.zeros(4, 2), torch.zeros(4, 1, 2))
    with pytest.raises(UsageError, match="norm"):
        bc.action_error(torch.zeros(1), torch.zeros(1), "cubed")
    with pytest.raises(UsageError, match="dimensions"):
        bc.action_error(torch.zeros(1), torch.zeros(1), dimensions="max")
    with pytest.raises(UsageError, match="high above low"):
        bc.discretise(torch.zeros(1), torch.zeros(1), torch.zeros(1), 4)
    with pytest.raises(UsageError, match="focus"):
        bc.focal(torch.zeros(1, 2), torch.tensor([0]), -1.0)
