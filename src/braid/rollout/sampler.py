"""Batched decoding of causal language models: one prefill per prompt, finished sequences leave the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from braid.errors import UsageError
from braid.options import check_options, option

if TYPE_CHECKING:
    from transformers import DynamicCache

    from braid.policies.causal import CausalPolicy


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Args:
        max_new_tokens: the longest response, tokens.
        temperature: divides the logits; 0 is greedy, else at least 1e-6.
        top_p: smallest set of tokens with at least this probability, in (0, 1]; 1 is off.
        top_k: number of likeliest tokens kept; 0 is off.
        stop: strings that end a response; they stay part of it.

    Raises:
        UsageError: a value outside its range.
    """

    max_new_tokens: int = option(64, "longest response", unit="tokens", low=1)
    temperature: float = option(1.0, "divides the logits; 0 is greedy", low=0, below=float("inf"))
    top_p: float = option(1.0, "smallest set of tokens with at least this probability; 1 is off", above=0, high=1)
    top_k: int = option(0, "likeliest tokens kept; 0 is off", unit="tokens", low=0)
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_options(self)
        if 0 < self.temperature < 1e-6:  # the logits would overflow
            raise UsageError(f"temperature={self.temperature} is too small; use 0 for greedy decoding")
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise UsageError(f"stop={self.stop!r} must be a tuple of strings that are not empty")


@dataclass(frozen=True)
class Samples:
    """N responses in the order of the prompts, the members of a group next to each other.

    Args:
        tokens: N lists of token ids, the end-of-sequence token included where it was sampled.
        log_probs: N float tensors, one number per token: its log-probability under softmax(logits / temperature),
            before top-p and top-k cut the distribution; under softmax(logits) for greedy decoding.
        truncated: [N] bool, True where the length limit ended the response.
    """

    tokens: list[list[int]]
    log_probs: list[Tensor]
    truncated: Tensor


@torch.no_grad()
def sample(
    policy: CausalPolicy,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    group_size: int = 1,
    generator: torch.Generator | None = None,
    batch_size: int = 512,
) -> Samples:
    """Continue every prompt `group_size` times.

    Args:
        policy: what writes the responses.
        prompts: P lists of token ids, none empty.
        sampling: how tokens are chosen.
        group_size: responses per prompt; the prompt is prefilled once for all of them.
        generator: the source of randomness, on the policy's device.
        batch_size: the largest number of responses decoded together, but at least one whole group.

    Returns:
        Samples of N = P x group_size responses.

    Raises:
        UsageError: a prompt is empty, the model has recurrent layers, or `group_size` or `batch_size` is below 1.
    """
    for name, value in (("group_size", group_size), ("batch_size", batch_size)):
        if value < 1:
            raise UsageError(f"{name}={value} must be at least 1")
    if any(not len(prompt) for prompt in prompts):
        raise UsageError("a prompt has no tokens; every prompt needs at least one")
    policy.model.eval()
    per_batch = max(1, batch_size // group_size)
    with policy.precision():
        parts = [
            _decode_batch(policy, prompts[i : i + per_batch], sampling, group_size, generator)
            for i in range(0, len(prompts), per_batch)
        ]
    return Samples(
        tokens=[tokens for part in parts for tokens in part.tokens],
        log_probs=[log_prob for part in parts for log_prob in part.log_probs],
        truncated=torch.cat([part.truncated for part in parts]) if parts else torch.zeros(0, dtype=torch.bool),
    )


def _decode_batch(
    policy: CausalPolicy,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    group_size: int,
    generator: torch.Generator | None,
) -> Samples:
    device = policy.device
    logits, cache, attention, position = _prefill(policy, prompts, group_size)
    count, limit = attention.shape[0], sampling.max_new_tokens
    eos = torch.tensor(policy.eos_token_ids, device=device)
    tokens = torch.zeros((count, limit), dtype=torch.int64, device=device)
    log_probs = torch.zeros((count, limit), dtype=torch.float32, device=device)
    lengths = torch.full((count,), limit, device=device)
    ended = torch.zeros(count, dtype=torch.bool, device=device)  # by EOS or stop string
    rows = torch.arange(count, device=device)  # where the rows of the decoding batch belong
    for step in range(limit):
        chosen, log_prob = _choose(logits, sampling, generator)
        live = ~ended[rows]
        tokens[rows[live], step] = chosen[live]
        log_probs[rows[live], step] = log_prob[live]
        stops = live & torch.isin(chosen, eos)
        if sampling.stop:
            stops |= live & _meets_stop_string(policy, tokens[rows, : step + 1], sampling.stop)
        finished = rows[stops]
        ended[finished] = True
        lengths[finished] = step + 1
        live &= ~stops
        remaining = int(live.sum())
        if remaining == 0 or step + 1 == limit:
            break
        if remaining <= 0.8 * len(rows):  # leaving costs a copy of the cache, so rows leave in batches
            keep = torch.nonzero(live).flatten()
            cache.batch_select_indices(keep)
            rows, attention, position, chosen = rows[keep], attention[keep], position[keep], chosen[keep]
        attention = torch.nn.functional.pad(attention, (0, 1), value=True)
        position = position + 1
        output = policy.model(
            input_ids=chosen.unsqueeze(-1),
            attention_mask=attention,
            position_ids=position.unsqueeze(-1),
            past_key_values=cache,
            use_cache=True,
        )
        logits = output.logits[:, -1]
    tokens, log_probs, sizes = tokens.cpu(), log_probs.cpu(), lengths.tolist()
    return Samples(
        tokens=[row[:size].tolist() for row, size in zip(tokens, sizes, strict=True)],
        log_probs=[row[:size] for row, size in zip(log_probs, sizes, strict=True)],
        truncated=~ended.cpu(),
    )


def _prefill(
    policy: CausalPolicy, prompts: Sequence[Sequence[int]], group_size: int
) -> tuple[Tensor, DynamicCache, Tensor, Tensor]:
    """Read every prompt once, then hand each member of its group a copy of the cache.

    Returns:
        Logits of the next token [N, V], the cache, the attention mask [N, width], the last position [N].
    """
    from transformers import DynamicCache

    width = max(len(prompt) for prompt in prompts)
    padded = [[policy.pad_token_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    tokens = torch.tensor(padded, device=policy.device)
    start = torch.tensor([width - len(prompt) for prompt in prompts], device=policy.device).unsqueeze(-1)
    position = torch.arange(width, device=policy.device) - start
    attention = position >= 0
    cache = DynamicCache(config=policy.model.config)
    output = policy.model(
        input_ids=tokens,
        attention_mask=attention,
        position_ids=position.clamp_min(0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    if not all(hasattr(layer, "batch_repeat_interleave") for layer in cache.layers):
        raise UsageError(
            f"{policy.model.config.model_type} models carry a recurrent state, which cannot be shared by the responses "
            "to one prompt; use a model with attention in every layer"
        )
    if group_size > 1:
        cache.batch_repeat_interleave(group_size)

    def repeat(x: Tensor) -> Tensor:
        return x.repeat_interleave(group_size, dim=0)

    return repeat(output.logits[:, -1]), cache, repeat(attention), repeat(position[:, -1])


def _choose(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """The next token of every row and its log-probability, both [N]."""
    logits = logits.float()
    if sampling.temperature == 0:
        chosen = logits.argmax(-1)
        log_softmax = logits.log_softmax(-1)
    else:
        log_softmax = (logits / sampling.temperature).log_softmax(-1)
        allowed = _truncate(log_softmax, sampling.top_p, sampling.top_k).exp()
        chosen = torch.multinomial(allowed, 1, generator=generator).squeeze(-1)
    return chosen, log_softmax.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)


def _truncate(log_softmax: Tensor, top_p: float, top_k: int) -> Tensor:
    """Log-probabilities with the tokens outside top-k and top-p at minus infinity; not renormalised."""
    if 0 < top_k < log_softmax.shape[-1]:
        threshold = log_softmax.topk(top_k, dim=-1).values[..., -1:]
        log_softmax = log_softmax.masked_fill(log_softmax < threshold, float("-inf"))
    if top_p < 1.0:
        ordered, index = log_softmax.sort(dim=-1, descending=True)
        probability = ordered.softmax(-1)
        outside = probability.cumsum(-1) - probability >= top_p  # the token that crosses top_p stays
        log_softmax = log_softmax.masked_fill(outside.scatter(-1, index, outside), float("-inf"))
    return log_softmax


def _meets_stop_string(policy: CausalPolicy, tokens: Tensor, stop: tuple[str, ...]) -> Tensor:
    """[N] bool: rows whose newest token completes a stop string."""
    window = max(len(text.encode()) for text in stop) + 1  # every token holds at least one byte
    tails = [str(policy.tokenizer.decode(row)) for row in tokens[:, -window:].tolist()]
    return torch.tensor([any(text in tail for text in stop) for tail in tails], device=tokens.device)
