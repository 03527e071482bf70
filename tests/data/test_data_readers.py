"""Readers: what each kind of row becomes, and that every bad row is named by file, line and field."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braid.data.readers import BadRow, Columns, read_examples
from braid.errors import DataError, UsageError

GOOD = {"prompt": "1+1?", "answer": "2"}
USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello!"}


def write(path: Path, *rows: object) -> Path:
    """A JSONL file of rows; strings and bytes are written as they are."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def only_bad_row(path: Path, columns: Columns | None = None) -> BadRow:
    """The single bad row of a file, after checking that "error" raises with the same words."""
    result = read_examples(path, columns=columns, on_bad_row="skip")
    assert len(result.skipped) == 1
    with pytest.raises(DataError) as raised:
        read_examples(path, columns=columns)
    assert str(result.skipped[0]) in str(raised.value)
    assert "--on-bad-row skip" in str(raised.value)
    return result.skipped[0]


def test_a_row_becomes_an_example_with_its_other_columns_in_extra(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {**GOOD, "completion": "It is 2", "level": 3})
    (example,) = read_examples(path).examples
    assert (example.id, example.prompt, example.answer, example.completion) == ("rows.jsonl:1", "1+1?", "2", "It is 2")
    assert example.extra == {"level": 3}


def test_gsm8k_columns_pattern_and_template(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", {"question": "Half of 48?", "answer": "48/2=24\n#### 24"})
    columns = Columns(
        prompt="question",
        answer="answer",
        completion="answer",
        answer_pattern=r"####\s*(.+)",
        prompt_template="Question: {prompt}\nAnswer: ",
    )
    (example,) = read_examples(path, columns=columns).examples
    assert example.prompt == "Question: Half of 48?\nAnswer: "
    assert (example.answer, example.completion, dict(example.extra)) == ("24", "48/2=24\n#### 24", {})


def test_a_template_keeps_other_braces(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "{x} {prompt}"})
    (example,) = read_examples(path, columns=Columns(prompt_template=r"{prompt} in \boxed{}")).examples
    assert example.prompt == r"{x} {prompt} in \boxed{}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (-3, "-3"), (18.0, "18"), (0.25, "0.25"), (1e-7, "0.0000001"), ("1,000", "1,000")],
)
def test_numbers_as_answers_become_plain_decimals(value: object, text: str) -> None:
    assert read_examples([{"prompt": "p", "answer": value}]).examples[0].answer == text


def test_chat_prompt_and_chat_completion() -> None:
    system = {"role": "system", "content": "Be brief."}
    (example,) = read_examples([{"prompt": [system, USER], "completion": [ASSISTANT]}]).examples
    assert example.prompt == (system, USER)
    assert example.completion == "Hello!"


def test_messages_split_at_the_last_assistant_message() -> None:
    last = {"role": "assistant", "content": "Fine."}
    (example,) = read_examples([{"messages": [USER, ASSISTANT, USER, last]}]).examples
    assert example.prompt == (USER, ASSISTANT, USER)
    assert example.completion == "Fine."


def test_preference_pairs_as_text_chat_and_whole_conversations() -> None:
    worse = {"role": "assistant", "content": "Go away"}
    rows = [
        {"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away"},
        {"prompt": "Hi", "chosen": [USER, ASSISTANT], "rejected": [USER, worse]},
        {"chosen": [USER, ASSISTANT], "rejected": [USER, worse]},
    ]
    examples = read_examples(rows).examples
    assert [(example.chosen, example.rejected) for example in examples] == [("Hello!", "Go away")] * 3
    assert [example.prompt for example in examples] == ["Hi", "Hi", (USER,)]


def test_arrow_padding_of_messages_is_dropped() -> None:
    padded = {**USER, "tool_calls": None, "name": None}
    (example,) = read_examples([{"prompt": [padded]}]).examples
    assert example.prompt == (USER,)


BAD_LINES: dict[str, tuple[object, str | None, str]] = {
    "invalid JSON": (b'{"prompt": "x", }', None, "one JSON object"),
    "nesting too deep": (b"[" * 100_000, None, "one JSON object"),
    "a list": (b'["x"]', None, "an object"),
    "a string": (b'"x"', None, "an object"),
    "null": (b"null", None, "an object"),
    "invalid UTF-8": (b'{"prompt": "\xff", "answer": "2"}', None, "UTF-8"),
    "raw NUL": (b'{"prompt": "\x00", "answer": "2"}', None, "NUL"),
    "escaped NUL": ({"prompt": "a\0b", "answer": "2"}, "prompt", "NUL"),
    "unpaired surrogate": (b'{"prompt": "\\ud800", "answer": "2"}', "prompt", "surrogate"),
    "prompt missing": ({"answer": "2"}, "prompt", "a prompt"),
    "prompt empty": ({"prompt": "", "answer": "2"}, "prompt", "a non-empty string"),
    "prompt blank": ({"prompt": " \n", "answer": "2"}, "prompt", "a non-empty string"),
    "prompt None": ({"prompt": None, "answer": "2"}, "prompt", "a non-empty string"),
    "prompt a number": ({"prompt": 3, "answer": "2"}, "prompt", "a non-empty string"),
    "answer missing": ({"prompt": "p"}, "answer", "a value, as in the other rows"),
    "answer None": ({"prompt": "p", "answer": None}, "answer", "a non-empty string or a finite number"),
    "answer empty": ({"prompt": "p", "answer": ""}, "answer", "a non-empty string or a finite number"),
    "answer a list": ({"prompt": "p", "answer": ["2"]}, "answer", "a non-empty string or a finite number"),
    "answer a truth value": ({"prompt": "p", "answer": True}, "answer", "a non-empty string or a finite number"),
    "answer not a number": (b'{"prompt": "p", "answer": NaN}', "answer", "a non-empty string or a finite number"),
    "completion a number": ({**GOOD, "completion": 2}, "completion", "a non-empty string"),
    "completion of two assistants": ({**GOOD, "completion": [ASSISTANT, USER, ASSISTANT]}, "completion", "no other"),
    "completion ends with the user": ({**GOOD, "completion": [ASSISTANT, USER]}, "completion", "of which the last"),
    "only chosen": ({**GOOD, "chosen": "c"}, "rejected", "a non-empty string"),
    "only rejected": ({**GOOD, "rejected": "r"}, "chosen", "a non-empty string"),
    "no messages": ({"prompt": [], "answer": "2"}, "prompt", "a non-empty list of chat messages"),
    "message a string": ({"prompt": ["Hi"], "answer": "2"}, "prompt[0]", "a message with"),
    "no role": ({"prompt": [{"content": "Hi"}], "answer": "2"}, "prompt[0].role", "one of system"),
    "unknown role": ({"prompt": [USER, {"role": "bot", "content": "x"}], "answer": "2"}, "prompt[1].role", "one of"),
    "role a list": ({"prompt": [{"role": ["user"], "content": "x"}], "answer": "2"}, "prompt[0].role", "one of"),
    "no content": ({"prompt": [{"role": "user"}], "answer": "2"}, "prompt[0].content", "a non-empty string"),
    "content a number": ({"prompt": [{"role": "user", "content": 1}], "answer": "2"}, "prompt[0].content", "string"),
    "part without type": (
        {"prompt": [{"role": "user", "content": [{"text": "x"}]}], "answer": "2"},
        "prompt[0].content[0]",
        "a content part with a 'type'",
    ),
    "prompt ends with the assistant": ({"prompt": [USER, ASSISTANT], "answer": "2"}, "prompt[1].role", "a prompt that"),
    "messages without an answer": ({"messages": [USER], "answer": "2"}, "messages", "and then the assistant"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_each_kind_of_bad_row_is_named_by_file_line_and_field(name: str, tmp_path: Path) -> None:
    line, field, expected = BAD_LINES[name]
    path = write(tmp_path / "rows.jsonl", GOOD, GOOD, line, GOOD)
    bad = only_bad_row(path)
    assert (bad.file, bad.line, bad.field) == (str(path), 3, field)
    assert expected in bad.expected
    assert len(str(bad)) < len(str(path)) + 400


def test_the_message_reads_as_a_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", GOOD, {"prompt": "p", "answer": None}, {"prompt": 3, "answer": "1"})
    with pytest.raises(DataError) as raised:
        read_examples(path)
    assert str(raised.value) == (
        f"{path}:2: field 'answer': found None; expected a non-empty string or a finite number "
        "(1 more of 3 rows are bad); mend it, or leave bad rows out with --on-bad-row skip"
    )


def test_skipping_keeps_the_good_rows_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", GOOD, b"{", {"prompt": "p"}, b"", GOOD, b"[]")
    result = read_examples(path, on_bad_row="skip")
    assert [example.id for example in result.examples] == ["rows.jsonl:1", "rows.jsonl:5"]
    assert [(bad.line, bad.field) for bad in result.skipped] == [(2, None), (3, "answer"), (6, None)]


def test_a_truncated_last_line_says_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"prompt": "1+')
    bad = only_bad_row(path)
    assert bad.line == 2
    assert "may be cut off" in bad.found


def test_a_complete_last_line_needs_no_newline_and_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n" + json.dumps(GOOD).encode())
    assert [example.id for example in read_examples(path).examples] == ["rows.jsonl:1", "rows.jsonl:2"]


@pytest.mark.parametrize("text", ["no marker", "#### ", 5])
def test_an_answer_without_the_pattern_is_a_bad_row(text: object, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"prompt": "p", "answer": "#### 1"}, {"prompt": "p", "answer": text})
    bad = only_bad_row(path, Columns(answer_pattern=r"####\s*(.*)"))
    assert (bad.line, bad.field) == (2, "answer")
    assert r"'####\\s*(.*)'" in bad.expected


def test_a_template_refuses_chat_prompts(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"prompt": "p"}, {"prompt": [USER]})
    bad = only_bad_row(path, Columns(prompt_template="Q: {prompt}"))
    assert (bad.line, bad.field) == (2, "prompt")


def test_compressed_files(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(json.dumps({"prompt": f"p{i}"}).encode() + b"\n" for i in range(2000)))
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(whole)
    assert len(read_examples(path).examples) == 2000
    path.write_bytes(whole[: len(whole) // 2])
    result = read_examples(path, on_bad_row="skip")
    assert 0 < len(result.examples) < 2000
    assert "damaged compression" in result.skipped[-1].found
    assert result.skipped[-1].line == len(result.examples) + len(result.skipped)
    path.write_bytes(b"not compressed")
    with pytest.raises(DataError, match=r"no usable row.*damaged compression"):
        read_examples(path)


def test_several_files_and_a_folder(tmp_path: Path) -> None:
    first, second = write(tmp_path / "train.jsonl", GOOD), write(tmp_path / "test.jsonl", GOOD, GOOD)
    assert [e.id for e in read_examples([first, second]).examples] == ["train.jsonl:1", "test.jsonl:1", "test.jsonl:2"]
    assert [e.id for e in read_examples(tmp_path).examples] == ["test.jsonl:1", "test.jsonl:2", "train.jsonl:1"]
    assert [e.id for e in read_examples(tmp_path, split="train").examples] == ["train.jsonl:1"]
    assert [e.id for e in read_examples(f"{tmp_path}:train").examples] == ["train.jsonl:1"]
    with pytest.raises(DataError, match=r"no dev\.jsonl; it holds test\.jsonl, train\.jsonl"):
        read_examples(tmp_path, split="dev")


def test_files_of_one_name_keep_distinct_ids(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "rows.jsonl", tmp_path / "b" / "rows.jsonl"]
    for path in paths:
        path.parent.mkdir()
        write(path, GOOD)
    assert len({example.id for example in read_examples(paths).examples}) == 2
    with pytest.raises(DataError, match="listed twice"):
        read_examples([paths[0], paths[0]])


def test_a_missing_column_suggests_the_close_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"question": "q", "solution": "s"})
    with pytest.raises(
        DataError,
        match=r"no column 'quesiton' for the prompt; did you mean 'question'.*\? its columns: 'question', 'solution'",
    ):
        read_examples(path, columns=Columns(prompt="quesiton"))
    with pytest.raises(DataError, match=r"no column 'prompt' for the prompt.*--prompt-column"):
        read_examples(path, on_bad_row="skip")
    with pytest.raises(DataError, match=r"no column 'solutions' for the answer; did you mean 'solution'"):
        read_examples(path, columns=Columns(prompt="question", answer="solutions"))
    with pytest.raises(DataError, match=r"no column 'answer' for the answer"):
        read_examples(path, columns=Columns(prompt="question", answer_pattern="(.*)"))


def test_sources_that_hold_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_bytes(b"\n\n")
    with pytest.raises(DataError, match=r"empty\.jsonl is empty"):
        read_examples(empty)
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder without \.jsonl"):
        read_examples(tmp_path / "folder")
    with pytest.raises(DataError, match=r"emty\.jsonl does not exist; did you mean .*empty\.jsonl\?"):
        read_examples(tmp_path / "emty.jsonl")
    with pytest.raises(DataError, match="list of rows is empty"):
        read_examples([])
    with pytest.raises(DataError, match="no usable row: all 2 rows are bad; the first: rows:1"):
        read_examples([{"prompt": ""}, {"prompt": None}], on_bad_row="skip")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="no known kind"):
        read_examples(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="empty string"):
        read_examples("")
    with pytest.raises(DataError, match="single mapping"):
        read_examples({"prompt": ["p"]})
    with pytest.raises(DataError, match="the data is 5"):
        read_examples(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"answer_pattern": "("},
        {"answer_pattern": "####"},
        {"prompt_template": "Q:"},
        {"chosen": None},
        {"prompt": "answer"},
        {"chosen": "rejected"},
    ],
)
def test_columns_refuse_what_cannot_be_meant(options: dict[str, str | None]) -> None:
    with pytest.raises(UsageError):
        Columns(**options)  # type: ignore[arg-type]


def test_options_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", GOOD)
    with pytest.raises(UsageError, match="on_bad_row"):
        read_examples(path, on_bad_row="ignore")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="limit=0"):
        read_examples(path, limit=0)
    with pytest.raises(UsageError, match="no splits"):
        read_examples(path, split="train")
    with pytest.raises(UsageError, match="no splits"):
        read_examples([GOOD], split="train")


def test_the_limit_counts_usable_rows_and_stops_reading() -> None:
    rows = iter([GOOD, {"prompt": ""}, GOOD, GOOD, GOOD])
    result = read_examples(rows, on_bad_row="skip", limit=2)
    assert [example.id for example in result.examples] == ["rows:1", "rows:3"]
    assert len(list(rows)) == 2


def test_hugging_face_sources_agree_with_jsonl(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"prompt": "p1", "answer": "1", "level": 1}, {"prompt": "p2", "answer": "2", "level": 2}]
    expected = [(e.prompt, e.answer, e.extra) for e in read_examples(rows).examples]
    data = datasets.Dataset.from_list(rows)
    data.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(tmp_path / "splits")
    data.to_parquet(str(tmp_path / "rows.parquet"))
    data.to_csv(str(tmp_path / "rows.csv"))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    for source in (data, *(tmp_path / name for name in ("saved", "splits", "rows.parquet", "rows.csv", "rows.json"))):
        assert [(e.prompt, e.answer, e.extra) for e in read_examples(source).examples] == expected
    assert [e.prompt for e in read_examples(f"{tmp_path / 'splits'}:test").examples] == ["p2"]
    with pytest.raises(DataError, match="splits train, test, not 'dev'"):
        read_examples(tmp_path / "splits", split="dev")
    (tmp_path / "broken.parquet").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"broken\.parquet cannot be read as a data set"):
        read_examples(tmp_path / "broken.parquet")


def test_a_hub_id_is_given_to_the_datasets_library(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked = []

    def load(path: str, config: str | None) -> object:
        asked.append((path, config))
        return datasets.DatasetDict({"test": datasets.Dataset.from_list([GOOD])})

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read_examples("owner/name:test").examples[0].id == "owner/name:1"
    read_examples("owner/name/main")
    assert asked == [("owner/name", None), ("owner/name", "main")]

    def fail(path: str, config: str | None) -> object:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=r"owner/name .*hub id.*no network"):
        read_examples("owner/name")


def test_plain_jsonl_needs_neither_torch_nor_datasets(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", GOOD)
    code = (
        "import sys; from braid.data.readers import read_examples; read_examples(sys.argv[1]);"
        "sys.exit('torch' in sys.modules or 'datasets' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


def test_seven_thousand_rows_take_a_moment(tmp_path: Path) -> None:
    row = {"question": "How many? " * 25, "answer": "So many. " * 30 + "#### 12"}
    path = write(tmp_path / "rows.jsonl", *[row] * 7000)
    columns = Columns(prompt="question", completion="answer", answer_pattern=r"####\s*(.+)")
    start = time.perf_counter()
    assert len(read_examples(path, columns=columns).examples) == 7000
    assert time.perf_counter() - start < 2.0  # measured 0.15 s; the margin is for a busy machine


fragments = st.sampled_from(
    [b'{"prompt": "p"', b', "answer": ', b'"2"', b"1e999", b"}", b"\n", b"\x00", b"\xff", b"[", b"null", b'"\\ud800"']
)


@given(st.one_of(st.binary(max_size=200), st.lists(fragments, max_size=12).map(b"".join)))
def test_arbitrary_bytes_raise_nothing_but_data_errors(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("rows.jsonl", "rows.jsonl.gz"):
            path = Path(folder) / name
            path.write_bytes(content)
            try:
                result = read_examples(path, on_bad_row="skip")
            except DataError as error:
                str(error).encode()
            else:
                assert result.examples


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("a \0\ud800é", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "type"]), inner),
    max_leaves=8,
)
columns_of_rows = st.sampled_from(["prompt", "answer", "completion", "chosen", "rejected", "messages", "other"])


@given(st.lists(st.dictionaries(columns_of_rows, json_values, max_size=5), max_size=4))
def test_arbitrary_rows_are_read_or_named(rows: list[dict[str, object]]) -> None:
    try:
        result = read_examples(rows, on_bad_row="skip")
    except DataError as error:
        str(error).encode()
    else:
        assert len(result.examples) + len(result.skipped) == len(rows)
        for example in result.examples:
            assert example.answer is None or example.answer.strip()
            assert (example.chosen is None) == (example.rejected is None)
