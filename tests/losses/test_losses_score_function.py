"""PACS: the policy as an outcome classifier."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.losses import score_function as sf

ONE_OF_FOUR, GROUP = torch.tensor([1, 0, 0, 0]), torch.full((4,), -6)


def loss_of(proxy, correct, group, balance="balanced", kind="rloo"):
    weight = sf.class_balance_weight(correct, group, balance)
    return sf.outcome_cross_entropy(sf.group_score(proxy, group, kind), correct, weight).mean()


def gradient_at_zero(correct, group, balance):
    proxy = torch.zeros(len(correct), requires_grad=True)
    return torch.autograd.grad(loss_of(proxy, correct, group, balance), proxy)[0]


@pytest.mark.parametrize("correct", [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1]])
@pytest.mark.parametrize("balance", ["balanced", "one"])
def test_the_first_loss_is_log_two(correct, balance):
    assert loss_of(torch.zeros(4), torch.tensor(correct), GROUP, balance).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("balance", ["balanced", "one"])
def test_uniform_groups_push_nothing(label, balance):
    correct = torch.full((4,), label)
    torch.testing.assert_close(gradient_at_zero(correct, GROUP, balance), torch.zeros(4))
    assert sf.class_balance_weight(correct, GROUP, balance).tolist() == [1.0] * 4


def test_gradients_on_the_proxies_by_hand():
    expected = torch.tensor([-1 / 3, 1 / 9, 1 / 9, 1 / 9])
    torch.testing.assert_close(gradient_at_zero(ONE_OF_FOUR, GROUP, "balanced"), expected)
    expected = torch.tensor([-1 / 4, 1 / 12, 1 / 12, 1 / 12])
    torch.testing.assert_close(gradient_at_zero(ONE_OF_FOUR, GROUP, "one"), expected)


def test_two_passes_over_the_group_give_the_direct_gradient():
    generator = torch.Generator().manual_seed(0)
    behaviour = -torch.rand(4, 5, generator=generator)
    log_prob = (behaviour + 0.2 * torch.randn(4, 5, generator=generator)).requires_grad_()
    mask = torch.rand(4, 5, generator=generator) < 0.7
    proxy = sf.reward_proxy(log_prob, behaviour, mask, 0.5)
    (direct,) = torch.autograd.grad(loss_of(proxy, ONE_OF_FOUR, GROUP), log_prob)
    cached = proxy.detach().requires_grad_()
    (weight,) = torch.autograd.grad(loss_of(cached, ONE_OF_FOUR, GROUP), cached)
    second = sf.reward_proxy(log_prob, behaviour, mask, 0.5)
    (two_pass,) = torch.autograd.grad((weight * second).sum(), log_prob)
    torch.testing.assert_close(two_pass, direct)


@given(st.floats(-5, 5), st.permutations(list(range(6))))
@settings(deadline=None)
def test_a_constant_on_a_group_and_the_order_of_rows_change_nothing(constant, order):
    group, correct = torch.tensor([3, 8, 3, 8, 3, 3]), torch.tensor([1, 0, 0, 1, 1, 0])
    proxy = torch.tensor([0.3, -0.2, 0.9, 0.0, -1.1, 0.4], dtype=torch.float64, requires_grad=True)
    loss = loss_of(proxy, correct, group)
    (gradient,) = torch.autograd.grad(loss, proxy, retain_graph=True)
    for name in (3, 8):
        assert gradient[group == name].sum().item() == pytest.approx(0, abs=1e-12)
    shifted = proxy + constant * (group == 3)
    torch.testing.assert_close(sf.group_score(shifted, group), sf.group_score(proxy, group))
    torch.testing.assert_close(loss_of(shifted[order], correct[order], group[order]), loss)


def test_only_one_class():
    correct, group = torch.tensor([1, 0]), torch.tensor([2, 2])
    assert loss_of(torch.zeros(2), correct, group, "only_negative").item() == pytest.approx(math.log(2) / 2)
    assert sf.class_balance_weight(correct, group, "only_negative").tolist() == [0.0, 1.0]
    assert sf.class_balance_weight(correct, group, "only_positive").tolist() == [1.0, 0.0]


def test_balance_is_taken_per_question():
    weight = sf.class_balance_weight(torch.tensor([1, 0, 0, 1, 0]), torch.tensor([1, 1, 1, 2, 1]))
    torch.testing.assert_close(weight, torch.tensor([2.0, 2 / 3, 2 / 3, 1.0, 2 / 3]))


def test_reward_proxies_by_hand_ignore_padding():
    log_prob, behaviour = torch.tensor([[-1.0, -2.0, 9e5], [-3.0, 1e5, 0.0]]), torch.tensor([[-2.0, -2.5, -9e5]] * 2)
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert sf.reward_proxy(log_prob, behaviour, mask, 2.0).tolist() == [3.0, 0.0]
    assert sf.reward_proxy(log_prob, behaviour, mask, 2.0, "mean_log_prob").tolist() == [-3.0, 0.0]


def test_scores_by_hand():
    proxy, group = torch.tensor([1.0, 0.0, 2.0, 5.0]), torch.tensor([1, 1, 1, 7])
    torch.testing.assert_close(sf.group_score(proxy, group), torch.tensor([0.0, -1.5, 1.5, 0.0]))
    torch.testing.assert_close(sf.group_score(proxy, group, "grpo", 0.0)[:3], torch.tensor([0.0, -1.0, 1.0]))
    assert sf.group_score(proxy, group, "grpo")[3].item() == 0
    assert sf.group_score(proxy, group, "naive").tolist() == proxy.tolist()


def test_nothing_in_the_score_is_detached():
    proxy = torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64, requires_grad=True)
    group = torch.tensor([1, 1, 1])
    for kind in ("rloo", "grpo", "naive"):
        assert torch.autograd.gradcheck(lambda p, kind=kind: sf.group_score(p, group, kind), proxy)


@pytest.mark.parametrize("kind", ["rloo", "grpo", "naive"])
def test_equal_proxies_and_single_members_have_finite_gradients(kind):
    proxy = torch.zeros(4, requires_grad=True)
    loss = loss_of(proxy, torch.tensor([1, 0, 0, 1]), torch.tensor([1, 1, 1, 2]), kind=kind)
    assert torch.autograd.grad(loss, proxy)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_types_are_kept(dtype):
    proxy = sf.reward_proxy(torch.ones(4, 2, dtype=dtype), torch.zeros(4, 2, dtype=dtype), torch.ones(4, 2), 1.0)
    assert proxy.dtype == dtype
    assert sf.group_score(proxy, GROUP).dtype == dtype


def test_mistakes_are_named():
    proxy = torch.zeros(4)
    with pytest.raises(UsageError, match="rloo"):
        sf.group_score(proxy, GROUP, "rlo")
    with pytest.raises(UsageError, match="proxy"):
        sf.reward_proxy(proxy, proxy, proxy, 1.0, "sum")
    with pytest.raises(UsageError, match="balanced"):
        sf.class_balance_weight(proxy, GROUP, "balancd")
