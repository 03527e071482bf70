"""Likelihood losses: CHORD, NFT, OTR, LUFFY and SRFT by hand, and their identities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses import imitation as im
from braid.losses import policy_gradient as pg
from braid.losses.advantages import normalise, success_rate
from braid.losses.aggregation import aggregate, token_weights


def token(probability):
    return torch.tensor([[probability]], dtype=torch.float64).log().requires_grad_()


def value_and_gradient(loss, leaf):
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.sum().item(), gradient.sum().item()


class TestWeightedLikelihood:
    @pytest.mark.parametrize(("probability", "weight"), [(0.5, 0.25), (0.9, 0.09), (1e-9, 1e-9), (1.0, 0.0)])
    def test_uncertainty_weight_by_hand(self, probability, weight):
        log_prob = token(probability)
        loss = im.weighted_likelihood(log_prob, "uncertainty")
        expected = (-weight * math.log(probability), -weight)
        assert value_and_gradient(loss, log_prob) == pytest.approx(expected, abs=1e-12)

    def test_probability_weight_has_the_gradient_of_dft(self):
        log_prob = torch.tensor([[0.2, 0.5, 0.9]]).log().requires_grad_()
        aggregate(im.weighted_likelihood(log_prob, "probability"), torch.ones(1, 3), "token-mean").backward()
        torch.testing.assert_close(log_prob.grad, -torch.tensor([[0.2, 0.5, 0.9]]) / 3)

    def test_cutoff_flattens_likely_tokens(self):
        log_prob = token(0.9)
        loss = im.weighted_likelihood(log_prob, "uncertainty", cutoff_prob=0.8)
        assert value_and_gradient(loss, log_prob) == pytest.approx((-0.09 * math.log(0.8), 0.0))
        log_prob = token(0.5)
        loss = im.weighted_likelihood(log_prob, "uncertainty", cutoff_prob=0.8)
        assert value_and_gradient(loss, log_prob) == pytest.approx((0.25 * math.log(2), -0.25))

    def test_weight_one_is_the_negative_log_likelihood(self):
        log_prob = torch.tensor([[0.0, -1.0, -30.0]])
        assert im.weighted_likelihood(log_prob).tolist() == im.negative_log_likelihood(log_prob).tolist()

    @pytest.mark.parametrize("mu", [0.0, 0.3, 1.0])
    def test_mixing_with_rl_on_separate_denominators(self, mu):
        """CHORD's step: mu = 0 is GRPO's gradient and mu = 1 that of SFT, whatever the share of expert rows."""
        log_prob = -torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
        expert = torch.tensor([False, False, False, True, True]).unsqueeze(1).expand(5, 4)
        advantage = torch.tensor([1.0, -0.5, -0.5, 0.0, 0.0])
        log_prob.requires_grad_()
        surrogate = pg.clip(pg.importance_ratio(log_prob, log_prob.detach()), advantage, 0.2, 0.2)
        likelihood = im.weighted_likelihood(log_prob)
        rl, sft = token_weights(~expert, "token-mean"), token_weights(expert, "token-mean")
        loss = ((1 - mu) * rl * surrogate + mu * sft * likelihood).sum()
        (gradient,) = torch.autograd.grad(loss, log_prob)
        expected = torch.where(expert, torch.tensor(-mu / 8), -(1 - mu) * advantage.unsqueeze(1) / 12)
        torch.testing.assert_close(gradient, expected)

    def test_micro_batches_with_equal_token_counts(self):
        log_prob = (-torch.rand(4, 3, generator=torch.Generator().manual_seed(1))).requires_grad_()
        mask = torch.ones(4, 3)
        whole = aggregate(im.weighted_likelihood(log_prob, "uncertainty"), mask, "token-mean")
        (expected,) = torch.autograd.grad(whole, log_prob)
        halves = [
            aggregate(im.weighted_likelihood(log_prob[rows], "uncertainty"), mask[rows], "token-mean") / 2
            for rows in (slice(0, 2), slice(2, 4))
        ]
        (gradient,) = torch.autograd.grad(sum(halves), log_prob)
        torch.testing.assert_close(gradient, expected)


def test_unlikelihood_by_hand():
    log_prob = token(0.25)
    assert value_and_gradient(im.unlikelihood(log_prob), log_prob) == pytest.approx((-math.log(0.75), 1 / 3))
    certain = token(1.0)
    assert value_and_gradient(im.unlikelihood(certain), certain) == pytest.approx((-math.log(1e-5), 0.0))


def nft(ratio, correct, rate, **options):
    behaviour = torch.full((1, 1), -2.0, dtype=torch.float64)
    log_prob = (behaviour + math.log(ratio)).requires_grad_()
    loss = im.negative_aware_likelihood(
        log_prob, behaviour, torch.tensor([correct]), torch.tensor([rate], dtype=torch.float64), **options
    )
    return value_and_gradient(loss, log_prob)


class TestNegativeAwareLikelihood:
    @pytest.mark.parametrize(("kind", "weight"), [("one", 1.0), ("failure", 0.75), ("odds", 3**0.5)])
    def test_gradients_on_policy(self, kind, weight):
        assert nft(1.0, True, 0.25, prompt_weight=kind) == pytest.approx((0.0, -weight))
        assert nft(1.0, False, 0.25, prompt_weight=kind) == pytest.approx((0.0, weight / 3))

    def test_odds_weight_by_the_numbers_of_the_card(self):
        assert nft(1.0, True, 0.25, prompt_weight="odds")[1] == pytest.approx(-1.732, abs=1e-3)
        assert nft(1.0, False, 0.25, prompt_weight="odds")[1] == pytest.approx(0.5774, abs=1e-4)

    @pytest.mark.parametrize(
        ("ratio", "floor", "expected"),
        [
            (2.0, 1.0, (0.0, 2.0)),
            (0.5, 1.0, (-math.log(1.5), 1 / 3)),
            (1.2, 0.5, (-math.log(0.8), 1.5)),
            (3.0, 0.5, (math.log(2), 6.0)),
        ],
    )
    def test_wrong_answers_off_policy(self, ratio, floor, expected):
        assert nft(ratio, False, 0.5, floor=floor, prompt_weight="one") == pytest.approx(expected)

    def test_correct_answers_cost_the_log_ratio(self):
        assert nft(0.5, True, 0.5, prompt_weight="one") == pytest.approx((math.log(2), -1.0))
        assert nft(0.5, True, 0.5, prompt_weight="one", positive_floor=0.8) == pytest.approx((-math.log(0.8), -0.625))
        assert nft(1e-60, True, 0.5, prompt_weight="one") == pytest.approx((60 * math.log(10), -1.0))

    def test_the_log_ratio_is_clamped_without_gradient_beyond(self):
        assert nft(math.exp(11), True, 0.5, prompt_weight="one") == pytest.approx((-10.0, 0.0))
        assert nft(math.exp(11), False, 0.5, prompt_weight="one") == pytest.approx((0.0, 0.0))

    def test_rates_are_clamped(self):
        assert nft(1.0, False, 15 / 16, prompt_weight="one")[1] == pytest.approx(15)
        assert nft(1.0, False, 0.99, prompt_weight="one")[1] == pytest.approx(49)
        assert nft(1.0, False, 0.0, prompt_weight="one")[1] == pytest.approx(1 / 49)
        correct = torch.tensor([1, 1, -1, -1]) > 0
        assert success_rate(correct, torch.zeros(4, dtype=torch.int64)).tolist() == [0.5] * 4

    def test_without_negatives_it_is_rejection_fine_tuning(self):
        generator = torch.Generator().manual_seed(0)
        behaviour, correct = -torch.rand(4, 3, generator=generator), torch.tensor([1, 0, 1, 0])
        log_prob = (behaviour + 0.1 * torch.randn(4, 3, generator=generator)).requires_grad_()
        rate = torch.tensor([0.25, 0.25, 0.5, 0.5])
        loss = im.negative_aware_likelihood(log_prob, behaviour, correct, rate, negative_weight=0.0)
        expected = ((1 - rate) * correct).unsqueeze(1) * im.negative_log_likelihood(log_prob)
        torch.testing.assert_close(
            torch.autograd.grad(loss.sum(), log_prob), torch.autograd.grad(expected.sum(), log_prob)
        )

    @pytest.mark.parametrize(("kind", "scale"), [("odds", "group"), ("failure", "none")])
    def test_on_policy_it_is_grpo_or_dr_grpo(self, kind, scale):
        reward, group = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 1]), torch.arange(8) // 4
        log_prob = (-torch.rand(8, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
        advantage = normalise(reward, group, "group", scale, epsilon=0.0, ddof=0)
        rate = success_rate(reward, group)
        actual = im.negative_aware_likelihood(log_prob, log_prob.detach(), reward, rate, prompt_weight=kind)
        torch.testing.assert_close(
            torch.autograd.grad(actual.sum(), log_prob),
            torch.autograd.grad(pg.reinforce(log_prob, advantage).sum(), log_prob),
        )

    def test_concatenated_micro_batches_add(self):
        generator = torch.Generator().manual_seed(3)
        behaviour, correct, rate = (
            -torch.rand(4, 3, generator=generator),
            torch.tensor([1, 0, 1, 0]),
            torch.full((4,), 0.5),
        )
        log_prob, mask = behaviour + 0.3 * torch.randn(4, 3, generator=generator), torch.ones(4, 3)

        def loss(rows):
            per_token = im.negative_aware_likelihood(log_prob[rows], behaviour[rows], correct[rows], rate[rows])
            return aggregate(per_token, mask[rows], "token-sum-norm", length=1000)

        torch.testing.assert_close(loss(slice(None)), loss(slice(0, 2)) + loss(slice(2, 4)))

    def test_sequence_level_uses_one_ratio_per_response(self):
        behaviour = torch.full((2, 3), -2.0)
        log_prob = behaviour + torch.tensor([[math.log(0.5), math.log(0.5), 77.0], [math.log(0.5), 0.0, 0.0]])
        mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
        for kind, weight in (("one", 1.0), ("failure", 0.5), ("odds", 1.0)):
            loss = im.negative_aware_likelihood(
                log_prob, behaviour, torch.tensor([1, 0]), torch.tensor([0.5, 0.5]), prompt_weight=kind,
                level="sequence", mask=mask,
            )  # fmt: skip
            torch.testing.assert_close(loss, weight * torch.tensor([math.log(4), -math.log(1.5)]))

    def test_mistakes_are_named(self):
        arguments = (torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1), torch.ones(1))
        for options in (
            {"floor": 0.0},
            {"rate_limit": (0.0, 0.9)},
            {"level": "sequence"},
            {"level": "word"},
            {"prompt_weight": "easy"},
        ):
            with pytest.raises(UsageError):
                im.negative_aware_likelihood(*arguments, **options)


class TestOneTokenRollout:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.tensor([[0, 4, 2], [1, 1, 3]])

    def gradient(self, loss):
        logits = self.logits.clone().requires_grad_()
        return torch.autograd.grad(loss(logits), logits)[0]

    def target_log_prob(self, logits):
        return torch.log_softmax(logits, dim=-1).gather(-1, self.target.unsqueeze(-1)).squeeze(-1)

    @pytest.mark.parametrize("beta", [-0.1, 0.0, 0.5, 1.0])
    def test_at_temperature_one_it_is_dft_scaled(self, beta):
        exact = self.gradient(lambda z: im.one_token_rollout_exact(z, self.target, 1.0, beta).sum())
        dft = self.gradient(lambda z: im.weighted_likelihood(self.target_log_prob(z), "probability").sum())
        torch.testing.assert_close(exact, (1 - beta) * dft, atol=1e-6, rtol=0)

    def test_logit_gradient_by_the_formula(self):
        beta, kappa = -0.3, 1.7
        policy, rollout = self.logits.softmax(-1), (self.logits / kappa).softmax(-1)
        on_target = rollout.gather(-1, self.target.unsqueeze(-1))
        one_hot = torch.nn.functional.one_hot(self.target, 5)
        expected = -((1 - beta) * on_target * (one_hot - policy) + beta * (rollout - policy)) / 3
        exact = self.gradient(lambda z: im.one_token_rollout_exact(z, self.target, kappa, beta).mean(1).sum())
        torch.testing.assert_close(exact, expected)

    def test_two_tokens_by_hand(self):
        logits = torch.zeros(1, 2, requires_grad=True)
        loss = im.one_token_rollout_exact(logits, torch.tensor([0]), 1.0, -1.0)
        assert loss.item() == pytest.approx(0.0)
        loss.sum().backward()
        torch.testing.assert_close(logits.grad, torch.tensor([[-0.5, 0.5]]))

    def test_all_mass_on_the_target_or_none(self):
        logits = torch.tensor([[0.0, -torch.inf, -torch.inf]], requires_grad=True)
        for target, expected in ((0, 0.0), (1, 0.0)):
            loss = im.one_token_rollout_exact(logits, torch.tensor([target]), 1.3, -0.1)
            assert value_and_gradient(loss, logits) == (expected, 0.0)
        certain = torch.tensor([[100.0, 0.0, 0.0]], requires_grad=True)
        samples = im.sample_one_token(certain, 8, 1.3, torch.Generator().manual_seed(0))
        loss = im.one_token_rollout(torch.log_softmax(certain, -1), torch.tensor([0]), samples, -0.1)
        assert value_and_gradient(loss, certain) == pytest.approx((0.0, 0.0))

    def test_given_samples_by_hand_repeats_count(self):
        log_softmax = torch.tensor([[0.5, 0.3, 0.2]]).log()
        loss = im.one_token_rollout(log_softmax, torch.tensor([0]), torch.tensor([[0, 1, 1, 2]]), -0.1)
        expected = -(math.log(0.5) - 0.1 * (2 * math.log(0.3) + math.log(0.2))) / 4
        assert loss.item() == pytest.approx(expected)

    def test_sampling_estimates_the_exact_loss(self):
        samples = im.sample_one_token(self.logits, 20_000, 1.3, torch.Generator().manual_seed(0))
        assert samples.shape == (2, 3, 20_000)
        sampled = im.one_token_rollout(torch.log_softmax(self.logits, -1), self.target, samples, -0.1)
        exact = im.one_token_rollout_exact(self.logits, self.target, 1.3, -0.1)
        torch.testing.assert_close(sampled, exact, atol=0.02, rtol=0)

    def test_sampling_is_seeded(self):
        first, second = (im.sample_one_token(self.logits, 4, 1.3, torch.Generator().manual_seed(7)) for _ in range(2))
        assert torch.equal(first, second)

    def test_ignored_labels_are_finite(self):
        loss = im.one_token_rollout_exact(self.logits, torch.full((2, 3), -100), 1.0, -0.1)
        assert loss.isfinite().all()

    def test_mistakes_are_named(self):
        with pytest.raises(UsageError, match="temperature"):
            im.one_token_rollout_exact(self.logits, self.target, 0.0, -0.1)
        with pytest.raises(UsageError, match="count"):
            im.sample_one_token(self.logits, 0, 1.0)


def test_luffy_shaping_by_hand():
    log_prob = token(0.1)
    assert value_and_gradient(im.luffy_shaping(log_prob, torch.ones(1)), log_prob) == pytest.approx((-0.5, -0.25))


def test_srft_weights_by_hand():
    demonstration, rollout = im.srft_weights(torch.tensor([0.0, 0.0, math.log(2)]), torch.tensor([1, 0, 1]))
    torch.testing.assert_close(demonstration, torch.tensor([0.5, 0.5, 0.25]))
    torch.testing.assert_close(rollout, torch.tensor([0.1, -1.0, 0.2]))


LOSSES = {
    "sft": lambda lp, b, m: im.negative_log_likelihood(lp),
    "dft": lambda lp, b, m: im.weighted_likelihood(lp, "probability"),
    "phi": lambda lp, b, m: im.weighted_likelihood(lp, "uncertainty", 0.9),
    "unlikelihood": lambda lp, b, m: im.unlikelihood(lp),
    "luffy": lambda lp, b, m: im.luffy_shaping(lp, torch.tensor([1.0, -1.0], dtype=lp.dtype)),
    "nft": lambda lp, b, m: im.negative_aware_likelihood(lp, b, torch.tensor([1, 0]), torch.tensor([0.5, 0.5])),
}


@pytest.mark.parametrize("name", LOSSES)
@given(junk=st.floats(-1e6, 1e6), other=st.floats(-1e6, 1e6))
@settings(deadline=None, max_examples=30)
def test_padding_leaks_into_neither_value_nor_gradient(name, junk, other):
    log_prob, behaviour = torch.tensor([[-0.3, -1.0, -2.0], [-0.1, -0.2, -4.0]]), torch.full((2, 3), -1.0)
    mask = torch.tensor([[True, True, False], [True, False, False]])

    def run(log_prob, behaviour):
        leaf = log_prob.clone().requires_grad_()
        loss = aggregate(LOSSES[name](leaf, behaviour, mask), mask, "token-mean")
        return loss, torch.autograd.grad(loss, leaf)[0]

    clean = run(log_prob, behaviour)
    dirty = run(torch.where(mask, log_prob, junk), torch.where(mask, behaviour, other))
    torch.testing.assert_close(dirty, clean)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
def test_types_are_kept(name, dtype):
    log_prob = torch.tensor([[-0.3, -1.0], [-0.1, -0.2]], dtype=dtype)
    assert LOSSES[name](log_prob, log_prob, torch.ones(2, 2)).dtype == dtype


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="uncertainty"):
        im.weighted_likelihood(torch.zeros(1, 1), "uncertanty")
    with pytest.raises(UsageError, match="cutoff_prob"):
        im.weighted_likelihood(torch.zeros(1, 1), cutoff_prob=0.0)
    with pytest.raises(UsageError, match="gamma"):
        im.luffy_shaping(torch.zeros(1, 1), torch.ones(1), gamma=0.0)
    with pytest.raises(UsageError, match="floor"):
        im.unlikelihood(torch.zeros(1, 1), floor=0.0)
