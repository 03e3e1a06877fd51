"""The check of our own: compares answers exactly, by what they are, in no process of its own.

Where parts of a structure cannot be read, such as the third entry of a triple, the caller is asked about that part
alone (`ask`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction

from drp_hf.answer_kinds import (
    Answer,
    Cases,
    Choice,
    Clock,
    Equation,
    Formula,
    Grid,
    InBase,
    Piece,
    Ratio,
    Region,
    Row,
    Words,
    keeping_thousands,
    label,
    letters,
    read,
    read_row,
    unlabelled,
)
from drp_hf.answer_text import clean, normalise, typeset
from drp_hf.expressions import Unreadable, equal_equations, equal_expressions, same_value, value
from drp_hf.plain_numbers import PlainNumber, numbers_equal
from drp_hf.units import read_unit

Ask = Callable[[str, str], bool | None]
"""Asks somebody else whether two parts are equal; None where they do not know either."""
MAX_ITEMS = 12
"""Of a set whose items are tried against each other; larger ones are left to others."""

_ARTICLE = re.compile(r"^(?:an?|the) (?=\w{3})")
# "\\frac{\\pi}{2}\\text{ rad}", "16\\pi\\ \\text{cm}^2".
_NAMED_UNIT = re.compile(
    r"(?P<of>.*?\S)(?:\\[,;:! ]|~|\s)*\\(?:text|textrm|mathrm|mbox)\s*\{(?P<unit>[^{}]{1,40})\}"
    r"(?P<power>\s*\^\s*(?:\d|\{\d\}))?\Z",
    re.DOTALL,
)
_PER = re.compile(r" ?/ ?| per ")
_INFINITY = re.compile(r" ?([-+]?) ?\\infty ?\Z")


def compare(gold: str, predicted: str, ask: Ask = lambda gold, predicted: None) -> bool | None:
    """Whether two answers are equal.

    Args:
        gold: gold answer.
        predicted: predicted answer.
        ask: asked about the parts of structures that cannot be read here.

    Returns:
        None where they cannot be read exactly, and `ask` does not know either.
    """
    if (same := normalise(gold)) and same == normalise(predicted):
        return True
    a, b = read(gold), read(predicted)
    if type(a) is type(b):
        found = _same_kind(a, b, ask)
    else:
        found = _other_kind(a, b, gold, predicted, ask)
    if found is None:
        bare = unlabelled(typeset(gold)), unlabelled(typeset(predicted))
        # Once is enough: what still has a label after that had too many.
        if bare != (typeset(gold), typeset(predicted)) and not any(map(label, bare)):
            found = compare(*bare, ask)
    if not found and (without := _without_unit(gold, predicted)):
        return compare(*without, ask)
    return found


def _without_unit(gold: str, predicted: str) -> tuple[str, str] | None:
    """The two answers without the unit behind a formula, if one of them has one: its letters are no variables."""
    formulas = [_before_unit(answer) for answer in (gold, predicted)]
    if formulas.count(None) != 1 or _has_unit(gold if formulas[0] is None else predicted):
        return None
    return formulas[0] or gold, formulas[1] or predicted


def _has_unit(answer: str) -> bool:
    number = read(unlabelled(typeset(answer)))
    return isinstance(number, PlainNumber) and number.unit is not None


def _before_unit(answer: str) -> str | None:
    match = _NAMED_UNIT.match(clean(answer) or "") if "{" in answer else None
    if match is None or not all(map(read_unit, _PER.split(typeset(match["unit"] + (match["power"] or ""))))):
        return None
    return match["of"]


def _same_kind(a: Answer, b: Answer, ask: Ask) -> bool | None:
    match a:
        case PlainNumber():
            return numbers_equal(a, b)
        case Words():
            return _same_words(a.text, b.text)
        case Choice():
            return a.letter == b.letter
        case Clock():
            same = (a.hour % 12, a.minute, a.second) == (b.hour % 12, b.minute, b.second)
            return same and (a.half == b.half or not a.half or not b.half)
        case Ratio() | InBase():
            return a == b
        case Grid():
            if [len(row) for row in a.rows] != [len(row) for row in b.rows]:
                return False
            return _same_parts(sum(a.rows, ()), sum(b.rows, ()), ask)
        case Cases():
            if len(a.cases) != len(b.cases):
                return None
            return _any_order(a.cases, b.cases, lambda x, y: _same_parts(x, y, ask))
        case Region():
            return _same_region(a, b, ask)
        case Row():
            return _same_row(a, b, ask)
        case Equation():
            label = a.left == b.left and len(a.left) == 1
            if label and (equal := equal_expressions(a.right, b.right)) is not None:
                return equal
            return equal_equations((a.left, a.right), (b.left, b.right))
        case Formula():
            return equal_expressions(a.text, b.text)


def _other_kind(a: Answer, b: Answer, gold: str, predicted: str, ask: Ask) -> bool | None:
    """Compares answers that were read as different things."""
    if isinstance(a, Choice) or isinstance(b, Choice):
        return _same_choice(a, b, gold, predicted, ask)
    if isinstance(a, Words) or isinstance(b, Words):
        return _same_words(a.text, typeset(predicted).lower()) if isinstance(a, Words) else False
    if isinstance(a, Region) or isinstance(b, Region):
        left, right = _as_region(a), _as_region(b)
        return _same_region(left, right, ask) if left and right else None
    if isinstance(a, Grid) or isinstance(b, Grid):
        left, right = _as_row(a), _as_row(b)
        return _same_row(left, right, ask) if left and right else None
    if isinstance(a, Clock) or isinstance(b, Clock):
        return _clock_as_number(a, b)
    if isinstance(a, Ratio) or isinstance(b, Ratio):
        ratio, other = (a, b) if isinstance(a, Ratio) else (b, a)
        return other.value == ratio.value if isinstance(other, PlainNumber) and not other.percent else None
    if isinstance(a, InBase) or isinstance(b, InBase):
        number = typeset(predicted if isinstance(a, InBase) else gold)
        return number == (a if isinstance(a, InBase) else b).digits if number.isalnum() else None
    if isinstance(a, Equation) or isinstance(b, Equation):
        return _worked_out(a, b, gold, predicted, ask)
    if isinstance(a, Row) or isinstance(b, Row):
        return _row_and_one(a, b, gold, predicted, ask)
    return _number_and_formula(a, b)


def _part(gold: str, predicted: str, ask: Ask) -> bool | None:
    found = compare(gold, predicted, ask)
    return found if found is not None else ask(gold, predicted)


def _same_parts(golds: Sequence[str], predictions: Sequence[str], ask: Ask) -> bool | None:
    if len(golds) != len(predictions):
        return False
    return _all(_part(gold, predicted, ask) for gold, predicted in zip(golds, predictions, strict=True))


def _all(findings: Iterable[bool | None]) -> bool | None:
    """Of three values: false if one is, else unknown if one is. Goes through all, so that every question is asked."""
    found = list(findings)
    return False if False in found else None if None in found else True


def _same_words(gold: str, predicted: str) -> bool:
    gold, predicted = (_ARTICLE.sub("", text.replace("-", " ")) for text in (gold, predicted))
    if gold in ("yes", "no", "true", "false"):
        return re.match(rf"{gold}\b(?! or\b)", predicted) is not None
    return gold == predicted


def _same_choice(a: Answer, b: Answer, gold: str, predicted: str, ask: Ask) -> bool | None:
    if isinstance(a, Choice):
        if letters(predicted) == a.letter.lower():
            return True
        return _part(a.text, predicted, ask) if a.text else False
    if letters(gold) == b.letter.lower() and "(" in gold:
        return True
    if b.text:
        return _part(gold, b.text, ask)
    return False if isinstance(a, Words | Row) else None  # What a formula "b" is to a "B" others know.


def _worked_out(a: Answer, b: Answer, gold: str, predicted: str, ask: Ask) -> bool | None:
    """An equation without variables ("12 + 30 = 42") as its right side, if it is true."""
    equation = a if isinstance(a, Equation) else b
    try:
        left, right = value(equation.left), value(equation.right)
        if not same_value(left, right) or not same_value(left, value(equation.left, 1)):
            return None
    except Unreadable:
        return None
    return _part(equation.right, predicted, ask) if equation is a else _part(gold, equation.right, ask)


def _clock_as_number(a: Answer, b: Answer) -> bool | None:
    clock, other = (a, b) if isinstance(a, Clock) else (b, a)
    if not isinstance(other, PlainNumber) or other.percent:
        return None
    if other.value == clock.hour and not clock.minute and not clock.second:
        return True
    # Without a.m. or p.m. "1:10" may be a ratio.
    return not clock.half and clock.minute > 0 and other.value == Fraction(clock.hour, clock.minute)


def _as_region(answer: Answer) -> Region | None:
    if isinstance(answer, Region):
        return answer
    if isinstance(answer, Row) and len(answer.items) == 2 and answer.brackets in ("()", "[]"):
        closed = answer.brackets == "[]"
        return Region((Piece(*answer.items, (closed, closed)),))
    return None


def _same_region(a: Region, b: Region, ask: Ask) -> bool | None:
    if len(a.pieces) != len(b.pieces):
        return None
    return _any_order(a.pieces, b.pieces, lambda x, y: _same_piece(x, y, ask))


def _same_piece(a: Piece, b: Piece, ask: Ask) -> bool | None:
    return _all([a.closed == b.closed, _same_end(a.left, b.left, ask), _same_end(a.right, b.right, ask)])


def _same_end(gold: str, predicted: str, ask: Ask) -> bool | None:
    a, b = _INFINITY.match(gold), _INFINITY.match(predicted)
    if a and b:
        return (a[1] == "-") == (b[1] == "-")
    return False if a or b else _part(gold, predicted, ask)


def _as_row(answer: Answer) -> Row | None:
    if isinstance(answer, Row):
        return answer if answer.brackets != "{}" else None
    if isinstance(answer, Grid) and (len(answer.rows) == 1 or all(len(row) == 1 for row in answer.rows)):
        return Row(sum(answer.rows, ()), "()")
    return None


def _same_row(a: Row, b: Row, ask: Ask) -> bool | None:
    if len(a.items) != len(b.items):
        a, b = keeping_thousands(a), keeping_thousands(b)
    if len(a.items) != len(b.items):
        return False
    in_order = [(x, y) for x, y in zip(a.items, b.items, strict=True)]
    kinds = a.brackets + b.brackets
    if {a.brackets, b.brackets} == {"()", "[]"} and len(a.items) == 2:
        return False  # An open and a closed interval.
    if "(" in kinds or "[" in kinds:
        # Order counts; a set has none.
        return (
            False if a.brackets in ("()", "[]") and b.brackets == "{}" else _all(_part(x, y, ask) for x, y in in_order)
        )
    if all(map(label, a.items)) and all(map(label, b.items)):
        a, b = Row(tuple(sorted(a.items)), ""), Row(tuple(sorted(b.items)), "")
        names = [label(x) == label(y) for x, y in zip(a.items, b.items, strict=True)]
        pairs = zip(a.items, b.items, strict=True)
        return _all([*names, *(_part(unlabelled(x), unlabelled(y), ask) for x, y in pairs)])
    return _any_order(a.items, b.items, lambda x, y: _part(x, y, ask))


def _any_order(golds: Sequence, predictions: Sequence, equal: Callable[..., bool | None]) -> bool | None:
    """Whether each of the ones is equal to one of the others, and no two to the same."""
    if len(golds) > MAX_ITEMS:
        return None
    table = [[equal(gold, predicted) for predicted in predictions] for gold in golds]
    for certain in (True, False):
        if _matching(table, certain):
            return True if certain else None
    return False


def _matching(table: list[list[bool | None]], certain: bool) -> bool:
    taken: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, equal in enumerate(table[row]):
            if (equal if certain else equal is not False) and column not in seen:
                seen.add(column)
                if column not in taken or place(taken[column], seen):
                    taken[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(table)))


def _row_and_one(a: Answer, b: Answer, gold: str, predicted: str, ask: Ask) -> bool | None:
    row, other, one = (a, b, predicted) if isinstance(a, Row) else (b, a, gold)
    if isinstance(other, PlainNumber) and "," in typeset(one):
        # "100,200" was read as one number, but the other side is a list.
        if items := read_row(typeset(one)):
            return _same_row(a, items, ask) if row is a else _same_row(items, b, ask)
    if row.brackets == "{}" and len(row.items) == 1:
        return _part(row.items[0], predicted, ask) if row is a else _part(gold, row.items[0], ask)
    return False if isinstance(other, PlainNumber) else None


def _number_and_formula(a: Answer, b: Answer) -> bool | None:
    number, formula = (a, b) if isinstance(a, PlainNumber) else (b, a)
    if not isinstance(number, PlainNumber) or not isinstance(formula, Formula):
        return None
    try:
        found = value(formula.text)
        # A formula with variables is no number, whatever its value at one point.
        other = value(formula.text, 1)
        degree = value("\\pi/180")
    except Unreadable:
        return None
    if not same_value(found, other):
        return False
    if number.slack and not isinstance(found, Fraction) and not found.imag:
        return abs(number.value - Fraction(str(found.real))) <= number.slack
    values = [number.value]
    if number.percent:
        values.append(number.value / 100)
    if number.unit and number.unit.measures == "degrees" and "\\pi" in formula.text:
        values.append(degree * number.value.numerator / number.value.denominator)
    return any(same_value(each, found) for each in values)
