"""Flow matching on the straight path from noise to data, its relation to scores, and guidance.

Time u runs from 0 (noise) to 1 (data): x_u = u x + (1 - u) noise. (pi0's released code runs it the other way.) Shapes
as in ``diffusion``; times are [B], one for each sample.
"""

from __future__ import annotations

from torch import Tensor

from braid.errors import UsageError
from braid.losses.diffusion import expand_level


def interpolate(sample: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The point u x + (1 - u) noise of the path.

    Args:
        sample: [B, ...].
        noise: [B, ...], standard normal.
        time: u, [B], in [0, 1].

    Returns:
        [B, ...].

    Source: arXiv 2210.02747, equation 22 with no noise left at the end; arXiv 2209.03003.
    """
    u = expand_level(time, sample)
    return u * sample + (1 - u) * noise


def flow_matching(output: Tensor, sample: Tensor, noise: Tensor) -> Tensor:
    """The squared error of a network's velocity on the path; the true one is sample - noise.

    Args:
        output: [B, ...], of the network for ``interpolate(sample, noise, time)``.
        sample: [B, ...]; detached.
        noise: [B, ...], the very noise at the start of the path; detached.

    Returns:
        [B, ...], not negative.

    Raises:
        UsageError: an output of another shape.

    Source: arXiv 2210.02747, equation 23; arXiv 2209.03003.
    """
    if output.shape != sample.shape:
        raise UsageError(f"output {tuple(output.shape)} and sample {tuple(sample.shape)} must have the same shape")
    return (output - (sample - noise).detach()).square()


def sample_from_velocity(velocity: Tensor, point: Tensor, time: Tensor) -> Tensor:
    """The end of the path, point + (1 - u) velocity.

    Args:
        velocity: [B, ...], at ``point``.
        point: [B, ...].
        time: u, [B], in [0, 1].

    Returns:
        [B, ...].

    Source: arXiv 2210.02747.
    """
    return point + (1 - expand_level(time, point)) * velocity


def noise_from_velocity(velocity: Tensor, point: Tensor, time: Tensor) -> Tensor:
    """The start of the path, point - u velocity.

    Args:
        velocity: [B, ...], at ``point``.
        point: [B, ...].
        time: u, [B], in [0, 1].

    Returns:
        [B, ...].

    Source: arXiv 2210.02747.
    """
    return point - expand_level(time, point) * velocity


def score_from_velocity(velocity: Tensor, point: Tensor, time: Tensor) -> Tensor:
    """The gradient of the log-density of the points at time u, -(start of the path) / (1 - u).

    Args:
        velocity: [B, ...], at ``point``.
        point: [B, ...].
        time: u, [B], in [0, 1).

    Returns:
        [B, ...].

    Source: GPC, arXiv 2510.01068.
    """
    return -noise_from_velocity(velocity, point, time) / (1 - expand_level(time, point))


def velocity_from_score(score: Tensor, point: Tensor, time: Tensor) -> Tensor:
    """The inverse of ``score_from_velocity``.

    Args:
        score: [B, ...], at ``point``.
        point: [B, ...].
        time: u, [B], in (0, 1]; at 0 the score says nothing of the data.

    Returns:
        [B, ...].

    Source: GPC, arXiv 2510.01068.
    """
    u = expand_level(time, point)
    return (point + (1 - u) * score) / u


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance, unconditional + scale (conditional - unconditional).

    It may mix noises, velocities, scores or denoised samples: anything linear in the score at a fixed point and level.

    Args:
        conditional: any shape, prediction given the goal.
        unconditional: same shape, prediction without it.
        scale: 0 ignores the goal, 1 is the conditional prediction, above 1 exaggerates the goal.

    Returns:
        The shape of ``conditional``.

    Source: arXiv 2207.12598; BESO, arXiv 2304.02532.
    """
    return unconditional + scale * (conditional - unconditional)
