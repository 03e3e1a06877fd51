"""The views of a corpus: from its rows to what a trainer or a reader wants to see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from datasets import Features, List, Value

from drp_hf.pruning import apply_steps, completion_spans
from drp_hf.records import CORPUS_FEATURES, CorpusRow, Step

MESSAGES = List({"role": Value("string"), "content": Value("string")})

_TRAINED = Features(
    {
        "prompt": MESSAGES,
        "completion": MESSAGES,
        "steps": List(
            {
                "start": Value("int64"),
                "end": Value("int64"),
                "skill": Value("string"),
                "category": Value("string"),
                "action": Value("string"),
            }
        ),
    }
)

VIEW_FEATURES = {
    "sft": _TRAINED,
    "masked-raw": _TRAINED,
    "steps": Features(
        {
            "question": Value("string"),
            "position": Value("int64"),
            "text": Value("string"),
            "skill": Value("string"),
            "category": Value("string"),
            "action": Value("string"),
            "rewrite": Value("string"),
            "start": Value("int64"),
            "end": Value("int64"),
            "model": Value("string"),
            "teacher": Value("string"),
            "accepted": Value("bool"),
        }
    ),
    "pairs": Features({"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES}),
    "raw": CORPUS_FEATURES,
}


def view_rows(view: str, rows: Iterable[CorpusRow]) -> Iterator[dict[str, Any]]:
    """The rows of a view, in the shape of `VIEW_FEATURES[view]` and in the order of the corpus rows."""
    for row in rows:
        yield from _VIEWS[view](row)


def _sft(row: CorpusRow) -> Iterator[dict[str, Any]]:
    if row.accepted:
        yield _trained(row, row.completion, apply_steps(row.reasoning, row.steps).spans)


def _masked_raw(row: CorpusRow) -> Iterator[dict[str, Any]]:
    if row.accepted:
        yield _trained(row, row.trace.output, row.steps)


def _trained(row: CorpusRow, completion: str, steps: Sequence[Step]) -> dict[str, Any]:
    """A row to train on, from a completion and the steps of its reasoning."""
    return {
        "prompt": _user(row.question),
        "completion": _assistant(completion),
        "steps": [
            {
                "start": span.start,
                "end": span.end,
                "skill": span.skill,
                "category": span.category,
                "action": span.action.value,
            }
            for span in completion_spans(steps)
        ],
    }


def _steps(row: CorpusRow) -> Iterator[dict[str, Any]]:
    for position, step in enumerate(row.steps):
        yield {
            "question": row.question,
            "position": position,
            "text": row.reasoning[step.start : step.end],
            "skill": step.skill,
            "category": step.category,
            "action": step.action.value,
            "rewrite": step.rewrite,
            "start": step.start,
            "end": step.end,
            "model": row.model,
            "teacher": row.teacher,
            "accepted": row.accepted,
        }


def _pairs(row: CorpusRow) -> Iterator[dict[str, Any]]:
    if not row.accepted:
        return
    yield {
        "prompt": _user(row.question),
        "chosen": _assistant(row.completion),
        "rejected": _assistant(row.trace.output),
    }


def _raw(row: CorpusRow) -> Iterator[dict[str, Any]]:
    yield row.to_dict()


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


_VIEWS: dict[str, Callable[[CorpusRow], Iterator[dict[str, Any]]]] = {
    "sft": _sft,
    "masked-raw": _masked_raw,
    "steps": _steps,
    "pairs": _pairs,
    "raw": _raw,
}
