"""Tasks: worlds of prompts or observations with a verifier, demonstrations and logs of mixed quality."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from braid.errors import UsageError, unknown_name
from braid.tasks.task import SPLITS, Split, TextTask

TASKS: dict[str, str] = {
    "arithmetic": "braid.tasks.text.arithmetic:ArithmeticTask",
    "countdown": "braid.tasks.text.countdown:CountdownTask",
    "jsonl": "braid.tasks.text.jsonl:JsonlTask",
}
"""Name -> "module:class"; a module is imported only when its task is asked for."""


def task_class(name: str) -> type[Any]:
    """The class of a task; raises UsageError with suggestions for an unknown name."""
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    module, _, attribute = TASKS[name].partition(":")
    found: type[Any] = getattr(importlib.import_module(module), attribute)
    return found


def get_task(name_or_task: str | TextTask, **options: Any) -> TextTask:
    """A task by name with its options, or a task object, of which `options` make a changed copy.

    Args:
        name_or_task: a name in `TASKS`, or a task.
        options: fields of the task's dataclass; lists are taken as tuples.

    Raises:
        UsageError: an unknown name or option (with suggestions), or a value outside the allowed range.
    """
    made = task_class(name_or_task) if isinstance(name_or_task, str) else name_or_task
    if not isinstance(name_or_task, str | TextTask):
        raise UsageError(f"task={name_or_task!r} is neither a task nor a name; names: {', '.join(sorted(TASKS))}")
    if dataclasses.is_dataclass(made):
        known = [field.name for field in dataclasses.fields(made) if field.init]
        for option in options:
            if option not in known:
                raise unknown_name(f"option of task {getattr(made, 'name', name_or_task)!r}", option, known)
    values = {option: tuple(value) if isinstance(value, list) else value for option, value in options.items()}
    if isinstance(name_or_task, str):
        built: TextTask = task_class(name_or_task)(**values)
        return built
    return dataclasses.replace(name_or_task, **values) if values else name_or_task


__all__ = ["SPLITS", "TASKS", "Split", "TextTask", "get_task", "task_class"]
