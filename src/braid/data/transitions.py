"""Single control steps as tensors: what value learning, imitation and models of the dynamics are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tensordict import tensorclass
from torch import Tensor


@tensorclass(nocast=True)
class Transitions:
    """Single steps, in no order; batch size [N].

    Args:
        observation: [N, ...] float32, uint8 (images) or int64 (states by number).
        action: [N, A] float32, or [N] int64.
        reward: [N] float32.
        next_observation: [N, ...], what was seen after the step; `observation` again where the world ended and nobody
            recorded what was seen then.
        terminated: [N] bool, the world ended with this step: no value follows.
        truncated: [N] bool, the recording ended with this step, by a time limit or because it just stopped; a value
            still follows unless `terminated` is True as well.
        behaviour_log_prob: [N] float32, log-probability (density) of the action under the policy that took it; or None.
        action_mask: [N, K] bool, True where an action was allowed; or None.
    """

    observation: Tensor
    action: Tensor
    reward: Tensor
    next_observation: Tensor
    terminated: Tensor
    truncated: Tensor
    behaviour_log_prob: Tensor | None = None
    action_mask: Tensor | None = None

    if TYPE_CHECKING:  # what tensorclass adds, for the type checker
        batch_size: Sequence[int] = ()

        def __len__(self) -> int: ...
        def __getitem__(self, index: object) -> Transitions: ...
        def to(self, device: object) -> Transitions: ...
        def replace(self, **fields: object) -> Transitions: ...
