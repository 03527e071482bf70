"""What can be wrong with a row, and how it is said."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass
from typing import NamedTuple


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


class Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING = Missing()
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 80
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 4


def shorten(value: object) -> str:
    try:
        text = _repr.repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = f"a very large {type(value).__name__}"
    return text.encode("utf-8", "backslashreplace").decode()


class FieldError(Exception):
    """What is wrong with a field, before it is known in which line."""

    def __init__(self, field: str | None, found: object, expected: str) -> None:
        super().__init__(field, found, expected)
        self.field, self.found, self.expected = field, found, expected

    def at(self, record: Record) -> BadRow:
        found = self.found.text if isinstance(self.found, Description) else shorten(self.found)
        return BadRow(record.file, record.line, self.field, found, self.expected)


class Description(NamedTuple):
    """What was found in words, where its representation would say less."""

    text: str


class Record(NamedTuple):
    file: str
    label: str
    line: int
    value: object
