"""Key-value caches for decoding that write in place, where `DynamicCache` copies all of itself for every token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

FIRST_ROOM = 32  # positions beyond the prompt for which memory is taken at first


class Buffer:
    """States [N, heads, length, size] with room for more positions behind them.

    Args:
        states: the first ones.
        room: positions to take memory for.
    """

    def __init__(self, states: Tensor, room: int) -> None:
        self.length = states.shape[-2]
        self._memory = self._copied(states, states.shape[0], max(room, self.length))

    @property
    def room(self) -> int:
        """Positions that memory is taken for."""
        return self._memory.shape[-2]

    @property
    def states(self) -> Tensor:
        """[N, heads, length, size], a view."""
        return self._memory[:, :, : self.length]

    def append(self, states: Tensor, limit: int) -> None:
        """Write the states of new positions, in place where there is room; memory doubles up to `limit` positions."""
        start, self.length = self.length, self.length + states.shape[-2]
        if self.length > self.room:
            used = self._memory[:, :, :start]
            self._memory = self._copied(used, len(used), max(self.length, min(2 * self.room, limit)))
        self._memory[:, :, start : self.length] = states

    def repeat(self, times: int) -> None:
        """Give every row `times` - 1 neighbours of the same content."""
        used = self.states
        spread = used.unsqueeze(1).expand(-1, times, -1, -1, -1)
        memory = used.new_empty(len(used), times, used.shape[1], self.room, used.shape[3])
        memory[..., : self.length, :] = spread
        self._memory = memory.flatten(0, 1)

    def keep(self, rows: Tensor) -> None:
        """Keep the rows with these indices, in this order."""
        self._memory = self._copied(self.states[rows], len(rows), self.room)

    @staticmethod
    def _copied(states: Tensor, rows: int, room: int) -> Tensor:
        memory = states.new_empty(rows, states.shape[1], room, states.shape[3])
        memory[:, :, : states.shape[2]] = states
        return memory


class RoomyLayer(DynamicLayer):
    """A layer of full attention whose keys and values are written in place.

    Args:
        limit: the longest sequence there will be, positions.
    """

    is_croppable = False
    keys: Tensor
    values: Tensor

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self._buffers: tuple[Buffer, ...] = ()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append the states of new positions [N, heads, new, size]; returns those of all positions."""
        key_states, value_states = as_read(key_states), as_read(value_states)
        if not self._buffers:
            room = min(self.limit, key_states.shape[-2] + FIRST_ROOM)
            self.lazy_initialization(key_states, value_states)
            self._buffers = (Buffer(key_states, room), Buffer(value_states, room))
        else:
            for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
                buffer.append(states, self.limit)
        self._show()
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        for buffer in self._buffers:
            buffer.repeat(repeats)
        self._show()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows with these indices."""
        for buffer in self._buffers:
            buffer.keep(indices)
        self._show()

    def reset(self) -> None:
        """Forget everything."""
        self._buffers = ()
        super().reset()

    def _show(self) -> None:
        if self._buffers:  # a layer that shares another's states has none of its own
            self.keys, self.values = (buffer.states for buffer in self._buffers)


def decoding_cache(config: PreTrainedConfig, limit: int) -> DynamicCache:
    """An empty cache; layers of full attention write in place, others (sliding windows …) are as the library has them.

    Args:
        config: of the model.
        limit: the longest sequence there will be, positions.
    """
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(limit) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class FixedLayer(DynamicLayer):
    """A layer of full attention in memory of fixed size, all of which is read: a mask must hide what is not written.

    Args:
        keys: [N, heads, room, size].
        values: likewise.
        place: [1] int64, the position that the next states are written to; whoever made it moves it on.
    """

    is_croppable = False
    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, place: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.place = keys, values, place

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the states of one position [N, heads, 1, size]; returns the whole memory."""
        self.keys.index_copy_(2, self.place, as_read(key_states))
        self.values.index_copy_(2, self.place, as_read(value_states))
        return self.keys, self.values

    def get_seq_length(self) -> Tensor:  # type: ignore[override]
        """[1]: positions written, a tensor as in the library's own static layers."""
        return self.place


def fixed_layers(cache: DynamicCache, rows: Tensor, room: int, place: Tensor) -> list[FixedLayer]:
    """Put layers of fixed size in the place of a cache's layers of full attention; returns them.

    Args:
        cache: of P rows.
        rows: [N], the row of `cache` that each row continues.
        room: positions to take memory for.
        place: [1] int64, the position that the next states are written to.
    """
    fixed = []
    for number, layer in enumerate(cache.layers):  # one by one, so that little is there twice
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        fixed.append(FixedLayer(with_room(layer.keys, room)[rows], with_room(layer.values, room)[rows], place))
        cache.layers[number] = fixed[-1]
    return fixed


def with_room(states: Tensor, room: int) -> Tensor:
    """A copy of states [N, heads, length, size] with zeros behind them; masked states must be finite.

    Args:
        states: to be copied.
        room: the new length, at least the old one.
    """
    return torch.nn.functional.pad(states, (0, 0, 0, room - states.shape[-2]))


def as_read(states: Tensor) -> Tensor:
    """States in the type in which attention reads them: autocast would cast all of the cache again for every token."""
    if states.dtype == torch.float32 and torch.is_autocast_enabled(states.device.type):
        return states.to(torch.get_autocast_dtype(states.device.type))
    return states
