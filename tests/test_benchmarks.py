import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from uuid import uuid4

import pytest
from datasets import Dataset
from loopback_hub import LoopbackHub

from drp_hf.benchmarks import BENCHMARKS, after_hashes, joined, read_benchmark, read_benchmarks
from drp_hf.corpus.reading import read_problems
from drp_hf.errors import DRPError
from drp_hf.golds import gold_text
from drp_hf.outputs import read_outputs
from drp_hf.records import Problem

# Rows as the data sets of the Hub have them, and what becomes of them.
ROWS = {
    "gsm8k": (
        {"question": "How much is 600 and 634?", "answer": "600 + 634 = <<600+634=1234>>1234\n#### 1,234"},
        Problem("How much is 600 and 634?", "1234"),
    ),
    "math500": (
        {
            "problem": "Convert $(0,3)$ to polar coordinates.",
            "solution": r"We have $\boxed{\left( 3, \frac{\pi}{2} \right)}$.",
            "answer": r"\left( 3, \frac{\pi}{2} \right)",
            "subject": "Precalculus",
            "level": 2,
            "unique_id": "test/precalculus/807.json",
        },
        Problem("Convert $(0,3)$ to polar coordinates.", r"\left( 3, \frac{\pi}{2} \right)"),
    ),
    "aime24": (
        {"id": 60, "problem": "Find the minutes.", "solution": "…", "answer": "025", "url": "…", "year": "2024"},
        Problem("Find the minutes.", "025"),
    ),
    "aime25": ({"problem": "Find the sum.", "answer": "70", "id": "0"}, Problem("Find the sum.", "70")),
    "amc23": (
        {"id": 0, "question": "How many miles?", "answer": 27.0, "url": "…"},
        Problem("How many miles?", "27"),
    ),
    "svamp": (
        {
            "ID": "chal-1",
            "Body": "Each pack costs 76 dollars. There is a discount of 25 dollars on each pack",
            "Question": "How much is each pack?",
            "Equation": "( 76.0 - 25.0 )",
            "Answer": "51.0",
            "Type": "Subtraction",
        },
        Problem(
            "Each pack costs 76 dollars. There is a discount of 25 dollars on each pack. How much is each pack?",
            "51",
        ),
    ),
}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_rows_of_the_hub_become_problems(name):
    row, problem = ROWS[name]
    assert BENCHMARKS[name].problem(row) == problem


def test_bare_answers():
    values = (27.0, 27, 1e16, "27.0", "27.50", "-3.00", "2.0 m", "57,500", "-1,234,567.0", "1,2", "(1,000)", " x ")
    assert [gold_text(value) for value in values] == [
        *("27", "27", "10000000000000000", "27", "27.50", "-3", "2.0 m"),
        *("57500", "-1234567", "1,2", "(1,000)", "x"),
    ]
    assert gold_text(None) == gold_text(float("nan")) == ""
    assert after_hashes("so #### 1 or #### 1,000,000 ") == "1000000"
    assert after_hashes("no answer") == ""
    assert joined(["He said:", "How many?"]) == "He said: How many?"


def test_questions_of_gsm8k_are_the_same_wherever_they_are_read(tmp_path, shared_data):
    lines = (shared_data / "problems" / "gsm8k_test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [{"question": row["question"], "answer": row["solution"]} for row in map(json.loads, lines)]
    of_hub = [BENCHMARKS["gsm8k"].problem(row) for row in rows]
    arguments = {"gen_args_0": {"arg_0": "…", "arg_1": {"max_gen_toks": 400}}}
    lm_eval = [{"doc": row, "target": row["answer"], "arguments": arguments, "resps": [["18"]]} for row in rows]
    samples = tmp_path / "samples_gsm8k_2026-11-25.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in lm_eval), encoding="utf-8")
    own = [asdict(problem) | {"answer": f"{int(problem.answer):,}.0"} for problem in of_hub]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own), encoding="utf-8")
    assert [Problem(output.question, *output.golds) for output in read_outputs(str(samples)).read()] == of_hub
    assert read_problems(tmp_path / "own.jsonl") == of_hub
    (tmp_path / "as_it_is.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read_problems(tmp_path / "as_it_is.jsonl") == of_hub


def test_every_benchmark_comes_from_the_hub(tmp_path):
    folders = {
        hub.data_set: Path(data_set(tmp_path, [ROWS[name][0]], hub.config or "default", hub.split))
        for name, hub in BENCHMARKS.items()
    }
    program = """
import json
from dataclasses import asdict
from drp_hf.benchmarks import BENCHMARKS, read_benchmarks
read = read_benchmarks(list(BENCHMARKS))
print(json.dumps({name: [asdict(problem) for problem in benchmark.problems] for name, benchmark in read.items()}))
"""
    with LoopbackHub(folders) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == {name: [asdict(problem)] for name, (_, problem) in ROWS.items()}


def data_set(tmp_path, rows, config="default", split="test"):
    """A folder that `load_dataset` reads as it reads a data set of the Hub."""
    # A name of its own: what `load_dataset` has cached of another folder of the same name, it takes again.
    folder = tmp_path / f"hub{uuid4().hex}"
    folder.mkdir()
    Dataset.from_list(rows).to_parquet(folder / f"{split}.parquet")
    files = [{"split": split, "path": f"{split}.parquet"}]
    (folder / "README.md").write_text(
        f"---\nconfigs: {json.dumps([{'config_name': config, 'data_files': files}])}\n---\n"
    )
    return str(folder)


def test_gsm8k_as_it_is(shared_data, tmp_path, monkeypatch):
    rows = [json.loads(line) for line in (shared_data / "problems" / "gsm8k_test.jsonl").open()]
    as_on_the_hub = [{"question": row["question"], "answer": row["solution"]} for row in rows]
    source = data_set(tmp_path, as_on_the_hub, config="main")
    monkeypatch.setitem(BENCHMARKS, "gsm8k", replace(BENCHMARKS["gsm8k"], data_set=source))
    benchmark = read_benchmark("gsm8k")
    assert benchmark.name == "gsm8k" and benchmark.repeated == 0
    assert benchmark.problems == [Problem(row["question"].strip(), row["answer"]) for row in rows]
    assert read_benchmark("gsm8k", limit=3).problems == benchmark.problems[:3]
    with pytest.raises(DRPError, match="benchmark gsm8k cannot be loaded from the data set .*hub.*give a file"):
        read_benchmark("gsm8k", split="train")


def test_a_row_of_the_hub_without_an_answer_is_named(tmp_path, monkeypatch):
    source = data_set(tmp_path, [ROWS["gsm8k"][0], {"question": "Why?", "answer": "Because."}], config="main")
    monkeypatch.setitem(BENCHMARKS, "gsm8k", replace(BENCHMARKS["gsm8k"], data_set=source))
    with pytest.raises(DRPError, match=r"hub\w+ \(test\) row 2: the column 'answer' has no answer: 'Because.'"):
        read_benchmark("gsm8k")
    monkeypatch.setitem(BENCHMARKS, "svamp", replace(BENCHMARKS["svamp"], data_set=source))
    with pytest.raises(DRPError, match="row 1: the column 'Body' is missing or empty"):
        read_benchmark("svamp")


def write(path, problems):
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in problems))
    return str(path)


def test_problems_of_ones_own(tmp_path):
    first = write(tmp_path / "first.jsonl", [("2+3?", "5"), ("2+4?", "6"), ("2+3?", "5")])
    second = data_set(tmp_path, [{"question": "2+5?", "answer": 7}])
    read = read_benchmarks([first, second])
    assert list(read) == ["first", Path(second).name]
    assert read["first"].problems == [Problem("2+3?", "5"), Problem("2+4?", "6")]
    assert (read["first"].repeated, read[Path(second).name].problems) == (1, [Problem("2+5?", "7")])
    assert read_benchmarks([first, second], split="test").keys() == read.keys(), "a file has no split"
    assert read["first"].fingerprint != read[Path(second).name].fingerprint
    assert read_benchmark(first, limit=1).problems == [Problem("2+3?", "5")]


def test_a_folder_is_read_as_it_is_now(tmp_path):
    """`load_dataset` caches a folder with a card by its name, and would give again what it was."""
    folder = Path(data_set(tmp_path, [{"question": "2+5?", "answer": 7}]))
    assert read_benchmark(str(folder)).problems == [Problem("2+5?", "7")]
    Dataset.from_list([{"question": "2+6?", "answer": 8}]).to_parquet(folder / "test.parquet")
    assert read_benchmark(str(folder)).problems == [Problem("2+6?", "8")]


def test_two_of_the_same_name(tmp_path):
    (tmp_path / "other").mkdir()
    one, two = (write(folder / "sums.jsonl", [("2+3?", "5")]) for folder in (tmp_path, tmp_path / "other"))
    with pytest.raises(DRPError, match="sums.jsonl and .*other/sums.jsonl are both called 'sums'"):
        read_benchmarks([one, two])
    with pytest.raises(DRPError, match="no benchmark is given: name some of gsm8k, math500"):
        read_benchmarks([])
