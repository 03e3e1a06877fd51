r"""One output at a time: is it right, how many tokens did it take, and what did it spend them on.

An output is read as a row of *solutions*. A solution ends with the sentence in which

- an answer is expressly stated (`\boxed{…}`, "the answer is …", `#### …`), right or wrong, or
- the gold value is arrived at: it follows a sign or a word that announces a result ("= 16", "equals 16", "gives 16"),
  "is" after a number ("4 times 4 is 16"), or "is" in a sentence that concludes ("Therefore, the total is 16"); and no
  further operation follows it ("= 16 + 2" arrives at nothing yet). "A carton costs 16" restates a question.

The next solution begins there. What follows the last one belongs to none. No model is asked: a person can follow it
with a pencil.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from math import inf
from typing import TYPE_CHECKING

from drp_hf.answer_text import MAX_ANSWER
from drp_hf.answers import answers_match, extract_answer, stated_answer
from drp_hf.plain_numbers import LARGEST, read_number
from drp_hf.records import THINK_CLOSE, THINK_OPEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from drp_hf.grading import Grader

CHUNK = 1000
"""Samples that are graded together, at most."""
CHUNK_CHARACTERS = 2_000_000
"""Characters of their outputs after which no further sample is taken."""
NEW_VALUES = 1
"""Values that a solution must bring into a calculation for the first time to count as new."""
REFLECTION_MARKERS = (
    "wait",
    "hmm",
    "alternatively",
    "hold on",
    "actually",
    "let me check",
    "let me double-check",
    "let me double check",
    "let me verify",
    "let me make sure",
    "let me reconsider",
    "let me re-check",
    "let me recheck",
    "on second thought",
    "another way",
)
"""Words with which a model turns back on what it wrote; case does not matter, and a longer word does not count."""
LAST_STATEMENTS = 16
"""Statements of a response that are looked at for the place from which on it is right."""


@dataclass(frozen=True)
class Sample:
    """One output for one question.

    Args:
        output: all that was written, think tags included; the opening tag may be missing.
        reference: the gold answer.
        n_tokens: tokens of the output as it was generated.
        finished: whether it ended by itself; False if it was cut, None if that is not known.
    """

    output: str
    reference: str
    n_tokens: int
    finished: bool | None = None


@dataclass(frozen=True)
class SampleScore:
    """What is found out about one output. All positions and lengths are in tokens.

    Args:
        correct: whether the final answer is right. An output that was cut is right only if it closed its think tag and
            expressly stated the right answer after it.
        extracted: the final answer as written; None without one.
        n_tokens: tokens of the output as it was generated.
        think_tokens: tokens of the reasoning with its tags; the rest are those of the answer.
        finished: as in the sample.
        answer_at: the output, cut after so many tokens or any later place, is right; `n_tokens` where only its end
            makes it right, None where it is wrong.
        first_correct: tokens to the end of the first solution that arrives at the right answer; None if none does.
        new_tokens: tokens of the solutions that are new: the first one, and each that brings at least `NEW_VALUES`
            values into its calculations that no earlier solution calculates with. 2412.21187 calls their sum D; there
            a language model judges what is new.
        reflections: how often one of `REFLECTION_MARKERS` occurs.
    """

    correct: bool
    extracted: str | None
    n_tokens: int
    think_tokens: int
    finished: bool | None
    answer_at: int | None
    first_correct: int | None
    new_tokens: int
    reflections: int


def score_samples(
    samples: Iterable[Sample], grader: Grader, tokenizer: PreTrainedTokenizerBase | None = None
) -> Iterator[SampleScore]:
    """Scores outputs as they come; few are in memory at a time.

    Args:
        samples: the outputs.
        grader: compares answers with gold.
        tokenizer: a fast tokenizer that finds the positions of tokens; without one they lie in proportion to the
            characters. Either way `n_tokens` is what the sample says.

    Returns:
        A score for each sample, in order.
    """
    for chunk in _chunks(samples):
        readings = [_read(sample) for sample in chunk]
        pairs = [
            (sample.reference, answer)
            for sample, reading in zip(chunk, readings, strict=True)
            for answer in (reading.final, *(answer for _, answer in reading.stated))
        ]
        verdicts = iter([verdict.correct for verdict in grader.grade(pairs)])
        offsets = [None] * len(chunk)
        if tokenizer is not None and tokenizer.is_fast:
            texts = [sample.output for sample in chunk]
            offsets = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        for sample, reading, spans in zip(chunk, readings, offsets, strict=True):
            yield _score(sample, reading, list(islice(verdicts, 1 + len(reading.stated))), _Positions(sample, spans))


def _chunks(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    chunk, characters = [], 0
    for sample in samples:
        chunk.append(sample)
        characters += len(sample.output)
        if len(chunk) == CHUNK or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def is_correct(output: str, reference: str, finished: bool | None = True) -> bool:
    """Whether an output answers a question.

    Args:
        output: the whole output.
        reference: the gold answer.
        finished: False for an output that was cut off. It is right only if it closed its think tag and expressly
            stated the right answer after it: the last number before a cut is no answer.
    """
    return answers_match(reference, _final_answer(output, finished)).correct


def _final_answer(output: str, finished: bool | None) -> str | None:
    if finished is False:
        return stated_answer(output.rpartition(THINK_CLOSE)[2]) if THINK_CLOSE in output else None
    return extract_answer(output)


# -------------------------------------------------------------------------------------------- reading before grading


@dataclass
class _Reading:
    """What an output says, before anybody knows which answers are right; places are characters.

    Args:
        final: the final answer.
        stated: where each expressly stated answer ends, and the answer; in the response it is what the response up
            to there states.
        n_in_response: how many of the last of them are in the response.
        arrivals: where the sentences end in which the gold value is arrived at.
        numbers: the numbers of the output.
    """

    final: str | None
    stated: list[tuple[int, str]]
    n_in_response: int
    arrivals: list[int]
    numbers: _Numbers


_CUE = re.compile(r"####|answer\b|Answer\b|ANSWER\b")
_AFTER_CUE = re.compile(r"(?:\s*(?:is|equals|=)(?!\w))?[\s:*_=]*")
_BRACE = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_CLOSERS = {"\\[": "\\]", "$$": "$$", "\\(": "\\)", "\\begin": "\\end"}
_BEFORE_CUE = 40
"""Characters before "answer" that belong to the phrase."""


def _read(sample: Sample) -> _Reading:
    output = sample.output
    closed = output.rfind(THINK_CLOSE)
    response = closed + len(THINK_CLOSE) if closed >= 0 else len(output)
    # Of several cues that end together ("**Final Answer:** \\boxed{5}") the first one sees all that is said.
    starts: dict[int, int] = {}
    for start, end in _phrases(output):
        starts[end] = min(start, starts.get(end, start))
    ends = sorted(starts)
    in_response = [end for end in ends if end > response][-LAST_STATEMENTS:]
    starts |= dict.fromkeys(in_response, response)
    said = [(end, stated_answer(output[starts[end] : end])) for end in ends]
    stated = [(end, answer) for end, answer in said if answer is not None]
    numbers = _Numbers.of(output)
    return _Reading(
        final=_final_answer(output, sample.finished),
        stated=stated,
        n_in_response=sum(end in in_response for end, _ in stated),
        arrivals=_arrivals(output, numbers, sample.reference),
        numbers=numbers,
    )


def _phrases(output: str) -> Iterator[tuple[int, int]]:
    """Start of each phrase that may call something the answer, and the end of its sentence."""
    sentences = _Sentences(output)
    for cue in _CUE.finditer(output):
        start = max(output.rfind("\n", 0, cue.start()) + 1, cue.start() - _BEFORE_CUE)
        place = _AFTER_CUE.match(output, cue.end()).end()
        for opening, closing in _CLOSERS.items():
            if output.startswith(opening, place):
                place = max(output.find(closing, place + len(opening), place + MAX_ANSWER), place)
                break
        yield start, sentences.end(place)
    first = min((place for place in (output.find("\\boxed"), output.find("\\fbox")) if place >= 0), default=None)
    if first is not None:
        opened: list[re.Match[str]] = []
        for brace in _BRACE.finditer(output, first):
            if brace[0][-1] == "{" and brace[0] != "\\{":
                opened.append(brace)
            elif brace[0] == "}" and opened:
                opening = opened.pop()
                if len(opening[0]) > 1:
                    yield opening.start(), sentences.end(brace.end())


class _Sentences:
    """Finds where sentences end, reading the text once if it is asked in order."""

    _END = re.compile(r"[.!?](?=[\s*<]|\Z)|\n|[。！？]|\Z")

    def __init__(self, output: str) -> None:
        self._output = output
        self._known = range(0)

    def end(self, place: int) -> int:
        """The end of the sentence, or of the line, that is going on at a place."""
        if place not in self._known:
            match = self._END.search(self._output, place)
            # Up to the full stop itself; behind it another sentence is going on.
            self._known = range(place, match.start() + 1)
            self._last = match.end()
        return self._last


# ------------------------------------------------------------------------------------------------- calculations

# "[0-9][0-9]*": a pattern that begins with one character of a set is found faster than one that begins with "\d+".
_NUMBER = re.compile(r"([0-9][0-9]*(?:(?:,|\{,\})[0-9]{3})*(?:\.[0-9]+)?)")
_SIGN = (
    r"[+×÷^=≈]|(?<!\*)\*(?!\*)|(?<![A-Za-z])[-−/]|[-−/](?![A-Za-z])|\\(?:times|cdot|div|approx)\b"
    r"|\b(?:times|plus|minus|divided|multiplied)\b"
)
_JOINS = re.compile(rf"{_SIGN}|\b(?:equals?|gives?|makes?|leaves)\b|\A\W*is\b|%\W*of\b|\}}\{{")
_STOPS = re.compile(r"[.!?;](?=[\s<])|\n")
# Spaces are taken for good (`*+`), so that a long run of them is read once.
_SPACES = r"(?:\s|\\[,;! ])*+"
_GOES_ON = re.compile(
    rf"\)?{_SPACES}(?:\\text\{{[^{{}}\n]{{0,30}}\}}|[A-Za-z]+)?{_SPACES}(?:{_SIGN})(?=\s*[\w(\\$€£-])"
)
_LONGEST_GAP = 80
"""Characters between two numbers of one calculation."""
_LONGEST_LEAD = 120
"""Characters before a value in which it may be announced."""

_FILLING = " \t\n\\$€£*:_([{,"
_FILLING_WORDS = frozenset("us me her him them a of about exactly only indeed still to text".split())
_RESULT_WORDS = frozenset(
    "equals equal gives give makes make leaves leave gets get got becomes totals reduces simplifies approx implies "
    "that's that’s".split()
)
_IS = frozenset(("is", "are", "be"))
_CONCLUDES = re.compile(r"\b(?:therefore|thus|hence|total|altogether|in all|combined|remaining|left)\b", re.IGNORECASE)
_AFTER_NUMBER = re.compile(r"\d[^.!?\n]?(?: [a-z]+)? (?:is|are|would be|will be|should be)\Z")


@dataclass
class _Numbers:
    """The numbers of a text.

    Args:
        pieces: the text cut up: other text, number, other text, number, …, other text.
        ends: where each piece ends.
        values: of the numbers.
    """

    pieces: list[str]
    ends: list[int]
    values: list[float]

    @classmethod
    def of(cls, text: str) -> _Numbers:
        pieces = _NUMBER.split(text)
        return cls(pieces, list(accumulate(map(len, pieces))), [*map(_float, pieces[1::2])])

    def calculated(self) -> list[tuple[int, float]]:
        """Place and value of the numbers that stand in a calculation: an operation joins them to a next one."""
        between = self.pieces[2:-1:2]
        joined = [i for i, text in enumerate(between) if len(text) <= _LONGEST_GAP and _joined(text)]
        return [(self.ends[2 * i + 1], self.values[i]) for i in sorted({*joined, *(i + 1 for i in joined)})]

    def equal_to(self, reference: str) -> list[tuple[int, int]]:
        """Where the numbers stand that equal a gold number, sign included."""
        low, high = _gold_range(reference)
        found = []
        for i, value in enumerate(self.values):
            if low <= value <= high or low <= -value <= high:
                before = self.pieces[2 * i]
                negative = before.endswith(("-", "−"))
                if low <= (-value if negative else value) <= high:
                    found.append((self.ends[2 * i] - negative, self.ends[2 * i + 1]))
        return found


def _arrivals(output: str, numbers: _Numbers, reference: str) -> list[int]:
    """Where the sentences end in which the gold value is arrived at."""
    sentences = _Sentences(output)
    return [
        sentences.end(end)
        for start, end in (*numbers.equal_to(reference), *_not_decimal(output, reference))
        if not _GOES_ON.match(output, end) and _announced(output[max(0, start - _LONGEST_LEAD) : start])
    ]


@lru_cache(maxsize=65_536)
def _float(number: str) -> float:
    return float(number.replace("{,}", "").replace(",", ""))


@lru_cache(maxsize=65_536)
def _joined(between: str) -> bool:
    """Whether an operation joins two numbers with this text between them."""
    return not _STOPS.search(between) and _JOINS.search(between.replace("**", "")) is not None


@lru_cache(maxsize=65_536)
def _gold_range(reference: str) -> tuple[float, float]:
    """Values that equal the gold number; an empty range where gold is no plain number."""
    number = read_number(reference)
    if number is None or max(abs(number.value), number.slack) > LARGEST:
        return 1.0, 0.0
    slack = max(abs(float(number.value)) * 1e-9, float(number.slack))
    return float(number.value) - slack, float(number.value) + slack


_TOKEN = re.compile(r"\\[A-Za-z]+|\S")
_FRAC = re.compile(r"\\[dt]?frac\Z")
_FRACTION = re.compile(r"(?<![\d.,/])(?:\\[dt]?frac\{(\d+)\}\{(\d+)\}|(\d+)\s?/\s?(\d+))(?![\w/])(?!\.\d)")


def _not_decimal(output: str, reference: str) -> list[tuple[int, int]]:
    """Where a gold answer that is no plain decimal stands: as it is written, or as any equal fraction."""
    if _NUMBER.fullmatch(reference.lstrip("-−$")) or not reference.strip() or len(reference) > MAX_ANSWER:
        return []
    found = [match.span() for match in _as_written(reference).finditer(output)]
    low, high = _gold_range(reference)
    if low <= high and ("/" in reference or "frac" in reference):
        for match in _FRACTION.finditer(output):
            over, under = match.group(1, 2) if match[1] else match.group(3, 4)
            if float(under) and low <= float(over) / float(under) <= high:
                found.append(match.span())
    return sorted(found)


@lru_cache(maxsize=4096)
def _as_written(reference: str) -> re.Pattern[str]:
    parts = [r"\\[dt]?frac" if _FRAC.match(token) else re.escape(token) for token in _TOKEN.findall(reference)]
    return re.compile(r"(?<![\w.])" + r"\s*".join(parts) + r"(?!\w)")


def _announced(before: str) -> bool:
    """Whether what stands before a value says that it is a result."""
    before = before.rstrip(_FILLING)
    head, _, word = before.rpartition(" ")
    for _ in range(2):
        if word.lower() not in _FILLING_WORDS:
            break
        before = head.rstrip(_FILLING)
        head, _, word = before.rpartition(" ")
    if before.endswith(("=", "≈", "→", "\\approx", "\\implies")) or word.lower() in _RESULT_WORDS:
        return True
    if word not in _IS:
        return False
    sentence = before[max((stop.end() for stop in _STOPS.finditer(before)), default=0) :]
    return _AFTER_NUMBER.search(sentence) is not None or _CONCLUDES.search(sentence) is not None


# ----------------------------------------------------------------------------------------------------- after grading


class _Positions:
    """Turns places in the output into tokens."""

    def __init__(self, sample: Sample, spans: list[tuple[int, int]] | None) -> None:
        self._n_tokens = sample.n_tokens
        self._length = len(sample.output)
        self._starts = [start for start, _ in spans] if spans is not None else None

    def at(self, place: int) -> int:
        """Tokens of the output up to a place: those that begin before it, or in proportion to characters."""
        if place >= self._length:
            return self._n_tokens
        if self._starts is not None:
            return min(bisect_right(self._starts, place - 1), self._n_tokens)
        return -(-self._n_tokens * place // self._length)


def _score(sample: Sample, reading: _Reading, right: list[bool], positions: _Positions) -> SampleScore:
    output = sample.output
    correct, *stated_right = right
    solutions = {end: is_right for (end, _), is_right in zip(reading.stated, stated_right, strict=True)}
    solutions |= dict.fromkeys(reading.arrivals, True)
    # An answer that is only the last number of the output is arrived at where it ends.
    if correct and True not in solutions.values():
        solutions[len(output)] = True
    ends = sorted(solutions)
    first = next((end for end in ends if solutions[end]), None)

    answer_at = sample.n_tokens if correct else None
    if correct and reading.n_in_response:
        for (end, _), is_right in zip(
            reversed(reading.stated[-reading.n_in_response :]), reversed(stated_right), strict=False
        ):
            if not is_right:
                break
            answer_at = positions.at(end)
    return SampleScore(
        correct=correct,
        extracted=reading.final,
        n_tokens=sample.n_tokens,
        think_tokens=_think_tokens(output, positions),
        finished=sample.finished,
        answer_at=answer_at,
        first_correct=None if first is None else positions.at(first),
        new_tokens=_new_tokens(ends, reading.numbers, positions),
        reflections=_reflections(output),
    )


def _think_tokens(output: str, positions: _Positions) -> int:
    closed = output.rfind(THINK_CLOSE)
    if closed >= 0:
        return positions.at(closed + len(THINK_CLOSE))
    return positions.at(len(output)) if THINK_OPEN in output else 0


def _new_tokens(ends: list[int], numbers: _Numbers, positions: _Positions) -> int:
    """Tokens of the new solutions among those that end at `ends`."""
    total, start, seen = 0, 0, set()
    remaining = iter(numbers.calculated() if len(ends) > 1 else ())
    place, value = next(remaining, (inf, 0.0))
    for number, end in enumerate(ends):
        values = set()
        while place <= end:
            values.add(value)
            place, value = next(remaining, (inf, 0.0))
        if number == 0 or len(values - seen) >= NEW_VALUES:
            total += positions.at(end) - positions.at(start)
        seen |= values
        start = end
    return total


# Whole words. A pattern that begins with plain letters is found much faster than one that begins with \b.
_MARKERS = {marker: re.compile(rf"{marker}(?<!\w{marker})(?!\w)") for marker in REFLECTION_MARKERS}


def _reflections(output: str) -> int:
    text = output.lower()
    return sum(len(pattern.findall(text)) for marker, pattern in _MARKERS.items() if marker in text)
