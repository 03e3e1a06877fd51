"""What the teachers' benchmarks share: traces without end, and `drp prune` in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path

from drp_hf.problems import generate
from drp_hf.verbose_traces import verbose_trace

PROBLEMS = 5000
"""Different questions; further traces tell them in other words."""


def write_traces(path: Path, number: int) -> Path:
    """Writes that many different traces of word problems as JSON Lines."""
    problems = list(generate(min(number, PROBLEMS), "train", 5))
    traces = (verbose_trace(problem, seed) for seed in count() for problem in problems)
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(asdict(trace)) + "\n" for trace in islice(traces, number))
    return path


def start_prune(folder: Path, traces: Path, url: str, *options: object) -> subprocess.Popen:
    """Starts `drp prune` with a chat teacher in a folder; the corpus goes to `corpus` in it."""
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["--teacher", "chat", "--model", "rule", "--base_url", url, "--output_dir", "corpus", *map(str, options)]
    return subprocess.Popen(
        [sys.executable, "-m", "drp_hf.commands.prune", str(traces.resolve()), *flags],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=(folder / "messages.txt").open("w"),
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "200"},
    )


def run_prune(folder: Path, traces: Path, url: str, *options: object) -> resource.struct_rusage:
    """Runs `drp prune` to its end; returns what it used (`ru_maxrss` in KiB)."""
    process = start_prune(folder, traces, url, *options)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit((folder / "messages.txt").read_text())
    return usage
