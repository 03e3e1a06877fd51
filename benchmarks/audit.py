"""Checks a finished corpus against every promise it makes, and the chains of its computations.

    python benchmarks/audit.py CORPUS_FOLDER_OR_PARQUET

Written apart from the code that makes corpora (`drp_hf.pruning`, the teachers): it shares only the think tags with it,
and has its own readers of numbers, answers and steps, so that an error there is not repeated here.

Chain closure, by the plain rule: each number that a kept computation uses must be given in the question or stated
earlier in what is kept, or be a well-known constant. Computations are equations in symbols, LaTeX or words ("9 times
60 is 540") and sentences such as "dividing 180 by 5 gives 36". Results need no origin; they count as stated from then
on.

Apart from that, closure with allowances for mental arithmetic is counted. There the numbers of a side that rewrites
the side before it need no origin (`6 * 45 = 240 + 30 = 270`: its value is the same), but those of a run-on do
(`6 * 30 = 180 - 100 = 80`: 100 must be known). And splitting a known number by place value uses no new one: 40 of 45,
and soon after it 5.
"""

from __future__ import annotations

import operator
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from drp_hf.records import THINK_CLOSE, THINK_OPEN

CONSTANTS = frozenset(map(Fraction, ("0", "1", "2", "7", "10", "12", "24", "52", "60", "100", "365", "1000", "1/2")))

# ---------------------------------------------------------------------------------------------- reading of numbers

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_WORD_VALUES = {word: i for i, word in enumerate(_SMALL)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}
_WORD_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
_ONE_WORD = "|".join(sorted([*_WORD_VALUES, *_WORD_SCALES], key=len, reverse=True))
_WRITTEN = re.compile(rf"\b({_ONE_WORD})\b(?:(?:-| and | )(?:{_ONE_WORD})\b)*", re.IGNORECASE)
_IMPLIED = {
    word: Fraction(value)
    for value, words in {
        "1/2": "half halves halved halving",
        "2": "twice double doubled doubles doubling both pair pairs couple second",
        "3": "triple triples tripled thrice third thirds",
        "4": "quarter quarters fourth fourths quadruple quadrupled",
        "5": "fifth fifths weekdays",
        "6": "sixth sixths",
        "7": "seventh sevenths",
        "8": "eighth eighths",
        "9": "ninth ninths",
        "10": "tenth tenths decade decades",
        "12": "dozen dozens",
        "14": "fortnight",
        "20": "score",
        "100": "century",
    }.items()
    for word in words.split()
}


def _in_digits(match: re.Match[str]) -> str:
    total = part = 0
    for word in re.findall(r"[a-z]+", match[0].lower()):
        if word in _WORD_VALUES:
            part += _WORD_VALUES[word]
        elif word == "hundred":
            part = max(part, 1) * 100
        elif word in _WORD_SCALES:
            total += max(part, 1) * _WORD_SCALES[word]
            part = 0
    return f" {total + part} "


_LATEX = [
    (re.compile(r"\\(?:text|mathrm|mbox|textbf|mathbf|textit|boxed|operatorname)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" (\1)/(\2) "),
    (re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)"), r" (\1)/(\2) "),
    (re.compile(r"\\(?:times|cdot|ast)(?![a-z])"), " × "),
    (re.compile(r"\\div(?![a-z])"), " ÷ "),
    (re.compile(r"\\approx(?![a-z])"), " = "),
    (re.compile(r"\\(?:implies|Rightarrow|rightarrow|to)(?![a-z])|[→⇒]"), " ; "),
    (re.compile(r"\\(?:left|right|quad|qquad|displaystyle)(?![a-z])|\\[,;! ()\[\]]|&"), " "),
    (re.compile(r"\\([%$#_])"), r"\1"),
]
_THOUSANDS = re.compile(r"(?<![\d.])(\d{1,3})((?:(?:,|\{,\}|,\\!)\d{3})+)(?!\d)")
_SCALED = re.compile(r"(\d+(?:\.\d+)?)[ -](hundred|thousand|million|billion)\b", re.IGNORECASE)
_DECIMAL = re.compile(r"\d+(?:\.\d+)?|(?<!\d)\.\d+")


def plain(text: str) -> str:
    """The text with thousands signs gone, LaTeX in ASCII, number words in digits, list numbers and markup removed."""
    text = re.sub(r"(?m)^[ \t>*#-]*\d{1,2}[.)][ \t]", " ", text)
    text = _THOUSANDS.sub(lambda match: match[1] + re.sub(r"\D", "", match[2]), text)
    for _ in range(3):  # nested commands, innermost first
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
    text = re.sub(r"[$€£¥]|\*\*", "", text)
    text = _SCALED.sub(lambda match: _digits(Fraction(match[1]) * _WORD_SCALES[match[2].lower()]), text)
    return _WRITTEN.sub(_in_digits, text)


def _digits(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else str(float(value))


def numbers(text: str) -> set[Fraction]:
    """Every number that a text gives: in digits, in words, as fraction, as per cent, or implied ("twice", "dozen")."""
    text = plain(text)
    found = {Fraction(match) for match in _DECIMAL.findall(text)}
    for over, under in re.findall(r"(\d+)\)?\s*/\s*\(?(\d+)", text):
        if int(under):
            found.add(Fraction(int(over), int(under)))
    found |= {
        Fraction(match) / 100 for match in re.findall(r"(\d+(?:\.\d+)?)\s*(?:%|percent|per cent|cents?\b|¢)", text)
    }
    for word in re.findall(r"[a-z]+", text.lower()):
        if word in _IMPLIED:
            value = _IMPLIED[word]
            found |= {value, 1 / value}
    return found


# -------------------------------------------------------------------------------------------------- chain closure

_TOKEN = re.compile(
    r"(?P<number>(?<![A-Za-z_\d.])(?:\d+(?:\.\d+)?|\.\d+)(?:\s?%)?)"
    r"|(?P<equals>=|≈|\bis equal to\b|\bequals?\b|\bequal to\b)"
    r"|(?P<says>\b(?:is|are|gives|giving|makes|totals|totaling|leaves|comes (?:out )?to|gets? me|that's|results in)\b)"
    r"|(?P<operator>[+×*·÷/⋅]|[-–−]|\bplus\b|\bminus\b|\btimes\b|\bmultiplied by\b|\bdivided by\b"
    r"|(?<=\d\s)over\b(?=\s\d)|(?<=\d)\s?x\s?(?=\d)|\s[xX]\s(?=[\d(]))"
    r"|(?P<of>\bof\b)"
    r"|(?P<bracket>[()\[\]{}])"
    r"|(?P<word>[A-Za-z_'’]+)"
    r"|(?P<stop>[.!?;:,\n])",
    re.IGNORECASE,
)
_SYMBOL = {"plus": "+", "minus": "-", "–": "-", "−": "-", "times": "*", "multiplied by": "*", "of": "*", "x": "*"}
_SYMBOL |= {"×": "*", "·": "*", "⋅": "*", "divided by": "/", "over": "/", "÷": "/"}
_RESULT = r"\b(?:brings?|leaves?|gets?|gives?|equals?|totals?|totaling|makes?|results?|resulting|is|are)\b"
_STRETCH = rf"(?:(?!{_RESULT})[^.\n=,;:]|\.\d)"
_VERB = re.compile(
    rf"\b(?:add|subtract|multiply|divid)\w*\s+({_STRETCH}{{0,60}}?\d{_STRETCH}{{0,40}}?"
    rf"\b(?:and|to|from|by|with)\b\s+(?:(?!{_RESULT})[^.\n=,;:\d]){{0,20}}\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
_SHARES = frozenset("half third thirds quarter quarters fourth fourths fifth fifths tenth percent".split())
_UNITS_BEFORE, _UNITS_AFTER = 4, 2
_CONJUNCTIONS = frozenset("because since so then but if as when where while and or which with".split())


@dataclass(frozen=True)
class OpenNumber:
    """A number that a computation uses and nobody gave."""

    number: Fraction
    computation: str


@dataclass(eq=False)
class _Token:
    kind: str
    text: str
    at: int

    @property
    def value(self) -> Fraction:
        return Fraction(self.text.rstrip(" %"))

    @property
    def forms(self) -> set[Fraction]:
        return {self.value, self.value / 100} if self.text.endswith("%") else {self.value}


def chain_closure(question: str, pruned_reasoning: str, allowances: bool = False) -> bool | None:
    """Whether every number that the computations use has an origin; None where there is no computation.

    Args:
        question: what is given.
        pruned_reasoning: what is kept.
        allowances: whether rewritten sides and splitting by place value need no origin.
    """
    result = list(_audit_chains(question, pruned_reasoning, allowances))
    return not any(isinstance(item, OpenNumber) for item in result) if result else None


def open_numbers(question: str, pruned_reasoning: str) -> list[OpenNumber]:
    """The numbers that break the chain, with the computation that uses them."""
    return [item for item in _audit_chains(question, pruned_reasoning, False) if isinstance(item, OpenNumber)]


def _audit_chains(question: str, reasoning: str, allowances: bool) -> Iterator[OpenNumber | bool]:
    """Yields True for a computation, and an `OpenNumber` for each number without origin in one."""
    text = re.sub(r"\s*\n\s*(?=[=≈×*÷+])|(?<=[=≈×*÷+])\s*\n\s*", " ", plain(reasoning))
    known = numbers(question) | CONSTANTS
    spoken = {digits.start() for verb in _VERB.finditer(text) for digits in _DECIMAL.finditer(text, *verb.span(1))}
    rests: dict[Fraction, int] = {}  # what is left of a number that was split, and in which clause that was
    for index, clause in enumerate(_clauses(text)):
        used = _used(clause, allowances) | {t for t in clause if t.kind == "number" and t.at in spoken}
        if used:
            yield True
        side: set[Fraction] = set()
        for token in clause:
            if token.kind in ("equals", "says"):
                known |= side
                side = set()
            elif token.text.lower() in _IMPLIED:
                value = _IMPLIED[token.text.lower()]
                known |= {value, 1 / value}
            elif token.kind == "number":
                if token not in used:
                    known |= token.forms
                    continue
                split = _rests(token.value, known) if allowances else set()
                soon = index - rests.get(token.value, -9) <= 3
                if known.isdisjoint(token.forms) and not split and not soon:
                    yield OpenNumber(token.value, text[clause[0].at : clause[-1].at + len(clause[-1].text)])
                rests |= dict.fromkeys(split, index)
                side |= token.forms
        known |= side
        for over, slash, under in zip(clause, clause[1:], clause[2:], strict=False):
            if over.kind == under.kind == "number" and slash.text == "/" and under.value:
                known.add(over.value / under.value)


def _rests(number: Fraction, known: set[Fraction]) -> set[Fraction]:
    """What is left of the known numbers of which `number` is the beginning (40 of 45, 19 of 19.50)."""
    place = Fraction(1)
    while number and number % (place * 10) == 0:
        place *= 10
    return {whole - number for whole in known if 10 < whole and number.denominator == 1 and 0 < whole - number < place}


def _clauses(text: str) -> Iterator[list[_Token]]:
    clause: list[_Token] = []
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "stop":
            lead = len(match[0]) - len(match[0].lstrip())
            clause.append(_Token(match.lastgroup, match[0].strip(), match.start() + lead))
        elif clause:
            yield clause
            clause = []
    if clause:
        yield clause


def _used(clause: list[_Token], allowances: bool) -> set[_Token]:
    """The operands of the equations in the clause; with allowances, without sides that rewrite the side before."""
    sides: list[list[_Token]] = [[]]
    for token in clause:
        # "is" connects a computation with its result; elsewhere it is only a verb.
        if token.kind == "equals" or (token.kind == "says" and _operands(sides[-1])):
            sides.append([])
        else:
            sides[-1].append(token)
    used: set[_Token] = set()
    if len(sides) == 1 or not any(token.kind == "number" for token in sides[-1]):
        return used
    for i, side in enumerate(sides):
        operands = _operands(side)
        if not (allowances and i and operands and _operands(sides[i - 1]) and _same_value(sides[i - 1], side)):
            used |= operands
    return used


def _operands(side: list[_Token]) -> set[_Token]:
    found: set[_Token] = set()
    for i, token in enumerate(side):
        if token.kind == "operator" or (token.kind == "of" and _is_share(side, i)):
            left, right = _neighbour(side, i, -1), _neighbour(side, i, 1)
            if token.text in "-–−" and (
                i == 0 or side[i - 1].kind in ("operator", "bracket") and side[i - 1].text != ")"
            ):
                continue  # a sign
            if token.text in "-–−/" and not _is_operator(side, i, left, right):
                continue
            if token.text.lower() == "times" and (left is None or right is None):
                continue  # "3 times a week"
            found |= {operand for operand in (left, right) if operand is not None}
    return found


def _neighbour(side: list[_Token], i: int, step: int) -> _Token | None:
    """The number beside an operator, across brackets and a few words of unit."""
    words = 0
    i += step
    while 0 <= i < len(side):
        token = side[i]
        if token.kind == "number":
            return token
        if token.kind == "word" or (token.text == "/" and step < 0):
            words += 1
        elif token.kind != "bracket":
            return None
        if token.text.lower() in _CONJUNCTIONS or words > (_UNITS_BEFORE if step < 0 else _UNITS_AFTER):
            return None
        i += step
    return None


def _is_share(side: list[_Token], i: int) -> bool:
    """Whether "of" multiplies: "20% of 50", "half of 48"."""
    share = i > 0 and (side[i - 1].text.endswith("%") or side[i - 1].text.lower() in _SHARES)
    return share and _neighbour(side, i, 1) is not None


def _is_operator(side: list[_Token], i: int, left: _Token | None, right: _Token | None) -> bool:
    """A hyphen or slash inside words ("3-point", "$10/hour") is none."""
    after = side[i + 1] if i + 1 < len(side) else None
    return after is not None and (after.kind in ("number", "bracket") or (left is not None and right is not None))


def _same_value(first: list[_Token], second: list[_Token]) -> bool:
    """Whether two sides have one value; sides in the same unknowns (one-letter words) count as equal."""
    letters = [
        {t.text for t in side if t.kind == "word" and len(t.text) == 1 and t.text not in "aI"}
        for side in (first, second)
    ]
    if letters[0] or letters[1]:
        return bool(letters[0] & letters[1])
    values = [_evaluate(side) for side in (first, second)]
    return None not in values and abs(values[0] - values[1]) <= abs(values[0]) / 1000


def _evaluate(side: list[_Token]) -> Fraction | None:
    """Value of the numbers and operators of a side, words left out; None if that is no expression."""
    symbols: list[str | Fraction] = []
    for i, token in enumerate(side):
        if token.kind == "number":
            symbols.append(token.value / 100 if token.text.endswith("%") else token.value)
        elif token.kind == "bracket" and token.text in "([{":
            # 3(47) is a product
            symbols += ["*", "("] if symbols and isinstance(symbols[-1], Fraction) else ["("]
        elif token.kind == "bracket":
            symbols.append(")")
            if symbols[-2:] == ["(", ")"]:  # "(for blue ties)"
                del symbols[-3 if symbols[-3:-2] == ["*"] else -2 :]
        elif token.kind == "of" and not _is_share(side, i):
            continue
        elif token.kind in ("operator", "of"):
            if token.text in "/-–−" and i + 1 < len(side) and side[i + 1].kind == "word":
                continue  # "beads/pack", "3-point"
            symbols.append(_SYMBOL.get(token.text.lower(), token.text))
    try:
        value, rest = _sum(symbols, 0)
    except (IndexError, TypeError, ZeroDivisionError):
        return None
    return value if rest == len(symbols) else None


def _sum(symbols: list[str | Fraction], i: int) -> tuple[Fraction, int]:
    value, i = _product(symbols, i)
    while i < len(symbols) and symbols[i] in ("+", "-"):
        term, after = _product(symbols, i + 1)
        value = value + term if symbols[i] == "+" else value - term
        i = after
    return value, i


def _product(symbols: list[str | Fraction], i: int) -> tuple[Fraction, int]:
    value, i = _atom(symbols, i)
    while i < len(symbols) and symbols[i] in ("*", "/"):
        factor, after = _atom(symbols, i + 1)
        value = value * factor if symbols[i] == "*" else value / factor
        i = after
    return value, i


def _atom(symbols: list[str | Fraction], i: int) -> tuple[Fraction, int]:
    if symbols[i] == "-":
        value, i = _atom(symbols, i + 1)
        return -value, i
    if symbols[i] == "(":
        value, i = _sum(symbols, i + 1)
        if symbols[i] != ")":
            raise TypeError("unbalanced brackets")
        return value, i + 1
    if isinstance(symbols[i], str):
        raise TypeError(f"{symbols[i]} where a number belongs")
    return symbols[i], i + 1


# ---------------------------------------------------------------------------------------------------- the promises


def audit_row(row: dict[str, Any]) -> list[str]:
    """Every promise that a corpus row breaks, in words; empty for a sound row.

    Args:
        row: a row in the shape of `drp_hf.records.CORPUS_FEATURES`.
    """
    if not row["accepted"]:
        return _audit_rejected(row)
    found = list(_audit_steps(row["reasoning"], row["steps"], row["pruned_reasoning"]))
    found += _audit_completion(row)
    found += _audit_answer(row["answer"], row["pruned_reasoning"])
    found += _audit_equations(row["pruned_reasoning"].split())
    # List numbers, which `plain` removes, may be kept; 1 is everywhere.
    given = {Fraction(1)} | {Fraction(match) for match in _DECIMAL.findall(row["reasoning"])}
    given |= numbers(row["question"]) | numbers(row["reasoning"]) | numbers(row["response"])
    foreign = {Fraction(match) for match in _DECIMAL.findall(plain(row["pruned_reasoning"]))} - given
    found += [f"number {number} appears from nowhere" for number in sorted(foreign)]
    if not 0 < row["tokens_after"] <= row["tokens_before"]:
        found.append(f"{row['tokens_after']} tokens after {row['tokens_before']}")
    if not row["teacher"]:
        found.append("no teacher named")
    return found


def _audit_rejected(row: dict[str, Any]) -> list[str]:
    found = [] if row["reason"] else ["rejected without a reason"]
    if row["completion"] or row["pruned_reasoning"] or row["tokens_after"]:
        found.append("rejected, yet with a completion")
    return found


def _audit_steps(reasoning: str, steps: list[dict[str, Any]], pruned: str) -> Iterator[str]:
    edges = [0, *(step["end"] for step in steps)]
    starts = [*(step["start"] for step in steps), len(reasoning)]
    if edges != starts:
        yield "steps leave a gap, overlap or do not end with the reasoning"
        return
    # What must be found in the pruned text, in order: runs of kept text (whole, with inner white space), and rewrites.
    expected: list[tuple[str, int, int | str]] = []
    for step in steps:
        rewrite = step["rewrite"]
        if not step["skill"]:
            yield f"step at {step['start']} has no skill"
        if step["start"] >= step["end"]:
            yield f"empty step at {step['start']}"
        if step["action"] == "KEEP":
            if expected and expected[-1][0] == "KEEP" and expected[-1][2] == step["start"]:
                expected[-1] = ("KEEP", expected[-1][1], step["end"])
            else:
                expected.append(("KEEP", step["start"], step["end"]))
        elif step["action"] in ("COMPRESS", "MERGE"):
            if not rewrite.strip():
                yield f"{step['action']} at {step['start']} without a rewrite"
            expected.append(("REWRITE", step["start"], rewrite))
        elif step["action"] != "DELETE":
            yield f"unknown action {step['action']!r}"
        if rewrite and step["action"] in ("KEEP", "DELETE"):
            yield f"{step['action']} at {step['start']} with a rewrite"
    position = 0
    for kind, start, end in expected:
        piece = (reasoning[start:end] if kind == "KEEP" else end).strip()
        while position < len(pruned) and pruned[position].isspace():
            position += 1
        if not pruned.startswith(piece, position):
            yield f"{'kept text' if kind == 'KEEP' else 'rewrite'} of character {start} is not where it belongs"
            return
        position += len(piece)
    if pruned[position:].strip():
        yield "text at the end that comes from no step"
    if pruned != pruned.strip() or not pruned:
        yield "pruned reasoning is empty or has white space around it"


def _audit_completion(row: dict[str, Any]) -> Iterator[str]:
    completion, pruned = row["completion"], row["pruned_reasoning"]
    if completion.count(THINK_OPEN) != 1 or completion.count(THINK_CLOSE) != 1:
        yield "think tags not exactly once"
    if completion != f"{THINK_OPEN}\n{pruned}\n{THINK_CLOSE}\n\nThe answer is {row['answer'].strip()}.":
        yield "completion is not think tags, pruned reasoning and final answer"


def _audit_answer(gold: str, pruned: str) -> Iterator[str]:
    sentences = [part for part in re.split(r"(?<=[.!?。])\s+|\n+", pruned[-3000:]) if re.search(r"\w", part)]
    tail = "\n".join(sentences[-5:])
    said = re.search(r"(?i).*\banswer (?:is|equals|=|:)(.*)", tail, re.DOTALL)
    tail = said[1] if said else tail
    boxes = re.findall(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}", tail)
    if boxes and not _equal(gold, boxes[-1]):
        yield f"boxed answer {boxes[-1]!r} is not {gold!r}"
    elif not boxes and not _named(gold, tail):
        yield f"the ending does not state {gold!r}"


_SIGNS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "×": operator.mul}
_SIGNS |= dict.fromkeys("/÷", lambda left, right: Fraction(left, right) if right else None)


def _audit_equations(words: list[str]) -> Iterator[str]:
    """The false ones among the equations like `3 × 4 = 12` that stand alone, between words or ends of sentences."""
    for i in range(len(words) - 4):
        left, sign, right, equals, value = words[i : i + 5]
        if equals != "=" or sign not in _SIGNS:
            continue
        before, after = words[i - 1] if i else ".", words[i + 5] if i + 5 < len(words) else "."
        after = after.rstrip(".,:;!")
        ends = value[-1] in ".,;" or after.isalpha() or not after
        alone = (before[-1] in ".,:;!" or (before.isalpha() and len(before) > 1)) and ends
        value = value.rstrip(".,;")
        if not alone or after in ("r", "rem", "remainder", "with", "mod", "and"):
            continue
        if all(re.fullmatch(r"[0-9]+", number) for number in (left, right, value)):
            if _SIGNS[sign](int(left), int(right)) != int(value):
                yield f"{left} {sign} {right} = {value} is false"


def _named(gold: str, tail: str) -> bool:
    value = _value(gold)
    if value is not None:
        return abs(value) in numbers(tail) or any(_equal(gold, part) for part in _formulas(tail))
    bare = re.sub(r"\\text\s*\{([^{}]*)\}|\\left|\\right|[\s$]", r"\1", gold)
    return bare in re.sub(r"\\text\s*\{([^{}]*)\}|\\left|\\right|[\s$*]", r"\1", tail) or any(
        _equal(gold, part) for part in _formulas(tail)
    )


def _formulas(text: str) -> list[str]:
    inside = re.findall(
        r"\\\((.+?)\\\)|\\\[(.+?)\\\]|\$([^$\n]+)\$|(?:=|\bis\b)\s*([^\n=]+?)(?:[.,](?:\s|$)|$)", text, re.DOTALL
    )
    return [part.rpartition("=")[2] for group in inside for part in group if part]


def _value(text: str) -> Fraction | None:
    bare = plain(text).replace("^\\circ", "").strip().rstrip(".")
    match = re.fullmatch(r"(-?)\s*\(?(\d+(?:\.\d+)?|\.\d+)\)?(?:\s*/\s*\(?(\d+)\)?)?\s*(?:%|[A-Za-z. ]*)", bare)
    if not match or match[3] == "0":
        return None
    value = Fraction(match[2]) / Fraction(match[3] or 1)
    return -value if match[1] else value


def _times(answer: str) -> set[Fraction]:
    """What gold without a unit may say of a full hour ("2:00 pm") or of hours and minutes that are no whole hours."""
    if full := re.match(r"(\d{1,2}):00(?!\d)", answer):
        return {Fraction(full[1])}
    lasted = re.match(
        r"(\d+(?:\.\d+)?)\W*(?:text\W*)?hours?(?:\W*and)?(?:\W*(\d+)\W*(?:text\W*)?minutes?)?\W*$", answer
    )
    hours = Fraction(lasted[1]) + Fraction(lasted[2] or 0) / 60 if lasted else Fraction(0)
    return {hours, hours * 60} if hours.denominator > 1 else set()


def _equal(gold: str, answer: str) -> bool:
    from math_verify import parse, verify

    a, b = _value(gold), _value(answer)
    if a is not None and a in _times(answer):
        return True
    if a is not None and b is not None:
        return a == b or abs(a - b) <= abs(a) / 10**6
    if re.sub(r"\\text\s*\{([^{}]*)\}|\s", r"\1", gold) == re.sub(r"\\text\s*\{([^{}]*)\}|\s", r"\1", answer):
        return True
    return bool(verify(parse(f"${gold}$"), parse(f"${answer}$")))


# ------------------------------------------------------------------------------------------------------ the script


def audit(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Audits a corpus.

    Returns:
        `read`, `accepted`, `sound` (accepted rows without a violation), `violations` (what, how often), `chains`
        (accepted rows with a computation), `closed` (those whose chain is closed by the plain rule), `closed with
        allowances`, `tokens_before`, `tokens_after` (sums over accepted rows) and `examples` (row number and message,
        at most 20).
    """
    result: dict[str, Any] = Counter()
    violations: Counter[str] = Counter()
    examples: list[tuple[int, str]] = []
    for index, row in enumerate(rows):
        result["read"] += 1
        found = audit_row(row)
        violations.update(re.sub(r"[\d/.]+|'.*'", "…", message) for message in found)
        examples += [(index, message) for message in found]
        if not row["accepted"]:
            continue
        result["accepted"] += 1
        result["sound"] += not found
        result["tokens_before"] += row["tokens_before"]
        result["tokens_after"] += row["tokens_after"]
        closed = chain_closure(row["question"], row["pruned_reasoning"])
        if closed is not None:
            result["chains"] += 1
            result["closed"] += closed
            result["closed with allowances"] += bool(chain_closure(row["question"], row["pruned_reasoning"], True))
        if closed is False:
            first = open_numbers(row["question"], row["pruned_reasoning"])[0]
            examples.append((index, f"open chain: {first.number} in {first.computation!r}"))
    return {**result, "violations": dict(violations), "examples": examples}


def main(argv: list[str]) -> int:
    """Prints the table for one corpus; returns 1 if an accepted row breaks a promise."""
    import datasets
    from rich.console import Console
    from rich.table import Table

    path = Path(argv[0])
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files:
        print(f"error: no Parquet file in {path}", file=sys.stderr)
        return 2
    result = audit(datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train"))
    table = Table("what", "count", "share", title=str(path))
    for what, of in (
        ("read", "read"),
        ("accepted", "read"),
        ("sound", "accepted"),
        ("chains", "accepted"),
        ("closed", "chains"),
        ("closed with allowances", "chains"),
    ):
        table.add_row(what, str(result.get(what, 0)), f"{result.get(what, 0) / max(1, result.get(of, 0)):.1%} of {of}")
    kept = result.get("tokens_after", 0) / max(1, result.get("tokens_before", 0))
    table.add_row("tokens kept", str(result.get("tokens_after", 0)), f"{kept:.1%}")
    console = Console()
    console.print(table)
    for index, message in result["examples"][:20]:
        console.print(f"row {index}: {message}", markup=False)
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
