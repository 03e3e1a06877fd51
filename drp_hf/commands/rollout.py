"""`drp rollout PROBLEMS --model M --output-dir DIR`: lets a model write traces for problems."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from drp_hf.commands.evaluate import gold_warning
from drp_hf.commands.generating import GenerationArguments, check_generation, warn, warn_of_repeated
from drp_hf.commands.parsing import parse_and_run
from drp_hf.provenance import write_run_info
from drp_hf.store import write_json_lines


@dataclass
class RolloutConfig(GenerationArguments):
    """
    Configuration of `drp rollout`. Only what differs from `GenerationArguments` is listed.

    Parameters:
        > Parameters that control what is asked

        problems (`str`):
            Problems with `question` and `answer`: a JSON Lines or Parquet file, a folder, a data set's name, or a
            benchmark of the registry (`gsm8k` with `split: train`).

        > Parameters that control generation

        temperature (`float`, *optional*, defaults to `0.6`):
            0 is greedy.
        top_p (`float`, *optional*, defaults to `0.95`):
            Smallest probability mass that is sampled from.
    """

    problems: str = field(kw_only=True, metadata={"help": "Problems: file, folder, data set or benchmark."})
    temperature: float = field(default=0.6, metadata={"help": "0 is greedy."})
    top_p: float = field(default=0.95, metadata={"help": "Smallest probability mass that is sampled from."})


def main(config: RolloutConfig) -> Path:
    """Writes `traces.jsonl` (what `drp prune` reads) and `run.json`, and prints what the traces are like.

    Returns:
        The path of the traces.
    """
    check_generation(config)
    from drp_hf.answering import AnsweringModel
    from drp_hf.benchmarks import read_benchmark
    from drp_hf.grading import Grader
    from drp_hf.scoring import is_correct

    benchmark = read_benchmark(config.problems, config.split, config.limit)
    warn_of_repeated(benchmark)
    with Grader() as grader:
        if warning := gold_warning([benchmark], grader):
            warn(warning)
    traces = Path(config.output_dir) / "traces.jsonl"
    count = right = tokens = cut = 0

    def counted(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        nonlocal count, right, tokens, cut
        for row in rows:
            count += 1
            right += is_correct(row["output"], row["answer"], row["finished"])
            tokens += row["n_tokens"]
            cut += not row["finished"]
            del row["benchmark"]
            yield {**row, "model": config.model}

    with AnsweringModel(config) as model:
        write_json_lines(traces, counted(model.answer_all([benchmark])))
    write_run_info(
        config.output_dir,
        "rollout",
        config,
        fingerprints={config.model: " ".join(model.identity), benchmark.source: benchmark.fingerprint},
        measured=model.measured,
    )
    table = Table("traces", "right", "mean tokens", "cut off", title=escape(str(traces)))
    table.add_row(str(count), f"{right / count:.1%}", f"{tokens / count:.0f}", f"{cut / count:.1%}")
    Console().print(table)
    return traces


def cli() -> None:
    """Entry point of `drp rollout`."""
    parse_and_run(main, RolloutConfig, "problems")
