"""Which numbers a text names, however they are written, and whether what it says of them is plainly false."""

from __future__ import annotations

import re

from drp_hf.units import read_unit

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
_CARDINALS = {word: value for value, word in enumerate(f"{_ONES} eighteen nineteen".split())}
_CARDINALS |= {
    word: 10 * value for value, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_RELATED = {
    word: value
    for value, words in {
        "1": "once single another a an each first",
        "2": "twice double doubled doubles both couple pair second half halves halved",
        "3": "thrice triple tripled third thirds",
        "4": "quadruple fourth quarter quarters",
        "5": "fifth fifths",
        "10": "tenth tenths",
        "12": "dozen dozens",
        "100": "percent",
    }.items()
    for word in words.split()
}

# "1,000", "10{,}080" and "10,\!080" are one number; "1,2" and "3,4567" are two.
_DIGITS = re.compile(r"\d{1,3}(?:(?:,|\{,\}|,\\!)\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+")
_BINARY = re.compile(
    r"(?<!\d)(?P<left>\d{1,99}) (?P<sign>[-+*/×÷]) (?P<right>\d{1,99}) = (?P<value>\d{1,99})"
    r"(?![a-zA-Z_]|\.?\d|,\d|,\\!|\{,\}|:\d| \d{3}(?!\d)| \d+ ?/ ?\d| ?[-−–+*/×÷·⋅^%(!]|"
    r" ?\\(?:[dt]?frac|times|cdot|div|pm|[bp]mod|sqrt|binom|pi|%)|"
    r" (?:[rR]\d*|rem|remainder|with|mod|and|dozens?|hundred|thousand|million|billion)\b)"
)
_ANY = "|".join(sorted([*_CARDINALS, *_SCALES], key=len, reverse=True))
# No number takes more words, and no repetition ("hundred hundred …") may make one without bounds.
_WORDS = re.compile(rf"\b(?:{_ANY})(?:(?:[\s-]+|\s+and\s+)(?:{_ANY})){{0,30}}\b")
_NAME = re.compile(r"[a-z]+")
_BEFORE = 60
"""Characters before an equation that tell whether it begins there."""
# Where it does: a sentence, a formula (a dollar sign may be money), what follows a word …
_BEGINS = re.compile(
    r"(?:[.!?;。！？；：→⇒]|(?<!\d)，|(?<!\s):|\\\[|\\\(|(?P<dollar>(?<![\w\\])\${1,2})|(?<![\w\\])[A-Za-z]{2,},?)\Z"
)
# … and where a term goes on, also on the next line: "3 \\times 4 + 2", "half of 10 + 2", "10 mod 3 + 4".
_GOES_ON = re.compile(
    r"(?:[-−–+*/×÷·⋅∙∗^=<>&_]|(?<!\\)\(|\\[A-Za-z]+|"
    r"\b(?:times|of|plus|minus|mod|modulo|over|by|percent|halves|half|thirds?|quarters?|twice|thrice|double|triple|"
    r"dozens?|pairs?|choose|squared|cubed|point|base|root|sqrt|log|ln|sin|cos|tan|pi|" + _ANY + r"))\Z",
    re.IGNORECASE,
)
# "2 hours 30 + 40"
_MEASURED = re.compile(r"\d ?([A-Za-z]+)\Z")
_CLOSES = re.compile(r"[^$\n]{0,200}\$(?!\d)")


def canonical(number: str) -> str:
    """One writing for each number: `1,000`, `1000.0` and `01000` are all `1000`."""
    number = re.sub(r"[^\d.]", "", number)
    whole, _, part = number.partition(".")
    part = part.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{part}" if part else "")


def named(text: str) -> set[str]:
    """The numbers a text names in digits or in number words ("twenty-five"), signs left aside, in canonical form."""
    return digits(text) | spelled(text)


def digits(text: str) -> set[str]:
    """The numbers in digits alone."""
    return {canonical(match) for match in set(_DIGITS.findall(text))}


def spelled(text: str) -> set[str]:
    """The numbers in number words alone."""
    return {str(_value(match)) for match in _WORDS.findall(text.lower())}


def leading(text: str) -> tuple[int, str] | None:
    """The number in words with which a text begins, and what follows it; None where it does not begin with one."""
    match = _WORDS.match(text.lower())
    return (_value(match[0]), text[match.end() :]) if match else None


def suggested(text: str) -> set[str]:
    """What `named` finds, and the numbers that words such as "twice", "half" or "dozen" stand for."""
    words = set(_NAME.findall(text.lower()))
    return named(text) | {value for word, value in _RELATED.items() if word in words}


def false_equation(text: str) -> str:
    """The first plain equation of three whole numbers that is false ("10 - 90 = 10"); empty if there is none.

    What could be part of something longer, or a division with a remainder, is not judged.
    """
    for match in _BINARY.finditer(text):
        left, right, value = (int(match[part]) for part in ("left", "right", "value"))
        sign = match["sign"]
        holds = {"+": left + right == value, "-": left - right == value}.get(sign)
        if holds is None:
            holds = left * right == value if sign in "*×" else left == right * value
        if not holds and _begins(text, match):
            return match.group()
    return ""


def _begins(text: str, equation: re.Match[str]) -> bool:
    """Whether an equation is surely all of its left side, and not the end of something longer."""
    before = text[max(0, equation.start() - _BEFORE) : equation.start()]
    space = before[len(before.rstrip()) :]
    before = before.rstrip()[-_BEFORE // 3 :]
    if _GOES_ON.search(before) or (measured := _MEASURED.search(before)) and read_unit(measured[1]):
        return False
    if not before or "\n" in space:
        return True
    begins = _BEGINS.search(before)
    if begins is None:
        return False
    if begins["dollar"]:
        return _CLOSES.match(text, equation.end()) is not None
    # "3:4 + 2" and "1.5 + 2": there is no space after what is part of a number.
    return bool(space) or not begins[0][-1].isascii() or begins[0][-1] in "[("


def _value(words: str) -> int:
    total = group = 0
    for word in re.split(r"[\s-]+", words):
        if word in _CARDINALS:
            group += _CARDINALS[word]
        elif word == "hundred":
            group = (group or 1) * 100
        elif word in _SCALES:
            total, group = total + (group or 1) * _SCALES[word], 0
    return total + group
