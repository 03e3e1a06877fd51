"""The run folder of an evaluation: written, read back, and compared question by question.

`answers.jsonl` has a row a sample: `benchmark`, `question`, `answer` (gold), `sample` (0, 1, …), `output`, and the
fields of `SampleScore`. `results.json` has `model`, `max_tokens` (where outputs were cut, null if that is not known),
and under `benchmarks` the figures of each; with a baseline also its folder (`baseline`) and `baseline_max_tokens`.
Texts stay on disk: in memory there is a row of numbers for each sample, and the questions once.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from drp_hf.errors import DRPError
from drp_hf.figures import ScoreTable, ScoreTableBuilder, figures
from drp_hf.scoring import SampleScore
from drp_hf.store import whole_file

ANSWERS = "answers.jsonl"
RESULTS = "results.json"
ROW_FIELDS = {"benchmark": (str,), "question": (str,), "answer": (str,), "sample": (int,), "output": (str,)}
SCORE_FIELDS = {
    "correct": (bool,),
    "extracted": (str, type(None)),
    "n_tokens": (int,),
    "think_tokens": (int,),
    "finished": (bool, type(None)),
    "answer_at": (int, type(None)),
    "first_correct": (int, type(None)),
    "new_tokens": (int,),
    "reflections": (int,),
}


@dataclass(frozen=True)
class Answers:
    """The answers to one benchmark.

    Args:
        name: the benchmark.
        problems: question and gold answer of each question.
        table: scores, a row a sample; its `question` is an index into `problems`.
        file: where the rows are.
        offsets: where the row of each sample begins in the file, in bytes.
    """

    name: str
    problems: list[tuple[str, str]]
    table: ScoreTable
    file: Path
    offsets: np.ndarray

    def row(self, i: int) -> dict[str, Any]:
        """The row of sample `i` of the table, read from disk."""
        with self.file.open("rb") as stream:
            stream.seek(int(self.offsets[i]))
            return json.loads(stream.readline())


@dataclass(frozen=True)
class Evaluation:
    """A run folder.

    Args:
        folder: where it is.
        model: who answered.
        max_tokens: where outputs were cut; None if that is not known.
        benchmarks: the answers by benchmark, in the order in which they were written.
    """

    folder: Path
    model: str
    max_tokens: int | None
    benchmarks: dict[str, Answers]


def write_evaluation(
    folder: str | Path,
    model: str,
    max_tokens: int | None,
    rows: Iterable[dict[str, Any]],
    *,
    baseline: Evaluation | None = None,
    budgets: Sequence[int] = (),
    n_parameters: int | None = None,
    **constants: dict[str, Any],
) -> dict[str, Any]:
    """Writes a run folder while the rows come in, and then its figures.

    Args:
        folder: the run folder; it is made. Each file appears under its name only when it is complete.
        model: who answered.
        max_tokens: where outputs were cut; also the limit up to which accuracy is followed over the budget.
        rows: the rows of `answers.jsonl`, those of one question in the order of their samples.
        baseline: what to compare with, on the same questions of the same benchmarks.
        budgets, n_parameters, constants: as in `figures`.

    Returns:
        The results, as written to `results.json`.

    Raises:
        DRPError: a row lacks a field, there is no row, or the baseline answers other questions.
    """
    folder = Path(folder)
    file = folder / ANSWERS
    gatherers: dict[str, _Gatherer] = {}
    with whole_file(file) as partial:
        with partial.open("wb") as stream:
            for number, row in enumerate(rows, 1):
                _gather(gatherers, row, stream.tell(), f"Row {number} for {file}")
                stream.write(json.dumps(row).encode() + b"\n")
        if not gatherers:
            raise DRPError(f"There is no answer to write to {file}: give at least one problem.")
        evaluation = Evaluation(
            folder, model, max_tokens, {name: gatherer.answers(file) for name, gatherer in gatherers.items()}
        )
        results: dict[str, Any] = {"model": model, "max_tokens": max_tokens}
        if baseline is not None:
            results |= {"baseline": str(baseline.folder), "baseline_max_tokens": baseline.max_tokens}
        results["benchmarks"] = benchmark_figures(
            evaluation, baseline, budgets=budgets, n_parameters=n_parameters, **constants
        )
    write_results(folder, results)
    return results


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Writes the results of a run folder; the file appears under its name only when it is complete."""
    with whole_file(folder / RESULTS) as partial:
        partial.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def benchmark_figures(
    evaluation: Evaluation, baseline: Evaluation | None = None, **settings: Any
) -> dict[str, dict[str, Any]]:
    """The figures of every benchmark of an evaluation.

    Args:
        evaluation: the model's answers.
        baseline: what to compare with.
        settings: as in `figures`; the limit is where outputs were cut.

    Raises:
        DRPError: the baseline lacks a benchmark, or answers other questions.
    """
    found = {}
    for name, answers in evaluation.benchmarks.items():
        other = None
        if baseline is not None:
            if name not in baseline.benchmarks:
                raise DRPError(
                    f"{baseline.folder} has no answers to {name!r}: evaluate the baseline on it, or leave it out."
                )
            other = align(baseline.benchmarks[name], answers).table
        found[name] = figures(answers.table, other, limit=evaluation.max_tokens, **settings)
    return found


def read_evaluation(folder: str | Path) -> Evaluation:
    """Reads a run folder; texts stay on disk.

    Raises:
        DRPError: a file, a field or every row is missing, or a field has the wrong type.
    """
    folder = Path(folder)
    answers_file, results_file = folder / ANSWERS, folder / RESULTS
    for file in (answers_file, results_file):
        if not file.is_file():
            raise DRPError(f"{folder} has no {file.name}: give an output folder of drp evaluate or drp score.")
    results = _parsed(results_file.read_bytes(), str(results_file))
    _check(results, {"model": (str,), "max_tokens": (int, type(None)), "benchmarks": (dict,)}, str(results_file))
    gatherers: dict[str, _Gatherer] = {}
    size = answers_file.stat().st_size
    with (
        answers_file.open("rb") as stream,
        tqdm(total=size, desc=f"Reading {folder}", unit="B", unit_scale=True, delay=5, leave=False) as progress,
    ):
        place = 0
        for number, line in enumerate(stream, 1):
            where = f"{answers_file} row {number}"
            _gather(gatherers, _parsed(line, where), place, where)
            place += len(line)
            progress.update(len(line))
    if not gatherers:
        raise DRPError(f"{answers_file} is empty: run the evaluation again.")
    benchmarks = {name: gatherer.answers(answers_file) for name, gatherer in gatherers.items()}
    return Evaluation(folder, results["model"], results["max_tokens"], benchmarks)


def align(answers: Answers, baseline: Answers) -> Answers:
    """The answers with their questions in the baseline's order.

    Raises:
        DRPError: they do not answer the same questions.
    """
    if answers.problems == baseline.problems:
        return answers
    places = {problem: index for index, problem in enumerate(baseline.problems)}
    different = sorted(places.keys() ^ set(answers.problems))
    if different:
        raise DRPError(
            f"{answers.file.parent} and {baseline.file.parent} do not answer the same questions of {answers.name!r} "
            f"({len(different)} differ, one is {different[0][0][:60]!r}…): evaluate both on the same ones."
        )
    new_index = np.array([places[problem] for problem in answers.problems])
    table, order = answers.table.reordered(new_index)
    return replace(answers, problems=list(baseline.problems), table=table, offsets=answers.offsets[order])


# ------------------------------------------------------------------------------------------------------------- rows


class _Gatherer:
    """Scores of one benchmark as its rows come by."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._places: dict[tuple[str, str], int] = {}
        self._table = ScoreTableBuilder()
        self._offsets = array("q")

    def add(self, row: dict[str, Any], offset: int) -> None:
        question = self._places.setdefault((row["question"], row["answer"]), len(self._places))
        self._table.add(question, SampleScore(**{field.name: row[field.name] for field in fields(SampleScore)}))
        self._offsets.append(offset)

    def answers(self, file: Path) -> Answers:
        offsets = np.array(self._offsets, dtype=np.int64)
        return Answers(self._name, list(self._places), self._table.table(), file, offsets)


def _gather(gatherers: dict[str, _Gatherer], row: dict[str, Any], offset: int, where: str) -> None:
    _check(row, ROW_FIELDS | SCORE_FIELDS, where)
    name = row["benchmark"]
    if name not in gatherers:
        gatherers[name] = _Gatherer(name)
    gatherers[name].add(row, offset)


def _parsed(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:  # also invalid UTF-8
        raise DRPError(f"{where} is not JSON ({error}): run the evaluation again.") from error


def _check(row: Any, wanted: dict[str, tuple[type, ...]], where: str) -> None:
    for name, kinds in wanted.items():
        if not isinstance(row, dict) or name not in row:
            raise DRPError(f"{where} has no field {name!r}: run the evaluation again.")
        if type(row[name]) not in kinds:
            expected = " or ".join(kind.__name__ for kind in kinds).replace("NoneType", "null")
            raise DRPError(f"{where}: {name!r} is {row[name]!r:.60} and not {expected}: run the evaluation again.")


# ------------------------------------------------------------------------------------------------------- for people


def results_table(results: dict[str, Any]) -> Group:
    """The figures for people, a table a benchmark, plain ones first."""
    return Group(*(_benchmark_table(results, name, of) for name, of in results["benchmarks"].items()))


def _benchmark_table(results: dict[str, Any], name: str, of: dict[str, Any]) -> Table:
    bootstrap = of["constants"]["bootstrap"]
    questions = "1 question" if of["n_questions"] == 1 else f"{of['n_questions']} questions"
    title = escape(f"{results['model']} on {name}: {questions}")
    if of["n_samples"] != of["n_questions"]:
        title += f", {of['n_samples']} answers"
    table = Table("", "", f"{bootstrap['confidence']:.0%} interval", title=title, caption_justify="left")

    def row(label: str, key: str, form: str) -> None:
        value, ends = of[key], of.get(f"{key}_interval", [None, None])
        interval = "" if None in ends else f"{ends[0]:{form}} to {ends[1]:{form}}"
        table.add_row(label, "–" if value is None else f"{value:{form}}", interval)

    row("accuracy", "accuracy", ".1%")
    for k, share in of["pass_at_k"].items():
        if k != "1":
            table.add_row(f"pass@{k}", f"{share:.1%}", "")
    row("mean tokens", "mean_tokens", ".1f")
    row("of them reasoning", "mean_think_tokens", ".1f")
    row("median tokens", "median_tokens", ".0f")
    row("10th percentile", "p10_tokens", ".0f")
    row("90th percentile", "p90_tokens", ".0f")
    row("99th percentile", "p99_tokens", ".0f")
    row("mean tokens of right answers", "mean_tokens_correct", ".1f")
    row("mean tokens of wrong answers", "mean_tokens_wrong", ".1f")
    row("tokens per right answer", "tokens_per_correct", ".1f")
    row("cut off" + (f" at {results['max_tokens']}" if results["max_tokens"] else ""), "share_truncated", ".1%")
    row("without an answer", "share_without_answer", ".1%")
    row(f"area under accuracy up to {of['budget_limit']} tokens", "budget_auc", ".3f")
    row(f"budget that keeps {of['constants']['budget_keeping']['share']:.0%} of the accuracy", "budget_keeping", ".0f")
    if "baseline_accuracy" in of:
        table.add_section()
        row("baseline's accuracy", "baseline_accuracy", ".1%")
        row("baseline's mean tokens", "baseline_mean_tokens", ".1f")
        row("tokens saved", "token_reduction", ".1%")
        row("tokens saved a question", "mean_token_reduction", ".1%")
        row("accuracy gained", "delta_accuracy", "+.1%")
        table.add_row("questions gained, lost", f"{of['questions_gained']}, {of['questions_lost']}", "")
        row("sign test (McNemar), p", "mcnemar_p", ".3g")
    table.add_section()
    constants = of["constants"]
    if "baseline_accuracy" in of:
        row(f"AES ({_settings(constants['aes'])})", "aes", ".2f")
        row(f"E3 ({_settings(constants['e3'])})", "e3", ".2f")
    row("accuracy per token", "accuracy_per_token", ".3g")
    if of["acu"] is not None:
        row(f"ACU ({constants['acu']['n_parameters']:,} parameters)", "acu", ".3g")
    row("outcome efficiency", "outcome_efficiency", ".1%")
    row(f"process efficiency ({_settings(constants['new_tokens'])})", "process_efficiency", ".1%")
    row("underthinking", "underthinking", ".1%")
    row("reflection markers a thousand tokens", "reflection_rate", ".1f")
    for name, used in (("hca", {}), ("sca", constants["sca"]), ("cca", constants["cca"])):
        for budget, share in of[name].items():
            label = f"{name.upper()} at {budget} tokens" + (f" ({_settings(used)})" if used else "")
            table.add_row(label, f"{share:.1%}", "")
    table.caption = f"{bootstrap['n_resamples']:,} paired bootstrap resamples, seed {bootstrap['seed']}"
    if results.get("baseline_max_tokens", results["max_tokens"]) != results["max_tokens"]:
        table.caption += f"\nNot a fair comparison: the baseline was cut at {results['baseline_max_tokens']} tokens."
    return table


_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "rho": "ρ"}


def _settings(constants: dict[str, float]) -> str:
    names = ", ".join(_GREEK.get(name, name.replace("_", " ")) for name in constants)
    return f"{names} = {', '.join(f'{value:g}' for value in constants.values())}"
