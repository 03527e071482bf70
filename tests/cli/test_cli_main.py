"""The command line: help, lists, suggestions, exit codes, options, evaluation and samples."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import braid
from braid.cli.main import COMMANDS, run
from braid.cli.options import parse
from braid.errors import BraidError, DataError, Interrupted, MissingExtra, StorageError, TrainingDiverged, UsageError
from braid.methods.rlvr.grpo import GRPO
from braid.options import Option, options_of
from braid.training.run import Run
from braid.training.settings import Settings

LIGHT = """
import sys
from braid.cli.main import run
code = run({words!r})
heavy = {{"torch", "transformers", "tensordict", "datasets"}} & set(sys.modules)
print(f"\\ncode {{code}} heavy {{sorted(heavy)}}")
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--help"], 0), (["list"], 0), (["trian"], 2), (["--version"], 0), (["train"], 0), (["lst"], 2)],
)
def test_light_commands_import_neither_torch_nor_transformers(words: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT.format(words=words)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"code {code} heavy []", done.stderr


def test_help_and_list_answer_at_once() -> None:
    best = math.inf
    for words in (["--help"], ["list"]):
        before = os.times()
        subprocess.run([sys.executable, "-m", "braid", *words], check=True, capture_output=True)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        best = min(best, used)
        assert used < 1.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("trian grpo", "unknown command 'trian'; did you mean train"),
        ("train grop", "unknown method 'grop'; did you mean grpo"),
        ("show grop", "did you mean grpo"),
        ("train grpo --task arithmetc", "unknown task 'arithmetc'; did you mean arithmetic"),
        ("train grpo --stepz 3", "--steps"),
        ("train grpo --steps=x", "--steps"),
        ("train grpo --aggregation token-men", "token-mean"),
        ("compare grpo sft --seedz 3", "--seeds"),
        ("compare grpo --budget step=3", "write steps=100, tokens=1e6 or seconds=60"),
        ("compare grpo nsr@mode", "name=value"),
        ("compare grpo nsr@mode=negativ", "negative"),
        ("compare grpo grpo", "named twice"),
        ("compare grpo@steps=5 sft", "steps must be the same for all arms"),
        ("list --famly rlvr", "--family"),
        ("list --family rlv", "did you mean rlvr"),
        ("resume nowhere", "is not a run"),
        ("resume", "needs one run"),
        ("eval", None),
        ("eval nowhere --examplez 3", "--examples"),
        ("train grpo sft", "braid compare"),
        ("train --task arithmetic", "needs a method first"),
        ("train grpo --task", "--task needs a value"),
    ],
)
def test_what_is_not_understood_gets_code_2_and_a_suggestion(words: str, said: str | None, capsys: Any) -> None:
    code = run(words.split())
    captured = capsys.readouterr()
    if said is None:
        assert (code, "usage: braid eval" in captured.out) == (0, True)
        return
    assert code == 2
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_every_command_has_help(capsys: Any) -> None:
    for command in COMMANDS:
        assert run([command, "--help"]) == 0
        assert f"usage: braid {command}" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["train grpo --task arithmetic --help", "compare grpo sft nsr@mode=negative --help"])
def test_help_of_a_method_lists_every_option_with_default_unit_and_source(words: str, capsys: Any) -> None:
    assert run(words.split()) == 0
    shown = capsys.readouterr().out
    text = " ".join(word for word in shown.split() if word != "│")
    shared = ("seed", "steps", "tokens", "seconds")  # said by --seeds and --budget when comparing
    for option in (*options_of(GRPO), *options_of(Settings)):
        if words.startswith("compare") and option.name in shared:
            continue
        assert f"--{option.name.replace('_', '-')}" in text
        default = "(default: none)" if option.default in ("", None) else f"(default: {option.default})"
        assert f"{option.description} {default}" in text
    assert "--levels" in text


def options(*words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    from braid.tasks import task_class

    world: type = task_class("arithmetic")
    reward = Option("reward_function", str, "math", "what judges", "", "")
    groups = {"grpo": options_of(GRPO), "task": [*options_of(world), reward], "run": options_of(Settings)}
    return parse("braid train", "", groups, [Option("quiet", bool, False, "", "", "")], words)


def test_options_as_they_are_typed() -> None:
    typed = ["--clip_high", "0.3", "--clip-low", "0.2", "--reward", "exact", "--mask-truncated", "--levels", "1", "2"]
    typed += ["--skip-gradient-norm", "inf", "--no-chat-template", "--entropy-coefficient", "-0.5", "--quiet"]
    command, given = options(*typed)
    assert command == {"quiet": True}
    assert given == {
        "clip_high": 0.3,
        "clip_low": 0.2,  # equal to its default, but said
        "reward_function": "exact",
        "mask_truncated": True,
        "levels": (1, 2),
        "skip_gradient_norm": math.inf,
        "chat_template": False,
        "entropy_coefficient": -0.5,
    }
    assert options("--clip-high=0.3", "--no-mask-truncated")[1] == {"clip_high": 0.3, "mask_truncated": False}
    assert options()[1] == {}


def test_errors_know_their_exit_code_and_survive_pickling() -> None:
    import pickle

    kinds = {UsageError: 2, DataError: 2, Interrupted: 130, StorageError: 1, TrainingDiverged: 1, BraidError: 1}
    for kind, code in kinds.items():
        error = pickle.loads(pickle.dumps(kind("what and how")))
        assert (type(error), str(error), error.exit_code) == (kind, "what and how", code)
    missing = pickle.loads(pickle.dumps(MissingExtra("peft", "lora")))
    assert (type(missing), missing.exit_code) == (MissingExtra, 1)
    assert "pip install 'braid[lora]'" in str(missing)


def test_show_prints_strands_and_sources(capsys: Any) -> None:
    assert run(["show", "grpo"]) == 0
    shown = capsys.readouterr().out
    for word in ("experience", "feedback", "credit", "update", "[B] spread over", "--clip-high", "arXiv", "2402.03300"):
        assert word in shown


def test_eval_and_sample_of_a_run_and_of_a_checkpoint(tmp_path: Path, tiny_checkpoint: Path, capsys: Any) -> None:
    trained = braid.train(
        "sft",
        task="arithmetic",
        levels=(2,),
        model=tiny_checkpoint,
        steps=1,
        prompts_per_step=2,
        max_new_tokens=5,
        eval_examples=2,
        test_examples=0,
        track="",
        output=tmp_path / "run",
        show_progress=False,
    )
    for source in (trained.path, tiny_checkpoint, trained.latest_checkpoint):
        words = [str(source), "--max-new-tokens", "5"]
        found = tmp_path / "found.json"
        assert run(["eval", *words, "--examples", "3", "--samples", "2", "--output", str(found)]) == 0
        assert "pass@2" in capsys.readouterr().out
        assert len(json.loads(found.read_text())["problems"]) == 3
        assert run(["sample", *words, "--count", "2"]) == 0
        assert capsys.readouterr().out.count("  -> ") == 2
        assert run(["sample", *words, "--prompt", "Q: 1+1=?", "--samples", "3"]) == 0
        assert capsys.readouterr().out.count("Q: 1+1=?") == 3


def test_a_recorded_option_gives_way_to_what_is_typed(tmp_path: Path, tiny_checkpoint: Path, capsys: Any) -> None:
    words = "--steps 1 --prompts-per-step 2 --max-new-tokens 5 --eval-examples 2 --test-examples 0 --quiet --track"
    command = ["train", "sft", "--levels", "3", "--model", str(tiny_checkpoint), "--output", str(tmp_path / "run")]
    assert run([*command, *words.split(), ""]) == 0
    assert Run(tmp_path / "run").config["task_options"]["levels"] == [3]
    capsys.readouterr()
    assert run(["sample", str(tmp_path / "run"), "--count", "3"]) == 0
    recorded = capsys.readouterr().out
    assert run(["sample", str(tmp_path / "run"), "--count", "3", "--levels", "1", "2", "3"]) == 0  # the task's default
    assert capsys.readouterr().out != recorded


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(f"{sys.executable} -m braid list | head -1", shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
