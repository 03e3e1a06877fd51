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
    "metres": {
        "0.001": "mm millimeter millimeters millimetre millimetres",
        "0.01": "cm centimeter centimeters centimetre centimetres",
        1: "m meter meters metre metres",
        1000: "km kilometer kilometers kilometre kilometres",
    },
    "inches": {
        1: "in inch inches",
        12: "ft foot feet",
        36: "yd yard yards",
        63_360: "mi mile miles",
    },
    "grams": {
        "0.001": "mg milligram milligrams",
        1: "g gram grams",
        1000: "kg kilogram kilograms",
    },
    "ounces": {1: "oz ounce ounces", 16: "lb lbs pound pounds", 32_000: "ton tons"},
    "litres": {"0.001": "ml milliliter milliliters", 1: "l liter liters litre litres"},
    "cups": {1: "cup cups", 2: "pint pints", 4: "quart quarts", 16: "gallon gallons"},
    "degrees": {1: "° deg degree degrees"},
    "dollars": {"0.01": "cent cents ¢", 1: "$ usd dollar dollars"},
    "euros": {1: "€ euro euros"},
    "pounds": {1: "£"},
}


@dataclass(frozen=True)
class Unit:
    """A unit of measurement.

    Args:
        measures: what it measures; only units of the same can be compared.
        size: how much of it.
    """

    measures: str
    size: Fraction


_UNITS = {
    name: Unit(measures, Fraction(size))
    for measures, sizes in _NAMES.items()
    for size, names in sizes.items()
    for name in names.split()
}
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
