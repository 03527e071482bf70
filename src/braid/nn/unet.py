"""The 1-D convolutional denoiser of action chunks: a U-Net over time whose features are modulated by the condition."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from braid.errors import UsageError
from braid.nn.denoisers import flat_condition
from braid.nn.embeddings import LevelEmbedding
from braid.nn.initialisation import seeded_by


class _Convolution(nn.Module):
    """Convolution over time, group norm, Mish: [B, C, H] -> [B, C', H]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(groups, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.mish(self.norm(self.convolution(x)))


class _Residual(nn.Module):
    """Two convolutions beside a residual; the condition scales and shifts what is between them (FiLM)."""

    def __init__(self, inputs: int, outputs: int, condition: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.first = _Convolution(inputs, outputs, kernel, groups)
        self.second = _Convolution(outputs, outputs, kernel, groups)
        self.modulation = nn.Linear(condition, 2 * outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(F.mish(condition)).unsqueeze(-1).chunk(2, dim=1)
        return self.second(scale * self.first(x) + shift) + self.shortcut(x)


class UNetDenoiser(nn.Module):
    """A U-Net over the time axis of the chunk, called like the other denoisers (see ``denoisers``).

    Args:
        horizon: H, a multiple of 2^(len(widths) - 1).
        action_size: A.
        history: O.
        observation_size: S.
        widths: channels of every level, each a multiple of ``groups``; time is halved between levels.
        generator: on the CPU; decides the initial weights.
        goals: G, goal observations; 0 for none.
        level_width: of the embedded level, even, at least 4.
        level_scale: see ``LevelEmbedding``.
        kernel: odd, steps that a convolution sees.
        groups: of the group norms.

    Raises:
        UsageError: a horizon that cannot be halved often enough, a width that the groups do not divide, an even kernel.

    Source: Diffusion Policy, arXiv 2303.04137; real-stanford/diffusion_policy ``ConditionalUnet1D``.
    """

    def __init__(
        self,
        horizon: int,
        action_size: int,
        history: int,
        observation_size: int,
        widths: Sequence[int] = (256, 512, 1024),
        *,
        generator: torch.Generator,
        goals: int = 0,
        level_width: int = 128,
        level_scale: float = 1.0,
        kernel: int = 5,
        groups: int = 8,
    ) -> None:
        super().__init__()
        if not widths or any(width < 1 or width % groups for width in widths):
            raise UsageError(f"widths={tuple(widths)} must be multiples of groups={groups}, one or more")
        if horizon % 2 ** (len(widths) - 1):
            raise UsageError(
                f"horizon={horizon} must be a multiple of {2 ** (len(widths) - 1)} for {len(widths)} levels; "
                "lengthen the chunk or leave out a width"
            )
        if kernel % 2 == 0:
            raise UsageError(f"kernel={kernel} must be odd")
        self.goals = goals
        self.level = LevelEmbedding(level_width, generator=generator, scale=level_scale)
        condition = level_width + (history + goals) * observation_size

        def pair(inputs: int, outputs: int) -> nn.ModuleList:
            return nn.ModuleList(_Residual(a, outputs, condition, kernel, groups) for a in (inputs, outputs))

        with seeded_by(generator):
            self.down = nn.ModuleList(pair(a, b) for a, b in pairwise([action_size, *widths]))
            self.downsample = nn.ModuleList(nn.Conv1d(width, width, 3, stride=2, padding=1) for width in widths[:-1])
            self.middle = pair(widths[-1], widths[-1])
            # What comes from below stands beside the features of the same level on the way down.
            self.up = nn.ModuleList(pair(2 * b, a) for a, b in pairwise(widths))
            self.upsample = nn.ModuleList(
                nn.ConvTranspose1d(width, width, 4, stride=2, padding=1) for width in widths[:-1]
            )
            self.last = _Convolution(widths[0], widths[0], kernel, groups)
            self.head = nn.Conv1d(widths[0], action_size, 1)

    def forward(self, noisy: Tensor, level: Tensor, observation: Tensor, goal: Tensor | None = None) -> Tensor:
        """[B, H, A]; see ``denoisers`` for the arguments."""
        condition = torch.cat([self.level(level), flat_condition(observation, goal, self.goals)], dim=-1)
        x = noisy.transpose(1, 2)
        skipped = []
        for index, blocks in enumerate(self.down):
            x = _through(blocks, x, condition)
            skipped.append(x)
            if index < len(self.downsample):
                x = self.downsample[index](x)
        x = _through(self.middle, x, condition)
        for index in reversed(range(len(self.up))):
            x = _through(self.up[index], torch.cat([x, skipped[index + 1]], dim=1), condition)
            x = self.upsample[index](x)
        output: Tensor = self.head(self.last(x))
        return output.transpose(1, 2)


def _through(blocks: nn.Module, x: Tensor, condition: Tensor) -> Tensor:
    for block in blocks.children():
        x = block(x, condition)
    return x
