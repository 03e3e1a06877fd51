from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drp_hf.expressions import (
    TooLarge,
    Unreadable,
    equal_equations,
    equal_expressions,
    same_value,
    too_large_to_work_out,
    value,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2+3*4", 14),
        ("-2^2", -4),
        ("2^{-1}", Fraction(1, 2)),
        ("\\frac{1}{2}+\\frac{1}{3}", Fraction(5, 6)),
        ("1\\frac{4}{5}", Fraction(9, 5)),
        ("6/2/3", 1),
        ("2(3+4)", 14),
        ("5!", 120),
        ("\\binom{5}{2}", 10),
        ("\\sqrt{\\frac{9}{4}}", Fraction(3, 2)),
        ("\\sqrt[3]{-8}", -2),
        ("|2-5|", 3),
        ("i^2", -1),
        ("\\sin^{-1} 1 - \\frac{\\pi}{2}", 0),
        ("\\cos \\pi", -1),
        ("\\ln e", 1),
    ],
)
def test_value(text, number):
    assert same_value(value(text), Fraction(number))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2+",
        "(2",
        "2)",
        "1/2x",
        "x^12",
        "\\sum n",
        "1 2",
        "Evelyn",
        "\\frac{1}",
        "1/0",
        "\\log 8",
        "2=2",
        "\\sin x/2",
    ],
)
def test_what_can_be_read_in_two_ways_or_in_none_is_unreadable(text):
    with pytest.raises(Unreadable):
        value(text)


@pytest.mark.parametrize(
    "text", ["9^{9^{9^9}}", "2^{10^{10}}", "(10^9)!", "\\binom{10^9}{5}", "1/10^{10^6}", "e^{10^9}"]
)
def test_what_would_take_long_is_too_large(text):
    with pytest.raises(TooLarge):
        value(text)
    assert too_large_to_work_out(text)


def test_roots_and_negative_variables_do_not_decide():
    assert equal_expressions("\\sqrt{x^2}", "x") is None
    assert equal_expressions("\\sqrt{x^2}", "|x|") is True
    assert equal_expressions("\\sqrt{x^2}", "2x") is False


def test_equations_are_equal_up_to_a_factor():
    assert equal_equations(("y", "2x+3"), ("2y-4x", "6")) is True
    assert equal_equations(("y", "2x+3"), ("y", "2x-3")) is None


integers = st.integers(-50, 50)


@settings(deadline=None)
@given(integers, integers, integers)
def test_expanded_products_are_equal(a, b, c):
    factored = f"(x+({a}))({b}x+({c}))"
    assert equal_expressions(factored, f"{b}x^2+({c + a * b})x+({a * c})") is True
    assert equal_expressions(factored, f"{b}x^2+({c + a * b})x+({a * c + 1})") is False


@settings(deadline=None)
@given(st.text("0123456789xe+-*/^!(){}[]|\\ sqrtfacpi_.", max_size=60))
def test_nothing_but_unreadable_is_raised(text):
    equal_expressions(text, "x")
    too_large_to_work_out(text)
