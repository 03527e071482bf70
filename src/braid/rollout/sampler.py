"""Batched decoding of causal language models: one prefill per prompt, finished sequences leave the batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from braid.errors import UsageError
from braid.options import check_options, option
from braid.rollout.blocks import Blocks
from braid.rollout.static import make_decoder

if TYPE_CHECKING:
    from braid.policies.causal import CausalPolicy

OnFinished = Callable[[list[int], list[list[int]]], None]


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
        seconds: what `prefill` (reading the prompts) and `decode` (writing) took.
    """

    tokens: list[list[int]]
    log_probs: list[Tensor]
    truncated: Tensor
    seconds: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def sample(
    policy: CausalPolicy,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    group_size: int = 1,
    generator: torch.Generator | None = None,
    batch_size: int = 512,
    on_finished: OnFinished | None = None,
) -> Samples:
    """Continue every prompt `group_size` times.

    Args:
        policy: what writes the responses.
        prompts: P lists of token ids, none empty.
        sampling: how tokens are chosen.
        group_size: responses per prompt; the prompt is prefilled once for all of them.
        generator: the source of randomness, on the policy's device.
        batch_size: the largest number of responses decoded together, but at least one whole group.
        on_finished: told the numbers of the responses that have just ended by themselves, and their tokens, while the
            others are still being written.

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
    parts: list[Samples] = []
    decode = partial(_decode, sampling=sampling, group_size=group_size)
    with policy.precision():
        for first in range(0, len(prompts), per_batch):
            told = on_finished and _shifted(on_finished, first * group_size)
            part = _Part(prompts[first : first + per_batch], generator, told)
            parts.append(policy.jointly((sampling, group_size), decode, part))
            if sampling.temperature and torch.cat(parts[-1].log_probs).isnan().any():
                raise RuntimeError("the policy's probabilities are not numbers; its weights have diverged")
    return Samples(
        tokens=[tokens for part in parts for tokens in part.tokens],
        log_probs=[log_prob for part in parts for log_prob in part.log_probs],
        truncated=torch.cat([part.truncated for part in parts]) if parts else torch.zeros(0, dtype=torch.bool),
        seconds={phase: sum(part.seconds[phase] for part in parts) for phase in ("prefill", "decode")},
    )


def _shifted(on_finished: OnFinished, first: int) -> OnFinished:
    """The same listener for a part that begins at row `first`."""
    return lambda rows, tokens: on_finished([first + row for row in rows], tokens)


@dataclass(frozen=True)
class _Part:
    """What one policy writes in a decoding batch."""

    prompts: Sequence[Sequence[int]]
    generator: torch.Generator | None
    on_finished: OnFinished | None


def _decode(policy: CausalPolicy, parts: Sequence[_Part], *, sampling: Sampling, group_size: int) -> list[Samples]:
    """Decode one batch: a block of rows for each part, filled up so that all are equally large."""
    started = time.perf_counter()
    most, device, limit = max(len(part.prompts) for part in parts), policy.device, sampling.max_new_tokens
    spare = [policy.pad_token_id]
    prompts = [prompt for part in parts for prompt in (*part.prompts, *[spare] * (most - len(part.prompts)))]
    decoder = make_decoder(policy, prompts, group_size, limit, len(parts))
    prefilled = time.perf_counter()
    width, count = most * group_size, len(prompts) * group_size
    own = [len(part.prompts) * group_size for part in parts]
    blocks = Blocks(own, width, [part.generator for part in parts], device)
    eos = torch.tensor(policy.eos_token_ids, device=device)
    # rows that have ended go on writing until they leave; `lengths` says what counts
    tokens = torch.zeros((limit, count), dtype=torch.int64, device=device)
    log_probs = torch.zeros((limit, count), dtype=torch.float32, device=device)
    lengths = torch.full((count,), limit, device=device)
    ended = torch.zeros(count, dtype=torch.bool, device=device)  # by EOS or stop string
    for step in range(limit):
        chosen, log_prob = _choose(decoder.logits, sampling, blocks.draw)
        tokens[step, blocks.rows] = chosen
        log_probs[step, blocks.rows] = log_prob
        stops = torch.isin(chosen, eos)
        if sampling.stop:
            stops |= _meets_stop_string(policy, tokens[: step + 1, blocks.rows].T, sampling.stop)
        stops &= blocks.live
        blocks.live &= ~stops
        if blocks.count():
            finished = blocks.rows[stops]
            ended[finished] = True
            lengths[finished] = step + 1
            _tell(parts, finished, tokens[: step + 1], width)
        if not any(blocks.left) or step + 1 == limit:
            break
        keep = blocks.leave()
        if keep is not None:
            decoder.keep(keep)
            chosen = chosen[keep]
        decoder.advance(chosen)
    tokens, log_probs, sizes = tokens.T.cpu(), log_probs.T.cpu(), lengths.tolist()
    written = [row[:size] for row, size in zip(tokens.tolist(), sizes, strict=True)]
    likely = [row[:size] for row, size in zip(log_probs, sizes, strict=True)]
    cut = ~ended.cpu()
    seconds = {"prefill": prefilled - started, "decode": time.perf_counter() - prefilled}
    places = [slice(number * width, number * width + size) for number, size in enumerate(own)]
    return [Samples(written[place], likely[place], cut[place], dict(seconds)) for place in places]


def _tell(parts: Sequence[_Part], finished: Tensor, tokens: Tensor, width: int) -> None:
    """Tell those who listen which of their rows have just ended, and what these wrote."""
    if all(part.on_finished is None for part in parts):
        return
    rows, written = finished.tolist(), tokens[:, finished].T.tolist()
    for number, part in enumerate(parts):
        own = [k for k, row in enumerate(rows) if row // width == number]
        if part.on_finished is not None and own:
            part.on_finished([rows[k] - number * width for k in own], [written[k] for k in own])


def _choose(logits: Tensor, sampling: Sampling, draw: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The next token of every row and its log-probability, both [N]."""
    logits = logits.float()
    if sampling.temperature == 0:
        chosen = logits.argmax(-1)
        log_softmax = logits.log_softmax(-1)
    else:
        log_softmax = (logits / sampling.temperature).log_softmax(-1)
        allowed = _truncate(log_softmax, sampling.top_p, sampling.top_k).exp()
        chosen = draw(allowed)
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
