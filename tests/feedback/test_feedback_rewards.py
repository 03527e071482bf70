"""Reward functions by name and path, and the checks of what they return."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from braid.errors import UsageError
from braid.feedback import Exact, Numeric, get_reward, score

TEXTS = ["<answer>5</answer>", "it is 5", "<answer>6</answer>"]
ANSWERS = {"answer": ["5", "5", "5"]}


def test_a_verifier_by_name_with_options() -> None:
    assert get_reward("numeric", tolerance=0.5) == Numeric(tolerance=0.5)
    assert score(get_reward("numeric"), None, TEXTS, ANSWERS) == {
        "reward": [1.0, 1.0, 0.0],
        "correct": [1.0, 1.0, 0.0],
        "numeric": [1.0, 1.0, 0.0],
    }


def test_a_weighted_sum_takes_correct_from_its_first_part() -> None:
    assert score(get_reward("numeric+0.1*format"), ["p"] * 3, TEXTS, ANSWERS) == {
        "reward": [1.1, 1.0, 0.1],
        "correct": [1.0, 1.0, 0.0],
        "numeric": [1.0, 1.0, 0.0],
        "format": [1.0, 0.0, 1.0],
    }
    halved = score(get_reward("0.5*exact"), None, TEXTS, ANSWERS)
    assert halved["reward"] == [0.5, 0.0, 0.0]
    assert halved["correct"] == [1.0, 0.0, 0.0]


def test_options_reach_the_parts_that_have_them() -> None:
    reward = get_reward("exact+-0.5*format", pattern=".*5.*")
    assert score(reward, None, TEXTS, ANSWERS)["reward"] == [0.5, -0.5, 0.0]


def test_a_users_function_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "c++" / "rewards.py"
    file.parent.mkdir()
    file.write_text("def brevity(completions, scale=1.0):\n    return [scale / len(c) for c in completions]\n")
    terms = score(get_reward(f"{file}:brevity", scale=4.0), ["p", "p"], ["ab", "abcd"], {"answer": ["", ""]})
    assert terms == {"reward": [2.0, 1.0], "correct": [1.0, 1.0], "brevity": [2.0, 1.0]}


def test_a_users_function_from_a_module_and_in_a_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "braid_test_rewards.py").write_text("def two(completions, **_):\n    return [2 for _ in completions]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert score(get_reward("exact+0.5*braid_test_rewards:two"), None, TEXTS, ANSWERS)["reward"] == [2.0, 1.0, 1.0]
    assert score(get_reward("braid_test_rewards:two"), None, [], {}) == {"reward": [], "correct": []}
    combined = get_reward("exact+2*math:fsum")
    assert [name for _, name, _ in combined.parts] == ["exact", "fsum"]  # type: ignore[attr-defined]


def test_a_callable_is_returned_as_it_is() -> None:
    verifier = Exact()
    assert get_reward(verifier) is verifier


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("numerc", {}, "did you mean numeric"),
        ("exact+fromat", {}, "did you mean format"),
        ("exact+", {}, "empty part"),
        ("exact+exact", {}, "twice"),
        ("numeric", {"tolerence": 1}, "did you mean tolerance"),
        ("no_such_module_here:f", {}, "no module 'no_such_module_here'"),
        ("math:sqroot", {}, "did you mean sqrt"),
        ("math:pi", {}, "not callable"),
        ("nowhere/rewards.py:f", {}, "does not exist"),
        (3, {}, "not callable"),
    ],
)
def test_wrong_specifications_are_explained(spec: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        get_reward(spec, **options)


def test_an_error_while_loading_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("1/0\n")
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        get_reward(f"{file}:f")


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([1.0], "returned 1 values for 2"),
        ([1.0, None], "None.*row 1"),
        ([math.nan, 0.0], "nan.*row 0"),
        ([1.0, math.inf], "inf.*row 1"),
        ([1.0, "1"], "'1'.*row 1"),
        ([1.0, 10**400], "row 1"),
        (0.5, "return a list"),
        ("ab", "return a list"),
        ([{"a": 1.0}, {"b": 1.0}], "row 1.*a, b"),
        ([{"a": 1.0}, 2.0], "row 1"),
        ([{}, {}], "no terms for row 0"),
        ([{"a": 1.0}, {"a": None}], "'a' None.*row 1"),
    ],
)
def test_bad_results_are_refused(results: Any, said: str) -> None:
    def judge(completions: list[str]) -> Any:
        return results

    with pytest.raises(UsageError, match=f"'judge'.*{said}"):
        score(judge, None, ["a", "b"], {})


def test_terms_from_dicts() -> None:
    def judge(completions: list[str], **_: Any) -> list[dict[str, float]]:
        return [{"right": float(c == "a"), "short": 0.5} for c in completions]

    assert score(judge, None, ["a", "b"], {}) == {
        "reward": [1.5, 0.5],
        "right": [1.0, 0.0],
        "short": [0.5, 0.5],
        "correct": [1.0, 0.0],
    }


def test_arrays_and_booleans_are_numbers() -> None:
    assert score(lambda completions: np.array([1, 0]), None, ["a", "b"], {})["reward"] == [1.0, 0.0]
    assert score(lambda completions: [True, np.float32(0)], None, ["a", "b"], {})["correct"] == [1.0, 0.0]


def test_an_exception_is_wrapped_with_the_row_that_caused_it() -> None:
    def fragile(completions: list[str], **_: Any) -> list[float]:
        return [1 / len(c) for c in completions]

    with pytest.raises(UsageError, match="'fragile' failed on row 2 with ZeroDivisionError"):
        score(fragile, None, ["a", "b", ""], {})


def test_columns_that_are_needed_or_of_another_length() -> None:
    def judge(completions: list[str], solution: list[str]) -> list[float]:
        return [float(c == s) for c, s in zip(completions, solution, strict=True)]

    assert score(judge, ["p"], ["a"], {"solution": ["a"], "answer": ["b"]})["reward"] == [1.0]
    with pytest.raises(UsageError, match="needs the column 'solution'; the data have: prompts, answer"):
        score(judge, ["p"], ["a"], {"answer": ["b"]})
    with pytest.raises(UsageError, match="'answer' has 2 rows for 1"):
        score(judge, None, ["a"], {"solution": ["a"], "answer": ["b", "c"]})
