"""What a method may ask for during a step: rollouts, demonstrations, judgements, log-probabilities."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDict
from torch import Tensor

from braid.data.examples import Example
from braid.data.ragged import build_rollouts, concatenate, micro_batches, response_tokens, trim
from braid.data.records import Rollouts, Source
from braid.data.streams import ExampleStream
from braid.errors import UsageError
from braid.losses import advantages
from braid.methods.early_judge import EarlyJudge, Key
from braid.rollout.sampler import OnFinished, Sampling, sample

if TYPE_CHECKING:
    from braid.methods.token import State
    from braid.policies.causal import CausalPolicy
    from braid.tasks.task import TextTask


@dataclass
class Context:
    """One step of training as a method sees it.

    Args:
        step: number of steps done before this one.
        policy: what is trained.
        task: judges completions.
        prompts: where the next prompts come from.
        demonstration_pool: where the next demonstrations come from.
        generator: the step's source of randomness, on the policy's device.
        state: the method's own state.
        prompts_per_step: prompts that a step is about.
        max_new_tokens: the longest response, tokens.
        max_demonstration_tokens: demonstrations are cut to this length, losing their EOS.
        decode_batch: responses decoded together.
        micro_batch_tokens: padded tokens of one forward pass.
        early_judge: judges responses while others are still being written; None judges all at once.
        examples: all examples of this step; rows point into it by `example_index`.
        seconds: what `prefill`, `decode` and `reward` have taken in this step; where judging overlaps decoding,
            `reward` is the wait for the rest.
    """

    step: int
    policy: CausalPolicy
    task: TextTask
    prompts: ExampleStream
    demonstration_pool: ExampleStream | None
    generator: torch.Generator
    state: State
    prompts_per_step: int
    max_new_tokens: int
    max_demonstration_tokens: int = 1024
    decode_batch: int = 512
    micro_batch_tokens: int = 16384
    early_judge: EarlyJudge | None = None
    examples: list[Example] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def rollouts(self, group_size: int, sampling: Sampling, prompts: int | None = None) -> Rollouts:
        """Responses of the current policy to the next prompts.

        Args:
            group_size: responses per prompt.
            sampling: how tokens are chosen.
            prompts: number of prompts; those of a step by default.

        Returns:
            [prompts x group_size] rows; rows of one prompt share a `group_id` that is new to this step.
        """
        first = len(self.examples)
        examples = self.prompts.take(prompts or self.prompts_per_step)
        self.examples.extend(examples)
        encoded = [self.policy.encode_prompt(example.prompt) for example in examples]
        samples = sample(
            self.policy,
            encoded,
            sampling,
            group_size=group_size,
            generator=self.generator,
            batch_size=self.decode_batch,
            on_finished=self._judge_early(first, group_size),
        )
        for phase, seconds in samples.seconds.items():
            self._spent(phase, seconds)
        group = torch.arange(first, len(self.examples)).repeat_interleave(group_size)
        return build_rollouts(
            [prompt for prompt in encoded for _ in range(group_size)],
            samples.tokens,
            pad_token_id=self.policy.pad_token_id,
            log_probs=samples.log_probs,
            group_id=group,
            example_index=group,
            truncated=samples.truncated,
        )

    def _judge_early(self, first: int, group_size: int) -> OnFinished | None:
        """What the sampler tells of finished rows, whose examples begin at index `first`; None if nobody listens."""
        judge = self.early_judge
        if judge is None:
            return None

        def listen(rows: list[int], tokens: list[list[int]]) -> None:
            indices = [first + row // group_size for row in rows]
            keys = [(index, tuple(row)) for index, row in zip(indices, tokens, strict=True)]
            judge.submit([self.examples[index] for index in indices], keys)

        return listen

    def demonstrations(self, count: int) -> Rollouts:
        """The next demonstrations of the pool, each a group of its own."""
        if self.demonstration_pool is None:
            raise UsageError(f"task {self.task.name!r} has no demonstrations")
        first = len(self.examples)
        self.examples.extend(self.demonstration_pool.take(count))
        return self._demonstrate(range(first, first + count))

    def demonstrations_of(self, batch: Rollouts) -> Rollouts:
        """One demonstration for each prompt of `batch`, in its group."""
        return self._demonstrate(torch.unique(batch.example_index).tolist())

    def _demonstrate(self, indices: Sequence[int]) -> Rollouts:
        examples = [self.examples[i] for i in indices]
        missing = [example.id for example in examples if example.completion is None]
        if missing:
            raise UsageError(f"example {missing[0]} has no completion; this method needs one for every prompt")
        responses = [self.policy.encode_completion(example.completion or "") for example in examples]
        limit = self.max_demonstration_tokens
        batch = build_rollouts(
            [self.policy.encode_prompt(example.prompt) for example in examples],
            [response[:limit] for response in responses],
            pad_token_id=self.policy.pad_token_id,
            group_id=list(indices),
            example_index=list(indices),
            source=Source.DEMONSTRATION,
            truncated=[len(response) > limit for response in responses],
        )
        ones = torch.ones(len(batch))
        return batch.replace(
            reward=ones, success_rate=ones.clone(), terms=TensorDict({"correct": ones.clone()}, batch_size=[len(batch)])
        )

    def judge(self, batch: Rollouts) -> Rollouts:
        """The batch with the task's reward, every named term and the success rate of each prompt.

        Demonstrations count as right, with reward 1, and are no part of a success rate.
        """
        with self._timed("reward"):
            judgement = self._judgement(batch)
        terms = {name: torch.tensor(values, dtype=torch.float32) for name, values in judgement.items()}
        ones = torch.ones(len(batch))
        terms = {name: torch.where(batch.online, values, ones) for name, values in terms.items()}
        reward = terms.pop("reward")
        judged = batch.replace(reward=reward, terms=TensorDict(terms, batch_size=[len(batch)]))
        own, rate = judged.online, judged.success_rate.clone()
        rate[own] = advantages.success_rate(judged.correct[own], judged.group_id[own])
        return judged.replace(success_rate=rate)

    def _judgement(self, batch: Rollouts) -> dict[str, list[float]]:
        """The task's named terms of every row, those that were found early among them."""
        keys: list[Key] = list(zip(batch.example_index.tolist(), map(tuple, response_tokens(batch)), strict=True))
        known = self.early_judge.collect() if self.early_judge else {}
        missing = [key for key in keys if key not in known]
        if missing or not keys:
            texts = [self.policy.decode(tokens) for _, tokens in missing]
            terms = self.task.reward([self.examples[index] for index, _ in missing], texts)
            if not known:
                return terms
            known |= {key: {name: values[i] for name, values in terms.items()} for i, key in enumerate(missing)}
        return {name: [known[key][name] for key in keys] for name in known[keys[0]]}

    def close(self) -> None:
        """End what the step has started."""
        if self.early_judge is not None:
            self.early_judge.close()

    @contextlib.contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._spent(phase, time.perf_counter() - started)

    def _spent(self, phase: str, seconds: float) -> None:
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    def completions(self, batch: Rollouts) -> list[str]:
        """The text of every response."""
        return [self.policy.decode(tokens) for tokens in response_tokens(batch)]

    def with_reference(self, batch: Rollouts, temperature: float) -> Rollouts:
        """The batch with log-probabilities under the frozen reference."""

        def score(part: Rollouts) -> Tensor:
            return self.policy.reference_log_prob(part, temperature=temperature)

        return batch.replace(reference_log_prob=self.in_pieces(batch, score))

    def with_value(self, batch: Rollouts) -> Rollouts:
        """The batch with the critic's estimates."""
        return batch.replace(value=self.in_pieces(batch, lambda part: self.policy.score(part).value))

    def in_pieces(self, batch: Rollouts, score: Callable[[Rollouts], Tensor]) -> Tensor:
        """[B, T]: what `score` says of the rows, asked for a micro-batch on the policy's device at a time."""
        values = torch.zeros_like(batch.behaviour_log_prob)
        for rows in micro_batches(batch, self.micro_batch_tokens):
            part = trim(batch[rows]).to(self.policy.device)
            values[rows, : part.tokens.shape[-1]] = score(part).cpu()
        return values

    def join(self, *batches: Rollouts) -> Rollouts:
        """One batch of the rows of several."""
        return concatenate([batch for batch in batches if len(batch)] or [batches[0]], self.policy.pad_token_id)
