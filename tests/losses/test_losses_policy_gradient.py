"""Surrogates: values and gradients by hand, and the identities between them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses import imitation
from braid.losses import policy_gradient as pg
from braid.losses.advantages import signed_outcome
from braid.losses.aggregation import aggregate, masked_mean

NUMBERS = st.floats(-3, 3, allow_nan=False)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=8)


def at_ratio(ratio):
    """log_prob (a leaf) and behaviour_log_prob of one token with the given ratio."""
    behaviour = torch.full((1, 1), -1.0, dtype=torch.float64)
    return (behaviour + math.log(ratio)).requires_grad_(), behaviour


def value_and_gradient(loss, leaf):
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.sum().item(), gradient.sum().item()


def random_batch(seed=0, rows=3, width=4, spread=0.5):
    generator = torch.Generator().manual_seed(seed)
    behaviour = -torch.rand(rows, width, generator=generator, dtype=torch.float64) * 3
    log_prob = behaviour + spread * torch.randn(rows, width, generator=generator, dtype=torch.float64)
    advantage = torch.randn(rows, generator=generator, dtype=torch.float64)
    mask = torch.ones(rows, width, dtype=torch.bool)
    mask[0, 2:] = False
    return log_prob.requires_grad_(), behaviour, advantage, mask


def test_log_ratio_is_clamped_and_the_behaviour_detached():
    log_prob, behaviour = torch.tensor([[0.0, -50.0, -1.0]]), torch.tensor([[-50.0, 0.0, -1.5]], requires_grad=True)
    assert pg.log_ratio(log_prob, behaviour).tolist() == [[20.0, -20.0, 0.5]]
    ratio = pg.importance_ratio(log_prob, behaviour, limit=1.0)
    torch.testing.assert_close(ratio, torch.tensor([[math.e, 1 / math.e, math.exp(0.5)]]))
    assert not ratio.requires_grad


def test_all_surrogates_have_the_same_gradient_on_policy():
    log_prob, _, advantage, mask = random_batch()
    behaviour = log_prob.detach()
    ratio = pg.importance_ratio(log_prob, behaviour)
    sequence = pg.sequence_ratio(log_prob, behaviour, mask)
    losses = [
        pg.plain(ratio, advantage),
        pg.reinforce(log_prob, advantage),
        pg.clip(ratio, advantage, 0.2, 0.28),
        pg.clip(ratio, advantage, 0.2, 0.2, dual_clip=3.0),
        pg.cispo(log_prob, ratio, advantage, 0.2, 0.28),
        pg.gradient_preserving_clip(log_prob, behaviour, advantage, 0.2, 0.28),
        pg.clip(sequence, advantage, 3e-4, 4e-4),
        pg.unified(log_prob, behaviour, advantage, mask),
    ]
    count = mask.sum(dim=1, keepdim=True)
    expected = torch.where(mask, -advantage.unsqueeze(1) / (3 * count), 0.0)
    for loss in losses:
        (gradient,) = torch.autograd.grad(aggregate(loss, mask, "seq-mean-token-mean"), log_prob, retain_graph=True)
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "gradient"),
    [(1, 1.5, -1.28, 0), (1, 0.5, -0.5, -0.5), (-1, 0.5, 0.8, 0), (-1, 1.5, 1.5, 1.5), (-1, 4, 4, 4)],
)
def test_clip_by_hand(advantage, ratio, loss, gradient):
    log_prob, behaviour = at_ratio(ratio)
    actual = pg.clip(pg.importance_ratio(log_prob, behaviour), torch.tensor([float(advantage)]), 0.2, 0.28)
    assert value_and_gradient(actual, log_prob) == pytest.approx((loss, gradient))


def test_dual_clip_stops_the_gradient_of_large_ratios_with_negative_advantage():
    log_prob, behaviour = at_ratio(4.0)
    ratio = pg.importance_ratio(log_prob, behaviour)
    assert value_and_gradient(pg.clip(ratio, torch.tensor([-2.0]), 0.2, 0.2, dual_clip=3.0), log_prob) == (6.0, 0.0)
    unclipped = pg.clip(pg.importance_ratio(log_prob, behaviour), torch.tensor([2.0]), 0.2, 9.0, dual_clip=3.0)
    assert value_and_gradient(unclipped, log_prob) == pytest.approx((-8.0, -8.0))


@pytest.mark.parametrize(
    ("advantage", "ratio", "factor"), [(1, 1.5, 1.28), (1, 0.5, 0.8), (-1, 0.5, 0.8), (-1, 4, 1.28)]
)
def test_cispo_never_loses_its_gradient(advantage, ratio, factor):
    log_prob, behaviour = at_ratio(ratio)
    loss = pg.cispo(log_prob, pg.importance_ratio(log_prob, behaviour), torch.tensor([float(advantage)]), 0.2, 0.28)
    assert value_and_gradient(loss, log_prob)[1] == pytest.approx(-advantage * factor)


@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "gradient"),
    [(1, 1.5, -1.28, -1.28), (1, 0.5, -0.5, -0.5), (-1, 0.5, 0.8, 0.8), (-1, 1.5, 1.5, 1.5), (-1, 12, 10, 0)],
)
def test_gradient_preserving_clip_by_hand(advantage, ratio, loss, gradient):
    log_prob, behaviour = at_ratio(ratio)
    advantages = torch.tensor([float(advantage)])
    actual = pg.gradient_preserving_clip(log_prob, behaviour, advantages, 0.2, 0.28, dual_clip=10.0)
    assert value_and_gradient(actual, log_prob) == pytest.approx((loss, gradient))


def test_betas_scale_only_the_gradient_of_their_side():
    for advantage, ratio, expected in ((1.0, 1.5, -0.64), (-1.0, 0.5, 0.24)):
        log_prob, behaviour = at_ratio(ratio)
        loss = pg.gradient_preserving_clip(log_prob, behaviour, torch.tensor([advantage]), 0.2, 0.28, 0.3, 0.5)
        plain = pg.clip(pg.importance_ratio(log_prob, behaviour), torch.tensor([advantage]), 0.2, 0.28)
        assert value_and_gradient(loss, log_prob) == pytest.approx((plain.item(), expected))


def test_the_preserved_gradient_survives_an_overflowing_ratio():
    log_prob = torch.tensor([[0.0]], requires_grad=True)
    loss = pg.gradient_preserving_clip(log_prob, torch.tensor([[-2000.0]]), torch.tensor([1.0]), 0.2, 0.28)
    assert value_and_gradient(loss, log_prob) == pytest.approx((-1.28, -1.28))


@given(PAIRS, st.sampled_from([None, 3.0, 10.0]))
@settings(deadline=None)
def test_gradient_preserving_clip_is_clip_in_value_and_bounded_in_gradient(pairs, dual_clip):
    difference, advantage = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    log_prob = difference.unsqueeze(0).requires_grad_()
    behaviour, advantage = torch.zeros_like(log_prob), advantage.unsqueeze(0)
    clipped = pg.clip(pg.importance_ratio(log_prob, behaviour), advantage, 0.2, 0.28, dual_clip)
    preserved = pg.gradient_preserving_clip(log_prob, behaviour, advantage, 0.2, 0.28, dual_clip=dual_clip)
    torch.testing.assert_close(preserved, clipped)
    (gradient,) = torch.autograd.grad(preserved.sum(), log_prob, retain_graph=True)
    if dual_clip is not None:
        assert (gradient.abs() <= max(1.28, dual_clip) * advantage.abs() * (1 + 1e-9)).all()
    switched_off = pg.gradient_preserving_clip(log_prob, behaviour, advantage, 0.2, 0.28, 0.0, 0.0, dual_clip)
    (without,) = torch.autograd.grad(switched_off.sum(), log_prob)
    (expected,) = torch.autograd.grad(clipped.sum(), log_prob)
    torch.testing.assert_close(without, expected)


def test_sequence_ratio_has_the_value_and_gradient_of_the_sequence_form():
    log_prob, behaviour, advantage, mask = random_batch(spread=0.2)
    for length_normalised, reduce in ((True, "mean"), (False, "sum")):
        difference = torch.where(mask, log_prob - behaviour, 0.0).sum(dim=1)
        ratio = (difference / mask.sum(dim=1) if reduce == "mean" else difference).exp()
        for loss in (pg.plain, lambda r, a: pg.clip(r, a, 0.05, 0.05)):
            expected = loss(ratio, advantage).mean()
            token_form = pg.sequence_ratio(log_prob, behaviour, mask, length_normalised=length_normalised)
            actual = aggregate(loss(token_form, advantage), mask, "seq-mean-token-mean")
            torch.testing.assert_close(actual, expected)
            torch.testing.assert_close(
                torch.autograd.grad(actual, log_prob, retain_graph=True),
                torch.autograd.grad(expected, log_prob, retain_graph=True),
            )


def test_sequence_ratio_is_limited_and_finite_on_empty_rows():
    log_prob = torch.tensor([[0.0, 0.0], [5.0, 5.0]], requires_grad=True)
    ratio = pg.sequence_ratio(log_prob, torch.tensor([[-30.0, 7e5], [-9.0, 1.0]]), torch.tensor([[1, 0], [0, 0]]))
    torch.testing.assert_close(ratio, torch.tensor([[math.exp(10)] * 2, [1.0, 1.0]]))
    ratio.sum().backward()
    assert log_prob.grad.tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_unified_estimator_reproduces_the_others():
    log_prob, behaviour, advantage, _ = random_batch(seed=3)
    here, ones = log_prob.detach(), torch.ones_like(log_prob)
    ratio = pg.importance_ratio(log_prob, behaviour)
    below, above = pg.clip_fraction(ratio, advantage, 0.2, 0.28)
    assert (below | above).any()
    assert not (below | above).all()
    sequence = pg.sequence_ratio(log_prob, behaviour, ones)
    pairs = [
        (pg.unified(log_prob, here, torch.ones(3), ones), imitation.negative_log_likelihood(log_prob)),
        (pg.unified(log_prob, here, advantage.sign(), ones), pg.reinforce(log_prob, advantage.sign())),
        (pg.unified(log_prob, behaviour, advantage, ~(below | above)), pg.clip(ratio, advantage, 0.2, 0.28)),
        (
            pg.unified(log_prob, here - ratio.detach().clamp(0.8, 1.28).log(), advantage, ones),
            pg.cispo(log_prob, ratio, advantage, 0.2, 0.28),
        ),
        (pg.unified(log_prob, here - sequence.detach().log(), advantage, ones), pg.plain(sequence, advantage)),
    ]
    for actual, expected in pairs:
        torch.testing.assert_close(
            torch.autograd.grad(actual.sum(), log_prob, retain_graph=True),
            torch.autograd.grad(expected.sum(), log_prob, retain_graph=True),
            atol=1e-6,
            rtol=1e-6,
        )


def test_clip_fraction_counts_only_the_active_side():
    ratio = torch.tensor([[0.5, 1.0, 1.5], [0.5, 1.0, 1.5]])
    low, high = pg.clip_fraction(ratio, torch.tensor([1.0, -1.0]), 0.2, 0.28)
    assert low.tolist() == [[False] * 3, [True, False, False]]
    assert high.tolist() == [[False, False, True], [False] * 3]
    assert masked_mean(high.float(), torch.ones(2, 3)).item() == pytest.approx(1 / 6)


def test_negative_reinforcement_hands_mass_to_the_alternatives_in_proportion():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().requires_grad_()
    log_prob = torch.log_softmax(logits, dim=-1)[:, :1]
    (negative,) = torch.autograd.grad(pg.reinforce(log_prob, torch.tensor([-1.0])).sum(), logits, retain_graph=True)
    torch.testing.assert_close(-negative, torch.tensor([[-0.5, 0.3, 0.2]]))
    (positive,) = torch.autograd.grad(pg.reinforce(log_prob, torch.tensor([1.0])).sum(), logits)
    torch.testing.assert_close(positive, negative.neg())


def test_weighted_reinforce_is_the_weighted_sum_of_its_parts():
    log_prob, behaviour, _, mask = random_batch(seed=5, rows=4)
    correct = torch.tensor([1, 0, 1, 0])

    def gradient(positive, negative):
        ratio = pg.importance_ratio(log_prob, behaviour)
        loss = aggregate(pg.clip(ratio, signed_outcome(correct, positive, negative), 0.2, 0.2), mask, "token-mean")
        return torch.autograd.grad(loss, log_prob)[0]

    torch.testing.assert_close(gradient(0.1, 1.0), 0.1 * gradient(1.0, 0.0) + gradient(0.0, 1.0))


def test_signed_outcomes_on_policy_are_reinforce_and_sft_on_correct_samples():
    log_prob, _, _, mask = random_batch(seed=6, rows=4)
    correct = torch.tensor([1, 0, 1, 0])
    ratio = pg.importance_ratio(log_prob, log_prob.detach())
    clipped = pg.clip(ratio, signed_outcome(correct), 0.2, 0.2)
    signed = pg.reinforce(log_prob, torch.tensor([1.0, -1, 1, -1]))
    torch.testing.assert_close(
        torch.autograd.grad(aggregate(clipped, mask, "token-mean"), log_prob, retain_graph=True),
        torch.autograd.grad(aggregate(signed, mask, "token-mean"), log_prob),
    )
    kept = mask & (correct == 1).unsqueeze(1)
    positive = pg.clip(pg.importance_ratio(log_prob, log_prob.detach()), signed_outcome(correct, 1.0, 0.0), 0.2, 0.2)
    torch.testing.assert_close(
        torch.autograd.grad(aggregate(positive, kept, "token-mean"), log_prob),
        torch.autograd.grad(aggregate(imitation.negative_log_likelihood(log_prob), kept, "token-mean"), log_prob),
    )


SURROGATES = {
    "plain": lambda lp, b, a, m: pg.plain(pg.importance_ratio(lp, b), a),
    "reinforce": lambda lp, b, a, m: pg.reinforce(lp, a),
    "clip": lambda lp, b, a, m: pg.clip(pg.importance_ratio(lp, b), a, 0.2, 0.28, 3.0),
    "cispo": lambda lp, b, a, m: pg.cispo(lp, pg.importance_ratio(lp, b), a, 0.2, 0.28),
    "gppo": lambda lp, b, a, m: pg.gradient_preserving_clip(lp, b, a, 0.2, 0.28, dual_clip=10.0),
    "gspo": lambda lp, b, a, m: pg.clip(pg.sequence_ratio(lp, b, m), a, 3e-4, 4e-4),
    "rloo": lambda lp, b, a, m: pg.clip(pg.sequence_ratio(lp, b, m, length_normalised=False), a, 0.2, 0.2),
    "unified": lambda lp, b, a, m: pg.unified(lp, b, a, m),
}


@pytest.mark.parametrize("name", SURROGATES)
@given(junk=st.floats(-1e6, 1e6), other=st.floats(-1e6, 1e6), padding=st.integers(0, 2))
@settings(deadline=None, max_examples=25)
def test_padding_leaks_into_neither_value_nor_gradient(name, junk, other, padding):
    log_prob, behaviour, advantage, mask = random_batch(seed=1)

    def run(log_prob, behaviour, mask):
        leaf = log_prob.detach().clone().requires_grad_()
        loss = aggregate(SURROGATES[name](leaf, behaviour, advantage, mask), mask, "seq-mean-token-mean")
        return loss, torch.autograd.grad(loss, leaf)[0]

    def widen(tensor, fill):
        filled = torch.where(mask, tensor, torch.as_tensor(fill, dtype=tensor.dtype))
        return torch.cat([filled, torch.full((3, padding), fill, dtype=tensor.dtype)], dim=1)

    expected, gradient = run(log_prob, behaviour, mask)
    actual, wide = run(widen(log_prob, junk), widen(behaviour, other), widen(mask, False))
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(wide[:, :4], gradient)
    assert (wide[:, 4:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SURROGATES)
def test_types_are_kept_and_advantages_detached(name, dtype):
    tensors = [tensor.detach().to(dtype) for tensor in random_batch()[:3]]
    tensors[2].requires_grad_()
    loss = SURROGATES[name](*tensors, torch.ones(3, 4))
    assert loss.dtype == dtype
    assert loss.shape == (3, 4)
    assert not loss.requires_grad


def test_advantages_may_be_given_per_token():
    log_prob, behaviour, advantage, mask = random_batch()
    for surrogate in SURROGATES.values():
        torch.testing.assert_close(
            surrogate(log_prob, behaviour, advantage.unsqueeze(1).expand(3, 4), mask),
            surrogate(log_prob, behaviour, advantage, mask),
        )


def test_mistakes_are_named():
    ratio, advantage = torch.ones(1, 1), torch.ones(1)
    with pytest.raises(UsageError, match="clip_low"):
        pg.clip(ratio, advantage, 1.2, 0.2)
    with pytest.raises(UsageError, match="clip_high"):
        pg.cispo(ratio, ratio, advantage, 0.2, -0.1)
    with pytest.raises(UsageError, match="dual_clip"):
        pg.gradient_preserving_clip(ratio, ratio, advantage, 0.2, 0.2, dual_clip=1.0)
