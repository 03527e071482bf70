"""Networks that tell the noise (or sample, or velocity) in a chunk of actions, given observations and a goal.

All denoisers, ``unet`` included, are called alike: ``denoiser(noisy, level, observation, goal)`` with noisy actions
[B, H, A], levels [B], an observation history [B, O, S], and goals [B, G, S] of one or more goal observations where the
denoiser was made for them. What the output means is the loss's affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from braid.errors import UsageError, unknown_name
from braid.nn.embeddings import LevelEmbedding
from braid.nn.initialisation import seeded_by
from braid.nn.mlp import MLP, Activation
from braid.nn.transformer import CausalTransformer, small_normal

DropUnit = Literal["sample", "feature"]


def drop_goal(goal: Tensor, probability: float, generator: torch.Generator, unit: DropUnit = "sample") -> Tensor:
    """Goals of which some are replaced by zeros, the input that stands for "no goal".

    Args:
        goal: [B, G, S].
        probability: of being dropped, in [0, 1].
        generator: on the device of ``goal``.
        unit: ``sample`` drops whole goals, as classifier-free guidance needs; ``feature`` drops single numbers, as
            BESO's released code does.

    Returns:
        [B, G, S]; what is kept is not rescaled.

    Raises:
        UsageError: a probability outside [0, 1], or an unknown unit.

    Source: arXiv 2207.12598; BESO, arXiv 2304.02532.
    """
    if not 0 <= probability <= 1:
        raise UsageError(f"probability={probability} must lie in [0, 1]")
    if unit not in get_args(DropUnit):
        raise unknown_name("unit", unit, get_args(DropUnit))
    shape = (goal.shape[0], *[1] * (goal.dim() - 1)) if unit == "sample" else goal.shape
    kept = torch.rand(shape, generator=generator, device=goal.device) >= probability
    return torch.where(kept, goal, torch.zeros_like(goal))


def flat_condition(observation: Tensor, goal: Tensor | None, goals: int) -> Tensor:
    """The history and the goals as one vector for each sample.

    Args:
        observation: [B, O, S].
        goal: [B, G, S], or None.
        goals: G that the network was made for; 0 for none.

    Returns:
        [B, (O + G) S].

    Raises:
        UsageError: a goal that is missing, not asked for, or of another length.
    """
    check_goal(goal, goals)
    flat = observation.flatten(1)
    return flat if goal is None else torch.cat([flat, goal.flatten(1)], dim=-1)


def check_goal(goal: Tensor | None, goals: int) -> None:
    """Refuse a goal that is missing, not asked for, or of another length.

    Args:
        goal: [B, G, S], or None.
        goals: G that the network was made for; 0 for none.

    Raises:
        UsageError: says which.
    """
    given = 0 if goal is None else goal.shape[1]
    if given != goals:
        raise UsageError(
            f"the denoiser was made for {goals} goal observations and got {given}; zeros stand for no goal"
        )


class MLPDenoiser(nn.Module):
    """A perceptron over the noisy chunk, the embedded level, the history and the goals, all flattened.

    Args:
        horizon: H.
        action_size: A.
        history: O.
        observation_size: S.
        hidden: widths of the hidden layers.
        generator: on the CPU; decides the initial weights.
        goals: G, goal observations; 0 for none.
        level_width: of the embedded level, even, at least 4.
        level_scale: see ``LevelEmbedding``.
        activation: of the hidden layers.
    """

    def __init__(
        self,
        horizon: int,
        action_size: int,
        history: int,
        observation_size: int,
        hidden: Sequence[int] = (256, 256, 256),
        *,
        generator: torch.Generator,
        goals: int = 0,
        level_width: int = 32,
        level_scale: float = 1.0,
        activation: Activation = "mish",
    ) -> None:
        super().__init__()
        self.goals = goals
        self.level = LevelEmbedding(level_width, generator=generator, scale=level_scale)
        chunk = horizon * action_size
        inputs = chunk + level_width + (history + goals) * observation_size
        self.network = MLP(inputs, hidden, chunk, generator=generator, activation=activation)

    def forward(self, noisy: Tensor, level: Tensor, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        """[B, H, A]; see the module for the arguments."""
        condition = flat_condition(observation, goal, self.goals)
        output = self.network(torch.cat([noisy.flatten(1), self.level(level), condition], dim=-1))
        return output.reshape(noisy.shape)


class TransformerDenoiser(nn.Module):
    """A causal transformer over the level, the goals, the observations and the noisy actions.

    With ``interleaved`` the window pairs every observation with its action (O = H) and the tokens are level, goals,
    s_1, a_1, s_2, a_2, ...: BESO's order, in which the output at a_t knows of nothing after it. Otherwise they are
    level, goals, s_1 .. s_O, a_1 .. a_H: a chunk after a history. Goals and observations share one embedding; s_t and
    a_t of an interleaved window share one position; the level has none.

    Args:
        horizon: H.
        action_size: A.
        history: O; equal to ``horizon`` if interleaved.
        observation_size: S.
        generator: on the CPU; decides the initial weights.
        goals: G, goal observations; 0 for none.
        interleaved: the order of the tokens.
        width: of the tokens, a multiple of ``heads``.
        layers: number of blocks.
        heads: of each block.
        dropout: on embeddings and residual branches, in [0, 1).
        attention_dropout: on attention weights, in [0, 1).
        level_scale: levels are multiplied by it before their sinusoidal embedding; None embeds the number linearly, as
            BESO does with log(sigma) / 4.

    Raises:
        UsageError: an interleaved window with O different from H, or as ``CausalTransformer``.

    Source: BESO, arXiv 2304.02532; Diffusion Policy, arXiv 2303.04137.
    """

    def __init__(
        self,
        horizon: int,
        action_size: int,
        history: int,
        observation_size: int,
        *,
        generator: torch.Generator,
        goals: int = 0,
        interleaved: bool = False,
        width: int = 128,
        layers: int = 3,
        heads: int = 4,
        dropout: float = 0.05,
        attention_dropout: float = 0.3,
        level_scale: float | None = 1.0,
    ) -> None:
        super().__init__()
        if interleaved and history != horizon:
            raise UsageError(
                f"an interleaved window pairs observations with actions: history={history}, horizon={horizon}"
            )
        self.goals, self.interleaved, self.linear_level = goals, interleaved, level_scale is None
        positions = goals + (horizon if interleaved else history + horizon)
        self.transformer = CausalTransformer(
            width, layers, heads, generator=generator, dropout=dropout, attention_dropout=attention_dropout
        )
        self.level: nn.Module
        if level_scale is not None:
            self.level = LevelEmbedding(width, generator=generator, scale=level_scale)
        with seeded_by(generator):
            if level_scale is None:
                self.level = nn.Linear(1, width)
            self.observation, self.action = nn.Linear(observation_size, width), nn.Linear(action_size, width)
            self.position = nn.Embedding(positions, width)
            self.dropout, self.head = nn.Dropout(dropout), nn.Linear(width, action_size)
            for part in (self.level, self.observation, self.action, self.position, self.head):
                small_normal(part)

    def forward(self, noisy: Tensor, level: Tensor, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        """[B, H, A]; see the module for the arguments. A window shorter than H and O is allowed at its start."""
        check_goal(goal, self.goals)
        history, horizon = observation.shape[1], noisy.shape[1]
        position = self.position.weight
        seen = self.observation(observation) + position[self.goals : self.goals + history]
        first = self.goals if self.interleaved else self.goals + history
        acted = self.action(noisy) + position[first : first + horizon]
        window = (
            torch.stack([seen, acted], dim=2).flatten(1, 2) if self.interleaved else torch.cat([seen, acted], dim=1)
        )
        prefix = [self.level(level.unsqueeze(-1) if self.linear_level else level).unsqueeze(1)]
        if goal is not None:
            prefix.append(self.observation(goal) + position[: self.goals])
        encoded = self.transformer(self.dropout(torch.cat([*prefix, window], dim=1)))
        output: Tensor = self.head(encoded[:, -2 * horizon + 1 :: 2] if self.interleaved else encoded[:, -horizon:])
        return output
