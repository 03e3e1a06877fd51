"""Tells the kept units in as few words as they need, and writes actions and skills down as steps."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from drp_hf.records import Action, Step
from drp_hf.teachers.ledger import CONSTANTS, Ledger, hundredths
from drp_hf.teachers.quantities import read
from drp_hf.teachers.rewriting import fewer_sides, first_side, formulas, goal, tidy
from drp_hf.teachers.skills import Role, skill


@dataclass(frozen=True)
class Piece:
    """A stretch of units that stays as one text.

    Args:
        first: its first unit.
        last: its last unit; more than one unit are merged.
        text: what stays, without surrounding white space.
    """

    first: int
    last: int
    text: str


def tell(ledger: Ledger, kept: list[int], hard: bool | None) -> list[Piece]:
    """Tells the kept units, each shortened, and a computation that is announced and then done as one sentence."""
    pieces: list[Piece] = []
    known = set(ledger.given | CONSTANTS)
    at = 0
    while at < len(kept):
        index = kept[at]
        first = last = index
        text = ledger.units[index].text.strip()
        if hard is not None:
            told = _without_small_steps(ledger, kept, at, known) or _told(ledger, kept, at)
            if told is not None:
                first, last, text = told
            text = tidy(text, hard, last == kept[-1])
            text = fewer_sides(text, known)
            reading = read(text)
            known |= reading.values | hundredths(reading)
        while pieces and pieces[-1].last >= first:
            pieces.pop()
        pieces.append(Piece(first, last, text))
        while at < len(kept) and kept[at] <= last:
            at += 1
    return pieces


def formulas_alone(ledger: Ledger, pieces: list[Piece]) -> list[Piece]:
    """Leaves of computations their formulas, and out the end that only repeats what the last of them gives."""
    return _without_echo(ledger, [replace(piece, text=formulas(piece.text) or piece.text) for piece in pieces])


def goal_first(ledger: Ledger, pieces: list[Piece]) -> list[Piece]:
    """Says shortly what is to be found, and leaves out the end that only repeats what the last computation gives."""
    first, *rest = pieces
    sought = goal(first.text) if not read(first.text).equations else None
    return _without_echo(ledger, [replace(first, text=sought or first.text), *rest])


def _without_echo(ledger: Ledger, pieces: list[Piece]) -> list[Piece]:
    if len(pieces) > 1 and not read(pieces[-1].text).equations:
        before = read(pieces[-2].text).equations
        if before and before[-1].value == ledger.gold:
            return pieces[:-1]
    return pieces


def _without_small_steps(ledger: Ledger, kept: list[int], at: int, known: set[float]) -> tuple[int, int, str] | None:
    """Joins an announced computation with its result, without the mental arithmetic in between."""
    index = kept[at]
    if not ledger.announces(index) or not ledger.ends_with_number(index):
        return None
    text, value = ledger.units[index].text.strip(), ledger.readings[index].equations[0].value
    done = next((i for i in kept[at + 1 : at + 8] if ledger.announcements.get(i) == index), None)
    setup = first_side(text)
    if done is None and not read(text[len(setup) :]).values <= known:
        # "120 * (1 + 0.6) = 120 * 1.6. 120 * 1.6 = 192.": 1.6 is small change, too.
        done = next((i for i in kept[at + 1 : at + 3] if ledger.says_last(i, value) and i - index <= 6), None)
    written = _NUMBER.finditer(ledger.units[done].text) if done is not None else ()
    values = [number["value"] for number in written if _float(number["value"]) == value]
    return (index, done, _join(setup, values[-1])) if values else None


def _told(ledger: Ledger, kept: list[int], at: int) -> tuple[int, int, str] | None:
    """Joins "So that is 100 - 60." and "100 minus 60 is 40." into "So that is 100 - 60 = 40."."""
    index = kept[at]
    equations = ledger.readings[index].equations
    if len(ledger.units[index].text) > 1000 or len(equations) != 1 or ledger.readings[index].variables:
        return None
    if "^" in ledger.units[index].text:
        return None  # powers are not read
    equation = equations[0]
    last = index
    result = _RESULT.search(ledger.units[index].text.strip()) if equation.stated else None
    if not equation.stated:
        # The result follows in a unit of its own: "That would be 2000." or "So she has 2000 left."
        following = kept[at + 1] if at + 1 < len(kept) else index
        if not 0 < following - index <= 6 or equation.value not in ledger.readings[following].values:
            return None
        if ledger.readings[following].equations or not ledger.announces(index):
            return None
        label = ledger.units[following].text.strip()
        result = _TELLS.match(label)
        last = following
        if result is None:
            result = next((m for m in _NUMBER.finditer(label) if _float(m["value"]) == equation.value), None)
            if result is None or not ledger.ends_with_number(index):
                return None
            if following - index > 1:
                return index, following - 1, _join(ledger.units[index].text.strip(), result["value"])
            return index, following, _join(ledger.units[index].text.strip(), result["value"]) + " " + tidy(label)
    if result is None:
        return None
    setup = find_setup(ledger, index, kept[at - 1] if at else -1) if ledger.words(index) < 4 else None
    first = index if setup is None else setup
    if first == last:
        return None
    return first, last, _join(ledger.units[first].text.strip(), result["value"])


def _float(number: str) -> float:
    return float(number.lstrip("$£€ ").replace(",", ""))


_NUMBER = re.compile(r"(?P<value>[$£€]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)")
_RESULT = re.compile(
    r"(?:=|\bis|\bequals|\bgives|→)\s*(?P<value>[$£€]?\s?[\d.,]*\d%?(?: [a-z]+){0,3})\s*[.!]*$", re.IGNORECASE
)
_TELLS = re.compile(
    r"(?:so,? |that|this|which|it|equals?|is|['’]s|would|should|be|gives?|me|us|we get"
    r"|[\s,])*(?P<value>[$£€]?\s?[\d.,]*\d%?(?: [a-z]+){0,2})"
    r"\s*[.!]*$",
    re.IGNORECASE,
)
_SYMBOLIC_END = re.compile(r"[-+*×·/÷−–x] ?[\s(]*\\?[$£€]?[\d.,]+[^-+*/×÷=]{0,30}$")


def _join(setup: str, value: str) -> str:
    setup = re.sub(r"[\s.:…,!?]+$", "", setup)
    setup = _HESITATION.sub("", setup)
    if re.search(r"(?:=|\bis|\bequals|\bbe)$", setup):
        return f"{setup} {value}."
    joined = f"{setup} = {value}."
    # "I multiply 12 by 1/6 = 2" would say that 1/6 is 2.
    reads = _SYMBOLIC_END.search(setup) and all(equation.exact for equation in read(joined).equations)
    return joined if reads else f"{setup}, which is {value}."


_HESITATION = re.compile(r"(?:\.{2,}|…|[,.])\s*(?:let me (?:see|think)|let's see|hmm+)$", re.IGNORECASE)


def find_setup(ledger: Ledger, index: int, floor: int) -> int | None:
    """The earlier sentence that announces the computation of a bare unit, in words and with the same operands."""
    operands = sorted(ledger.readings[index].equations[0].operands)
    best = None
    for earlier in range(index - 1, max(index - 7, floor), -1):
        reading, part = ledger.readings[earlier], ledger.roles[earlier]
        if reading.equations:
            announced = reading.equations[0]
            if reading.has_equals or not ledger.announces(earlier):
                break
            if sorted(announced.operands) != operands:
                break
            text = ledger.units[earlier].text.strip()
            fits = part in (Role.WORK, Role.PLAN) and len(text) < 240 and len(text) - reading.numbers[-1][1] < 40
            if fits and ledger.words(earlier) >= 3 and (best is None or ledger.words(earlier) > ledger.words(best)):
                best = earlier
        elif part in (Role.OTHER_WAY, Role.REREAD, Role.HEADING) or (part is Role.WORK and reading.numbers):
            break
    return best


def write_steps(ledger: Ledger, pieces: list[Piece]) -> list[Step]:
    """Actions and skills for every unit, consecutive units of one kind joined to one step."""
    steps: list[Step] = []
    ending = pieces[-1].last if pieces else -1
    waiting = iter(pieces)
    piece = next(waiting, None)
    index = 0
    while index < len(ledger.units):
        start, action, rewrite, last = ledger.units[index].start, Action.DELETE, "", index
        if piece is not None and piece.first == index:
            last = piece.last
            original = "".join(unit.text for unit in ledger.units[index : last + 1])
            if index < last:
                action = Action.MERGE
            else:
                action = Action.KEEP if piece.text == original.strip() else Action.COMPRESS
            if action is not Action.KEEP:
                rewrite = piece.text + original[len(original.rstrip()) :]
            piece = next(waiting, None)
        answers = last == ending and not ledger.readings[last].equations
        named = ledger.announcements.get(last, last) if action is Action.MERGE else last
        name = ""
        if ledger.skills:
            name = skill(ledger.units[named].text, ledger.readings[named], ledger.roles[named], answers)
        end = ledger.units[last].end
        previous = steps[-1] if steps else None
        if previous and previous.action is action is not Action.MERGE and previous.skill == name:
            steps[-1] = Step(previous.start, end, name, action, previous.rewrite + rewrite)
        else:
            steps.append(Step(start, end, name, action, rewrite))
        index = last + 1
    return steps
