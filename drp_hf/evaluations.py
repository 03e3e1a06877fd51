"""Finished evaluations read back, checked, and compared question by question."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drp_hf.errors import DRPError

ANSWERS = "answers.jsonl"
RESULTS = "results.json"
ANSWER_FIELDS = {
    "question": str,
    "answer": str,
    "output": str,
    "n_tokens": int,
    "finished": bool,
    "correct": bool,
}
RESULT_FIELDS = {"model": str, "problems": str, "max_tokens": int}
RESAMPLES, CONFIDENCE, SEED = 10_000, 0.95, 0
"""Of the bootstrap: what `token_efficiency` uses by default, so that a report repeats what `drp evaluate` printed."""
AES_WEIGHTS = {"alpha": 1.0, "beta": 3.0, "gamma": 5.0}


@dataclass(frozen=True)
class Evaluation:
    """The output folder of `drp evaluate`.

    Args:
        folder: where it was read.
        model: who answered.
        problems: what was asked: file or data set.
        max_tokens: where outputs were cut.
        answers: one dictionary a question, with `ANSWER_FIELDS`.
    """

    folder: Path
    model: str
    problems: str
    max_tokens: int
    answers: list[dict[str, Any]]


def read_evaluation(folder: str | Path) -> Evaluation:
    """Reads an evaluation.

    Raises:
        DRPError: a file, a field or every row is missing, or a field has the wrong type.
    """
    folder = Path(folder)
    answers_file, results_file = folder / ANSWERS, folder / RESULTS
    for file in (answers_file, results_file):
        if not file.is_file():
            raise DRPError(f"{folder} has no {file.name}: give an output folder of drp evaluate.")
    results = _checked(results_file.read_bytes(), RESULT_FIELDS, str(results_file))
    with answers_file.open("rb") as stream:
        answers = [
            _checked(line, ANSWER_FIELDS, f"{answers_file} row {number}") for number, line in enumerate(stream, 1)
        ]
    if not answers:
        raise DRPError(f"{answers_file} is empty: run drp evaluate again.")
    return Evaluation(folder, **{name: results[name] for name in RESULT_FIELDS}, answers=answers)


def _checked(text: bytes, fields: dict[str, type], where: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:  # also invalid UTF-8
        raise DRPError(f"{where} is not JSON ({error}): run drp evaluate again.") from error
    for name, kind in fields.items():
        if not isinstance(row, dict) or name not in row:
            raise DRPError(f"{where} has no field {name!r}: run drp evaluate again.")
        if type(row[name]) is not kind:
            raise DRPError(f"{where}: {name!r} is {row[name]!r:.60} and not {kind.__name__}: run drp evaluate again.")
    return row


def align(evaluation: Evaluation, baseline: Evaluation) -> Evaluation:
    """The evaluation with its answers in the order of the baseline's questions.

    Raises:
        DRPError: they do not answer the same problems.
    """
    by_problem = {(row["question"], row["answer"]): row for row in evaluation.answers}
    wanted = [(row["question"], row["answer"]) for row in baseline.answers]
    different = sorted(by_problem.keys() ^ set(wanted))
    if different:
        raise DRPError(
            f"{evaluation.folder} and {baseline.folder} do not answer the same problems ({len(different)} differ, "
            f"one is {different[0][0][:60]!r}…): evaluate both on the same file."
        )
    return replace(evaluation, answers=[by_problem[problem] for problem in wanted])


def figures(runs: Sequence[Evaluation], baseline: Evaluation | None = None) -> dict[str, Any]:
    """The figures of one model, or of several runs of it taken together.

    Where there are several runs (seeds), accuracy and tokens are first averaged over the runs of each question, and
    the bootstrap resamples questions: answers to the same question are not independent.

    Args:
        runs: evaluations with their answers in the same order.
        baseline: what to compare with, in the same order.

    Returns:
        As the metric `token_efficiency`: `accuracy`, `mean_tokens` and, against a baseline, `token_reduction` and
        `delta_accuracy`, each with `…_interval`; `median_tokens`, `p90_tokens`, `share_truncated`, and `aes`.
    """
    import numpy as np

    from drp_hf.metrics.token_efficiency.token_efficiency import aes, against, alone, bootstrap_interval

    def per_question(name: str, of: Sequence[Evaluation]) -> np.ndarray:
        return np.array([[row[name] for row in run.answers] for run in of], dtype=float)

    columns = [per_question(name, runs).mean(axis=0) for name in ("correct", "n_tokens")]
    if baseline:
        columns += [per_question(name, [baseline])[0] for name in ("correct", "n_tokens")]
    table = np.stack(columns, axis=1)
    means = table.mean(axis=0)
    compute = against if baseline else alone
    ends = bootstrap_interval(table, compute, RESAMPLES, CONFIDENCE, SEED)
    found: dict[str, Any] = {}
    for name, value in compute(means[None]).items():
        found[name] = float(value[0])
        found[f"{name}_interval"] = [float(end) for end in ends[name]]
    tokens = per_question("n_tokens", runs)
    found |= {
        "median_tokens": float(np.median(tokens)),
        "p90_tokens": float(np.percentile(tokens, 90)),
        "share_truncated": float(1 - per_question("finished", runs).mean()),
        "aes": aes(*means.tolist(), **AES_WEIGHTS) if baseline else None,
    }
    return found
