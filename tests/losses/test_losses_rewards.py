"""Reward shaping."""

import pytest
import torch

from braid.errors import UsageError
from braid.losses.rewards import soft_overlong


def test_soft_overlong_by_hand():
    length = torch.tensor([0, 80, 90, 100])
    torch.testing.assert_close(soft_overlong(length, 100, 20), torch.tensor([0.0, 0.0, -0.5, -1.0]))
    torch.testing.assert_close(soft_overlong(length, 100, 20, 0.4), torch.tensor([0.0, 0.0, -0.2, -0.4]))
    assert soft_overlong(length.double(), 100, 20).dtype == torch.float64


@pytest.mark.parametrize("buffer", [0, -5, 101])
def test_mistakes_are_named(buffer):
    with pytest.raises(UsageError, match="buffer"):
        soft_overlong(torch.tensor([1]), 100, buffer)
