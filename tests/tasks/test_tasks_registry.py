"""Tasks by name, and the checks of their options."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from braid.errors import UsageError
from braid.tasks import TASKS, get_task
from braid.tasks.task import parse_mixture, split_of, stable_fraction
from braid.tasks.text.arithmetic import ArithmeticTask
from braid.tasks.text.countdown import CountdownTask


def test_a_task_by_name_with_options() -> None:
    assert get_task("arithmetic", digits=2, levels=[1, 2]) == ArithmeticTask(digits=2, levels=(1, 2))
    assert isinstance(get_task("countdown"), CountdownTask)
    assert "jsonl" in TASKS


def test_a_task_object_is_kept_or_copied_with_changes() -> None:
    task = ArithmeticTask(digits=2)
    assert get_task(task) is task
    assert get_task(task, label_noise=0.1) == ArithmeticTask(digits=2, label_noise=0.1)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("arithmetics", {}, "did you mean arithmetic"),
        (7, {}, "neither a task nor a name"),
        ("arithmetic", {"digit": 2}, "did you mean digits"),
        ("arithmetic", {"digits": 5}, "digits=5 must be at least 1 and at most 4"),
        ("arithmetic", {"digits": "2"}, "digits='2' must be a whole number"),
        ("arithmetic", {"digits": True}, "digits=True must be a whole number"),
        ("arithmetic", {"levels": (0,)}, "levels=\\(0,\\): 0 must be at least 1 and at most 5"),
        ("arithmetic", {"levels": ()}, "at least one level"),
        ("arithmetic", {"levels": (1, 4)}, "shares level 4"),
        ("arithmetic", {"levels": (1,), "corpus_levels": (4,)}, "shares level 4"),
        ("arithmetic", {"level_mix": "esy"}, "did you mean easy"),
        ("arithmetic", {"level_weights": (1.0,)}, "3 weights"),
        ("arithmetic", {"operations": "+^"}, "operations='\\+\\^'"),
        ("arithmetic", {"corruption": float("nan")}, "corruption=nan must be at least 0 and at most 1"),
        ("arithmetic", {"corpus_styles": "A:0.5,paded"}, "did you mean padded"),
        ("arithmetic", {"corpus_styles": "A:x"}, "'x' is not a number"),
        ("arithmetic", {"corpus_styles": ""}, "names no style"),
        ("arithmetic", {"corpus_styles": "A:0"}, "greater than 0"),
        ("countdown", {"min_count": 4}, "min_count=4 is greater than max_count=3"),
        ("countdown", {"ood_count": 3}, "would not be apart"),
        ("countdown", {"operations": "%"}, "operations='%'"),
        ("countdown", {"min_solutions": 3, "max_solutions": 2}, "less than min_solutions"),
    ],
)
def test_wrong_names_and_values_are_explained(name: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        get_task(name, **options)


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
def test_wrong_splits_styles_and_counts_are_explained(name: str) -> None:
    task = get_task(name)
    with pytest.raises(UsageError, match="did you mean train"):
        task.examples("trian", 1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="n=-1"):
        task.corpus(-1)
    with pytest.raises(UsageError, match="did you mean mistaken"):
        task.demonstrations("train", 1, style="mistake")


def test_limits_without_problems_are_explained() -> None:
    with pytest.raises(UsageError, match="found no problem of level 4"):
        get_task("arithmetic", operations="*", levels=(4,), ood_levels=(5,), result_max=1).examples("test", 1)
    with pytest.raises(UsageError, match="found no problem"):
        get_task("countdown", max_number=4, min_solutions=1000).examples("test", 1)


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
def test_every_option_says_what_it_is(name: str) -> None:
    for field in dataclasses.fields(get_task(name)):  # type: ignore[arg-type]
        assert len(field.metadata["help"]) > 10
        assert "unit" in field.metadata


def test_splits_are_fixed_for_all_versions() -> None:
    assert [split_of(text) for text in ("+1+1", "+2*3", "+7", "+10")] == ["test", "train", "train", "train"]
    assert stable_fraction("a", 1) == pytest.approx(0.5058861624664538, abs=1e-9)
    shares = [split_of(str(number)) for number in range(10_000)]
    assert shares.count("test") == pytest.approx(1000, abs=100)
    assert shares.count("train") == pytest.approx(8000, abs=150)


def test_mixtures_are_normalised() -> None:
    assert parse_mixture("x", "A:3, B", ("A", "B")) == {"A": 0.75, "B": 0.25}


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
@pytest.mark.parametrize("split", ["train", "validation", "test", "ood"])
def test_instances_depend_only_on_seed_split_and_index(name: str, split: Any) -> None:
    task = get_task(name)
    few, many = task.examples(split, 20, seed=3), task.examples(split, 60, seed=3)
    assert many[:20] == few
    assert few != task.examples(split, 20, seed=4)
    assert [row.prompt for row in task.demonstrations(split, 20, 3, task.styles[-1])] == [row.prompt for row in few]
    assert len({row.id for row in many}) == 60


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
def test_corpus_is_deterministic_and_from_the_train_split(name: str) -> None:
    task = get_task(name)
    corpus = task.corpus(3000, seed=1)
    assert corpus[:50] == task.corpus(50, seed=1)
    held_out = {row.prompt for split in ("validation", "test") for row in task.examples(split, 1000, seed=2)}  # type: ignore[arg-type]
    assert not held_out & {row.prompt for row in corpus}
    correct = task.reward(corpus, [row.completion or "" for row in corpus])["correct"]
    assert 0.55 < sum(correct) / len(correct) < 0.75


@pytest.mark.parametrize("name", ["arithmetic", "countdown"])
def test_lengths_and_alphabet_cover_all_texts(name: str) -> None:
    styles = {"arithmetic": None, "countdown": ("solution", "trace", "optimal", "mistaken", "malformed")}[name]
    for options in ({}, {"corruption": 1.0}):
        task = get_task(name, **options)
        rows = task.corpus(300)
        for style in styles or task.styles:
            for split in ("test", "ood"):
                rows += task.demonstrations(split, 60, 0, style)  # type: ignore[arg-type]
        for row in rows:
            assert isinstance(row.prompt, str)
            assert row.completion is not None
            completion = row.completion
            for tag in ("<think>", "</think>", "<answer>", "</answer>"):
                completion = completion.replace(tag, "\0")
            assert len(row.prompt) <= task.max_prompt_tokens
            assert len(completion) <= task.max_new_tokens
            assert set(row.prompt + completion) - {"\0"} <= set(task.alphabet())
