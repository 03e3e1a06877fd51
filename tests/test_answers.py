import multiprocessing
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drp_hf import answers
from drp_hf.answers import answers_match, extract_answer, parses, read_number, stated_answer, states_answer
from drp_hf.corpus.reading import read_problems
from drp_hf.records import final_response, render_output

TOWER = "9^{9^{9^{9}}}"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So \boxed{12} no, \(\boxed{\frac{1}{4}}\).", r"\frac{1}{4}"),
        (r"\boxed{\left\{ 1, 2 \right\}}", r"\left\{ 1, 2 \right\}"),
        (r"\boxed{7} and an unbalanced \boxed{8", "7"),
        (r"\boxed{\boxed{5}}", "5"),
        ("The answer is 42.", "42"),
        ("The final answer is: **$1,250.50**.", "$1,250.50"),
        ("The answer is 3.5 hours, as 7 / 2 = 3.5.", "3.5"),
        ("**Final Answer**\nJames runs 540 meters.", "540"),
        ("**Answer:** Gerald has \\$50 left.", "\\$50"),
        ("Final Answer:\n\n\\[\nx = 5\n\\]", "x = 5"),
        ("The answer is p - q.", "p - q"),
        ("The answer is 42!", "42"),
        (r"\boxed{5!}", "5!"),
        ("Therefore, the answer is Evelyn.", "Evelyn"),
        ("3 * 4 = 12\n#### 12", "12"),
        ("#### Step 2\nNow 3 * 4 gives **12 apples**", "12"),
        ("So 3 sprints of 60 meters: 180 meters.", "180"),
        ("It fell to -10 degrees", "-10"),
        ("from 20-10", "10"),
        ("No numbers here.", None),
        ("", None),
    ],
)
def test_extract_answer(text, answer):
    assert extract_answer(text) == answer


def test_only_the_response_of_a_whole_output_counts():
    assert extract_answer(render_output("It is \\boxed{3}.", "The answer is 4.")) == "4"
    assert extract_answer("It is 3.\n</think>\n\nThe answer is 4.") == "4"
    assert extract_answer("<think>\nIt is \\boxed{3}, but") is None


def test_stated_answer_needs_an_express_form():
    assert stated_answer("That makes 540 meters.") is None
    assert stated_answer("So the answer is 540 meters.") == "540"


@pytest.mark.parametrize(
    ("ending", "gold", "states"),
    [
        ("So 540 meters.", "540", True),
        ("So they read six books.", "6", True),
        ("So the answer is 540 meters in 7 days.", "540", True),
        ("3 * 180 = 540. So the answer is 50.", "540", False),
        (r"That is 540. \boxed{50}", "540", False),
        ("So 5400 meters.", "540", False),
        (r"Thus \(\frac{14}{3}\) remains.", r"\frac{14}{3}", True),
        ("which is 14/3", r"\frac{14}{3}", True),
        ("So the student is Evelyn.", r"\text{Evelyn}", True),
        (r"Hence \(d = 3\sqrt{13}\).", r"3\sqrt{13}", True),
        ("So they are done.", "540", False),
    ],
)
def test_states_answer(ending, gold, states):
    assert states_answer(ending, gold) is states


@pytest.mark.parametrize(
    ("gold", "predicted", "correct"),
    [
        ("540", "540", True),
        ("540", "54", False),
        ("27.0", "27", True),
        ("27", "27.0000001", True),
        ("1000", "1,000", True),
        ("10,\\!080", "10080", True),
        ("\\$32,\\!348", "32348 dollars", True),
        ("70", "70\\%", True),
        ("0.7", "70%", True),
        ("70", "0.7", False),
        ("0.5", "1/2", True),
        (r"\frac{1}{4}", "0.25", True),
        (r"\dfrac34", r"\frac{3}{4}", True),
        (r"1\frac{4}{5}", "9/5", True),
        (r"\frac{1}{3}", "0.33", False),
        ("2.20906e+07", "22090603", True),
        ("2.20906e+07", "22091603", False),
        (".0000672", "0.0000673", False),
        ("90^\\circ", "90 degrees", True),
        ("240\\text{ ways.}", "240", True),
        ("5000000", "5 million", True),
        (r"\left( 3, \frac{\pi}{2} \right)", "(3, \\pi/2)", True),
        (r"\left( 3, \frac{\pi}{2} \right)", "(3, \\pi)", False),
        ("p - q", "-q + p", True),
        ("p - q", "q - p", False),
        ("(3,4]", "(3, 4]", True),
        ("(3,4]", "[3, 4]", False),
        ("x=5", "5", True),
        ("3, 5, 7", "7, 3, 5", True),
        (r"\text{Evelyn}", "evelyn", True),
        ("listen", "silent", False),
        (r"\text{(C)}", "C", True),
        ("6 - 5i", "6-5i", True),
        (r"3\sqrt{13}", r"\sqrt{117}", True),
        ("52_8", "42", False),
        ("120", "5!", True),
        ("5", "5!", False),
        ("12", None, False),
        ("12", "  ", False),
    ],
)
def test_answers_match(gold, predicted, correct):
    verdict = answers_match(gold, predicted)
    assert verdict.correct is correct
    assert verdict.disagreement is (None not in (a := (verdict.math_verify, verdict.numeric)) and a[0] != a[1])


def test_a_disagreement_is_recorded_and_the_exact_check_decides():
    verdict = answers_match("0.0000001", "0.0000002")
    assert (verdict.correct, verdict.numeric) == (False, False)
    assert verdict.math_verify and verdict.disagreement and "disagree" in verdict.note


def test_equal_plain_numbers_need_no_process(monkeypatch):
    monkeypatch.setattr(answers._WORKER, "ask", lambda request: pytest.fail("math-verify was asked"))
    assert answers_match("918273", "$918273$").correct


@pytest.mark.parametrize("gold", ["", "  ", "???", "\\frac{1}{", "{", "x" * 2000, "\\begin{", "."])
def test_gold_that_does_not_parse(gold):
    assert not parses(gold)


@pytest.mark.parametrize(
    "gold", ["540", "-10", "p - q", r"\text{Evelyn}", "(3,4]", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"]
)
def test_gold_that_parses(gold):
    assert parses(gold)


def test_a_hanging_comparison_is_ended_and_the_next_one_works(monkeypatch):
    answers_match("p - q", "p - 2q")
    hung = answers._WORKER._process
    monkeypatch.setattr(answers, "TIME_LIMIT", 1.0)
    verdict = answers_match("p - q", f"{TOWER} + 1")
    assert (verdict.correct, verdict.note) == (False, "math-verify ran out of time")
    assert hung.returncode is not None
    monkeypatch.undo()
    assert answers_match("p + q + 1", "1 + p + q").correct


def test_a_process_that_never_answers_is_replaced(monkeypatch):
    monkeypatch.setattr(answers, "TIME_LIMIT", 0.0)
    verdict = answers_match("p + 7q", "7q + p + r - r")
    assert (verdict.correct, verdict.note) == (False, "math-verify ran out of time")
    monkeypatch.undo()
    assert answers_match("p + 8q", "8q + p + r - r").correct


@pytest.mark.parametrize(
    "answer",
    [TOWER, "{" * 900, "(" * 900, "\\frac{" * 150 + "1", "\\sqrt" * 190, "1" * 999, "1e999", "\\boxed{" * 100, "1/0"],
)
def test_hostile_answers_return(answer, monkeypatch):
    monkeypatch.setattr(answers, "TIME_LIMIT", 1.0)
    assert not answers_match("540", answer).correct
    assert not answers_match(answer, "540").correct
    assert isinstance(parses(answer), bool)


@pytest.mark.parametrize(
    "piece",
    ["\\boxed{", "{", "**", "$", "the answer is ", "####", "1,", "1 ", ".", "\\(", "<think>", "1/", "answer: \n", "-"],
)
def test_extraction_is_linear_on_hostile_texts(piece):
    text = piece * (600_000 // len(piece))
    assert extract_answer(text) is None or len(extract_answer(text)) <= answers.MAX_ANSWER
    assert states_answer(text[-2000:], "540") is False


def test_many_threads_share_one_process():
    results = {}

    def work(i):
        results[i] = (
            answers_match(f"x + {i}", f"{i} + x").correct and not answers_match(f"x + {i}", f"y + {i}").correct
        )

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == dict.fromkeys(range(8), True)


def _in_child(connection):
    connection.send((answers_match("z + 99", "99 + z").correct, answers._WORKER._process.pid))
    answers._WORKER.close()


def test_a_forked_process_starts_its_own():
    answers_match("z + 98", "98 + z")
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_in_child, args=(theirs,))
    child.start()
    correct, pid = ours.recv()
    child.join()
    assert correct and pid != answers._WORKER._process.pid
    assert answers_match("z + 97", "97 + z").correct


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12))
def test_read_number_reads_every_writing_of_an_integer(n):
    for written in (str(n), f"{n:,}", f"{n}.0", f"\\${n}" if n >= 0 else f"-\\${-n}", f"{n} apples", f"{n}/1"):
        assert read_number(written).value == n, written


@settings(deadline=None)
@given(st.decimals(0, 10**6, places=3, allow_nan=False))
def test_read_number_reads_decimals_exactly(d):
    assert read_number(f"{d}%").value == read_number(str(d)).value
    assert float(read_number(f"{d:,}").value) == float(d)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_nothing_breaks_the_readers(text):
    extract_answer(text)
    stated_answer(text)
    read_number(text)


@pytest.mark.parametrize("name", ["math500_test", "gsm8k_test", "svamp", "aime24_test", "amc23_test"])
def test_final_responses_give_the_gold_answer_back(shared_data, name):
    golds = {problem.answer for problem in read_problems(shared_data / "problems" / f"{name}.jsonl")}
    for gold in sorted(golds):
        for text in (final_response(gold), f"Thus \\(\\boxed{{{gold}}}\\)."):
            assert answers_match(gold, extract_answer(text)).correct, (gold, extract_answer(text))


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("gsm8k_test__deepseek-r1", 553),
        ("gsm8k_test__r1-distill-qwen-32b", 557),
        ("math_train__r1-distill-qwen-1.5b", 99),
        ("math500__r1-distill-qwen-7b", 17),
    ],
)
def test_real_traces(shared_data, name, right):
    """The counts were confirmed by reading every row that counts as wrong."""
    import json

    rows = map(json.loads, (shared_data / "traces" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines())
    verdicts = [answers_match(row["answer"], extract_answer(row["response"])) for row in rows]
    assert sum(verdict.correct for verdict in verdicts) == right
    assert not any(verdict.disagreement for verdict in verdicts)
