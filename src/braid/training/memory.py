"""How this process holds memory."""

from __future__ import annotations

import ctypes
import functools
import sys

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc takes no larger one


@functools.cache
def keep_freed_memory() -> bool:
    """Let the C library keep what tensors free, for the tensors of the next step.

    By default glibc hands large blocks back to the system at once, and every page of the next tensor is faulted in and
    zeroed again, which costs more than the arithmetic of small models. The peak stays the same.

    Returns:
        Whether it was done: on Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
