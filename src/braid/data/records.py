"""Tensor records of token policies.

Every per-token tensor has the shape [B, T] of `tokens`: the prompt, then the response, then padding on the right.
Index t speaks of the token *at* t: `log_prob[b, t]` is the log-probability of `tokens[b, t]` given what is before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDict, tensorclass
from torch import Tensor


class Source(IntEnum):
    """Where the response of a row comes from."""

    ONLINE = 0
    DEMONSTRATION = 1


@tensorclass(nocast=True)
class Rollouts:
    """Responses with everything that a token method may want to know of them; batch size [B].

    Demonstrations are rollouts whose `source` is `Source.DEMONSTRATION`: somebody else's behaviour in the same record.

    Args:
        tokens: [B, T] int64, prompt, response, padding.
        attention_mask: [B, T] bool, True where `tokens` is not padding.
        response_mask: [B, T] bool, True on the tokens of the response, its EOS included.
        loss_mask: [B, T] bool, the part of `response_mask` that is trained on.
        behaviour_log_prob: [B, T] float, log-probability under the policy that wrote the row; 0 outside the response
            and for demonstrations.
        reference_log_prob: [B, T] float, under the frozen reference; 0 where no reference is used.
        token_reward: [B, T] float, rewards given to single tokens (a KL penalty, a process reward); 0 by default.
        advantage: [B, T] float, the weight that credit gives to each decision.
        value: [B, T] float, the critic's estimate before the token at t was chosen; 0 without a critic.
        returns: [B, T] float, the critic's target.
        reward: [B] float, the total judgement of the row.
        success_rate: [B] float in [0, 1], share of correct responses among all that were sampled for its prompt.
        group_id: [B] int64, equal for rows of one prompt; never inferred from position.
        example_index: [B] int64, index into the examples of the step.
        source: [B] int64, a `Source`.
        truncated: [B] bool, True if the response met the length limit before its end.
        terms: named reward terms, each [B] float: `correct`, `format` …
        weights: named loss weights, each [B, T] or [B] float, made over a whole optimiser step.
    """

    tokens: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    loss_mask: Tensor
    behaviour_log_prob: Tensor
    reference_log_prob: Tensor
    token_reward: Tensor
    advantage: Tensor
    value: Tensor
    returns: Tensor
    reward: Tensor
    success_rate: Tensor
    group_id: Tensor
    example_index: Tensor
    source: Tensor
    truncated: Tensor
    terms: TensorDict
    weights: TensorDict

    if TYPE_CHECKING:  # what tensorclass adds, for the type checker
        batch_size: Sequence[int] = ()

        def __len__(self) -> int: ...
        def __getitem__(self, index: object) -> Rollouts: ...
        def to(self, device: object) -> Rollouts: ...
        def replace(self, **fields: object) -> Rollouts: ...

    @property
    def online(self) -> Tensor:
        """[B] bool: rows that the policy wrote itself."""
        return self.source == Source.ONLINE

    @property
    def demonstrated(self) -> Tensor:
        """[B] bool: rows that come from demonstrations."""
        return self.source == Source.DEMONSTRATION

    @property
    def correct(self) -> Tensor:
        """[B] bool: rows that the verifier calls right; not the shaped reward."""
        return self.terms["correct"] >= 1.0

    @property
    def response_length(self) -> Tensor:
        """[B] int64: number of response tokens."""
        return self.response_mask.sum(-1)

    @property
    def groups(self) -> int:
        """Number of distinct prompts."""
        return int(torch.unique(self.group_id).numel())


@tensorclass(nocast=True)
class Preferences:
    """Pairs of responses of which the first was preferred; batch size [B].

    Args:
        chosen: the preferred responses, [B].
        rejected: the other responses, [B], row for row of the same prompts.
        margin: [B] float, how much better the chosen one is; 0 if unknown.
        weight: [B] float, 1 by default.
    """

    chosen: Rollouts
    rejected: Rollouts
    margin: Tensor
    weight: Tensor

    if TYPE_CHECKING:
        batch_size: Sequence[int] = ()

        def __len__(self) -> int: ...
        def __getitem__(self, index: object) -> Preferences: ...
