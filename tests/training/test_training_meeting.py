"""Threads that take turns: what is done together, in which order, and what happens when one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from braid.training.meeting import Member, hold


def noted(log: list[list[int]]) -> Callable[[list[int]], list[int]]:
    """Work that notes for whom it was done together, and answers with tenfold numbers."""

    def work(items: list[int]) -> list[int]:
        log.append(items)
        return [10 * item for item in items]

    return work


def test_members_are_answered_together_and_each_gets_its_own() -> None:
    log: list[list[int]] = []

    def body(number: int) -> Callable[[Member[list[int]]], list[int]]:
        return lambda member: [member.ask(0, "tens", number + turn, noted(log)) for turn in (0, 100)]

    outcomes = hold([body(number) for number in range(3)])
    assert [outcome.result() for outcome in outcomes] == [[0, 1000], [10, 1010], [20, 1020]]
    assert log == [[0, 1, 2], [100, 101, 102]]


def test_nobody_waits_for_a_member_that_has_ended() -> None:
    log: list[list[int]] = []

    def body(number: int) -> Callable[[Member[int]], int]:
        return lambda member: sum(member.ask(0, "tens", number, noted(log)) for _ in range(number))

    assert [outcome.result() for outcome in hold([body(number) for number in range(4)])] == [0, 10, 40, 90]
    assert log == [[1, 2, 3], [2, 3], [3]]


def test_a_lower_rank_goes_first_so_that_those_behind_catch_up() -> None:
    """Member 0 has two things of rank 0 to do, the others one; then all do the thing of rank 1 at once."""
    log: list[list[int]] = []

    def body(number: int) -> Callable[[Member[None]], None]:
        def run(member: Member[None]) -> None:
            for _ in range(2 if number == 0 else 1):
                member.ask(0, "update", number, noted(log))
            member.ask(1, "decode", number, noted(log))

        return run

    hold([body(number) for number in range(3)])
    assert log == [[0, 1, 2], [0], [0, 1, 2]]


def test_of_one_rank_what_most_want_goes_first() -> None:
    log: list[list[int]] = []
    wants = ["a", "b", "b", "c"]
    hold([lambda member, n=n: member.ask(0, wants[n], n, noted(log)) for n in range(4)])
    assert log == [[1, 2], [0], [3]]


def test_only_one_member_runs_at_a_time() -> None:
    running = threading.Semaphore(1)

    def body(member: Member[None]) -> None:
        for turn in range(50):
            assert running.acquire(blocking=False)
            sum(range(2000))
            running.release()
            member.ask(0, turn, None, lambda items: items)

    for outcome in hold([body] * 4):
        outcome.result()


def test_an_error_ends_its_member_and_no_other() -> None:
    log: list[list[int]] = []

    def failing(member: Member[int]) -> int:
        member.ask(0, "tens", 1, noted(log))
        raise ValueError("mine")

    outcomes = hold([lambda member: sum(member.ask(0, "tens", 2, noted(log)) for _ in range(3)), failing])
    assert outcomes[0].result() == 60
    assert str(outcomes[1].exception()) == "mine"
    assert log == [[2, 1], [2], [2]]


def test_an_error_of_common_work_reaches_those_it_was_for() -> None:
    def failing(items: list[int]) -> list[int]:
        raise ValueError(f"for {items}")

    def body(number: int, work: Any) -> Callable[[Member[str]], str]:
        def run(member: Member[str]) -> str:
            try:
                return str(member.ask(0, work.__name__, number, work))
            except ValueError as error:
                return str(error)

        return run

    bodies = [body(0, failing), body(1, noted([])), body(2, failing)]
    assert [outcome.result() for outcome in hold(bodies)] == ["for [0, 2]", "10", "for [0, 2]"]


@pytest.mark.parametrize("moment", ["in common work", "while a member runs"])
def test_ctrl_c_is_raised_in_every_member(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []

    def work(items: list[int]) -> list[int]:
        if moment == "in common work":
            raise KeyboardInterrupt
        return items

    def body(number: int) -> Callable[[Member[None]], None]:
        def run(member: Member[None]) -> None:
            try:
                for turn in range(3):
                    if moment != "in common work" and turn == 1 and number == 1:
                        import _thread

                        _thread.interrupt_main()
                    member.ask(0, "work", number, work)
            finally:
                ended.append(number)

        return run

    outcomes = hold([body(number) for number in range(3)])
    assert [type(outcome.exception()) for outcome in outcomes] == [KeyboardInterrupt] * 3
    assert sorted(ended) == [0, 1, 2]
