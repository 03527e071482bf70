"""Reading a user's rows as examples: JSONL files, Hugging Face data sets and rows in memory, each bad row named."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from braid.data.bad_rows import MISSING, BadRow, FieldError, Record, shorten
from braid.data.examples import Example
from braid.data.rows import Columns, Parsed, RowParser, as_row
from braid.data.sources import Source, open_source
from braid.errors import DataError, UsageError

__all__ = ["BadRow", "Columns", "ReadResult", "Source", "check_source", "read_examples"]


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
    name, records = open_source(source, split)
    parser = RowParser(columns)
    count, seen, kept, bad = 0, _Seen(), list[tuple[int, Record, Parsed]](), list[tuple[int, BadRow]]()
    for count, record in enumerate(records, start=1):
        try:
            row = as_row(record.value)
            seen.update(dict.fromkeys(row))
            kept.append((count, record, parser.parse(row, f"{record.label}:{record.line}")))
        except FieldError as fault:
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
            bad.append((position, FieldError(absent, MISSING, "a value, as in the other rows").at(record)))
    skipped = [row for _, row in sorted(bad, key=lambda item: item[0])]
    if skipped and (on_bad_row == "error" or not examples):
        raise DataError(_report(skipped, count, name, usable=len(examples)))
    return ReadResult(examples, skipped, tuple(seen))


def check_source(source: Source) -> None:
    """Raises DataError or UsageError if a source is not there or of no known kind; reads no row and asks no hub."""
    open_source(source, None)


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
            listed = ", ".join(map(shorten, list(seen)[:20])) + (", …" if len(seen) > 20 else "")
            raise DataError(
                f"{name} has no column {column!r} for the {option.name}; {hint}its columns: {listed}. "
                f"Name the right one with --{option.name}-column"
            )
