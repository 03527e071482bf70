"""The payments world: determinism, exact expectations, logged propensities, delays, drift and difficulty."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.data.bandit_log import NEVER
from braid.errors import UsageError
from braid.evaluation.off_policy import doubly_robust, inverse_propensity, self_normalised
from braid.losses.exploration import inverse_gap_weighting
from braid.tasks.bandit.payment_requests import FEATURES, Requests
from braid.tasks.bandit.payments import PaymentsTask

TASK = PaymentsTask()


def uniform(requests: Requests) -> Any:
    return requests.mask / requests.mask.sum(1, keepdims=True)


def same(one: Requests, other: Requests) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(Requests))


@given(st.integers(0, 3000), st.integers(0, 40), st.sampled_from(["train", "validation", "test", "ood"]))
@settings(max_examples=25, deadline=None)
def test_a_request_depends_only_on_seed_split_and_index(start: int, n: int, split: Any) -> None:
    whole = TASK.requests(split, 3040, seed=3)
    part = TASK.requests(split, n, seed=3, start=start)
    chosen = Requests(*(getattr(whole, f.name)[start : start + n] for f in dataclasses.fields(Requests)))
    assert same(part, chosen)


def test_seeds_and_splits_differ_and_options_do_not_change_the_chances() -> None:
    one = TASK.requests("train", 100)
    assert not same(one, TASK.requests("train", 100, seed=1))
    assert not same(one, TASK.requests("validation", 100))
    assert same(one, PaymentsTask(effect_size=1.0, drift=0.5, delay=3).requests("train", 100))
    np.testing.assert_array_equal(one.chance, PaymentsTask(issuers=7, max_actions=3).requests("train", 100).chance)
    assert np.unique(np.concatenate([one.chance, TASK.requests("test", 100).chance])).size == 1000


def test_features_are_what_they_are_called() -> None:
    requests = TASK.requests("train", 20_000)
    assert requests.x.shape == (20_000, 20)
    assert requests.x.dtype == np.float32
    assert list(TASK.category_sizes) == list(FEATURES)
    for name, size in TASK.category_sizes.items():
        if size:
            occurring = 50 if name == "issuer" else size  # ten more issuers are those of the ood split
            assert np.unique(requests.column(name)).tolist() == list(range(occurring))
    assert np.isfinite(requests.x).all()
    assert set(np.unique(requests.column("hour"))) == set(range(24))
    assert requests.column("history_rate").mean() == pytest.approx(1 / 1.15, abs=0.005)  # of u ** 0.15
    assert requests.column("earlier_attempts").mean() == pytest.approx(0.3 / 0.7, abs=0.02)
    counts = np.bincount(requests.column("issuer").astype(int))
    assert counts[0] / counts[45] == pytest.approx(50 / 5, rel=0.35)


def test_the_ood_split_has_issuers_of_its_own() -> None:
    issuers = {split: set(TASK.requests(split, 4000).column("issuer")) for split in ("train", "test", "ood")}
    assert issuers["train"] == issuers["test"] == set(range(50))
    assert issuers["ood"] == set(range(50, 60))


@pytest.mark.parametrize(("fewest", "most"), [(2, 8), (1, 1), (3, 4), (8, 8)])
def test_numbers_of_available_actions(fewest: int, most: int) -> None:
    mask = PaymentsTask(min_actions=fewest, max_actions=most).requests("train", 4000).mask
    counts = np.bincount(mask.sum(1), minlength=9)
    assert counts[:fewest].sum() == counts[most + 1 :].sum() == 0
    np.testing.assert_allclose(counts[fewest : most + 1] / 4000, 1 / (most - fewest + 1), atol=0.03)
    assert mask[:, 0].all()
    others = mask[:, 1:].mean(0)
    np.testing.assert_allclose(others, others.mean(), atol=0.04)


def test_rewards_have_the_expectation_that_is_claimed() -> None:
    """Group by predicted probability, serve uniformly, and compare the means with binomial errors."""
    requests = TASK.requests("train", 60_000)
    log = TASK.serve(requests, uniform(requests), generation=2)
    expected = TASK.expected_reward(requests, 2)[np.arange(len(log)), log.action]
    for low, high in ((0.3, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 0.95), (0.95, 1.0)):
        inside = (expected > low) & (expected <= high)
        error = np.sqrt((expected[inside] * (1 - expected[inside])).sum()) / inside.sum()
        assert inside.sum() > 500
        assert abs(log.reward[inside].mean() - expected[inside].mean()) < 4 * error
    for action in range(8):
        inside = log.action == action
        assert log.reward[inside].mean() == pytest.approx(expected[inside].mean(), abs=0.02)


def test_expectations_are_those_of_the_formula() -> None:
    """Action 0 has no effect; the effect of a pair is the sum of two singles and of an issuer's interaction."""
    task = PaymentsTask(min_actions=8, drift=0.3)
    requests = task.requests("test", 3000)
    expected = task.expected_reward(requests, 4)
    logit = np.log(expected) - np.log1p(-expected)
    effect = logit - logit[:, :1]
    interaction = effect[:, 3] - effect[:, 1] - effect[:, 2]
    issuer = requests.column("issuer").astype(int)
    for level in range(5):
        assert np.ptp(interaction[issuer == level]) < 1e-9  # depends on the issuer alone
        sizes = np.abs(effect[issuer == level, 1])
        assert np.ptp(sizes) < 1e-9  # only the sign of a single intervention depends on the context
        small = effect[(issuer == level), 1] > 0
        amount = requests.column("log_amount")[issuer == level]
        assert amount[small].max() < amount[~small].min() or amount[~small].max() < amount[small].min()
    assert np.ptp(interaction) > 0.1
    triple = effect[:, 7] - sum(effect[:, bit] for bit in (1, 2, 4))
    pairs = sum(effect[:, a + b] - effect[:, a] - effect[:, b] for a, b in ((1, 2), (1, 4), (2, 4)))
    np.testing.assert_allclose(triple, pairs, atol=1e-9)
    assert TASK.action_features.tolist() == [[a & 1, a >> 1 & 1, a >> 2 & 1] for a in range(8)]


def test_unavailable_actions_have_no_expectation_and_are_never_best() -> None:
    requests = TASK.requests("test", 2000)
    expected = TASK.expected_reward(requests)
    assert (expected[~requests.mask] == 0).all()
    assert ((expected[requests.mask] > 0) & (expected[requests.mask] < 1)).all()
    assert requests.mask[np.arange(2000), TASK.best_action(requests)].all()


@pytest.mark.parametrize("world_seed", [0, 1, 2])
def test_the_default_is_as_hard_as_it_says(world_seed: int) -> None:
    """Base rate 0.88; the best action beats action 0 by 2 to 4 points, and the issuer decides which it is."""
    task = PaymentsTask(world_seed=world_seed)
    requests = task.requests("test", 10_000)
    for generation in (0, 8):
        scores = task.reference_scores(requests, generation)
        assert scores["default"] == pytest.approx(0.88, abs=0.006)
        assert 0.02 < scores["oracle"] - scores["default"] < 0.04
        assert scores["random"] < scores["default"] + 0.002
    expected = task.expected_reward(requests)
    everywhere = np.where(requests.mask, expected, np.nan)
    fixed = [np.nanmean(np.where(requests.mask[:, a], everywhere[:, a] - everywhere[:, 0], np.nan)) for a in range(8)]
    assert max(fixed) < 0.4 * (scores["oracle"] - scores["default"])


def test_the_base_rate_is_met_whatever_it_is() -> None:
    for rate in (0.2, 0.5, 0.97):
        requests = (task := PaymentsTask(base_rate=rate)).requests("validation", 20_000)
        assert task.reference_scores(requests)["default"] == pytest.approx(rate, abs=0.005)


def test_values_are_exact() -> None:
    requests = TASK.requests("test", 500)
    scores = TASK.reference_scores(requests, 3)
    best = np.eye(8)[TASK.best_action(requests, 3)]
    assert TASK.value(requests, best, 3) == pytest.approx(scores["oracle"], abs=1e-12)
    assert TASK.value(requests, uniform(requests), 3) == pytest.approx(scores["random"], abs=1e-12)
    assert TASK.value(requests, np.eye(8)[np.zeros(500, int)], 3) == pytest.approx(scores["default"], abs=1e-12)


def test_drift_is_stationary_and_can_be_turned_off() -> None:
    requests = TASK.requests("test", 3000)
    still = PaymentsTask(drift=0.0)
    np.testing.assert_array_equal(still.expected_reward(requests, 0), still.expected_reward(requests, 9))
    moving = PaymentsTask(drift=0.3)

    def effects(generation: int) -> Any:
        return moving._effects(generation)

    correlation = [np.corrcoef(effects(0).ravel(), effects(later).ravel())[0, 1] for later in (1, 5)]
    assert correlation == pytest.approx([0.91**0.5, 0.91**2.5], abs=0.12)
    assert [effects(g).std() for g in (0, 5, 20)] == pytest.approx([1, 1, 1], abs=0.12)
    changed = np.abs(moving.expected_reward(requests, 1) - moving.expected_reward(requests, 0)).max()
    assert changed > 0.01
    renewed = PaymentsTask(drift=1.0)
    assert abs(np.corrcoef(renewed._effects(0).ravel(), renewed._effects(1).ravel())[0, 1]) < 0.2


def test_a_log_records_what_was_served() -> None:
    requests = TASK.requests("train", 30_000, start=60_000)
    scores = np.where(requests.mask, TASK.expected_reward(requests), np.nan)
    served = inverse_gap_weighting(torch.from_numpy(scores), torch.from_numpy(requests.mask), 30.0).numpy()
    log = TASK.serve(requests, served, generation=3)
    rows = np.arange(len(log))
    np.testing.assert_allclose(log.propensity, served[rows, log.action], rtol=1e-12)
    assert log.mask[rows, log.action].all()
    counts = np.bincount(log.action, minlength=8)
    errors = np.sqrt((served * (1 - served)).sum(0))
    assert (np.abs(counts - served.sum(0)) < 4 * errors).all()
    assert log.t[0] == 60_000
    assert set(log.generation) == {3}
    assert set(log.arrival) == {4}
    assert not log.uniform_bucket.any()
    assert log.action_features.shape == (30_000, 8, 3)
    assert set(np.unique(log.reward)) == {0.0, 1.0}


def test_the_same_action_on_the_same_request_has_the_same_reward() -> None:
    requests = TASK.requests("train", 5000)
    first = TASK.serve(requests, np.eye(8)[np.zeros(5000, int)], 0)
    mixed = TASK.serve(requests, uniform(requests), 0)
    again = mixed.action == 0
    assert again.sum() > 500
    np.testing.assert_array_equal(first.reward[again], mixed.reward[again])


def test_served_one_by_one_is_served_as_a_batch() -> None:
    requests = TASK.requests("train", 40)
    whole = TASK.serve(requests, uniform(requests), 1, uniform_share=0.2)
    for index in (0, 17, 39):
        one = TASK.requests("train", 1, start=index)
        row = TASK.serve(one, uniform(one), 1, uniform_share=0.2)
        assert (row.action[0], row.reward[0], row.propensity[0], row.t[0], row.uniform_bucket[0]) == (
            whole.action[index],
            whole.reward[index],
            whole.propensity[index],
            index,
            whole.uniform_bucket[index],
        )


def test_a_single_available_action_is_served_with_propensity_one() -> None:
    task = PaymentsTask(min_actions=1, max_actions=1)
    requests = task.requests("train", 300)
    probabilities = inverse_gap_weighting(torch.rand(300, 8), torch.from_numpy(requests.mask), 10.0)
    for share in (0.0, 0.3):
        log = task.serve(requests, probabilities.numpy(), 0, uniform_share=share)
        assert (log.action == 0).all()
        assert (log.propensity == 1).all()


def test_the_uniform_bucket_and_its_propensities() -> None:
    requests = TASK.requests("train", 40_000)
    greedy = np.eye(8)[TASK.best_action(requests)]
    log = TASK.serve(requests, greedy, 0, uniform_share=0.1)
    assert log.uniform_bucket.mean() == pytest.approx(0.1, abs=0.006)
    rows = np.arange(len(log))
    np.testing.assert_allclose(log.propensity, 0.1 / log.mask.sum(1) + 0.9 * greedy[rows, log.action])
    assert (log.action[~log.uniform_bucket] == TASK.best_action(requests)[~log.uniform_bucket]).all()
    target, everything = uniform(requests), TASK.reference_scores(requests)["random"]
    for part in (log, log.bucket()):  # either propensity is right for its rows
        found = inverse_propensity(target[part.t, part.action], part.propensity, part.reward)
        assert abs(found.value - everything) < 4 * found.standard_error < 0.1


def test_estimators_find_the_exact_value_of_another_policy() -> None:
    requests = TASK.requests("train", 20_000)
    log = TASK.serve(requests, uniform(requests), 0)
    target = np.eye(8)[TASK.best_action(requests)]
    exact = TASK.reference_scores(requests)["oracle"]
    chosen = target[np.arange(len(log)), log.action]
    model = np.full((20_000, 8), 0.88)
    for found in (
        inverse_propensity(chosen, log.propensity, log.reward),
        self_normalised(chosen, log.propensity, log.reward),
        doubly_robust(target, log.action, log.propensity, log.reward, model),
    ):
        assert abs(found.value - exact) < 4 * found.standard_error < 0.08


def test_rewards_arrive_late_or_never() -> None:
    requests = TASK.requests("train", 40_000)
    arrival = PaymentsTask(delay=2, late_rate=0.25, lost_rate=0.1).serve(requests, uniform(requests), 5).arrival
    lost = arrival == NEVER
    assert lost.mean() == pytest.approx(0.1, abs=0.006)
    waits = arrival[~lost] - 7
    assert waits.min() == 0
    assert [(waits == k).mean() for k in (0, 1, 2)] == pytest.approx([0.75, 0.1875, 0.046875], abs=0.01)


def test_it_is_fast() -> None:
    TASK.requests("train", 10)
    started = time.process_time()
    requests = TASK.requests("train", 20_000)
    TASK.serve(requests, uniform(requests), 3)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_actions": 5, "max_actions": 4}, "min_actions=5 is greater than max_actions=4"),
        ({"max_actions": 9}, "max_actions=9 must be at least 1 and at most 8"),
        ({"base_rate": 1.0}, "base_rate=1.0 must be above 0 and below 1"),
        ({"late_rate": 1.0}, "late_rate=1.0"),
        ({"drift": float("nan")}, "drift=nan"),
        ({"delay": 0}, "delay=0"),
    ],
)
def test_wrong_options_are_explained(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        PaymentsTask(**options)


def test_wrong_calls_are_explained() -> None:
    requests = TASK.requests("train", 4)
    good = uniform(requests)
    with pytest.raises(UsageError, match="did you mean train"):
        TASK.requests("trian", 1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="start=-1"):
        TASK.requests("train", 1, start=-1)
    with pytest.raises(UsageError, match="generation=-1"):
        TASK.serve(requests, good, -1)
    with pytest.raises(UsageError, match=r"uniform_share=1\.5"):
        TASK.serve(requests, good, 0, uniform_share=1.5)
    with pytest.raises(UsageError, match="shape"):
        TASK.serve(requests, good[:3], 0)
    for wrong in (good * 0.9, good * np.nan, -good, np.roll(good, 1, axis=1)):
        with pytest.raises(UsageError, match=r"probabilities of request .* 0 on unavailable"):
            TASK.value(requests, wrong)


def test_every_option_says_what_it_is() -> None:
    for field in dataclasses.fields(PaymentsTask):
        assert len(field.metadata["help"]) > 10
        assert "unit" in field.metadata
