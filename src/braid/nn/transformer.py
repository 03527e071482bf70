"""Pre-norm transformer blocks, and masks that say which tokens may look at which."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from braid.errors import UsageError
from braid.nn.initialisation import seeded_by
from braid.nn.mlp import Activation, activation_function


def causal_mask(valid: Tensor) -> Tensor:
    """Which token may look at which: those before it that are not padding, and itself.

    Padding may look at itself, so that no row of the attention is empty; its output means nothing.

    Args:
        valid: [B, L] bool, False on padding, wherever it lies.

    Returns:
        [B, 1, L, L] bool, True where the second-last index may look at the last.
    """
    length = valid.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=valid.device)
    return ((earlier & valid.unsqueeze(1)) | itself).unsqueeze(1)


class Block(nn.Module):
    """Self-attention, then a perceptron of four times the width, each behind a layer norm and beside a residual.

    Args:
        width: of the tokens, a multiple of ``heads``.
        heads: of the attention.
        dropout: on both residual branches, in [0, 1).
        attention_dropout: on the attention's weights, in [0, 1).
        activation: of the perceptron.
    """

    def __init__(
        self, width: int, heads: int, dropout: float, attention_dropout: float, activation: Activation
    ) -> None:
        super().__init__()
        self.heads, self.dropout, self.attention_dropout = heads, dropout, attention_dropout
        self._activate = activation_function(activation)
        self.attention_norm, self.perceptron_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.attention_output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """[B, L, width] of tokens [B, L, width]; a mask of None is causal without padding."""
        heads = self.query_key_value(self.attention_norm(tokens)).unflatten(-1, (3, self.heads, -1))
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=self.attention_dropout if self.training else 0.0,
            is_causal=mask is None,
        )
        branch = self.attention_output(attended.transpose(1, 2).flatten(2))
        tokens = tokens + F.dropout(branch, self.dropout, self.training)
        branch = self.contract(self._activate(self.expand(self.perceptron_norm(tokens))))
        return tokens + F.dropout(branch, self.dropout, self.training)


class CausalTransformer(nn.Module):
    """Transformer blocks and a final layer norm: [B, L, width] -> [B, L, width], each position seeing those before it.

    Weights start normal with std 0.02, biases at 0.

    Args:
        width: of the tokens, a multiple of ``heads``.
        layers: number of blocks, at least 1.
        heads: of each block.
        generator: on the CPU; decides the initial weights.
        dropout: on residual branches, in [0, 1).
        attention_dropout: on attention weights, in [0, 1).
        activation: of the blocks' perceptrons.

    Raises:
        UsageError: a width that the heads do not divide, or no layers.

    Source: arXiv 1706.03762; GPT-2's order of normalisation and initial weights.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        *,
        generator: torch.Generator,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        if layers < 1:
            raise UsageError(f"layers={layers} must be at least 1")
        if heads < 1 or width % heads:
            raise UsageError(f"heads={heads} does not divide width={width}")
        with seeded_by(generator):
            self.blocks = nn.ModuleList(
                Block(width, heads, dropout, attention_dropout, activation) for _ in range(layers)
            )
            self.norm = nn.LayerNorm(width)
            small_normal(self)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The last layer's tokens.

        Args:
            tokens: [B, L, width].
            mask: [B, 1, L, L] bool from ``causal_mask``; None where nothing is padding.

        Returns:
            [B, L, width].
        """
        for block in self.blocks:
            tokens = block(tokens, mask)
        normed: Tensor = self.norm(tokens)
        return normed


@torch.no_grad()
def small_normal(module: nn.Module) -> None:
    """Sets linear and embedding weights to a normal law of std 0.02 and biases to 0, from torch's global generator.

    Args:
        module: with everything below it.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)
