"""Large flat arrays: allocated in memory or as memory maps, copied and gathered without ever being wholly resident."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from braid.errors import StorageError

Array: TypeAlias = NDArray[Any]
"""A NumPy array or a `np.memmap`."""

Allocate: TypeAlias = Callable[[str, tuple[int, ...], Any], Array]
"""(name, shape, dtype) -> an array to be filled."""

CHUNK_BYTES = 32 * 2**20
"""How much of an array is touched at once while it is copied or checked."""

RESIDENT_BYTES = 2**30
"""How much of a data set's memory maps may stay resident between two random gathers."""

FAULT_BYTES = 64 * 2**10
"""What one random row may make resident: the kernel maps the pages around the one that is asked for."""


def in_memory(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array in memory; the name is of no account."""
    return np.empty(shape, dtype)


def in_folder(folder: Path) -> Allocate:
    """Allocates `<folder>/<name>.npy` files that are memory maps; a name may hold slashes."""

    def allocate(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        path = folder / f"{name}.npy"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if 0 in shape:  # an empty file cannot be mapped
                np.save(path, np.empty(shape, dtype))
                return np.empty(shape, dtype)
            array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
            if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and would be a crash later
                with path.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror or error}; free some space there") from error
        return array

    return allocate


def plain_name(name: str) -> bool:
    """Whether a name from a file may become a file name below a folder."""
    return all(part not in ("", ".", "..") and "\\" not in part and "\0" not in part for part in name.split("/"))


def release(*arrays: Any) -> None:
    """Lets the operating system take back the resident pages of memory maps; their contents stay what they are."""
    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if isinstance(mapped, mmap.mmap) and hasattr(mapped, "madvise") and getattr(array, "mode", "c") != "c":
            mapped.madvise(mmap.MADV_DONTNEED)


def chunks(rows: int, row_bytes: int) -> Iterator[slice]:
    """Consecutive slices over a number of rows, each of about `CHUNK_BYTES`."""
    size = max(1, CHUNK_BYTES // max(1, row_bytes))
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def chunks_of(array: Any) -> Iterator[slice]:
    """Consecutive slices over the rows of an array or HDF5 data set."""
    return chunks(array.shape[0], array.dtype.itemsize * int(np.prod(array.shape[1:], dtype=np.int64)))


def copy_rows(source: Any, target: Array, start: int = 0) -> None:
    """Copies all rows of an array or HDF5 data set into `target[start:]`, chunk by chunk."""
    for part in chunks_of(source):
        target[start + part.start : start + part.stop] = source[part]
        release(source, target)


def join(name: str, arrays: Sequence[Array], allocate: Allocate) -> Array:
    """The rows of several arrays of the same row shape one after another."""
    target = allocate(
        name, (sum(map(len, arrays)), *arrays[0].shape[1:]), np.result_type(*(array.dtype for array in arrays))
    )
    start = 0
    for array in arrays:
        copy_rows(array, target, start)
        start += len(array)
    return target


class ResidentLimit:
    """Counts random reads of memory maps, and releases the maps before more than a limit can be resident.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int = RESIDENT_BYTES) -> None:
        self.limit, self.rows = limit, 0

    def after(self, rows: int, *arrays: Any) -> None:
        """To be called after `rows` random rows were read from each of the arrays; arrays in memory do not count."""
        self.rows += rows
        mapped = [array.nbytes for array in arrays if isinstance(array, np.memmap)]
        if sum(min(self.rows * FAULT_BYTES, size) for size in mapped) > self.limit:
            release(*arrays)
            self.rows = 0
