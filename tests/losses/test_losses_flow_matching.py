"""Flow matching and guidance."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses import flow_matching as fm


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_ends_of_the_path():
    sample, noise = draw(0, 2, 3), draw(1, 2, 3)
    points = fm.interpolate(sample, noise, torch.tensor([0.0, 1.0]).double())
    torch.testing.assert_close(points, torch.stack([noise[0], sample[1]]))


def test_the_exact_velocity_of_one_point_reaches_it_in_one_step():
    point, noise = draw(0, 1, 4).expand(5, 4), draw(1, 5, 4)
    velocity = point - noise
    assert fm.flow_matching(velocity, point, noise).max() == 0
    torch.testing.assert_close(noise + velocity, point)
    torch.testing.assert_close(fm.flow_matching(velocity + 2, point, noise), torch.full((5, 4), 4.0).double())


@settings(deadline=None, max_examples=30)
@given(time=st.floats(0.02, 0.98), seed=st.integers(0, 99))
def test_velocity_and_score_are_one_another(time, seed):
    sample, noise = draw(seed, 1, 2, 3), draw(seed + 100, 1, 2, 3)
    u = torch.tensor([time], dtype=torch.float64)
    point = fm.interpolate(sample, noise, u)
    velocity = sample - noise
    torch.testing.assert_close(fm.sample_from_velocity(velocity, point, u), sample)
    torch.testing.assert_close(fm.noise_from_velocity(velocity, point, u), noise)
    score = fm.score_from_velocity(velocity, point, u)
    torch.testing.assert_close(score, -noise / (1 - time))
    torch.testing.assert_close(fm.velocity_from_score(score, point, u), velocity)


def test_mixing_velocities_is_mixing_scores():
    point, first, second = draw(0, 4, 2), draw(1, 4, 2), draw(2, 4, 2)
    u = torch.linspace(0.1, 0.9, 4, dtype=torch.float64)
    mixed = fm.score_from_velocity(0.3 * first + 0.7 * second, point, u)
    expected = 0.3 * fm.score_from_velocity(first, point, u) + 0.7 * fm.score_from_velocity(second, point, u)
    torch.testing.assert_close(mixed, expected)


def test_the_score_of_a_gaussian():
    """Data N(0, 1): the points at time u are N(0, u^2 + (1-u)^2), whose score is -x over that variance."""
    u = torch.tensor([0.3], dtype=torch.float64)
    point = torch.tensor([[0.8]], dtype=torch.float64)
    variance = 0.3**2 + 0.7**2
    velocity = (0.3 - 0.7) / variance * point  # E[sample - noise | point]
    torch.testing.assert_close(fm.score_from_velocity(velocity, point, u), -point / variance)


def test_guidance():
    conditional, unconditional = draw(0, 3), draw(1, 3)
    torch.testing.assert_close(fm.guided(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(fm.guided(conditional, unconditional, 0.0), unconditional)
    middle = (fm.guided(conditional, unconditional, 1.5) + fm.guided(conditional, unconditional, 2.5)) / 2
    torch.testing.assert_close(fm.guided(conditional, unconditional, 2.0), middle)


def test_gradients_reach_the_network_alone_and_shapes_are_checked():
    output, sample = torch.zeros(1, 2, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    loss = fm.flow_matching(output, sample, torch.zeros(1, 2))
    assert torch.autograd.grad(loss.sum(), sample, allow_unused=True, retain_graph=True) == (None,)
    assert torch.autograd.grad(loss.sum(), output)[0].tolist() == [[-2.0, -2.0]]
    with pytest.raises(UsageError, match="same shape"):
        fm.flow_matching(torch.zeros(2, 1), torch.zeros(2, 1, 1), torch.zeros(2, 1, 1))
