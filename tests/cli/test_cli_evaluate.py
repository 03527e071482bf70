"""`braid eval` and `braid sample` treat a run the way it was trained."""

from __future__ import annotations

from pathlib import Path

import pytest

import braid
from braid.cli.evaluate import _open


@pytest.mark.parametrize("chat_template", [True, False])
def test_settings_of_the_run_are_kept_even_where_they_are_off(
    chat_template: bool, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    braid.train(
        "sft",
        task="arithmetic",
        model=tiny_checkpoint,
        output=tmp_path / "run",
        show_progress=False,
        steps=1,
        prompts_per_step=2,
        levels=(1,),
        eval_examples=2,
        test_examples=0,
        chat_template=chat_template,
    )
    opened = _open([str(tmp_path / "run")], "eval", "one\n\ntwo", [])
    assert opened is not None
    _, configuration, _ = opened
    assert configuration.settings.chat_template is chat_template
    assert configuration.task.levels == (1,)  # type: ignore[attr-defined]
