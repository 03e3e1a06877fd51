"""Other people's files: every sound form is read, every broken one named with its file, row and field."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drp_hf.corpus.reading import MAX_CHARACTERS, read_problems, read_traces, split_output
from drp_hf.errors import DRPError
from drp_hf.records import Problem, Trace

ROW = {"question": "2 + 3?", "answer": "5", "reasoning": "2 + 3 = 5.", "response": "The answer is 5.", "model": "m"}
TRACE = Trace("2 + 3?", "5", "2 + 3 = 5.", "The answer is 5.", "m")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def write(path: Path, *rows: dict | str | bytes) -> Path:
    """A JSON Lines file of rows; strings and bytes are written as they are."""
    lines = (json.dumps(row) if isinstance(row, dict) else row for row in rows)
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return path


def readings(path: Path) -> list:
    (split,) = read_traces(path).values()
    assert len(split) == len(list(split))
    return list(split)


def without(field: str) -> dict:
    return {name: value for name, value in ROW.items() if name != field}


# ------------------------------------------------------------------------------------------------- sound sources


def test_json_lines(tmp_path):
    path = write(tmp_path / "t.jsonl", b"\xef\xbb\xbf" + json.dumps(ROW).encode(), "", without("model"))
    first, second = readings(path)
    assert first.trace == TRACE and first.problem == "" and first.location == f"{path} row 1"
    assert second.trace.model == "unknown" and second.location == f"{path} row 3"


@pytest.mark.parametrize("answer, text", [(5, "5"), (2.5, "2.5"), (7.0, "7"), (" 5\n", "5")])
def test_a_number_is_an_answer(tmp_path, answer, text):
    assert readings(write(tmp_path / "t.jsonl", {**ROW, "answer": answer}))[0].trace.answer == text


@pytest.mark.parametrize("output", ["<think>\n{}\n</think>\n\n{}", "{}\n</think>\n{}", "\n<think>{}</think>{}\n"])
def test_a_column_of_whole_outputs(tmp_path, output):
    row = {
        "question": "2 + 3?",
        "answer": "5",
        "output": output.format("2 + 3 = 5.", "The answer is 5."),
        "model": "m",
    }
    (reading,) = readings(write(tmp_path / "t.jsonl", row))
    assert reading.trace == TRACE and reading.problem == ""


def test_reasoning_and_response_count_where_an_output_is_there_too(tmp_path):
    (reading,) = readings(write(tmp_path / "t.jsonl", {**ROW, "output": "something else"}))
    assert reading.trace == TRACE and reading.problem == ""


def test_parquet_with_other_columns_and_integer_answers(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(
        pa.Table.from_pylist([{**ROW, "answer": 5, "other": [1]}, {**ROW, "answer": None, "other": []}]), path
    )
    first, second = readings(path)
    assert first.trace == TRACE and first.location == f"{path} row 1"
    assert second.problem == "the answer is empty" and second.location == f"{path} row 2"


def test_short_floats_are_as_they_were_written(tmp_path):
    (tmp_path / "set").mkdir()
    for kind in (pa.float32(), pa.float16()):
        answers = pa.array([0.1, None, 65504], kind)
        texts = {"question": ["a", "b", "c"], "reasoning": ["r"] * 3, "response": ["s"] * 3}
        pq.write_table(pa.table({**texts, "answer": answers}), tmp_path / "set" / "train.parquet")
        for source in (tmp_path / "set" / "train.parquet", tmp_path / "set"):
            assert [reading.trace.answer for reading in readings(source)] == ["0.1", "", "65504"]


def test_a_folder_gives_its_splits(tmp_path):
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", ROW, ROW)
    write(tmp_path / "set" / "test.jsonl", {**ROW, "question": "other"})
    splits = read_traces(tmp_path / "set")
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "test": 1}
    assert [reading.trace for reading in splits["train"]] == [TRACE, TRACE]
    (only,) = read_traces(tmp_path / "set", "test").items()
    assert only[0] == "test" and next(iter(only[1])).location == f"{tmp_path / 'set'} (test) row 1"
    ((name, part),) = read_traces(tmp_path / "set", "train[:1]").items()
    assert (name, len(part)) == ("train", 1)
    with pytest.raises(DRPError, match=r"split is 'train\+test': give one split"):
        read_traces(tmp_path / "set", "train+test")


def test_real_traces_are_all_read(shared_data):
    for path in sorted((shared_data / "traces").glob("*.jsonl")):
        found = readings(path)
        assert len(found) == sum(1 for line in path.open() if line.strip())
        for reading, line in zip(found, path.open(), strict=True):
            if not reading.problem:
                row = json.loads(line)
                assert reading.trace.reasoning == row["reasoning"].strip()
                assert reading.trace.response == row["response"].strip()


def test_problems(tmp_path, shared_data):
    path = write(tmp_path / "p.jsonl", {"question": " 2 + 3?\n", "answer": 5, "solution": "…"})
    assert read_problems(path) == [Problem("2 + 3?", "5")]
    assert len(read_problems(shared_data / "problems" / "gsm8k_test.jsonl")) == 1319


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nThat makes 48+24 = <<48+24=72>>72.\n#### 72", "72"),
        ("The slope is $4/2$, so that $a=\\boxed{2}$.", "2"),
        ("57,500", "57500"),
        ("\\frac{1}{2}", "\\frac{1}{2}"),
    ],
)
def test_the_gold_answer_of_a_solution_is_what_it_states(tmp_path, answer, gold):
    path = write(tmp_path / "t.jsonl", ROW | {"answer": answer})
    (problem,), (reading,) = read_problems(path), readings(path)
    assert problem.answer == reading.trace.answer == gold and reading.problem == ""


# -------------------------------------------------------------------------------- rows that are handed out rejected


@pytest.mark.parametrize(
    "output, problem",
    [
        ("2 + 3 = 5.", "no think tags"),
        ("<think>a</think>b<think>c</think>d", "more than one pair of think tags"),
        ("<think>a<think>b</think>c", "more than one pair of think tags"),
        ("a</think>b</think>c", "more than one pair of think tags"),
        ("<think>2 + 3 =", "the think tag is not closed: the output was cut off"),
        ("a</think>b<think>c", "the think tags are in the wrong order"),
        ("Sure! <think>a</think>b", "there is text before the think tag"),
    ],
)
def test_outputs_that_cannot_be_split(tmp_path, output, problem):
    assert split_output(output) == ("", output, problem)
    bad = {"question": "2 + 3?", "answer": "5", "output": output}
    good = {**bad, "output": "<think>2 + 3 = 5.</think>The answer is 5."}
    first, second = readings(write(tmp_path / "t.jsonl", bad, good))
    assert first.problem == problem and first.trace.response == output and second.problem == ""


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"reasoning": "a</think>b"}, "think tags inside the reasoning or the response"),
        ({"response": "<think>"}, "think tags inside the reasoning or the response"),
        ({"reasoning": " \n"}, "the reasoning is empty"),
        ({"answer": None}, "the answer is empty"),
        ({"answer": float("nan")}, "the answer is empty"),
        ({"question": ""}, "the question is empty"),
        ({"reasoning": "\ud83d"}, "the field 'reasoning' holds half of a surrogate pair"),
    ],
)
def test_rows_that_cannot_be_pruned(tmp_path, change, problem):
    first, second = readings(write(tmp_path / "t.jsonl", {**ROW, **change}, ROW))
    assert first.problem == problem and second.problem == ""
    first.trace.output.encode()


def test_a_row_of_5_mb_is_rejected_without_its_text(tmp_path):
    first, second = readings(write(tmp_path / "t.jsonl", {**ROW, "reasoning": "9 " * 2_500_000}, ROW))
    assert first.problem.startswith("5,000,0") and f"{MAX_CHARACTERS:,}" in first.problem
    assert first.trace == Trace("2 + 3?", "5", "", "", "m") and second.problem == ""


# ------------------------------------------------------------------------------- sources that stop before any work


@pytest.mark.parametrize(
    "rows, sentence",
    [
        ([], "t.jsonl is empty: give a file with at least one row."),
        (["", ""], "t.jsonl is empty: give a file with at least one row."),
        ([without("answer")], "t.jsonl has no column 'answer'; it has question, reasoning, response, model: rename"),
        ([without("response")], "has no column 'response' (or one column 'output' with think tags); it has question,"),
        (
            [ROW, without("response")],
            "t.jsonl row 2 has no field 'response', only question, answer, reasoning, model:",
        ),
        ([ROW, {**ROW, "answer": [5]}], "t.jsonl row 2: the field 'answer' holds [5], it must be text or a number."),
        ([ROW, {**ROW, "answer": True}], "t.jsonl row 2: the field 'answer' holds True, it must be text or a number."),
        ([{**ROW, "reasoning": 5}], "t.jsonl row 1: the field 'reasoning' holds 5, it must be text."),
        ([ROW, "{'question': 1}"], "t.jsonl row 2 is not JSON (Expecting property name enclosed in double quotes"),
        ([ROW, "[" * 100_000], "t.jsonl row 2 is not JSON (maximum recursion depth exceeded"),
        ([ROW, f'{{"answer": {"7" * 5000}}}'], "t.jsonl row 2 holds a number of more than 4300 digits: write it in"),
        (["[1, 2]"], "t.jsonl row 1 is not a JSON object but a list: write one object a line."),
        (
            [ROW, b'{"question": "\xff"}'],
            "t.jsonl row 2 is not valid UTF-8 (byte 15 of the row): save the file as UTF-8",
        ),
    ],
)
def test_broken_json_lines(tmp_path, rows, sentence):
    with pytest.raises(DRPError) as error:
        read_traces(write(tmp_path / "t.jsonl", *rows))
    assert sentence in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_broken_parquet(tmp_path):
    (tmp_path / "no.parquet").write_text("not a Parquet file at all")
    pq.write_table(pa.Table.from_pylist([without("question")]), tmp_path / "column.parquet")
    pq.write_table(pa.Table.from_pylist([{**ROW, "reasoning": ["a"]}]), tmp_path / "type.parquet")
    pq.write_table(pa.Table.from_pylist([ROW]).slice(0, 0), tmp_path / "empty.parquet")
    for name, sentence in {
        "no.parquet": "is not a Parquet file",
        "column.parquet": "has no column 'question'; it has answer, reasoning, response, model",
        "type.parquet": "the column 'reasoning' is list<",
        "empty.parquet": "is empty",
    }.items():
        with pytest.raises(DRPError) as error:
            read_traces(tmp_path / name)
        assert f"{tmp_path / name}" in str(error.value) and sentence in str(error.value)


@pytest.mark.parametrize("source", ["missing.jsonl", "/missing/folder", "a/b/c", "missing.parquet"])
def test_what_does_not_exist(source):
    with pytest.raises(DRPError, match=f"^{source} does not exist: give "):
        read_traces(source)


def test_a_data_set_that_cannot_be_loaded():
    with pytest.raises(DRPError, match=r"^the data set somebody/no-such-set cannot be loaded \("):
        read_traces("somebody/no-such-set")


def test_what_is_wrong_with_a_file_of_a_folder_is_said(tmp_path):
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", ROW, b'{"question": ')
    with pytest.raises(DRPError, match="JSON parse error"):
        read_traces(tmp_path / "set")


def test_other_mistakes(tmp_path):
    path = write(tmp_path / "t.jsonl", ROW)
    with pytest.raises(DRPError, match="is one file: leave out the split 'test'"):
        read_traces(path, "test")
    with pytest.raises(DRPError, match="unknown ending"):
        read_traces(path.rename(tmp_path / "t.csv"))
    for none in (" ", None, float("nan")):
        with pytest.raises(DRPError, match="p.jsonl row 1: the field 'answer' is empty"):
            read_problems(write(tmp_path / "p.jsonl", {"question": "2 + 3?", "answer": none}))
    for field in ("question", "answer"):
        half = {"question": "2 + 3?", "answer": "5", field: "\ud83d"}
        with pytest.raises(DRPError, match=f"p.jsonl row 1: the field '{field}' holds half of a surrogate pair; mend"):
            read_problems(write(tmp_path / "p.jsonl", half))
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        write(tmp_path / "set" / f"{split}.jsonl", ROW)
    with pytest.raises(DRPError, match="has the splits train, test: choose one"):
        read_problems(tmp_path / "set")
