"""Prints how close `drp prune` comes to what a server of fixed latency can give.

    python benchmarks/teachers_throughput.py [--concurrency 16] [--latency 0.2] [--rows 1600]

The ideal is `concurrency / latency` rows a second. The rate is measured at the server, from the first request to the
last answer, so that neither loading nor writing the corpus counts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.chat_server import ChatServer
from benchmarks.rule_teacher import answer
from benchmarks.teachers import run_prune, write_traces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--rows", type=int, default=1600)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ChatServer(answer, latency=args.latency) as server:
        traces = write_traces(Path(folder, "traces.jsonl"), args.rows)
        run_prune(Path(folder, "run"), traces, server.url, "--concurrency", args.concurrency)
    seconds = max(each.answered for each in server.history) - min(each.received for each in server.history)
    rate, ideal = args.rows / seconds, args.concurrency / args.latency
    print(
        f"{rate:.1f} rows/s of {ideal:.1f} ({args.concurrency} at a time, {args.latency} s each): {rate / ideal:.3f}"
    )


if __name__ == "__main__":
    main()
