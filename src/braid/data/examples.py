"""One row of a task for a language model: a prompt with whatever is known about its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Message = Mapping[str, Any]
Prompt = str | tuple[Message, ...]
"""Plain text, or chat messages (`role`, `content`) to which the tokenizer's chat template is applied."""


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt with whatever is known about its answer.

    Args:
        id: unique within its task and split.
        prompt: text, or a tuple of chat messages.
        answer: the reference that a verifier compares with; None if there is none.
        completion: a demonstration, the text a good policy would continue the prompt with; None if there is none.
        chosen: the preferred completion of a preference pair; None if there is none.
        rejected: the other completion of the pair; None if there is none.
        extra: every further column (`level`, user columns …); reaches reward functions as keyword arguments.
    """

    id: str
    prompt: Prompt
    answer: str | None = None
    completion: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
