"""The shape of the code base: packages import in one direction, method files stay short, documents are up to date."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "braid"
ORDER = [
    "errors",
    "options",
    "user_code",
    "data",
    "losses",
    "nn",
    "policies",
    "feedback",
    "tasks",
    "rollout",
    "methods",
    "evaluation",
    "training",
    "evidence",
    "bench",
    "cli",
]


def imported_packages(tree: ast.AST) -> set[str]:
    """Names of Braid's packages that a module imports when it runs, also inside functions; not for types alone."""
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("braid.")}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_packages_import_only_from_those_above(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return
    allowed = set(ORDER[: ORDER.index(own) + 1])
    assert imported_packages(ast.parse(path.read_text(encoding="utf-8"))) <= allowed


def test_no_model_text_is_evaluated() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                assert getattr(node.func, "id", "") not in ("eval", "exec"), path


def test_documents_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_docs.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
