"""Full disks, folders that cannot be written, damaged checkpoints, and losses that are not numbers."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import braid
from braid.cli.main import run as braid_command
from braid.errors import StorageError, TrainingDiverged, UsageError
from braid.methods.rlvr.sft import SFT
from braid.methods.token import Loss
from braid.training.checkpoint import checkpoints, write_atomically, write_json
from braid.training.run import Run

WORDS: dict[str, Any] = {
    "task": "arithmetic",
    "levels": (1,),
    "prompts_per_step": 2,
    "train_examples": 16,
    "max_new_tokens": 6,
    "eval_examples": 2,
    "test_examples": 0,
    "steps": 4,
    "checkpoint_every": 2,
    "track": "",
    "show_progress": False,
}


def full_disk(*arguments: Any, **words: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_torch(*arguments: Any, **words: Any) -> Any:
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")


def full_safetensors(*arguments: Any, **words: Any) -> Any:
    raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize("owner_name_fault", [(os, "fsync", full_disk), (torch, "save", full_torch)])
def test_a_full_disk_leaves_the_last_checkpoint_intact(
    owner_name_fault: tuple[Any, str, Any],
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner, name, fault = owner_name_fault
    from braid.training import loop

    path = tmp_path / "run"
    original = loop.save_checkpoint
    saved = []

    def save(*arguments: Any) -> Path:
        if saved:
            monkeypatch.setattr(owner, name, fault)
        saved.append(1)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save)
        with pytest.raises(StorageError) as caught:
            braid.train("sft", model=tiny_checkpoint, output=path, **WORDS)
    monkeypatch.undo()
    assert "step-00000002" in str(caught.value)
    assert f"braid resume {path}" in str(caught.value)
    assert [c.name for c in checkpoints(path / "checkpoints")] == ["step-00000002"]
    assert not list(path.rglob("*.partial"))
    assert Run(path).policy is not None
    assert braid.resume(path, show_progress=False).result is not None


def test_a_failed_write_of_weights_is_a_storage_error(
    tmp_path: Path, tiny_policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full_safetensors)
    with pytest.raises(StorageError, match="No space left on device"):
        write_atomically(tmp_path / "checkpoint", tiny_policy.save)
    assert list(tmp_path.iterdir()) == []


def test_a_file_size_limit_is_a_storage_error_with_exit_code_1(tmp_path: Path, tiny_checkpoint: Path) -> None:
    path = tmp_path / "run"
    words = ["--task", "arithmetic", "--levels", "1", "--model", str(tiny_checkpoint), "--steps", "2", "--track", ""]
    words += ["--eval-examples", "2", "--test-examples", "0", "--prompts-per-step", "2", "--checkpoint-every", "1"]
    said = tmp_path / "said.txt"
    child = os.fork()  # a limit cannot be taken back
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        sys.stderr = open(said, "w")  # noqa: SIM115
        code = braid_command(["train", "sft", *words, "--output", str(path), "--quiet"])
        sys.stderr.flush()
        os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert "braid: cannot write" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert checkpoints(path / "checkpoints") == []
    assert braid.resume(path, show_progress=False).result is not None


def test_a_small_real_disk_that_fills_up(tmp_path: Path, tiny_checkpoint: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        words = {**WORDS, "steps": 50, "checkpoint_every": 1, "keep_checkpoints": 50}
        with pytest.raises(StorageError, match=r"No space left|cannot write") as caught:
            braid.train("sft", model=tiny_checkpoint, output=disk / "run", **words)
        last = Run(disk / "run").latest_checkpoint
        assert last is not None
        assert str(last) in str(caught.value)
        assert Run(disk / "run").policy is not None
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_folder_that_cannot_be_made(tmp_path: Path, tiny_checkpoint: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("")
    words = ["--task", "arithmetic", "--model", str(tiny_checkpoint), "--output", str(tmp_path / "file" / "run")]
    assert braid_command(["train", "grpo", *words]) == 1
    assert f"cannot write {tmp_path / 'file' / 'run'}" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["model.safetensors", "learner.pt", "progress.json", "config.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(
    damage: str, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    run = braid.train("sft", model=tiny_checkpoint, output=tmp_path / "run", **WORDS)
    (run.path / "result.json").unlink()
    last = run.latest_checkpoint
    assert last is not None
    content = (last / damage).read_bytes()
    (last / damage).write_bytes(content[: len(content) // 2] if damage != "progress.json" else b"{}")
    with pytest.raises(StorageError, match=str(last)) as caught:
        braid.resume(run.path, show_progress=False)
    assert "damaged" in str(caught.value)
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    assert braid.resume(run.path, show_progress=False).latest_checkpoint == last


def test_json_is_strict(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [float("inf"), 1.5], "c": (1, {"d": -float("inf")})})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": [None, 1.5], "c": [1, {"d": None}]}


@dataclass(frozen=True)
class NaN(SFT):
    """A loss that is not a number, from the third optimiser step on or only there."""

    def update(self, batch: Any, scores: Any) -> Loss:
        return Loss(super().update(batch, scores).value * float("nan"))


def test_a_loss_that_is_never_a_number_stops_the_run(tmp_path: Path, tiny_checkpoint: Path) -> None:
    words = {**WORDS, "steps": 20, "max_bad_steps": 3, "checkpoint_every": 1}
    with pytest.raises(TrainingDiverged, match="3 optimiser steps in a row") as caught:
        braid.train(NaN(), model=tiny_checkpoint, output=tmp_path / "run", **words)
    run = Run(tmp_path / "run")
    assert str(run.latest_checkpoint) in str(caught.value)
    assert [row["step/skipped"] for row in run.metrics()[1:]] == [1.0, 2.0]
    assert [row["loss"] for row in run.metrics()[1:]] == [None, None]
    start = safetensors.torch.load_file(tiny_checkpoint / "model.safetensors")
    end = safetensors.torch.load_file(run.latest_checkpoint / "model.safetensors")
    assert all(torch.equal(start[name], end[name]) for name in start)
    assert run.result is None


def test_a_single_bad_step_is_skipped_and_counted(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"n": 0}
    original = SFT.update

    def once(self: SFT, batch: Any, scores: Any) -> Loss:
        calls["n"] += 1
        loss = original(self, batch, scores)
        return Loss(loss.value * float("nan")) if calls["n"] == 2 else loss

    monkeypatch.setattr(SFT, "update", once)
    run = braid.train("sft", model=tiny_checkpoint, output=tmp_path / "run", **{**WORDS, "max_bad_steps": 2})
    assert [row["step/skipped"] for row in run.metrics()[1:]] == [0.0, 1.0, 1.0, 1.0]
    assert run.result is not None
    assert run.result["skipped_steps"] == 1


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path, tiny_checkpoint: Path) -> None:
    kept = sorted(tiny_checkpoint.iterdir())
    with pytest.raises(UsageError, match=r"holds config\.json of something else"):
        braid.train("sft", model=tiny_checkpoint, output=tiny_checkpoint, **WORDS)
    assert sorted(tiny_checkpoint.iterdir()) == kept
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("kept")
    words = {**WORDS, "adapter": "lora", "adapter_targets": "nothing"}
    with pytest.raises(UsageError, match="adapter targets"):
        braid.train("sft", model=tiny_checkpoint, output=tmp_path / "notes", **words)
    assert [file.name for file in (tmp_path / "notes").iterdir()] == ["mine.txt"]
