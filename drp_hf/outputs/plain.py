"""Rows with `question`, `answer` and `output` (or `reasoning` and `response`), and more where it is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from drp_hf.errors import DRPError
from drp_hf.outputs.output import Output, Outputs, bare_golds, name_of, need
from drp_hf.records import render_output, whole
from drp_hf.tables import Table

OPTIONAL = {"n_tokens": int, "finished": bool, "sample": int, "benchmark": str, "model": str}


def read_plain(source: str, tables: Mapping[str, Table]) -> Outputs:
    """Opens plain rows.

    Args:
        source: file, folder or data set, for messages.
        tables: its splits. Columns: `question`, `answer` (gold: text, number, or a list where several are right),
            either `output` or `reasoning` and `response`, and *optional* `n_tokens`, `finished`, `sample`, `benchmark`
            (where it is missing and there are several splits: the split) and `model` (one for all rows).

    Raises:
        DRPError: a column is missing.
    """
    for table in tables.values():
        missing = [name for name in ("question", "answer") if name not in table.columns]
        if not {"reasoning", "response"} <= set(table.columns) and "output" not in table.columns:
            missing.append("output")
        if missing:
            raise DRPError(
                f"{table.name} has no column {' and no column '.join(map(repr, missing))}; it has "
                f"{', '.join(table.columns)}: give samples of lm-evaluation-harness, details of lighteval, or rows "
                "with question, answer and output (or reasoning and response)."
            )
    model = next(iter(tables.values())).first().get("model") or name_of(source)

    def read() -> Iterator[Output]:
        for split, table in tables.items():
            columns = [
                name
                for name in ("question", "answer", "output", "reasoning", "response", *OPTIONAL)
                if name in table.columns
            ]
            for number, row in table.rows(columns):
                where = f"{table.name} row {number}"
                yield _output(where, row, name_of(split) if len(tables) > 1 else None, model)

    return Outputs(model, read)


def _output(where: str, row: Mapping[str, Any], split: str | None, model: str) -> Output:
    question = whole(need(row, "question", str, where).strip())
    if not question:
        raise DRPError(f"{where}: the field 'question' is empty; fill it or drop the row.")
    if "answer" not in row:
        raise DRPError(f"{where} has no field 'answer', only {', '.join(row)}: add it or drop the row.")
    if row.get("output") is None and row.get("response") is not None:
        text = render_output(need(row, "reasoning", str, where), need(row, "response", str, where))
    else:
        text = need(row, "output", str, where)
    known = {name: need(row, name, kind, where) for name, kind in OPTIONAL.items() if row.get(name) is not None}
    for name in ("n_tokens", "sample"):
        if known.get(name, 0) < 0:
            raise DRPError(f"{where}: the field {name!r} holds {known[name]}, it must not be negative.")
    if known.pop("model", model) != model:
        raise DRPError(f"{where} is of the model {row['model']!r} and row 1 of {model!r}: give a file for each model.")
    golds = bare_golds(row["answer"], where, "answer")
    return Output(where, question, golds, whole(text), **{"benchmark": split, **known})
