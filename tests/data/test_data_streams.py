"""Streams of examples: every pass is complete, and a position is all that a resumed run needs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.data.examples import Example
from braid.data.streams import ExampleStream

patient = settings(deadline=None)  # the machine may be busy


def examples(count: int) -> list[Example]:
    return [Example(id=str(i), prompt=f"Q{i}") for i in range(count)]


def ids(taken: list[Example]) -> list[int]:
    return [int(example.id) for example in taken]


@patient
@given(st.integers(1, 20), st.integers(0, 5), st.integers(1, 3))
def test_every_pass_holds_every_example_once(count: int, seed: int, passes: int) -> None:
    taken = ids(ExampleStream(examples(count), seed).take(count * passes))
    for start in range(0, len(taken), count):
        assert sorted(taken[start : start + count]) == list(range(count))


@patient
@given(st.integers(1, 20), st.integers(0, 5), st.lists(st.integers(0, 9), max_size=6), st.integers(0, 60))
def test_position_is_enough_to_go_on(count: int, seed: int, takes: list[int], further: int) -> None:
    stream = ExampleStream(examples(count), seed)
    for take in takes:
        stream.take(take)
    assert stream.position == sum(takes)
    resumed = ExampleStream(examples(count), seed, stream.position)
    assert ids(resumed.take(further)) == ids(stream.take(further))


@patient
@given(st.integers(1, 20), st.lists(st.integers(0, 9), max_size=8))
def test_portions_do_not_change_the_order(count: int, takes: list[int]) -> None:
    stream = ExampleStream(examples(count), 3)
    assert ids([e for take in takes for e in stream.take(take)]) == ids(
        ExampleStream(examples(count), 3).take(sum(takes))
    )


def test_passes_and_seeds_differ() -> None:
    taken = ids(ExampleStream(examples(30), 0).take(60))
    assert taken[:30] != taken[30:]
    assert ids(ExampleStream(examples(30), 1).take(30)) != taken[:30]
    assert taken[:30] != sorted(taken[:30])


def test_a_stream_needs_an_example() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        ExampleStream([], 0)
