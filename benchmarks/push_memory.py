"""Prints how much memory `drp push corpus` takes for a corpus of a million rows.

    python benchmarks/push_memory.py [--rows 1000000]

The corpus is written to a temporary folder first: word problems with verbose traces, pruned by the slicing teacher,
over and over, each time with other questions. The command runs in a process of its own and pushes to a Hub on this
machine, which runs in another; the peak is that of the resident size of the pushing process. Exit status 1 where it is
a gigabyte or more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from eval_memory import peak_of
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from drp_hf.corpus import VIEWS, view_file
from drp_hf.corpus.views import VIEW_FEATURES, view_rows
from drp_hf.problems import generate
from drp_hf.pruning import prune_trace
from drp_hf.records import CorpusRow
from drp_hf.teachers.slicing import SlicingTeacher
from drp_hf.verbose_traces import verbose_trace

LIMIT = 1 << 30
"""Bytes."""
DIFFERENT = 2000
"""Traces that are really pruned."""
REPOSITORY = "somebody/million"


def write_corpus(folder: Path, count: int) -> int:
    """Writes a corpus of so many rows, a little at a time; gives its bytes."""
    traces = [verbose_trace(problem) for problem in generate(DIFFERENT)]
    teacher = SlicingTeacher()
    rows = [prune_trace(trace, teacher, _words) for trace in tqdm(traces, desc="prune", unit="trace", leave=False)]
    for view in VIEWS:
        _write_view(folder / view_file(view, "train"), view, rows, -(-count // len(rows)))
    return sum(file.stat().st_size for file in folder.rglob("*.parquet"))


def _words(text: str) -> int:
    return len(text.split())


def _write_view(path: Path, view: str, rows: list[CorpusRow], times: int) -> None:
    path.parent.mkdir(parents=True)
    table = pa.Table.from_pylist(list(view_rows(view, rows)), VIEW_FEATURES[view].arrow_schema)
    with pq.ParquetWriter(path, table.schema) as writer:
        for number in tqdm(range(times), desc=f"write {view}", unit_scale=len(rows), unit="row", leave=False):
            varied = table
            if "question" in table.column_names:
                column = table.column_names.index("question")
                questions = pc.binary_join_element_wise(table["question"], f"(Variant {number}.)", " ")
                varied = table.set_column(column, table.schema.field(column), questions)
            writer.write_table(varied, row_group_size=1000)


@contextmanager
def hub() -> Iterator[tuple[str, str]]:
    """Address and token of a Hub in another process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,))
    process.start()
    try:
        yield here.recv()
    finally:
        here.send("end")
        process.join()


def _serve(connection: Connection) -> None:
    from tests.loopback_hub import LoopbackHub

    with LoopbackHub() as server:
        connection.send((server.url, server.token))
        connection.recv()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, hub() as (url, token):
        corpus, heldout = Path(folder, "corpus"), Path(folder, "heldout.jsonl")
        size = write_corpus(corpus, args.rows)
        problems = [{"question": each.question, "answer": each.answer} for each in generate(1000, split="test")]
        heldout.write_text("".join(json.dumps(problem) + "\n" for problem in problems), encoding="utf-8")
        os.environ |= {"HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HOME": f"{folder}/hf", "TMPDIR": folder}
        os.environ["HF_HUB_DISABLE_XET"] = "1"  # which a Hub on this machine does not speak
        command = [sys.executable, "-m", "drp_hf.cli", "push", "corpus", str(corpus), "--repo-id", REPOSITORY]
        peak, seconds = peak_of([*command, "--license", "apache-2.0", "--contamination", str(heldout)])
    table = Table("rows", "corpus, MB", "seconds", "peak, MB")
    table.add_row(f"{args.rows:,}", f"{size / 1e6:,.0f}", f"{seconds:.0f}", f"{peak / 1e6:,.0f}")
    Console().print(table)
    raise SystemExit(peak >= LIMIT)


if __name__ == "__main__":
    main()
