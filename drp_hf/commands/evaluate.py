"""`drp evaluate PROBLEMS --model M --output-dir DIR [--baseline DIR2]`: accuracy and tokens of a model."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from drp_hf.commands.generating import GenerationArguments, answer_all, write_json_lines
from drp_hf.commands.parsing import parse, run
from drp_hf.evaluations import ANSWERS, RESULTS, Evaluation, align, read_evaluation
from drp_hf.provenance import write_run_info


@dataclass
class EvaluateConfig(GenerationArguments):
    """
    Configuration of `drp evaluate`. Only what differs from `GenerationArguments` is listed.

    Parameters:
        > Parameters that control the comparison

        baseline (`str`, *optional*):
            Folder of an earlier evaluation on the same problems to compare with.
    """

    baseline: str | None = field(
        default=None, metadata={"help": "Folder of an earlier evaluation on the same problems to compare with."}
    )


def main(config: EvaluateConfig) -> dict[str, Any]:
    """Writes `answers.jsonl`, `results.json` and `run.json`, and prints the figures.

    Returns:
        The results: the figures of the metric `token_efficiency`, with `model`, `problems` and `max_tokens`.
    """
    # Read first: a baseline that cannot be used is said before anything is generated.
    baseline = read_evaluation(config.baseline) if config.baseline else None
    rows = answer_all(config)

    from drp_hf.metrics.token_efficiency.token_efficiency import TokenEfficiency, is_correct

    for row in rows:
        row["correct"] = is_correct(row["output"], row["answer"], row["finished"])
    output_dir = Path(config.output_dir)
    write_json_lines(output_dir / ANSWERS, rows)

    results = {"model": config.model, "problems": config.problems, "max_tokens": config.max_tokens}
    inputs = {**_columns(rows), "references": [row["answer"] for row in rows]}
    if baseline:
        this = Evaluation(output_dir, config.model, config.problems, config.max_tokens, rows)
        matched = _columns(align(baseline, this).answers)
        inputs |= {f"baseline_{name}": column for name, column in matched.items()}
        results |= {"baseline": config.baseline, "baseline_max_tokens": baseline.max_tokens}
    results |= TokenEfficiency().compute(**inputs)
    (output_dir / RESULTS).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    write_run_info(output_dir, "evaluate", config, inputs=[config.problems, config.model])
    Console().print(results_table(results))
    return results


def results_table(results: dict[str, Any]) -> Table:
    """The figures for people, plain ones first."""

    def interval(name: str, form: str) -> str:
        low, high = results[f"{name}_interval"]
        return "–" if low is None else f"{low:{form}} to {high:{form}}"

    def number(name: str, form: str) -> str:
        return "–" if results[name] is None else f"{results[name]:{form}}"

    title = escape(f"{results['model']} on {results['n']} problems")
    table = Table("", "", f"{results['confidence']:.0%} interval", title=title, caption_justify="left")
    table.add_row("accuracy", number("accuracy", ".1%"), interval("accuracy", ".1%"))
    table.add_row("mean tokens", number("mean_tokens", ".1f"), interval("mean_tokens", ".1f"))
    table.add_row("median tokens", number("median_tokens", ".0f"), "")
    table.add_row("90th percentile", number("p90_tokens", ".0f"), "")
    table.add_row(f"cut off at {results['max_tokens']}", number("share_truncated", ".1%"), "")
    if "baseline" in results:
        table.add_section()
        table.add_row("baseline's accuracy", number("baseline_accuracy", ".1%"), "")
        table.add_row("baseline's mean tokens", number("baseline_mean_tokens", ".1f"), "")
        table.add_row("tokens saved", number("token_reduction", ".1%"), interval("token_reduction", ".1%"))
        table.add_row("accuracy gained", number("delta_accuracy", "+.1%"), interval("delta_accuracy", "+.1%"))
        weights = ", ".join(f"{results[f'aes_{name}']:g}" for name in ("alpha", "beta", "gamma"))
        table.add_row(f"AES (α, β, γ = {weights})", number("aes", ".2f"), "")
    table.caption = f"{results['n_resamples']:,} paired bootstrap resamples, seed {results['seed']}"
    if results.get("baseline_max_tokens", results["max_tokens"]) != results["max_tokens"]:
        table.caption += f"\nNot a fair comparison: the baseline was cut at {results['baseline_max_tokens']} tokens."
    return table


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {
        "predictions": [row["output"] for row in rows],
        "n_tokens": [row["n_tokens"] for row in rows],
        "finished": [row["finished"] for row in rows],
    }


def cli() -> None:
    """Entry point of `drp evaluate`."""
    run(main, parse(EvaluateConfig, None, positional="problems"))
