"""Units of measurement, as far as answers name them: what they measure, and how much of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_NAMES = {
    "time": {
        1: "s sec secs second seconds",
        60: "min mins minute minutes",
        3600: "h hr hrs hour hours",
        86_400: "day days",
        604_800: "week weeks",
    },
    "months": {1: "month months", 12: "year years"},
    "length": {
        "0.001": "mm millimeter millimeters millimetre millimetres",
        "0.01": "cm centimeter centimeters centimetre centimetres",
        1: "m meter meters metre metres",
        1000: "km kilometer kilometers kilometre kilometres",
        "0.0254": "in inch inches",
        "0.3048": "ft foot feet",
        "0.9144": "yd yard yards",
        "1609.344": "mi mile miles",
    },
    "mass": {
        "0.001": "mg milligram milligrams",
        1: "g gram grams",
        1000: "kg kilogram kilograms",
        "28.349523125": "oz ounce ounces",
        "453.59237": "lb lbs pound pounds",
        "907184.74": "ton tons",
    },
    "length^3": {
        "0.000001": "ml milliliter milliliters",
        "0.001": "l liter liters litre litres",
        "0.0002365882365": "cup cups",
        "0.000473176473": "pint pints",
        "0.000946352946": "quart quarts",
        "0.003785411784": "gallon gallons",
    },
    "degrees": {1: "° deg degree degrees"},
    "radians": {1: "rad rads radian radians"},
    "dollars": {"0.01": "cent cents ¢", 1: "$ usd dollar dollars"},
    "euros": {1: "€ euro euros"},
    "pounds": {1: "£"},
}


@dataclass(frozen=True)
class Unit:
    """A unit of measurement.

    Args:
        measures: what it measures; only units of the same can be compared.
        size: how much of it, in seconds, metres, grams …
    """

    measures: str
    size: Fraction

    def in_smaller(self) -> Fraction | None:
        """How many of the next smaller unit it is (a day is 24 hours); None for the smallest."""
        sizes = [unit.size for unit in _UNITS.values() if unit.measures == self.measures and unit.size < self.size]
        return self.size / max(sizes) if sizes else None


_UNITS = {
    name: Unit(measures, Fraction(size))
    for measures, sizes in _NAMES.items()
    for size, names in sizes.items()
    for name in names.split()
}
_WORD_FOR_TWO = {_UNITS["pounds"], _UNITS["£"]}
_POWER = re.compile(r"\s*\^\s*\{?([23])\}?$")
_POWER_WORDS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def read_unit(text: str) -> Unit | None:
    """The unit that a phrase names and nothing else: "hours", "sq. ft", "cm^2"; None for "hours a day" or "apples"."""
    text = text.strip().lower()
    power = 1
    if match := _POWER.search(text):
        power, text = int(match[1]), text[: match.start()]
    words = text.replace(".", " ").split()
    if len(words) == 2 and words[0] in _POWER_WORDS:
        power, words = _POWER_WORDS[words[0]], words[1:]
    unit = _UNITS.get(words[0]) if len(words) == 1 else None
    if unit is None or power == 1:
        return unit
    return Unit(f"{unit.measures}^{power}", unit.size**power)


def ratio(a: Unit, b: Unit) -> Fraction | None:
    """How many b make one a; None where they measure different things. "5 pounds" may be £5."""
    if {a, b} == _WORD_FOR_TWO:
        return Fraction(1)
    return a.size / b.size if a.measures == b.measures else None
