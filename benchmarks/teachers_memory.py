"""Prints how much memory `drp prune` takes for few and for many rows.

    python benchmarks/teachers_memory.py [--rows 5000 50000]

Peak resident size of the process, against a server on loopback.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.chat_server import ChatServer
from benchmarks.rule_teacher import answer
from benchmarks.teachers import run_prune, write_traces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[5000, 50_000])
    args = parser.parse_args()
    console = Console(highlight=False)
    first = 0.0
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder, ChatServer(answer) as server:
            traces = write_traces(Path(folder, "traces.jsonl"), rows)
            with console.status(f"pruning {rows:,} traces"):
                peak = run_prune(Path(folder, "run"), traces, server.url, "--concurrency", 32).ru_maxrss / 1024
        first = first or peak
        console.print(f"{rows:,} rows: peak {peak:,.0f} MiB ({peak / first - 1:+.1%})")


if __name__ == "__main__":
    main()
