"""Advantages: hand-computed values, invariances, and the cases without a spread."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses import advantages as adv
from braid.losses.aggregation import masked_whiten

ONE_OF_FOUR, GROUP = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.full((4,), 17)
EASY, TWO_GROUPS = torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0]), torch.tensor([5, 5, 5, 5, -3, -3, -3, -3])
CENTERS, SCALES = ["none", "group", "batch", "leave_one_out"], ["none", "group", "batch", "batch_centered"]
ROWS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.7, 1.0]), st.sampled_from([-9, 0, 4, 10**12])), min_size=1)


def close(actual, expected, **tolerance):
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=actual.dtype), **tolerance)


def test_one_success_of_four():
    close(adv.leave_one_out(ONE_OF_FOUR, GROUP), [1, -1 / 3, -1 / 3, -1 / 3])
    close(adv.group_normalised(ONE_OF_FOUR, GROUP, epsilon=0.0), [1.5, -0.5, -0.5, -0.5])
    close(adv.group_centred(ONE_OF_FOUR, GROUP), [0.75, -0.25, -0.25, -0.25])
    close(adv.batch_normalised(ONE_OF_FOUR, GROUP, epsilon=0.0), [1.5, -0.5, -0.5, -0.5])


def test_group_mean_with_the_standard_deviation_of_the_batch():
    expected = [0.4830, 0.4830, 0.4830, -1.4491, 0, 0, 0, 0]
    close(adv.batch_normalised(EASY, TWO_GROUPS), expected, atol=1e-4, rtol=0)
    expected = [0.7638, 0.7638, 0.7638, -2.2913, 0, 0, 0, 0]
    close(adv.normalise(EASY, TWO_GROUPS, "group", "batch_centered"), expected, atol=1e-4, rtol=0)


def test_batch_normalisation_ignores_the_scale_of_rewards_but_not_a_constant_per_prompt():
    torch.testing.assert_close(
        adv.batch_normalised(10 * EASY, TWO_GROUPS, epsilon=0.0), adv.batch_normalised(EASY, TWO_GROUPS, epsilon=0.0)
    )
    shifted = EASY + (TWO_GROUPS == 5) * 3.0
    torch.testing.assert_close(adv.group_centred(shifted, TWO_GROUPS), adv.group_centred(EASY, TWO_GROUPS))
    torch.testing.assert_close(adv.group_normalised(shifted, TWO_GROUPS), adv.group_normalised(EASY, TWO_GROUPS))
    spread = torch.tensor([4.0, 4, 4, 3, 0, 0, 0, 0]).std()
    torch.testing.assert_close(
        adv.batch_normalised(shifted, TWO_GROUPS, epsilon=0.0), adv.group_centred(EASY, TWO_GROUPS) / spread
    )


def test_the_sizes_that_the_lite_ppo_card_quotes():
    seven, four = torch.tensor([1.0] * 7 + [0.0]), torch.tensor([1.0] * 4 + [0.0] * 4)
    group = torch.zeros(8, dtype=torch.int64)
    close(adv.group_normalised(seven, group)[[0, 7]], [0.354, -2.475], atol=1e-3, rtol=0)
    close(adv.group_normalised(four, group)[[0, 7]], [0.935, -0.935], atol=1e-3, rtol=0)


def test_population_and_sample_deviation_differ_by_the_known_factor():
    population = adv.normalise(EASY, TWO_GROUPS, "group", "group", epsilon=0.0, ddof=0)
    sample = adv.normalise(EASY, TWO_GROUPS, "group", "group", epsilon=0.0, ddof=1)
    torch.testing.assert_close(sample, population * (3 / 4) ** 0.5)


def test_leave_one_out_is_the_centred_reward_scaled():
    reward, group = torch.tensor([0.2, 0.9, 0.4, 0.1, 0.8]), torch.tensor([1, 2, 1, 2, 1])
    size = torch.tensor([3.0, 2, 3, 2, 3])
    expected = size / (size - 1) * adv.group_centred(reward, group)
    torch.testing.assert_close(adv.leave_one_out(reward, group), expected)
    torch.testing.assert_close(adv.normalise(reward, group, "leave_one_out", "none"), expected)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("center", ["group", "batch", "leave_one_out"])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 1 / 3])
def test_equal_rewards_give_exactly_zero(center, scale, value):
    reward, group = torch.full((7,), value), torch.tensor([1, 1, 1, 2, 2, 2, 2])
    for epsilon in (0.0, 1e-6):
        assert adv.normalise(reward, group, center, scale, epsilon).tolist() == [0.0] * 7


def test_a_group_of_one():
    reward, group = torch.tensor([0.5]), torch.tensor([3])
    assert adv.leave_one_out(reward, group).item() == 0
    assert adv.leave_one_out(reward, group, singleton="reward").item() == 0.5
    assert adv.group_normalised(reward, group).item() == pytest.approx(0.5)
    assert adv.normalise(reward, group, "group", "group", singleton="zero").item() == 0
    assert adv.normalise(reward, group, "batch", "batch").item() == 0
    assert adv.group_std(reward, group).item() == 0


@given(ROWS, st.sampled_from(CENTERS), st.sampled_from(SCALES), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_row_order_and_group_names_do_not_matter(rows, center, scale, random):
    reward = torch.tensor([row[0] for row in rows], dtype=torch.float64)
    group = torch.tensor([row[1] for row in rows])
    expected = adv.normalise(reward, group, center, scale, epsilon=1e-3)
    assert expected.isfinite().all()
    order = list(range(len(rows)))
    random.shuffle(order)
    renamed = -3 * (group[order] % 1001) + 7
    torch.testing.assert_close(
        adv.normalise(reward[order], renamed, center, scale, epsilon=1e-3), expected[order], atol=1e-9, rtol=1e-7
    )


def test_group_statistics_match_torch_group_by_group():
    values, group = torch.rand(20, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3 * 100
    for name in (0, 100, 200):
        member = group == name
        close(adv.group_mean(values, group)[member], [values[member].mean().item()] * int(member.sum()))
        for ddof in (0, 1):
            expected = values[member].std(correction=ddof).item()
            close(adv.group_std(values, group, ddof)[member], [expected] * int(member.sum()))
    assert adv.group_size(group)[:3].tolist() == [7, 7, 6]


def test_group_statistics_have_the_right_gradients():
    group = torch.tensor([4, 9, 4, 9, 4])
    values = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: adv.group_mean(x, group), values)
    assert torch.autograd.gradcheck(lambda x: adv.group_std(x, group), values)
    equal = torch.ones(5, requires_grad=True)
    adv.group_std(equal, group).sum().backward()
    assert equal.grad.tolist() == [0.0] * 5


def test_signed_outcomes_are_psr_nsr_and_weighted_reinforce():
    correct = torch.tensor([1, 0, 1, 0])
    assert adv.signed_outcome(correct, 1.0, 0.0).tolist() == [1, 0, 1, 0]
    assert adv.signed_outcome(correct, 0.0, 1.0).tolist() == [0, -1, 0, -1]
    close(adv.signed_outcome(correct, 0.1, 1.0), [0.1, -1, 0.1, -1])
    torch.testing.assert_close(adv.signed_outcome(correct), 2 * correct.float() - 1)


def test_monte_carlo_remax_and_success_rate():
    reward = torch.tensor([1.0, 0.0, 1.0])
    assert adv.monte_carlo(reward).tolist() == [1, 0, 1]
    assert adv.monte_carlo(reward, 0.25).tolist() == [0.75, -0.25, 0.75]
    assert adv.remax(reward, torch.tensor([1.0, 1.0, 0.0])).tolist() == [0, -1, 1]
    rate = adv.success_rate(torch.tensor([True, True, False, False, True]), torch.tensor([8, 8, 8, 8, 1]))
    assert rate.tolist() == [0.5, 0.5, 0.5, 0.5, 1.0]
    success = adv.success_rate(torch.tensor([1] * 15 + [0]), torch.zeros(16, dtype=torch.int64))
    assert success[0].item() == 15 / 16


def test_gae_by_hand():
    reward, value = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.4, 0.2]])
    advantage, returns = adv.gae(reward, value, torch.ones(1, 3), discount=0.9, gae_lambda=0.5)
    last = 1 - 0.2
    middle = 0.9 * 0.2 - 0.4 + 0.45 * last
    first = 0.9 * 0.4 - 0.5 + 0.45 * middle
    close(advantage, [[first, middle, last]])
    close(returns, [[first + 0.5, middle + 0.4, last + 0.2]])


def test_gae_limits():
    generator = torch.Generator().manual_seed(0)
    reward, value = torch.randn(3, 5, generator=generator), torch.randn(3, 5, generator=generator)
    mask = torch.ones(3, 5, dtype=torch.bool)
    advantage, returns = adv.gae(reward, value, mask, 0.9, 1.0)
    to_go = adv.return_to_go(reward, mask, 0.9)
    torch.testing.assert_close(advantage, to_go - value)
    torch.testing.assert_close(returns, to_go)
    one_step = reward + 0.9 * torch.cat([value[:, 1:], torch.zeros(3, 1)], dim=1) - value
    torch.testing.assert_close(adv.gae(reward, value, mask, 0.9, 0.0)[0], one_step)


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.floats(-1e6, 1e6))
@settings(deadline=None)
def test_gae_over_tool_tokens_is_gae_without_them(pattern, junk):
    mask = torch.tensor([pattern])
    generator = torch.Generator().manual_seed(2)
    reward = torch.randn(1, len(pattern), generator=generator, dtype=torch.float64)
    value = torch.randn(1, len(pattern), generator=generator, dtype=torch.float64)
    short = [tensor[mask].unsqueeze(0) for tensor in (reward, value, mask)]
    expected = adv.gae(*short, 0.9, 0.8)
    reward[~mask], value[~mask] = junk, -junk
    for actual, compact in zip(adv.gae(reward, value, mask, 0.9, 0.8), expected, strict=True):
        torch.testing.assert_close(actual[mask], compact[0])
        assert (actual[~mask] == 0).all()


def test_return_to_go_carries_over_masked_tokens():
    reward, mask = torch.tensor([[1.0, 50.0, 2.0, 4.0, 50.0]]), torch.tensor([[1, 0, 1, 1, 0]])
    assert adv.return_to_go(reward, mask, 0.5).tolist() == [[3.0, 0.0, 4.0, 4.0, 0.0]]


def test_reinforce_plus_plus_is_a_whitened_return_to_go():
    reward, mask = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[1, 1], [1, 0]])
    whitened = masked_whiten(adv.return_to_go(reward, mask, 1.0), mask)
    close(whitened, [[1 / 3**0.5, 1 / 3**0.5], [-2 / 3**0.5, 0]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_advantages_keep_the_type_and_are_detached(dtype):
    reward = torch.tensor([1.0, 0.0, 0.5], dtype=dtype, requires_grad=True)
    group = torch.tensor([1, 1, 2])
    for center in CENTERS:
        for scale in SCALES:
            advantage = adv.normalise(reward, group, center, scale)
            assert advantage.dtype == dtype
            assert not advantage.requires_grad
    assert not adv.monte_carlo(reward).requires_grad
    assert adv.normalise(torch.tensor([1, 0]), torch.tensor([1, 1]), "group", "none").tolist() == [0.5, -0.5]


def test_nothing_valid_and_single_tokens_are_finite():
    zeros = torch.zeros(2, 1)
    advantage, returns = adv.gae(zeros + 1, zeros + 0.25, torch.tensor([[True], [False]]), 1.0, 1.0)
    assert advantage.tolist() == [[0.75], [0.0]]
    assert returns.tolist() == [[1.0], [0.0]]


def test_an_empty_batch_stays_empty():
    reward, group = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    for center in CENTERS:
        for scale in SCALES:
            assert adv.normalise(reward, group, center, scale).shape == (0,)
    assert adv.gae(torch.zeros(2, 0), torch.zeros(2, 0), torch.zeros(2, 0), 1.0, 1.0)[0].shape == (2, 0)


def test_mistakes_are_named():
    with pytest.raises(UsageError, match="group"):
        adv.normalise(ONE_OF_FOUR, GROUP, "groop", "none")
    with pytest.raises(UsageError, match="batch"):
        adv.normalise(ONE_OF_FOUR, GROUP, "none", "bach")
    with pytest.raises(UsageError, match="singleton"):
        adv.leave_one_out(ONE_OF_FOUR, GROUP, singleton="one")
    with pytest.raises(UsageError, match="ddof"):
        adv.group_std(ONE_OF_FOUR, GROUP, ddof=2)
    with pytest.raises(UsageError, match="epsilon"):
        adv.group_normalised(ONE_OF_FOUR, GROUP, epsilon=-1.0)
    with pytest.raises(UsageError, match="discount"):
        adv.return_to_go(torch.ones(1, 1), torch.ones(1, 1), 1.1)
    with pytest.raises(UsageError, match="group_id"):
        adv.group_mean(ONE_OF_FOUR, GROUP[:2])
