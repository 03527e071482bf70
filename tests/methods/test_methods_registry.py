"""Finding methods: the catalogue, one's own files, and what a misspelt name is answered with."""

import pytest

from braid.errors import UsageError
from braid.methods.registry import catalogue, find_method, import_source, method_name, parse_strands
from braid.methods.rlvr.grpo import GRPO

OWN = '''
from __future__ import annotations

from dataclasses import dataclass

from braid.methods.rlvr.grpo import GRPO
from braid.options import option


@dataclass(frozen=True)
class Mine(GRPO):
    """Mine."""

    strength: float = option({default}, "of mine", low=0)
'''


def test_the_catalogue_is_in_alphabetical_order():
    assert list(catalogue()) == sorted(catalogue())
    assert catalogue()["chord"].class_name == "CHORD"
    assert catalogue()["chord"].arxiv == "2508.11408"


def test_a_misspelt_name_is_answered_with_the_closest():
    with pytest.raises(UsageError, match=r"did you mean .*gppo"):
        find_method("gpo")


@pytest.mark.parametrize("name", ["mine.py", "random.py", "my.method.py"])
def test_a_method_in_a_file_of_any_name(name, tmp_path):
    path = tmp_path / name
    path.write_text(OWN.format(default=0.5))
    owner = find_method(f"{path}:Mine")
    assert owner().strength == 0.5
    assert issubclass(owner, GRPO)
    assert method_name(owner) == f"{path}:Mine"
    with pytest.raises(UsageError, match="strength"):
        owner(strength=-1.0)


def test_two_files_of_one_name_do_not_meet(tmp_path):
    owners = []
    for folder, default in (("a", 1.0), ("b", 2.0)):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "method.py"
        path.write_text(OWN.format(default=default))
        owners.append((find_method(f"{path}:Mine"), path))
    assert [owner().strength for owner, _ in owners] == [1.0, 2.0]
    assert [method_name(owner) for owner, _ in owners] == [f"{path}:Mine" for _, path in owners]


def test_a_method_of_a_module():
    assert find_method("braid.methods.rlvr.grpo:GRPO") is GRPO
    assert method_name(GRPO) == "grpo"
    assert method_name(GRPO()) == "grpo"


def test_what_cannot_be_used_is_said(tmp_path):
    path = tmp_path / "wrong.py"
    with pytest.raises(UsageError, match="does not exist"):
        find_method(f"{path}:Mine")
    path.write_text("Mine = 3\n")
    with pytest.raises(UsageError, match="is not a method"):
        find_method(f"{path}:Mine")
    path.write_text("raise RuntimeError('broken')\n")
    with pytest.raises(UsageError, match="RuntimeError: broken"):
        import_source(str(path), "method")


def test_wrapped_strands_are_joined():
    text = "A.\n\nStrands:\n    experience: one\n        two\n    feedback: three\n\nSource: x"
    assert parse_strands(text) == {"experience": "one two", "feedback": "three"}
