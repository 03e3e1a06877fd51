"""Which numbers a text names, and which of its equations are plainly false."""

import pytest

from drp_hf.numerals import canonical, false_equation, named, suggested


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,000 and 1000.0 and 01000", {"1000"}),
        ("10{,}080 steps", {"10080"}),
        ("1,2 and 3", {"1", "2", "3"}),
        ("twenty-five of one hundred and three", {"25", "103"}),
        ("none", set()),
    ],
)
def test_named(text, numbers):
    assert named(text) == numbers
    assert {canonical(number) for number in numbers} == numbers


def test_suggested_knows_what_words_stand_for():
    assert suggested("twice a dozen") >= {"2", "12"}
    assert named("twice a dozen") == set()


@pytest.mark.parametrize(
    "text",
    [
        "So 10 - 90 = 10.",
        "3 × 4 = 13, then",
        "First, 14 / 4 = 4.",
        "He has 7 + 5 = 13 pens.",
        "Over 100 acts, 70 + 40 = 100 people have reappeared.",
        "Step 2: 3 + 4 = 8",
        "the total:\n   3 + 4 = 8",
        r"\[3 + 4 = 8\]",
        r"\(3 + 4 = 8\)",
        "$3 + 4 = 8$",
        "$ 3 + 4 = 8 $",
        "所以，3 + 4 = 8",
    ],
)
def test_false_equations(text):
    assert false_equation(text) in text and false_equation(text)


@pytest.mark.parametrize(
    "text",
    [
        "3 × 4 = 12 and 12 / 4 = 3 and 5 - 5 = 0",
        "75 - 35 = 2C",
        "2 × 8 + 2 = 18",  # the sum is the end of something longer
        "10 + 2 = 6 × 2",
        "7 / 2 = 3.5",
        "7 / 2 = 3 with a remainder of 1",
        "9 + 5 = 2 mod 12",
        "2^4 - 3 = 13",
        "x - 3 = 5",
        r"3 \times 4 + 2 = 14",
        "3 \\times\n4 + 2 = 14",
        "3 times 4 + 2 = 14",
        r"20 \div 2 - 3 = 7",
        r"4 \cdot 2 - 4 = 4",
        "3 · 4 + 2 = 14",
        "half of 10 + 2 = 7",
        "(1/2) 278 + 11 = 150",
        "10 mod 3 + 4 = 5",
        "the sum of 4, 5 + 6 = 15",
        "2 hours 30 + 40 = 190 minutes",
        "1 000 + 2 = 1002",
        r"1,\!000 - 900 = 100",
        "1{,}000 - 900 = 100",
        "998 + 2 = 1 000",
        r"998 + 2 = 1,\!000",
        "a_1^2 - a_1 + 1 = 0",
        "− 5 + 3 = 2",
        "It takes 3 / 2 = 1 1/2 hours.",
        r"7 / 2 = 3\frac{1}{2}",
        r"10 + 2 = 6 \times 2",
        "12 + 12 = 2 dozen",
        "7 + 5 = 14_8",
        "because $1 / 2 = 50 cents",
    ],
)
def test_what_may_be_right_is_not_called_false(text):
    assert false_equation(text) == ""


def test_numbers_without_end():
    long = "9" * 5000
    assert false_equation(f"{long} + 1 = 3 and 1 + 1 = {long} and so 2 + 2 = 5.") == "2 + 2 = 5"
    assert max(map(len, named("hundred " * 5000))) < 200
    assert false_equation(f"So {'9' * 99} + 1 = {'9' * 99}.") != ""
