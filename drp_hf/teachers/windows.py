"""Cuts a reasoning that is longer than a teacher can read into overlapping windows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from drp_hf.records import Step, Trace
from drp_hf.segment import Unit
from drp_hf.teachers.quantities import read

OVERLAP = 0.15
"""Share of a window's units that the next window decides again: what follows them was not to be seen."""
SUMMARY_VALUES = 12
"""Values that a summary names, the latest ones."""
SUMMARY_WIDTH = 120
"""Characters of the sentence that a summary quotes for a value."""
LONGEST_LINE = 2000
"""Characters of a unit that a teacher is shown; of a longer one, its beginning and end."""
LINE_BREAK = "⏎"
"""What a teacher is shown in place of a line break within a unit."""


@dataclass(frozen=True)
class Window:
    """A run of units that a teacher decides in one go.

    Args:
        trace: the trace they belong to.
        units: the units, in order.
        summary: what is established before them, a line each; empty in the first window.
        final: whether they are the last of the reasoning.
    """

    trace: Trace
    units: list[Unit]
    summary: list[str]
    final: bool

    @property
    def start(self) -> int:
        """Its first character, an offset into the reasoning."""
        return self.units[0].start

    @property
    def end(self) -> int:
        """One past its last character."""
        return self.units[-1].end

    def settled(self, steps: list[Step]) -> list[Step]:
        """Those of its steps that stand: in the final window all, else those before the overlap (at least one)."""
        if self.final:
            return steps
        border = self.units[-max(1, int(OVERLAP * len(self.units)))].start
        return [step for step in steps if step.end <= border] or steps[:1]


def open_window(
    trace: Trace, units: list[Unit], start: int, budget: int, count_tokens: Callable[[str], int]
) -> Window:
    """The window that begins at a character of the reasoning.

    Args:
        trace: the trace.
        units: its units.
        start: where the settled steps end, an offset into the reasoning.
        budget: tokens that the window's lines may have; a single unit always fits.
        count_tokens: tokens of a text.
    """
    before = [unit for unit in units if unit.end <= start]
    rest = [unit for unit in units if unit.end > start]
    if rest[0].start < start:  # a step that ends within a unit
        rest[0] = Unit(start, rest[0].end, trace.reasoning[start : rest[0].end])
    fitting = len(rest)
    lines = [f"{line}\n" for line in numbered(rest)]
    if _most_tokens(lines) > budget:
        used = fitting = 0
        for line in lines:
            used += count_tokens(line)
            if fitting and used > budget:
                break
            fitting += 1
    return Window(trace, rest[:fitting], _summary(before) if before else [], fitting == len(rest))


def numbered(units: Iterable[Unit]) -> list[str]:
    """The units as a teacher is shown them: numbered from 1, a line each."""
    return [f"[{number}] {one_line(unit.text)}" for number, unit in enumerate(units, 1)]


def _most_tokens(lines: Iterable[str]) -> int:
    """An upper bound that costs nothing: no tokenizer makes more tokens than there are bytes."""
    return sum(len(line.encode("utf-8", "replace")) for line in lines)


def one_line(text: str) -> str:
    """A text as one line: no text can look like a line of its own, whatever it says."""
    line = f" {LINE_BREAK} ".join(part.strip() for part in text.strip().splitlines() if part.strip())
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE * 3 // 4]} […] {line[-LONGEST_LINE // 4 :]}"
    return line


def as_lines(text: str, trace: Trace) -> str:
    """A teacher's text with line breaks where it copied the sign for them, which is no part of the trace."""
    return text if LINE_BREAK in trace.reasoning else re.sub(rf"[ \t]*{LINE_BREAK}[ \t]*", "\n", text).strip()


def _summary(units: Iterable[Unit]) -> list[str]:
    """The values that computations in the units came to, each with the sentence that last stated it."""
    values: dict[float, str] = {}
    for unit in units:
        for equation in read(unit.text).equations:
            if equation.stated and equation.exact and equation.operators:
                values.pop(equation.value, None)
                values[equation.value] = one_line(unit.text)[:SUMMARY_WIDTH]
    return [f"{value:g}: {sentence}" for value, sentence in list(values.items())[-SUMMARY_VALUES:]]
