"""Where rows come from: JSONL files and folders, Hugging Face data sets, memory."""

from __future__ import annotations

import codecs
import difflib
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from braid.data.bad_rows import Description, FieldError, Record, shorten
from braid.errors import DataError, UsageError

PathLike: TypeAlias = str | os.PathLike[str]
Rows: TypeAlias = Iterable[Mapping[str, Any]]
Source: TypeAlias = PathLike | Iterable[PathLike] | Rows | Mapping[str, Rows]
"""A `datasets.Dataset` is an iterable of mappings, a `DatasetDict` a mapping from split to such."""

JSONL_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
BUILDERS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".arrow": "arrow"}
"""What `datasets.load_dataset` calls the formats that it is left to read."""


def open_source(source: Source, split: str | None) -> tuple[str, Iterator[Record]]:
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
        raise DataError(f"the data is {shorten(source)}; give a path, a hub id, a data set or rows")
    items = source if isinstance(source, list | tuple) else iter(source)
    if isinstance(items, list | tuple) and items and all(isinstance(item, str | os.PathLike) for item in items):
        paths = [Path(os.fspath(item)).expanduser() for item in items]
        return ", ".join(map(str, paths[:3])) + (", …" if len(paths) > 3 else ""), _many(paths, split)
    if split is not None:
        raise UsageError(f"split={split!r} was asked for, but rows in memory have no splits; leave it out")
    return "the list of rows", (Record("rows", "rows", line, row) for line, row in enumerate(items, start=1))


def _open_path(text: str, split: str | None) -> Iterator[Record]:
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


def _folder(path: Path, split: str | None) -> Iterator[Record]:
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


def _many(paths: list[Path], split: str | None) -> Iterator[Record]:
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


def _file_records(path: Path, label: str) -> Iterator[Record]:
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


def _jsonl_records(path: Path, label: str) -> Iterator[Record]:
    line = 0
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            for line, raw in enumerate(stream, start=1):
                content = raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw
                if content.strip():
                    yield Record(str(path), label, line, _decode(content))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        fault = FieldError(None, Description(f"damaged compression ({error})"), "a whole gzip file")
        yield Record(str(path), label, line + 1, fault)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _decode(raw: bytes) -> object:
    """The value in one line, or the fault that keeps it from being read."""
    if b"\0" in raw:
        return FieldError(None, raw, "text without NUL bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        found = Description(f"byte 0x{raw[error.start]:02x} at position {error.start + 1}")
        return FieldError(None, found, "UTF-8 text")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"{error}" if raw.endswith(b"\n") else f"{error}; the file ends here and may be cut off"
        return FieldError(None, Description(f"{shorten(text.strip())} ({reason})"), "one JSON object in the line")


def _saved_dataset(path: Path, split: str | None) -> Iterator[Record]:
    import datasets

    rows = _guarded(str(path), lambda: _one_split(datasets.load_from_disk(str(path)), split, str(path)))
    return _dataset_records(str(path), path.name, rows)


def _hub(text: str, split: str | None) -> Iterator[Record]:
    import datasets

    owner, name, *config = text.split("/")
    identity = f"{owner}/{name}"
    rows = _guarded(
        f"{text} (no file here, so taken as a hub id)",
        lambda: _one_split(datasets.load_dataset(identity, config[0] if config else None), split, identity),
    )
    return _dataset_records(text, text, rows)


def _dataset_folder(path: Path, split: str | None) -> Iterator[Record]:
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


def _dataset_records(file: str, label: str, rows: Iterable[object]) -> Iterator[Record]:
    return (Record(file, label, line, row) for line, row in enumerate(rows, start=1))


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
