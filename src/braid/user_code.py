"""Importing the user's own Python: a module by its dotted name, or a file by its path."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from pathlib import Path
from types import ModuleType

from braid.errors import UsageError


def import_source(source: str, purpose: str) -> ModuleType:
    """Import a module by dotted name, or a Python file by its path.

    Args:
        source: `package.module` or `path/to/file.py`.
        purpose: what it is wanted for (`reward`, `method`), for errors.

    Raises:
        UsageError: it cannot be found or fails to import.
    """
    if source.endswith(".py"):
        return _import_file(source, purpose)
    try:
        return importlib.import_module(source)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"cannot import {source!r}: no module {error.name!r}; check the name and PYTHONPATH"
        ) from error
    except Exception as error:
        raise UsageError(f"importing {source!r} failed with {type(error).__name__}: {error}") from error


def _import_file(source: str, purpose: str) -> ModuleType:
    path = Path(source).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"{purpose} file {source!r} does not exist (looked for {path})")
    # a name that clashes with no other module: `random.py` is a fair name for a user's file
    name = f"braid_user_{path.stem.replace('.', '_')}_{zlib.crc32(str(path).encode()):08x}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"running {source} failed with {type(error).__name__}: {error}") from error
    return module
