"""The hidden states from which response tokens are predicted, with every prompt read once for all its responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WORTHWHILE = 0.9
"""Prompts are shared if that leaves at most this fraction of the positions to be read."""


class PromptLayer(DynamicLayer):
    """One layer's states of the prompts, which responses then see in front of their own.

    Attributes:
        prompt_of: [B], each response's prompt; None while the prompts are read.
    """

    keys: Tensor
    values: Tensor
    prompt_of: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keep the states of prompts; put those of its prompt before the states of each response."""
        if self.prompt_of is None:
            self.keys, self.values = key_states, value_states
            return key_states, value_states
        own = (key_states, value_states)
        keys, values = (
            torch.cat((states[self.prompt_of], new), dim=-2)
            for states, new in zip((self.keys, self.values), own, strict=True)
        )
        return keys, values


def predicting_states(model: PreTrainedModel, tokens: Tensor, predicted: Tensor, *, share: bool) -> Tensor:
    """[M, H]: the decoder's last hidden state before each of the M tokens that are predicted, row by row.

    Rows are padded on the right, so causal attention alone keeps padding out of every real position.

    Args:
        model: a causal language model with `get_decoder`.
        tokens: [B, T].
        predicted: [B, T] bool, False in the first column.
        share: what the rows have in common before their first predicted token may be read once for all of them.
    """
    if share and predicted.any():
        first = predicted.int().argmax(-1).clamp_min(1)  # where responses start
        longest = int(first.max())
        column = torch.arange(tokens.shape[-1], device=tokens.device)
        prompts, prompt_of = torch.unique(
            tokens[:, :longest].masked_fill(column[:longest] >= first.unsqueeze(-1), -1), dim=0, return_inverse=True
        )
        last = (predicted * column).amax(-1)
        width = max(0, int((last - first).max()))
        if prompts.numel() + len(tokens) * width <= WORTHWHILE * tokens.numel():
            return _shared(model, tokens, predicted, prompts.clamp_min(0), prompt_of, first, width)
    width = max(1, tokens.shape[-1] - 1)  # nothing follows the last column
    hidden = model.get_decoder()(input_ids=tokens[:, :width], use_cache=False).last_hidden_state
    return hidden[:, : tokens.shape[-1] - 1][predicted[:, 1:]]


def _shared(
    model: PreTrainedModel,
    tokens: Tensor,
    predicted: Tensor,
    prompts: Tensor,
    prompt_of: Tensor,
    first: Tensor,
    width: int,
) -> Tensor:
    cache = DynamicCache()
    layers = [PromptLayer() for _ in DynamicCache(config=model.config).layers]
    cache.layers = list(layers)
    decoder = model.get_decoder()
    read = decoder(input_ids=prompts, past_key_values=cache, use_cache=True).last_hidden_state
    states = read[prompt_of, first - 1].unsqueeze(1)
    place = torch.arange(width + 1, device=tokens.device)
    column = first.unsqueeze(-1) + place  # [B, width + 1], of the responses
    if width:
        for layer in layers:
            layer.prompt_of = prompt_of
        longest = prompts.shape[-1]
        lengths = first.unsqueeze(-1) if int(first.min()) < longest else first[:1].unsqueeze(-1)
        of_prompt = torch.arange(longest, device=tokens.device) < lengths  # [B or 1, longest]
        own = place[:width] <= place[:width].unsqueeze(-1)
        size = (len(of_prompt), 1, width, -1)
        mask = torch.cat((of_prompt[:, None, None].expand(size), own.expand(size)), dim=-1)
        position = column[:, :width]
        written = decoder(
            input_ids=tokens.gather(1, position.clamp_max(tokens.shape[-1] - 1)),
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        states = torch.cat((states, written), dim=1)
    inside = predicted.gather(1, column.clamp_max(tokens.shape[-1] - 1)) & (column < tokens.shape[-1])
    return states[inside]


def can_share_prompts(model: PreTrainedModel) -> bool:
    """Whether a model reads a response behind a prompt that was read before just as it reads both together.

    True of models that attend to everything before a token in every layer, without dropout; tried on four tokens.

    Args:
        model: in evaluation mode, so that nothing is drawn at random.
    """
    config = model.config.get_text_config()
    dropout = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    dropout += [getattr(config, name, 0.0) or 0.0 for name in ("attention_dropout", "attn_pdrop")]
    if any(dropout) or config._attn_implementation != "sdpa":
        return False
    try:
        if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
            return False
        tokens = torch.arange(15, device=model.device).remainder(config.vocab_size).view(3, 5)
        tokens[:, :2] = tokens[0, :2]
        tokens[2, 1] = tokens[2, 4]  # another prompt, and a shorter one
        predicted = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 1, 1]], device=model.device).bool()
        with torch.no_grad():
            apart = predicting_states(model, tokens, predicted, share=False)
            shared = predicting_states(model, tokens, predicted, share=True)
    except Exception:  # code that comes with a checkpoint may treat a cache in any way
        return False
    return float((apart - shared).norm()) <= 1e-2 * float(apart.norm())
