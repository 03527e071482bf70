"""The cache that writes in place holds what the library's own cache would hold."""

from __future__ import annotations

import pytest
import torch
from transformers.cache_utils import DynamicLayer

from braid.rollout.cache import FIRST_ROOM, RoomyLayer

ROWS, HEADS, SIZE = 3, 2, 4


def states(length: int, rows: int = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, HEADS, length, SIZE), torch.randn(rows, HEADS, length, SIZE)


def same(layer: RoomyLayer, expected: DynamicLayer) -> None:
    assert layer.get_seq_length() == expected.get_seq_length()
    torch.testing.assert_close(layer.keys, expected.keys, atol=0, rtol=0)
    torch.testing.assert_close(layer.values, expected.values, atol=0, rtol=0)


@pytest.mark.parametrize("tokens", [3, FIRST_ROOM, 3 * FIRST_ROOM])
def test_it_equals_the_librarys_cache_through_growing_repeating_and_selecting(tokens: int) -> None:
    torch.manual_seed(0)
    roomy, plain = RoomyLayer(limit=5 + 2 * tokens), DynamicLayer()
    first = states(5)
    for layer in (roomy, plain):
        layer.update(*first)
        layer.batch_repeat_interleave(2)
    same(roomy, plain)
    for step in range(2 * tokens):
        new = states(1, len(plain.keys))
        shown = [layer.update(*new) for layer in (roomy, plain)]
        torch.testing.assert_close(shown[0], shown[1], atol=0, rtol=0)
        if step in (1, tokens):
            keep = torch.tensor([0, 2, 3, 5] if step == 1 else [1, 2])
            for layer in (roomy, plain):
                layer.batch_select_indices(keep)
        same(roomy, plain)


def test_a_new_token_is_written_in_place() -> None:
    layer = RoomyLayer(limit=100)
    layer.update(*states(5))
    before = layer.keys.data_ptr()
    for _ in range(FIRST_ROOM):
        layer.update(*states(1))
    assert layer.keys.data_ptr() == before
    layer.update(*states(1))  # memory doubles
    assert layer.keys.data_ptr() != before
    assert layer.keys.shape[-2] == 5 + FIRST_ROOM + 1


def test_memory_never_exceeds_the_limit() -> None:
    layer = RoomyLayer(limit=50)
    layer.update(*states(5))
    for _ in range(45):
        layer.update(*states(1))
    assert layer.keys.shape[-2] == 50
    assert layer.keys.untyped_storage().nbytes() == 4 * ROWS * HEADS * 50 * SIZE


def test_a_layer_can_be_used_again_after_a_reset() -> None:
    layer = RoomyLayer(limit=10)
    layer.update(*states(5))
    layer.reset()
    assert layer.get_seq_length() == 0
    new = states(2)
    torch.testing.assert_close(layer.update(*new), new)
