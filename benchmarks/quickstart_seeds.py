"""Prints what the quickstart's runs came to, each and all together.

    for seed in 0 1 2; do make quickstart SEED=$seed; done
    python benchmarks/quickstart_seeds.py runs/quickstart runs/quickstart-1 runs/quickstart-2

Every seed has problems of its own, so the last row is over all questions of all runs. Brackets hold 95 % intervals
from 10,000 paired bootstrap resamples of the questions.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table, box

from drp_hf.evaluations import align, read_evaluation
from drp_hf.figures import ScoreTable, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of drp quickstart")
    folders = parser.parse_args().runs

    table = Table("run", "questions", "tokens", "saved", "accuracy", "gained (points)", box=box.MARKDOWN)
    befores, afters = [], []
    for folder in folders:
        before, after = (read_evaluation(folder / name).benchmarks["test"] for name in ("before", "after"))
        befores.append(before.table)
        afters.append(align(after, before).table)
        table.add_row(folder.name, *measures(befores[-1], afters[-1]))
    table.add_row("all", *measures(joined(befores), joined(afters)))
    Console(soft_wrap=True).print(table)


def joined(tables: Sequence[ScoreTable]) -> ScoreTable:
    """The answers to different questions in one table."""
    columns = {
        field.name: np.concatenate([getattr(table, field.name) for table in tables]) for field in fields(ScoreTable)
    }
    firsts = np.cumsum([0, *(table.n_questions for table in tables[:-1])])
    columns["question"] = np.concatenate([table.question + first for table, first in zip(tables, firsts, strict=True)])
    return ScoreTable(**columns)


def measures(before: ScoreTable, after: ScoreTable) -> list[str]:
    found = figures(after, before)
    saved, gained = found["token_reduction_interval"], found["delta_accuracy_interval"]
    return [
        str(found["n_questions"]),
        f"{found['baseline_mean_tokens']:.0f} → {found['mean_tokens']:.0f}",
        f"{found['token_reduction']:.1%} ({saved[0]:.1%} to {saved[1]:.1%})",
        f"{found['baseline_accuracy']:.1%} → {found['accuracy']:.1%}",
        f"{100 * found['delta_accuracy']:+.1f} ({100 * gained[0]:+.1f} to {100 * gained[1]:+.1f})",
    ]


if __name__ == "__main__":
    main()
