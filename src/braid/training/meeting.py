"""Threads that take turns and do together what several of them wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Request:
    rank: int
    key: Hashable
    item: Any
    work: Callable[[list[Any]], list[Any]]
    answer: Future[Any] = field(default_factory=Future)


class Member(Generic[T]):
    """One thread of a meeting.

    Args:
        body: what it does; is given the member.

    Attributes:
        outcome: what `body` returned or raised.
    """

    def __init__(self, body: Callable[[Member[T]], T]) -> None:
        self.outcome: Future[T] = Future()
        self.request: _Request | None = None
        self._body = body
        self._go, self._idle = threading.Event(), threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def ask(self, rank: int, key: Hashable, item: Any, work: Callable[[list[Any]], list[Any]]) -> Any:
        """Called by the member's own thread: wait until `work` has been done for all who wait with this rank and key.

        Args:
            rank: work of a lower rank is done first.
            key: what is wanted.
            item: of this member.
            work: items to results, in their order.

        Returns:
            The result for `item`.

        Raises:
            Exception: what `work` raised, to everyone it was done for.
            KeyboardInterrupt: the meeting was broken off.
        """
        self.request = _Request(rank, key, item, work)
        answer = self.request.answer
        self._idle.set()
        self._go.wait()
        self._go.clear()
        return answer.result()

    def proceed(self) -> None:
        """Let the thread run until it asks for something or ends."""
        self.request = None
        self._idle.clear()
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go.set()
        self._idle.wait()

    def break_off(self) -> None:
        """Raise KeyboardInterrupt in the thread, wherever it next waits, until it ends."""
        if self._thread.ident is None:
            self.outcome.set_exception(KeyboardInterrupt())
        self._idle.wait()
        while self.request is not None:
            if not self.request.answer.done():
                self.request.answer.set_exception(KeyboardInterrupt())
            self.proceed()

    def _run(self) -> None:
        try:
            self.outcome.set_result(self._body(self))
        except BaseException as error:
            self.outcome.set_exception(error)
        finally:
            self._idle.set()


def hold(bodies: Sequence[Callable[[Member[T]], T]]) -> list[Future[T]]:
    """Run functions in threads of their own, one at a time, each until it asks for something.

    When all wait, one thing is done, in the calling thread, for everyone who waits for it: that of the lowest rank,
    among these the one that most wait for, then the one that the first member waits for. Nobody waits for a member that
    has ended. KeyboardInterrupt in the calling thread is raised in every member.

    Args:
        bodies: one function per member.

    Returns:
        What they returned or raised.
    """
    members = [Member(body) for body in bodies]
    try:
        ready = members
        while ready:
            for member in ready:
                member.proceed()
            ready = _served([member for member in members if member.request is not None])
    except BaseException as error:
        for member in members:
            member.break_off()
        if not isinstance(error, KeyboardInterrupt):
            raise
    return [member.outcome for member in members]


def _served(waiting: list[Member[T]]) -> list[Member[T]]:
    """Do one thing for everyone who waits for it; returns them."""
    groups: dict[tuple[int, Hashable], list[tuple[Member[T], _Request]]] = {}
    for member in waiting:
        if (request := member.request) is not None:
            groups.setdefault((request.rank, request.key), []).append((member, request))
    if not groups:
        return []
    _, chosen = min(groups.items(), key=lambda group: (group[0][0], -len(group[1])))
    requests = [request for _, request in chosen]
    try:
        answers = requests[0].work([request.item for request in requests])
    except Exception as error:
        for request in requests:
            request.answer.set_exception(error)
    else:
        for request, answer in zip(requests, answers, strict=True):
            request.answer.set_result(answer)
    return [member for member, _ in chosen]
