"""Compares answers with gold, by the million and one at a time.

Two checkers that share no code look at a pair. The exact check (`exact_check.py`) reads numbers, words and structures
itself; math-verify understands mathematics, but can hang or ask for all the memory there is, and so runs in processes
that are ended when they take too long. Where both speak and differ the exact check decides, and the pair is kept for
people to look at (`Grader.disagreements`). Where the exact check is silent math-verify decides; where both are silent
the answer counts as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from drp_hf.answer_kinds import is_prose
from drp_hf.answer_text import normalise, too_large, typeset
from drp_hf.exact_check import compare
from drp_hf.expressions import too_large_to_work_out
from drp_hf.math_pool import MathPool, Reply, cores
from drp_hf.plain_numbers import numbers_equal, read_number

TIME_LIMIT = 10.0
"""Seconds math-verify gets for one comparison."""
CACHED = 200_000
"""Verdicts that a grader remembers."""

_INTEGER = re.compile(r"-?(?:\d{1,15}|\d{1,3}(?:,\d{3}){1,4})\Z", re.ASCII)

_GROWS = re.compile(r"[\^!]|\\binom")


@dataclass(frozen=True)
class Verdict:
    """What came of comparing an answer with gold.

    Args:
        correct: the decision.
        math_verify: what math-verify says; None where it was not asked, could not parse one side or ran out of time.
        exact: what the exact check says; None where it cannot read one side.
        disagreement: both spoke, and differ.
        note: how the decision was reached, where that is not plain.
    """

    correct: bool
    math_verify: bool | None = None
    exact: bool | None = None
    disagreement: bool = False
    note: str = ""


class Grader:
    """Grades many answers: each distinct pair once, the plain ones at once, the others in worker processes.

    It may be shared by threads, and used in forked processes, each of which starts workers of its own.

    Args:
        workers: processes for math-verify. If not given, as many as there are cores, shared by all such graders.
        time_limit: seconds math-verify gets for one pair; a process that takes longer is replaced.
        thorough: asks math-verify about every pair, also where the exact check needs no second opinion.

    Attributes:
        pool: the processes.
        disagreements: `(gold, predicted, verdict)` of the distinct pairs on which the two checkers differ.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        time_limit: float = TIME_LIMIT,
        thorough: bool = False,
    ) -> None:
        self.disagreements: list[tuple[str, str, Verdict]] = []
        self.pool = _shared_pool() if workers is None else MathPool(workers)
        self._time_limit = time_limit
        self._thorough = thorough
        self._verdicts: dict[tuple[str, str | None], Verdict] = {}

    def grade(self, pairs: Sequence[tuple[str, str | None]]) -> list[Verdict]:
        """Compares answers with gold (the order matters: the comparison is not symmetric).

        Args:
            pairs: gold and predicted answer each; None where there is no answer.

        Returns:
            Verdicts in the same order.
        """
        verdicts: dict[tuple[str, str | None], Verdict] = {}
        hard: dict[tuple[str, str], tuple[bool | None, list[tuple[str, str]]]] = {}
        for pair in pairs:
            if pair in verdicts or pair in hard:
                continue
            known = self._verdicts.get(pair)
            if known is None:
                known = _unfit(*pair) if self._thorough else at_once(*pair)
                if known is None:
                    hard[pair] = _exact(*pair)
                    continue
                self._remember(pair, known)
            verdicts[pair] = known
        asked = list(dict.fromkeys(question for pair, (_, parts) in hard.items() for question in (pair, *parts)))
        requests = [{"gold": gold, "predicted": predicted} for gold, predicted in asked]
        replies = dict(zip(asked, self.pool.ask_all(requests, self._time_limit), strict=True))
        for pair, (exact, parts) in hard.items():
            if parts:
                exact = compare(*pair, lambda *part: replies[part].equal)
            verdict = verdicts[pair] = _decide(exact, replies[pair])
            if verdict.disagreement:
                self.disagreements.append((*pair, verdict))
            self._remember(pair, verdict)
        return [verdicts[pair] for pair in pairs]

    def parses(self, gold: str) -> bool:
        """Whether a gold answer can be compared with anything: a number, words, or what math-verify can parse."""
        if too_large(gold) or not normalise(gold):
            return False
        if read_number(gold) is not None or is_prose(gold):
            return True
        return self.pool.ask({"gold": gold}, self._time_limit).parsed

    def _remember(self, pair: tuple[str, str | None], verdict: Verdict) -> None:
        if len(self._verdicts) >= CACHED:
            self._verdicts.clear()
        self._verdicts[pair] = verdict

    def close(self) -> None:
        """Ends the worker processes; grading again starts new ones."""
        self.pool.close()

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def answers_match(gold: str, predicted: str | None) -> Verdict:
    """Compares one predicted answer with gold, as `Grader` does."""
    return _shared_grader().grade([(gold, predicted)])[0]


@lru_cache(maxsize=65_536)
def parses(gold: str) -> bool:
    """Whether a gold answer can be compared with anything."""
    return _shared_grader().parses(gold)


@cache
def _shared_pool() -> MathPool:
    return MathPool(cores())


@cache
def _shared_grader() -> Grader:
    return Grader()


def _unfit(gold: str, predicted: str | None) -> Verdict | None:
    """The verdict on what is no answer at all."""
    if predicted is None or not predicted.strip():
        return Verdict(False, note="no answer")
    if too_large(gold) or too_large(predicted):
        return Verdict(False, note="too long, nested or repetitive for an answer")
    return None


def at_once(gold: str, predicted: str | None) -> Verdict | None:
    """The verdict on a pair that needs no second opinion; None for one that does."""
    if (unfit := _unfit(gold, predicted)) is not None:
        return unfit
    if _INTEGER.match(gold) and _INTEGER.match(predicted):
        equal = int(gold.replace(",", "")) == int(predicted.replace(",", ""))
        return Verdict(equal, exact=equal)
    number = read_number(gold)
    if number is not None and (other := read_number(predicted)) is not None:
        equal = numbers_equal(number, other)
        return Verdict(equal, exact=equal)
    if (same := normalise(gold)) and same == normalise(predicted):
        return Verdict(True, note="same text")
    # math-verify reads words as products of letters, where "listen" equals "silent".
    if (is_prose(gold) or is_prose(predicted)) and (equal := compare(gold, predicted)) is not None:
        return Verdict(equal, exact=equal, note="compared as words")
    if any(_GROWS.search(answer) and too_large_to_work_out(typeset(answer)) for answer in (gold, predicted)):
        return Verdict(False, note="too large to work out")
    return None


def _exact(gold: str, predicted: str) -> tuple[bool | None, list[tuple[str, str]]]:
    """What the exact check finds, and where it finds nothing the parts that math-verify must be asked about."""
    parts: list[tuple[str, str]] = []
    exact = compare(gold, predicted, lambda *part: parts.append(part))
    return exact, parts if exact is None else []


def _decide(exact: bool | None, reply: Reply) -> Verdict:
    if exact is not None and reply.equal is not None and exact != reply.equal:
        return Verdict(exact, reply.equal, exact, True, "math-verify and the exact check disagree")
    note = f"math-verify {reply.failure}" if reply.failure else ""
    if not note and reply.equal is None:
        note = "math-verify cannot parse it"
    return Verdict(bool(reply.equal) if exact is None else exact, reply.equal, exact, note=note)
