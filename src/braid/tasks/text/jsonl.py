"""The user's own rows as a task: prompts from a file or data set, judged by a reward function."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from braid.data.examples import Example, Prompt
from braid.data.readers import BadRow, Columns, ReadResult, Source, check_source, read_examples
from braid.errors import UsageError
from braid.feedback.rewards import RewardFunction, get_reward
from braid.feedback.scoring import score
from braid.feedback.verifiers import Format
from braid.options import check_options, option
from braid.tasks.task import Split, TextTask, check_split, generator_for, stable_fraction

RESERVED = ("prompts", "completions", "answer", "self")
"""Arguments of reward functions that a further column of the rows cannot take the place of."""


@dataclasses.dataclass(frozen=True)
class JsonlTask(TextTask):
    """A task made of the user's rows: JSONL, a Hugging Face data set, or rows in memory.

    Without `validation_data`, a hash of the prompt puts each row into train, validation or test, so that equal prompts
    stay together and further rows move no other row; a split that would be empty gets one prompt. With it, all of
    `data` is train, and validation and test are both the rows of `validation_data`. Nothing is read before it is used.

    Args:
        data: what `braid.data.readers.read_examples` reads; required.
        validation_data: the held-out rows, likewise; None holds out a part of `data`.
        reward_function: what `braid.feedback.rewards.get_reward` takes, or a callable. It gets the further columns of
            the rows as keyword arguments, except those named in `RESERVED`.

    Raises:
        UsageError: an option outside its range, or a reward function that cannot be found.
        DataError: data that are not there; once they are used, also bad rows.
    """

    name: ClassVar[str] = "jsonl"
    styles: ClassVar[tuple[str, ...]] = ("rows",)
    oracle_score: ClassVar[float | None] = None
    random_score: ClassVar[float | None] = None

    data: Source = option(
        "", "file or folder of JSONL, data set folder or hub id owner/name[:split], or rows; required"
    )
    validation_data: Source | None = option(None, "held-out rows, given like data; none splits data by a hash")
    validation_fraction: float = option(
        0.05, "share of the prompts held out for validation", unit="fraction", low=0.0, below=1.0
    )
    test_fraction: float = option(
        0.05, "share of the prompts held out for the test", unit="fraction", low=0.0, below=1.0
    )
    reward_function: str | RewardFunction = option(
        "math", "exact, numeric, math, format, package.module:function, file.py:function, or a sum as math+0.1*format"
    )
    reward_pattern: str | None = option(None, "regular expression that the reward `format` matches completions with")
    prompt_column: str = option("prompt", "column of the prompt, text or chat messages")
    answer_column: str | None = option("answer", "column of the reference answer, text or a number")
    completion_column: str | None = option("completion", "column of the demonstration, text or chat messages")
    chosen_column: str | None = option("chosen", "column of the preferred completion")
    rejected_column: str | None = option("rejected", "column of the other completion")
    messages_column: str | None = option("messages", "column of whole conversations, for rows without a prompt")
    answer_pattern: str | None = option(None, r"regular expression whose first group is the answer, as '####\s*(.+)'")
    prompt_template: str | None = option(None, "text around a prompt that is text, as 'Question: {prompt} Answer: '")
    on_bad_row: Literal["error", "skip"] = option("error", "stop at a row that cannot be used, or leave it out")
    max_rows: int | None = option(
        None, "usable rows to read from data, and from validation_data; none reads all", low=1
    )
    max_new_tokens: int = option(256, "longest completion", unit="tokens", low=1)

    def __post_init__(self) -> None:
        check_options(self)
        if self.max_rows is not None and not isinstance(self.max_rows, int):
            raise UsageError(f"max_rows={self.max_rows!r} must be a whole number, or none for all rows")
        if self.validation_fraction + self.test_fraction >= 1:
            raise UsageError(
                f"validation_fraction={self.validation_fraction} and test_fraction={self.test_fraction} leave nothing "
                "to train on; their sum must be below 1"
            )
        if isinstance(self.data, str) and not self.data.strip():
            raise UsageError("task 'jsonl' needs data: a file, folder, hub id owner/name[:split], or rows in memory")
        for name in ("data", "validation_data"):
            source = getattr(self, name)
            if isinstance(source, Iterator):  # can be read only once, but copies of the task share it
                object.__setattr__(self, name, list(source))
            elif source is not None:
                check_source(source)
        _ = self.columns, self._reward_function  # refuses patterns and names now rather than after loading a model

    @property
    def judges_alone(self) -> bool:
        """Whether the reward is made of Braid's own verifiers; a function of the user may look at the whole batch."""
        return isinstance(self.reward_function, str) and ":" not in self.reward_function

    @property
    def columns(self) -> Columns:
        """Which column of the rows is what."""
        return Columns(
            prompt=self.prompt_column,
            answer=self.answer_column,
            completion=self.completion_column,
            chosen=self.chosen_column,
            rejected=self.rejected_column,
            messages=self.messages_column,
            answer_pattern=self.answer_pattern,
            prompt_template=self.prompt_template,
        )

    @property
    def skipped(self) -> list[BadRow]:
        """The rows that were left out of `data` and `validation_data`, where `on_bad_row` is "skip"."""
        return [row for result in (self._read, self._read_validation) if result is not None for row in result.skipped]

    def examples(self, split: Split, n: int | None = None, seed: int = 0) -> list[Example]:
        """The first `n` rows of a split in an order drawn with the seed; all of them for None or a larger n.

        Raises:
            UsageError: the split is "ood" or unknown, or holds no row.
            DataError: rows that cannot be read.
        """
        check_split(split, 0 if n is None else n)
        if split == "ood":
            raise UsageError(
                "task 'jsonl' has no split 'ood': its rows come without a notion of another distribution; "
                "give rows of another kind as validation_data and ask for 'validation'"
            )
        rows = list(self._splits[split])
        if not rows:
            remedy = f"raise {split}_fraction or give validation_data" if split != "train" else "add rows"
            raise UsageError(f"split {split!r} holds none of the {len(self._read.examples)} rows of the data; {remedy}")
        generator_for("jsonl", split, seed).shuffle(rows)
        return rows[:n]

    def demonstrations(
        self, split: Split, n: int | None = None, seed: int = 0, style: str | None = None
    ) -> list[Example]:
        """The rows of `examples`, which must have completions.

        Raises:
            UsageError: the rows have no column of completions, or as for `examples`.
            DataError: rows that cannot be read.
        """
        self.check_style(style)
        rows = self.examples(split, n, seed)
        if any(row.completion is None for row in rows):
            result = self._read if split == "train" or self._read_validation is None else self._read_validation
            raise UsageError(
                f"demonstrations need completions, but the data have no column {self.completion_column!r}; "
                f"name the right one with completion_column (the columns: {', '.join(map(repr, result.columns))})"
            )
        return rows

    def corpus(self, n: int | None = None, seed: int = 0) -> list[Example]:
        """The demonstrations of the train split; these rows have no other text to pretrain on."""
        return self.demonstrations("train", n, seed)

    def reward(self, examples: Sequence[Example], completions: Sequence[str]) -> dict[str, list[float]]:
        """The named terms of the reward function, with `format` added where it has no such term.

        Args:
            examples: N rows of this task.
            completions: N texts, one for each row.

        Returns:
            lists of N finite floats, among them `reward`, `correct` and `format`.

        Raises:
            UsageError: different numbers of rows and texts, or a reward function that fails, lacks a column or returns
                something else than numbers.
        """
        if len(examples) != len(completions):
            raise UsageError(f"{len(examples)} examples were given with {len(completions)} completions; give one each")
        columns: dict[str, list[Any]] = {}
        if any(example.answer is not None for example in examples):
            columns["answer"] = [example.answer for example in examples]
        for column in dict.fromkeys(column for example in examples for column in example.extra):
            if column not in RESERVED:
                columns[column] = [example.extra.get(column) for example in examples]
        terms = score(self._reward_function, [example.prompt for example in examples], completions, columns)
        if "format" not in terms:
            terms["format"] = Format(self.reward_pattern)(completions)
        return terms

    @property
    def max_prompt_tokens(self) -> int:
        """Longest prompt of any row, in characters."""
        return max(len(_prompt_text(example.prompt)) for rows in self._splits.values() for example in rows)

    def alphabet(self) -> str:
        """The characters of all prompts, answers and completions, sorted; the tags `<think>`, `<answer>` apart."""
        characters: set[str] = set()
        for example in (row for rows in self._splits.values() for row in rows):
            for text in (_prompt_text(example.prompt), example.answer, example.completion):
                for tag in ("<think>", "</think>", "<answer>", "</answer>"):
                    text = (text or "").replace(tag, "")
                characters.update(text or "")
        return "".join(sorted(characters))

    @cached_property
    def _reward_function(self) -> RewardFunction:
        options = {} if self.reward_pattern is None else {"pattern": self.reward_pattern}
        return get_reward(self.reward_function, **options)

    @cached_property
    def _read(self) -> ReadResult:
        return self._read_source(self.data)

    @cached_property
    def _read_validation(self) -> ReadResult | None:
        return None if self.validation_data is None else self._read_source(self.validation_data)

    def _read_source(self, source: Source) -> ReadResult:
        result = read_examples(source, columns=self.columns, on_bad_row=self.on_bad_row, limit=self.max_rows)
        if result.skipped:
            count, total = len(result.skipped), len(result.skipped) + len(result.examples)
            logging.getLogger(__name__).warning("left out %d of %d rows; first %s", count, total, result.skipped[0])
        return result

    @cached_property
    def _splits(self) -> Mapping[Split, Sequence[Example]]:
        if self._read_validation is not None:
            held_out = self._read_validation.examples
            return {"train": self._read.examples, "validation": held_out, "test": held_out}
        places = [stable_fraction("jsonl split", _prompt_text(example.prompt)) for example in self._read.examples]
        prompts = sorted(set(places))
        # Validation is the low end of the hashes and test the high end, so that a single prompt can be lent to either.
        lowest, highest = self.validation_fraction, 1 - self.test_fraction
        if len(prompts) >= 3:
            lowest = prompts[1] if 0 < lowest <= prompts[0] else lowest
            highest = prompts[-1] if prompts[-1] < highest < 1 else highest
        splits: dict[Split, list[Example]] = {"train": [], "validation": [], "test": []}
        for example, place in zip(self._read.examples, places, strict=True):
            split: Split = "validation" if place < lowest else "test" if place >= highest else "train"
            splits[split].append(example)
        return splits


def _prompt_text(prompt: Prompt) -> str:
    """The text of a prompt; chat messages as JSON."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, ensure_ascii=False, default=str)
