"""From one row to one example, every field checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, NamedTuple

from braid.data.bad_rows import MISSING, Description, FieldError
from braid.data.examples import Example, Message, Prompt
from braid.errors import UsageError

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class Columns:
    """Which column of the rows is what, and how prompt and answer are made from them.

    Args:
        prompt: column of the prompt, a string or a list of chat messages.
        answer: column of the reference answer, a string or a number; None reads none.
        completion: column of the demonstration, a string or chat messages ending in the assistant's; None reads none.
        chosen: column of the preferred completion; None reads no preferences.
        rejected: column of the other completion; None reads no preferences.
        messages: column of a whole conversation, used by rows without a prompt: its last assistant message is the
            completion and what precedes it the prompt; None reads none.
        answer_pattern: regular expression searched in the answer column; its first group is the answer. For GSM8K
            `####\\s*(.+)`.
        prompt_template: text around a string prompt, holding `{prompt}`, as "Question: {prompt}\\nAnswer: ".

    Raises:
        UsageError: an invalid pattern or template, or one column given two parts that exclude each other.
    """

    prompt: str = "prompt"
    answer: str | None = "answer"
    completion: str | None = "completion"
    chosen: str | None = "chosen"
    rejected: str | None = "rejected"
    messages: str | None = "messages"
    answer_pattern: str | None = None
    prompt_template: str | None = None

    def __post_init__(self) -> None:
        if self.answer_pattern is not None:
            try:
                groups = re.compile(self.answer_pattern).groups
            except re.error as error:
                raise UsageError(f"answer_pattern={self.answer_pattern!r} is no regular expression: {error}") from None
            if groups < 1:
                raise UsageError(
                    f"answer_pattern={self.answer_pattern!r} has no group; put the answer in parentheses, as in "
                    r"'####\s*(.+)'"
                )
        if self.prompt_template is not None and "{prompt}" not in self.prompt_template:
            raise UsageError(f"prompt_template={self.prompt_template!r} does not contain {{prompt}}")
        if (self.chosen is None) != (self.rejected is None):
            raise UsageError("chosen and rejected must both be columns, or both None")
        outputs = [name for name in (self.answer, self.completion, self.chosen, self.rejected) if name is not None]
        if self.prompt in outputs:
            raise UsageError(f"column {self.prompt!r} cannot be the prompt and an answer or completion at once")
        if self.chosen is not None and self.chosen == self.rejected:
            raise UsageError(f"column {self.chosen!r} cannot be both chosen and rejected")


class Parsed(NamedTuple):
    example: Example
    absent: tuple[str, ...]


class RowParser:
    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.pattern = re.compile(columns.answer_pattern) if columns.answer_pattern is not None else None

    def parse(self, row: Mapping[str, Any], identity: str) -> Parsed:
        """The example in a row, and the columns it lacks.

        Raises:
            FieldError: a field cannot be used.
        """
        columns = self.columns
        completion: str | None = None
        used, absent = set[str](), list[str]()
        is_pair = columns.chosen is not None and (columns.chosen in row or columns.rejected in row)
        if columns.prompt in row:
            used.add(columns.prompt)
            prompt = self._prompt(row[columns.prompt])
        elif columns.messages is not None and columns.messages in row:
            used.add(columns.messages)
            prompt, completion = _conversation(row[columns.messages], columns.messages)
        elif is_pair:
            prompt = self._shared_prompt(row)
        else:
            raise FieldError(columns.prompt, MISSING, "a prompt: a non-empty string or a list of chat messages")
        answer: str | None = None
        if columns.answer is not None:
            if columns.answer in row:
                used.add(columns.answer)
                answer = self._answer(row[columns.answer], columns.answer)
            else:
                absent.append(columns.answer)
        if columns.completion is not None and completion is None:
            if columns.completion in row:
                used.add(columns.completion)
                completion = _assistant_text(row[columns.completion], columns.completion)
            else:
                absent.append(columns.completion)
        pair: list[str | None] = [None, None]
        for position, column in enumerate((columns.chosen, columns.rejected)):
            if column is None:
                continue
            if is_pair:
                used.add(column)
                pair[position] = _assistant_text(row.get(column, MISSING), column)
            else:
                absent.append(column)
        extra = {column: value for column, value in row.items() if column not in used}
        return Parsed(Example(identity, prompt, answer, completion, pair[0], pair[1], extra), tuple(absent))

    def _prompt(self, value: object) -> Prompt:
        column, template = self.columns.prompt, self.columns.prompt_template
        if isinstance(value, list | tuple):
            if template is not None:
                raise FieldError(column, value, "a string, since prompt_template is set")
            return _ends_before_assistant(_messages(value, column), column)
        text = _text(value, column, "a non-empty string or a list of chat messages")
        return text if template is None else template.replace("{prompt}", text)

    def _shared_prompt(self, row: Mapping[str, Any]) -> Prompt:
        """The prompt of a preference pair given as two conversations that differ in their last message."""
        chosen, rejected = str(self.columns.chosen), str(self.columns.rejected)
        turns = []
        for column in (chosen, rejected):
            value = row.get(column, MISSING)
            if isinstance(value, str):
                raise FieldError(self.columns.prompt, MISSING, "a prompt, since the pair is plain text")
            turns.append(_messages(value, column)[:-1])
        if not turns[0] or turns[0] != turns[1]:
            expected = f"the same messages as in {chosen!r} before the last, at least one"
            raise FieldError(rejected, row[rejected], expected)
        return _ends_before_assistant(turns[0], chosen)

    def _answer(self, value: object, column: str) -> str:
        text = _number(value)
        if text is None:
            text = _text(value, column, "a non-empty string or a finite number")
        if self.pattern is None:
            return text
        match = self.pattern.search(text)
        answer = (match.group(1) or "").strip() if match else ""
        if not answer:
            raise FieldError(column, value, f"a match of {self.pattern.pattern!r} with an answer in its first group")
        return answer


def as_row(value: object) -> Mapping[str, Any]:
    if isinstance(value, FieldError):
        raise value
    if not isinstance(value, Mapping):
        raise FieldError(None, value, "an object with a field per column")
    for key in value:
        if not isinstance(key, str):
            raise FieldError(None, key, "column names that are strings")
    return value


def _text(value: object, field: str, expected: str = "a non-empty string") -> str:
    if not isinstance(value, str) or not value.strip():
        raise FieldError(field, value, expected)
    if "\0" in value:
        raise FieldError(field, value, "text without NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FieldError(field, value, "text without unpaired surrogates") from None
    return value


def _number(value: object) -> str | None:
    """A finite number in plain decimal notation (18.0 as 18), or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if isinstance(value, Integral):
        whole = int(value)
        return str(whole) if abs(whole) < 10**4000 else None  # Python refuses to print far longer ones
    real = float(value)
    if not math.isfinite(real):
        return None
    return str(int(real)) if real.is_integer() else format(Decimal(repr(real)), "f")


def _messages(value: object, field: str) -> tuple[Message, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise FieldError(field, value, "a non-empty list of chat messages")
    return tuple(_message(message, f"{field}[{index}]") for index, message in enumerate(value))


def _message(message: object, field: str) -> Message:
    if not isinstance(message, Mapping):
        raise FieldError(field, message, "a message with 'role' and 'content'")
    role = message.get("role", MISSING)
    if not isinstance(role, str) or role not in ROLES:
        raise FieldError(f"{field}.role", role, f"one of {', '.join(ROLES)}")
    content = message.get("content", MISSING)
    if isinstance(content, list | tuple):
        _check_parts(content, f"{field}.content")
    elif not (content is None and message.get("tool_calls")):
        _text(content, f"{field}.content", "a non-empty string or a list of content parts")
    # Arrow fills the keys that only some messages have with None; a chat template must not see those.
    return {key: part for key, part in message.items() if part is not None or key == "content"}


def _check_parts(parts: list[object] | tuple[object, ...], field: str) -> None:
    if not parts:
        raise FieldError(field, parts, "at least one content part")
    for index, part in enumerate(parts):
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise FieldError(f"{field}[{index}]", part, "a content part with a 'type'")
        if part["type"] == "text":
            _text(part.get("text", MISSING), f"{field}[{index}].text")


def _ends_before_assistant(messages: tuple[Message, ...], field: str) -> tuple[Message, ...]:
    if messages[-1]["role"] == "assistant":
        raise FieldError(
            f"{field}[{len(messages) - 1}].role", "assistant", "a prompt that ends before the assistant's turn"
        )
    return messages


def _assistant_text(value: object, field: str) -> str:
    if not isinstance(value, list | tuple):
        return _text(value, field, "a non-empty string or chat messages")
    messages = _messages(value, field)
    roles = [message["role"] for message in messages]
    if roles.count("assistant") != 1 or roles[-1] != "assistant":
        found = Description(f"messages of {', '.join(roles[:8])}{', …' if len(roles) > 8 else ''}")
        raise FieldError(field, found, "messages of which the last, and no other, is the assistant's")
    return _content_text(messages[-1], f"{field}[{len(messages) - 1}].content")


def _content_text(message: Message, field: str) -> str:
    content = message["content"]
    if not isinstance(content, str):
        content = "".join(part["text"] for part in content or () if part["type"] == "text")
    return _text(content, field, "text from the assistant")


def _conversation(value: object, field: str) -> tuple[Prompt, str]:
    """The messages before the last assistant message, and the text of that message."""
    messages = _messages(value, field)
    last = max((index for index, message in enumerate(messages) if message["role"] == "assistant"), default=0)
    if last == 0:
        raise FieldError(field, value, "messages from the user and then the assistant")
    completion = _content_text(messages[last], f"{field}[{last}].content")
    return _ends_before_assistant(messages[:last], field), completion
