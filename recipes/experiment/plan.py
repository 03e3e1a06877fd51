"""What an experiment will take, from what its pilot took: rates are measured, sizes are counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from drp_hf.benchmarks import read_benchmark, read_benchmarks
from drp_hf.errors import DRPError
from drp_hf.evaluations import read_evaluation
from recipes.experiment.stages import training_figures


@dataclass(frozen=True)
class Need:
    """What one stage will take.

    Args:
        stage: its name.
        what: how much there is to do, in words.
        tokens: written by the model, by the teacher, or trained.
        rate: tokens a second, as measured.
        seconds: the time.
        cost: of the teacher; 0 where nobody is paid.
    """

    stage: str
    what: str
    tokens: float
    rate: float
    seconds: float
    cost: float = 0.0


def print_plan(settings: Mapping[str, Mapping[str, Any]], pilot: int, before: Path, student: Path) -> None:
    """Prints what the whole experiment takes.

    Args:
        settings: of the stages.
        pilot: problems of the pilot's rollout.
        before: the pilot's evaluation of the model as it was.
        student: the pilot's student.
    """
    needs = plan(settings, pilot, before, student)
    table = Table(
        "stage", "to do", "tokens", "tokens a second", "hours", "teacher's cost", title="The whole experiment"
    )
    for need in needs:
        cost = f"{need.cost:,.2f}" if need.cost else ""
        table.add_row(
            need.stage, need.what, f"{need.tokens:,.0f}", f"{need.rate:,.0f}", f"{need.seconds / 3600:.2f}", cost
        )
    table.add_section()
    total = sum(need.cost for need in needs)
    hours = sum(need.seconds for need in needs) / 3600
    table.add_row("all", "", "", "", f"{hours:.2f}", f"{total:,.2f}" if total else "")
    Console(soft_wrap=True).print(table)
    Console(soft_wrap=True, highlight=False).print(
        "Rates were measured on this machine, without the loading of models (some minutes in all). The student's "
        "answers are counted as long as the model's own: they will be shorter."
    )


def plan(settings: Mapping[str, Mapping[str, Any]], pilot: int, before: Path, student: Path) -> list[Need]:
    """What each stage of the whole experiment takes.

    Raises:
        DRPError: the pilot found its answers there already, and so has measured no rate.
    """
    rollout, prune = settings["rollout"], settings["prune"]
    questions = len(read_benchmark(rollout["problems"], rollout.get("split"), None).problems)
    traces = questions * rollout.get("samples", 1)
    written = measured(Path(rollout["output_dir"]), "answers")
    each = written["tokens"] / written["answers"]
    needs = [generation("rollout", traces, each, written)]

    rows = measured(Path(prune["output_dir"]), "rows")
    asked, replied = (rows[name] / rows["rows"] * traces for name in ("input_tokens", "output_tokens"))
    seconds = rows["seconds"] / rows["rows"] * traces
    cost = (asked * prune.get("price_input", 0.0) + replied * prune.get("price_output", 0.0)) / 1e6
    what = f"{traces:,} traces" + (f", {asked:,.0f} tokens to read" if asked else "")
    needs.append(Need("prune", what, replied, replied / seconds, seconds, cost))

    trained, share = training_figures(student), max(1.0, questions / pilot)
    tokens = trained["tokens"] * share
    rate = trained["tokens"] / trained["seconds"]
    needs.append(Need("sft", f"{trained['steps'] * share:,.0f} steps", tokens, rate, tokens / rate))

    evaluate = settings["evaluate"]
    answered = measured(before, "answers")
    benchmarks = read_benchmarks(evaluate["benchmarks"], evaluate.get("split"), None)
    piloted = read_evaluation(before).benchmarks
    answers = sum(len(benchmark.problems) for benchmark in benchmarks.values()) * evaluate.get("samples", 1)
    tokens = sum(
        len(benchmark.problems) * evaluate.get("samples", 1) * piloted[name].table.n_tokens.mean()
        for name, benchmark in benchmarks.items()
    )
    needs.append(generation("evaluate", 2 * answers, tokens / answers, answered))
    return needs


def generation(stage: str, answers: int, tokens_each: float, written: Mapping[str, float]) -> Need:
    """What writing answers takes, at the rate at which the pilot's were written."""
    tokens, rate = answers * tokens_each, written["tokens"] / written["seconds"]
    return Need(stage, f"{answers:,} answers", tokens, rate, tokens / rate)


def measured(folder: Path, what: str) -> dict[str, float]:
    """What a stage of the pilot made, and in how many seconds."""
    found = json.loads((folder / "run.json").read_text(encoding="utf-8"))["measured"]
    if not found.get(what):
        raise DRPError(
            f"{folder} was there already, so that no rate could be measured: plan with a larger --pilot than before."
        )
    return found
