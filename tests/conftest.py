"""Shared by all tests: one thread each (the tests run in parallel), a cache of their own, small policies and tasks."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from braid.data.examples import Example


@pytest.fixture(autouse=True, scope="session")
def _one_thread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with Ctrl-C ignored
    patch = pytest.MonkeyPatch()
    patch.setenv("BRAID_CACHE", str(tmp_path_factory.getbasetemp() / "braid-cache"))
    patch.setenv("HF_HUB_OFFLINE", "1")
    yield
    patch.undo()


class ParityTask:
    """A world for fast tests: the right answer has an even number of characters, so random text is often right."""

    name = "parity"
    max_new_tokens = 12
    max_prompt_tokens = 8
    judges_alone = True

    def examples(self, split: str, n: int | None, seed: int = 0) -> list[Example]:
        return [Example(id=f"{split}:{i}", prompt=f"Q{i % 97}", answer="aa", completion="aa") for i in range(n or 64)]

    def demonstrations(self, split: str, n: int | None, seed: int = 0, style: str | None = None) -> list[Example]:
        return self.examples(split, n, seed)

    def reward(self, examples: Sequence[Example], completions: Sequence[str]) -> dict[str, list[float]]:
        correct = [float(len(text) % 2 == 0) for text in completions]
        return {"reward": correct, "correct": correct, "format": [1.0] * len(completions)}


@pytest.fixture
def parity_task() -> Any:
    return ParityTask()


@pytest.fixture
def tiny_policy() -> Any:
    from braid.policies import tiny

    return tiny(1.2e5, seed=1)


@pytest.fixture
def tiny_checkpoint(tiny_policy: Any, tmp_path: Path) -> Path:
    tiny_policy.save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"
