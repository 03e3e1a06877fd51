r"""Plain numbers as people write them (`1,000`, `27.0`, `3/4`, `\frac{3}{4}`, `70\%`, `\$5.50`), read exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction

from drp_hf import numerals
from drp_hf.answer_text import typeset
from drp_hf.units import Unit, ratio, read_unit

MAX_NUMBER = 200
"""Characters; nothing longer is read as a plain number."""
LARGEST = 10**300
"""No larger gold value is looked for in calculations, which are done in floats."""

_NO_SLACK = Fraction(0)
_FINEST = Fraction(1, 10**6)
"""Place down to which the decimals of a rounded number are taken at their word: floats have noise in the last ones."""
_DIGITS = r"(?:\d+(?:\.\d*)?|\.\d+)"
_CURRENCY = re.compile(r"^([-+]?)\s*(?:([$£€])|¥|USD|Rs\.?)\s*(?=[-.\d\\])")
_GROUPED = re.compile(r"(?<![\d.])(\d{1,3}(?:,\d{3})+)(?![\d,])")
_SPACED = re.compile(r"(?<![\d.])\d{1,3}(?: \d{3})+(?!\d)(?! ?/)")
_FRAC = re.compile(rf"^([-+]?) ?(?:(\d+) ?(?=\\))?\\frac\{{ ?(-?{_DIGITS}) ?\}}\{{ ?(-?{_DIGITS}) ?\}}$")
_SLASH = re.compile(rf"^([-+]?)(?:(\d+)(?: and)? )?({_DIGITS}) ?/ ?({_DIGITS})$")
_DECIMAL = re.compile(rf"^([-+]?) ?({_DIGITS})(?:[eE]([+-]?\d{{1,3}}))?$")
_POWER_OF_TEN = re.compile(rf"^(-?{_DIGITS}) ?\* ?10 ?\^ ?\{{?([+-]?\d{{1,3}})\}}?$")
_SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# Latin with accents, Cyrillic, and those that need no second one: "12 años", "3個". Greek ones stand in formulas.
_LETTER, _SIGN = "A-Za-zÀ-ÖØ-öø-ɏЀ-ԯ", "぀-ヿ一-鿿가-힣"
_UNIT = re.compile(
    r"(?:(?<=[\d}]) *| +)"
    rf"(?:[%$£€¥¢]|°(?: ?[CF]\b)?|[{_LETTER}][{_LETTER}./°]+(?: [{_LETTER}./°]+){{0,5}}|[{_SIGN}]+|[mgshlL])"
    r"(?: ?\^ ?\{?\d\}?)?$"
)
_NO_UNIT = re.compile(
    r"^ *(?:pi|sqrt|dozens?|scores?|pairs?|hundreds?|or|and|to|mod|base|e|i|x|am|a\.m\.?|pm|p\.m\.?)\b", re.IGNORECASE
)
_PARTS = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)\.?(?:,? and |, ?| |$)")
_PRODUCT = re.compile(r"[A-Za-z]{1,3}(?: ?\^ ?\{?\d\}?)?\Z")
_SHORT_PRODUCT = re.compile(r"[A-Za-z]{1,2}(?: ?\^ ?\{?\d\}?)?\Z")
_TWICE = re.compile(r"([^()]+?) ?\(([^()]+)\)\Z")
_ORDINAL = ("st", "nd", "rd", "th")
_COUNTED = re.compile(r"[A-Za-z]+(?:[ -][A-Za-z]+)*\Z")


@dataclass(frozen=True)
class PlainNumber:
    """A number as it was written.

    Args:
        value: exact value, a per cent sign left aside.
        percent: whether it carried a per cent sign.
        slack: how far another number may lie from it: 0 for integers and fractions, a millionth of the value for
            decimals, but no more than half a unit in the last place, which is that of scientific notation (rounded by
            nature).
        unit: what `value` counts, where that is a known unit of measurement.
        largest: the first unit of a number in several units ("2 hours and 30 minutes", "3 hours (180 minutes)"), of
            which `unit` is the last.
        product: whether it may also be a product: "5m" is five metres, or five times m.
    """

    value: Fraction
    percent: bool
    slack: Fraction
    unit: Unit | None = None
    largest: Unit | None = None
    product: bool = False


def read_number(text: str) -> PlainNumber | None:
    """Reads a plain number with its currency, unit or per cent sign, or in words; None for anything else."""
    return read_typeset_number(typeset(text)) if len(text) <= MAX_NUMBER else None


def read_typeset_number(text: str) -> PlainNumber | None:
    """`read_number` for a text that `typeset` has been through."""
    if len(text) > MAX_NUMBER:
        return None
    if text.endswith(")"):
        return _said_twice(text)
    unit = None
    if currency := _CURRENCY.match(text):
        unit = read_unit(currency[2]) if currency[2] else None
        text = currency[1] + text[currency.end() :]
    percent, scale, product = False, 1, False
    if named := _UNIT.search(text):
        if _NO_UNIT.match(named[0]):
            return None
        word = named[0].strip(" -")
        percent = word == "%" or word.lower() in ("percent", "per cent")
        glued = named[0][0] != " "
        if (_PRODUCT if glued else _SHORT_PRODUCT).match(word) and word not in _ORDINAL:
            # "2abc" and "2 xy" are products, "2cm" and "2 mph" are none, and "5m" can be either.
            if read_unit(word) is None:
                return None
            product = glued and len(word) == 1
        first, *rest = word.split()
        scale = _SCALES.get(first.lower().removesuffix("s"), 1)
        unit = unit or read_unit(" ".join(rest) if scale > 1 else word)
        number = _value(text[: named.start()].rstrip()) or _in_words(text)
        if number is None:
            return _in_parts(text)
    else:
        number = _value(text) or _in_words(text)
    if number is None:
        return None
    value, slack = number
    if scale > 1:
        value, slack = value * scale, min(slack * scale, Fraction(1, 2))
    return PlainNumber(value, percent, slack, unit, product=product)


def _value(text: str) -> tuple[Fraction, Fraction] | None:
    if text.isdecimal():
        return Fraction(int(text)), _NO_SLACK
    if "," in text:
        text = _GROUPED.sub(lambda match: match[1].replace(",", ""), text)
    if " " in text:
        text = _SPACED.sub(lambda match: match[0].replace(" ", ""), text)
    if match := _DECIMAL.match(text):
        value = Fraction(match[2] if match[3] is None else f"{match[2]}e{match[3]}")
        slack = _NO_SLACK
        if match[3] is not None:
            slack = Fraction(10) ** (int(match[3]) - len(match[2].partition(".")[2])) / 2
        elif "." in match[2]:
            slack = min(value / 10**6, max(Fraction(10) ** -len(match[2].partition(".")[2]) / 2, _FINEST))
        return (-value if match[1] == "-" else value), slack
    if match := _FRAC.match(text) or _SLASH.match(text):
        sign, whole, over, under = match.groups()
    elif match := _POWER_OF_TEN.match(text):
        return Fraction(match[1]) * Fraction(10) ** int(match[2]), _NO_SLACK
    else:
        return None
    if not Fraction(under):
        return None
    value = int(whole or 0) + Fraction(over) / Fraction(under)
    return (-value if sign == "-" else value), _NO_SLACK


def _in_words(text: str) -> tuple[Fraction, Fraction] | None:
    """A number in words alone ("twenty-five"), or with what it counts ("six books")."""
    if not _COUNTED.match(text):
        return None
    number = numerals.leading(text)
    # What follows must not go on with it, as in "two thirds" or "one and a half".
    if number is None or len(number[1].split()) > 2 or numerals.suggested(number[1]) or " and" in number[1]:
        return None
    return Fraction(number[0]), _NO_SLACK


def _in_parts(text: str) -> PlainNumber | None:
    """A quantity in several units of one kind, each smaller than the one before ("5 feet 6 inches")."""
    total, first, last, at = Fraction(0), None, None, 0
    while at < len(text):
        part = _PARTS.match(text, at)
        unit = read_unit(part[2]) if part else None
        if unit is None or last and (unit.measures != last.measures or unit.size >= last.size):
            return None
        total, first, last, at = total + Fraction(part[1]) * unit.size, first or unit, unit, part.end()
    return PlainNumber(total / last.size, False, _NO_SLACK, last, largest=first)


def _said_twice(text: str) -> PlainNumber | None:
    """A quantity in two units ("3 hours (180 minutes)"), which is what either says."""
    match = _TWICE.match(text)
    first, second = (read_typeset_number(part) for part in match.groups()) if match else (None, None)
    if not (first and second and first.unit and second.unit and first.unit.measures == second.unit.measures):
        return None
    same = numbers_equal(first, second) and not first.product and not second.product
    return replace(second, largest=first.largest or first.unit) if same else None


def numbers_equal(gold: PlainNumber, predicted: PlainNumber) -> bool:
    """Whether two plain numbers are the same within both slacks.

    70 and 0.7 both equal 70 %. Units count where both are named: 2 hours are 120 minutes, and 5 miles neither 5 km nor
    5 hours. A time such as "2 hours and 30 minutes" or "2.5 hours", no whole number of what it names, also equals a
    bare 150, as gold often leaves out its unit. Gold "5m" is five times m, unless the other side has a unit too.
    """
    if gold.product and not predicted.unit:
        return False
    a, b = gold.unit, predicted.unit
    slack = max(gold.slack, predicted.slack)
    if a and b and a != b:
        if scale := ratio(a, b):
            return abs(gold.value * scale - predicted.value) <= slack * max(scale, 1)
        # "5m" is as often five minutes as five metres.
        return (gold.product or predicted.product) and gold.value == predicted.value
    if gold.value == predicted.value:
        return True
    golds, values = {gold.value}, {predicted.value}
    if predicted.percent and not gold.percent:
        values.add(predicted.value / 100)
    if gold.percent and not predicted.percent:
        golds.add(gold.value / 100)
    if a is None and predicted.largest:
        values.add(predicted.value * b.size / predicted.largest.size)
    elif a is None and b and b.measures == "time" and predicted.value.denominator > 1 and (smaller := b.in_smaller()):
        values.add(predicted.value * smaller)
    return any(abs(x - y) <= slack for x in golds for y in values)
