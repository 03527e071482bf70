"""Policies that are used apart, each by a thread of its own, and computed together."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from braid.errors import UsageError
from braid.policies.causal import CausalPolicy
from braid.policies.scores import has_plain_head
from braid.policies.stacked import Graph, Stack

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Item = TypeVar("Item")
Result = TypeVar("Result")
GRADIENTS, STATES, OTHER = range(3)
"""What is done first if seats wait for different things: a seat that is behind catches up before others decode."""


class Ask(Protocol):
    """Waits until some seats want the same, and has it done for them at once."""

    def __call__(self, rank: int, key: Hashable, item: Any, work: Callable[[list[Any]], list[Any]]) -> Any:
        """What `work` says of `item`; it is given the items of everyone who waits with this rank and key.

        Args:
            rank: things of a lower rank are done first.
            key: what is wanted.
            item: of this seat.
            work: items to results, in their order.
        """


class Table:
    """The seats of policies that are computed together; they are stacked when the first one wants something."""

    def __init__(self) -> None:
        self._seats: list[Seat] = []

    def seat(self, policy: CausalPolicy, ask: Ask) -> Seat:
        """Give a policy a seat.

        Args:
            policy: must not be used any more by itself.
            ask: of the thread that uses the seat.

        Raises:
            UsageError: this policy cannot be computed together with others, or not with these.
        """
        _check(policy)
        first = self._seats[0] if self._seats else policy
        for name in ("eos_token_ids", "pad_token_id", "autocast"):
            if getattr(policy, name) != getattr(first, name):
                raise UsageError(f"policies that are computed together must have the same {name}")
        self._seats.append(Seat(policy, self, len(self._seats), ask))
        return self._seats[-1]

    def as_one(self, places: list[int]) -> CausalPolicy:
        """The policies of these places as one, whose rows come as equal blocks."""
        self.trained.use(places)
        return self._whole

    def read(
        self, places: list[int], batches: list[tuple[Tensor, Tensor]], *, trained: bool
    ) -> list[tuple[Tensor, Graph, int]]:
        """What `Stack.read` says for the policies of these places, or for their references."""
        if trained:
            return self.trained.read(places, batches, self._seats[0].pad_token_id)
        owners = [seat.place for seat in self._seats if seat.reference is not None]
        return self.references.read([owners.index(place) for place in places], batches, self._seats[0].pad_token_id)

    @cached_property
    def trained(self) -> Stack:
        """The models that are trained."""
        return Stack([seat.model for seat in self._seats])

    @cached_property
    def references(self) -> Stack:
        """The frozen references."""
        return Stack([seat.reference for seat in self._seats if seat.reference is not None])

    @cached_property
    def _whole(self) -> CausalPolicy:
        first = self._seats[0]
        return CausalPolicy(self.trained.model, first.tokenizer, autocast=first.autocast)


class Seat(CausalPolicy):
    """A policy at a table; whatever runs its model waits for the others.

    Args:
        policy: whose parameters, tokenizer and partners these are.
        table: where it sits.
        place: its number.
        ask: of the thread that uses it.
    """

    def __init__(self, policy: CausalPolicy, table: Table, place: int, ask: Ask) -> None:
        vars(self).update(vars(policy))
        self._table, self.place, self._ask = table, place, ask
        self._read: list[tuple[Tensor, Graph, int]] = []

    @property
    def reference(self) -> PreTrainedModel | None:
        """The frozen copy of the model, if there is one."""
        return self._reference

    def jointly(self, key: Hashable, work: Callable[[CausalPolicy, list[Item]], list[Result]], item: Item) -> Result:
        """Do work together with all who wait for it under the same key."""

        def of_all(items: list[tuple[int, Item]]) -> list[Result]:
            return work(self._table.as_one([place for place, _ in items]), [item for _, item in items])

        found: Result = self._wait(OTHER, key, (self.place, item), of_all)
        return found

    def backward(self, loss: Tensor) -> None:
        """Gradients of the head here, those of the model together with the others'."""
        loss.backward()
        read, self._read = self._read, []
        item = [(graph, position, own.grad) for own, graph, position in read if own.grad is not None]
        if item:
            self._wait(GRADIENTS, None, item, _backward)

    def _states(self, model: PreTrainedModel, tokens: Tensor, predicted: Tensor) -> Tensor:
        trained = model is self.model

        def read(items: list[tuple[int, tuple[Tensor, Tensor]]]) -> list[tuple[Tensor, Graph, int]]:
            return self._table.read([place for place, _ in items], [batch for _, batch in items], trained=trained)

        states, graph, position = self._wait(STATES, trained, (self.place, (tokens, predicted)), read)
        if not torch.is_grad_enabled():
            return states
        own = states.detach().requires_grad_()
        self._read.append((own, graph, position))
        return own

    def _wait(self, rank: int, key: Hashable, item: Any, work: Callable[[list[Any]], list[Any]]) -> Any:
        """Ask for work in the modes of this thread, which whoever does it may not be in."""
        differentiable, autocast = torch.is_grad_enabled(), torch.is_autocast_enabled(self.device.type)

        def in_modes(items: list[Any]) -> list[Any]:
            with torch.set_grad_enabled(differentiable), torch.autocast(self.device.type, torch.bfloat16, autocast):
                return work(items)

        return self._ask(rank, (key, differentiable, autocast), item, in_modes)


def _backward(items: list[list[tuple[Graph, int, Tensor]]]) -> list[None]:
    gradients: dict[int, dict[int, Tensor]] = {}
    graphs = {id(graph): graph for item in items for graph, _, _ in item}
    for item in items:
        for graph, position, gradient in item:
            gradients.setdefault(id(graph), {})[position] = gradient
    for key, graph in graphs.items():
        graph.backward(gradients[key])
    return [None] * len(items)


def check_stackable(policy: CausalPolicy) -> None:
    """Refuse a policy that cannot be computed together with others like it.

    Args:
        policy: is not to be used afterwards.

    Raises:
        UsageError: says what is in the way.
    """
    _check(policy)
    Stack([policy.model, policy.model])


def _check(policy: CausalPolicy) -> None:
    if policy.compile:
        raise UsageError("policies whose layers are compiled cannot be computed together; use compile=false")
    if policy.has_adapter:
        raise UsageError("policies with an adapter cannot be computed together; train all weights (adapter=none)")
    with policy.precision():
        plain = has_plain_head(policy.model)
    if not plain:
        raise UsageError(
            f"{policy.model.config.model_type} models cannot be computed together: their logits are more than the "
            "output embedding of the last state"
        )
