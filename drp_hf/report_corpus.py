"""What a report shows of a corpus: its counts, what was pruned by skill and by place, traces step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from drp_hf.corpus.folder import corpus_rows
from drp_hf.records import Action, CorpusRow, Step

if TYPE_CHECKING:
    from drp_hf.corpus.card import CorpusSummary

TRACES = 10
"""Traces shown in full."""
PARTS = 20
"""Equal parts of a reasoning in which its actions are counted."""


@dataclass
class Corpus:
    """What the page shows of a corpus.

    Args:
        name: name of its folder.
        summary: its rows, counted.
        characters: characters of the original reasonings by category of skill and action, of accepted rows.
        places: sums of `places_of` over the accepted rows, shape `(actions, PARTS)`.
        teachers: names of the teachers.
        traces: accepted rows shown in full.
    """

    name: str
    summary: CorpusSummary
    characters: Counter[tuple[str, Action]] = field(default_factory=Counter)
    places: np.ndarray = field(default_factory=lambda: np.zeros((len(Action), PARTS)))
    teachers: set[str] = field(default_factory=set)
    traces: list[dict[str, Any]] = field(default_factory=list)

    def place_shares(self) -> dict[Action, np.ndarray]:
        """By action, its share of the text in each of `PARTS` parts of a reasoning; every trace counts the same."""
        return dict(zip(Action, self.places / np.maximum(self.places.sum(axis=0), 1e-12), strict=True))


def read_corpus(folder: Path) -> Corpus:
    """Counts the rows of a corpus folder and picks the traces to show: evenly spread over the share of tokens kept.

    Raises:
        DRPError: the folder is no corpus, or its files lack a column.
    """
    from drp_hf.corpus.card import CorpusSummary

    corpus = Corpus(folder.resolve().name, CorpusSummary())
    kept: list[tuple[float, int]] = []
    for number, row in enumerate(corpus_rows(folder)):
        corpus.summary.add(row)
        if not row.accepted:
            continue
        corpus.teachers.add(row.teacher)
        kept.append((row.tokens_after / max(row.tokens_before, 1), number))
        corpus.places += places_of(row.steps)
        for step in row.steps:
            corpus.characters[step.category or "none", step.action] += step.end - step.start
    chosen = [number for _, number in spread(sorted(kept), TRACES)]
    wanted = set(chosen)
    shown = {number: shown_trace(row) for number, row in enumerate(corpus_rows(folder)) if number in wanted}
    corpus.traces = [shown[number] for number in chosen]
    return corpus


def places_of(steps: Sequence[Step]) -> np.ndarray:
    """How much of each part of one reasoning has each action.

    Args:
        steps: they tile the reasoning.

    Returns:
        Shares, shape `(actions, PARTS)`, in the order of `Action`; every column of a tiled reasoning sums to 1.
    """
    shares = np.zeros((len(Action), PARTS))
    if not steps or not steps[-1].end:
        return shares
    edges = np.linspace(0, steps[-1].end, PARTS + 1)
    starts, ends = (np.array([[getattr(step, name)] for step in steps]) for name in ("start", "end"))
    overlaps = np.clip(np.minimum(ends, edges[1:]) - np.maximum(starts, edges[:-1]), 0, None) / edges[1]
    np.add.at(shares, [list(Action).index(step.action) for step in steps], overlaps)
    return shares


def shown_trace(row: CorpusRow) -> dict[str, Any]:
    """A row as the page shows it: the original step by step, and the completion in pieces that come from steps."""
    from drp_hf.pruning import apply_steps, completion_spans

    steps = [
        {
            "action": step.action.value,
            "skill": step.skill,
            "text": row.reasoning[step.start : step.end].lstrip("\n").rstrip(),
            "rewrite": step.rewrite.strip(),
        }
        for step in row.steps
    ]
    pieces, position = [], 0
    for span in completion_spans(apply_steps(row.reasoning, row.steps).spans):
        pieces.append({"action": "", "skill": "", "text": row.completion[position : span.start]})
        text = row.completion[span.start : span.end]
        pieces.append({"action": span.action.value, "skill": span.skill, "text": text})
        position = span.end
    pieces.append({"action": "", "skill": "", "text": row.completion[position:]})
    return {"row": row, "steps": steps, "pieces": [piece for piece in pieces if piece["text"]]}


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many items, evenly spread, first and last included."""
    if len(items) <= most:
        return list(items)
    if most == 1:
        return [items[len(items) // 2]]
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
