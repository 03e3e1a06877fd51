"""Segmentation is lossless, right on what traces contain, and linear."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drp_hf.segment import _Finder, segment

PIECES = st.sampled_from(
    [
        "So x = 3.5. ",
        "e.g. ",
        "\n",
        "\r\n",
        "\n\n",
        "$",
        "$$",
        r"\[",
        r"\]",
        r"\(",
        r"\)",
        "```",
        "~~~",
        "| a |\n",
        "1. ",
    ]
    + [
        r"\begin{align}",
        r"\end{align}",
        "。",
        "…",
        "!",
        "? ",
        "🎉 ",
        "**",
        '"',
        "- ",
        "3!",
        " ",
        "\t",
        "x",
        ".",
        "Mr. ",
    ]
)


def texts(reasoning):
    return [unit.text for unit in segment(reasoning)]


def check_lossless(reasoning):
    units = segment(reasoning)
    assert "".join(unit.text for unit in units) == reasoning
    position = 0
    for unit in units:
        assert unit.start == position and unit.end > unit.start
        assert reasoning[unit.start : unit.end] == unit.text
        position = unit.end
    if reasoning.strip():
        assert all(unit.text.strip() for unit in units)
        assert not any(unit.text[0].isspace() for unit in units[1:])


@given(st.text())
def test_lossless_on_any_text(reasoning):
    check_lossless(reasoning)


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=40).map("".join))
def test_lossless_on_marks_in_any_order(reasoning):
    check_lossless(reasoning)


@pytest.mark.parametrize(
    "expected",
    [
        ["It costs $5.50. ", "Then 3.25 more."],
        ["Take fruit, e.g. Apples, i.e. Two kinds, vs. Mr. Smith's pears. ", "Done."],
        ["Really? ", "Yes! ", "So (he says.) ", '"Is it $2?" ', "No."],
        ["1. First do it. ", "Then this.\n", "2. **Second** thing.\n", "- nested. ", "More"],
        ["At 5 p.m. on Monday. ", "He left at 6 p.m. ", "Then no. 5 came."],
        ["5! = 120. ", "And 3! + 2 is 8. ", "Good! ", "Next."],
        ["He pays $5. ", "Then $6. ", "So $x = 3. 5$ yes. ", r"Inline \( a. B \) here."],
        ["We have ", "\\[ x = 1.\n y = 2. \\] ", "so done. ", "And ", "$$a. b$$. ", "Next"],
        ["So:\n", "\\begin{align}\na &= b. \\\\ c\n\\end{align}\n", "End."],
        ["Code:\n", "```python\nx = 1. \n\ny = 2\n```\n", "Then."],
        ["Table:\n", "| a | b |\n|---|---|\n| 1. | 2. |\n\n", "After."],
        ["答案是5。", "所以，x=3.5！", "对吗？", "是的。"],
        ["Great 🎉! ", "🎉 Done.\r\n", "New line.\r\n\r\n", "Para."],
        ["Hmm... wait. ", "So 1, 2, ..., 10. ", "Well... ", "Now 3."],
        [f"{'A long line that was wrapped ' * 3}by\nits writer. ", "And\n", "short."],
        [r"An unclosed \[ x. ", "Then ", r"\[ y. z \] ", "and on."],
        ["Costs $3.\n\n", "And $4 of $5."],
        ["  Leading. ", "Then   "],
        ["   \n "],
        [],
    ],
)
def test_breaks(expected):
    assert texts("".join(expected)) == expected


@pytest.mark.parametrize(
    "mark",
    [".", ". ", "a. ", "$", "$$ ", "$a", "$a $", r"\[", "\\[\n\n", r"\(", r"\begin{a}", r"\begin{b} \end{c}", "```"]
    + ["~~~", "\n", "x\n ", "\n| ", "| a\n", "1. ", "1) ", "- ", "> ", "**", '"', ".)", "!", "…", "。", "a.b. ", " "],
)
def test_hostile_marks(mark):
    check_lossless(mark * (100_000 // len(mark)))


def test_unclosed_formulas_search_the_text_once():
    searched = 0

    class Counting(str):
        def find(self, what, start=0):
            nonlocal searched
            found = str.find(self, what, start)
            searched += (found if found >= 0 else len(self)) - start
            return found

    text = Counting(r"\[ x " * 20_000)
    finder = _Finder(text)
    for position in range(0, len(text), 5):
        assert finder.find(r"\]", position) == len(text)
    assert searched == len(text)


@pytest.mark.parametrize("name", ["gsm8k_test__deepseek-r1", "math500__r1-distill-qwen-7b"])
def test_real_traces(shared_data, name):
    with (shared_data / "traces" / f"{name}.jsonl").open(encoding="utf-8") as stream:
        traces = [json.loads(line)["reasoning"] for line in stream]
    for reasoning in traces:
        check_lossless(reasoning)
    units = [unit for reasoning in traces for unit in segment(reasoning)]
    assert 20 < sum(len(unit.text) for unit in units) / len(units) < 120
