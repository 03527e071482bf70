"""Rewards that are found while others are still being written are those found afterwards."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence

import pytest
import torch

from braid.data.examples import Example
from braid.data.streams import ExampleStream
from braid.errors import UsageError
from braid.methods.context import Context
from braid.methods.early_judge import EarlyJudge
from braid.methods.registry import find_method
from braid.policies import CausalPolicy, tiny
from braid.rollout.sampler import Sampling
from braid.tasks.text.jsonl import JsonlTask
from braid.training.learner import Learner
from braid.training.settings import Settings


class Parity:
    """The right answer has an even number of characters."""

    name = "parity"
    judges_alone = True

    def reward(self, examples: Sequence[Example], completions: Sequence[str]) -> dict[str, list[float]]:
        correct = [float(len(text) % 2 == 0) for text in completions]
        return {"reward": correct, "correct": list(correct), "format": [1.0] * len(correct)}


class Recording(Parity):
    """Notes which texts were judged, and in which thread."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []

    def reward(self, examples: Sequence[Example], completions: Sequence[str]) -> dict[str, list[float]]:
        self.calls.append((threading.current_thread().name, list(completions)))
        return super().reward(examples, completions)


@pytest.fixture(scope="module")
def policy() -> CausalPolicy:
    """Ends a response with probability 1/4 at every token."""
    made = tiny(1.2e5)
    bias = torch.zeros(len(made.tokenizer))
    bias[1] = 3.5
    made.model.lm_head.bias = torch.nn.Parameter(bias)
    return made


def context(policy: CausalPolicy, task: Parity, early: bool) -> Context:
    return Context(
        step=0,
        policy=policy,
        task=task,  # type: ignore[arg-type]
        prompts=ExampleStream([Example(id=f"{i}", prompt=f"Q{i}", answer="") for i in range(16)], 0),
        demonstration_pool=None,
        generator=torch.Generator().manual_seed(0),
        state={},
        prompts_per_step=6,
        max_new_tokens=8,
        decode_batch=8,
        early_judge=EarlyJudge(task, policy) if early else None,  # type: ignore[arg-type]
    )


def test_early_judgements_equal_late_ones(policy: CausalPolicy) -> None:
    judged = {}
    tasks = {early: Recording() for early in (False, True)}
    for early, task in tasks.items():
        made = context(policy, task, early)
        judged[early] = made.judge(made.rollouts(4, Sampling(8)))
        made.close()
        assert made.seconds["reward"] >= 0
    assert judged[True].tokens.equal(judged[False].tokens)
    assert judged[True].reward.equal(judged[False].reward)
    assert judged[True].success_rate.equal(judged[False].success_rate)
    for name, values in judged[False].terms.items():
        assert judged[True].terms[name].equal(values)
    assert len(tasks[False].calls) == 1
    names = [name for name, _ in tasks[True].calls]
    assert sum(name.startswith("braid-judge") for name in names) >= 2
    texts = [text for _, texts in tasks[True].calls for text in texts]
    assert sorted(texts) == sorted(tasks[False].calls[0][1])  # each was judged once, none twice
    cut = int(judged[True].truncated.sum())
    assert 0 < cut < len(texts)
    assert sum(len(texts) for name, texts in tasks[True].calls if name == "MainThread") == cut


def test_judging_overlaps_writing(policy: CausalPolicy) -> None:
    class Slow(Parity):
        def reward(self, examples: Sequence[Example], completions: Sequence[str]) -> dict[str, list[float]]:
            began.set()
            assert released.wait(10)
            return super().reward(examples, completions)

    began, released = threading.Event(), threading.Event()
    made = context(policy, Slow(), early=True)
    batch = made.rollouts(4, Sampling(8))  # returns although the judge is still at work
    assert began.wait(10)
    timer = threading.Timer(0.2, released.set)
    timer.start()
    started = time.perf_counter()
    judged = made.judge(batch)
    assert time.perf_counter() - started > 0.1
    assert made.seconds["reward"] > 0.1
    assert len(judged.reward) == 24
    made.close()


def test_an_error_of_the_reward_function_reaches_the_step(policy: CausalPolicy) -> None:
    class Broken(Parity):
        def reward(self, examples: Sequence[Example], completions: Sequence[str]) -> dict[str, list[float]]:
            raise UsageError("reward function 'mine' failed on row 0")

    made = context(policy, Broken(), early=True)
    batch = made.rollouts(4, Sampling(8))
    with pytest.raises(UsageError, match="failed on row 0"):
        made.judge(batch)
    made.close()


@pytest.mark.parametrize(
    ("reward", "choice", "expected"),
    [("math", "auto", True), ("math", "off", False), (len, "auto", False), (len, "on", True)],
)
def test_only_verifiers_that_look_at_one_response_run_early_unless_told_so(
    policy: CausalPolicy, reward: object, choice: str, expected: bool
) -> None:
    task = JsonlTask(data=[{"prompt": f"{i}", "answer": "1"} for i in range(20)], reward_function=reward)  # type: ignore[arg-type]
    settings = dataclasses.replace(Settings(), overlap_rewards=choice)  # type: ignore[arg-type]
    learner = Learner(
        policy,
        find_method("grpo")(),
        task,
        settings,
        prompts=task.examples("train"),
        demonstrations=None,
        max_new_tokens=4,
    )
    assert (learner._context().early_judge is not None) == expected
