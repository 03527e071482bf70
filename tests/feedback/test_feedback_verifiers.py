"""The verifiers accept what is right, refuse what is not, and survive any text."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.feedback import Exact, Format, Math, Numeric
from braid.feedback.math_verify_process import MathVerifyProcess, math_verify_installed

needs_math_verify = pytest.mark.skipif(not math_verify_installed(), reason="math-verify is not installed")

HOSTILE = [
    "__import__('os').system('touch /tmp/braid_was_here')",
    "(" * 10**5,
    "9**9**9",
    "<answer>9**9**9**9</answer>",
    "<answer>" + "9" * 10**6 + "</answer>",
    "1e999999999",
    "٣٤٥ ²³",
    "\x00",
    "\ud800\udfff",
    "\\boxed{" * 10**4,
    "<answer>" * 10**5,
    "#### " * 10**5,
]


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("<answer> New   York </answer>", "new york", 1.0),
        ("paris", "Paris", 1.0),
        ("\\boxed{B}", "A", 0.0),
        ("#### 5", "#### 5", 1.0),
        ("", "", 0.0),
        ("5.0", "5", 0.0),
    ],
)
def test_exact(completion: str, answer: str, right: float) -> None:
    assert Exact()([completion], answer=[answer]) == [right]


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("She pays $1,234.00 in all.", "1234", 1.0),
        ("<answer>1/2</answer>", "0.5", 1.0),
        ("#### 72", "Natalia sold 48/2 = 24. #### 72", 1.0),
        ("it is 7", 7, 1.0),
        ("it is 7", 7.5, 0.0),
        ("it is 8", ["7", "8"], 1.0),
        ("<think>7", "7", 0.0),
        ("<answer>4 apples</answer>", "4", 1.0),
        ("<answer>banana</answer>", "banana", 1.0),
        ("9" * 500, "9" * 499, 0.0),
    ],
)
def test_numeric(completion: str, answer: object, right: float) -> None:
    assert Numeric()([completion], answer=[answer]) == [right]  # type: ignore[list-item]


def test_numeric_tolerance_is_relative() -> None:
    assert Numeric(tolerance=0.01)(["3.16", "3.2"], answer=["3.14159", "3.14159"]) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("so \\boxed{\\frac{1}{2}x}", "x/2", 1.0),
        ("<answer>2\\sqrt{2}</answer>", "$\\sqrt{8}$", 1.0),
        ("\\boxed{\\text{Tuesday}}", "tuesday", 1.0),
        ("\\boxed{5x}", "5", 0.0),
        ("\\boxed{x+2}", "x+1", 0.0),
        ("the answer is x+1", "1", 0.0),
        ("\\boxed{50\\%}", "50", 1.0),
    ],
)
def test_math_without_math_verify(completion: str, answer: str, right: float) -> None:
    assert Math(engine="builtin")([completion], answer=[answer]) == [right]


@needs_math_verify
def test_math_verify_takes_what_the_parser_does_not_know() -> None:
    completions = ["\\boxed{[1,2)}", "\\boxed{(-\\infty, 3]}", "\\boxed{(-\\infty, 3)}"]
    answers = ["[1,2)", "(-\\infty,3]", "(-\\infty,3]"]
    assert Math(seconds=20)(completions, answer=answers) == [1.0, 1.0, 0.0]


@needs_math_verify
def test_math_verify_is_stopped_in_any_thread_and_works_again() -> None:
    process, results = MathVerifyProcess(), list[bool]()
    process.equal("[1,2]", "[1,2]", 60)
    started = time.perf_counter()
    thread = threading.Thread(target=lambda: results.append(process.equal("9^{9^{9^9}}", "1", 0.5)))
    thread.start()
    thread.join()
    assert time.perf_counter() - started < 10
    results.append(process.equal("[1,2]", "[1,2]", 60))
    process.close()
    assert results == [False, True]


@needs_math_verify
def test_math_verify_runs_nothing_it_reads(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    texts = [f"__import__('os').system('touch {trap}')", f"[__import__('os').system('touch {trap}')]"]
    assert Math(seconds=20)([f"\\boxed{{{text}}}" for text in texts], answer=["[1,2)", "[1,2)"]) == [0.0, 0.0]
    assert not trap.exists()


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("<think>a</think><answer>5</answer>", 1.0),
        ("<answer>5</answer>\n", 1.0),
        ("<answer>5</answer>.", 0.0),
        ("<answer>4</answer><answer>5</answer>", 0.0),
        ("<answer> </answer>", 0.0),
        ("</answer><answer>", 0.0),
        ("steps\n#### 72", 1.0),
        ("#### 72\nmore", 0.0),
        ("#### many", 0.0),
        ("so $\\boxed{x}$.", 1.0),
        ("so \\boxed{x} it is", 0.0),
        ("so \\boxed{x", 0.0),
        ("5", 0.0),
        ("", 0.0),
    ],
)
def test_default_format(completion: str, right: float) -> None:
    assert Format()([completion]) == [right]


def test_format_by_pattern_and_length() -> None:
    verifier = Format(pattern=r"<a>.*</a>", longest=20)
    assert verifier(["<a>\n</a>", "x<a></a>", "<a>" + "y" * 20 + "</a>"]) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Format(pattern="("), "pattern"),
        (lambda: Format(longest=0), "longest=0"),
        (lambda: Numeric(tolerance=-1), "tolerance=-1"),
        (lambda: Exact(fallback="last"), "fallback='last'"),  # type: ignore[arg-type]
        (lambda: Math(engine="sage"), "engine='sage'"),  # type: ignore[arg-type]
        (lambda: Math(seconds=0), "seconds=0"),
        (lambda: Exact()(["a"]), "answer"),
        (lambda: Exact()(["a"], answer=["a", "b"]), "2 answers"),
        (lambda: Exact()(["a", "b"], answer=["a", None]), "row 1"),
    ],
)
def test_slips_are_named(make: object, named: str) -> None:
    with pytest.raises(UsageError, match=named.replace("(", "\\(")):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_completions_are_wrong_in_bounded_time(text: str) -> None:
    started = time.perf_counter()
    for verifier in (Exact(), Numeric(), Math(engine="builtin")):
        assert verifier([text], answer=["42"]) == [0.0]
    assert Format()([text])[0] in (0.0, 1.0)
    assert time.perf_counter() - started < 1.5
    assert not Path("/tmp/braid_was_here").exists()


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.text(st.characters(codec=None)) | st.text("<answer>/0123456789\\boxed{}#.,% ", max_size=80))
def test_no_text_makes_a_verifier_raise(text: str) -> None:
    for verifier in (Exact(), Numeric(), Math(engine="builtin"), Format()):
        for reference in ("42", text):
            assert verifier([text], answer=[reference])[0] in (0.0, 1.0)


def test_importing_feedback_and_tasks_is_light() -> None:
    code = (
        "import sys, braid.feedback, braid.tasks, braid.tasks.text.arithmetic, braid.tasks.text.countdown;"
        "print(sorted({'torch', 'transformers', 'sympy', 'mpmath', 'math_verify'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
