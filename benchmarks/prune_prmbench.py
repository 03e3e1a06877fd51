"""Prints precision and recall of DELETE against PRMBench's inserted redundant steps.

    python benchmarks/prune_prmbench.py ../shared/data/steps/prmbench_redundancy_train.jsonl [--show 5]

Only rows where deleting the labelled steps restores the original solution are used. The teacher gets the steps of the
modified solution as units, and the original's last answer as gold; the first proposal that passes all checks counts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from drp_hf.answers import extract_answer
from drp_hf.pruning import apply_steps, check
from drp_hf.records import Action, Trace
from drp_hf.segment import Unit
from drp_hf.teachers.slicing import SlicingTeacher


def clean_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    return [row for row in rows if without(row["modified_process"], row["error_steps"]) == row["original_process"]]


def without(steps: list[str], numbers: list[int]) -> list[str]:
    return [step for number, step in enumerate(steps, 1) if number not in numbers]


def deleted(row: dict[str, Any], teacher: SlicingTeacher) -> set[int] | None:
    """1-based numbers of the steps that the teacher deletes; None if no proposal passes the checks."""
    units: list[Unit] = []
    for step in row["modified_process"]:
        start = units[-1].end if units else 0
        units.append(Unit(start, start + len(step) + 1, step + "\n"))
    reasoning = "".join(unit.text for unit in units)
    gold = extract_answer("\n".join(row["original_process"])) or row["original_process"][-1]
    trace = Trace(row["question"], gold, reasoning, "")
    for proposal in teacher.propose(trace, units):
        if not check(trace, proposal.steps, apply_steps(reasoning, proposal.steps)):
            gone = [step for step in proposal.steps if step.action is Action.DELETE]
            return {
                n for n, unit in enumerate(units, 1) if any(s.start <= unit.start and unit.end <= s.end for s in gone)
            }
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", type=Path, help="prmbench_redundancy_train.jsonl")
    parser.add_argument("--strength", nargs="+", default=["light", "default", "hard"])
    parser.add_argument(
        "--show", type=int, default=0, help="print that many rows where the teacher and the labels differ"
    )
    args = parser.parse_args()

    console = Console(soft_wrap=True, highlight=False)
    rows = clean_rows(args.steps)
    for strength in args.strength:
        teacher = SlicingTeacher(strength)
        hits = wrong = missed = total = undecided = shown = 0
        for row in rows:
            labels, found = set(row["error_steps"]), deleted(row, teacher)
            if found is None:
                undecided += 1
                found = set()
            hits, wrong, missed = hits + len(labels & found), wrong + len(found - labels), missed + len(labels - found)
            total += len(row["modified_process"])
            if found != labels and shown < args.show:
                shown += 1
                console.print(f"\n=== {row['question']}", markup=False)
                for number, step in enumerate(row["modified_process"], 1):
                    mark = ("L" if number in labels else " ") + ("D" if number in found else " ")
                    console.print(f"{mark} {number:2} {step}", markup=False)
        console.print(
            f"{teacher.name}: {len(rows)} rows, {total} steps, {hits + missed} redundant; DELETE precision "
            f"{hits / max(1, hits + wrong):.1%}, recall {hits / max(1, hits + missed):.1%} "
            f"(deleting every step would have precision {(hits + missed) / total:.1%}); no proposal in {undecided}",
            markup=False,
        )


if __name__ == "__main__":
    main()
