"""Evaluate a language policy on a task: sample every problem several times, verify, average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from braid.data.examples import Example
from braid.data.ragged import build_rollouts, micro_batches, trim
from braid.data.records import Source
from braid.evaluation.pass_at_k import pass_at_k
from braid.rollout.sampler import Sampling, sample

if TYPE_CHECKING:
    from braid.policies.causal import CausalPolicy
    from braid.tasks.task import TextTask


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, P problems times n samples.

    Args:
        metrics: `pass@1`, `pass@k` for powers of two up to n and for n, `reward`, every term, `mean_length`,
            `truncated`, and `loss` (nats per token of the demonstrations) where there are any.
        correct: [P, n] bool.
        problems: ids, P of them.
        samples: one readable record per problem: prompt, answer, completion, reward.
    """

    metrics: dict[str, float]
    correct: np.ndarray
    problems: list[str]
    samples: list[dict[str, Any]]

    @property
    def per_problem(self) -> list[float]:
        """Share of right samples of each problem."""
        return [float(share) for share in self.correct.mean(axis=1)]


def evaluate(
    policy: CausalPolicy,
    task: TextTask,
    examples: Sequence[Example],
    *,
    sampling: Sampling,
    samples: int = 1,
    seed: int = 0,
    decode_batch: int = 512,
    token_budget: int = 16384,
) -> Evaluation:
    """Sample every problem `samples` times and verify.

    Args:
        policy: what is evaluated.
        task: its verifier judges.
        examples: the problems, at least one.
        sampling: how tokens are chosen.
        samples: per problem.
        seed: of sampling; the same seed gives the same samples.
        decode_batch: responses decoded together.
        token_budget: padded positions scored together for the loss on demonstrations.
    """
    generator = torch.Generator(device=policy.device).manual_seed(seed)
    prompts = [policy.encode_prompt(example.prompt) for example in examples]
    drawn = sample(policy, prompts, sampling, group_size=samples, generator=generator, batch_size=decode_batch)
    texts = [policy.decode(tokens) for tokens in drawn.tokens]
    rows = [example for example in examples for _ in range(samples)]
    terms = task.reward(rows, texts)
    correct = np.asarray(terms["correct"]).reshape(len(examples), samples) >= 1.0
    ks = sorted({1, samples, *(2**i for i in range(1, 11) if 2**i <= samples)})
    metrics = {f"pass@{k}": float(np.mean(pass_at_k(correct, k))) for k in ks}
    metrics.update({name: float(np.mean(values)) for name, values in terms.items() if name != "correct"})
    metrics["mean_length"] = float(np.mean([len(tokens) for tokens in drawn.tokens]))
    metrics["truncated"] = float(drawn.truncated.float().mean())
    if any(example.completion for example in examples):
        metrics["loss"] = demonstration_loss(policy, examples, token_budget)
    records = [
        {"prompt": rows[i].prompt, "answer": rows[i].answer, "completion": texts[i], "reward": terms["reward"][i]}
        for i in range(0, len(rows), samples)
    ]
    return Evaluation(metrics, correct, [example.id for example in examples], records)


def demonstration_loss(policy: CausalPolicy, examples: Sequence[Example], token_budget: int = 16384) -> float:
    """Mean negative log-likelihood (nats per token) of the examples' completions; those without are left out."""
    shown = [example for example in examples if example.completion]
    batch = build_rollouts(
        [policy.encode_prompt(example.prompt) for example in shown],
        [policy.encode_completion(example.completion or "") for example in shown],
        pad_token_id=policy.pad_token_id,
        source=Source.DEMONSTRATION,
    )
    total = 0.0
    for rows in micro_batches(batch, token_budget):
        total -= float(policy.score(trim(batch[rows]).to(policy.device)).log_prob.double().sum())
    return total / int(batch.response_mask.sum())
