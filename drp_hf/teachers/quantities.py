"""Reads the numbers and the arithmetic in a sentence: "$5,000 * 2.5%", "a third of 90", "8 plus 40, which is 48"."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
_SMALL += " seventeen eighteen nineteen"
_TENS = {w: 10 * i for i, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_ONES = {word: value for value, word in enumerate(_SMALL.split())}
_MULTIPLES = {"twice": 2, "double": 2, "doubled": 2, "doubles": 2, "thrice": 3, "triple": 3, "tripled": 3}
_MULTIPLES |= {"quadruple": 4, "dozen": 12, "dozens": 12, "pair": 2, "couple": 2, "hundred": 100, "thousand": 1000}
_MULTIPLES |= {"million": 1e6}
_SCALES = frozenset({"hundred", "thousand", "million", "dozen"})
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "fourth": 4, "fourths": 4, "quarter": 4, "quarters": 4}
_PARTS |= {"fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6, "seventh": 7, "sevenths": 7, "eighth": 8, "eighths": 8}
_PARTS |= {"ninth": 9, "ninths": 9, "tenth": 10, "tenths": 10}

_NUMBER_WORDS = frozenset([*_ONES, *_TENS, *_MULTIPLES, *_PARTS])
_KINDS = {"plus": "plus", "minus": "minus", "times": "times", "multiplied": "times", "divided": "over", "of": "of"}
_KINDS |= dict.fromkeys("equals equal".split(), "equals")
_KINDS |= dict.fromkeys(
    "is are was be gives give giving makes make making gets get leaves leave leaving totals totaling results "
    "resulting yields yielding equaling comes that's which's".split(),
    "verb",
)
_SPECIAL_WORDS = _NUMBER_WORDS | set(_KINDS) | {"by"}
_SYMBOLS = {"->": "equals", "+": "plus"}
for _kind, _marks in (("minus", "-–−"), ("times", "*×·⋅∗"), ("over", "/÷"), ("equals", "=≈→⇒"), ("comma", ",:")):
    _SYMBOLS |= dict.fromkeys(_marks, _kind)
_SYMBOLS |= dict.fromkeys("([", "open") | dict.fromkeys(")]", "close")

_TOKEN = re.compile(
    r"(?P<number>(?<![A-Za-z0-9_])(?:[$£€¥]\s?)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+))"
    r"(?P<percent>\s?(?:%|percent\b))?"
    r"|(?P<word>[A-Za-z_\\][A-Za-z_'’]*)"
    r"|(?P<symbol>->|\S)"
)
_DIGIT_OR_EQUALS = re.compile(r"[\d=]")
_WORDS = re.compile(r"[a-z]+")
_LETTER = re.compile(r"(?<![A-Za-z'’\\])[b-zA-HJ-Z](?![A-Za-z'’])")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_SHORT_FRACTION = re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf|boxed|operatorname)\s*\{([^{}]*)\}")
_LATEX = [
    (re.compile(r"\\times|\\cdot|\\ast"), "*"),
    (re.compile(r"\\div"), "/"),
    (re.compile(r"\\approx"), "≈"),
    (re.compile(r"\\(?:implies|Rightarrow|rightarrow|to)\b"), "→"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\[(\[]|\\[)\]]|\\(?:left|right|quad|qquad|displaystyle|,|;|!|\\|\s)|\{,\}(?!\d)|&"), " "),
]
_UNIT_WORDS = 4
_DEEPEST = 6
"""Brackets within brackets."""
_LONGEST = 4000
"""Characters; in a longer text only the numbers are read."""


def round_key(value: float) -> float:
    """A number as a key: what is equal on paper is equal here."""
    return round(value, 4) + 0.0


@dataclass(frozen=True)
class Equation:
    """One computation.

    Args:
        operands: the numbers it uses, as written (30 for "30%"), in order.
        value: what it comes to; with a written result, the written one.
        stated: whether the result is written ("8 + 40 = 48", not just "8 + 40").
        exact: whether the written result is what the operands come to (up to rounding).
        operators: those it uses, as a string of `+-*/%`.
        start: first character in the normalised text.
        inner: values of its parts in between ("= 5000 * 0.025" makes 0.025 out of "(2.5/100)").
    """

    operands: tuple[float, ...]
    value: float
    stated: bool
    exact: bool
    operators: str
    start: int
    inner: tuple[float, ...] = ()


@dataclass
class Reading:
    """The quantities of a text.

    Args:
        numbers: (value as written, position), in order.
        equations: the computations, in order.
        percents: those of them that stand for hundredths ("30%").
        has_equals: whether an equals sign occurs.
        letters: the single letters in it.
        variables: those of them that stand beside a number, an operator or an equals sign.
    """

    numbers: list[tuple[float, int]] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    percents: set[float] = field(default_factory=set)
    has_equals: bool = False
    letters: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)

    @cached_property
    def values(self) -> set[float]:
        return {value for value, _ in self.numbers}


def normalise(text: str) -> str:
    """LaTeX arithmetic and Markdown as plain text."""
    if "\\" in text:
        text = text.replace(r"\$", "$").replace("{,}", ",")
        for _ in range(3):
            text, count = _TEXT.subn(r" \1 ", text)
            text, changed = _FRACTION.subn(r"((\1)/(\2))", text)
            if not count + changed:
                break
        text = _SHORT_FRACTION.sub(r"(\1/\2)", text)
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    if "*" in text:
        text = text.replace("**", "")
    return text


@lru_cache(maxsize=4096)
def _number_word(word: str) -> tuple[float, bool]:
    """Value of a number word, and whether it names a part (half, third)."""
    if word in _ONES:
        return float(_ONES[word]), False
    if word in _TENS:
        return float(_TENS[word]), False
    if word in _MULTIPLES:
        return float(_MULTIPLES[word]), False
    return 1 / _PARTS[word], True


# A token: its kind, what it counts for, the number as written, its position, and whether it is a part (half, third).
_Token = tuple[str, float, float, int, bool]


def _tokenise(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    for match in _TOKEN.finditer(text):
        kind, start = match.lastgroup, match.start()
        if kind == "word":
            word = match.group()
            if len(word) > 1 and "’" not in word and word.lower() not in _SPECIAL_WORDS:
                tokens.append(("word", 0.0, 0.0, start, False))
            else:
                _add_word(tokens, word, start, text)
        elif kind == "symbol":
            tokens.append((_SYMBOLS.get(match.group(), "stop"), 0.0, 0.0, start, False))
        else:
            literal = float(match["number"].lstrip("$£€¥ \t\r\n").replace(",", ""))
            percent = kind == "percent"
            tokens.append(("number", literal / 100 if percent else literal, literal, start, percent))
    return tokens


def _add_word(tokens: list[_Token], word: str, start: int, text: str) -> None:
    lower = word.lower()
    if lower in _NUMBER_WORDS:
        _add_number_word(tokens, lower, start, text)
    elif lower in _KINDS or "’" in lower:
        kind = _KINDS.get(lower.replace("’", "'"), "word")
        tokens.append((kind, 0.0, 0.0, start, False))
    elif len(word) == 1 and word not in "aI":
        after = text[start + 1 : start + 4].lstrip()[:1]
        multiplies = (
            lower == "x" and tokens and tokens[-1][0] in ("number", "close") and (after.isdigit() or after in "($")
        )
        tokens.append(("times" if multiplies and after else "letter", 0.0, 0.0, start, False))
    elif lower == "by" and tokens and tokens[-1][0] in ("times", "over"):
        pass  # "multiplied by"
    else:
        tokens.append(("word", 0.0, 0.0, start, False))


def _add_number_word(tokens: list[_Token], word: str, start: int, text: str) -> None:
    """Adds a number word, joined to the number before it where they are one ("twenty-five", "3 dozen")."""
    value, is_part = _number_word(word)
    if tokens and tokens[-1][0] == "minus" and text[start - 1] == "-" and len(tokens) > 1:
        before = tokens[-2]  # a hyphen inside "twenty-five", "three-quarters"
        if before[0] == "number" and (is_part or (before[1] in _TENS.values() and word in _ONES)):
            tokens.pop()
    if tokens and tokens[-1][0] == "number":
        _, before, written, position, part = tokens[-1]
        joined = None
        if is_part and before < 20 and not part:
            joined = before * value
        elif word in _SCALES:
            joined = before * value
        elif before in _TENS.values() and word in _ONES and value < 10:
            joined = before + value
        if joined is not None:
            # Who says "4 dozen" has not said 48.
            literal = written if word == "dozen" else joined
            tokens[-1] = ("number", joined, round_key(literal), position, is_part)
            return
    tokens.append(("number", value, round_key(value), start, is_part))


_OPERATORS = {"plus": "+", "minus": "-", "times": "*", "over": "/", "of": "*"}


class _Parser:
    """Reads expressions from a list of tokens. Methods return (value, operands, operators, next token) or None."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.kinds = [token[0] for token in tokens] + ["end"] * 8
        self.depth = 0

    def sum(self, at: int) -> tuple[float, list[float], str, int] | None:
        left = self.product(at)
        while left is not None:
            value, operands, operators, at = left
            kind = self.kinds[at]
            if kind not in ("plus", "minus"):
                return left
            right = self.product(at + 1)
            if right is None:
                return left
            sign = 1 if kind == "plus" else -1
            left = value + sign * right[0], operands + right[1], operators + _OPERATORS[kind] + right[2], right[3]
        return None

    def product(self, at: int) -> tuple[float, list[float], str, int] | None:
        left = self.factor(at)
        while left is not None:
            value, operands, operators, after = left
            kind = self.kinds[after]
            if kind not in ("times", "over", "of"):
                return left
            if kind == "of" and not (self.tokens[after - 1][4] or "/" in operators):
                return left
            right = self.factor(after + 1)
            if right is None or (kind == "over" and right[0] == 0):
                return left
            value = value / right[0] if kind == "over" else value * right[0]
            sign = "%" if kind == "of" and self.tokens[after - 1][4] else _OPERATORS[kind]
            left = value, operands + right[1], operators + sign + right[2], right[3]
        return None

    def factor(self, at: int) -> tuple[float, list[float], str, int] | None:
        kind = self.kinds[at]
        if kind == "minus" and self.kinds[at + 1] != "minus":
            inner = self.factor(at + 1)
            return inner and (-inner[0], *inner[1:])
        if kind == "number":
            _, value, literal, _, _ = self.tokens[at]
            return value, [literal], "", self.skip_unit(at + 1)
        if kind == "open" and self.depth < _DEEPEST:
            self.depth += 1
            inner = self.sum(at + 1)
            self.depth -= 1
            if inner is not None and self.kinds[inner[3]] == "close":
                return *inner[:3], self.skip_unit(inner[3] + 1)
        return None

    def skip_unit(self, at: int) -> int:
        """Passes over what a number counts ("20 minutes (math) +") if an expression goes on or ends behind it."""
        end = at
        while end - at < _UNIT_WORDS and self.kinds[end] == "word":
            end += 1
        if self.kinds[end] == "over" and self.kinds[end + 1] == "word":  # "$100/suit"
            at = end = end + 2
        if self.kinds[end] == "open" and self.kinds[end + 1] == "word":
            inside = end + 1
            while inside - end < _UNIT_WORDS and self.kinds[inside] in ("word", "number"):
                inside += 1
            if self.kinds[inside] == "close":
                end = inside + 1
        return end if self.kinds[end] in ("plus", "minus", "times", "over", "equals", "close") else at


def _may_count(text: str) -> bool:
    """Whether there can be a number or an equation in a text: most sentences have none, and need no further look."""
    return bool(_DIGIT_OR_EQUALS.search(text)) or not _NUMBER_WORDS.isdisjoint(_WORDS.findall(text.lower()))


def read(text: str) -> Reading:
    """Reads the numbers and equations of a sentence or formula.

    Args:
        text: one unit, LaTeX and Markdown included.

    Returns:
        Its quantities. Text without digits and number words gives an empty reading.
    """
    reading = Reading()
    if not _may_count(text):
        reading.letters = set(_LETTER.findall(text))
        return reading
    text = normalise(text)
    tokens = _tokenise(text)
    reading.numbers = [(round_key(literal), start) for kind, _, literal, start, _ in tokens if kind == "number"]
    reading.percents = {round_key(literal) for _, value, literal, _, part in tokens if part and value == literal / 100}
    kinds = [token[0] for token in tokens]
    reading.has_equals = "equals" in kinds
    if "letter" in kinds:
        _read_letters(reading, text, tokens, kinds)
    if not reading.numbers or len(text) > _LONGEST:
        return reading
    parser = _Parser(tokens)
    at = 0
    while at < len(tokens):
        if tokens[at][0] not in ("number", "open", "minus"):
            at += 1
            continue
        equation, after = _chain(parser, at, reading.equations[-1] if reading.equations else None)
        if equation is not None:
            reading.equations.append(equation)
        at = max(after, at + 1)
    if any(verb in text for verb in ("dd", "ubtract", "ultipl", "ivid")):
        _read_spoken(reading, text)
    if reading.variables and reading.has_equals:
        _read_coefficients(reading, tokens, kinds)
    reading.equations.sort(key=lambda equation: equation.start)
    return reading


_SPOKEN = re.compile(
    r"\b(?P<verb>add|subtract|multipl|divid)(?:ing|ed|y|ying|ied|e"
    r"|s)?\s+(?:[a-z]+\s+){0,3}?\$?(?P<left>[\d,]*\.?\d+)%?(?:\s+[a-z]+){0,3}?\s+"
    r"(?:and|to|from|by|with)\s+(?:[a-z]+\s+){0,3}?\$?(?P<right>[\d,]*\.?\d+)(?![\d,.]*\d|\s*/\s*\d)%?"
    r"(?:[^\d.;=]{0,30}?(?:\b(?:gives?|giving|is|equals?|gets?|results in|leaves?)\b"
    r"|[,:])[^\d.;]{0,30}?\$?(?P<value>[\d,]*\.?\d+)(?!\s*[-+*/×÷=]))?",
    re.IGNORECASE,
)


def _read_spoken(reading: Reading, text: str) -> None:
    """Adds computations told with a verb: "dividing 180 by 5 gives 36", "subtract 8 from 48"."""
    for match in _SPOKEN.finditer(text):
        left, right = (float(match[side].replace(",", "")) for side in ("left", "right"))
        verb = match["verb"].lower()[0]
        if verb == "s" and not re.search(r"\bfrom\b", match.group()):
            continue
        if verb == "d" and not right:
            continue
        operator = {"a": "+", "s": "-", "m": "*", "d": "/"}[verb]
        value = {"+": left + right, "-": right - left, "*": left * right, "/": left / (right or 1)}[operator]
        told = match["value"] and float(match["value"].replace(",", ""))
        stated = bool(match["value"]) and _close(value, told)
        operands = (round_key(left), round_key(right))
        reading.equations.append(Equation(operands, round_key(value), stated, True, operator, match.start()))


def _read_coefficients(reading: Reading, tokens: list[_Token], kinds: list[str]) -> None:
    """Adds the numbers of an equation in letters ("4S + 2G = 70": 4, 2) as one computation of unknown value."""
    known = {operand for equation in reading.equations for operand in equation.operands}
    last = len(kinds) - 1 - kinds[::-1].index("equals")
    numbers = [token for token in tokens[:last] if token[0] == "number" and round_key(token[2]) not in known]
    if numbers:
        operands = tuple(round_key(token[2]) for token in numbers)
        reading.equations.append(Equation(operands, float("nan"), False, False, "", tokens[0][3]))


_ALGEBRA = frozenset({"plus", "minus", "times", "over", "equals"})


def _read_letters(reading: Reading, text: str, tokens: list[_Token], kinds: list[str]) -> None:
    for at, (kind, _, _, start, _) in enumerate(tokens):
        if kind == "letter":
            reading.letters.add(text[start])
            before, after = kinds[at - 1] if at else "", kinds[at + 1] if at + 1 < len(kinds) else ""
            # "2x" is algebra, "20 m" and "exit B" are not.
            joined = before == "number" and text[start - 1].isdigit()
            if joined or before in _ALGEBRA or after in _ALGEBRA:
                reading.variables.add(text[start])


def _continued(parser: _Parser, at: int, before: Equation | None) -> tuple[float, list[float], str, int] | None:
    """Reads "plus 26 is 366" as a computation with the result before it ("240 plus 100 is 340, then plus 26 is 366")."""
    sign = at if parser.kinds[at] == "minus" else at - 1
    if before is None or not before.stated or sign < 1 or parser.kinds[sign - 1] not in ("word", "comma"):
        return None
    operator = _OPERATORS.get(parser.kinds[sign])
    part = parser.factor(sign + 1)
    if operator is None or parser.kinds[sign] == "of" or part is None or not _equality(parser.kinds, part[3], True):
        return None
    left, right = before.value, part[0]
    if operator == "/" and not right:
        return None
    value = {"+": left + right, "-": left - right, "*": left * right, "/": left / (right or 1)}[operator]
    return value, [left, *part[1]], operator + part[2], part[3]


def _chain(parser: _Parser, at: int, before: Equation | None) -> tuple[Equation | None, int]:
    """Reads "expression = expression = value" from token `at`, where `before` is the computation before it."""
    parts = []
    begin = at
    part = continued = _continued(parser, at, before)
    part = part or parser.sum(at)
    while part is not None:
        parts.append(part)
        at = part[3]
        following = _equality(parser.kinds, at, bool(part[2]) or len(parts) > 1)
        part = parser.sum(following) if following else None
    if parts and not continued and begin > 0 and parser.kinds[begin - 1] in _OPERATORS:
        parts = parts[1:]  # "T = Q + 7 = 6 + 7 = 13": the side with a letter has no value, the others do
    if not any(part[2] for part in parts):
        return None, max(at, begin)
    if len(parts) == 1 and parts[0][2] == "/" and _is_fraction(parser.tokens[begin:at]):
        return None, at
    # A letter or an operator behind the last number ("3x", "2 * P"): this is algebra, its value is not known.
    symbolic = parser.kinds[at] in ("times", "over", "plus", "letter")
    last = parts[-1]
    stated = len(parts) > 1 and not last[2]
    computed = [part[0] for part in parts if part[2]]
    value = parser.tokens[_number_token(parser, last)][2] if stated else computed[-1]
    exact = not symbolic and all(_close(each, last[0]) or (stated and _close(each, value)) for each in computed)
    # Sides of equal value only rewrite the first: "2 × 8 + 2 = 16 + 2" uses no new number.
    computing = [part for part in parts if part[2]][: 1 if exact else None]
    operands = [round_key(operand) for part in computing for operand in part[1]]
    sides = [round_key(part[0]) for part in parts[:-1]]
    return Equation(
        operands=tuple(operands),
        value=round_key(value if not (stated and last[0] < 0) else -abs(value)),
        stated=stated,
        exact=exact,
        operators="".join(part[2] for part in parts),
        start=parser.tokens[begin][3],
        inner=tuple(sides),
    ), at


def _is_fraction(tokens: list[_Token]) -> bool:
    """Whether a division is one number: "1/4", but not "3.80 / 0.75" or "6000/4"."""
    if [token[0] for token in tokens[:3]] != ["number", "over", "number"]:
        return False
    return tokens[2][3] == tokens[1][3] + 1 and max(tokens[0][2], tokens[2][2]) < 100


def _number_token(parser: _Parser, part: tuple[float, list[float], str, int]) -> int:
    at = part[3] - 1
    while parser.kinds[at] != "number":
        at -= 1
    return at


def _close(left: float, right: float) -> bool:
    return abs(left - right) <= max(1e-6, 0.005 * abs(right))


def _equality(kinds: list[str], at: int, computed: bool) -> int:
    """The token behind an equality at token `at`: "=", or after a computation "is", ", which is", "gives"."""
    if kinds[at] == "equals":
        end = at + 1
        while end - at < 5 and kinds[end] in ("word", "of", "equals"):  # "equals a total of 170"
            end += 1
        return end
    if not computed:
        return 0
    end = at
    while end - at < 5 and kinds[end] in ("word", "comma"):
        end += 1
    if kinds[end] not in ("verb", "equals"):
        return 0
    end += 1
    for _ in range(4):
        if kinds[end] in ("number", "open", "minus"):
            return end
        if kinds[end] not in ("word", "equals", "verb", "of"):
            return 0
        end += 1
    return 0
