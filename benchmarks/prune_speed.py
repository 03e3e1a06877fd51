"""Prints how many traces a second the slicing teacher prunes on one core, checks and token counts included.

    python benchmarks/prune_speed.py ../shared/data/traces/gsm8k_test__deepseek-r1.jsonl [--profile]

Processor time, not wall-clock time, so that other processes on the machine count little; best of three passes.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from prune_traces import read_traces

from drp_hf.commands.prune import token_counter
from drp_hf.embedded import EMBEDDED
from drp_hf.pruning import prune_trace
from drp_hf.teachers.slicing import SlicingTeacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path, help="a JSON Lines file of traces")
    parser.add_argument("--strength", default="default")
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    args = parser.parse_args()

    traces = read_traces(args.traces)
    teacher = SlicingTeacher(args.strength)
    count_tokens = token_counter(EMBEDDED)

    def run() -> float:
        start = time.process_time()
        for trace in traces:
            prune_trace(trace, teacher, count_tokens)
        return time.process_time() - start

    seconds = min(run() for _ in range(3))
    print(
        f"{len(traces) / seconds:.0f} traces/s of processor time ({len(traces)} traces, {teacher.name}, with checks)"
    )
    if args.profile:
        with cProfile.Profile() as profile:
            run()
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
