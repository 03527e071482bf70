"""Hashes of the code that a record was made with, so that a stale one is noticed."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable
from pathlib import Path

import braid
from braid.evidence.claim import Claim, ClaimArm
from braid.methods.registry import find_method
from braid.tasks import task_class

_ROOT = Path(braid.__file__).parent
_SPINE = ("data", "losses", "policies", "rollout", "evaluation", "training")
_SPINE_FILES = ("methods/token.py", "methods/context.py", "methods/early_judge.py")


def code_version(claim: Claim) -> dict[str, str]:
    """Hashes of `claim` (what is run), `method` (of all arms), `spine` (what all methods share) and `task`."""
    return {
        "claim": claim.fingerprint,
        "method": _hash(_method_files(claim)),
        "spine": _hash([*(_ROOT / file for file in _SPINE_FILES), *_sources(*_SPINE)]),
        "task": _hash([*_task_files(claim), *_sources("feedback")]),
    }


def changes(claim: Claim, version: dict[str, str]) -> list[str]:
    """Which parts of the code are not what they were when a record was made: of `claim`, `method`, `spine`, `task`."""
    return [part for part, digest in code_version(claim).items() if version.get(part) != digest]


def _method_files(claim: Claim) -> set[Path]:
    def of(arm: ClaimArm) -> set[Path]:
        owner: type = find_method(arm.method)
        files = {Path(inspect.getfile(part)) for part in owner.__mro__ if part.__module__.startswith("braid.methods.")}
        return files | (of(arm.first) if arm.first else set())

    files = set().union(*(of(arm) for arm in claim.arms.values()))
    return {file for file in files if file not in {_ROOT / name for name in _SPINE_FILES}}


def _task_files(claim: Claim) -> list[Path]:
    own = Path(inspect.getfile(task_class(claim.task)))
    return [_ROOT / "tasks" / "task.py", *own.parent.glob("*.py")]


def _sources(*packages: str) -> list[Path]:
    return [file for package in packages for file in (_ROOT / package).rglob("*.py")]


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file.relative_to(_ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
