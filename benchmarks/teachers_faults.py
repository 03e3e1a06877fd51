"""Prunes against a server that fails, and is killed again and again; prints what that did to the corpus.

    python benchmarks/teachers_faults.py [--rows 5000] [--kills 20] [--fault-rate 0.3]

The server answers late, never, cut off, malformed, twice, with 429 or 5xx, or with replies that are no pruning. The
corpus must be, byte for byte, that of a run against a sound server, and nothing whose reply was on disk may be asked
again.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.chat_server import ChatServer, body_hash
from benchmarks.rule_teacher import answer
from benchmarks.teachers import run_prune, start_prune, write_traces
from drp_hf.store import RowStore
from drp_hf.teacher import Request
from drp_hf.teachers.chat import request_body

CLIENT = ("--concurrency", 64, "--max_attempts", 20, "--timeout", 3)


@dataclass
class Outcome:
    """What the faults came to.

    Args:
        rows: traces.
        kills: how often the client was killed.
        faults: attempts that the server let fail.
        identical: whether the corpus is that of the undisturbed run, byte for byte.
        asked_again: requests asked although their reply was on disk.
        lost: traces without a row, or whose row lacks a reply.
        double: rows too many.
    """

    rows: int
    kills: int
    faults: int
    identical: bool
    asked_again: int
    lost: int
    double: int


def measure(folder: Path, rows: int, kills: int, fault_rate: float) -> Outcome:
    """Makes the corpus undisturbed and disturbed, in `folder`."""
    traces = write_traces(folder / "traces.jsonl", rows)
    with ChatServer(answer) as server:
        run_prune(folder / "undisturbed", traces, server.url, *CLIENT)
    with ChatServer(answer, fault_rate=fault_rate, slow_seconds=1.0) as server:
        on_disk = [kill(server, folder / "disturbed", traces, at) for at in moments(server, rows, kills)]
        run_prune(folder / "disturbed", traces, server.url, *CLIENT)
    again = sum(attempt.hash in keys for since, keys in on_disk for attempt in server.history[since:])
    corpora = [contents(folder / name / "corpus") for name in ("undisturbed", "disturbed")]
    made = pq.read_table(folder / "disturbed" / "corpus" / "raw" / "train.parquet").to_pylist()
    whole = {(row["question"], row["reasoning"]) for row in made if "no answer" not in row["reason"]}
    return Outcome(
        rows=rows,
        kills=len(on_disk),
        faults=sum(count for outcome, count in server.outcomes.items() if outcome != "good"),
        identical=corpora[0] == corpora[1],
        asked_again=again,
        lost=rows - len(whole),
        double=max(0, len(made) - rows),
    )


def moments(server: ChatServer, rows: int, kills: int):
    """Numbers of attempts after which to kill, drawn anew each time so that all kills come before the end."""
    generator = random.Random(0)
    for left in range(kills, 0, -1):
        # About as many attempts remain as there are rows without an answer.
        room = max(2, (rows - server.completed) // (left + 1))
        yield server.attempts + generator.randrange(1, 2 * room)


def kill(server: ChatServer, folder: Path, traces: Path, at: int) -> tuple[int, set[str]]:
    """Starts the client and kills it at a number of attempts; returns the attempts so far and what is on disk."""
    process = start_prune(folder, traces, server.url, *CLIENT)
    while process.poll() is None and server.attempts < at:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.2)  # what the client had sent reaches the server's history
    since = len(server.history)
    store = folder / "corpus" / "replies.sqlite"
    if not store.exists():
        return since, set()
    with RowStore(store) as replies:
        kept = [replies.get(key) for key in replies]
    return since, {body_hash(request_body("rule", Request(**row["request"]))) for row in kept}


def contents(corpus: Path) -> dict[str, bytes]:
    """What a corpus consists of, byte for byte."""
    return {str(file.relative_to(corpus)): file.read_bytes() for file in [*corpus.glob("*/*"), corpus / "README.md"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--fault-rate", type=float, default=0.3)
    args = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder, console.status("pruning, undisturbed and disturbed"):
        outcome = measure(Path(folder), args.rows, args.kills, args.fault_rate)
    table = Table(show_header=False)
    for name, value in vars(outcome).items():
        table.add_row(name.replace("_", " "), f"{value:,}" if type(value) is int else str(value))
    console.print(table)
    if not outcome.identical or outcome.asked_again or outcome.lost or outcome.double:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
