"""Compares the grader with a careful reading of the same answers, and its two checkers with each other.

    python benchmarks/eval_grading.py [../shared/data/traces]

Grades every row of the folder's traces as an evaluation does (final answer of the whole output, compared with gold),
and holds it against `graded_by_hand.json`: what careful readers said of a sample of rows before the grader's verdicts
were known to them, and of every row in which the exact check and math-verify differ. Rows whose note begins with
"doubtful" are those in which the reader saw reasons for both; they are counted apart. Fails (exit status 1) when the
grader is at odds with a reader on more rows than it may.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table, box

from drp_hf.answers import extract_answer
from drp_hf.grading import Grader, Verdict
from drp_hf.records import render_output

LABELS = Path(__file__).with_name("graded_by_hand.json")
REQUIRED = {"gsm8k": 1.0, "math": 0.98}
"""Least agreement with the readers by what a file's name begins with."""


@dataclass(frozen=True)
class Row:
    """One graded trace.

    Args:
        file: name of its file.
        number: its row there, from 1.
        gold: gold answer.
        answer: final answer found; None without one.
        verdict: what the grader says.
    """

    file: str
    number: int
    gold: str
    answer: str | None
    verdict: Verdict


def grade(folder: Path, grader: Grader) -> list[Row]:
    """Grades every row of a folder's traces."""
    found = list(_answers(folder))
    verdicts = grader.grade([(gold, answer) for _, _, gold, answer in found])
    return [Row(*row, verdict) for row, verdict in zip(found, verdicts, strict=True)]


def _answers(folder: Path) -> Iterator[tuple[str, int, str, str | None]]:
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                row = json.loads(line)
                output = render_output(row["reasoning"], row["response"])
                yield path.name, number, row["answer"], extract_answer(output)


def labels() -> dict[tuple[str, int], dict]:
    """What readers said, by file and row."""
    return {(label["file"], label["row"]): label for label in json.loads(LABELS.read_text(encoding="utf-8"))}


def agreement(rows: list[Row], doubtful: bool = False) -> dict[str, tuple[int, int]]:
    """By what a file's name begins with: rows with a label of that kind, and in how many the grader agrees."""
    read, counts = labels(), dict.fromkeys(REQUIRED, (0, 0))
    for row in rows:
        label = read.get((row.file, row.number))
        if label and label["note"].startswith("doubtful") is doubtful:
            name = next(name for name in REQUIRED if row.file.startswith(name))
            of, same = counts[name]
            counts[name] = (of + 1, same + (label["right"] is row.verdict.correct))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("../shared/data/traces"))
    args = parser.parse_args()
    console = Console(soft_wrap=True, highlight=False, markup=False)
    with Grader(thorough=True) as grader, console.status("grading"):
        rows = grade(args.folder, grader)
    read = labels()

    caption = "none: without an answer; two: its checkers differ; read: by a reader; same: and the grader says so too"
    table = Table(box=box.SIMPLE, caption=caption, caption_justify="left")
    table.add_column("traces", no_wrap=True)
    for name in ("rows", "right", "none", "two", "read", "same"):
        table.add_column(name, justify="right", no_wrap=True)
    for file in dict.fromkeys(row.file for row in rows):
        of_file = [row for row in rows if row.file == file]
        known = [(row, read[file, row.number]) for row in of_file if (file, row.number) in read]
        table.add_row(
            Path(file).stem,
            str(len(of_file)),
            str(sum(row.verdict.correct for row in of_file)),
            str(sum(row.answer is None for row in of_file)),
            str(sum(row.verdict.disagreement for row in of_file)),
            str(len(known)),
            str(sum(row.verdict.correct is label["right"] for row, label in known)),
        )
    console.print(table)

    for row in rows:
        label = read.get((row.file, row.number))
        said = "not read" if label is None else "right" if label["right"] else "wrong"
        verdict = "right" if row.verdict.correct else "wrong"
        if row.verdict.disagreement:
            console.print(
                f"checkers differ: {row.file} {row.number}: {row.answer!r} for {row.gold!r}; counted {verdict}"
            )
        if label is not None and said != verdict:
            console.print(f"reader differs: {row.file} {row.number}: counted {verdict}; {said}: {label['note']}")

    failed = False
    for name, (of, same) in agreement(rows).items():
        unsure, unsure_same = agreement(rows, doubtful=True)[name]
        share = same / of if of else float("nan")
        failed |= not share >= REQUIRED[name]
        console.print(
            f"{name}: {same} of {of} as the reader ({share:.1%}, at least {REQUIRED[name]:.0%} wanted), "
            f"and {unsure_same} of {unsure} that the reader found doubtful"
        )
    unread = [row for row in rows if row.verdict.disagreement and (row.file, row.number) not in read]
    if unread:
        console.print(f"{len(unread)} rows in which the checkers differ were not read by anybody")
    if failed or unread:
        sys.exit(1)


if __name__ == "__main__":
    main()
