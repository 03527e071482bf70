"""Policies as networks: what they say of an action, and how one is drawn.

An actor wraps any network that maps observations [..., S] to the numbers it needs, so that encoders and perceptrons
fit alike. Actions are [..., A]. ``sample`` draws with a given generator and keeps the gradient from the action to the
weights where there is one (reparameterisation); ``mode`` is what a deterministic evaluation executes.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from braid.errors import UsageError, unknown_name
from braid.losses import divergences, gaussian

Std = Literal["free", "dependent"]
Bounding = Literal["clip", "tanh"]


class DeterministicActor(nn.Module):
    """The action limit * tanh(network(s)).

    Args:
        network: [..., S] -> [..., A].
        limit: largest action in every dimension, above 0.

    Raises:
        UsageError: a limit that is not positive.
    """

    def __init__(self, network: nn.Module, limit: float = 1.0) -> None:
        super().__init__()
        if not limit > 0:
            raise UsageError(f"limit={limit} must be above 0")
        self.network, self.limit = network, limit

    def forward(self, observation: Tensor) -> Tensor:
        """The action, [..., A] in [-limit, limit], of [..., S]."""
        return self.limit * torch.tanh(self.network(observation))


class GaussianActor(nn.Module):
    """A diagonal Gaussian over actions, not squashed: its samples may leave the action space and be clipped there.

    Args:
        network: [..., S] -> [..., A] with a free std, [..., 2 A] (means, then log-stds) with a dependent one.
        action_size: A.
        std: ``free`` is one learned log-std for each dimension, equal in all states; ``dependent`` is the network's.
        squash_mean: whether the mean is tanh of the network's (IQL).
        log_std_bounds: log-stds are clipped to this range.
        initial_log_std: of a free std.

    Raises:
        UsageError: an unknown kind of std, or bounds that are not in order.
    """

    def __init__(
        self,
        network: nn.Module,
        action_size: int,
        std: Std = "free",
        squash_mean: bool = False,
        log_std_bounds: tuple[float, float] = (-5.0, 2.0),
        initial_log_std: float = 0.0,
    ) -> None:
        super().__init__()
        if std not in get_args(Std):
            raise unknown_name("std", std, get_args(Std))
        _check_bounds(log_std_bounds)
        self.network, self.squash_mean, self.log_std_bounds = network, squash_mean, log_std_bounds
        self.log_std = nn.Parameter(torch.full((action_size,), initial_log_std)) if std == "free" else None

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std, [..., A] each, of [..., S]."""
        output = self.network(observation)
        mean, log_std = output.chunk(2, dim=-1) if self.log_std is None else (output, self.log_std.expand_as(output))
        return torch.tanh(mean) if self.squash_mean else mean, log_std.clamp(*self.log_std_bounds)

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """The log-density, [...] nats, of actions [..., A]."""
        return gaussian.log_prob(action, *self(observation))

    def sample(self, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """An action [..., A] and its log-density [...]."""
        mean, log_std = self(observation)
        action = _reparameterised(mean, log_std, generator)
        return action, gaussian.log_prob(action, mean, log_std)

    def mode(self, observation: Tensor) -> Tensor:
        """The mean, [..., A]."""
        mean: Tensor = self(observation)[0]
        return mean


class SquashedGaussianActor(nn.Module):
    """The action tanh(u) of a diagonal Gaussian u; densities are over (-1, 1)^A.

    Args:
        network: [..., S] -> [..., 2 A], means and log-stds of u.
        log_std_bounds: range of the log-stds.
        bounding: ``clip`` clips to the range (SAC, EDAC), ``tanh`` maps all numbers smoothly into it (SS-ORL).
        log_std_offset: added before bounding (CQL: -1).

    Raises:
        UsageError: an unknown bounding, or bounds that are not in order.
    """

    def __init__(
        self,
        network: nn.Module,
        log_std_bounds: tuple[float, float] = (-5.0, 2.0),
        bounding: Bounding = "clip",
        log_std_offset: float = 0.0,
    ) -> None:
        super().__init__()
        if bounding not in get_args(Bounding):
            raise unknown_name("bounding", bounding, get_args(Bounding))
        _check_bounds(log_std_bounds)
        self.network, self.log_std_bounds = network, log_std_bounds
        self.bounding, self.log_std_offset = bounding, log_std_offset

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-std of u, [..., A] each, of [..., S]."""
        mean, raw = self.network(observation).chunk(2, dim=-1)
        raw, (low, high) = raw + self.log_std_offset, self.log_std_bounds
        return mean, raw.clamp(low, high) if self.bounding == "clip" else low + 0.5 * (high - low) * (raw.tanh() + 1)

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """The log-density, [...] nats, of recorded actions [..., A] in [-1, 1]."""
        return gaussian.squashed_log_prob_of_action(action, *self(observation))

    def sample(self, observation: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """An action [..., A] and its log-density [...], finite even where tanh rounds to 1."""
        mean, log_std = self(observation)
        pre_tanh = _reparameterised(mean, log_std, generator)
        return torch.tanh(pre_tanh), gaussian.squashed_log_prob(pre_tanh, mean, log_std)

    def mode(self, observation: Tensor) -> Tensor:
        """tanh of the mean, [..., A] (the median of the law)."""
        return torch.tanh(self(observation)[0])


class GaussianMixtureActor(nn.Module):
    """A mixture of M diagonal Gaussians with means in (-1, 1), for demonstrations that do one thing or another.

    Args:
        network: [..., S] -> [..., M (1 + 2 A)]: logits, means before tanh, stds before softplus.
        action_size: A.
        components: M.
        smallest_std: added to every std, above 0.

    Raises:
        UsageError: a smallest std that is not positive.
    """

    def __init__(self, network: nn.Module, action_size: int, components: int = 5, smallest_std: float = 1e-4) -> None:
        super().__init__()
        if not smallest_std > 0:
            raise UsageError(f"smallest_std={smallest_std} must be above 0")
        self.network, self.action_size = network, action_size
        self.components, self.smallest_std = components, smallest_std

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [..., M], means and log-stds [..., M, A] each, of [..., S]."""
        output = self.network(observation)
        logits, rest = output[..., : self.components], output[..., self.components :]
        mean, raw = rest.unflatten(-1, (2, self.components, self.action_size)).unbind(dim=-3)
        return logits, torch.tanh(mean), (F.softplus(raw) + self.smallest_std).log()

    def log_prob(self, observation: Tensor, action: Tensor) -> Tensor:
        """The log-density, [...] nats, of actions [..., A]."""
        return gaussian.mixture_log_prob(action, *self(observation))

    def sample(self, observation: Tensor, generator: torch.Generator, std: float | None = None) -> Tensor:
        """An action [..., A] of a component drawn by its weight; no gradient.

        Args:
            observation: [..., S].
            generator: of the component and the noise.
            std: replaces that of the component (robomimic evaluates with 1e-4); None keeps it.

        Returns:
            [..., A].
        """
        with torch.no_grad():
            logits, mean, log_std = self(observation)
            chosen = _draw(logits, generator)[..., None, None].expand(*logits.shape[:-1], 1, self.action_size)
            own = log_std.gather(-2, chosen).squeeze(-2)
            spread = own if std is None else torch.full_like(own, math.log(std))
            return _reparameterised(mean.gather(-2, chosen).squeeze(-2), spread, generator)


class CategoricalActor(nn.Module):
    """A policy over A discrete actions; actions are int64 [...].

    Args:
        network: [..., S] -> [..., A], logits.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, observation: Tensor, allowed: Tensor | None = None) -> Tensor:
        """The logits.

        Args:
            observation: [..., S].
            allowed: [..., A] bool, at least one True in every row; None allows all.

        Returns:
            [..., A], -inf for actions that are not allowed.
        """
        logits: Tensor = self.network(observation)
        return logits if allowed is None else logits.masked_fill(~allowed, -torch.inf)

    def log_prob(self, observation: Tensor, action: Tensor, allowed: Tensor | None = None) -> Tensor:
        """The log-probability, [...] nats, of actions [...]."""
        log_softmax = torch.log_softmax(self(observation, allowed), dim=-1)
        return log_softmax.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, observation: Tensor, allowed: Tensor | None = None) -> Tensor:
        """The entropy, [...] nats."""
        return divergences.entropy(self(observation, allowed))

    def sample(
        self, observation: Tensor, generator: torch.Generator, allowed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """An action [...] and its log-probability [...]; only the latter has a gradient."""
        logits = self(observation, allowed)
        action = _draw(logits, generator)
        return action, torch.log_softmax(logits, dim=-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def mode(self, observation: Tensor, allowed: Tensor | None = None) -> Tensor:
        """The likeliest action, [...] int64."""
        return self(observation, allowed).argmax(dim=-1)


def _reparameterised(mean: Tensor, log_std: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + log_std.exp() * noise


def _draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    probability = torch.softmax(logits.detach(), dim=-1)
    flat = probability.reshape(-1, probability.shape[-1])
    return torch.multinomial(flat, 1, generator=generator).reshape(probability.shape[:-1])


def _check_bounds(bounds: tuple[float, float]) -> None:
    if not bounds[0] < bounds[1]:
        raise UsageError(f"log_std_bounds={bounds} must be (low, high) with low below high")
