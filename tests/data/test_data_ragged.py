"""Ragged rows: whatever is padded, joined, cut or split keeps every token and every row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torch import Tensor

from braid.data.ragged import (
    build_preferences,
    build_rollouts,
    concatenate,
    micro_batches,
    resize,
    split_groups,
    trim,
)
from braid.data.records import Rollouts, Source

patient = settings(deadline=None)  # the machine may be busy
PAD = 0
tokens = st.lists(st.integers(1, 99), max_size=6)
rows = st.lists(st.tuples(tokens, tokens.filter(bool)), min_size=1, max_size=8)
grouped = st.lists(st.tuples(tokens, tokens.filter(bool), st.integers(0, 3)), min_size=1, max_size=12)
Row = tuple[list[int], list[int]]


def build(content: list[Row], **options: object) -> Rollouts:
    """Rows whose behaviour log-probability is minus the token over 100 and whose reward is the row number."""
    log_probs = [-torch.tensor(response, dtype=torch.float32) / 100 for _, response in content]
    batch = build_rollouts(
        [prompt for prompt, _ in content],
        [response for _, response in content],
        pad_token_id=PAD,
        log_probs=log_probs,
        **options,  # type: ignore[arg-type]
    )
    return batch.replace(reward=torch.arange(len(content), dtype=torch.float32))


def content_of(batch: Rollouts) -> list[Row]:
    return [
        (row[real & ~response].tolist(), row[response].tolist())
        for row, real, response in zip(batch.tokens, batch.attention_mask, batch.response_mask, strict=True)
    ]


def assert_sound(batch: Rollouts) -> None:
    """What holds of every batch: prompt, response, padding in this order; numbers only where there is a response."""
    real, response = batch.attention_mask.int(), batch.response_mask.int()
    assert (real.diff(dim=-1) <= 0).all()
    assert (response <= real).all()
    assert ((real - response).diff(dim=-1) <= 0).all()
    assert (batch.tokens[~batch.attention_mask] == PAD).all()
    assert torch.equal(batch.loss_mask, batch.response_mask)
    expected = torch.where(batch.response_mask, -batch.tokens / 100, 0.0)
    torch.testing.assert_close(batch.behaviour_log_prob, expected)


def padded_positions(batch: Rollouts, rows: Tensor) -> int:
    return len(rows) * int(batch.attention_mask[rows].sum(-1).max())


# building


def test_rows_by_hand() -> None:
    batch = build_rollouts(
        [[5, 6], [7]],
        [[8, 1], [9, 10, 1]],
        pad_token_id=PAD,
        log_probs=[torch.tensor([-0.5, -0.25]), torch.tensor([-1.0, -2.0, -3.0])],
        group_id=[4, 4],
        truncated=[False, True],
    )
    assert batch.tokens.tolist() == [[5, 6, 8, 1], [7, 9, 10, 1]]
    assert batch.response_mask.tolist() == [[False, False, True, True], [False, True, True, True]]
    assert batch.behaviour_log_prob.tolist() == [[0, 0, -0.5, -0.25], [0, -1, -2, -3]]
    assert batch.group_id.tolist() == [4, 4]
    assert batch.example_index.tolist() == [0, 1]
    assert batch.truncated.tolist() == [False, True]
    assert batch.online.all()
    assert batch.response_length.tolist() == [2, 3]
    assert batch.groups == 1
    assert len(batch) == 2


def test_demonstrations_have_no_behaviour_log_prob() -> None:
    batch = build_rollouts([[5]], [[6, 1]], pad_token_id=PAD, source=Source.DEMONSTRATION)
    assert batch.demonstrated.all()
    assert not batch.online.any()
    assert not batch.behaviour_log_prob.any()


def test_correct_reads_the_verifier_and_not_the_reward() -> None:
    batch = build([([1], [2]), ([1], [3]), ([1], [4])])
    batch = batch.replace(terms=TensorDict({"correct": torch.tensor([1.0, 0.5, 0.0])}, batch_size=[3]))
    assert batch.correct.tolist() == [True, False, False]


def test_prompts_and_responses_must_pair() -> None:
    with pytest.raises(ValueError, match="argument"):
        build_rollouts([[1], [2]], [[3]], pad_token_id=PAD)


@patient
@given(rows)
def test_building_keeps_every_token(content: list[Row]) -> None:
    batch = build(content)
    assert content_of(batch) == content
    assert_sound(batch)
    assert batch.tokens.shape[1] == max(len(p) + len(r) for p, r in content)


def test_no_rows() -> None:
    batch = build_rollouts([], [], pad_token_id=PAD)
    assert len(batch) == 0
    assert batch.tokens.shape == (0, 0)
    assert len(trim(batch)) == 0
    assert micro_batches(batch, 10) == micro_batches(batch, 10, whole_groups=True) == []


# width


@patient
@given(rows, st.integers(0, 9))
def test_resize_and_trim_are_inverse(content: list[Row], extra: int) -> None:
    batch = build(content)
    width = batch.tokens.shape[1]
    wide = resize(batch, width + extra, PAD)
    assert wide.tokens.shape[1] == wide.advantage.shape[1] == wide.loss_mask.shape[1] == width + extra
    assert content_of(wide) == content
    assert_sound(wide)
    assert torch.equal(wide.reward, batch.reward)
    back = trim(wide)
    for name in ("tokens", "attention_mask", "response_mask", "behaviour_log_prob", "reward", "group_id"):
        assert torch.equal(getattr(back, name), getattr(batch, name)), name


def test_resize_reaches_named_weights_and_leaves_row_terms() -> None:
    batch = build([([1], [2, 3]), ([4], [5])])
    batch = batch.replace(
        terms=TensorDict({"correct": torch.ones(2)}, batch_size=[2]),
        weights=TensorDict({"token": torch.ones(2, 3), "row": torch.ones(2)}, batch_size=[2]),
    )
    wide = resize(batch, 5, 77)
    assert wide.weights["token"].tolist() == [[1, 1, 1, 0, 0]] * 2
    assert wide.weights["row"].shape == wide.terms["correct"].shape == (2,)
    assert wide.tokens[0].tolist() == [1, 2, 3, 77, 77]
    assert wide.weights["token"].shape == (2, 5)


def test_resize_refuses_to_cut_tokens_off() -> None:
    with pytest.raises(ValueError, match=r"width=2 .* longest row has 3"):
        resize(build([([1], [2, 3])]), 2, PAD)


# joining


@patient
@given(st.lists(rows, min_size=1, max_size=4))
def test_concatenate_keeps_rows_in_order(contents: list[list[Row]]) -> None:
    joined = concatenate([build(content) for content in contents], PAD)
    assert content_of(joined) == [row for content in contents for row in content]
    assert_sound(joined)
    assert joined.reward.tolist() == [i for content in contents for i in range(len(content))]


def test_concatenate_fills_missing_terms_with_zero() -> None:
    one, two = build([([1], [2])]), build([([1], [2, 3, 4])], source=Source.DEMONSTRATION)
    one = one.replace(terms=TensorDict({"correct": torch.ones(1), "format": torch.ones(1)}, batch_size=[1]))
    two = two.replace(terms=TensorDict({"correct": torch.ones(1), "length": torch.ones(1)}, batch_size=[1]))
    joined = concatenate([one, two], PAD)
    assert {name: joined.terms[name].tolist() for name in joined.terms.keys()} == {  # noqa: SIM118
        "correct": [1, 1],
        "format": [1, 0],
        "length": [0, 1],
    }
    assert joined.online.tolist() == [True, False]


@patient
@given(rows, st.integers(1, 7))
def test_splitting_and_joining_is_the_identity(content: list[Row], size: int) -> None:
    batch = build(content)
    parts = [trim(batch[i : i + size]) for i in range(0, len(batch), size)]
    joined = concatenate(parts, PAD)
    assert content_of(joined) == content
    assert torch.equal(trim(joined).tokens, batch.tokens)
    assert torch.equal(joined.group_id, batch.group_id)


# splitting


@patient
@given(rows, st.integers(1, 40))
def test_micro_batches_hold_every_row_once_within_the_budget(content: list[Row], budget: int) -> None:
    batch = build(content)
    pieces = micro_batches(batch, budget)
    assert sorted(torch.cat(pieces).tolist()) == list(range(len(batch)))
    assert all(len(piece) == 1 or padded_positions(batch, piece) <= budget for piece in pieces)


@patient
@given(grouped, st.integers(1, 40))
def test_micro_batches_keep_groups_whole(content: list[tuple[list[int], list[int], int]], budget: int) -> None:
    group_id = [group * 100 for *_, group in content]
    batch = build([(prompt, response) for prompt, response, _ in content], group_id=group_id)
    pieces = micro_batches(batch, budget, whole_groups=True)
    assert sorted(torch.cat(pieces).tolist()) == list(range(len(batch)))
    seen = [set(batch.group_id[piece].tolist()) for piece in pieces]
    assert sum(map(len, seen)) == len(set(group_id))
    assert all(len(s) == 1 or padded_positions(batch, p) <= budget for s, p in zip(seen, pieces, strict=True))


@patient
@given(rows, st.integers(1, 40), st.integers(1, 9))
def test_micro_batches_do_not_depend_on_padding(content: list[Row], budget: int, extra: int) -> None:
    batch = build(content)
    wide = resize(batch, batch.tokens.shape[1] + extra, PAD)
    for one, two in zip(micro_batches(batch, budget), micro_batches(wide, budget), strict=True):
        assert torch.equal(one, two)


def test_micro_batches_put_similar_lengths_together() -> None:
    lengths = [9, 2, 9, 2, 9, 2]
    batch = build([([], [3] * length) for length in lengths])
    assert [piece.tolist() for piece in micro_batches(batch, 27)] == [[1, 3, 5], [0, 2, 4]]


@patient
@given(grouped, st.integers(1, 6), st.integers(0, 99))
def test_split_groups_holds_every_row_once_and_groups_whole(
    content: list[tuple[list[int], list[int], int]], parts: int, seed: int
) -> None:
    group_id = [group * 7 + 3 for *_, group in content]
    batch = build([(prompt, response) for prompt, response, _ in content], group_id=group_id)
    pieces = split_groups(batch, parts, torch.Generator().manual_seed(seed))
    assert len(pieces) == min(parts, len(set(group_id)))
    assert sorted(torch.cat(pieces).tolist()) == list(range(len(batch)))
    groups = [set(batch.group_id[piece].tolist()) for piece in pieces]
    assert sum(map(len, groups)) == len(set(group_id))
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    again = split_groups(batch, parts, torch.Generator().manual_seed(seed))
    assert all(torch.equal(x, y) for x, y in zip(pieces, again, strict=True))


def test_split_groups_shuffles_groups() -> None:
    batch = build([([1], [2])] * 12, group_id=[i // 2 for i in range(12)])
    orders = {
        tuple(batch.group_id[piece[0]].item() for piece in split_groups(batch, 6, torch.Generator().manual_seed(seed)))
        for seed in range(10)
    }
    assert len(orders) > 5


# preferences


def test_preferences_share_their_prompts_row_for_row() -> None:
    pairs = build_preferences(
        [[5, 6], [7]], [[8, 1], [9, 1]], [[10, 11, 12, 1], [1]], pad_token_id=PAD, margin=[2, 0], weight=[1, 3]
    )
    assert content_of(pairs.chosen) == [([5, 6], [8, 1]), ([7], [9, 1])]
    assert content_of(pairs.rejected) == [([5, 6], [10, 11, 12, 1]), ([7], [1])]
    assert pairs.chosen.demonstrated.all()
    assert pairs.rejected.demonstrated.all()
    assert pairs.margin.dtype == pairs.weight.dtype == torch.float32
    one = pairs[1:]
    assert len(one) == 1
    assert one.weight.tolist() == [3]
    assert content_of(one.rejected) == [([7], [1])]


def test_preferences_have_no_margin_and_unit_weight_by_default() -> None:
    pairs = build_preferences([[5]], [[6]], [[7]], pad_token_id=PAD)
    assert pairs.margin.tolist() == [0]
    assert pairs.weight.tolist() == [1]
