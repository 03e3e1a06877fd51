"""Prints how the slicing teacher prunes real traces: accepted, tokens kept, closed chains.

    python benchmarks/prune_traces.py ../shared/data/traces/*.jsonl [--strength default hard] [--show 5]

"Accepted" is the share among traces that end right; "kept" the tokens of the completions over those of the original
outputs, of accepted traces, counted by SmolLM2's tokenizer; "closed" the share of accepted traces in whose
computations every number is given or stated before, and the same with allowances for mental arithmetic (`audit.py`,
which knows nothing of the teacher, defines both).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import audit
from rich.console import Console
from rich.progress import track
from rich.table import Table

from drp_hf.commands.prune import token_counter
from drp_hf.embedded import EMBEDDED
from drp_hf.pruning import Funnel, prune_trace
from drp_hf.records import CorpusRow, Trace
from drp_hf.teachers.slicing import SlicingTeacher


def read_traces(path: Path) -> list[Trace]:
    fields = ("question", "answer", "reasoning", "response", "model")
    with path.open(encoding="utf-8") as stream:
        return [Trace(**{name: row[name] for name in fields}) for row in map(json.loads, stream)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path, nargs="+", help="JSON Lines files of traces")
    parser.add_argument("--strength", nargs="+", default=["light", "default", "hard"], help="strengths to measure")
    parser.add_argument("--show", type=int, default=0, help="print that many traces before and after pruning")
    args = parser.parse_args()

    console = Console(soft_wrap=True)
    count_tokens = token_counter(EMBEDDED)
    table = Table("traces", "strength", "right", "accepted", "as proposed", "tokens kept", "sound", "closed")
    table.add_column("with allowances")
    reasons: Counter[str] = Counter()
    for path in args.traces:
        traces = read_traces(path)
        for strength in args.strength:
            teacher = SlicingTeacher(strength)
            progress = track(traces, description=f"{path.stem} {strength}", console=console)
            rows = [prune_trace(trace, teacher, count_tokens) for trace in progress]
            table.add_row(path.stem, strength, *measures(rows))
            reasons.update(
                f"{path.stem} {strength}: {row.reason.partition(' (before')[0]}" for row in rows if row.reason
            )
            for row in rows[:: max(1, len(rows) // args.show)][: args.show] if args.show else ():
                console.print(
                    f"\n=== {row.question}\n--- before\n{row.reasoning}\n--- after\n{row.pruned_reasoning}",
                    markup=False,
                )
    console.print(table)
    for reason, count in reasons.most_common(30):
        console.print(f"{count:5}  {reason[:150]}", markup=False)


def measures(rows: list[CorpusRow]) -> list[str]:
    funnel = Funnel()
    for row in rows:
        funnel.add(row)
    result = audit.audit(row.to_dict() for row in rows)
    accepted, right = funnel.accepted, funnel.right
    return [
        f"{right} of {len(rows)}",
        f"{accepted / max(1, right):.1%}",
        f"{funnel.clean / max(1, right):.1%}",
        f"{result.get('tokens_after', 0) / max(1, result.get('tokens_before', 0)):.1%}",
        f"{result.get('sound', 0) / max(1, accepted):.1%}",
        f"{result.get('closed', 0) / max(1, result.get('chains', 0)):.1%}",
        f"{result.get('closed with allowances', 0) / max(1, result.get('chains', 0)):.1%}",
    ]


if __name__ == "__main__":
    main()
