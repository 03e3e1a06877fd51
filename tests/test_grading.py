import multiprocessing
import threading
from collections import Counter

import pytest
from rich.console import Console

from benchmarks.eval_grading import REQUIRED, agreement, grade, labels
from benchmarks.eval_hostile import run
from drp_hf.answers import answers_match
from drp_hf.grading import Grader, Verdict

TOWER = "9^{9^{9^{9}}}"


@pytest.fixture(scope="module")
def grader():
    with Grader(workers=2, time_limit=30.0) as grader:
        yield grader


def test_verdicts_come_in_order_and_each_pair_is_asked_once(grader, monkeypatch):
    asked = []
    ask_all = grader.pool.ask_all
    monkeypatch.setattr(
        grader.pool, "ask_all", lambda requests, limit: asked.extend(requests) or ask_all(requests, limit)
    )
    pairs = [("p - q", "q - p"), ("5", "5.0"), ("p - q", "-q + p"), ("p - q", "q - p"), ("5", None)] * 3
    assert [verdict.correct for verdict in grader.grade(pairs)] == [False, True, True, False, False] * 3
    assert len(asked) == 2
    grader.grade(pairs)
    assert len(asked) == 2


def test_nothing_to_grade(grader):
    assert grader.grade([]) == []


def test_a_disagreement_is_kept_and_the_exact_check_decides(grader):
    [verdict] = grader.grade([("3R^2", "3r^2")])
    assert verdict == Verdict(False, True, False, True, "math-verify and the exact check disagree")
    assert ("3R^2", "3r^2", verdict) in grader.disagreements


def test_plain_answers_need_no_process(grader, monkeypatch):
    monkeypatch.setattr(grader.pool, "ask", lambda request: pytest.fail("math-verify was asked"))
    verdicts = grader.grade([("918273", "$918273$"), ("1,000", "1000.00"), ("7", "8"), ("Evelyn", "evelyn")])
    assert [verdict.correct for verdict in verdicts] == [True, True, False, True]


def test_what_hangs_is_ended_while_the_others_go_on(grader):
    impatient = Grader(time_limit=3.0)
    impatient.pool = grader.pool
    pairs = [("p - q", f"\\int_0^1 {TOWER} + {i}") for i in range(2)] + [
        ("p + q", f"q + p + {i} - {i}") for i in range(9)
    ]
    verdicts = impatient.grade(pairs)
    assert [verdict.correct for verdict in verdicts] == [False] * 2 + [True] * 9
    assert {verdict.note for verdict in verdicts[:2]} == {"math-verify ran out of time"}
    assert grader.grade([("p + q + 1", "1 + p + q")])[0].correct


@pytest.mark.parametrize(
    "answer", [TOWER, "2^{10^{10}}", "(10^9)!", "\\binom{10^9}{10^8}", "{" * 900, "(" * 90, "-" * 50, "1" * 1001]
)
def test_what_is_out_of_reach_needs_no_process(grader, monkeypatch, answer):
    monkeypatch.setattr(grader.pool, "ask", lambda *request: pytest.fail("math-verify was asked"))
    assert [verdict.correct for verdict in grader.grade([("540", answer), (answer, "540")])] == [False, False]


@pytest.mark.parametrize("text", ["\x00", "\ud800", "\x001", "\\frac{\ud83d}{2}", "１２", "\u202e12"])
def test_odd_characters_reach_the_process_and_come_back(grader, text):
    assert [verdict.correct for verdict in grader.grade([("p - q", text), (text, "p - q")])] == [False, False]


def test_a_process_that_dies_is_replaced(grader):
    grader.grade([("u + v", "v + u")])
    for process in list(grader.pool._running):
        process.popen.kill()
        process.popen.wait()
    assert grader.grade([("u + w", "w + u")])[0].correct


def test_parts_of_a_structure_are_asked_about_alone(grader):
    pairs = [("(\\log_2 8, 1)", "(\\log_3 27, 1)"), ("(\\log_2 8, 1)", "(1, \\log_3 27)")]
    assert [verdict.correct for verdict in grader.grade(pairs)] == [True, False]


def test_hostile_answers():
    """The same as `benchmarks/eval_hostile.py`, with few of them."""
    assert run(200, limit=1.0, workers=2, seed=1, console=Console(quiet=True), grace=30.0) == []


def test_graded_as_by_people(shared_data):
    """The same as `benchmarks/eval_grading.py`."""
    with Grader(workers=2) as grader:
        rows = grade(shared_data / "traces", grader)
    assert Counter(row.file for row in rows if row.verdict.correct) == {
        "gsm8k_test__deepseek-r1.jsonl": 555,
        "gsm8k_test__r1-distill-qwen-32b.jsonl": 559,
        "math_train__r1-distill-qwen-1.5b.jsonl": 99,
        "math500__r1-distill-qwen-7b.jsonl": 17,
    }
    found = agreement(rows)
    assert found["gsm8k"][0] >= 98 and found["math"][0] >= 50
    assert all(same >= REQUIRED[name] * of for name, (of, same) in found.items())
    read = labels()
    assert all((row.file, row.number) in read for row in rows if row.verdict.disagreement)


def test_a_grader_can_be_used_after_it_was_closed():
    with Grader(workers=1) as grader:
        assert grader.grade([("z + 9", "9 + z")])[0].correct
    assert not grader.pool._running
    assert grader.grade([("z + 8", "8 + z")])[0].correct
    grader.close()


def test_many_threads_share_the_processes():
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


def _in_child(grader, connection):
    correct = grader.grade([("z + 99", "99 + z")])[0].correct
    connection.send((correct, [process.popen.pid for process in grader.pool._running]))
    grader.close()


def test_a_forked_process_starts_its_own(grader):
    grader.grade([("z + 98", "98 + z")])
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_in_child, args=(grader, theirs))
    child.start()
    correct, pids = ours.recv()
    child.join()
    assert correct and pids and not set(pids) & {process.popen.pid for process in grader.pool._running}
    assert grader.grade([("z + 97", "97 + z")])[0].correct
