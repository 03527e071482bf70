"""From names and options to method, task and settings, and to the JSON that a run can be repeated from."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braid.errors import UsageError, unknown_name
from braid.methods.registry import find_method, method_name
from braid.methods.token import TokenMethod
from braid.options import options_of
from braid.tasks import get_task, task_class
from braid.tasks.task import TextTask
from braid.training.settings import Settings

ALIASES = {"reward": "reward_function"}
"""Shorter words for options, on the command line and in Python."""


@dataclass(frozen=True)
class Configuration:
    """Everything a run is told.

    Args:
        method: how to train.
        task: on what.
        settings: budget, batch, optimiser, evaluation, storage, device.
    """

    method: TokenMethod
    task: TextTask
    settings: Settings

    @classmethod
    def build(
        cls, method: str | TokenMethod | type[TokenMethod], task: str | TextTask, options: Mapping[str, Any]
    ) -> Configuration:
        """Sort options into those of the method, the task and the run.

        Args:
            method: slug, `file.py:Class`, class, or object.
            task: name or object.
            options: by name; an option of a method or task given as an object makes a changed copy.

        Raises:
            UsageError: an unknown name, with the closest known ones, or a value out of range.
        """
        owner = find_method(method) if isinstance(method, str) else method if isinstance(method, type) else type(method)
        world = task_class(task) if isinstance(task, str) else type(task)
        known = {kind: {o.name for o in options_of(kind)} for kind in (owner, world, Settings)}
        chosen: dict[type, dict[str, Any]] = {owner: {}, world: {}, Settings: {}}
        for name, value in options.items():
            name = ALIASES.get(name, name)
            homes = [kind for kind, names in known.items() if name in names]
            if not homes:
                raise unknown_name("option", name, set().union(*known.values()))
            for home in homes:
                chosen[home][name] = value
        built = method if isinstance(method, TokenMethod) else owner()
        return cls(
            dataclasses.replace(built, **chosen[owner]),
            get_task(task, **chosen[world]),
            Settings(**chosen[Settings]),
        )

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values; a task that holds data in memory is only described."""
        task_options = {o.name: getattr(self.task, o.name) for o in options_of(type(self.task))}
        content: dict[str, Any] = {
            "method": method_name(self.method),
            "method_options": _encode(dataclasses.asdict(self.method)),
            "task": self.task.name,
            "settings": _encode(dataclasses.asdict(self.settings)),
        }
        try:
            content["task_options"] = json.loads(json.dumps(_encode(task_options)))
        except TypeError:
            content["task_options"] = None
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any], task: TextTask | None = None) -> Configuration:
        """The configuration of a recorded run.

        Args:
            content: as `to_json` made it.
            task: needed for a run whose task held data in memory.

        Raises:
            UsageError: the task is needed and missing.
        """
        if task is None:
            if content["task_options"] is None:
                raise UsageError(
                    f"this run's task {content['task']!r} held data or a function in memory; "
                    "continue it from Python with braid.resume(run, task=...)"
                )
            task = get_task(content["task"], **content["task_options"])
        method = find_method(content["method"])(**_decode(content["method_options"]))
        return cls(method, task, Settings(**_decode(content["settings"])))


def _encode(values: Mapping[str, Any]) -> dict[str, Any]:
    """Infinity as text, since JSON has no word for it, and paths as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and math.isinf(value):
            return "inf" if value > 0 else "-inf"
        return str(value) if isinstance(value, Path) else value

    return {name: plain(value) for name, value in values.items()}


def _decode(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: float(value) if value in ("inf", "-inf") else tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
    }
