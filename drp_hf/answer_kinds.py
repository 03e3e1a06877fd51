r"""What an answer is: a number, an interval, a set, a matrix, a choice, a time … and what is in it.

Every usual writing of the same thing is read as the same: `x \ge 0` and `[0, \infty)`, `(B)` and `Option B: 12`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from drp_hf.answer_text import TEXT_COMMAND, typeset
from drp_hf.plain_numbers import PlainNumber, read_typeset_number

MAX_LABELS = 3
"""In front of one answer ("P = f(x) = 5")."""

# Greek letters without accents, and those that mathematics has of its own, stand for quantities.
_MATH_LETTER = re.compile(
    r"[\u0391-\u03a9\u03b1-\u03c1\u03c3-\u03c9\u03d0-\u03f6ªµº\u02b0-\u02ff\u2070-\u214f\U0001d400-\U0001d7ff]"
)
_LETTERS = re.compile(r"[A-Za-z]+(?:(?:[ '\-]|[.,] )[A-Za-z]+)*\Z")
_FUNCTION = re.compile(r"\b(?:sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|infty)\b")
_CHOICE = re.compile(
    r"(?:(?i:option|choice|answer) )?\(?([A-J])(?:\)|(?<=\([A-J])|(?=[.:]|$))[.:]?(?: ?(.+))?\Z", re.DOTALL
)
_AND = r" ?(?:,|;|&|\band\b|\bor\b)(?: ?(?:and|or)\b)? ?"
_MARK = r"(?:(?i:option|choice) )?\(?"
_CHOICE_AT_ONCE = re.compile(rf"{_AND}{_MARK}[A-J](?:\)|[.:]|$)")
_CHOICE_LATER = re.compile(rf"{_AND}{_MARK}([A-J])\)")
_BEFORE_CHOICE = re.compile(rf"{_AND}(?={_MARK}[A-J](?:\)|[.:]|$))")
_LABEL = re.compile(r"^ ?([A-Za-z](?:_\w)?(?: ?\([A-Za-z]\))?|\([A-Za-z, ]+\)|\\[a-z]{2,8}) ?(=|\\in\b) ?(?=[^=])")
_CLOCK = re.compile(r"(\d{1,2})(?: ?: ?([0-5]\d)(?::([0-5]\d))?)? ?(?:([ap])\.? ?m\b\.?)?( o'clock)?\Z", re.IGNORECASE)
_RATIO = re.compile(r"(\d+(?:\.\d+)?) ?(?::| to ) ?(\d+(?:\.\d+)?)\Z")
_BASE = re.compile(r"(\w+)_\{? ?(\d+|[a-z]+) ?\}?\Z")
_BASES = {name: str(n) for n, name in enumerate("two three four five six seven eight nine".split(), 2)}
_GRID = re.compile(r"\\begin\{([pbB]?matrix|array)\}(?:\{[^}]*\})?(.*?)\\end\{\1\}\Z", re.DOTALL)
_CASES = re.compile(r"\\begin\{[dr]?cases\}(.*?)\\end\{[dr]?cases\}\Z", re.DOTALL)
_AROUND_CASE = re.compile(r"\A *(?:if |for |when )?|[ ,;]*\Z")
_ORDER = re.compile(r"(<|>|\\le(?![a-z])|\\ge(?![a-z]))")
_VARIABLE = re.compile(r" ?[A-Za-z](?:_\w)? ?\Z|\\[a-z]{2,8} ?\Z")
_NOT_EQUAL = re.compile(r" ?[A-Za-z] ?\\ne ?(.+)\Z")
_ALL_BUT = re.compile(r"\\mathbb ?\{?R\}?(?: ?(?:\\setminus|\\backslash|-) ?\\\{(.+)\\\})?\Z")
_UNION = re.compile(r"\\cup\b|(?<=[\])]) ?U ?(?=[\[(])| or (?=[\[(])")
_EMPTY = {"\\emptyset", "\\{\\}", "no solution", "no solutions", "no real solution", "no real solutions"}
# "2个或3个": inside words the same signs join nothing.
_CHINESE_AND = r"(?:(?<=[\dA-Za-z)}$%])|(?<=\d[一-鿿])) ?(?:或者?|和|、) ?(?=[-\dA-Za-z(\\$])"
_LIST = re.compile(rf",? and |,? or |, ?|; ?|{_CHINESE_AND}")
_LIST_KEEPING_THOUSANDS = re.compile(rf",? and |,? or |,(?!\d{{3}}(?!\d)) ?|; ?|{_CHINESE_AND}")
_OPENING, _CLOSING = "([{", ")]}"


@dataclass(frozen=True)
class Words:
    """Letters alone, in lower case."""

    text: str


@dataclass(frozen=True)
class Choice:
    """A letter of a multiple-choice question, and what it stands for where that was written too."""

    letter: str
    text: str


@dataclass(frozen=True)
class Clock:
    """A time of day; `half` is "a", "p" or empty."""

    hour: int
    minute: int
    second: int
    half: str


@dataclass(frozen=True)
class Ratio:
    """ "3:2" or "3 to 2"."""

    value: Fraction


@dataclass(frozen=True)
class InBase:
    """Digits in a number system."""

    digits: str
    base: str


@dataclass(frozen=True)
class Grid:
    """Rows of a matrix or column vector."""

    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Cases:
    """Values, each with its condition."""

    cases: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Piece:
    """An interval between two ends."""

    left: str
    right: str
    closed: tuple[bool, bool]


@dataclass(frozen=True)
class Region:
    """A union of intervals."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Row:
    """Several answers; `brackets` are "()", "[]", "{}" or, for a bare list, empty."""

    items: tuple[str, ...]
    brackets: str


@dataclass(frozen=True)
class Equation:
    """Two sides."""

    left: str
    right: str


@dataclass(frozen=True)
class Formula:
    """Anything else."""

    text: str


Answer = Words | Choice | Clock | Ratio | InBase | Grid | Cases | Region | Row | Equation | Formula | PlainNumber


def letters(answer: str) -> str | None:
    r"""An answer made of letters alone, in lower case and without `\text` or brackets ("(C)"), else None."""
    plain = TEXT_COMMAND.sub(r"\1", answer).strip().rstrip(".。")
    if plain.startswith("(") and plain.endswith(")") and len(plain) == 3:
        plain = plain[1]
    if not plain.isascii():
        plain = unicodedata.normalize("NFC", plain).replace("’", "'")
    return plain.casefold() if len(plain) <= 200 and _LETTERS.match(_in_ascii(plain)) else None


def _in_ascii(plain: str) -> str:
    """The text with "x" for each letter or accent of other alphabets, unless all of these are of formulas ("αβ")."""
    if not _is_foreign(plain):
        return plain
    return "".join("x" if not sign.isascii() and unicodedata.category(sign)[0] in "LM" else sign for sign in plain)


def _is_foreign(text: str) -> bool:
    """Whether a text has a letter that no formula has ("é", "日")."""
    return not text.isascii() and any(
        not sign.isascii() and sign.isalpha() and not _MATH_LETTER.match(sign) for sign in text
    )


def is_prose(answer: str) -> bool:
    r"""Whether an answer is a word or words ("Evelyn", `\text{(C)}`) rather than a product of letters ("ab")."""
    plain = letters(answer)
    if plain is None or _FUNCTION.search(plain):
        return False
    return "\\" in answer or plain in ("yes", "no") or _is_foreign(plain) or re.search(r"[a-z]{3}", plain) is not None


def read(answer: str) -> Answer:
    """What an answer is."""
    text = typeset(answer)
    if number := read_typeset_number(text):
        return number
    if len(text) <= 80 and (match := _CHOICE.match(text)):
        if _further_choice(match[1], match[2] or ""):
            return Row(tuple(_BEFORE_CHOICE.split(text)), "")
        return Choice(match[1], match[2] or "")
    if match := _CLOCK.match(text):
        if match[2] or match[4] or match[5]:
            return Clock(int(match[1]), int(match[2] or 0), int(match[3] or 0), (match[4] or "").lower())
    if (match := _RATIO.match(text)) and Fraction(match[2]):
        return Ratio(Fraction(match[1]) / Fraction(match[2]))
    if match := _BASE.match(text):
        base = _BASES.get(match[2], match[2])
        if base.isdigit() and match[1][0].isdigit():
            return InBase(match[1].lower(), base)
    if text in _EMPTY or text.lower() in _EMPTY:
        return Row((), "{}")
    if match := _GRID.match(text):
        return Grid(tuple(tuple(cell.strip() for cell in row) for row in _rows(match[2])))
    if match := _CASES.match(text):
        cases = tuple(tuple(_AROUND_CASE.sub("", part) for part in row) for row in _rows(match[1]))
        # Without conditions they are the equations or solutions of a system.
        return Row(sum(cases, ()), "") if all(len(case) == 1 for case in cases) else Cases(cases)
    if region := _region(text):
        return region
    if is_prose(answer) and not _LIST.search(text):
        return Words(letters(answer))
    if row := read_row(text):
        return row
    if text.count("=") == 1 and not _ORDER.search(text):
        left, right = text.split("=")
        return Equation(left.strip(), right.strip())
    return Formula(text)


def _rows(text: str) -> list[list[str]]:
    return [row.split("&") for row in text.split("\\cr") if row.strip()]


def _further_choice(letter: str, text: str) -> bool:
    """Whether what follows a choice names another one ("(A) and (C)", "(A) 3 and (C) 5").

    "(D) both (A) and (B)" is one choice: those before it stand in its text.
    """
    return bool(_CHOICE_AT_ONCE.match(text)) or any(later > letter for later in _CHOICE_LATER.findall(text))


def _region(text: str) -> Region | None:
    if match := _NOT_EQUAL.match(text):
        return _without([match[1]])
    if match := _ALL_BUT.match(text):
        return _without(match[1].split(",") if match[1] else [])
    pieces = []
    for part in _UNION.split(text) if "," in text else re.split(r",? or ", text):
        piece = _interval(part.strip()) or _inequality(part.strip())
        if piece is None:
            return None
        pieces.append(piece)
    brackets = text[:1] + text[-1:]
    # "(1, 2)" may be a point and "[1, 2]" a list: those are read as rows, and become intervals when compared with one.
    return None if len(pieces) == 1 and brackets in ("()", "[]") else Region(tuple(pieces))


def _without(ends: Sequence[str]) -> Region:
    edges = ["-\\infty", *(end.strip() for end in ends), "\\infty"]
    return Region(tuple(Piece(a, b, (False, False)) for a, b in zip(edges, edges[1:], strict=False)))


def _interval(text: str) -> Piece | None:
    if len(text) < 5 or text[0] not in "([" or text[-1] not in ")]":
        return None
    parts = list(_split(text[1:-1], re.compile(",")))
    if len(parts) != 2:
        return None
    return Piece(parts[0].strip(), parts[1].strip(), (text[0] == "[", text[-1] == "]"))


def _inequality(text: str) -> Piece | None:
    parts = [part.strip() for part in _ORDER.split(text)]
    if len(parts) == 3:
        left, sign, right = parts
        if not _VARIABLE.match(left):
            left, sign, right = right, {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}[sign], left
        if not _VARIABLE.match(left) or not right:
            return None
        closed = sign.startswith("\\")
        if sign in ("<", "\\le"):
            return Piece("-\\infty", right, (False, closed))
        return Piece(right, "\\infty", (closed, False))
    if len(parts) == 5 and _VARIABLE.match(parts[2]) and parts[0] and parts[4]:
        low, first, _, second, high = parts
        closed = (first.startswith("\\"), second.startswith("\\"))
        if {first, second} <= {"<", "\\le"}:
            return Piece(low, high, closed)
        if {first, second} <= {">", "\\ge"}:
            return Piece(high, low, closed[::-1])
    return None


def read_row(text: str) -> Row | None:
    brackets = ""
    for left, right, name in (
        ("(", ")", "()"),
        ("[", "]", "[]"),
        ("\\{", "\\}", "{}"),
        ("\\langle", "\\rangle", "()"),
    ):
        if text.startswith(left) and text.endswith(right) and _closes_at_end(text, left, right):
            brackets, text = name, text[len(left) : -len(right)].strip()
            break
    if ":" in text and brackets == "{}":
        return None  # "{x : x > 1}" describes its elements.
    items = [item.strip() for item in _split(text, _LIST)]
    if "" in items and len(items) > 1:
        return None
    items = [signed for item in items for signed in _both_signs(item)]
    if brackets == "{}" or len(items) > 1:
        return Row(tuple(items), brackets)
    return None


def _both_signs(item: str) -> Iterator[str]:
    if item.count("\\pm") != 1 or "\\mp" in item:
        yield item
    else:
        yield item.replace("\\pm", "+").removeprefix("+").strip()
        yield item.replace("\\pm", "-")


def _closes_at_end(text: str, left: str, right: str) -> bool:
    """Whether the bracket with which a text begins is closed by the one with which it ends."""
    if left[-1] not in _OPENING:
        return True
    return all(depth > 0 for at, depth in _depths(text) if len(left) - 1 <= at < len(text) - len(right))


def _depths(text: str) -> Iterator[tuple[int, int]]:
    depth = 0
    for at, sign in enumerate(text):
        if sign in _OPENING:
            depth += 1
        elif sign in _CLOSING:
            depth -= 1
        yield at, depth


def _split(text: str, separators: re.Pattern[str]) -> Iterator[str]:
    """The parts between the separators that stand in no brackets."""
    depth = [depth for _, depth in _depths(text)]
    start = 0
    for match in separators.finditer(text):
        if depth[match.start()] == 0:
            yield text[start : match.start()]
            start = match.end()
    yield text[start:]


def unlabelled(text: str) -> str:
    """ "x = 5" without "x =", "x \\in [1, 2)" without "x \\in"."""
    for _ in range(MAX_LABELS):
        match = _LABEL.match(text)
        if not match:
            break
        text = text[match.end() :]
    return text


def label(text: str) -> str:
    """What `unlabelled` takes away first."""
    match = _LABEL.match(text)
    return match[1] if match else ""


def keeping_thousands(row: Row) -> Row:
    """The row with "1,000" as one number."""
    items = list(_split(",".join(row.items), _LIST_KEEPING_THOUSANDS))
    return Row(tuple(items), row.brackets)
