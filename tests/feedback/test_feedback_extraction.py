"""Where an answer is found in a completion, and how its number is read."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid.feedback import extract_answer, parse_number, same_number


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer> 42 </answer>", "42"),
        ("<answer>1</answer> no, <answer>2</answer>", "2"),
        ("<answer>1</answer> and \\boxed{2} #### 3", "1"),
        ("\\boxed{\\frac{1}{2}} then #### 3", "\\frac{1}{2}"),
        ("\\boxed{1} so \\boxed{\\{2\\}}", "\\{2\\}"),
        ("work\n#### 72", "72"),
        ("#### 7\n#### 8 apples", "8 apples"),
        ("<think><answer>1</answer></think> #### 2", "2"),
        ("<think>\\boxed{1}", None),
        ("a</think>b", "b"),
        ("<answer>5", "<answer>5"),
        ("\\boxed{5", "\\boxed{5"),
        ("", None),
    ],
)
def test_order_of_the_marks(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("it costs 3, then $1,234.50.", "1,234.50"),
        ("8-3=5", "5"),
        ("the result is -5", "-5"),
        ("12-7", "7"),
        ("so 1/2", "1/2"),
        ("about 6e-3", "6e-3"),
        ("none", None),
        ("<think>5</think>", None),
        ("٣", None),
    ],
)
def test_last_number_as_fallback(text: str, number: str | None) -> None:
    assert extract_answer(text, "last_number") == number


def test_without_fallback_an_unmarked_text_states_nothing() -> None:
    assert extract_answer("it is 5", "none") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", Fraction(0)),
        ("0/5", Fraction(0)),
        ("007", Fraction(7)),
        ("1,234,567", Fraction(1234567)),
        ("-3 1/2", Fraction(-7, 2)),
        ("\\dfrac{3}{4}", Fraction(3, 4)),
        ("-\\frac12", Fraction(-1, 2)),
        ("1.50", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("−4", Fraction(-4)),
        ("$5.00", Fraction(5)),
        ("\\$18", Fraction(18)),
        ("50%", Fraction(50)),
        ("5\\%", Fraction(5)),
        ("5 apples", Fraction(5)),
        ("12 km/h", Fraction(12)),
        ("3\\text{ cm}", Fraction(3)),
        ("1.5e3", Fraction(1500)),
        ("2 \\times 10^{3}", Fraction(2000)),
        ("6*10^-2", Fraction(6, 100)),
    ],
)
def test_numbers_are_read_exactly(text: str, value: Fraction) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "-",
        "1/0",
        "1,23",
        "1 2",
        "1..2",
        "5 million",
        "3 or 4",
        "nan",
        "inf",
        "²",
        "٣",
        "1e999999999",
        "9" * 10**6,
        "0x10",
        "1_000",
        "--1",
        "\x00",
        "\ud800",
    ],
)
def test_other_texts_are_no_numbers(text: str) -> None:
    started = time.perf_counter()
    assert parse_number(text) is None
    assert time.perf_counter() - started < 0.05


@pytest.mark.parametrize(
    ("text", "reference", "same"),
    [
        ("0.5", "1/2", True),
        ("50%", "0.5", True),
        ("50%", "50", True),
        ("0.333333333", "1/3", True),
        ("0.3333", "1/3", False),
        ("10000001", "10000000", False),
        ("0", "1e-9", False),
        ("x", "1", None),
    ],
)
def test_same_number(text: str, reference: str, same: bool | None) -> None:
    assert same_number(text, reference) is same


def test_units_can_be_refused() -> None:
    assert parse_number("5x", units=False) is None


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    for fallback in ("last_number", "text", "none"):
        found = extract_answer(text, fallback)  # type: ignore[arg-type]
        assert found is None or isinstance(found, str)
    assert parse_number(text) is None or isinstance(parse_number(text), Fraction)


@pytest.mark.parametrize(
    "unit", ["<answer>", "</answer>", "\\boxed{", "{", "####", "1,", "1.", "1e", "<think>", "$", "-"]
)
def test_extraction_is_linear_in_hostile_text(unit: str) -> None:
    started = time.perf_counter()
    extract_answer(unit * 100_000, "last_number")
    assert time.perf_counter() - started < 1
