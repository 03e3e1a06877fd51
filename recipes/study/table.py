"""The study's tables and plots, from the results alone: `python -m recipes.study.table`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table, box

from drp_hf.commands.parsing import parse_and_run
from drp_hf.errors import DRPError
from recipes.study.arms import FOLDER, GROUPS, read_arms
from recipes.study.plots import learnability_plot, pareto_plot
from recipes.study.results import (
    REASONER_ARM,
    REPEATS,
    TESTS,
    Comparison,
    Result,
    compare,
    read_results,
    reasoner_of,
)

BY_SEED = "right by seed"
MEASURES = ("saved", "right", "gained, points", "kept")
OTHER_TESTS = {"unseen": MEASURES, "svamp": MEASURES[:-1]}  # of SVAMP the reasoner has too little to keep
REPEATED = ("right", "gained, points")
PARETO, GAP = "pareto.png", "learnability.png"


@dataclass
class TableConfig:
    """
    Configuration of the tables.

    Parameters:
        results_dir (`str`, *optional*, defaults to `"recipes/study/results"`):
            Folder of the results.
        plots_dir (`str`, *optional*):
            Where `pareto.png` and `learnability.png` go; without it only the tables are printed.
    """

    results_dir: str = field(default=str(FOLDER / "results"), metadata={"help": "Folder of the results."})
    plots_dir: str | None = field(default=None, metadata={"help": "Where the plots go; none if not given."})


def main(config: TableConfig) -> None:
    """Prints the tables, and draws the plots."""
    print_tables(config.results_dir)
    if config.plots_dir:
        results = read_results(config.results_dir)
        folder = Path(config.plots_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PARETO).write_bytes(pareto_plot(results))
        (folder / GAP).write_bytes(learnability_plot(results))


def print_tables(results_dir: str | Path) -> None:
    """Prints what is there as Markdown."""
    for text in read_tables(results_dir):
        Console(soft_wrap=True, highlight=False, markup=False).print(f"\n{text}")


def read_tables(results_dir: str | Path) -> list[str]:
    """The tables of what is there, the repeats last."""
    results, repeats = read_results(results_dir), read_results(Path(results_dir) / REPEATS)
    return [*tables(results), *([repeats_table(results, repeats)] if repeats else [])]


def tables(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """Two Markdown tables: the held-out questions with what the training took, and the other tests.

    Raises:
        DRPError: there is no result of the reasoner, with which all others are compared.
    """
    arms, reasoner = read_arms(), reasoner_of(results)
    first = Table(
        *("arm", "tokens", *MEASURES, BY_SEED, "AES", "tokens per right answer", "NLL", "rows", "tokens trained"),
        box=box.MARKDOWN,
    )
    second = Table(
        "arm",
        *(f"{TESTS[test]}: {what}" for test, shown in OTHER_TESTS.items() for what in shown),
        f"{TESTS['unseen']}: {BY_SEED}",
        box=box.MARKDOWN,
    )
    group = 0
    for name in ordered(results):
        arm = arms[name]
        if arm.group != group:
            group = arm.group
            for table in (first, second):
                table.add_row(f"**{GROUPS[group]}**")
        of_arm, title = results[name], f"`{name}` {arm.title}"
        found = {test: compare(of_arm, reasoner, test) for test in TESTS}
        heldout = found["heldout"]
        trained = [result.training for result in of_arm if result.training]
        before = [result.training for result in results.get(arm.after, ())]  # DPO goes on from another arm's student
        cost = sum(fmean(each["tokens"] for each in part) for part in (before, trained) if part)
        first.add_row(
            title,
            f"{heldout.tokens:.0f}",
            *measures(heldout),
            by_seed(heldout) if trained else "",
            f"{heldout.aes:+.2f}",
            f"{heldout.tokens_per_right:.0f}",
            f"{trained[0]['nll']:.2f}" if trained else "",
            " or ".join(f"{rows:,}" for rows in sorted({each["rows"] for each in trained})),
            f"{cost:,.0f}" if cost else "",
        )
        others = (text for test, shown in OTHER_TESTS.items() for text in measures(found[test], shown))
        second.add_row(title, *others, by_seed(found["unseen"]) if trained else "")
    return [rendered(first), rendered(second)]


def repeats_table(results: Mapping[str, Sequence[Result]], repeats: Mapping[str, Sequence[Result]]) -> str:
    """Results that were made once more beside the first ones, and how many answers are judged otherwise, as Markdown.

    Raises:
        DRPError: there is no first one.
    """
    reasoner = reasoner_of(results)
    table = Table(
        *("arm, seed", "on", "questions", "tokens", *REPEATED, "again on", "tokens", *REPEATED, "judged otherwise"),
        box=box.MARKDOWN,
    )
    for again in (result for name in ordered(repeats) for result in repeats[name]):
        first = next((each for each in results.get(again.arm, ()) if each.seed == again.seed), None)
        if first is None:
            raise DRPError(f"{again.arm}-{again.seed} was made again, but there is no first result of it.")
        for test, title in TESTS.items():
            cells = []
            for result in (first, again):
                found = compare([result], reasoner, test)
                cells.append((f"{found.tokens:.1f}", *measures(found, REPEATED)))
            on = [f"{result.made['machine']}, {result.made['date']}" for result in (first, again)]
            otherwise = str((first.tests[test].right != again.tests[test].right).sum())
            table.add_row(f"`{again.arm}`, {again.seed}", on[0], title, *cells[0], on[1], *cells[1], otherwise)
    return rendered(table)


def ordered(results: Mapping[str, Sequence[Result]]) -> list[str]:
    """The arms by group, the reasoner before all others."""
    return sorted(results, key=lambda name: (name != REASONER_ARM, name))


def measures(found: Comparison, shown: Sequence[str] = MEASURES) -> list[str]:
    """Some of `MEASURES`, as text."""
    low, high = (100 * each for each in found.gained_interval)
    saved = round(found.saved, 2) + 0.0  # no minus before a 0
    gained = f"{100 * found.gained:+.1f} ({low:+.1f} to {high:+.1f})"
    texts = (f"{saved:.0%}", f"{found.accuracy:.1%}", gained, f"{found.kept:.0%}")
    return [text for name, text in zip(MEASURES, texts, strict=True) if name in shown]


def by_seed(found: Comparison) -> str:
    """The accuracy of each seed, as text."""
    return ", ".join(f"{100 * right:.1f}" for right in found.by_seed)


def rendered(table: Table) -> str:
    """A table as Markdown."""
    stream = StringIO()
    Console(file=stream, width=1000, highlight=False, markup=False).print(table)
    lines = stream.getvalue().strip().splitlines()
    return "\n".join(re.sub("-{3,}", "---", " ".join(line.split())) for line in lines)


if __name__ == "__main__":
    parse_and_run(main, TableConfig)
