"""What a method may ask for during a step, with a real policy."""

import math
from types import SimpleNamespace

import pytest
import torch

from braid.data.streams import ExampleStream
from braid.errors import UsageError
from braid.methods.context import Context
from braid.methods.rlvr.hpt import HPT
from braid.methods.rlvr.ppo import PPO
from braid.methods.rlvr.rloo import RLOO
from braid.policies import tiny
from braid.rollout.sampler import Sampling
from braid.training.learner import Learner
from braid.training.settings import Settings


@pytest.fixture
def real_context(tiny_policy, parity_task):
    examples = parity_task.examples("train", 8)
    return Context(
        step=0,
        policy=tiny_policy,
        task=parity_task,
        prompts=ExampleStream(examples, 0),
        demonstration_pool=ExampleStream(examples, 1),
        generator=torch.Generator().manual_seed(0),
        state={},
        prompts_per_step=3,
        max_new_tokens=6,
    )


def test_rollouts_share_a_group_per_prompt(real_context):
    batch = real_context.rollouts(4, Sampling(6))
    assert torch.equal(batch.group_id, batch.example_index)
    assert torch.unique(batch.group_id, return_counts=True)[1].tolist() == [4, 4, 4]
    assert batch.online.all()


def test_judging_sets_reward_terms_and_success_rate(real_context):
    own = real_context.rollouts(4, Sampling(6))
    batch = real_context.judge(real_context.join(own, real_context.demonstrations_of(own)))
    right = [float(len(text) % 2 == 0) for text in real_context.completions(own)]
    assert batch.reward.tolist() == right + [1.0] * 3
    assert sorted(batch.terms.keys()) == ["correct", "format"]
    rate = torch.tensor(right).view(3, 4).mean(-1)
    torch.testing.assert_close(batch.success_rate, torch.cat([rate.repeat_interleave(4), torch.ones(3)]))


def test_demonstrations_count_as_right_whatever_the_verifier_says(real_context, monkeypatch):
    nothing = lambda examples, texts: dict.fromkeys(("reward", "correct", "format"), [0.0] * len(texts))  # noqa: E731
    monkeypatch.setattr(real_context.task, "reward", nothing)
    own = real_context.rollouts(2, Sampling(6))
    batch = real_context.judge(real_context.join(own, real_context.demonstrations_of(own)))
    assert batch.reward.tolist() == batch.terms["correct"].tolist() == [0.0] * 6 + [1.0] * 3
    assert batch.success_rate.tolist() == [0.0] * 6 + [1.0] * 3


def test_demonstrations_end_with_eos_unless_cut(real_context):
    whole = real_context.demonstrations(2)
    assert whole.response_length.tolist() == [3, 3]  # "aa" and its end
    assert whole.tokens[whole.response_mask][-1] == real_context.policy.tokenizer.eos_token_id
    assert not whole.truncated.any()
    real_context.max_demonstration_tokens = 2
    cut = real_context.demonstrations(2)
    assert real_context.policy.tokenizer.eos_token_id not in cut.tokens[cut.response_mask].tolist()
    assert cut.truncated.all()


def test_demonstrations_join_the_group_of_their_prompt(real_context):
    own = real_context.rollouts(2, Sampling(6))
    shown = real_context.demonstrations_of(own)
    assert shown.group_id.tolist() == [0, 1, 2]
    assert shown.demonstrated.all()


def test_missing_demonstrations_are_named(real_context):
    real_context.demonstration_pool = None
    with pytest.raises(UsageError, match="no demonstrations"):
        real_context.demonstrations(1)


@pytest.mark.parametrize("budget", [1, 30, 10_000])
def test_reference_and_value_do_not_depend_on_the_micro_batch(budget, real_context):
    policy = real_context.policy
    policy.keep_reference()
    policy.add_value_head()
    torch.nn.init.normal_(policy.value_head.weight)
    batch = real_context.rollouts(3, Sampling(6))
    whole = policy.score(batch)
    real_context.micro_batch_tokens = budget
    found = real_context.with_value(real_context.with_reference(batch, temperature=1.0))
    torch.testing.assert_close(found.reference_log_prob, whole.log_prob, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.value, whole.value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("owner", [RLOO, PPO])
def test_the_first_policy_pays_no_penalty(owner, real_context):
    """The reference is the policy itself, so that a penalty from the behaviour's log-probabilities is 0."""
    real_context.policy.keep_reference()
    method = owner(temperature=0.7)
    batch = method.feedback(method.experience(real_context), real_context)
    assert batch.token_reward.abs().max().item() < 1e-5
    assert batch.reference_log_prob.abs().max().item() > 1


def test_the_penalty_of_a_moved_policy_is_the_log_ratio_of_its_samples(real_context):
    policy = real_context.policy
    policy.keep_reference()
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(1.5)
    method = RLOO(beta=0.5, temperature=0.7)
    batch = method.feedback(method.experience(real_context), real_context)
    reference = policy.reference_log_prob(batch, temperature=0.7)
    expected = -0.5 * (batch.behaviour_log_prob - reference) * batch.response_mask
    torch.testing.assert_close(batch.token_reward, expected, rtol=1e-4, atol=1e-5)
    assert batch.token_reward.abs().max().item() > 1e-3


@pytest.fixture
def imitating(parity_task):
    """A step of HPT that imitates every question, with its raw gradient norm times a factor."""

    def step(coefficient):
        policy = tiny(1.2e5, seed=1)
        method = HPT(
            switch_gate=2, group_size=2, entropy_coefficient=0, updates_per_batch=1, sft_coefficient=coefficient
        )
        examples = parity_task.examples("train", 8)
        learner = Learner(
            policy,
            method,
            parity_task,
            Settings(prompts_per_step=2),
            prompts=examples,
            demonstrations=examples,
            max_new_tokens=4,
        )
        before = [weight.detach().clone() for weight in policy.parameters()]
        metrics = learner.step(0.0)
        changed = any(not torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
        return SimpleNamespace(norm=metrics["grad_norm"], skipped=metrics["step/skipped"], changed=changed)

    return step


def test_a_raw_gradient_norm_above_eighty_skips_the_step(imitating):
    unit = imitating(1.0)
    assert unit.changed
    over, under = imitating(81 / unit.norm), imitating(79 / unit.norm)
    assert over.norm == pytest.approx(81, rel=1e-3)
    assert (over.changed, over.skipped) == (False, 1.0)
    assert under.norm == pytest.approx(79, rel=1e-3)
    assert (under.changed, under.skipped) == (True, 0.0)
    assert math.isfinite(under.norm)
