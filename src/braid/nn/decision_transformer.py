"""The decision transformer: actions as the continuation of (return, observation, action) tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from braid.errors import UsageError
from braid.nn.initialisation import seeded_by
from braid.nn.mlp import Activation
from braid.nn.transformer import CausalTransformer, causal_mask, small_normal


class DecisionTransformer(nn.Module):
    """A causal transformer over (g_1, s_1, a_1, g_2, s_2, a_2, ...); the action is read where its observation stands.

    g is what is still to be earned (or, in Dichotomy of Control, the reward of the step before). All three tokens of a
    step carry the embedding of its time in the episode, so padding may lie at either end of the window.

    Args:
        observation_size: S.
        action_size: A.
        longest_episode: time steps are in [0, longest_episode).
        generator: on the CPU; decides the initial weights.
        width: of the tokens, a multiple of ``heads``.
        layers: number of blocks.
        heads: of each block.
        dropout: on embeddings, residual branches and attention weights, in [0, 1).
        activation: of the blocks' perceptrons.
        squash: whether actions pass through tanh (continuous actions in [-1, 1]); False for logits.

    Raises:
        UsageError: a size below 1, or as ``CausalTransformer``.

    Source: arXiv 2106.01345; corl-team/CORL ``dt.py``.
    """

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        longest_episode: int,
        *,
        generator: torch.Generator,
        width: int = 128,
        layers: int = 3,
        heads: int = 1,
        dropout: float = 0.1,
        activation: Activation = "gelu",
        squash: bool = True,
    ) -> None:
        super().__init__()
        if min(observation_size, action_size, longest_episode) < 1:
            raise UsageError(
                f"observation_size={observation_size}, action_size={action_size} and "
                f"longest_episode={longest_episode} must be at least 1"
            )
        self.squash = squash
        self.transformer = CausalTransformer(
            width,
            layers,
            heads,
            generator=generator,
            dropout=dropout,
            attention_dropout=dropout,
            activation=activation,
        )
        with seeded_by(generator):
            embeddings = {
                "time": nn.Embedding(longest_episode, width),
                "return_to_go": nn.Linear(1, width),
                "observation": nn.Linear(observation_size, width),
                "action": nn.Linear(action_size, width),
            }
            self.embeddings = nn.ModuleDict(embeddings)
            self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
            self.head = nn.Linear(width, action_size)
            small_normal(self.embeddings)
            small_normal(self.head)

    def encode(self, return_to_go: Tensor, observation: Tensor, action: Tensor, time: Tensor, valid: Tensor) -> Tensor:
        """The last layer's tokens of every step.

        Args:
            return_to_go: [B, K], scaled.
            observation: [B, K, S].
            action: [B, K, A]; the last one is not seen by the prediction of itself, so it may be zeros when acting.
            time: [B, K] int64, step within the episode.
            valid: [B, K] bool, False on padding, which may hold any finite numbers and times in range.

        Returns:
            [B, K, 3, width]: the tokens of return, observation and action; without meaning on padding.
        """
        when = self.embeddings["time"](time)
        tokens = torch.stack(
            [
                self.embeddings["return_to_go"](return_to_go.unsqueeze(-1)) + when,
                self.embeddings["observation"](observation) + when,
                self.embeddings["action"](action) + when,
            ],
            dim=2,
        )
        flat = self.dropout(self.norm(tokens.flatten(1, 2)))
        mask = causal_mask(valid.repeat_interleave(3, dim=1))
        encoded: Tensor = self.transformer(flat, mask).unflatten(1, (-1, 3))
        return encoded

    def forward(self, return_to_go: Tensor, observation: Tensor, action: Tensor, time: Tensor, valid: Tensor) -> Tensor:
        """The action of every step, from what came before it.

        Args:
            return_to_go: see ``encode``.
            observation: see ``encode``.
            action: see ``encode``.
            time: see ``encode``.
            valid: see ``encode``.

        Returns:
            [B, K, A]; without meaning on padding.
        """
        predicted: Tensor = self.head(self.encode(return_to_go, observation, action, time, valid)[:, :, 1])
        return torch.tanh(predicted) if self.squash else predicted
