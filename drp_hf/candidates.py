"""Several prunings of a trace, and which of them the student should learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from drp_hf.pruning import FALLBACK
from drp_hf.records import Candidate, CorpusRow

STRENGTHS = ("light", "default", "hard")
HOTTEST = 1.0
"""Temperature of the last candidate where temperatures differ; the first one's is the teacher's own."""


def strengths(count: int, strength: str) -> list[str]:
    """The strengths to ask at: the given one for one candidate, else that many from the hard end, light to hard."""
    return [strength] if count == 1 else list(STRENGTHS[-count:])


def temperatures(count: int, lowest: float) -> list[float]:
    """The temperatures to ask at: evenly spaced from the lowest up."""
    return [round(lowest + (HOTTEST - lowest) * place / max(1, count - 1), 3) for place in range(count)]


def scored_texts(rows: Sequence[CorpusRow]) -> Iterator[str]:
    """The outputs of which selecting by likelihood needs the scores: the original, and every accepted completion."""
    accepted = [row.completion for row in rows if row.accepted]
    if accepted:
        yield rows[0].trace.output
        yield from accepted


def choose(rows: Sequence[CorpusRow], scores: dict[str, float] | None = None, margin: float = 0.0) -> CorpusRow:
    """Chooses one pruning of a trace; its row names all candidates.

    Without scores the shortest accepted one is taken. With scores it is the shortest whose negative log-likelihood
    under the student is at most `margin` above that of the original trace: a trace that the student would never write
    is hard to learn (the learnability gap of arXiv 2505.13975). Where none comes so close, the closest is taken, and
    the row says so.

    Args:
        rows: the candidates, in order; at least one.
        scores: mean negative log-likelihood of the texts that [`scored_texts`] names, in nats per token.
        margin: nats per token.
    """
    if len(rows) == 1 and scores is None:
        return rows[0]
    scores = scores or {}
    before = scores.get(rows[0].trace.output)
    candidates = [
        Candidate(row.teacher, row.accepted, row.tokens_after, scores.get(row.completion) if row.accepted else None)
        for row in rows
    ]
    described = {"candidates": candidates, "nll_before": before}
    accepted = sorted((row for row in rows if row.accepted), key=lambda row: row.tokens_after)
    if not accepted:
        return replace(rows[0], **described)
    if before is None:
        return replace(accepted[0], **described)
    fitting = [row for row in accepted if scores[row.completion] <= before + margin]
    if fitting:
        return replace(fitting[0], **described)
    closest = min(accepted, key=lambda row: scores[row.completion])
    note = f"no candidate within {margin:g} nats of the original"
    reason = f"{closest.reason}; {note}" if closest.reason else f"{FALLBACK}: {note}"
    return replace(closest, **described, reason=reason)
