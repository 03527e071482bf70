"""Rewards of responses that have ended, found while others are still being written."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from braid.data.examples import Example

if TYPE_CHECKING:
    from braid.policies.causal import CausalPolicy
    from braid.tasks.task import TextTask

Key = tuple[int, tuple[int, ...]]
"""A response: the index of its example, and its tokens."""


class EarlyJudge:
    """Judges responses in a thread of its own, in the order in which they are submitted.

    Args:
        task: its verifier looks at one response at a time (`judges_alone`).
        policy: reads tokens.
    """

    def __init__(self, task: TextTask, policy: CausalPolicy) -> None:
        self._task, self._policy = task, policy
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="braid-judge")
        self._running: list[tuple[list[Key], Future[dict[str, list[float]]]]] = []

    def submit(self, examples: Sequence[Example], keys: Sequence[Key]) -> None:
        """Judge responses to these examples, as soon as those submitted before are judged."""
        future = self._pool.submit(self._judge, list(examples), [tokens for _, tokens in keys])
        self._running.append((list(keys), future))

    def collect(self) -> dict[Key, dict[str, float]]:
        """Wait; returns the named terms of every response submitted since the last call.

        Raises:
            UsageError: what the reward function raised.
        """
        found: dict[Key, dict[str, float]] = {}
        running, self._running = self._running, []
        for keys, future in running:
            terms = future.result()
            found |= {key: {name: values[i] for name, values in terms.items()} for i, key in enumerate(keys)}
        return found

    def close(self) -> None:
        """Let the thread end; what nobody collected is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _judge(self, examples: list[Example], tokens: list[tuple[int, ...]]) -> dict[str, list[float]]:
        return self._task.reward(examples, [self._policy.decode(row) for row in tokens])
