"""The person's own rows, rewards and methods from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import braid
from braid.cli.main import run as braid_command
from braid.tasks.text.jsonl import JsonlTask
from braid.training.run import Run

SMALL: dict[str, Any] = {
    "steps": 2,
    "prompts_per_step": 2,
    "max_new_tokens": 6,
    "eval_examples": 2,
    "test_examples": 2,
    "test_samples": 1,
    "track": "",
    "show_progress": False,
}
FLAGS = "--steps 2 --prompts-per-step 2 --max-new-tokens 6 --eval-examples 2 --test-examples 2 --test-samples 1 --quiet"
REWARD = """
def score(prompts, completions, answer, level, **rest):
    assert len(prompts) == len(completions) == len(answer) == len(level)
    assert all(isinstance(number, int) for number in level)
    return [number + len(text) % 2 for text, number in zip(completions, level)]
"""
METHOD = """
from dataclasses import dataclass
from braid.methods.rlvr.grpo import GRPO
from braid.methods.registry import register
from braid.options import option

@register("mine", title="Mine", family="own")
@dataclass(frozen=True)
class Mine(GRPO):
    \"\"\"A method of one's own [with brackets].\"\"\"

    push: float = option(2.0, "factor of every advantage", unit="1", source="own idea", above=0)

    def advantage(self, reward, group_id):
        return self.push * super().advantage(reward, group_id)
"""


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    content = [{"prompt": f"Q{i}", "answer": str(i), "completion": f"A{i}", "level": i % 3} for i in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in content))
    (tmp_path / "rewards.py").write_text(REWARD)
    (tmp_path / "mine.py").write_text(METHOD)
    return file


def test_imitation_then_reinforcement_from_its_checkpoint(tmp_path: Path, rows: Path) -> None:
    first = braid.train("sft", task="jsonl", data=str(rows), model="tiny-0.2m", output=tmp_path / "sft", **SMALL)
    assert first.result is not None
    assert first.metrics()[-1]["eval/loss"] < first.metrics()[0]["eval/loss"]
    second = braid.train(
        "grpo",
        task="jsonl",
        data=str(rows),
        reward=f"{tmp_path / 'rewards.py'}:score",
        model=first.latest_checkpoint,
        output=tmp_path / "grpo",
        **{**SMALL, "group_size": 4},
    )
    last = second.metrics()[-1]
    assert last["reward/mean"] > 0
    assert second.metrics()[0]["eval/loss"] == pytest.approx(first.metrics()[-1]["eval/loss"])


def test_the_same_on_the_command_line_with_a_method_of_ones_own(
    tmp_path: Path, rows: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from braid.training import learner

    output = tmp_path / "run"
    words = ["--task", "jsonl", "--data", str(rows), "--reward", f"{tmp_path / 'rewards.py'}:score"]
    words += [*FLAGS.split(), "--model", "tiny-0.2m", "--group-size", "2", "--push", "3", "--output", str(output)]
    original = learner.Learner.step

    def interrupted(self: Any, progress: float) -> Any:
        if self.step_count == 1:
            raise KeyboardInterrupt
        return original(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(learner.Learner, "step", interrupted)
        assert braid_command(["train", f"{tmp_path / 'mine.py'}:Mine", *words]) == 130
    assert f"braid resume {output}" in capsys.readouterr().err
    assert braid_command(["resume", str(output)]) == 0
    run = Run(output)
    assert run.config["method"] == f"{tmp_path / 'mine.py'}:Mine"
    assert run.config["method_options"]["push"] == 3.0
    assert run.result is not None
    assert "2 steps" in capsys.readouterr().out
    assert braid_command(["show", f"{tmp_path / 'mine.py'}:Mine"]) == 0
    shown = capsys.readouterr().out
    assert "A method of one's own [with brackets]." in shown
    assert "--push" in shown


def test_bad_rows_stop_the_run_or_are_left_out(tmp_path: Path, rows: Path, capsys: Any) -> None:
    with open(rows, "a", encoding="utf-8") as file:
        file.write('{"answer": "no prompt"}\n')
    words = ["train", "sft", "--task", "jsonl", "--data", str(rows), "--model", "tiny-0.2m", *FLAGS.split()]
    assert braid_command([*words, "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "rows.jsonl" in said
    assert "41" in said
    assert braid_command([*words, "--output", str(tmp_path / "run"), "--on-bad-row", "skip"]) == 0


@pytest.mark.parametrize(
    ("method", "words", "sentence"),
    [
        ("grpo", "--data {tmp}/absent.jsonl", "absent.jsonl"),
        ("grpo", "--data {rows} --reward mth", "did you mean math"),
        ("grpo", "--data {rows} --reward {tmp}/rewards.py:scor", "scor"),
        ("sft", "--data {bare}", "demonstrations need completions"),
        ("grpo", "--data {rows} --model auto", "has no base checkpoint of its own"),
        ("grpo", "--data {rows} --max-new-tokens 4000", "model's context is 2048 tokens"),
        ("grpo", "--data {rows} --adapter lora --adapter-targets none", "adapter targets"),
        ("grpo", "--data {rows} --device cuda", "no CUDA device"),
        ("grpo", "--data {rows} --output {held}", "already holds a run"),
        ("grpo", "", "needs data"),
        ("grpo", "--data {rows} --clip-low 2", "clip_low=2.0 must be at least 0 and at most 1"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(
    method: str, words: str, sentence: str, tmp_path: Path, rows: Path, tiny_checkpoint: Path, capsys: Any
) -> None:
    import torch

    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    bare = tmp_path / "bare.jsonl"
    bare.write_text("".join(json.dumps({"prompt": f"Q{i}", "answer": "1"}) + "\n" for i in range(40)))
    held = tmp_path / "held"
    if "{held}" in words:
        braid.train("sft", task="jsonl", data=str(rows), model=tiny_checkpoint, output=held, **SMALL)
    filled = words.format(tmp=tmp_path, rows=rows, bare=bare, held=held).split()
    command = ["train", method, "--task", "jsonl"]
    command += [] if "--model" in filled else ["--model", str(tiny_checkpoint)]
    command += [] if "--output" in filled else ["--output", str(tmp_path / "run")]
    capsys.readouterr()
    assert braid_command([*command, *filled]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def odd_length(completions: list[str], **columns: Any) -> list[float]:
    """A reward that gradients can follow: how odd the length of a completion is."""
    return [float(len(text) % 2) for text in completions]


def test_rows_and_reward_in_memory(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from braid.errors import UsageError

    data = [{"prompt": f"Q{i}", "completion": "a", "answer": "a"} for i in range(40)]
    task = JsonlTask(data=data, reward_function=odd_length)
    words = {**SMALL, "group_size": 2, "model": tiny_checkpoint}
    run = braid.train("grpo", task=task, output=tmp_path / "run", **words)
    assert run.config["task_options"] is None
    assert 0 < max(row["reward/mean"] for row in run.metrics()[1:]) <= 1
    (run.path / "result.json").unlink()
    with pytest.raises(UsageError, match="task="):
        braid.resume(run.path, show_progress=False)
    assert braid.resume(run.path, task=task, show_progress=False).result is not None


def test_chat_messages_are_written_as_readable_samples(tmp_path: Path) -> None:
    run = Run(tmp_path)
    prompt = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"})
    run.write_samples(3, [{"prompt": prompt, "answer": "2", "completion": "2 \ud800", "reward": 1.0}])
    text = (tmp_path / "samples" / "step-00000003.txt").read_text()
    assert text.startswith("--- prompt\nsystem: Be brief.\nuser: 1+1?\n--- completion (reward 1, answer 2)\n2 ")
