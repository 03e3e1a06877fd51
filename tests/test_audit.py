from fractions import Fraction

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pruning import DELETE, GOOD, KEEP, PARTS, Proposal, pruned_row, steps_of

from benchmarks.audit import audit, audit_row, chain_closure, main, numbers, open_numbers
from drp_hf.records import CORPUS_FEATURES

QUESTION = "James runs 3 sprints 4 times a week. He runs 60 meters each sprint, and 20% more on half of 8 days."


@pytest.mark.parametrize(
    "kept",
    [
        "3 * 60 = 180. Then 4 * 180 = 720.",
        "3 sprints × 60 meters = 180 meters. 180 meters × 4 = 720 meters.",
        "That is $3 × $60 = $180, and $180 × 4 = $720.",
        "Three times 60 is 180. 180 times four is 720.",
        "3 multiplied by 60 equals 180.",
        r"\[ 3 \times 60 = 180 \] so \[ \frac{180}{4} = 45 \]",
        r"\( \text{Total} = 3 \, \text{sprints} \times 60 \, \text{meters} = 180 \) and \(180 \div 3 = 60\)",
        "3 * 4 * 60 = 12 * 60 = 720.",
        "0.2 * 60 = 12, so 60 + 12 = 72.",
        "20% of 60 is 12.",
        "Half of 8 is 4, and 4 / 8 = 0.5.",
        "Each costs 5 dollars, so 5 * 3 = 15.",
        "With 5 friends who give 7.5 each it is 5 × 7.5 = 37.5.",
        "There are 7 days, 24 hours each: 7 * 24 = 168. And 60 / 12 = 5.",
        "Dividing 60 by 3 gives 20.",
        "1,000 + 60 = 1,060, then 1060 - 60 = 1000.",
        "It is 80k.",
        "8 - 60 = -52",
        "1. 3 * 60 = 180\n2. 4 * 180 = 720",
        "x + 3 = 60, so x = 57.",
        "the 2-step plan for 24/7 use",
    ],
)
def test_closed_chains(kept):
    assert open_numbers(QUESTION, kept) == []
    assert chain_closure(QUESTION, kept) in (True, None)


@pytest.mark.parametrize(
    ("kept", "number"),
    [
        ("45 apples. 40 * 3 = 120 and 5 * 3 = 15, so 120 + 15 = 135.", "40"),
        ("45 apples. 3 * 45 = 120 + 15 = 135.", "120"),
        ("45 apples. 60 + 40 is 100, then plus 5 is 105.", "40"),
    ],
)
def test_allowances(kept, number):
    assert chain_closure(QUESTION, kept, allowances=True) is True
    assert chain_closure(QUESTION, kept) is False
    assert Fraction(number) in {item.number for item in open_numbers(QUESTION, kept)}


@pytest.mark.parametrize(
    ("kept", "number"),
    [
        ("4 * 180 = 720.", "180"),
        ("So 180 × 4 = 720.", "180"),
        ("3 sprints × 61 meters = 183 meters.", "61"),
        ("180 times 4 is 720.", "180"),
        ("Then 180 multiplied by 4 equals 720.", "180"),
        (r"\[ \frac{180}{4} = 45 \]", "180"),
        (r"\( 180 \, \text{meters} \times 4 = 720 \)", "180"),
        ("Dividing 180 by 3 gives 60.", "180"),
        ("Then, multiplying 55 by 4 gives 220.", "55"),
        ("3 * 60 = 180 - 33 = 147.", "33"),
        ("30% of 60 is 18.", "30"),
        ("180 + 180 = 360.", "180"),
        ("720 = 4 * 180.", "180"),
        ("It is $1,250 - $60 = $1,190.", "1250"),
        ("60 × 1.5 = 90", "3/2"),
        ("3 * 60 = 180.\n5. 4 * 5 = 20", "5"),
        ("720 / 180 = 4", "720"),
    ],
)
def test_open_chains(kept, number):
    assert Fraction(number) in {item.number for item in open_numbers(QUESTION, kept)}
    assert chain_closure(QUESTION, kept) is False
    assert chain_closure(QUESTION, kept, allowances=True) is False


@pytest.mark.parametrize(
    "kept", ["So they ran a long way.", "James runs 60 meters.", "He runs 3 times a week.", "", "10-point type"]
)
def test_no_computation_no_verdict(kept):
    assert chain_closure(QUESTION, kept) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("twenty-five apples and one hundred and six pears", {"25", "106"}),
        ("2.5 million", {"2500000"}),
        ("$1,234.50", {"1234.5"}),
        ("20%", {"20", "0.2"}),
        (r"\frac{3}{4} of it, or 3/4", {"3", "4", "0.75"}),
        ("half a dozen", {"0.5", "2", "12", "1/12"}),
        (r"10{,}080 and 10,\!080", {"10080"}),
        ("1,2 and 3", {"1", "2", "3"}),
    ],
)
def test_numbers(text, expected):
    assert numbers(text) == {Fraction(value) for value in expected}


@settings(deadline=None)
@given(st.integers(0, 10**9), st.decimals(0, 1000, places=2))
def test_numbers_reads_what_is_written(whole, decimal):
    assert {Fraction(whole), Fraction(decimal)} <= numbers(f"first {whole:,} then {decimal}.")


@settings(deadline=None)
@given(st.text(st.sampled_from("0123456789+-*/=() .,%\nisof times"), max_size=80))
def test_no_text_breaks_the_checker(text):
    chain_closure(QUESTION, text)


def rows() -> list[dict]:
    broken = pruned_row(Proposal(GOOD)).to_dict()
    broken["steps"][0]["end"] += 1
    open_chain = pruned_row(Proposal(steps_of(DELETE, DELETE, DELETE, KEEP, DELETE, KEEP, parts=PARTS)))
    return [pruned_row(Proposal(GOOD)).to_dict(), broken, open_chain.to_dict(), pruned_row().to_dict()]


def test_audit_counts():
    result = audit(rows())
    assert (result["read"], result["accepted"], result["sound"]) == (4, 3, 2)
    assert (result["chains"], result["closed"], result["closed with allowances"]) == (3, 2, 2)
    assert list(result["violations"]) == ["steps leave a gap, overlap or do not end with the reasoning"]
    assert {index for index, _ in result["examples"]} == {1, 2}


def test_the_script(tmp_path, capsys):
    good, broken = rows()[0], rows()[1]
    for name, content in (("good", [good]), ("bad", [good, broken])):
        (tmp_path / name / "data").mkdir(parents=True)
        Dataset.from_list(content, features=CORPUS_FEATURES).to_parquet(tmp_path / name / "data" / "train.parquet")
    assert main([str(tmp_path / "good")]) == 0
    assert "100.0% of accepted" in capsys.readouterr().out
    assert main([str(tmp_path / "bad" / "data" / "train.parquet")]) == 1
    assert "row 1: steps leave a gap" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 2


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("completion", "<think>\n<think>\nx\n</think>\n\nThe answer is 540.", "think tags"),
        ("completion", "The answer is 540.", "think tags"),
        ("tokens_after", 10**6, "tokens after"),
        ("tokens_after", 0, "tokens after"),
        ("answer", "541", "does not state"),
        ("teacher", "", "no teacher"),
        ("pruned_reasoning", "So the answer is 540.", "not where it belongs"),
        ("pruned_reasoning", "", "not where it belongs"),
    ],
)
def test_columns_are_checked(column, value, message):
    row = rows()[0] | {column: value}
    assert any(message in violation for violation in audit_row(row)), audit_row(row)


def test_rejected_rows_are_checked():
    row = rows()[3]
    assert audit_row(row) == []
    assert audit_row(row | {"reason": ""}) == ["rejected without a reason"]
    assert audit_row(row | {"completion": "x"}) == ["rejected, yet with a completion"]
