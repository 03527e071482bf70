"""The layers of a model through `torch.compile`, for runs that are long enough to make up for the time it takes.

All layers of a kind are the same code, so they are compiled once: each is called with its own part of the cache instead
of the whole and a number, which would make every layer a program of its own. Sizes stay symbolic. PyTorch keeps what it
has compiled on disk, so that later runs start sooner.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from braid.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """The decoder layers of a causal language model, in their order.

    Raises:
        UsageError: they are not found, or hooks are attached to them, which compiled code would not call.
    """
    kind = model.config.model_type
    try:
        count = model.config.get_text_config().num_hidden_layers
        (layers,) = [m for m in model.get_decoder().children() if isinstance(m, nn.ModuleList) and len(m) == count]
    except (AttributeError, ValueError):
        raise UsageError(f"compile=true: the layers of {kind} models are not found; leave compile out") from None
    if any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers):
        raise UsageError(f"compile=true: hooks are attached to the layers of this {kind} model; leave compile out")
    return list(layers)


def check_compiler(device: torch.device) -> None:
    """Refuse to compile where there is no compiler.

    Raises:
        UsageError: says what to install.
    """
    if device.type != "cpu":
        return
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except (exc.InvalidCxxCompiler, RuntimeError, OSError):
        raise UsageError("compile=true needs a C++ compiler: install g++ or clang, or leave compile out") from None


@contextlib.contextmanager
def compiled_layers(model: PreTrainedModel) -> Iterator[None]:
    """Calls of the model's layers go through `torch.compile` inside this context.

    Args:
        model: a causal language model. Its cache must have one object per layer, as `layers`, whose `update` does
            nothing with the number of the layer.
    """
    layers = layers_of(model)
    for number, layer in enumerate(layers):
        layer.forward = partial(_call, layer, number)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _call(layer: nn.Module, number: int, *inputs: Any, **options: Any) -> Any:
    from transformers.cache_utils import Cache  # transformers takes seconds to import

    def own(value: Any) -> Any:
        return value.layers[number] if isinstance(value, Cache) else value

    named = {name: own(value) for name, value in options.items()}
    return _compiled(type(layer).forward)(layer, *map(own, inputs), **named)


@cache
def _compiled(forward: types.FunctionType) -> Callable[..., Any]:
    return torch.compile(forward, dynamic=True)
