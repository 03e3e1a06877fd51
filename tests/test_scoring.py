import doctest
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import drp_hf.scoring as module
from drp_hf.grading import Grader
from drp_hf.models import load_tokenizer
from drp_hf.scoring import Sample, SampleScore, is_correct, score_samples

TRACES = Path(__file__).parents[2] / "shared" / "data" / "traces"


@pytest.fixture(scope="module")
def grader():
    return Grader()


def scored(output: str, gold: str = "16", finished: bool | None = True) -> SampleScore:
    """The score of an output that has a token for each character, so that places can be counted."""
    return next(score_samples([Sample(output, gold, len(output), finished)], Grader()))


def up_to(output: str, end: str) -> int:
    return output.index(end) + len(end)


WORDY = (
    "<think>\nEach carton costs $16 or less. First, 60 / 15 = 4 cartons. Then 4 times 4 is 16.\n"
    "Wait, let me double-check. 15 + 15 + 15 + 15 = 60, so 4 cartons, and 4 × 4 = 16. Good.\n"
    "Alternatively, 60 × 4 = 240 and 240 / 15 = 16.\n</think>\n\n**Answer:** The total is $16. That is all."
)


def test_an_output_by_hand():
    score = scored(WORDY)
    first = up_to(WORDY, "is 16.")
    second = up_to(WORDY, "4 × 4 = 16.")
    third = up_to(WORDY, "/ 15 = 16.")
    stated = up_to(WORDY, "The total is $16.")
    assert score == SampleScore(
        correct=True,
        extracted="$16",
        n_tokens=len(WORDY),
        think_tokens=up_to(WORDY, "</think>"),
        finished=True,
        answer_at=stated,
        first_correct=first,
        # The second solution calculates with 15, 60, 4 and 16 again, the third brings 240.
        new_tokens=first + (third - second),
        reflections=3,
    )


@pytest.mark.parametrize(
    "text",
    [
        "2 × 8 = 16.",
        "2 × 8 = $16.00, which is fine.",
        "\\[ 4 \\text{ cartons} \\times \\$4 = \\$16.00 \\]\n",
        "8 plus 8 equals 16.",
        "8 plus 8 is equal to 16 eggs.",
        "That gives us 16 eggs.",
        "That makes **16** eggs.",
        "So she is left with 2 × 8 and gets 16.",
        "8 + 8 is 16.",
        "60 divided by 15 bags is indeed 16 (not really).",
        "Therefore, the amount she spends is 16.",
        "Altogether there are 16.",
        "So that's 16 in total.",
        "x ≈ 16",
        "x = 16",
        "16 × 1 = 16",
    ],
)
def test_the_gold_value_is_arrived_at(text):
    # What is read is the reasoning of an output that was cut, and so right by nothing but what it arrives at.
    score = scored(f"<think>Hm. {text}", finished=False)
    assert not score.correct
    assert score.first_correct is not None


@pytest.mark.parametrize(
    "text",
    [
        "A carton holds 16 eggs.",
        "Each of the 16 cartons is white.",
        "The price is $16.",
        "Therefore, the 16 eggs are white.",
        "16 + 2 = 18",
        "x = 16 + 2",
        "x = 16 eggs × 2",
        "x = \\$16 \\times 2",
        "2 × 8 = 160",
        "2 × 8 = 16,000",
        "2 × 8 = 1.16",
        "2 × 8 = -16",
        "2 × 8 = 17",
    ],
)
def test_the_gold_value_is_only_named(text):
    assert scored(f"<think>Hm. {text}", finished=False).first_correct is None


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("-3", "4 - 7 = -3."),
        ("1,000", "10 × 100 = 1000."),
        ("0.75", "3 / 4 = 0.75."),
        ("\\frac{3}{4}", "x = \\frac{3}{4}."),
        ("\\frac{3}{4}", "x = \\dfrac{3}{4}."),
        ("\\frac{3}{4}", "3 / 4 = 0.75."),
        ("\\frac{3}{4}", "6/8 = 3/4."),
        ("\\frac{3}{4}", "This reduces to 3/4."),
        ("3/4", "x = \\frac{6}{8}."),
        ("2\\sqrt{5}", "x = 2\\sqrt{5}."),
        ("\\$5.50", "11 / 2 = 5.5."),
        ("x^2 + 1", "f = x^2+1."),
        ("Evelyn", "The answer is Evelyn."),
    ],
)
def test_other_kinds_of_gold_are_arrived_at(gold, text):
    assert scored(f"<think>Hm. {text}", gold, finished=False).first_correct == len(f"<think>Hm. {text}")


def test_a_wrong_statement_ends_a_solution_too():
    output = "<think>2 + 3 = 6. The answer is 6. Wait, 2 + 3 = 5.</think>The answer is 5."
    score = scored(output, "5")
    first, second = up_to(output, "answer is 6."), up_to(output, "2 + 3 = 5.")
    assert score.first_correct == second
    # The second solution is new: 5 stood in no calculation before.
    assert score.new_tokens == second
    assert first < second


def test_the_end_of_the_output_is_where_its_last_number_is_the_answer():
    output = "<think>Well.</think>It costs 16 dollars"
    score = scored(output)
    assert (score.correct, score.extracted) == (True, "16")
    assert score.answer_at == score.first_correct == score.n_tokens == len(output)
    assert score.new_tokens == len(output)


def test_an_output_without_a_solution_has_nothing_new():
    score = scored("<think>Let me think about the cartons", finished=False)
    assert (score.correct, score.extracted, score.answer_at, score.first_correct) == (False, None, None, None)
    assert score.new_tokens == 0
    assert score.think_tokens == score.n_tokens


def test_a_cut_keeps_an_answer_only_from_its_last_change_on():
    output = (
        "<think>…</think>The answer is 16. No, the answer is 17. Sorry, the final answer is 16. Yes: the answer is 16."
    )
    assert scored(output).answer_at == up_to(output, "final answer is 16.")
    output = "<think>…</think>\\boxed{15}. The answer is 16. So \\boxed{16} it is."
    # A box outdoes other words: between the two boxes a cut would leave 15.
    assert scored(output).answer_at == len(output)


def test_a_cut_output_is_never_a_short_right_one():
    cut_in_thought = "<think>\n3 + 4 = 7. So the answer is 7. But wait"
    cut_in_response = "<think>\nfine\n</think>\n\nFirst we take 7"
    stated_then_cut = "<think>\nfine\n</think>\n\nThe answer is 7. Let me also"
    assert not is_correct(cut_in_thought, "7", finished=False)
    assert not is_correct(cut_in_thought, "7", finished=True)
    assert not is_correct(cut_in_response, "7", finished=False)
    assert is_correct(cut_in_response, "7", finished=True)
    assert is_correct(cut_in_response, "7", finished=None)
    assert is_correct(stated_then_cut, "7", finished=False)
    assert not is_correct("3 + 4 = 7", "7", finished=False)
    assert scored(cut_in_thought, "7", False).n_tokens == len(cut_in_thought)
    assert scored(stated_then_cut, "7", False).answer_at == up_to(stated_then_cut, "is 7.")


def test_the_opening_tag_may_be_missing():
    output = "3 + 4 = 7.</think>The answer is 7."
    score = scored(output, "7")
    assert score.correct
    assert score.think_tokens == up_to(output, "</think>")
    assert scored("3 + 4 = 7. The answer is 7.", "7").think_tokens == 0


def test_an_output_that_was_cut_before_either_tag():
    """As of a template that puts the opening tag into the prompt."""
    output = "3 + 4 = 7. So the answer is 7. But wait, 7"
    assert scored(output, "7", finished=None).correct
    score = scored(output, "7", finished=False)
    assert (score.correct, score.extracted, score.think_tokens) == (False, None, 0)
    score = scored(f"<think>{output}", "7", finished=None)
    assert (score.correct, score.extracted, score.think_tokens) == (False, None, score.n_tokens)


def test_reflections_are_whole_words():
    assert (
        scored("Wait, wait. HMM: waiters await. Let me double-check, actually. Alternatively hmmm.").reflections == 6
    )


def test_places_lie_in_proportion_to_characters():
    output = "<think>3 + 4 = 7.</think>The answer is 7."  # 41 characters
    (score,) = score_samples([Sample(output, "7", 10)], Grader())
    assert (score.n_tokens, score.answer_at) == (10, 10)
    assert score.think_tokens == 7  # 25 / 41 of 10 tokens: the seventh is the first to hold all of it
    assert score.first_correct == 5  # 17 / 41


def test_places_follow_the_tokenizer():
    tokenizer = load_tokenizer("smollm2-embedded")
    ids = tokenizer(WORDY, add_special_tokens=False)["input_ids"]
    # Generated with the stop token, which is no text.
    (score,) = score_samples([Sample(WORDY, "16", len(ids) + 1, True)], Grader(), tokenizer)
    for place, end in (
        (score.first_correct, "times 4 is 16."),
        (score.think_tokens, "</think>"),
        (score.answer_at, "The total is $16."),
    ):
        assert end in tokenizer.decode(ids[:place])
        assert end not in tokenizer.decode(ids[: place - 1])
    assert score.n_tokens == len(ids) + 1


def test_counts_below_the_tokenizers_own_are_the_bound():
    tokenizer = load_tokenizer("smollm2-embedded")
    (score,) = score_samples([Sample(WORDY, "16", 20, True)], Grader(), tokenizer)
    assert max(score.first_correct, score.think_tokens, score.answer_at, score.new_tokens) <= 20


def test_samples_are_scored_as_they_come(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 3)
    taken = []

    def samples():
        for number in range(10):
            taken.append(number)
            yield Sample(f"<think>…</think>The answer is {number}.", "4", 10)

    scores = score_samples(samples(), Grader())
    assert next(scores).extracted == "0"
    assert len(taken) == 3
    assert [score.correct for score in scores] == [number == 4 for number in range(1, 10)]

    monkeypatch.setattr(module, "CHUNK_CHARACTERS", 1)
    scores, taken[:] = score_samples(samples(), Grader()), []
    next(scores)
    assert len(taken) == 1


def test_nothing_in_nothing_out():
    assert list(score_samples([], Grader())) == []
    score = scored("")
    assert (score.correct, score.n_tokens, score.think_tokens, score.new_tokens) == (False, 0, 0, 0)


PIECES = st.sampled_from(
    [
        "2 + 3 = 5. ",
        "5 = 2 + 3, ",
        "2 × 3 = 6. ",
        "So 6 it is.\n",
        "The answer is 5. ",
        "The answer is 6. ",
        "\\boxed{5} ",
        "\\boxed{6}",
        "\\boxed{\\frac{10}{2}}. ",
        "**Answer:**\n",
        "#### 5\n",
        "#### Step 5\n",
        "Wait, hmm. ",
        "Final answer: \\[ 5 \\] ",
        "answer is $$\n5\n$$",
        "<think>",
        "</think>",
        "the final answer is",
        "\\boxed{",
        "5",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=9).map("".join), st.sampled_from([True, False, None]))
def test_a_score_is_sound(output, finished):
    score = scored(output, "5", finished)
    assert score.correct == is_correct(output, "5", finished)
    assert score.correct == (score.answer_at is not None)
    assert not score.correct or score.first_correct is not None
    assert not score.correct or score.extracted is not None
    for place in (score.think_tokens, score.new_tokens, score.first_correct or 0, score.answer_at or 0):
        assert 0 <= place <= score.n_tokens == len(output)
    assert (score.first_correct is None) or score.new_tokens > 0
    if score.correct and score.answer_at < len(output):
        # What the word promises: cut there, the output is right.
        assert is_correct(output[: score.answer_at], "5", finished=False)


@pytest.mark.parametrize(
    "piece",
    [
        "the answer is ",
        "\\boxed{",
        "{",
        "= 16, ",
        "answer ",
        "#### ",
        "16 = ",
        "1,",
        "\\[",
        "16 ",
        "9",
        " ",
        "a",
        "wait",
    ],
)
@pytest.mark.timeout(60)
def test_long_hostile_outputs_are_read_in_good_time(piece, grader):
    output = "</think>= 16" + piece * (200_000 // len(piece))
    (score,) = score_samples([Sample(output, "16", 1000, True)], grader)
    assert score.n_tokens == 1000


@pytest.mark.parametrize("gold", ["1e999", "0e999"])
def test_a_gold_value_beyond_all_floats_is_compared_all_the_same(gold):
    assert scored(f"<think>…</think>The answer is {gold}.", gold).correct


def test_half_a_surrogate_pair_is_text():
    assert scored("<think>\ud83d</think>The answer is 16.").correct


@pytest.mark.skipif(not TRACES.exists() and os.environ.get("CI") != "true", reason="needs ../shared/data")
def test_real_traces_are_mostly_right_long_before_they_end(grader):
    with (TRACES / "gsm8k_test__deepseek-r1.jsonl").open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream][:200]
    outputs = [f"<think>\n{row['reasoning']}\n</think>\n\n{row['response']}" for row in rows]
    samples = [Sample(output, row["answer"], len(output)) for output, row in zip(outputs, rows, strict=True)]
    scores = list(score_samples(samples, grader))
    right = [score for score in scores if score.correct]
    assert len(right) > 180
    early = sum(score.first_correct < 0.6 * score.think_tokens for score in right)
    assert early > 0.7 * len(right)
    for score in right:
        assert score.first_correct <= score.answer_at <= score.n_tokens


def test_the_documented_example_runs():
    assert doctest.testmod(module).failed == 0
