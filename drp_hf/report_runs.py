"""Runs put beside each other: the same benchmarks, the same questions, the same constants."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from drp_hf.errors import DRPError
from drp_hf.evaluations import RESULTS, Answers, Evaluation, align
from drp_hf.figures import CONSTANTS, ScoreTable, figures
from drp_hf.provenance import read_run_info

NOT_ASKED = {
    *("seed", "samples", "benchmarks", "split", "limit"),
    *("baseline", "budgets", "force_answer", "n_parameters"),
    *("model", "output_dir", "base_url", "batch_size"),
}
"""Settings of `drp evaluate` that say nothing of how a question was asked: seeds of one another may differ in them."""


@dataclass(frozen=True)
class Run:
    """One column of a benchmark's tables and one line of its plots.

    Args:
        name: what it is called.
        table: its scores, with the questions in the baseline's order.
        figures: its figures, against the baseline unless it is the baseline.
        answers: the answers that the table was made of; None where it pools several runs.
        forced: what was measured when the answer was forced, by budget; empty where it was not.
        max_tokens: where its outputs were cut; None if that is not known.
    """

    name: str
    table: ScoreTable
    figures: dict[str, Any]
    answers: Answers | None
    forced: dict[str, dict[str, float]]
    max_tokens: int | None


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Args:
        name: the benchmark.
        runs: the baseline, the other runs as they were given, and together those that differ in nothing but the seed.
        missing: names of runs that have no answers to it.
        headline: the run whose change the page is headed with: the first one after the baseline that has answers to
            it, pooled with its other seeds if it has any; None where there is but the baseline.
    """

    name: str
    runs: list[Run]
    missing: list[str]
    headline: Run | None

    @property
    def limit(self) -> int:
        """Tokens up to which accuracy is followed over the budget, the same for all runs."""
        return self.runs[0].figures["budget_limit"]

    @property
    def limits(self) -> list[int | None]:
        """The different places at which outputs were cut; None where that is not known."""
        return sorted({run.max_tokens for run in self.runs}, key=lambda tokens: (tokens is None, tokens))


def compare(evaluations: Sequence[Evaluation]) -> list[Benchmark]:
    """Compares every run with the first, on each of its benchmarks.

    Args:
        evaluations: the runs, the baseline first.

    Raises:
        DRPError: a run is given twice, has a benchmark that the baseline lacks, or answers other questions.
    """
    baseline, *others = evaluations
    seen: set[Path] = set()
    for evaluation in evaluations:
        if evaluation.folder.resolve() in seen:
            raise DRPError(f"{evaluation.folder} is given twice: give every run once.")
        seen.add(evaluation.folder.resolve())
        unknown = evaluation.benchmarks.keys() - baseline.benchmarks.keys()
        if unknown:
            raise DRPError(
                f"{evaluation.folder} has answers to {min(unknown)!r}, and {baseline.folder}, the first run, has not: "
                "evaluate it on the same benchmarks."
            )
    names = run_names(evaluations)
    return [_benchmark(name, evaluations, names) for name in baseline.benchmarks]


def run_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """What runs are called: as short as tells them apart.

    By the last part of the model's name or path, or its last two; where runs have the same model, also by their
    folder. More of a path is shown only where nothing else helps: it is nobody's business.
    """
    ways: list[Callable[[Evaluation], str]] = [
        lambda run: model_name(run.model, 1),
        lambda run: model_name(run.model, 2),
        lambda run: f"{model_name(run.model, 1)} ({run.folder.resolve().name})",
        lambda run: f"{model_name(run.model, 1)} ({run.folder})",
    ]
    names = list(map(ways[0], evaluations))
    for way in ways[1:]:
        count = Counter(names)
        names = [
            name if count[name] == 1 else way(evaluation) for name, evaluation in zip(names, evaluations, strict=True)
        ]
    return names


def model_name(model: str, parts: int) -> str:
    """The last parts of a model's name or path."""
    return "/".join(Path(model).parts[-parts:]) or "(none)"


def pooled(tables: Sequence[ScoreTable]) -> ScoreTable:
    """The samples of several runs as one table; they have the same questions in the same order."""
    columns = (field.name for field in fields(ScoreTable))
    return ScoreTable(**{name: np.concatenate([getattr(table, name) for table in tables]) for name in columns})


def _benchmark(name: str, evaluations: Sequence[Evaluation], names: Sequence[str]) -> Benchmark:
    here = [(evaluation, called) for evaluation, called in zip(evaluations, names, strict=True)]
    present = [(evaluation, called) for evaluation, called in here if name in evaluation.benchmarks]
    results = [_results(evaluation.folder, name) for evaluation, _ in present]
    baseline = present[0][0].benchmarks[name]
    settings = {
        "limit": max(result["budget_limit"] for result in results),
        "budgets": sorted({int(budget) for result in results for budget in result["hca"]}),
        **{key: {part: results[0]["constants"][key][part] for part in parts} for key, parts in CONSTANTS.items()},
    }

    runs: list[Run] = []
    for number, ((evaluation, called), result) in enumerate(zip(present, results, strict=True)):
        given = evaluation.benchmarks[name]
        answers = align(given, baseline)
        # Compared in the order in which the run was answered, resampling draws what it drew in `drp evaluate`.
        other = align(baseline, given).table if number else None
        size = result["constants"]["acu"].get("n_parameters")
        found = figures(given.table, other, n_parameters=size, **settings)
        if "forced" in result:
            found["constants"]["forced"] = result["constants"]["forced"]
        runs.append(Run(called, answers.table, found, answers, result.get("forced", {}), evaluation.max_tokens))

    headline = runs[1] if len(runs) > 1 else None
    asked = [_asked(evaluation) for evaluation, _ in present]
    models = [model_name(evaluation.model, 1) for evaluation, _ in present]
    for way, count in Counter(asked[1:]).items():
        if count == 1:
            continue
        places = [place for place in range(1, len(asked)) if asked[place] == way]
        of, model = [runs[place] for place in places], models[places[0]]
        table = pooled([run.table for run in of])
        size = of[0].figures["constants"]["acu"].get("n_parameters")
        found = figures(table, runs[0].table, n_parameters=size, **settings)
        is_all = count == models[1:].count(model)
        together = f"{model} (all {count} runs)" if is_all else " + ".join(run.name for run in of)
        runs.append(Run(together, table, found, None, {}, of[0].max_tokens))
        headline = runs[-1] if places[0] == 1 else headline
    return Benchmark(
        name, runs, [called for evaluation, called in here if name not in evaluation.benchmarks], headline
    )


def _asked(evaluation: Evaluation) -> str:
    """What runs have in common that are seeds of one another: the model and, as far as is known, how it was asked."""
    info, settings = read_run_info(evaluation.folder), {}
    if info.get("stage") == "evaluate":
        settings = {name: value for name, value in info.get("config", {}).items() if name not in NOT_ASKED}
        settings["fingerprint"] = info.get("inputs", {}).get(evaluation.model)
    return json.dumps([evaluation.model, evaluation.max_tokens, settings], sort_keys=True)


def _results(folder: Path, name: str) -> dict[str, Any]:
    """The figures of a benchmark as its run wrote them."""
    result = json.loads((folder / RESULTS).read_bytes())["benchmarks"].get(name, {})
    missing = [field for field in ("budget_limit", "hca", "constants") if field not in result]
    if missing:
        raise DRPError(f"{folder / RESULTS} has no {missing[0]!r} of {name!r}: run the evaluation again.")
    return result
