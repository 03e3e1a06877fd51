"""Other people's files: traces and problems from JSON Lines, Parquet, a data set folder or a data set of the Hub.

What is wrong with the source as a whole (not found, not JSON, invalid UTF-8, a missing or wrong column) stops before
any row is handed out, with one sentence that names file, row and field. What is wrong with one trace (no think tags,
cut off, far too long, …) is handed out with the trace as its `problem`, so that the rest goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drp_hf.errors import DRPError
from drp_hf.golds import gold_text
from drp_hf.outputs import bare_golds
from drp_hf.records import THINK_CLOSE, THINK_OPEN, Problem, Trace, whole
from drp_hf.tables import Table, open_tables

MAX_CHARACTERS = 2_000_000
"""Longest row that is looked at, in characters (about half a million tokens); a longer one is a broken file's."""
HALF_PAIR = "holds half of a surrogate pair"

TEXT, ANSWER = "text", "text or a number"
PROBLEM_FIELDS = {"question": TEXT, "answer": ANSWER}
TRACE_FIELDS = {**PROBLEM_FIELDS, "reasoning": TEXT, "response": TEXT}
OUTPUT_FIELDS = {**PROBLEM_FIELDS, "output": TEXT}


@dataclass(frozen=True)
class Reading:
    """One row of a source of traces.

    Args:
        location: file or data set and row ("traces.jsonl row 3", counted from 1), for messages.
        trace: the trace; where there is a problem, as much of it as could be read.
        problem: why it cannot be pruned; empty where it can.
    """

    location: str
    trace: Trace
    problem: str = ""


@dataclass(frozen=True)
class Source:
    """The rows of one split, checked.

    Args:
        name: file or data set, for messages.
        count: number of rows.
        rows: gives an iterator over row numbers (from 1) and plain rows; can be called more than once.
        commit: as in [`~drp_hf.tables.Table`].
    """

    name: str
    count: int
    rows: Callable[[], Iterator[tuple[int, Mapping[str, Any]]]]
    commit: str


@dataclass(frozen=True)
class Readings:
    """The readings of one split: their number is known, and they can be gone through more than once."""

    table: Source

    def __len__(self) -> int:
        return self.table.count

    def __iter__(self) -> Iterator[Reading]:
        for number, row in self.table.rows():
            yield _reading(f"{self.table.name} row {number}", row)


def read_traces(source: str | Path, split: str | None = None) -> dict[str, Readings]:
    """Opens a source of traces and checks its columns.

    Args:
        source: a JSON Lines or Parquet file (one split, `train`), a data set folder, or the name of a data set on the
            Hub. Columns: `question`, `answer`, either `reasoning` and `response` or `output` (the whole output; its
            opening think tag may be missing, as where the prompt ends in it), and *optional* `model`. Of an `answer`
            that is a whole solution, as GSM8K's and MATH's are, what it states is taken.
        split: the split to read, or a part of one (`train[:100]`); all of them if None.

    Returns:
        The readings by split; those of a part have the name of the whole.

    Raises:
        DRPError: not found, empty, unreadable, or a column is missing or of the wrong type.
    """
    return {_split_name(name): Readings(table) for name, table in _open(source, split, traces=True).items()}


def read_problems(source: str | Path, split: str | None = None) -> list[Problem]:
    """Reads questions with gold answers (columns `question` and `answer`); sources as in `read_traces`.

    Raises:
        DRPError: as `read_traces`; also a field that is empty or holds half of a surrogate pair, or several splits and
            none chosen.
    """
    tables = _open(source, split, traces=False)
    if len(tables) > 1:
        raise DRPError(f"{source} has the splits {', '.join(tables)}: choose one of them.")
    (table,) = tables.values()
    problems = []
    for number, row in table.rows():
        where = f"{table.name} row {number}"
        for field in PROBLEM_FIELDS:
            value = gold_text(row[field])
            if not value:
                raise DRPError(f"{where}: the field {field!r} is empty; fill it or drop the row.")
            if whole(value) != value:
                raise DRPError(f"{where}: the field {field!r} {HALF_PAIR}; mend it or drop the row.")
        problems.append(Problem(row["question"].strip(), bare_golds(row["answer"], where, "answer")[0]))
    return problems


def split_output(output: str) -> tuple[str, str, str]:
    """Splits a whole output at its think tags.

    The opening tag may be missing: chat templates that put it into the prompt leave it out of what is generated.

    Returns:
        `(reasoning, response, problem)`, stripped of surrounding white space. With a problem (no tags, more than one
        pair, cut off before the closing tag, text before the opening one) the whole output is in `response`.
    """
    opened, closed = output.count(THINK_OPEN), output.count(THINK_CLOSE)
    before, _, rest = output.rpartition(THINK_OPEN)
    reasoning, _, response = rest.partition(THINK_CLOSE)
    if opened > 1 or closed > 1:
        problem = "more than one pair of think tags"
    elif not opened and not closed:
        problem = "no think tags"
    elif not closed:
        problem = "the think tag is not closed: the output was cut off"
    elif THINK_CLOSE in before:
        problem = "the think tags are in the wrong order"
    elif before.strip():
        problem = "there is text before the think tag"
    else:
        return reasoning.strip(), response.strip(), ""
    return "", output.strip(), problem


def _gold(value: str, where: str) -> str:
    return bare_golds(value, where, "answer")[0] if value.strip() else ""


def _reading(location: str, row: Mapping[str, Any]) -> Reading:
    values = {name: row.get(name) for name in (*TRACE_FIELDS, "output", "model")}
    values = {name: value if isinstance(value, str) else gold_text(value) for name, value in values.items()}
    size = sum(map(len, values.values()))
    if size > MAX_CHARACTERS:
        short = {name: values[name] for name in ("question", "answer", "model") if len(values[name]) < 10_000}
        trace = Trace(**{"question": "", "answer": "", "reasoning": "", "response": "", **short})
        return Reading(location, trace, f"{size:,} characters are more than the {MAX_CHARACTERS:,} a row may have")

    problem = ""
    for name, value in values.items():
        values[name] = whole(value)
        if values[name] != value:
            problem = f"the field {name!r} {HALF_PAIR}"
    question, answer = values["question"].strip(), _gold(values["answer"], location)
    if not {"reasoning", "response"} <= row.keys():
        reasoning, response, of_output = split_output(values["output"])
        problem = problem or of_output
    else:
        reasoning, response = values["reasoning"].strip(), values["response"].strip()
        if any(tag in text for tag in (THINK_OPEN, THINK_CLOSE) for text in (reasoning, response)):
            problem = problem or "think tags inside the reasoning or the response"
    for name, value in {"question": question, "answer": answer}.items():
        if not value:
            problem = problem or f"the {name} is empty"
    if not reasoning:
        problem = problem or "the reasoning is empty"
    return Reading(location, Trace(question, answer, reasoning, response, values["model"] or "unknown"), problem)


# -------------------------------------------------------------------------------------------------------- columns

PART = re.compile(r"(\w+(?:\.\w+)*)(\[.*\])?")
"""A split as `load_dataset` names them, or a part of one."""


def _split_name(split: str) -> str:
    part = PART.fullmatch(split)
    if not part:
        raise DRPError(f"split is {split!r}: give one split, or a part of one (train[:100]).")
    return part[1]


def _open(source: str | Path, split: str | None, traces: bool) -> dict[str, Source]:
    return {name: _checked(table, traces) for name, table in open_tables(source, split).items()}


def _checked(table: Table, traces: bool) -> Source:
    fields = _fields(table.name, table.columns, traces)
    count = table.count
    if table.schema is not None:
        _check_schema(table.name, table.schema, fields)
    else:
        count = 0
        for number, row in table.rows(None):
            _check_row(table.name, number, row, fields)
            count += 1
    return Source(table.name, count, lambda: table.rows(list(fields)), table.commit)


def _check_row(name: str, number: int, row: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    for field, kind in fields.items():
        if field not in row and field != "model":
            raise DRPError(
                f"{name} row {number} has no field {field!r}, only {', '.join(row)}: add it or drop the row."
            )
        allowed = (str,) if kind == TEXT else (str, int, float)
        value = row.get(field)
        if value is not None and (not isinstance(value, allowed) or isinstance(value, bool)):
            raise DRPError(f"{name} row {number}: the field {field!r} holds {value!r:.40}, it must be {kind}.")


def _check_schema(name: str, schema: Any, fields: Mapping[str, str]) -> None:
    import pyarrow as pa

    for field, kind in fields.items():
        dtype = schema.field(field).type
        text = pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype)
        number = pa.types.is_integer(dtype) or pa.types.is_floating(dtype)
        if not (text or (kind == ANSWER and number)):
            raise DRPError(f"{name}: the column {field!r} is {dtype}, it must be {kind}.")


def _fields(name: str, columns: list[str], traces: bool) -> dict[str, str]:
    """The fields to read and what each must be; an error where the columns do not offer them."""
    if not traces:
        fields = PROBLEM_FIELDS
    else:
        whole = "output" in columns and not {"reasoning", "response"} <= set(columns)
        fields = OUTPUT_FIELDS if whole else TRACE_FIELDS
    missing = [field for field in fields if field not in columns]
    if missing:
        or_output = " (or one column 'output' with think tags)" if {"reasoning", "response"} & set(missing) else ""
        raise DRPError(
            f"{name} has no column {' and no column '.join(map(repr, missing))}{or_output}; "
            f"it has {', '.join(columns) or 'none'}: rename or add it."
        )
    return {**fields, "model": TEXT} if traces and "model" in columns else dict(fields)
