"""Which questions of a corpus stand in a test set, wholly or in part."""

from __future__ import annotations

import logging
import re
import string
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

from drp_hf.benchmarks import BENCHMARKS, Benchmark, read_benchmark
from drp_hf.errors import DRPError

logger = logging.getLogger(__name__)

WORDS = 13
"""Length of the runs of words that are compared."""
LISTED = 50
"""Overlaps that are kept to be shown."""
_WORD = re.compile(r"\w+")


def ngrams(question: str) -> list[tuple[str, ...]]:
    """Every run of `WORDS` words of a question: letters and digits in lower case, without punctuation.

    Thirteen words without punctuation are the usual measure of contamination since GPT-3 (arXiv 2005.14165,
    appendix C). Where a question has fewer, what is compared is the whole of it, with its punctuation, as "3 + 5" is
    not "3 - 5".

    Returns:
        The runs; for a question of fewer words one tuple, of its text in lower case with single spaces.
    """
    text = unicodedata.normalize("NFKC", question).lower()
    words = _WORD.findall(text)
    if len(words) < WORDS:
        return [(" ".join(text.split()).strip(string.punctuation + " "),)]
    return list(zip(*(words[start:] for start in range(WORDS)), strict=False))


@dataclass
class TestSet:
    """What a corpus has of one test set.

    Args:
        size: number of its questions.

    Attributes:
        hit: places of its questions that overlap with one of the corpus.
        overlapping: how many different questions of the corpus overlap with one of its.
    """

    size: int
    hit: set[int] = field(default_factory=set)
    overlapping: int = 0


class Contamination:
    """Compares the questions of a corpus with those of test sets, one after the other.

    Two questions overlap where they have one of their [`ngrams`] in common.

    Args:
        benchmarks: the test sets.
        unchecked: names of those that should be compared too, and could not be read.

    Attributes:
        checked: what was found, by test set.
        questions: how many different questions there were.
        listed: question and test set of the first `LISTED` overlaps.
        total: the number of all overlaps.
    """

    words = WORDS

    def __init__(self, benchmarks: Sequence[Benchmark] = (), unchecked: Sequence[str] = ()) -> None:
        self.unchecked = list(unchecked)
        self.checked = {benchmark.name: TestSet(len(benchmark.problems)) for benchmark in benchmarks}
        self.listed: list[tuple[str, str]] = []
        self._seen: set[int] = set()
        self._places: dict[tuple[str, ...], set[tuple[str, int]]] = {}
        for benchmark in benchmarks:
            for place, problem in enumerate(benchmark.problems):
                for ngram in ngrams(problem.question):
                    self._places.setdefault(ngram, set()).add((benchmark.name, place))

    def add(self, question: str) -> None:
        """Compares one question; one that was compared before is passed over."""
        identity = hash(question)  # 64 bits: of a million questions, two fall together once in 37 million corpora
        if identity in self._seen:
            return
        self._seen.add(identity)
        of_question = ngrams(question)
        if self._places.keys().isdisjoint(of_question):
            return
        hits = set().union(*(self._places.get(ngram, ()) for ngram in of_question))
        for name in sorted({name for name, _ in hits}):
            test_set = self.checked[name]
            test_set.overlapping += 1
            test_set.hit |= {place for of, place in hits if of == name}
            if len(self.listed) < LISTED:
                self.listed.append((question, name))

    @property
    def questions(self) -> int:
        return len(self._seen)

    @property
    def total(self) -> int:
        return sum(test_set.overlapping for test_set in self.checked.values())


def open_contamination(sources: Sequence[str]) -> Contamination:
    """Reads test sets to compare with.

    Args:
        sources: names of `drp_hf.benchmarks.BENCHMARKS`, or files and data sets with the columns `question` and
            `answer`. A name whose data set cannot be read (offline, say) is warned of and stays unchecked.

    Raises:
        DRPError: a file or data set of one's own cannot be read, or two have the same name.
    """
    benchmarks: list[Benchmark] = []
    unchecked = []
    for source in tqdm(sources, desc="Reading test sets", unit="test set", delay=5, leave=False):
        try:
            benchmark = read_benchmark(source)
        except DRPError as error:
            if source not in BENCHMARKS:
                raise
            logger.warning("The corpus is not compared with %s: %s", source, error)
            unchecked.append(source)
            continue
        if benchmark.name in {other.name for other in benchmarks}:
            raise DRPError(f"two of the test sets are called {benchmark.name!r}: rename {source}, or leave it out.")
        benchmarks.append(benchmark)
    return Contamination(benchmarks, unchecked)
