"""The countdown world: the expression parser, the judge, the solver, styles and the reward."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid.data.examples import Example
from braid.tasks import get_task
from braid.tasks.text.countdown import CountdownTask
from braid.tasks.text.countdown_answers import judge_answer
from braid.tasks.text.countdown_expressions import (
    Expression,
    ExpressionError,
    canonical_form,
    parse_expression,
    write_expression,
)
from braid.tasks.text.countdown_solver import solutions

TASK = CountdownTask()
REFUSED = [
    *("", "1+", "+1", "-1", "()", "(1", "1)", "1 2", "2(3)", "1**2", "1//2", "2^3", "1.5", "1e3", "x", "abs(1)", "a.b"),
    *("__import__('os').system('true')", "٣+1", "²", "\x00", "\ud800", "9" * 7, "9**9**9", "9" * 10**6),
    *("(" * 17 + "1" + ")" * 17, "1+" * 99 + "1", "(" * 100_000),
]


def expressions() -> st.SearchStrategy[Expression]:
    numbers = st.integers(1, 12).map(lambda number: Expression("", number))
    return st.recursive(numbers, lambda e: st.builds(Expression, st.sampled_from("+-*/"), e, e), max_leaves=5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("(25+8)*3-5", 94),
        ("2+3*4", 14),
        ("8-3-2", 3),
        ("8/4/2", 1),
        ("8/(3-8/3)", 24),
        (" ( ( 7 ) ) ", 7),
        ("1/3+1/6", Fraction(1, 2)),
    ],
)
def test_values(text: str, value: Fraction | int) -> None:
    assert parse_expression(text).value == value


@pytest.mark.parametrize(
    "text",
    REFUSED,
    ids=range(len(REFUSED)),
)
def test_everything_else_is_refused_at_once(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ExpressionError):
        parse_expression(text)
    assert not judge_answer(text, (1, 2, 3), 6).correct
    assert time.perf_counter() - started < 0.1


@given(expressions())
def test_what_is_written_is_read_with_the_same_value_and_form(expression: Expression) -> None:
    again = parse_expression(write_expression(expression))
    assert canonical_form(again) == canonical_form(expression)
    assert sorted(again.numbers) == sorted(expression.numbers)
    try:
        assert again.value == expression.value
    except ZeroDivisionError:
        with pytest.raises(ZeroDivisionError):
            _ = expression.value


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("3*7+8", "8+7*3", True),
        ("(1+2)+3", "1+(3+2)", True),
        ("9-(3-2)", "9-3+2", True),
        ("8/(4/2)", "8*2/4", True),
        ("9-3-2", "9-(3+2)", True),
        ("9-3", "3-9", False),
        ("2*(3+4)", "2*3+4", False),
        ("2*2", "2+2", False),
    ],
)
def test_canonical_forms(one: str, other: str, same: bool) -> None:
    assert (canonical_form(parse_expression(one)) == canonical_form(parse_expression(other))) is same


@pytest.mark.parametrize(
    ("answer", "parses", "legal", "correct"),
    [
        ("3*7+8", True, True, True),
        ("8+7*3", True, True, True),
        ("3*7+8=29", True, True, True),
        ("3*7=21;21+8=29", True, True, True),
        ("3*7=21;21+8=29;", True, True, True),
        ("7+3*8", True, True, False),
        ("29", True, False, False),
        ("3*7+8+8-8", True, False, False),
        ("3*7=21;8+21=29;29-3=26;26+3=29", True, False, False),
        ("3*7=21;20+8=28", True, False, False),
        ("3*7=22;22+7=29", False, False, False),
        ("3/0+29", False, False, False),
        ("3*7+8=", False, False, False),
        ("=29", False, False, False),
        ("3*7=21;;21+8=29", False, False, False),
        ("", False, False, False),
    ],
)
def test_judging_by_hand(answer: str, parses: bool, legal: bool, correct: bool) -> None:
    verdict = judge_answer(answer, (3, 7, 8), 29)
    assert verdict[:3] == (parses, legal, correct)
    assert (verdict.canonical is not None) is correct


def test_a_number_given_twice_may_be_used_twice() -> None:
    assert judge_answer("5*5-1", (5, 1, 5), 24).correct
    assert not judge_answer("5*5-1", (5, 1, 2), 24).correct


def test_a_trace_and_its_expression_are_the_same_solution() -> None:
    forms = {judge_answer(text, (3, 7, 8), 29).canonical for text in ("3*7+8", "7*3=21;8+21=29", "8+3*7=29")}
    assert len(forms) == 1


def test_all_solutions() -> None:
    assert solutions([3, 7, 8], 29) == ["3*7+8"]
    assert solutions([8, 3, 8, 3], 24)[0].count("8") == 1, "3*8 needs two numbers only"
    assert "8/(3-8/3)" in solutions([3, 3, 8, 8], 24)
    forms = {canonical_form(parse_expression(text)) for text in solutions([1, 2, 3], 6)}
    assert forms >= {canonical_form(parse_expression(text)) for text in ("2*3", "1+2+3")}
    assert solutions([1, 1], 7) == []


def test_solutions_are_correct_and_distinct() -> None:
    for row in TASK.examples("test", 100):
        found = TASK.solutions(row)
        completions = [f"<answer>{text}</answer>" for text in found]
        assert set(TASK.reward([row] * len(found), completions)["correct"]) == {1.0}
        assert TASK.distinct_correct(row, completions * 2) == len(found)


def test_distinct_correct_counts_variants_once() -> None:
    row = Example("x", "", extra={"numbers": (1, 2, 3), "target": 6})
    texts = ["1+2+3", "3+2+1", "2*3", "3*2", "3*2*1", "2*3*2", "junk"]
    assert TASK.distinct_correct(row, [f"<answer>{text}</answer>" for text in texts]) == 3


@pytest.mark.parametrize("style", ["solution", "trace", "reasoned", "optimal", "dfs", "bfs"])
@pytest.mark.parametrize("options", [{}, {"max_count": 4, "operations": "+-*/", "ood_count": 5}])
def test_sound_styles_are_correct(style: str, options: dict[str, object]) -> None:
    task = get_task("countdown", **options)
    rows = task.demonstrations("test", 60, 2, style)
    terms = task.reward(rows, [row.completion or "" for row in rows])
    assert {value for values in terms.values() for value in values} == {1.0}


def test_search_transcripts_show_dead_ends_and_true_steps() -> None:
    rows = TASK.demonstrations("train", 100, 0, "dfs")
    assert sum("x" in (row.completion or "") for row in rows) > 30
    for row in rows:
        for line in (row.completion or "").partition("</think>")[0].removeprefix("<think>").split(";"):
            if line != "~":
                left, _, right = line.removesuffix("x").partition("=")
                assert parse_expression(left).value == int(right)


def test_faulty_styles_have_their_faults() -> None:
    def correct(style: str) -> float:
        rows = TASK.demonstrations("train", 300, 0, style)
        return sum(TASK.reward(rows, [row.completion or "" for row in rows])["correct"]) / 300

    assert correct("mistaken") == correct("malformed") == 0.0
    assert 0.1 < correct("greedy") < 0.9


def test_splits_are_disjoint_over_all_seeds_whatever_the_order_of_numbers() -> None:
    seen: dict[str, set[tuple[int, ...]]] = {}
    for split in ("train", "validation", "test", "ood"):
        for seed in range(3):
            for row in TASK.examples(split, 500, seed):  # type: ignore[arg-type]
                seen.setdefault(split, set()).add((*sorted(row.extra["numbers"]), row.extra["target"]))
    groups = list(seen.values())
    assert all(not a & b for i, a in enumerate(groups) for b in groups[:i])


def test_knobs_of_the_problems() -> None:
    task = CountdownTask(
        min_count=3, max_count=4, max_number=9, max_target=30, min_solutions=2, max_solutions=4, ood_count=5
    )
    for row in task.examples("train", 40):
        assert len(row.extra["numbers"]) in (3, 4)
        assert max(row.extra["numbers"]) <= 9
        assert row.extra["target"] <= 30
        assert 2 <= len(task.solutions(row)) <= 4
        assert row.prompt == f"N: {' '.join(map(str, row.extra['numbers']))} T: {row.extra['target']}"
    assert {len(row.extra["numbers"]) for row in TASK.examples("ood", 40)} == {4}
    farther = CountdownTask(ood_count=3, ood_max_target=99)
    assert all(row.extra["target"] > 50 for row in farther.examples("ood", 40))


@given(st.text(st.characters(codec=None)) | st.text("<answer>/think0123456789+-*/()=; ", max_size=80))
def test_no_text_makes_the_reward_raise(text: str) -> None:
    row = TASK.examples("train", 1)[0]
    for completion in (text, f"<answer>{text}</answer>"):
        assert TASK.reward([row], [completion])["reward"][0] in (0.0, 1.0)


@pytest.mark.parametrize("unit", ["<think>", "(", "1+", "1+1=2;", "9", "*"])
def test_the_reward_takes_bounded_time(unit: str) -> None:
    row = TASK.examples("train", 1)[0]
    started = time.perf_counter()
    TASK.reward([row] * 2, [unit * 100_000, f"<answer>{unit * 1000}</answer>"])
    assert time.perf_counter() - started < 0.5


def test_the_reward_is_fast() -> None:
    rows = TASK.examples("train", 1000)
    texts = [row.completion or "" for row in rows]
    started = time.perf_counter()
    TASK.reward(rows, texts)
    assert time.perf_counter() - started < 0.3, "0.1 ms per item, with room for a busy machine"
