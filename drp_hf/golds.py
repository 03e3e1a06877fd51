"""One writing for gold answers, wherever they are read: a question is known by its text and its gold answer."""

from __future__ import annotations

import re

_WHOLE = re.compile(r"(-?(?:\d+|\d{1,3}(?:,\d{3})+))(?:\.0+)?")


def gold_text(value: str | int | float | None) -> str:
    """A gold answer as text, a whole number in plain digits: `27.0` is `27`, and `57,500` is `57500`.

    Empty where there is none: null, or NaN, as tables write it.
    """
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip()
    number = _WHOLE.fullmatch(text)
    return number[1].replace(",", "") if number else text
