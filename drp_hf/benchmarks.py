"""Benchmarks by name: which data set of the Hub has the questions, in which columns, and how the bare answer is got.

What is no name of the registry is read as problems of one's own (`drp_hf.corpus.reading.read_problems`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drp_hf.errors import DRPError
from drp_hf.golds import gold_text
from drp_hf.records import Problem
from drp_hf.store import content_key


@dataclass(frozen=True)
class Benchmark:
    """Questions with gold answers.

    Args:
        name: what it is called in results.
        source: the file, folder or data set it comes from.
        problems: its problems; none occurs twice.
        repeated: how many rows were left out because an earlier one has their question and answer.
    """

    name: str
    source: str
    problems: list[Problem]
    repeated: int = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its questions and answers (16 hex digits)."""
        return content_key([[problem.question, problem.answer] for problem in self.problems])[:16]


def after_hashes(value: str) -> str:
    """What stands behind a GSM8K solution's last `####`; empty without one."""
    _, hashes, answer = value.rpartition("####")
    return gold_text(answer) if hashes else ""


def joined(parts: Sequence[str]) -> str:
    """One text of several: SVAMP's stories lack the full stop before the question."""
    return " ".join([f"{part}." if part[-1].isalnum() else part for part in parts[:-1]] + [parts[-1]])


@dataclass(frozen=True)
class HubBenchmark:
    """Where a benchmark lies on the Hub, and how a row of it becomes a problem.

    Args:
        data_set: the data set's name.
        columns: of the question; several are joined.
        answer: column of the answer.
        config: the data set's configuration, where it has several.
        split: the split that is asked.
        gold: makes the bare answer of what the answer's column holds.
    """

    data_set: str
    columns: tuple[str, ...]
    answer: str
    config: str | None = None
    split: str = "test"
    gold: Callable[[Any], str] = gold_text

    def problem(self, row: Mapping[str, Any]) -> Problem:
        """The problem of a row as the Hub has it.

        Raises:
            DRPError: a column is missing or empty, or the row has no answer.
        """
        for column in (*self.columns, self.answer):
            if row.get(column) is None or not str(row[column]).strip():
                raise DRPError(f"the column {column!r} is missing or empty")
        question = joined([str(row[column]).strip() for column in self.columns])
        answer = self.gold(row[self.answer])
        if not answer:
            raise DRPError(f"the column {self.answer!r} has no answer: {str(row[self.answer])[-40:]!r}")
        return Problem(question, answer)


BENCHMARKS = {
    "gsm8k": HubBenchmark("openai/gsm8k", ("question",), "answer", config="main", gold=after_hashes),
    "math500": HubBenchmark("HuggingFaceH4/MATH-500", ("problem",), "answer"),
    "aime24": HubBenchmark("HuggingFaceH4/aime_2024", ("problem",), "answer", split="train"),
    "aime25": HubBenchmark("math-ai/aime25", ("problem",), "answer"),
    "amc23": HubBenchmark("math-ai/amc23", ("question",), "answer"),
    "svamp": HubBenchmark("ChilleD/SVAMP", ("Body", "Question"), "Answer"),
}


def read_benchmark(source: str, split: str | None = None, limit: int | None = None) -> Benchmark:
    """Reads a benchmark.

    Args:
        source: a name of `BENCHMARKS`, or problems of one's own: JSON Lines, Parquet, a folder or a data set, with the
            columns `question` and `answer`.
        split: the split of a data set, if not the registry's; a single file has none.
        limit: only so many rows, from the first on.

    Raises:
        DRPError: it cannot be loaded, a row has no question or no answer, or a column is missing.
    """
    if source in BENCHMARKS:
        name, problems = source, _read_hub(source, split, limit)
    else:
        from drp_hf.corpus.reading import read_problems

        path = Path(source)
        name = path.stem if path.is_file() else path.resolve().name if path.is_dir() else source.rpartition("/")[2]
        problems = read_problems(source, None if path.is_file() else split)[:limit]
    different = list(dict.fromkeys(problems))
    return Benchmark(name, source, different, len(problems) - len(different))


def read_benchmarks(
    sources: Sequence[str], split: str | None = None, limit: int | None = None
) -> dict[str, Benchmark]:
    """Reads several benchmarks, by name; arguments and errors as in [`read_benchmark`].

    Raises:
        DRPError: also none is given, or two have the same name.
    """
    if not sources:
        raise DRPError(f"no benchmark is given: name some of {', '.join(BENCHMARKS)}, or files of your own.")
    benchmarks: dict[str, Benchmark] = {}
    for source in sources:
        benchmark = read_benchmark(source, split, limit)
        if benchmark.name in benchmarks:
            raise DRPError(
                f"{benchmarks[benchmark.name].source} and {source} are both called {benchmark.name!r} in the results: "
                "rename one, or leave it out."
            )
        benchmarks[benchmark.name] = benchmark
    return benchmarks


def _read_hub(name: str, split: str | None, limit: int | None) -> list[Problem]:
    from datasets import load_dataset

    benchmark = replace(BENCHMARKS[name], split=split or BENCHMARKS[name].split)
    try:
        rows = load_dataset(benchmark.data_set, benchmark.config, split=benchmark.split)
    except Exception as error:  # a library's many ways to say that it cannot be loaded
        cause = " ".join(str(error).split())
        raise DRPError(
            f"the benchmark {name} cannot be loaded from the data set {benchmark.data_set} ({type(error).__name__}: "
            f"{cause}): see that the Hub can be reached, or give a file with its questions and answers."
        ) from error
    problems = []
    for number, row in enumerate(rows.select(range(min(limit or len(rows), len(rows)))), 1):
        try:
            problems.append(benchmark.problem(row))
        except DRPError as error:
            raise DRPError(
                f"{benchmark.data_set} ({benchmark.split}) row {number}: {error}; give a file with its questions and "
                "answers instead."
            ) from error
    return problems
