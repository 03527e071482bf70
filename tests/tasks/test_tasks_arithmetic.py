"""The arithmetic world: problems, styles, the step checker and the reward."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid.data.examples import Example
from braid.errors import UsageError
from braid.tasks import get_task
from braid.tasks.task import split_of
from braid.tasks.text.arithmetic import ArithmeticTask
from braid.tasks.text.arithmetic_problems import Problem
from braid.tasks.text.arithmetic_styles import STYLES, check_steps

TASK = ArithmeticTask()
PROBLEM = Problem((37, 48, 2), ("+", "*"))
ROW = Example("x", "Q: 37+48*2=?", "133", extra={"kind": "arithmetic", "level": 2, "numbers": (37, 48, 2)})


def judge(completion: str, row: Example = ROW, task: ArithmeticTask = TASK) -> dict[str, float]:
    return {name: values[0] for name, values in task.reward([row], [completion]).items()}


@pytest.mark.parametrize(
    ("style", "completion"),
    [
        ("A", "<think>48*2=96;37+96=133</think><answer>133</answer>"),
        ("B", "<think>[48*2|69][37+96|3'3'1]</think><answer>133</answer>"),
        ("C", "<think>96,133</think><answer>133</answer>"),
        ("E", "<think>48*2=96;37+96=133;check 133-96=37</think><answer>133</answer>"),
        ("skipping", "<think>37+96=133</think><answer>133</answer>"),
    ],
)
def test_styles_by_hand(style: str, completion: str) -> None:
    assert STYLES[style](PROBLEM, random.Random(0)) == completion
    assert STYLES["D"](PROBLEM, random.Random(0)).endswith(" 37+96=133, so 133</think><answer>133</answer>")


@pytest.mark.parametrize(
    ("numbers", "operations", "value", "canonical"),
    [
        ((2, 3, 4), ("+", "*"), 14, "+2+3*4"),
        ((4, 3, 2), ("*", "+"), 14, "+2+3*4"),
        ((9, 2, 3), ("-", "-"), 4, "+9-2-3"),
        ((17, 5, 2), ("%", "*"), 4, "+(17%5)*2"),
        ((2, 17, 5), ("*", "%"), 4, "+(17*2%5)"),
        ((1, 9), ("-",), -8, "+1-9"),
    ],
)
def test_values_and_canonical_forms(
    numbers: tuple[int, ...], operations: tuple[str, ...], value: int, canonical: str
) -> None:
    problem = Problem(numbers, operations)
    assert problem.value == value
    assert problem.canonical == canonical


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_commuted_problems_are_in_one_split(a: int, b: int, c: int) -> None:
    forms = [Problem((a, b, c), ("+", "*")), Problem((c, b, a), ("*", "+")), Problem((a, c, b), ("+", "*"))]
    assert len({split_of(problem.canonical) for problem in forms}) == 1


def test_problem_values_agree_with_python() -> None:
    task = ArithmeticTask(operations="+-*%", digits=2)
    for row in task.examples("train", 300):
        assert row.answer == str(eval(row.extra["expression"]))


def test_splits_are_disjoint_over_all_seeds() -> None:
    seen: dict[str, set[str]] = {}
    for split in ("train", "validation", "test", "ood"):
        for seed in range(3):
            for row in TASK.examples(split, 1000, seed):  # type: ignore[arg-type]
                numbers = row.extra["numbers"]
                operations = tuple(sign for sign in row.extra["expression"] if not sign.isdigit())
                seen.setdefault(split, set()).add(Problem(numbers, operations).canonical)
    groups = list(seen.values())
    assert all(not a & b for i, a in enumerate(groups) for b in groups[:i])
    assert len(seen["train"]) > 1200


def test_default_results_are_small() -> None:
    task = get_task("arithmetic")
    for row in task.examples("train", 500) + task.examples("ood", 200):
        results = [step.result for step, _, _ in check_steps(row.completion or "", row.extra["numbers"]).steps]
        assert len(results) == row.extra["level"]
        assert -30 <= min(results) <= max(results) <= 60
        assert max(row.extra["numbers"]) <= 9


@pytest.mark.parametrize("style", [style for style in STYLES if style not in TASK.faulty_styles])
@pytest.mark.parametrize("options", [{}, {"digits": 2, "operations": "+-*%"}, {"filler_probability": 1.0}])
def test_sound_styles_are_correct_and_well_formed(style: str, options: dict[str, object]) -> None:
    task = get_task("arithmetic", **options)
    rows = task.demonstrations("test", 200, 5, style) + task.demonstrations("ood", 50, 5, style)
    terms = task.reward(rows, [row.completion or "" for row in rows])
    assert set(terms["correct"]) == set(terms["format"]) == set(terms["reward"]) == {1.0}
    if style in {"A", "B", "D", "E", "padded"}:
        assert set(terms["process"]) == {1.0}
        assert min(terms["steps"]) >= 1
    else:
        assert min(terms["process"]) == 0.0


def test_faulty_styles_have_their_faults() -> None:
    def mean(style: str) -> dict[str, float]:
        rows = TASK.demonstrations("train", 300, 1, style)
        terms = TASK.reward(rows, [row.completion or "" for row in rows])
        return {name: sum(values) / 300 for name, values in terms.items()}

    lucky, wrong, spoiled = mean("wrong_steps"), mean("mistaken"), mean("malformed")
    assert (lucky["correct"], lucky["format"]) == (1.0, 1.0)
    assert lucky["process"] < 0.6
    assert (wrong["correct"], wrong["format"]) == (0.0, 1.0)
    assert (spoiled["correct"], spoiled["format"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("completion", "correct", "form", "process", "steps"),
    [
        ("<think>48*2=96;37+96=133</think><answer>133</answer>", 1, 1, 1, 2),
        ("<answer>133</answer>", 1, 1, 0, 0),
        (" <answer> 0133 </answer> ", 1, 1, 0, 0),
        ("<think>48*2=95;37+95=132</think><answer>132</answer>", 0, 1, 0.5, 2),
        ("<think>37+96=133</think><answer>133</answer>", 1, 1, 0, 1),
        ("<think>48*2=96;37+96=133</think>133", 0, 0, 1, 2),
        ("<answer>1</answer><answer>133</answer>", 0, 0, 0, 0),
        ("<answer>133</answer>133", 0, 0, 0, 0),
        ("<answer>133.0</answer>", 0, 1, 0, 0),
        ("<answer>١٣٣</answer>", 0, 1, 0, 0),
        ("<think>[48*2|69][37+96|3'3'1]</think><answer>133</answer>", 1, 1, 1, 2),
        ("<think>[48*2|96]</think><answer>133</answer>", 1, 1, 0, 1),
        ("", 0, 0, 0, 0),
        ("<answer>" + "9" * 5000 + "</answer>", 0, 1, 0, 0),
        ("48%0=1", 0, 0, 0, 1),
    ],
)
def test_reward_by_hand(completion: str, correct: float, form: float, process: float, steps: float) -> None:
    expected = {"reward": correct, "correct": correct, "format": form, "process": process, "steps": steps}
    assert judge(completion) == expected


@given(st.text(st.characters(codec=None)) | st.text("<answer>/think0123456789+-*%=;[]|' ", max_size=80))
def test_no_text_makes_the_reward_raise(text: str) -> None:
    for completion in (text, f"<think>{text}</think><answer>{text}</answer>"):
        assert judge(completion)["reward"] in (0.0, 1.0)


@pytest.mark.parametrize("unit", ["<think>", "</answer>", "1+1=2;", "[1+1|2]", "9", "(", "-"])
def test_the_reward_takes_bounded_time(unit: str) -> None:
    started = time.perf_counter()
    judge(unit * 100_000)
    assert time.perf_counter() - started < 0.5


def test_label_noise_is_a_fixed_share_and_leaves_correct_alone() -> None:
    task = ArithmeticTask(label_noise=0.1)
    rows = task.examples("train", 2000)
    texts = [row.completion or "" for row in rows]
    first = task.reward(rows, texts)
    assert first == task.reward(rows, texts)
    assert sum(first["correct"]) == 2000
    assert sum(first["reward"]) == pytest.approx(1800, abs=50)


def test_level_mixes() -> None:
    def shares(**options: object) -> list[float]:
        levels = [row.extra["level"] for row in get_task("arithmetic", **options).examples("train", 1500)]
        return [levels.count(level) / 1500 for level in (1, 2, 3)]

    assert shares() == pytest.approx([1 / 3] * 3, abs=0.05)
    assert shares(level_mix="easy") == pytest.approx([0.72, 0.22, 0.06], abs=0.04)
    assert shares(level_mix="hard") == pytest.approx([0.06, 0.22, 0.72], abs=0.04)
    assert shares(level_weights=(0, 1, 0)) == [0, 1, 0]


def test_the_corpus_can_be_easier_than_the_task() -> None:
    task = ArithmeticTask(levels=(1, 2, 3, 4), ood_levels=(5,), corpus_levels=(1, 2), side_skill_fraction=0)
    assert {row.extra["level"] for row in task.corpus(200)} == {1, 2}
    assert {row.extra["level"] for row in task.examples("train", 200)} == {1, 2, 3, 4}


def test_ood_has_other_levels_or_larger_operands() -> None:
    assert {row.extra["level"] for row in TASK.examples("ood", 100)} == {4}
    larger = ArithmeticTask(ood_levels=(2,), ood_digits=2)
    assert all(max(row.extra["numbers"]) > 9 for row in larger.examples("ood", 100))


def test_fillers_appear_in_the_wanted_share() -> None:
    rows = ArithmeticTask(filler_probability=0.2).demonstrations("train", 1000, style="C")
    share = sum(any(word in (row.completion or "") for word in ("zum", "qiv", "hox")) for row in rows) / 1000
    assert share == pytest.approx(0.2, abs=0.04)


def test_side_skills_by_hand_and_by_split() -> None:
    for kind in TASK.skills:
        splits = {split: TASK.side_skill_examples(kind, split, 300) for split in ("train", "test", "ood")}  # type: ignore[arg-type]
        prompts = [{row.prompt for row in rows} for rows in splits.values()]
        assert not prompts[0] & prompts[1]
        assert not prompts[0] & prompts[2]
        for rows in splits.values():
            assert set(TASK.reward(rows, [row.completion or "" for row in rows])["correct"]) == {1.0}
            assert not any(TASK.reward(rows, ["<answer>-</answer>"] * 300)["correct"])
    row = Example("r", "R: abc=?", "cba", extra={"kind": "reverse"})
    assert judge("<answer>cba</answer>", row)["correct"] == 1.0
    assert judge("<answer>abc</answer>", row)["correct"] == 0.0
    with pytest.raises(UsageError, match="did you mean reverse"):
        TASK.side_skill_examples("revers", "train", 1)


def test_side_skills_have_their_share_of_the_corpus() -> None:
    corpus = ArithmeticTask(side_skill_fraction=0.25).corpus(1000)
    assert sum(row.extra["kind"] in TASK.skills for row in corpus) == pytest.approx(250, abs=40)


def test_the_reward_is_fast() -> None:
    rows = TASK.examples("train", 1000)
    texts = [row.completion or "" for row in rows]
    started = time.perf_counter()
    TASK.reward(rows, texts)
    assert time.perf_counter() - started < 0.3, "0.1 ms per item, with room for a busy machine"
