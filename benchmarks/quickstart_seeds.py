"""Prints what the quickstart's runs came to, each and all together.

    for seed in 0 1 2; do make quickstart SEED=$seed; done
    python benchmarks/quickstart_seeds.py runs/quickstart runs/quickstart-1 runs/quickstart-2

Every seed has problems of its own, so the last row is over all questions of all runs. Brackets hold 95 % intervals
from 10,000 paired bootstrap resamples of the questions.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table, box

from drp_hf.evaluations import Evaluation, align, figures, read_evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="output folders of drp quickstart")
    folders = parser.parse_args().runs

    table = Table("run", "questions", "tokens", "saved", "accuracy", "gained (points)", box=box.MARKDOWN)
    befores, afters = [], []
    for folder in folders:
        befores.append(read_evaluation(folder / "before"))
        afters.append(align(read_evaluation(folder / "after"), befores[-1]))
        table.add_row(folder.name, *measures(befores[-1], afters[-1]))
    table.add_row("all", *measures(joined(befores), joined(afters)))
    Console(soft_wrap=True).print(table)


def joined(evaluations: list[Evaluation]) -> Evaluation:
    """Several evaluations on different questions as one."""
    return replace(evaluations[0], answers=[row for evaluation in evaluations for row in evaluation.answers])


def measures(before: Evaluation, after: Evaluation) -> list[str]:
    old, new = figures([before]), figures([after], before)
    saved, gained = new["token_reduction_interval"], new["delta_accuracy_interval"]
    return [
        str(len(before.answers)),
        f"{old['mean_tokens']:.0f} → {new['mean_tokens']:.0f}",
        f"{new['token_reduction']:.1%} ({saved[0]:.1%} to {saved[1]:.1%})",
        f"{old['accuracy']:.1%} → {new['accuracy']:.1%}",
        f"{100 * new['delta_accuracy']:+.1f} ({100 * gained[0]:+.1f} to {100 * gained[1]:+.1f})",
    ]


if __name__ == "__main__":
    main()
