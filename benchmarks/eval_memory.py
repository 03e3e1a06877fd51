"""Prints how much memory `drp score` takes for many long outputs.

    python benchmarks/eval_memory.py [--rows 100000] [--tokens 2000]

The outputs are written to a temporary folder first: word problems, each with verbose traces of several problems one
after the other; one in eight is wrong or cut. The command runs in a process of its own; the peak is that of the
resident sizes of all its processes taken together. Exit status 1 where it is above a gigabyte.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from drp_hf.problems import generate
from drp_hf.records import final_response, render_output
from drp_hf.verbose_traces import verbose_trace

LIMIT = 1 << 30
"""Bytes."""
CHARACTERS_A_TOKEN = 4
EVERY = 0.2
"""Seconds between two looks at the processes."""


def rows(count: int, tokens: int) -> Iterator[dict[str, Any]]:
    """Outputs of about so many tokens each, all different."""
    choice = Random(0).choice
    problems = list(generate(2000))
    traces = [verbose_trace(problem).reasoning for problem in problems]
    for number in range(count):
        problem = problems[number % len(problems)]
        wrong, cut = number % 16 == 3, number % 16 == 11
        answer = str(int(problem.answer) + 1) if wrong else problem.answer
        reasoning, length = [], 0
        while length < tokens * CHARACTERS_A_TOKEN:
            reasoning.append(choice(traces))
            length += len(reasoning[-1])
        text = render_output("\n\n".join(reasoning), final_response(answer))
        yield {
            "benchmark": "word problems",
            "question": problem.question,
            "answer": problem.answer,
            "output": text[: tokens * CHARACTERS_A_TOKEN] if cut else text,
            "n_tokens": tokens,
            "finished": not cut,
        }


def peak_of(command: list[str]) -> tuple[int, float]:
    """Runs a command; gives the most bytes that its processes held together, and its seconds."""
    start, peak = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root = psutil.Process(process.pid)
    while process.poll() is None:
        held = 0
        for one in [root, *_children(root)]:
            try:
                held += one.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        peak = max(peak, held)
        time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak, time.monotonic() - start


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=2000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "outputs.jsonl")
        with file.open("w", encoding="utf-8") as stream:
            for row in tqdm(rows(args.rows, args.tokens), desc="write", total=args.rows, unit="output"):
                stream.write(json.dumps(row) + "\n")
        size = file.stat().st_size
        output_dir = str(Path(folder, "run"))
        peak, seconds = peak_of([sys.executable, "-m", "drp_hf.cli", "score", str(file), "--output-dir", output_dir])
    table = Table("outputs", "tokens each", "file, MB", "seconds", "outputs a second", "peak of all processes, MB")
    figures = (f"{args.rows:,}", f"{args.tokens:,}", f"{size / 1e6:,.0f}", f"{seconds:.0f}")
    table.add_row(*figures, f"{args.rows / seconds:,.0f}", f"{peak / 1e6:,.0f}")
    Console().print(table)
    raise SystemExit(peak > LIMIT)


if __name__ == "__main__":
    main()
