"""Scores of responses: the output embedding is applied to a bounded number of tokens at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from braid.losses.categorical import log_prob_and_entropy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGITS_BYTES = 64 * 2**20
"""The most that the float32 logits of one chunk of tokens may take."""


class Scores:
    """What a policy says of the responses in a batch; differentiable where the policy was asked to be.

    Logits are made when log-probabilities or entropies are first asked for, so ask before the weights change. Those of
    more than `LOGITS_BYTES` are made chunk by chunk and made again for the gradient; none of them is kept.

    Args:
        states: [M, H], from which the M tokens are predicted.
        head: float32 logits of states, [K, H] -> [K, V], divided by the temperature.
        vocabulary: V.
        tokens: [B, T].
        index: [M], where the tokens that are predicted stand in the flattened rows; ascending.
        value: [B, T], the critic's estimate before each token, or None.
    """

    def __init__(
        self,
        states: Tensor,
        head: Callable[[Tensor], Tensor],
        vocabulary: int,
        tokens: Tensor,
        index: Tensor,
        value: Tensor | None = None,
    ) -> None:
        self._states = states
        self._head = head
        self._chunk = max(1, LOGITS_BYTES // (4 * vocabulary))
        self._tokens = tokens
        self._index = index
        self._value = value
        self._differentiable = torch.is_grad_enabled()

    @property
    def log_prob(self) -> Tensor:
        """[B, T]: log-probability of each response token; 0 elsewhere."""
        return self._log_prob_and_entropy[0]

    @property
    def entropy(self) -> Tensor:
        """[B, T]: entropy (nats) of the distribution each response token was drawn from; 0 elsewhere."""
        return self._log_prob_and_entropy[1]

    @property
    def value(self) -> Tensor:
        """[B, T]: the critic's estimate before each response token was chosen."""
        if self._value is None:
            raise ValueError("this policy was scored without a critic; set needs_critic on the method")
        return self._value

    def logits_at(self, mask: Tensor) -> Tensor:
        """[K, V]: logits that predict the K tokens where `mask` [B, T], a part of the response mask, is True."""
        chosen = mask.flatten()[self._index]
        with torch.set_grad_enabled(self._differentiable):
            return self._logits[chosen] if self._is_small else self._head(self._states[chosen])

    @property
    def _is_small(self) -> bool:
        return len(self._states) <= self._chunk

    @cached_property
    def _logits(self) -> Tensor:
        return self._head(self._states)

    @cached_property
    def _log_prob_and_entropy(self) -> tuple[Tensor, Tensor]:
        targets = self._tokens.flatten()[self._index]
        with torch.set_grad_enabled(self._differentiable):
            if self._is_small:
                log_prob, entropy = log_prob_and_entropy(self._logits, targets)
            else:
                pairs = zip(self._states.split(self._chunk), targets.split(self._chunk), strict=True)
                parts = [self._read_chunk(*pair) for pair in pairs]
                log_prob, entropy = (torch.cat(values) for values in zip(*parts, strict=True))
            return place(log_prob, self._index, self._tokens), place(entropy, self._index, self._tokens)

    def _read_chunk(self, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        def read(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            return log_prob_and_entropy(self._head(states), targets)

        if not self._differentiable:
            return read(states, targets)
        return checkpoint(read, states, targets, use_reentrant=False)


def place(values: Tensor, index: Tensor, tokens: Tensor) -> Tensor:
    """Values [M] at their places `index` [M] in the flattened rows, 0 elsewhere: [B, T] like `tokens`."""
    return values.new_zeros(tokens.numel()).scatter(0, index, values).view_as(tokens)


def has_plain_head(model: PreTrainedModel) -> bool:
    """Whether a causal language model's logits are its output embedding of its decoder's last state, and nothing else.

    The model reads four tokens while its output embedding is made to answer something known. Models that scale or cap
    their logits change the answer, whatever their weights; models that scale the state give the embedding another one.

    Args:
        model: in evaluation mode, so that nothing is drawn at random.
    """
    seen: list[Tensor] = []
    answers: list[Tensor] = []

    def answer(head: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        seen.append(inputs[0])
        answers.append(torch.linspace(-100, 100, output.numel()).view(output.shape).to(output))
        return answers[-1]

    try:
        head = model.get_output_embeddings()
        tokens = torch.arange(4, device=model.device).remainder(model.config.get_text_config().vocab_size).unsqueeze(0)
        with torch.no_grad():
            state = model.get_decoder()(input_ids=tokens, use_cache=False).last_hidden_state
            handle = head.register_forward_hook(answer)
            try:
                logits = model(input_ids=tokens, use_cache=False).logits
            finally:
                handle.remove()
    except Exception:  # code that comes with a checkpoint may lack, or call otherwise, any of these
        return False
    return (
        len(seen) == 1
        and state.shape == seen[0].shape
        and torch.equal(logits.float(), answers[0].float())
        and float((state - seen[0]).norm()) <= 1e-2 * float(state.norm())
    )
