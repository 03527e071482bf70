"""Reading a user's rows as examples: JSONL files, Hugging Face data sets and rows in memory, each bad row named."""

from __future__ import annotations

import codecs
import difflib
import gzip
import json
import math
import os
import re
import reprlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from braid.data.examples import Example, Message, Prompt
from braid.errors import DataError, UsageError

PathLike: TypeAlias = str | os.PathLike[str]
Rows: TypeAlias = Iterable[Mapping[str, Any]]
Source: TypeAlias = PathLike | Iterable[PathLike] | Rows | Mapping[str, Rows]
"""A `datasets.Dataset` is an iterable of mappings, a `DatasetDict` a mapping from split to such."""

ROLES = ("system", "developer", "user", "assistant", "tool")
JSONL_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
BUILDERS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".arrow": "arrow"}
"""What `datasets.load_dataset` calls the formats that it is left to read."""


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


@dataclass(frozen=True)
class BadRow:
    """A row that could not be used, and why.

    Args:
        file: path as it was given, or a name for rows that are in no file.
        line: line of the file, or row of the data set, counted from 1.
        field: the field at fault, as `answer` or `prompt[0].role`; None if the row as a whole is.
        found: what is there, shortened.
        expected: what should be there.
    """

    file: str
    line: int
    field: str | None
    found: str
    expected: str

    def __str__(self) -> str:
        at_fault = "" if self.field is None else f" field {self.field!r}:"
        return f"{self.file}:{self.line}:{at_fault} found {self.found}; expected {self.expected}"


@dataclass(frozen=True)
class ReadResult:
    """The usable rows in order, the bad rows in order, and the names of all columns seen."""

    examples: list[Example]
    skipped: list[BadRow]
    columns: tuple[str, ...] = field(default=())


def read_examples(
    source: Source,
    *,
    columns: Columns | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
    split: str | None = None,
    limit: int | None = None,
) -> ReadResult:
    """Reads rows into examples whose ids are `<file name>:<line>`; a column that one usable row fills, all must fill.

    Args:
        source: a .jsonl or .jsonl.gz file, a list of them or a folder of them; a Hugging Face data set as a folder of
            `save_to_disk`, a parquet, csv or json file, a folder of those, or a hub id `owner/name[/config]`; rows in
            memory as a `datasets.Dataset` or any iterable of mappings. A path or id may end in `:split`.
        columns: which column is what; None for the default names.
        on_bad_row: "error" raises at the first bad row, "skip" leaves bad rows out and lists them.
        split: split of a data set, or the file `<split>.jsonl` of a folder; None for all files of a folder, and for
            the split "train", or the only one, of a data set.
        limit: read no further than this many usable rows, at least 1; None for all.

    Returns:
        The examples, the bad rows that were skipped, and the columns seen.

    Raises:
        DataError: a missing, unreadable or empty source, an unknown column or split, no usable row, or (unless they
            are skipped) a bad row.
        UsageError: an option outside its range.
    """
    columns = Columns() if columns is None else columns
    if on_bad_row not in ("error", "skip"):
        raise UsageError(f"on_bad_row={on_bad_row!r} is unknown; use 'error' or 'skip'")
    if limit is not None and limit < 1:
        raise UsageError(f"limit={limit} leaves no row; use at least 1, or None for all")
    name, records = _open(source, split)
    parser = _RowParser(columns)
    count, seen, kept, bad = 0, _Seen(), list[tuple[int, _Record, _Parsed]](), list[tuple[int, BadRow]]()
    for count, record in enumerate(records, start=1):
        try:
            row = _as_row(record.value)
            seen.update(dict.fromkeys(row))
            kept.append((count, record, parser.parse(row, f"{record.label}:{record.line}")))
        except _FieldError as fault:
            bad.append((count, fault.at(record)))
        if limit is not None and len(kept) == limit:
            break
    if count == 0:
        raise DataError(f"{name} is empty: it holds no row")
    _check_columns(columns, seen, name)
    optional = {columns.answer, columns.completion, columns.chosen, columns.rejected}
    filled = {column for _, _, parsed in kept for column in optional.difference(parsed.absent)}
    examples = []
    for position, record, parsed in kept:
        absent = next((column for column in parsed.absent if column in filled), None)
        if absent is None:
            examples.append(parsed.example)
        else:
            bad.append((position, _FieldError(absent, _MISSING, "a value, as in the other rows").at(record)))
    skipped = [row for _, row in sorted(bad, key=lambda item: item[0])]
    if skipped and (on_bad_row == "error" or not examples):
        raise DataError(_report(skipped, count, name, usable=len(examples)))
    return ReadResult(examples, skipped, tuple(seen))


def check_source(source: Source) -> None:
    """Raises DataError or UsageError if a source is not there or of no known kind; reads no row and asks no hub."""
    _open(source, None)


def _report(bad: list[BadRow], count: int, name: str, usable: int) -> str:
    if not usable:
        rows = "its only row is bad" if count == 1 else f"all {count} rows are bad"
        return f"{name} has no usable row: {rows}; the first: {bad[0]}"
    more = f" ({len(bad) - 1} more of {count} rows are bad)" if len(bad) > 1 else f" (the only bad one of {count} rows)"
    return f"{bad[0]}{more}; mend it, or leave bad rows out with --on-bad-row skip"


_Seen = dict[str, None]
"""The names of all columns, in the order of their first appearance."""


def _check_columns(columns: Columns, seen: Mapping[str, None], name: str) -> None:
    """Raises for a column that no row has: one that was named by the user, or the prompt where nothing replaces it."""
    if not seen:
        return
    replaced = columns.messages in seen or (columns.prompt == "prompt" and columns.chosen in seen)
    pattern_needs = {columns.answer} if columns.answer_pattern is not None else set()
    for option in fields(Columns):
        if option.name in ("answer_pattern", "prompt_template"):
            continue
        column = getattr(columns, option.name)
        if column is None or column in seen:
            continue
        if column != option.default or column in pattern_needs or (option.name == "prompt" and not replaced):
            close = difflib.get_close_matches(column, seen, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
            listed = ", ".join(map(_shorten, list(seen)[:20])) + (", …" if len(seen) > 20 else "")
            raise DataError(
                f"{name} has no column {column!r} for the {option.name}; {hint}its columns: {listed}. "
                f"Name the right one with --{option.name}-column"
            )


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


_MISSING = _Missing()
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 4


def _shorten(value: object) -> str:
    try:
        text = _repr.repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = f"a very large {type(value).__name__}"
    return text.encode("utf-8", "backslashreplace").decode()


class _FieldError(Exception):
    """What is wrong with a field, before it is known in which line."""

    def __init__(self, field: str | None, found: object, expected: str) -> None:
        super().__init__(field, found, expected)
        self.field, self.found, self.expected = field, found, expected

    def at(self, record: _Record) -> BadRow:
        found = self.found.text if isinstance(self.found, _Description) else _shorten(self.found)
        return BadRow(record.file, record.line, self.field, found, self.expected)


class _Description(NamedTuple):
    """What was found in words, where its representation would say less."""

    text: str


class _Record(NamedTuple):
    file: str
    label: str
    line: int
    value: object


class _Parsed(NamedTuple):
    example: Example
    absent: tuple[str, ...]


class _RowParser:
    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.pattern = re.compile(columns.answer_pattern) if columns.answer_pattern is not None else None

    def parse(self, row: Mapping[str, Any], identity: str) -> _Parsed:
        """The example in a row, and the columns it lacks.

        Raises:
            _FieldError: a field cannot be used.
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
            raise _FieldError(columns.prompt, _MISSING, "a prompt: a non-empty string or a list of chat messages")
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
                pair[position] = _assistant_text(row.get(column, _MISSING), column)
            else:
                absent.append(column)
        extra = {column: value for column, value in row.items() if column not in used}
        return _Parsed(Example(identity, prompt, answer, completion, pair[0], pair[1], extra), tuple(absent))

    def _prompt(self, value: object) -> Prompt:
        column, template = self.columns.prompt, self.columns.prompt_template
        if isinstance(value, list | tuple):
            if template is not None:
                raise _FieldError(column, value, "a string, since prompt_template is set")
            return _ends_before_assistant(_messages(value, column), column)
        text = _text(value, column, "a non-empty string or a list of chat messages")
        return text if template is None else template.replace("{prompt}", text)

    def _shared_prompt(self, row: Mapping[str, Any]) -> Prompt:
        """The prompt of a preference pair given as two conversations that differ in their last message."""
        chosen, rejected = str(self.columns.chosen), str(self.columns.rejected)
        turns = []
        for column in (chosen, rejected):
            value = row.get(column, _MISSING)
            if isinstance(value, str):
                raise _FieldError(self.columns.prompt, _MISSING, "a prompt, since the pair is plain text")
            turns.append(_messages(value, column)[:-1])
        if not turns[0] or turns[0] != turns[1]:
            expected = f"the same messages as in {chosen!r} before the last, at least one"
            raise _FieldError(rejected, row[rejected], expected)
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
            raise _FieldError(column, value, f"a match of {self.pattern.pattern!r} with an answer in its first group")
        return answer


def _as_row(value: object) -> Mapping[str, Any]:
    if isinstance(value, _FieldError):
        raise value
    if not isinstance(value, Mapping):
        raise _FieldError(None, value, "an object with a field per column")
    for key in value:
        if not isinstance(key, str):
            raise _FieldError(None, key, "column names that are strings")
    return value


def _text(value: object, field: str, expected: str = "a non-empty string") -> str:
    if not isinstance(value, str) or not value.strip():
        raise _FieldError(field, value, expected)
    if "\0" in value:
        raise _FieldError(field, value, "text without NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _FieldError(field, value, "text without unpaired surrogates") from None
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
        raise _FieldError(field, value, "a non-empty list of chat messages")
    return tuple(_message(message, f"{field}[{index}]") for index, message in enumerate(value))


def _message(message: object, field: str) -> Message:
    if not isinstance(message, Mapping):
        raise _FieldError(field, message, "a message with 'role' and 'content'")
    role = message.get("role", _MISSING)
    if not isinstance(role, str) or role not in ROLES:
        raise _FieldError(f"{field}.role", role, f"one of {', '.join(ROLES)}")
    content = message.get("content", _MISSING)
    if isinstance(content, list | tuple):
        _check_parts(content, f"{field}.content")
    elif not (content is None and message.get("tool_calls")):
        _text(content, f"{field}.content", "a non-empty string or a list of content parts")
    # Arrow fills the keys that only some messages have with None; a chat template must not see those.
    return {key: part for key, part in message.items() if part is not None or key == "content"}


def _check_parts(parts: list[object] | tuple[object, ...], field: str) -> None:
    if not parts:
        raise _FieldError(field, parts, "at least one content part")
    for index, part in enumerate(parts):
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise _FieldError(f"{field}[{index}]", part, "a content part with a 'type'")
        if part["type"] == "text":
            _text(part.get("text", _MISSING), f"{field}[{index}].text")


def _ends_before_assistant(messages: tuple[Message, ...], field: str) -> tuple[Message, ...]:
    if messages[-1]["role"] == "assistant":
        raise _FieldError(
            f"{field}[{len(messages) - 1}].role", "assistant", "a prompt that ends before the assistant's turn"
        )
    return messages


def _assistant_text(value: object, field: str) -> str:
    if not isinstance(value, list | tuple):
        return _text(value, field, "a non-empty string or chat messages")
    messages = _messages(value, field)
    roles = [message["role"] for message in messages]
    if roles.count("assistant") != 1 or roles[-1] != "assistant":
        found = _Description(f"messages of {', '.join(roles[:8])}{', …' if len(roles) > 8 else ''}")
        raise _FieldError(field, found, "messages of which the last, and no other, is the assistant's")
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
        raise _FieldError(field, value, "messages from the user and then the assistant")
    completion = _content_text(messages[last], f"{field}[{last}].content")
    return _ends_before_assistant(messages[:last], field), completion


def _open(source: Source, split: str | None) -> tuple[str, Iterator[_Record]]:
    """A name for the source, and its rows as they are read."""
    if isinstance(source, str | os.PathLike):
        try:
            return str(source), _open_path(os.fspath(source), split)
        except OSError as error:
            raise DataError(f"{source} cannot be read: {error.strerror or error}") from error
    if hasattr(source, "column_names"):
        return "the data set", _dataset_records("dataset", "dataset", _one_split(source, split, "the data set"))
    if isinstance(source, Mapping):
        raise DataError("the data is a single mapping; give a list of rows, each a mapping from column to value")
    if not isinstance(source, Iterable):
        raise DataError(f"the data is {_shorten(source)}; give a path, a hub id, a data set or rows")
    items = source if isinstance(source, list | tuple) else iter(source)
    if isinstance(items, list | tuple) and items and all(isinstance(item, str | os.PathLike) for item in items):
        paths = [Path(os.fspath(item)).expanduser() for item in items]
        return ", ".join(map(str, paths[:3])) + (", …" if len(paths) > 3 else ""), _many(paths, split)
    if split is not None:
        raise UsageError(f"split={split!r} was asked for, but rows in memory have no splits; leave it out")
    return "the list of rows", (_Record("rows", "rows", line, row) for line, row in enumerate(items, start=1))


def _open_path(text: str, split: str | None) -> Iterator[_Record]:
    if not text.strip():
        raise DataError("the data is an empty string; give a path or a hub id")
    path = Path(text).expanduser()
    if not os.path.exists(path):
        stem, colon, suffix = text.rpartition(":")
        if colon and stem and "/" not in suffix and split is None:
            text, split, path = stem, suffix, Path(stem).expanduser()
    if os.path.isdir(path):
        return _folder(path, split)
    if os.path.exists(path):
        return _many([path], split)
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*(/[\w-][\w.-]*)?", text) and not _data_suffix(path):
        return _hub(text, split)
    raise _no_such_file(path)


def _no_such_file(path: Path) -> DataError:
    beside = sorted(os.listdir(path.parent)) if os.path.isdir(path.parent) else []
    close = difflib.get_close_matches(path.name, beside, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(str(path.parent / name) for name in close)}?" if close else "check the path"
    return DataError(f"{path} does not exist; {hint}")


def _data_suffix(path: Path) -> str:
    """The suffix of a file that can be read, `.jsonl` for all its kinds; empty for any other file."""
    name = path.name.lower()
    if name.endswith(JSONL_SUFFIXES):
        return ".jsonl"
    return next((suffix for suffix in BUILDERS if name.removesuffix(".gz").endswith(suffix)), "")


def _folder(path: Path, split: str | None) -> Iterator[_Record]:
    if any((path / marker).exists() for marker in ("state.json", "dataset_dict.json")):
        return _saved_dataset(path, split)
    jsonl = sorted(entry for entry in path.iterdir() if entry.is_file() and _data_suffix(entry) == ".jsonl")
    if not jsonl:
        if any(_data_suffix(entry) for entry in path.rglob("*")):
            return _dataset_folder(path, split)
        raise DataError(f"{path} is a folder without .jsonl, .parquet, .csv or .json files; name the file itself")
    if split is not None:
        chosen = [file for file in jsonl if re.match(rf"{re.escape(split)}(-[^/]*)?\.(jsonl|ndjson)", file.name)]
        if not chosen:
            raise DataError(f"{path} has no {split}.jsonl; it holds {', '.join(file.name for file in jsonl[:20])}")
        jsonl = chosen
    return _many(jsonl, None)


def _many(paths: list[Path], split: str | None) -> Iterator[_Record]:
    """The rows of several files, after a check of all their names."""
    if split is not None:
        raise UsageError(f"split={split!r} was asked for, but {paths[0]} is a file, which has no splits; leave it out")
    for path in paths:
        if not os.path.exists(path):
            raise _no_such_file(path)
        if not os.path.isfile(path):
            raise DataError(f"{path} is not a file; a list of sources must name files")
        if not _data_suffix(path):
            raise DataError(f"{path} is of no known kind; use .jsonl, .jsonl.gz, .parquet, .csv or .json")
    if len({path.resolve() for path in paths}) < len(paths):
        raise DataError(f"a file is listed twice among {', '.join(map(str, paths[:8]))}")
    names = [path.name for path in paths]
    labels = names if len(set(names)) == len(names) else [str(path) for path in paths]
    return (record for path, label in zip(paths, labels, strict=True) for record in _file_records(path, label))


def _file_records(path: Path, label: str) -> Iterator[_Record]:
    suffix = _data_suffix(path)
    if suffix == ".jsonl":
        return _jsonl_records(path, label)
    if path.stat().st_size == 0:
        return iter(())
    import datasets

    rows = _guarded(
        str(path),
        lambda: datasets.load_dataset(BUILDERS[suffix], data_files=str(path), split="train", streaming=True),
    )
    return _dataset_records(str(path), label, rows)


def _jsonl_records(path: Path, label: str) -> Iterator[_Record]:
    line = 0
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            for line, raw in enumerate(stream, start=1):
                content = raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw
                if content.strip():
                    yield _Record(str(path), label, line, _decode(content))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        fault = _FieldError(None, _Description(f"damaged compression ({error})"), "a whole gzip file")
        yield _Record(str(path), label, line + 1, fault)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _decode(raw: bytes) -> object:
    """The value in one line, or the fault that keeps it from being read."""
    if b"\0" in raw:
        return _FieldError(None, raw, "text without NUL bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        found = _Description(f"byte 0x{raw[error.start]:02x} at position {error.start + 1}")
        return _FieldError(None, found, "UTF-8 text")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"{error}" if raw.endswith(b"\n") else f"{error}; the file ends here and may be cut off"
        return _FieldError(None, _Description(f"{_shorten(text.strip())} ({reason})"), "one JSON object in the line")


def _saved_dataset(path: Path, split: str | None) -> Iterator[_Record]:
    import datasets

    rows = _guarded(str(path), lambda: _one_split(datasets.load_from_disk(str(path)), split, str(path)))
    return _dataset_records(str(path), path.name, rows)


def _hub(text: str, split: str | None) -> Iterator[_Record]:
    import datasets

    owner, name, *config = text.split("/")
    identity = f"{owner}/{name}"
    rows = _guarded(
        f"{text} (no file here, so taken as a hub id)",
        lambda: _one_split(datasets.load_dataset(identity, config[0] if config else None), split, identity),
    )
    return _dataset_records(text, text, rows)


def _dataset_folder(path: Path, split: str | None) -> Iterator[_Record]:
    import datasets

    rows = _guarded(str(path), lambda: _one_split(datasets.load_dataset(str(path)), split, str(path)))
    return _dataset_records(str(path), path.name, rows)


def _guarded(name: str, load: Callable[[], Iterable[object]]) -> Iterator[object]:
    """The rows that `load` returns, with any failure of the `datasets` library told as one of the source."""
    try:
        yield from load()
    except DataError:
        raise
    except Exception as error:  # the library's and its parsers' errors have no common base
        reason = str(error).strip() or type(error).__name__
        raise DataError(f"{name} cannot be read as a data set ({type(error).__name__}): {reason}") from error


def _dataset_records(file: str, label: str, rows: Iterable[object]) -> Iterator[_Record]:
    return (_Record(file, label, line, row) for line, row in enumerate(rows, start=1))


def _one_split(data: Any, split: str | None, name: str) -> Iterable[object]:
    """The asked split of a dictionary of splits, "train" or the only one by default; a single data set as it is."""
    if not isinstance(data, Mapping):
        if split is not None and str(getattr(data, "split", None)) != split:
            raise DataError(f"{name} is a single data set without a split {split!r}; leave the split out")
        return data
    wanted = split or ("train" if "train" in data else next(iter(data)) if len(data) == 1 else None)
    if wanted not in data:
        raise DataError(
            f"{name} has the splits {', '.join(map(str, data))}, not {wanted!r}; write one after a colon"
            if wanted
            else f"{name} has the splits {', '.join(map(str, data))}; choose one by writing it after a colon"
        )
    return data[wanted]
