"""Prints what a teacher writes in the compact protocol and in the paper's, for the same decisions.

    python benchmarks/teachers_tokens.py ../shared/data/traces/gsm8k_test__deepseek-r1.jsonl

The decisions are the slicing teacher's, of the traces whose pruning is accepted; tokens are those of SmolLM2's
tokenizer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prune_traces import read_traces
from rich.console import Console
from rich.progress import track
from rich.table import Table

from drp_hf.commands.prune import token_counter
from drp_hf.embedded import EMBEDDED
from drp_hf.pruning import prune_trace
from drp_hf.teachers.imitation import imitate
from drp_hf.teachers.language_model import PROTOCOLS, LanguageModelTeacher
from drp_hf.teachers.slicing import SlicingTeacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path, help="a JSON Lines file of traces")
    path = parser.parse_args().traces

    console = Console()
    count_tokens = token_counter(EMBEDDED)
    # No trace is cut into windows, and no reply is cut off.
    teachers = {
        name: LanguageModelTeacher("any", count_tokens, name, max_tokens=2**17, context=2**20) for name in PROTOCOLS
    }
    totals = {name: [0, 0, 0] for name in teachers}
    records = steps = 0
    for trace in track(read_traces(path), description=path.stem, console=Console(stderr=True)):
        row = prune_trace(trace, SlicingTeacher(), count_tokens)
        if not row.accepted:
            continue
        records += 1
        steps += len(row.steps)
        for name, teacher in teachers.items():
            for request, reply in imitate(teacher, trace, row.steps):
                totals[name][0] += 1
                totals[name][1] += sum(count_tokens(message["content"]) for message in request.messages)
                totals[name][2] += count_tokens(reply)
    table = Table("protocol", "calls", "input tokens", "output tokens", "output tokens a trace", title=path.stem)
    for name, (calls, asked, answered) in totals.items():
        table.add_row(name, f"{calls:,}", f"{asked:,}", f"{answered:,}", f"{answered / records:.0f}")
    console.print(table)
    ratio = totals["compact"][2] / totals["paper"][2]
    console.print(f"{records} records of {steps / records:.1f} steps; output tokens, compact over paper: {ratio:.3f}")


if __name__ == "__main__":
    main()
