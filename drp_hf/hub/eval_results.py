"""What was measured of a student, in the forms in which the Hub shows it.

There are three: the table and plots of the card; the card's `model-index`; and files in `.eval_results/`, which the
Hub also puts on the leaderboard of the benchmark. The last is open only to data sets that the Hub has as benchmarks,
and honest only for all of their questions (https://huggingface.co/docs/hub/eval-results).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml
from tqdm import tqdm

from drp_hf.benchmarks import BENCHMARKS, HubBenchmark
from drp_hf.errors import DRPError
from drp_hf.evaluations import read_evaluation
from drp_hf.provenance import read_run_info
from drp_hf.report import benchmark_plots, file_names
from drp_hf.report_figures import UNDEFINED, change, change_interval, interval, percent, points, shown, tokens
from drp_hf.report_runs import Benchmark, compare

LEADERBOARDS = {"gsm8k": "gsm8k"}
"""Benchmarks of the registry whose data set is a benchmark of the Hub, and the task's id in its `eval.yaml`."""
PLOTS = {
    "lengths": "Tokens of an output",
    "budgets": "Accuracy within a budget of tokens",
    "pareto": "Accuracy against tokens",
}


@dataclass(frozen=True)
class Result:
    """What was measured on one benchmark.

    Args:
        benchmark: the runs: before the training, where that was evaluated, and the student.
        part: the benchmark's name as part of a file's.
        config: the settings of the student's evaluation; empty where they are not known.
        created: when it ended; None where that is not known.
        model: who answered, as the evaluation names it.
    """

    benchmark: Benchmark
    part: str
    config: dict[str, Any]
    created: str | None
    model: str

    @property
    def name(self) -> str:
        """Of the benchmark."""
        return self.benchmark.name

    @property
    def before(self) -> dict[str, Any] | None:
        """The figures before the training; None where they were not measured."""
        return self.benchmark.runs[0].figures if len(self.benchmark.runs) > 1 else None

    @property
    def after(self) -> dict[str, Any]:
        """The student's figures."""
        return self.benchmark.runs[-1].figures

    @property
    def data_set(self) -> HubBenchmark | None:
        """The data set on the Hub that was asked; None where it was a file or folder."""
        return BENCHMARKS.get(self.name) if self.name in self.config.get("benchmarks", ()) else None

    @property
    def is_whole(self) -> bool:
        """Whether all questions of the benchmark's own split were asked."""
        return self.data_set is not None and self.config["limit"] is None and self.config["split"] is None

    @property
    def how(self) -> str:
        """How it was measured, in a few words."""
        samples = self.after["n_samples"] // self.after["n_questions"]
        parts = [f"{self.after['n_questions']:,} questions"]
        if samples > 1:
            parts.append(f"{samples} answers to each")
        if "temperature" in self.config:
            parts.append(f"temperature {self.config['temperature']:g}")
        if cut := self.benchmark.runs[-1].max_tokens:
            parts.append(f"cut at {cut:,} tokens")
        return ", ".join(parts)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """The table's rows: figure, before, after and the change, each with its interval."""
        of_accuracy, of_tokens = "", ""
        if self.before is not None:
            gained = _with(points(self.after["delta_accuracy"]), interval(self.after, "delta_accuracy", points))
            of_accuracy = f"{gained} points"
            of_tokens = _with(change(self.after["token_reduction"]), change_interval(self.after))
        return [
            ("accuracy", *self._both("accuracy", percent), of_accuracy),
            ("mean tokens", *self._both("mean_tokens", tokens), of_tokens),
        ]

    def _both(self, name: str, form: Any) -> tuple[str, str]:
        runs = (self.before, self.after)
        before, after = (_with(shown(of[name], form), interval(of, name, form)) if of else UNDEFINED for of in runs)
        return before, after


def read_results(before: str | Path | None, after: str | Path | None, names: tuple[str, str]) -> list[Result]:
    """Reads and compares what `drp evaluate` or `drp score` wrote of a model before and after its training.

    Args:
        before: the folder of what was trained; None where that was not evaluated.
        after: the student's folder; None for no results.
        names: what the plots call the two.

    Raises:
        DRPError: `before` is given without `after`, a folder cannot be read, or the two cannot be compared.
    """
    if after is None:
        if before is not None:
            raise DRPError("before is given without after: give the folder of the student's evaluation as after.")
        return []
    folders = [after] if before is None else [before, after]
    called = names[-len(folders) :]
    info = read_run_info(after)
    benchmarks = []
    evaluations = [read_evaluation(folder) for folder in folders]
    for benchmark in compare(evaluations):
        if len(benchmark.runs) == len(folders):  # more may have been asked before
            runs = [replace(run, name=name) for run, name in zip(benchmark.runs, called, strict=True)]
            benchmarks.append(replace(benchmark, runs=runs))
    if not benchmarks:
        raise DRPError(f"{after} and {before} have no benchmark in common: evaluate both on the same ones.")
    return [
        Result(benchmark, part, info.get("config", {}), info.get("created"), evaluations[-1].model)
        for part, benchmark in zip(file_names(benchmarks), benchmarks, strict=True)
    ]


def plot_files(results: Sequence[Result]) -> dict[str, bytes]:
    """The plots of all results, by path in the repository."""
    every = [(plot_path(result, name), result, name) for result in results for name in PLOTS]
    return {
        path: benchmark_plots(result.benchmark)[name]()
        for path, result, name in tqdm(every, desc="Drawing", unit="plot", delay=5, leave=False)
    }


def plot_path(result: Result, name: str) -> str:
    """Where a plot is in the repository."""
    return f"plots/{result.part}_{name}.png"


def model_index(results: Sequence[Result]) -> list[EvalResult]:
    """Every figure with its interval, as the card's metadata has it; accuracies and savings in percent."""
    entries = []
    for result in results:
        source = result.data_set
        data_set = {"dataset_type": source.data_set if source else result.name, "dataset_name": result.name}
        if source:
            data_set |= {"dataset_config": source.config, "dataset_split": result.config["split"] or source.split}
        wanted = [("accuracy", "accuracy", 100), ("mean_tokens", "mean tokens of an output", 1)]
        if result.before is not None:
            wanted.append(("token_reduction", "tokens saved by the training (%)", 100))
        for metric, name, scale in wanted:
            if result.after[metric] is None:
                continue
            ends = result.after[f"{metric}_interval"]
            known = {} if None in ends else {"interval": [round(scale * end, 2) for end in ends]}
            confidence = result.after["constants"]["bootstrap"]["confidence"]
            entries.append(
                EvalResult(
                    task_type="text-generation",
                    task_name="Text generation",
                    **data_set,
                    metric_type=metric,
                    metric_name=name,
                    metric_value=round(scale * result.after[metric], 2),
                    metric_args={"n_questions": result.after["n_questions"], "confidence": confidence, **known},
                )
            )
    return entries


def leaderboard_files(results: Sequence[Result], repo_id: str) -> dict[str, bytes]:
    """The files in `.eval_results/`: one for each benchmark of the Hub all of whose questions were asked.

    Args:
        results: what was measured.
        repo_id: the student's repository, whose card tells the rest.
    """
    files = {}
    for result in results:
        if result.name not in LEADERBOARDS or not result.is_whole:
            continue
        entry = EvalResultEntry(
            dataset_id=result.data_set.data_set,
            task_id=LEADERBOARDS[result.name],
            value=round(100 * result.after["accuracy"], 2),
            date=result.created,
            source_url=f"https://huggingface.co/{repo_id}",
            source_name="Model card",
            notes=f"{result.how}; {result.after['mean_tokens']:,.1f} tokens on average",
        )
        text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, allow_unicode=True)
        files[f".eval_results/{result.part}.yaml"] = text.encode()
    return files


def _with(value: str, ends: str) -> str:
    return f"{value} ({ends})" if ends else value
