"""Decoding in memory of fixed size, so that a step can be recorded for a GPU or compiled for a CPU.

A step of decoding runs hundreds of small kernels. Started one by one from Python they take many times as long as a GPU
needs for them; replayed as a CUDA graph they follow each other at once. On a CPU, compiled layers run fewer of them.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from braid.rollout.decoder import Decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from braid.policies.causal import CausalPolicy

Step = Callable[[], None]

SWITCH = "BRAID_CUDA_GRAPHS"
"""The environment variable that, set to 0, keeps to decoding without CUDA graphs."""
FEWEST_TOKENS = 16
"""A recording takes as long as two steps that are not recorded, so shorter responses do without."""


@dataclass(frozen=True)
class Sizes:
    """How memory is taken.

    Args:
        ahead: positions beyond what is written. More of it is more to read in every step, less of it more recordings,
            or copies.
        growth: but at least so many times what is written.
        slack: all positions that there will be if these are at most so many times as many.
        fewest_rows: fewer are not worth taking less memory for.
        long_enough: steps that must be able to follow for fewer rows to be worth it.
        shrink: rows must be fewer by this factor.
        rows: what numbers of rows are rounded up to, because kernels for matrices like them so.
        room: likewise of positions, for attention.
    """

    ahead: int
    growth: float = 1.0
    slack: float = 1.0
    fewest_rows: int = 1
    long_enough: int = 0
    shrink: float = 1.0
    rows: int = 1
    room: int = 1


RECORDED = Sizes(ahead=256, growth=2.0, slack=1.5, fewest_rows=32, long_enough=128, shrink=2.0, rows=8, room=64)
"""For CUDA graphs: every change of a size is a new recording, and reading the weights takes nearly all of a step."""

COMPILED = Sizes(ahead=32)
"""For compiled layers, which take any size: what is not there costs nothing."""


class Recorder(Protocol):
    """Something that can record a step which acts on fixed memory."""

    def rehearse(self, step: Step) -> None:
        """Take a step before it is recorded."""

    def record(self, step: Step) -> Step:
        """Note what a step does without doing it; returns a function that does it."""


class NoRecorder:
    """Lets steps be taken as they are, where there is no GPU."""

    def rehearse(self, step: Step) -> None:
        step()

    def record(self, step: Step) -> Step:
        return step


class GraphRecorder:
    """Records steps as CUDA graphs that share one pool of memory.

    Args:
        device: where the steps run.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _recording_stream(device)
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: list[torch.cuda.CUDAGraph] = []  # a pool lives as long as one of its graphs

    def rehearse(self, step: Step) -> None:
        """Take a step on the stream of recording: libraries load kernels and take memory, which no graph may hold."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            step()
        current.wait_stream(self._stream)

    def record(self, step: Step) -> Step:
        graph = torch.cuda.CUDAGraph()
        # threads beside this one (a reward function's, a data loader's) may use the GPU meanwhile
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            step()
        self._graphs.append(graph)
        return graph.replay


@cache
def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # only one, because matrix libraries keep a workspace for every stream


class StaticDecoder(Decoder):
    """Rows that grow by one token at a time, like `Decoder`'s, in memory whose size and place rarely change.

    Prompts are read as by `Decoder`. Then N rows, some of them spare, have memory for R positions; a mask hides those
    that are not written. A step acts on these tensors only, in place. It is recorded when it is taken for the second
    time, and again when R grows or N shrinks. Rows that leave make room for those behind them.

    The decoder must not outlive a change of the weights, as it may have copies of them.

    Args:
        policy: whose model decodes, with full attention in every layer; inside its `precision()`.
        prompts: P lists of token ids.
        group_size: rows per prompt.
        max_new_tokens: the longest response.
        blocks: the model wants its rows in so many equal blocks; each has its own spare rows.
        recorder: of steps; by default CUDA graphs on a GPU, and none elsewhere.
        sizes: of the memory; by default those for recordings on a GPU, or where nothing is compiled.

    Attributes:
        logits: [N, V], of the next token of every row; the next `advance` overwrites them.
    """

    def __init__(
        self,
        policy: CausalPolicy,
        prompts: Sequence[Sequence[int]],
        group_size: int,
        max_new_tokens: int,
        blocks: int = 1,
        *,
        recorder: Recorder | None = None,
        sizes: Sizes | None = None,
    ) -> None:
        from braid.rollout.cache import fixed_layers

        device = policy.device
        on_gpu = device.type == "cuda"
        self._recorder = recorder or (GraphRecorder(device) if on_gpu else NoRecorder())
        self._compiled = contextlib.nullcontext if on_gpu else policy.compiled
        self._sizes = sizes or (COMPILED if policy.compile and not on_gpu else RECORDED)
        with uncached_autocast(device):
            super().__init__(policy, prompts, 1, max_new_tokens, blocks)
            self._weights = cast_weights(policy.model)
            self._limit = self._width + max_new_tokens
            own = len(prompts) // blocks
            self._live = own * group_size  # of each block
            count = round_up(self._live, self._sizes.rows)
            prompt = torch.arange(count, device=device).div(group_size, rounding_mode="floor")
            prompt = prompt.clamp_max(own - 1)  # spare rows continue the last prompt
            prompt = (prompt + torch.arange(0, len(prompts), own, device=device).unsqueeze(-1)).flatten()
            self._place = torch.tensor([self._width], device=device)
            self._layers = fixed_layers(self._cache, prompt, self._room_for(self._width), self._place)
        self._tokens = torch.zeros((len(prompt), 1), dtype=torch.int64, device=device)
        self._positions = self._position[prompt].unsqueeze(-1) + 1
        self._mask = self._first_mask(prompt)
        self.logits = self._without_spare(self.logits[prompt])
        self._output = self.logits
        self._replay: Step | None = None
        self._rehearsed = False

    def advance(self, chosen: Tensor) -> None:
        """Append a token [N] to every row."""
        if self._width == self._mask.shape[-1]:
            self._grow()
        self._tokens.view(self._blocks, -1)[:, : self._live] = chosen.view(self._blocks, -1)
        self._width += 1
        if self._replay is None and self._rehearsed:
            self._replay = self._recorder.record(self._step)
        if self._replay is not None:
            self._replay()
        else:
            self._recorder.rehearse(self._step)
            self._rehearsed = True
        self.logits = self._without_spare(self._output)

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows of these indices only."""
        self.logits = self.logits[rows]
        count, before = len(self._tokens) // self._blocks, self._live
        rows = rows.div(before, rounding_mode="floor") * count + rows % before  # where they are among spare ones
        self._live = len(rows) // self._blocks
        sizes = self._sizes
        left = round_up(max(self._live, sizes.fewest_rows // self._blocks), sizes.rows)
        shrinks = sizes.shrink * left <= count and self._limit - self._width >= sizes.long_enough
        if shrinks:
            self._forget_recording()

        def keep(tensor: Tensor) -> Tensor:
            blocks = tensor.unflatten(0, (self._blocks, -1))
            blocks[:, : self._live] = tensor[rows].unflatten(0, (self._blocks, -1))
            return blocks[:, :left].flatten(0, 1) if shrinks else tensor

        self._positions, self._mask = keep(self._positions), keep(self._mask)
        self._tokens = self._tokens[: left * self._blocks] if shrinks else self._tokens
        for layer in self._layers:
            layer.keys, layer.values = keep(layer.keys), keep(layer.values)

    def _step(self) -> None:
        """What is recorded: it reads and writes tensors that stay where they are."""
        self._mask.index_fill_(-1, self._place, 0.0)
        options = {
            "input_ids": self._tokens,
            "attention_mask": self._mask,
            "position_ids": self._positions,
            "past_key_values": self._cache,
            "use_cache": True,
        }
        with uncached_autocast(self._tokens.device), self._compiled():
            # untied, because autocast casts what the output embedding multiplies by but not what is looked up
            output = torch.func.functional_call(self._model, self._weights, kwargs=options, tie_weights=False)
        self._output = output.logits[:, -1]
        self._positions.add_(1)
        self._place.add_(1)

    def _grow(self) -> None:
        """Take memory for more positions."""
        from braid.rollout.cache import with_room

        room = self._room_for(self._width)
        self._mask = nn.functional.pad(self._mask, (0, room - self._width), value=-math.inf)
        for layer in self._layers:
            layer.keys, layer.values = with_room(layer.keys, room), with_room(layer.values, room)
        self._forget_recording()

    def _room_for(self, width: int) -> int:
        """Positions to take memory for when so many are written; all that will be if that is not much more."""
        sizes = self._sizes
        room = max(width + sizes.ahead, int(sizes.growth * width))
        return round_up(self._limit if self._limit <= sizes.slack * room else room, sizes.room)

    def _first_mask(self, prompt: Tensor) -> Tensor:
        """[N, 1, 1, R]: what is added to attention logits, minus infinity for padding and positions not written."""
        keys = self._layers[0].keys
        mask = keys.new_full((len(keys), 1, 1, keys.shape[-2]), -math.inf)
        mask[..., : self._width] = 0.0
        if self._attention is not None:
            padding = ~self._attention[prompt, : self._width]
            mask[..., : self._width].masked_fill_(padding[:, None, None], -math.inf)
        return mask

    def _without_spare(self, rows: Tensor) -> Tensor:
        return rows.unflatten(0, (self._blocks, -1))[:, : self._live].flatten(0, 1)

    def _forget_recording(self) -> None:
        self._replay = None
        self._rehearsed = False


def make_decoder(
    policy: CausalPolicy, prompts: Sequence[Sequence[int]], group_size: int, max_new_tokens: int, blocks: int = 1
) -> Decoder:
    """The decoder that suits: for models that allow it a static one with CUDA graphs on a GPU, or with compiled layers
    on a CPU; else the plain one.

    The environment variable `BRAID_CUDA_GRAPHS=0` keeps to the plain one on a GPU.

    Args:
        policy: whose model decodes; inside its `precision()`.
        prompts: P lists of token ids.
        group_size: rows per prompt.
        max_new_tokens: the longest response.
        blocks: the model wants its rows in so many equal blocks.

    Raises:
        UsageError: the model has recurrent layers.
    """
    wanted = os.environ.get(SWITCH) != "0" if policy.device.type == "cuda" else policy.compile
    static = wanted and max_new_tokens >= FEWEST_TOKENS and decodes_statically(policy, blocks)
    return (StaticDecoder if static else Decoder)(policy, prompts, group_size, max_new_tokens, blocks)


_DECODES_STATICALLY: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def decodes_statically(policy: CausalPolicy, blocks: int = 1) -> bool:
    """Whether a model has full attention in every layer and a static decoder says the same of it as a plain one.

    It may not: models build biases from a mask of another form, or look at numbers on the CPU between two kernels. What
    a few tokens show is remembered for each model.

    Args:
        policy: whose model decodes; inside its `precision()`.
        blocks: the model wants its rows in so many equal blocks.
    """
    if policy.model not in _DECODES_STATICALLY:
        _DECODES_STATICALLY[policy.model] = _agrees(policy, blocks)
    return _DECODES_STATICALLY[policy.model]


def _agrees(policy: CausalPolicy, blocks: int) -> bool:
    from transformers.cache_utils import DynamicCache, DynamicLayer

    config = policy.model.config
    layers = DynamicCache(config=config).layers
    if not layers or any(type(layer) is not DynamicLayer for layer in layers):
        return False
    tokens = torch.arange(7, device=policy.device).remainder(config.get_text_config().vocab_size)
    prompts = blocks * [tokens[:1].tolist(), tokens[1:4].tolist()]  # of different lengths, so that one is padded
    try:
        plain, static = (kind(policy, prompts, 1, 4, blocks) for kind in (Decoder, StaticDecoder))
        for number, token in enumerate(tokens[4:]):  # rehearsed, recorded, replayed
            plain.advance(token.expand(len(prompts)))
            with no_synchronisation(policy.device) if number == 0 else contextlib.nullcontext():
                static.advance(token.expand(len(prompts)))
    except Exception:  # code that comes with a checkpoint may raise anything
        return False
    difference = (static.logits.float() - plain.logits.float()).norm()
    return float(difference) <= 5e-2 * float(plain.logits.float().norm())


@contextlib.contextmanager
def no_synchronisation(device: torch.device) -> Iterator[None]:
    """Operations that wait for a GPU raise inside this context; a recording that meets one fails less cleanly."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def cast_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the weights that linear layers would cast under autocast, by name; empty where nothing is cast.

    Autocast keeps such copies itself, but one list for all threads, which a thread that leaves its own autocast clears:
    a recording would go on reading memory that is no longer its own. It keeps none of weights that are not trained.
    """
    device = next(model.parameters()).device.type
    if not torch.is_autocast_enabled(device):
        return {}
    return {
        f"{name}.{part}": weight.to(torch.get_autocast_dtype(device))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        for part, weight in module.named_parameters(recurse=False)
        if weight.dtype == torch.float32
    }


def uncached_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Autocast as it is, without its list of weights that are cast already."""
    kind = device.type
    return torch.autocast(
        kind, torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind), cache_enabled=False
    )


def round_up(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple
