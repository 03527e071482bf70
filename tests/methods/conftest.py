"""Hand-made rows and scores, so that a method's strands can be checked against numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from braid.data.ragged import build_rollouts, concatenate
from braid.data.records import Rollouts, Source
from braid.methods.token import Loss, TokenMethod

PROMPT = 2


@dataclass
class StubScores:
    """What `CausalPolicy.score` returns, from numbers: log-probabilities [B, T] with a gradient."""

    log_prob: Tensor
    entropy: Tensor
    value: Tensor
    logits: Tensor | None = None

    def logits_at(self, mask: Tensor) -> Tensor:
        assert self.logits is not None
        return self.logits[mask]


@dataclass
class StubContext:
    """The part of `Context` that credit, selection and weights use."""

    step: int = 0
    max_new_tokens: int = 4
    state: dict[str, Tensor] = field(default_factory=dict)
    experts: Callable[[int], Rollouts] | None = None
    demonstrate: Callable[[Rollouts], Rollouts] | None = None
    critic: Tensor | None = None

    def demonstrations(self, count: int) -> Rollouts:
        assert self.experts is not None
        return self.experts(count)

    def demonstrations_of(self, batch: Rollouts) -> Rollouts:
        assert self.demonstrate is not None
        return self.demonstrate(batch)

    def join(self, *batches: Rollouts) -> Rollouts:
        return concatenate([batch for batch in batches if len(batch)] or [batches[0]], 0)

    def with_value(self, batch: Rollouts) -> Rollouts:
        assert self.critic is not None
        return batch.replace(value=self.critic)

    def judge(self, batch: Rollouts) -> Rollouts:
        return batch

    def with_reference(self, batch: Rollouts, temperature: float) -> Rollouts:
        return batch


def make_rows(
    lengths: Sequence[int],
    correct: Sequence[float],
    *,
    group: Sequence[int] | None = None,
    reward: Sequence[float] | None = None,
    demonstrated: bool = False,
    truncated: Sequence[bool] | None = None,
    success_rate: Sequence[float] | None = None,
    behaviour: float = -1.0,
) -> Rollouts:
    """Rows with a prompt of two tokens, then responses of the given lengths; one group unless said otherwise."""
    size = len(lengths)
    batch = build_rollouts(
        [[7] * PROMPT] * size,
        [[3] * length for length in lengths],
        pad_token_id=0,
        group_id=[0] * size if group is None else group,
        example_index=[0] * size if group is None else group,
        source=Source.DEMONSTRATION if demonstrated else Source.ONLINE,
        truncated=truncated,
    )
    ones = torch.ones(size)
    return batch.replace(
        behaviour_log_prob=torch.zeros_like(batch.value) if demonstrated else behaviour * batch.response_mask,
        reward=torch.tensor(reward or correct, dtype=torch.float32),
        success_rate=ones if success_rate is None else torch.tensor(success_rate, dtype=torch.float32),
        terms=TensorDict({"correct": torch.tensor(correct, dtype=torch.float32)}, batch_size=[size]),
    )


def score_rows(
    batch: Rollouts, log_prob: float | Tensor = -1.0, entropy: float = 0.0, value: float = 0.0
) -> StubScores:
    """Scores of `batch`: a number for every response token, or a tensor [B, T]."""
    mask = batch.response_mask.float()
    return StubScores(
        log_prob=(log_prob * mask).detach().requires_grad_(),
        entropy=(entropy * mask).requires_grad_(),
        value=(value * mask).requires_grad_(),
    )


def weigh(method: TokenMethod, batch: Rollouts, context: Any) -> Rollouts:
    """The rows with the weights of one optimiser step."""
    batch = batch.replace(weights=TensorDict({}, batch_size=[len(batch)]))
    for name, weight in method.weights(batch, context).items():
        batch.weights[name] = weight
    return batch


def loss_of(method: TokenMethod, batch: Rollouts, scores: StubScores, context: Any) -> Loss:
    """The loss as the learner makes it."""
    batch = weigh(method, batch, context)
    return method.update(batch, scores) + method.regularise(batch, scores)  # type: ignore[arg-type]


def gradient_of(method: TokenMethod, batch: Rollouts, scores: StubScores, context: Any | None = None) -> Tensor:
    """[B, T']: gradient of the loss with respect to the log-probabilities of the response tokens."""
    loss = loss_of(method, batch, scores, context or StubContext())
    (gradient,) = torch.autograd.grad(loss.value, scores.log_prob)
    return gradient[:, PROMPT:]


@pytest.fixture
def rows() -> Callable[..., Rollouts]:
    return make_rows


@pytest.fixture
def scores() -> Callable[..., StubScores]:
    return score_rows


@pytest.fixture
def context() -> Callable[..., StubContext]:
    return StubContext


@pytest.fixture
def loss() -> Callable[..., Loss]:
    return loss_of


@pytest.fixture
def gradient() -> Callable[..., Tensor]:
    return gradient_of


@pytest.fixture
def joined() -> Callable[..., Rollouts]:
    return StubContext().join
