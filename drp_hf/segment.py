"""Reasoning → sentence- or formula-sized units with exact character offsets."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """The smallest piece of a reasoning: a sentence, a list item, a displayed formula, a code block or a table.

    Args:
        start: first character, an offset into the reasoning.
        end: one past the last character.
        text: `reasoning[start:end]`, trailing white space included.
    """

    start: int
    end: int
    text: str


# Everything at which a decision is due; whatever lies between two of these is plain text.
_EVENT = re.compile(r"```|~~~|\$\$?|\\[\[(]|\\begin\{[a-zA-Z]{1,20}\*?\}|\n|[.!?…]+|[。！？｡．]+")
_CLOSER = {"```": "```", "~~~": "~~~", "$$": "$$", "$": "$", r"\[": r"\]", r"\(": r"\)"}
_QUOTES = re.compile(r"[\"'”’»)\]}*_」』）】]*")
_SPACE = re.compile(r"\s*")
_AFTER_FORMULA = re.compile(r"[.,;:!?。，]*\s*")
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
_TABLE = re.compile(r"(?:[ \t]*\|[^\n]*(?:\n|\Z))+")
# "1. ", "2) ", "- **3.** ", "a) " where a unit begins: the dot ends no sentence.
_MARKER = re.compile(r"\s*(?:[-*+•>#]{1,6}[ \t]+)*\**\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,4})[.)]\**[ \t]+(?=\S)")
_LAST_WORD = re.compile(r"[A-Za-z][A-Za-z.]*\Z")
_NEVER_LAST = frozenset("mr mrs ms dr prof vs e.g i.e cf fig eq eqs eqn resp viz approx st".split())
_SELDOM_LAST = frozenset("etc no a.m p.m u.s in ft lb lbs oz hr hrs min sec sq al".split())


class _Finder:
    """`str.find` for queries at growing positions, so that all of them together read the text once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: dict[str, int] = {}
        self._blank = -1

    def find(self, what: str, position: int) -> int:
        found = self._found.get(what, -1)
        if found < position:
            found = self._text.find(what, position)
            self._found[what] = found if found >= 0 else len(self._text)
        return self._found[what]

    def blank_line(self, position: int) -> int:
        if self._blank < position:
            match = _BLANK_LINE.search(self._text, position)
            self._blank = match.start() if match else len(self._text)
        return self._blank


def segment(reasoning: str) -> list[Unit]:
    """Splits a reasoning into units.

    A unit ends with a sentence, a line, a displayed formula (`\\[…\\]`, `$$…$$`, `\\begin…\\end`), a code block or a
    table, and carries the white space that follows. Nothing breaks inside formulas, decimals, abbreviations or after
    the number of a list item. The time is linear in the length of the text.

    Args:
        reasoning: the text inside the think tags.

    Returns:
        The units in order; `"".join(unit.text for unit in units) == reasoning`.
    """
    units: list[Unit] = []
    finder = _Finder(reasoning)
    length = len(reasoning)
    start = 0

    def close(end: int) -> int:
        """Ends the unit at `end` and returns where reading goes on."""
        nonlocal start
        # White space alone is no unit: it belongs to what stands before it, or else to what follows.
        blank = reasoning[start:end].isspace()
        if blank and units:
            start = units.pop().start
        if start < end and not (blank and not units and end < length):
            units.append(Unit(start, end, reasoning[start:end]))
            start = end
        marker = _MARKER.match(reasoning, end)
        return marker.end() if marker else end

    position = close(0)
    while match := _EVENT.search(reasoning, position):
        event, position = match.group(), match.end()
        first = event[0]
        if first == "\n":
            if not _is_wrapped(reasoning, start, match.start()):
                position = close(_SPACE.match(reasoning, position).end())
            table = _TABLE.match(reasoning, position)
            if table and not reasoning[start:position].strip():
                position = close(_SPACE.match(reasoning, table.end()).end())
        elif first in "`~$\\":
            end = _formula_end(reasoning, finder, event, match.start())
            if end is None:
                continue
            position = end
            if event not in ("$", r"\("):
                close(match.start())
                position = close(_AFTER_FORMULA.match(reasoning, end).end())
        elif first in "。！？｡．":
            if not (first == "．" and reasoning[position : position + 1].isdigit()):
                end = _QUOTES.match(reasoning, position).end()
                position = close(_SPACE.match(reasoning, end).end())
        else:
            after = _QUOTES.match(reasoning, position).end()
            end = _SPACE.match(reasoning, after).end()
            if end == length or (end > after and _ends_sentence(reasoning, start, match.start(), event, end)):
                position = close(end)
            else:
                position = after
    close(length)
    return units


def _formula_end(text: str, finder: _Finder, opener: str, begin: int) -> int | None:
    """One past the closing mark of the formula or code block that opens at `begin`; None where none does."""
    inside = begin + len(opener)
    closer = _CLOSER.get(opener) or opener.replace("begin", "end", 1)
    if opener in ("```", "~~~"):
        end = finder.find(closer, inside)
        return end + 3 if end < len(text) else None
    if opener == "$":
        # A dollar sign is money unless it hugs its content on both sides, on one line.
        if text[inside : inside + 1].isspace():
            return None
        end = finder.find(closer, inside)
        if end >= min(len(text), finder.find("\n", inside)) or end == inside or text[end - 1].isspace():
            return None
        return None if text[end + 1 : end + 2].isdigit() else end + 1
    end = finder.find(closer, inside)
    if end >= min(len(text), finder.blank_line(inside)):
        return None
    if opener == r"\[" and finder.find(opener, inside) < end:
        return None
    return end + len(closer)


def _is_wrapped(text: str, start: int, newline: int) -> bool:
    """Whether a line break is only the wrap of a long line: no punctuation before it, a small letter after it."""
    before = text[newline - 1 : newline]
    after = text[newline + 1 : newline + 2]
    return newline - start > 60 and (before.isalpha() or before == ",") and after.isascii() and after.islower()


def _ends_sentence(text: str, start: int, mark: int, event: str, following: int) -> bool:
    """Whether the punctuation at `mark`, followed by white space, ends a sentence."""
    after = text[following]
    if after in ",;:)":
        return False
    if event == "!":  # a factorial goes on in small letters, figures or operators
        return not (after.islower() or after.isdigit() or after in "=+-*/×÷<>^)]}")
    if event != ".":
        return "?" in event or not after.islower()
    word = _LAST_WORD.search(text, max(start, mark - 12), mark)
    if word is None:
        return True
    name = word.group().lower()
    if name in _NEVER_LAST:
        return False
    return not (name in _SELDOM_LAST and (after.islower() or after.isdigit()))
