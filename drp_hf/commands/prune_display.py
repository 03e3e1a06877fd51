"""What `drp prune` shows: its progress, and its tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from drp_hf.corpus.card import CorpusSummary
from drp_hf.teachers.asking import Tally
from drp_hf.teachers.imitation import Estimate


@contextmanager
def pruning_progress(
    total: int, tally: Tally, price_input: float, price_output: float
) -> Iterator[Callable[[], None]]:
    """Shows a bar with speed, spend and time left; what it gives is to be called after every row.

    Args:
        total: rows there will be.
        tally: what is asked and answered meanwhile.
        price_input, price_output: of a million tokens; the spend is shown where they are not 0.
    """
    start = time.monotonic()

    def asked() -> str:
        parts = []
        if tally.replies:
            parts.append(f"{tally.output_tokens / (time.monotonic() - start + 1e-9):,.0f} tokens/s")
            if price_input or price_output:
                parts.append(f"spent {tally.cost(price_input, price_output):,.2f}")
        if tally.failures:
            parts.append(f"{tally.failures:,} failed attempts")
        return " · ".join(filter(None, [*parts, tally.status]))

    class AskedColumn(TextColumn):
        def render(self, task):
            task.fields["asked"] = asked()
            return super().render(task)

    columns = (TextColumn("pruning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    asked_column = AskedColumn("{task.fields[asked]}", markup=False)
    with Progress(*columns, asked_column, console=Console(stderr=True)) as progress:
        task = progress.add_task("pruning", total=total, asked="")
        yield lambda: progress.advance(task)


def print_summary(summary: CorpusSummary, output_dir: Path) -> None:
    """Prints the funnel, tokens, actions and most frequent skills."""
    table = _table((escape(what), f"{count:,}", f"{share:.1%}") for what, count, share in summary.funnel.to_rows())
    table.add_section()
    for name, total, mean, _ in summary.token_rows():
        table.add_row(f"tokens {name}", f"{total:,}", f"mean {mean:.0f}")
    table.add_row("tokens kept", "", f"{summary.kept:.1%}")
    table.add_section()
    for action, count, share, _ in summary.action_rows():
        table.add_row(action, f"{count:,}", f"{share:.1%}")
    table.add_section()
    for skill, count, deleted in summary.skill_rows(10):
        table.add_row(escape(skill), f"{count:,}", f"{deleted:.0%} deleted")
    console = Console()
    console.print(str(output_dir), markup=False, highlight=False, soft_wrap=True)
    console.print(table)


def print_tally(tally: Tally, price_input: float, price_output: float) -> None:
    """Prints what the language model was asked, and what that cost at prices for a million tokens."""
    counts = {
        "replies": tally.replies,
        "replies that were on disk already": tally.replayed,
        "failed attempts": tally.failures,
        "requests given up": tally.unanswered,
        "input tokens": tally.input_tokens,
        "output tokens": tally.output_tokens,
    }
    table = _table((name, f"{count:,}") for name, count in counts.items())
    if price_input or price_output:
        table.add_row("cost", f"{tally.cost(price_input, price_output):,.2f}")
    Console().print(table)
    if tally.unanswered:
        Console(stderr=True, soft_wrap=True).print(
            "Some requests were given up; the same command asks them again, and nothing else."
        )


def print_estimate(estimate: Estimate, price_input: float, price_output: float) -> None:
    """Prints the first prompt, and what a run is estimated to take, at prices for a million tokens."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for message in estimate.first.messages:
        console.rule(message["role"])
        console.print(message["content"])
    counts = {
        "traces to ask about": estimate.traces,
        "calls": estimate.calls,
        "input tokens": estimate.input_tokens,
        "output tokens": estimate.output_tokens,
    }
    table = _table((f"{name}, estimated", f"{count:,.0f}") for name, count in counts.items())
    if price_input or price_output:
        cost = (estimate.input_tokens * price_input + estimate.output_tokens * price_output) / 1e6
        table.add_row("cost, estimated", f"{cost:,.2f}")
    console.print(table)
    console.print(
        "Tokens as the tokenizer of the corpus counts them, and replies as long as the slicing teacher's steps."
    )


def _table(rows: Iterable[tuple[str, ...]]) -> Table:
    """A table without a head: names on the left, numbers on the right."""
    table = Table(show_header=False)
    for place, row in enumerate(rows):
        for cell in range(len(row) if not place else 0):
            table.add_column(justify="right" if cell else "left")
        table.add_row(*row)
    return table
