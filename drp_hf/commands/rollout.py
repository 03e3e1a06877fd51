"""`drp rollout PROBLEMS --model M --output-dir DIR`: lets a model write traces for problems."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from drp_hf.commands.generating import GenerationArguments, answer_all, write_json_lines
from drp_hf.commands.parsing import parse, run
from drp_hf.provenance import write_run_info


@dataclass
class RolloutConfig(GenerationArguments):
    """
    Configuration of `drp rollout`. Only what differs from `GenerationArguments` is listed.

    Parameters:
        > Parameters that control generation

        samples (`int`, *optional*, defaults to `1`):
            Traces for each problem.
        temperature (`float`, *optional*, defaults to `0.6`):
            0 is greedy.
        top_p (`float`, *optional*, defaults to `0.95`):
            Smallest probability mass that is sampled from.
    """

    samples: int = field(default=1, metadata={"help": "Traces for each problem."})
    temperature: float = field(default=0.6, metadata={"help": "0 is greedy."})
    top_p: float = field(default=0.95, metadata={"help": "Smallest probability mass that is sampled from."})


def main(config: RolloutConfig) -> Path:
    """Writes `traces.jsonl` (what `drp prune` reads) and `run.json`, and prints what the traces are like.

    Returns:
        The path of the traces.
    """
    rows = answer_all(config, config.samples)
    traces = Path(config.output_dir) / "traces.jsonl"
    write_json_lines(traces, rows)
    write_run_info(config.output_dir, "rollout", config, inputs=[config.problems, config.model])

    from drp_hf.metrics.token_efficiency.token_efficiency import is_correct

    correct = sum(is_correct(row["output"], row["answer"], row["finished"]) for row in rows)
    table = Table("traces", "right", "mean tokens", "cut off", title=escape(str(traces)))
    table.add_row(
        str(len(rows)),
        f"{correct / len(rows):.1%}",
        f"{sum(row['n_tokens'] for row in rows) / len(rows):.0f}",
        f"{sum(not row['finished'] for row in rows) / len(rows):.1%}",
    )
    Console().print(table)
    return traces


def cli() -> None:
    """Entry point of `drp rollout`."""
    run(main, parse(RolloutConfig, None, positional="problems"))
