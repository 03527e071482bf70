"""The model's side of decoding: a cache, and the logits of the next token of every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from braid.errors import UsageError

if TYPE_CHECKING:
    from braid.policies.causal import CausalPolicy


class Decoder:
    """N = P x group_size rows that grow by one token at a time.

    Prompts are padded on the left and read once; each member of a group then gets a copy of the cache.

    Args:
        policy: whose model decodes; inside its `precision()`.
        prompts: P lists of token ids.
        group_size: rows per prompt.
        max_new_tokens: the longest response.
        blocks: the model wants its rows in so many equal blocks; those that are kept are as many of each.

    Attributes:
        logits: [N, V], of the next token of every row.

    Raises:
        UsageError: the model has recurrent layers.
    """

    def __init__(
        self,
        policy: CausalPolicy,
        prompts: Sequence[Sequence[int]],
        group_size: int,
        max_new_tokens: int,
        blocks: int = 1,
    ) -> None:
        from braid.rollout.cache import decoding_cache  # transformers takes seconds to import

        self._model, self._blocks = policy.model, blocks
        self._width = max(len(prompt) for prompt in prompts)
        padding = [self._width - len(prompt) for prompt in prompts]
        rows = [[policy.pad_token_id] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
        limit = self._width + max_new_tokens
        start = torch.tensor(padding, device=policy.device).unsqueeze(-1)
        position = torch.arange(limit, device=policy.device) - start
        self._attention = position >= 0 if any(padding) else None  # [N, limit]
        self._cache = decoding_cache(policy.model.config, limit)
        self.logits = self._forward(
            torch.tensor(rows, device=policy.device), position[:, : self._width].clamp_min(0), logits_to_keep=1
        )
        if not all(hasattr(layer, "batch_repeat_interleave") for layer in self._cache.layers):
            raise UsageError(
                f"{policy.model.config.model_type} models carry a recurrent state, which cannot be shared by the "
                "responses to one prompt; use a model with attention in every layer"
            )
        self._position = position[:, self._width - 1]
        if group_size > 1:
            self._cache.batch_repeat_interleave(group_size)
            self._each_row(lambda x: x.repeat_interleave(group_size, dim=0))

    def advance(self, chosen: Tensor) -> None:
        """Append a token [N] to every row."""
        self._width += 1
        self._position = self._position + 1
        self.logits = self._forward(chosen.unsqueeze(-1), self._position.unsqueeze(-1))

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows of these indices only."""
        self._cache.batch_select_indices(rows)
        self._each_row(lambda x: x[rows])

    def _each_row(self, change: Callable[[Tensor], Tensor]) -> None:
        self.logits, self._position = change(self.logits), change(self._position)
        if self._attention is not None:
            self._attention = change(self._attention)

    def _forward(self, tokens: Tensor, position: Tensor, **options: int) -> Tensor:
        output = self._model(
            input_ids=tokens,
            attention_mask=None if self._attention is None else self._attention[:, : self._width],
            position_ids=position,
            past_key_values=self._cache,
            use_cache=True,
            **options,
        )
        return output.logits[:, -1]
