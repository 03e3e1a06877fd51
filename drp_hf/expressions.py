r"""Values of mathematical expressions (`3\sqrt{13}`, `\frac{11+9a}{20}`), worked out without a library for algebra.

Two expressions with the same values at several points chosen at random are equal. Arithmetic is exact with fractions,
and has 50 digits where roots, powers or functions leave them. What the grammar does not know raises `Unreadable`, and
so does what would take long: the size of every power and factorial is known before it is worked out.
"""

from __future__ import annotations

import re
import zlib
from fractions import Fraction
from functools import cache
from math import comb, factorial, isqrt

DIGITS = 50
TOLERANCE = Fraction(1, 10**30)
MAX_BITS = 100_000
"""Of a number; what is larger is not worked out."""
MAX_FACTORIAL = 5000
POINTS = 3

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<command>\\[A-Za-z]+|\\[{}])|(?P<letter>[A-Za-z](?:_(?:\w|\{\w{1,8}\}))?)"
    r"|(?P<sign>[-+*/^!(){}\[\]|]))"
)
_BARE = re.compile(r"(?<![\\A-Za-z])(sqrt|pi|sin|cos|tan|cot|sec|csc|ln|exp|arcsin|arccos|arctan)(?![a-z])")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
_GREEK = set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau phi varphi "
    "chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell".split()
)
_INVERSE = {"sin": "asin", "cos": "acos", "tan": "atan"}
_FUNCTIONS = {name: name for name in "sin cos tan cot sec csc sinh cosh tanh exp ln".split()}
_FUNCTIONS |= {f"arc{name}": inverse for name, inverse in _INVERSE.items()}


class Unreadable(Exception):
    """The text is no expression of this grammar, or has no value that can be worked out."""


class TooLarge(Unreadable):
    """A number in it has more digits than anybody would work out."""


def too_large_to_work_out(text: str) -> bool:
    """Whether a typeset expression has a number in it that is too large to work out (`10^{10^{10}}`)."""
    try:
        value(text)
    except Unreadable as error:
        return isinstance(error, TooLarge)
    return False


def equal_expressions(gold: str, predicted: str) -> bool | None:
    """Whether two typeset expressions have the same value wherever they are defined; None where one is unreadable."""
    try:
        if not same_value(value(gold, 0), value(predicted, 0)):
            return False
        # Where variables are negative, roots and powers have several readings: what differs only there is undecided.
        others = range(1, POINTS)
        return True if all(same_value(value(gold, point), value(predicted, point)) for point in others) else None
    except Unreadable:
        return None


def equal_equations(gold: tuple[str, str], predicted: tuple[str, str]) -> bool | None:
    """Whether two equations say the same: left less right differs by a constant factor. None if that is not so."""
    try:
        ratios = []
        for point in range(POINTS):
            a, b = (_difference(*sides, point) for sides in (gold, predicted))
            if same_value(a, Fraction(0)) or same_value(b, Fraction(0)):
                return None
            ratios.append(_divide(a, b))
        return True if all(same_value(ratio, ratios[0]) for ratio in ratios) else None
    except Unreadable:
        return None


def value(text: str, point: int = 0):
    """The value of a typeset expression where its variables have the values of a point.

    Args:
        text: what `typeset` returned.
        point: number of the point; each gives every variable another value.

    Returns:
        A `Fraction` where it is exact, else a real or complex number of mpmath.

    Raises:
        Unreadable: see there.
    """
    text = _BARE.sub(r"\\\1 ", text)
    if _WORD.search(text):
        raise Unreadable("words")
    reader = _Reader(text, point)
    try:
        found = reader.sum()
    except (ZeroDivisionError, ValueError, OverflowError, RecursionError) as error:
        raise Unreadable(str(error)) from error
    if reader.at < len(reader.tokens):
        raise Unreadable(f"{reader.tokens[reader.at][1]!r} was not expected")
    return found


def same_value(a, b) -> bool:
    """Whether two values are equal, those that are not exact to 30 digits."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    context = _context()
    a, b = _float(a), _float(b)
    size = max(abs(a), abs(b), context.mpf(1))
    return bool(abs(a - b) <= size * _float(TOLERANCE))


def _difference(left: str, right: str, point: int):
    a, b = value(left, point), value(right, point)
    return a - b if isinstance(a, Fraction) and isinstance(b, Fraction) else _float(a) - _float(b)


@cache
def _context():
    from mpmath.ctx_mp import MPContext

    context = MPContext()
    context.dps = DIGITS
    return context


def _float(number):
    if isinstance(number, Fraction):
        return _context().mpf(number.numerator) / number.denominator
    return number


def _divide(a, b):
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a / b
    return _float(a) / _float(b)


def _bits(number) -> int:
    if isinstance(number, Fraction):
        return max(abs(number.numerator).bit_length(), number.denominator.bit_length())
    size = abs(number)
    return 0 if not size else abs(int(_context().mag(size)))


def _checked(number):
    if not isinstance(number, Fraction) and not _context().isfinite(number):
        raise Unreadable("infinite")
    if _bits(number) > MAX_BITS:
        raise TooLarge(f"more than {MAX_BITS} bits")
    return number


def _power(base, exponent):
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        if max(_bits(base), 1) * abs(exponent.numerator) > MAX_BITS:
            raise TooLarge(f"more than {MAX_BITS} bits")
        return base**exponent.numerator
    if abs(_float(exponent)) * (_bits(base) + 1) > MAX_BITS:
        raise TooLarge(f"more than {MAX_BITS} bits")
    return _exact_root(base, exponent) or _context().power(_float(base), _float(exponent))


def _root(base, index):
    """The real root where there is one: `\\sqrt[3]{-8}` is -2."""
    odd = isinstance(index, Fraction) and index.denominator == 1 and index.numerator % 2 == 1
    if odd and not _context().im(_float(base)) and _float(base) < 0:
        return -_power(-base, 1 / index)
    return _power(base, _divide(Fraction(1), index))


def _exact_root(base, exponent) -> Fraction | None:
    """The square root of a square, so that `\\sqrt{4}` is 2 and no more digits are lost than must be."""
    if exponent != Fraction(1, 2) or not isinstance(base, Fraction) or base < 0:
        return None
    over, under = isqrt(base.numerator), isqrt(base.denominator)
    return Fraction(over, under) if over * over == base.numerator and under * under == base.denominator else None


def _factorial(number) -> Fraction:
    if not isinstance(number, Fraction) or number.denominator > 1 or number < 0:
        raise Unreadable("factorial of what is no whole number")
    if number > MAX_FACTORIAL:
        raise TooLarge("factorial")
    return Fraction(factorial(number.numerator))


def _binomial(n, k) -> Fraction:
    if not all(isinstance(x, Fraction) and x.denominator == 1 and x >= 0 for x in (n, k)):
        raise Unreadable("binomial of what is no whole number")
    if n > MAX_FACTORIAL:
        raise TooLarge("binomial")
    return Fraction(comb(n.numerator, k.numerator))


class _Reader:
    """Works out an expression while it reads it, from left to right."""

    def __init__(self, text: str, point: int) -> None:
        self.point = point
        self.at = 0
        self.tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if not match:
                raise Unreadable(f"{text[at]!r} was not expected")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def kind(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or wanted and token != wanted:
            raise Unreadable(f"{wanted or 'something'} is missing")
        self.at += 1
        return token

    def sum(self):
        total = self.signed()
        while self.peek() in ("+", "-"):
            sign = self.take()
            term = self.product()
            if not (isinstance(total, Fraction) and isinstance(term, Fraction)):
                total, term = _float(total), _float(term)
            total = _checked(total + term if sign == "+" else total - term)
        return total

    def signed(self):
        if self.peek() in ("+", "-"):
            sign = self.take()
            return -self.product() if sign == "-" else self.product()
        return self.product()

    def product(self):
        result = self.factor()
        while True:
            if self.peek() in ("*", "/"):
                sign = self.take()
                negative = self.peek() == "-" and bool(self.take())
                right = self.factor()
                if sign == "/" and self.begins_factor():
                    raise Unreadable("1/2x can be read in two ways")
                right = -right if negative else right
                result = _divide(result, right) if sign == "/" else _times(result, right)
            elif self.begins_factor():
                result = _times(result, self.factor())
            else:
                return result
            _checked(result)

    def begins_factor(self) -> bool:
        kind, token = self.kind(), self.peek()
        return kind in ("letter", "command") and token not in ("\\}", "\\{") or token in ("(", "{")

    def factor(self):
        if self.kind() == "command" and self.peek()[1:] in _FUNCTIONS:
            return self.function(self.take()[1:])
        number = self.kind() == "number"
        base = self.atom()
        if number and self.peek() == "\\frac":
            return self.mixed(base)
        return self.raised(base)

    def raised(self, base):
        while self.peek() in ("^", "!"):
            if self.take() == "!":
                base = _factorial(base)
            else:
                base = _checked(_power(base, self.exponent()))
        return base

    def exponent(self):
        if self.peek() == "{":
            return self.atom()
        sign = -1 if self.peek() == "-" and self.take() else 1
        # Without braces an exponent is one digit or letter: x^12 is x^1 2.
        if self.kind() == "number" and len(self.peek()) > 1:
            raise Unreadable("x^12 can be read in two ways")
        return sign * self.atom()

    def mixed(self, whole):
        """`1\\frac{4}{5}` is a mixed number, `2\\frac{\\sqrt{3}}{2}` a product."""
        tokens = [token for _, token in self.tokens[self.at : self.at + 7]]
        numerals = len(tokens) == 7 and tokens[2].isdigit() and tokens[5].isdigit()
        part = self.raised(self.atom())
        if numerals and tokens[1] == tokens[4] == "{" and tokens[3] == tokens[6] == "}":
            return whole + part
        return _times(whole, part)

    def function(self, name: str):
        power = Fraction(1)
        if self.peek() == "^":
            self.take()
            power = self.exponent()
            if power == -1:
                if name not in _INVERSE:
                    raise Unreadable("inverse function")
                name, power = f"arc{name}", Fraction(1)
        result = getattr(_context(), _FUNCTIONS[name])(_float(self.argument()))
        return _checked(_power(result, power) if power != 1 else result)

    def argument(self):
        if self.peek() in ("(", "{"):
            return self.raised(self.atom())
        argument = self.factor()
        while self.begins_factor() and self.peek() not in ("(", "{") and self.peek()[1:] not in _FUNCTIONS:
            argument = _times(argument, self.factor())
        if self.peek() == "/":
            raise Unreadable("sin x/2 can be read in two ways")
        return argument

    def atom(self):
        kind, token = self.kind(), self.take()
        if kind == "number":
            return Fraction(token)
        if kind == "letter":
            return self.variable(token)
        if token in ("(", "{", "[", "|"):
            inside = self.sum()
            self.take({"(": ")", "{": "}", "[": "]", "|": "|"}[token])
            return inside if token != "|" else abs(inside)
        if token == "\\frac":
            over, under = self.group(), self.group()
            return _checked(_divide(over, under))
        if token == "\\sqrt":
            index = Fraction(2)
            if self.peek() == "[":
                index = self.atom()
            return _checked(_root(self.atom(), index))
        if token == "\\binom":
            return _binomial(self.group(), self.group())
        if token == "\\pi":
            return +_context().pi
        if token[1:] in _GREEK:
            return self.variable(token)
        raise Unreadable(f"{token!r} is not known")

    def group(self):
        if self.peek() != "{":
            raise Unreadable("braces are missing")
        return self.atom()

    def variable(self, name: str):
        if name == "e":
            return +_context().e
        if name == "i":
            return _context().mpc(0, 1)
        # The same for the same name everywhere, never zero, positive at the first point and of both signs at others.
        seed = zlib.crc32(f"{name.replace('{', '').replace('}', '')} {self.point}".encode())
        value = Fraction(seed % 1999 + 1, 331)
        return value if self.point == 0 or seed & 1 else -value


def _times(a, b):
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a * b
    return _float(a) * _float(b)
