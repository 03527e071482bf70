"""Masked means and the weights of tokens in the step's loss."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses.aggregation import (
    aggregate,
    masked_mean,
    masked_sum,
    masked_var,
    masked_whiten,
    sequence_weights,
    token_weights,
)

MODES = ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm", "token-sum-norm"]
MASKS = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=6)
)


def noise(mask, seed=0):
    return torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("mode", "expected"), zip(MODES, [1.0, 1.0, 2.0, 0.5, 1.0], strict=True))
def test_two_sequences_of_one_and_three_tokens(mode, expected):
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0]])
    assert aggregate(torch.ones(2, 4), mask, mode, length=4).item() == pytest.approx(expected)


def test_weights_by_hand():
    mask = torch.tensor([[True, False, False], [True, True, True], [False, False, False]])
    third, sixth = 1 / 3, 1 / 6
    expected = {
        "token-mean": [[0.25, 0, 0], [0.25, 0.25, 0.25], [0, 0, 0]],
        "seq-mean-token-mean": [[0.5, 0, 0], [sixth, sixth, sixth], [0, 0, 0]],
        "seq-mean-token-sum": [[0.5, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0]],
        "seq-mean-token-sum-norm": [[sixth, 0, 0], [sixth, sixth, sixth], [0, 0, 0]],
        "token-sum-norm": [[third, 0, 0], [third, third, third], [0, 0, 0]],
    }
    for mode, weights in expected.items():
        torch.testing.assert_close(token_weights(mask, mode, length=3), torch.tensor(weights))
    torch.testing.assert_close(sequence_weights(mask), torch.tensor([0.5, 0.5, 0.0]))


def test_equal_lengths_make_token_mean_and_sequence_mean_equal():
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    torch.testing.assert_close(token_weights(mask, "token-mean"), token_weights(mask, "seq-mean-token-mean"))


def test_an_empty_row_counts_in_no_denominator():
    mask, values = torch.tensor([[1, 1], [1, 0]]), torch.tensor([[1.0, 2.0], [5.0, 9.0]])
    wider, more = torch.cat([mask, torch.zeros(1, 2, dtype=mask.dtype)]), torch.cat([values, torch.full((1, 2), 7.0)])
    for mode in MODES:
        assert aggregate(more, wider, mode, 4).item() == pytest.approx(aggregate(values, mask, mode, 4).item())


@given(MASKS, st.sampled_from(MODES), st.data())
@settings(deadline=None)
def test_any_split_into_micro_batches_is_exact(rows, mode, data):
    mask = torch.tensor(rows)
    cut = data.draw(st.integers(0, len(rows)))
    per_token = noise(mask).requires_grad_()
    whole = aggregate(per_token, mask, mode, length=7)
    (expected,) = torch.autograd.grad(whole, per_token)
    weights = token_weights(mask, mode, length=7, dtype=torch.float64)
    pieces = [(weights[piece] * per_token[piece]).sum() for piece in (slice(0, cut), slice(cut, None))]
    torch.testing.assert_close(sum(pieces), whole)
    (gradient,) = torch.autograd.grad(sum(pieces), per_token)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=0)


@given(MASKS, st.sampled_from(MODES), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_padding_and_row_order_change_nothing(rows, mode, padding, random):
    mask = torch.tensor(rows)
    per_token = noise(mask)
    order = list(range(len(rows)))
    random.shuffle(order)
    junk = torch.full((len(rows), padding), 1e30, dtype=torch.float64)
    padded = torch.cat([per_token, junk], dim=1)[order]
    padded_mask = torch.cat([mask, torch.zeros(len(rows), padding, dtype=torch.bool)], dim=1)[order]
    torch.testing.assert_close(
        aggregate(padded, padded_mask, mode, length=7), aggregate(per_token, mask, mode, length=7)
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("junk", [float("inf"), float("nan"), -1e30])
def test_values_outside_the_mask_do_not_leak(mode, junk):
    mask = torch.tensor([[1, 0], [1, 1]])
    per_token = torch.tensor([[1.0, junk], [2.0, 3.0]], requires_grad=True)
    clean = torch.tensor([[1.0, 0.0], [2.0, 3.0]])
    loss = aggregate(per_token, mask, mode, length=2)
    assert loss.item() == pytest.approx(aggregate(clean, mask, mode, length=2).item())
    loss.backward()
    assert per_token.grad[0, 1] == 0
    assert per_token.grad.isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_nothing_valid_is_zero(mode):
    mask = torch.zeros(2, 3, dtype=torch.bool)
    assert token_weights(mask, mode, length=3).tolist() == [[0.0] * 3] * 2
    assert aggregate(torch.full((2, 3), float("nan")), mask, mode, length=3).item() == 0
    assert sequence_weights(mask).tolist() == [0.0, 0.0]
    assert masked_mean(torch.ones(2, 3), mask).item() == 0
    assert masked_whiten(torch.ones(2, 3), mask).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_an_empty_batch_is_zero(mode, shape):
    assert aggregate(torch.zeros(shape), torch.ones(shape), mode, length=3).item() == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_types_are_kept(dtype):
    mask, values = torch.tensor([[1, 1, 0]]), torch.tensor([[1.0, 2.0, 9.0]], dtype=dtype)
    assert aggregate(values, mask, "token-mean").dtype == dtype
    assert masked_mean(values, mask).dtype == dtype
    assert masked_whiten(values, mask).dtype == dtype
    assert token_weights(mask, "token-mean", dtype=dtype).dtype == dtype


def test_masked_statistics_by_hand():
    values, mask = torch.tensor([[1.0, 2.0, 99.0], [6.0, 99.0, 99.0]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert masked_sum(values, mask).item() == 9
    assert masked_sum(values, mask, dim=1).tolist() == [3.0, 6.0]
    assert masked_mean(values, mask).item() == 3
    assert masked_mean(values, mask, dim=1).tolist() == [1.5, 6.0]
    assert masked_var(values, mask).item() == 7  # (4 + 1 + 9) / 2
    assert masked_var(values, mask, unbiased=False).item() == pytest.approx(14 / 3)
    expected = torch.tensor([[-2.0, -1.0, 0.0], [3.0, 0.0, 0.0]]) / 7**0.5
    torch.testing.assert_close(masked_whiten(values, mask), expected)


def test_a_single_valid_token_is_whitened_to_zero():
    assert masked_whiten(torch.tensor([[3.7, 8.0]]), torch.tensor([[1, 0]])).tolist() == [[0.0, 0.0]]


def test_mistakes_are_named():
    mask = torch.ones(1, 2)
    with pytest.raises(UsageError, match="token-mean"):
        token_weights(mask, "token-meen")
    for length in (None, 0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="length"):
            token_weights(mask, "token-sum-norm", length)
    with pytest.raises(UsageError, match="same shape"):
        aggregate(torch.ones(2, 2), mask, "token-mean")
