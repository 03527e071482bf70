"""The task of the user's own rows: splits, order, rewards with columns, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from braid.errors import DataError, UsageError
from braid.options import options_of
from braid.tasks import get_task
from braid.tasks.text.jsonl import JsonlTask

ROWS = [{"prompt": f"{i}+1?", "answer": i + 1, "completion": f"It is \\boxed{{{i + 1}}}"} for i in range(400)]


def write(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ids(task: JsonlTask, split: str, n: int | None = None, seed: int = 0) -> list[str]:
    return [example.id for example in task.examples(split, n, seed)]  # type: ignore[arg-type]


def test_splits_are_disjoint_complete_and_about_as_large_as_asked() -> None:
    task = JsonlTask(data=ROWS)
    splits = {split: set(ids(task, split)) for split in ("train", "validation", "test")}
    assert sum(map(len, splits.values())) == len(set.union(*splits.values())) == 400
    # 5 % of 400 is 20, with a binomial standard deviation of 4.4
    assert 7 <= len(splits["validation"]) <= 33
    assert 7 <= len(splits["test"]) <= 33


def test_more_rows_move_no_row_and_equal_prompts_stay_together() -> None:
    fewer, more = JsonlTask(data=ROWS[:300]), JsonlTask(data=[*ROWS, *ROWS])
    for split in ("train", "validation", "test"):
        prompts = {example.prompt for example in more.examples(split)}
        assert {example.prompt for example in fewer.examples(split)} <= prompts
        assert len(ids(more, split)) == 2 * len(prompts)


def test_a_tiny_data_set_still_has_every_split() -> None:
    for start in range(20):
        task = JsonlTask(data=ROWS[start : start + 3])
        assert [len(ids(task, split)) for split in ("train", "validation", "test")] == [1, 1, 1]
    two = JsonlTask(data=ROWS[:2], validation_fraction=1e-9, test_fraction=0.0)
    assert len(ids(two, "train")) == 2
    with pytest.raises(UsageError, match="none of the 2 rows of the data; raise validation_fraction"):
        two.examples("validation")


def test_validation_data_leaves_all_data_to_train(tmp_path: Path) -> None:
    train, held_out = write(tmp_path / "train.jsonl", ROWS[:50]), write(tmp_path / "held_out.jsonl", ROWS[50:60])
    task = JsonlTask(data=str(train), validation_data=str(held_out))
    assert len(ids(task, "train")) == 50
    assert sorted(ids(task, "validation")) == sorted(f"held_out.jsonl:{line}" for line in range(1, 11))
    assert set(ids(task, "test")) == set(ids(task, "validation"))


def test_the_order_depends_on_the_seed_and_its_start_not_on_n() -> None:
    task = JsonlTask(data=ROWS)
    everything = ids(task, "train")
    assert ids(task, "train", 7) == everything[:7]
    assert ids(task, "train", 10_000) == everything
    assert ids(task, "train", 0) == []
    assert ids(JsonlTask(data=ROWS), "train") == everything
    assert ids(task, "train", seed=1) != everything
    assert sorted(ids(task, "train", seed=1)) == sorted(everything)


def test_gsm8k_shaped_rows_with_the_math_reward(tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.jsonl", [{"question": f"{i}*2?", "answer": f"2*{i}\n#### {2 * i}"} for i in range(9)]
    )
    task = JsonlTask(
        data=str(path),
        validation_fraction=0.0,
        test_fraction=0.0,
        prompt_column="question",
        completion_column="answer",
        answer_pattern=r"####\s*(.+)",
        prompt_template="Question: {prompt}\nAnswer: ",
    )
    examples = sorted(task.demonstrations("train"), key=lambda example: example.id)
    assert examples[3].prompt == "Question: 3*2?\nAnswer: "
    assert (examples[3].answer, examples[3].completion) == ("6", "2*3\n#### 6")
    terms = task.reward(examples[3:6], ["2*3\n#### 6", "so \\boxed{9}", "\\boxed{10}"])
    assert terms["reward"] == terms["correct"] == terms["math"] == [1.0, 0.0, 1.0]
    assert terms["format"] == [1.0, 1.0, 1.0]


def test_format_is_added_and_follows_the_pattern() -> None:
    task = JsonlTask(data=ROWS, reward_function="exact")
    (example,) = task.examples("train", 1)
    assert task.reward([example] * 2, [str(example.answer), f"<answer>{example.answer}</answer>"]) == {
        "reward": [1.0, 1.0],
        "correct": [1.0, 1.0],
        "exact": [1.0, 1.0],
        "format": [0.0, 1.0],
    }
    shaped = JsonlTask(data=ROWS, reward_function="exact+0.5*format", reward_pattern=r"\d+")
    terms = shaped.reward([example] * 2, [str(example.answer), f"<answer>{example.answer}</answer>"])
    assert (terms["format"], terms["reward"], terms["correct"]) == ([1.0, 0.0], [1.5, 1.0], [1.0, 1.0])


def test_further_columns_reach_the_reward_function() -> None:
    seen: dict[str, object] = {}

    def judge(
        completions: list[str], prompts: list[str], answer: list[str], level: list[int], **rest: object
    ) -> list[float]:
        seen.update(prompts=prompts, answer=answer, level=level, rest=rest)
        return [float(len(text)) for text in completions]

    rows = [{"prompt": f"p{i}", "answer": i, "level": i, "tag": "x", "completions": "theirs"} for i in range(3)]
    task = JsonlTask(data=rows, reward_function=judge, validation_fraction=0.0, test_fraction=0.0)
    examples = sorted(task.examples("train"), key=lambda example: example.id)
    terms = task.reward(examples, ["", "a", "ab"])
    assert terms["reward"] == terms["judge"] == [0.0, 1.0, 2.0]
    assert seen == {
        "prompts": ["p0", "p1", "p2"],
        "answer": ["0", "1", "2"],
        "level": [0, 1, 2],
        "rest": {"tag": ["x"] * 3},
    }


def test_a_reward_function_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def short(completions, **columns):\n    return [1 / (1 + len(c)) for c in completions]\n"
    )
    task = JsonlTask(data=ROWS, reward_function=f"{tmp_path / 'mine.py'}:short")
    assert task.reward(task.examples("train", 2), ["", "a"])["short"] == [1.0, 0.5]


def test_chat_rows_and_rows_in_memory(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    task = JsonlTask(data=({"messages": turns} for _ in range(2)), validation_fraction=0.0, test_fraction=0.0)
    copy = dataclasses.replace(task, max_new_tokens=8)
    assert [e.completion for e in task.demonstrations("train")] == ["Hello"] * 2
    assert len(copy.examples("train")) == 2
    assert task.examples("train")[0].prompt == (turns[0],)


def test_missing_completions_and_answers_are_named() -> None:
    task = JsonlTask(data=[{"prompt": f"p{i}", "solution": "s"} for i in range(30)])
    with pytest.raises(UsageError, match=r"no column 'completion'.*completion_column.*'prompt', 'solution'"):
        task.demonstrations("train", 3)
    with pytest.raises(UsageError, match="needs the column 'answer'; the data have"):
        task.reward(task.examples("train", 1), ["x"])


def test_bad_rows_stop_or_are_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "rows.jsonl", [*ROWS[:5], {"prompt": "p"}, *ROWS[5:9]])
    with pytest.raises(DataError, match=r"rows\.jsonl:6: field 'answer'"):
        JsonlTask(data=str(path)).examples("train")
    task = JsonlTask(data=str(path), on_bad_row="skip")
    with caplog.at_level(logging.WARNING):
        assert sum(len(ids(task, split)) for split in ("train", "validation", "test")) == 9
    assert [(bad.line, bad.field) for bad in task.skipped] == [(6, "answer")]
    assert "left out 1 of 10 rows" in caplog.text


def test_max_rows_bounds_what_is_read() -> None:
    task = JsonlTask(data=ROWS, max_rows=12, validation_fraction=0.0, test_fraction=0.0)
    assert {int(identity.split(":")[1]) for identity in ids(task, "train")} == set(range(1, 13))


def test_the_alphabet_leaves_tags_out() -> None:
    task = JsonlTask(data=[{"prompt": "ab", "answer": 7, "completion": "<answer>é</answer>"}])
    assert task.alphabet() == "7abé"


def test_the_split_ood_and_unknown_ones_are_refused() -> None:
    task = JsonlTask(data=ROWS)
    with pytest.raises(UsageError, match="no split 'ood'"):
        task.examples("ood", 3)
    with pytest.raises(UsageError, match="did you mean train"):
        task.examples("trian", 3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="n=-1"):
        task.examples("train", -1)
    with pytest.raises(UsageError, match="2 examples were given with 1 completions"):
        task.reward(task.examples("train", 2), ["x"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, UsageError, "needs data"),
        ({"data": "no/such/file.jsonl"}, DataError, "does not exist"),
        ({"data": ROWS, "validation_data": "gone.jsonl"}, DataError, r"gone\.jsonl does not exist"),
        ({"data": ROWS, "validation_fraction": 0.6, "test_fraction": 0.4}, UsageError, "nothing to train on"),
        ({"data": ROWS, "validation_fraction": -0.1}, UsageError, "validation_fraction=-0.1"),
        ({"data": ROWS, "on_bad_row": "ignore"}, UsageError, "on_bad_row='ignore'"),
        ({"data": ROWS, "max_rows": 0}, UsageError, "max_rows=0"),
        ({"data": ROWS, "max_rows": 1.5}, UsageError, r"max_rows=1\.5"),
        ({"data": ROWS, "max_new_tokens": 0}, UsageError, "max_new_tokens=0"),
        ({"data": ROWS, "reward_function": "maths"}, UsageError, "did you mean math"),
        ({"data": ROWS, "reward_pattern": "x"}, UsageError, "pattern"),
        ({"data": ROWS, "answer_pattern": "("}, UsageError, "answer_pattern"),
    ],
)
def test_options_are_checked_when_the_task_is_made(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        JsonlTask(**options)  # type: ignore[arg-type]


def test_it_is_found_by_name_and_describes_its_options() -> None:
    task = get_task("jsonl", data=ROWS, max_rows=5)
    assert isinstance(task, JsonlTask)
    assert task.max_rows == 5
    assert all(declared.help for declared in options_of(JsonlTask))
