"""Questions that stand in a test set are found, in whatever case and punctuation, and no others."""

import json
from random import Random

import pytest

from drp_hf.benchmarks import Benchmark
from drp_hf.errors import DRPError
from drp_hf.hub.contamination import LISTED, WORDS, Contamination, open_contamination
from drp_hf.records import Problem

LONG = "Janet's ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins."


def test_set(name, *questions):
    return Benchmark(name, f"{name}.jsonl", [Problem(question, "1") for question in questions])


test_set.__test__ = False


def overlaps(question, *questions):
    contamination = Contamination([test_set("t", *questions)])
    contamination.add(question)
    return sorted(contamination.checked["t"].hit)


def test_what_overlaps():
    words = LONG.split()
    assert overlaps(LONG, "Something else.", LONG) == [1]
    assert overlaps(LONG.upper().replace(".", " !"), LONG) == [0]
    # "Janet's" is two words.
    assert overlaps(" ".join(words[:12]), LONG) == [0] and overlaps(" ".join(words[:11]), LONG) == []
    assert overlaps("He said: " + " ".join(words[2:15]) + " and so on", LONG) == [0]
    assert overlaps(" ".join([*words[:8], "other", *words[8:]]), LONG) == []
    assert overlaps("Compute $3 + 5$.", "compute  $3 + 5$", "Compute $3 - 5$.") == [0]
    assert overlaps("What is 3 + 5? Show all of your work and give the answer in a box.", "What is 3 + 5?") == []
    assert overlaps("", LONG) == []


def test_overlaps_are_those_of_a_plain_search():
    random = Random(0)
    texts = [[random.choice("ab") for _ in range(random.randint(8, 40))] for _ in range(120)]

    def common(left, right):
        if min(len(left), len(right)) < WORDS:
            return left == right
        joined = f" {' '.join(right)} "
        return any(f" {' '.join(left[i : i + WORDS])} " in joined for i in range(len(left) - WORDS + 1))

    here, there = texts[:60], texts[60:] + texts[:3]
    found = [overlaps(" ".join(text), *map(" ".join, there)) for text in here]
    assert found == [[place for place, other in enumerate(there) if common(text, other)] for text in here]
    assert 3 <= sum(map(bool, found)) < 60


def test_counts():
    contamination = Contamination([test_set("a", LONG, "How many?"), test_set("b", f"Well: {LONG}")], ["c"])
    for question in (LONG, LONG, f"{LONG} Why?", "how many", "Who?"):
        contamination.add(question)
    assert contamination.questions == 4 and contamination.total == 5 and contamination.unchecked == ["c"]
    a, b = contamination.checked["a"], contamination.checked["b"]
    assert (a.size, a.hit, a.overlapping) == (2, {0, 1}, 3) and (b.size, b.hit, b.overlapping) == (1, {0}, 2)
    assert contamination.listed[:2] == [(LONG, "a"), (LONG, "b")]
    for number in range(2 * LISTED):
        contamination.add(f"{LONG} {number}")
    assert len(contamination.listed) == LISTED and contamination.total == 5 + 4 * LISTED


def test_test_sets_of_ones_own(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"question": LONG, "answer": 3}))
    assert open_contamination([str(file)]).checked["mine"].size == 1
    with pytest.raises(DRPError, match="two of the test sets are called 'mine'"):
        open_contamination([str(file), str(file)])
    with pytest.raises(DRPError, match="absent.jsonl does not exist"):
        open_contamination([str(tmp_path / "absent.jsonl")])
