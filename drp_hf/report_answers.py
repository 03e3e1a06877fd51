"""What a report shows of single questions: which got better or worse, and both answers side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from drp_hf.evaluations import Answers
from drp_hf.records import THINK_CLOSE, THINK_OPEN
from drp_hf.report_corpus import spread

OUTCOMES = {"got worse": 3, "got better": 3, "right both times": 2, "wrong both times": 1, "as often right": 1}
"""What became of a question, and how many of each are shown. "As often right" are some, but not all, samples."""
SAME = 1e-9
"""Shares of right samples that differ by less are the same."""


@dataclass(frozen=True)
class ShownAnswer:
    """One sample as the page shows it.

    Args:
        row: its row of `answers.jsonl`.
        reasoning: what stands before the last closing think tag, without the tags; empty without a tag.
        response: what follows it; everything, without a tag.
        closed: whether the reasoning ends; False where the output was cut inside of it.
        n_right: samples of the question that are right.
        n_samples: samples of the question.
    """

    row: dict[str, Any]
    reasoning: str
    response: str
    closed: bool
    n_right: int
    n_samples: int


@dataclass(frozen=True)
class ShownQuestion:
    """A question with one answer before and one after.

    Args:
        number: its place in the benchmark, from 1.
        outcome: what became of it, a key of `OUTCOMES`.
        question: its text.
        gold: the right answer.
        before: the baseline's answer.
        after: the student's.
    """

    number: int
    outcome: str
    question: str
    gold: str
    before: ShownAnswer
    after: ShownAnswer


def outcomes_of(baseline: Answers, student: Answers) -> dict[str, np.ndarray]:
    """The questions by what became of them: indices, by outcome in the order of `OUTCOMES`.

    Args:
        baseline: answers before.
        student: answers after, with the questions in the same order.
    """
    before, after = (answers.table.by_question(answers.table.correct) for answers in (baseline, student))
    worse, better = after < before - SAME, after > before + SAME
    same = ~worse & ~better
    right, wrong = same & (before > 1 - SAME), same & (before < SAME)
    return dict(zip(OUTCOMES, map(np.flatnonzero, (worse, better, right, wrong, same & ~right & ~wrong)), strict=True))


def shown_questions(baseline: Answers, student: Answers) -> list[ShownQuestion]:
    """Some questions of every outcome, evenly spread over the benchmark; only their rows are read from disk.

    Args:
        baseline: answers before.
        student: answers after, with the questions in the same order.
    """
    wanted = {"got worse": (True, False), "got better": (False, True)}
    shown = []
    for outcome, questions in outcomes_of(baseline, student).items():
        for question in spread(questions.tolist(), OUTCOMES[outcome]):
            text, gold = baseline.problems[question]
            right = wanted.get(outcome, (None, None))
            pair = [_sample(*of, question) for of in zip((baseline, student), right, strict=True)]
            shown.append(ShownQuestion(question + 1, outcome, text, gold, *pair))
    return shown


def shown_answer(row: dict[str, Any], n_right: int, n_samples: int) -> ShownAnswer:
    """Splits an output where its thinking ends."""
    output = row["output"]
    before, tag, response = output.rpartition(THINK_CLOSE)
    closed = bool(tag)
    if not closed and THINK_OPEN in output:
        before, response = output, ""
    reasoning = before.replace(THINK_OPEN, "", 1).strip()
    return ShownAnswer(row, reasoning, response.strip(), closed or not reasoning, n_right, n_samples)


def _sample(answers: Answers, right: bool | None, question: int) -> ShownAnswer:
    """The first sample of a question that is right, or wrong, as wanted; the first of all where nothing is wanted."""
    samples = np.flatnonzero(answers.table.question == question)
    correct = answers.table.correct[samples] > 0
    fitting = samples if right is None else samples[correct == right]
    return shown_answer(answers.row(int(fitting[0])), int(correct.sum()), len(samples))
