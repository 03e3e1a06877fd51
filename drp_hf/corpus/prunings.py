"""The prunings of a run: which are there, which are missing, and what the corpus takes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

from drp_hf.candidates import choose, scored_texts
from drp_hf.corpus.origin import public_path
from drp_hf.corpus.reading import Reading, Readings
from drp_hf.pruning import Reason, prune
from drp_hf.records import CorpusRow
from drp_hf.store import RowStore, content_key
from drp_hf.teacher import Teacher
from drp_hf.teachers.asking import Conversations

SCORED_AT_ONCE = 500
"""Traces whose texts are scored together."""


class Prunings:
    """Rows of traces, one by each teacher, kept in a store by everything that decides them.

    Args:
        splits: the traces.
        teachers: who prunes them; of several prunings of a trace, the corpus takes one.
        store: where rows are kept.
        count_tokens: tokens of a text.
        settings: what else decides a row, as JSON values: tokenizer, code.
    """

    def __init__(
        self,
        splits: Mapping[str, Readings],
        teachers: Sequence[Teacher],
        store: RowStore,
        count_tokens: Callable[[str], int],
        settings: Any,
    ) -> None:
        self.splits = splits
        self.teachers = teachers
        self.store = store
        self.count_tokens = count_tokens
        self.settings = settings
        self.scores: Callable[[CorpusRow, str], float] | None = None
        self.margin = 0.0

    @property
    def total(self) -> int:
        """Prunings there will be."""
        return len(self.teachers) * sum(map(len, self.splits.values()))

    def key(self, reading: Reading, teacher: Teacher) -> str:
        return content_key(asdict(reading.trace), teacher.name, self.settings)

    def missing(self, found: Callable[[], None] = lambda: None) -> Conversations:
        """The conversations that make the rows that are not there; can be gone through again.

        Args:
            found: called for every row that needs no conversation, in the first pass.
        """
        return _Missing(self, found)

    def put(self, key: str, row: CorpusRow, final: bool) -> None:
        """Keeps a row. One that lacks a reply stands for its trace until that is asked for again."""
        self.store.put(key if final else _provisional(key), row.to_dict())

    def rows(self, readings: Readings) -> Iterator[CorpusRow]:
        """The corpus rows of a split, in the order of its traces; those that could not be read are rejected rows."""
        for reading in readings:
            if reading.problem:
                reason = f"{Reason.UNREADABLE.value}: {reading.problem} ({public_path(reading.location)})"
                yield CorpusRow(**asdict(reading.trace), reason=reason)
                continue
            made = self._made(reading)
            scores = None
            if self.scores is not None:
                scores = {text: self.scores(made[0], text) for text in scored_texts(made)}
            yield choose(made, scores, self.margin)

    def score(self, student: str, scores: RowStore, margin: float) -> None:
        """Scores what selecting by likelihood needs and `scores` does not hold; from then on it selects.

        Args:
            student: the model that scores.
            scores: where scores are kept.
            margin: nats per token above the original that are allowed.
        """
        from rich.console import Console
        from rich.progress import track

        from drp_hf.models import model_identity

        identity = model_identity(student)
        likelihood = None

        def key(row: CorpusRow, text: str) -> str:
            return content_key(identity, row.question, text)

        readings = (reading for split in self.splits.values() for reading in split if not reading.problem)
        total = sum(map(len, self.splits.values()))
        parts = iter(lambda: list(islice(readings, SCORED_AT_ONCE)), [])
        console = Console(stderr=True)
        for part in track(parts, description="scoring", total=-(-total // SCORED_AT_ONCE), console=console):
            rows = [self._made(reading) for reading in part]
            texts = {key(made[0], text): (made[0].question, text) for made in rows for text in scored_texts(made)}
            lacking = [each for each in texts if each not in scores]
            if lacking and likelihood is None:
                from drp_hf.likelihood import Likelihood

                likelihood = Likelihood(student)
            for place, score in likelihood.score([texts[each] for each in lacking]) if lacking else ():
                scores.put(lacking[place], {"nll": score})
        self.scores = lambda row, text: scores.get(key(row, text))["nll"]
        self.margin = margin

    def _made(self, reading: Reading) -> list[CorpusRow]:
        keys = [self.key(reading, teacher) for teacher in self.teachers]
        return [CorpusRow.from_dict(self.store.get(key) or self.store.get(_provisional(key))) for key in keys]


class _Missing:
    def __init__(self, prunings: Prunings, found: Callable[[], None]) -> None:
        self.prunings = prunings
        self.found = found

    def __iter__(self) -> Iterator[tuple[str, Callable]]:
        found, self.found = self.found, lambda: None
        under_way: set[str] = set()
        for readings in self.prunings.splits.values():
            for reading in readings:
                for teacher in self.prunings.teachers:
                    key = "" if reading.problem else self.prunings.key(reading, teacher)
                    if not key or key in under_way or key in self.prunings.store:
                        found()
                        continue
                    under_way.add(key)
                    yield key, partial(prune, reading.trace, teacher, self.prunings.count_tokens)


def _provisional(key: str) -> str:
    return f"{key} lacks a reply"
