"""What every format is read into, and the checks that they share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drp_hf.answers import extract_answer, stated_answer
from drp_hf.errors import DRPError
from drp_hf.golds import gold_text
from drp_hf.records import whole
from drp_hf.tables import JSON_LINES

LONGEST_BARE = 200
"""Characters; a longer gold answer, or one of several lines, is a whole solution, unless it is one formula."""

_DELIMITER = re.compile(r"\A(?:\$+|\\[(\[])\s*|\s*(?:\$+|\\[)\]])\Z")
_BRACKET = re.compile(r"(\\begin\b|\\left\s*\\?\W|[(\[{])|\\end\b|\\right\s*\\?\W|[)\]}]")
_WORKED_OUT = re.compile(r"\\begin\{(?:align|gather|eqnarray|multline|split)")


@dataclass(frozen=True)
class Output:
    """One output of a model.

    Args:
        where: file and row, for messages.
        question: what was asked.
        golds: the answers that count as right, bare.
        output: the whole output, think tags included.
        benchmark: what the question belongs to; None where the source does not say.
        sample: number of the sample among those of its question (0, 1, …); None where the source does not say.
        n_tokens: length as generated; None where the source does not say.
        finished: whether the model ended it; None where the source does not say.
        limit: tokens after which it was cut; None where the source does not say.
    """

    where: str
    question: str
    golds: tuple[str, ...]
    output: str
    benchmark: str | None = None
    sample: int | None = None
    n_tokens: int | None = None
    finished: bool | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Outputs:
    """The outputs of one model.

    Args:
        model: its name.
        read: gives the outputs one by one; can be called more than once.
        limit: tokens after which all of them were cut; None where the source does not say, or they differ.
        n_parameters: parameters of the model; None where the source does not say.
        commit: as in [`~drp_hf.tables.Table`].
    """

    model: str
    read: Callable[[], Iterator[Output]]
    limit: int | None = None
    n_parameters: int | None = None
    commit: str = ""


def bare_golds(value: Any, where: str, field: str) -> tuple[str, ...]:
    """The bare answers in a gold field: a text, a number, or a list of them.

    What a whole solution states (`\\boxed{18}`, "… #### 18", "the answer is 18") is taken from it; of several lines
    that state nothing, the final answer as of an output. A matrix or list over several lines is an answer. Whole
    numbers are written alike (`gold_text`).

    Raises:
        DRPError: there is none.
    """
    values = value if isinstance(value, list | tuple) else [value]
    golds = []
    for one in values:
        if isinstance(one, bool) or not isinstance(one, str | int | float | None):
            raise DRPError(f"{where}: the field {field!r} holds {one!r:.60}, it must be a text or a number.")
        text = gold_text(one)
        last_line = text[text.rfind("\n") + 1 :]
        # GSM8K's solutions end in "#### 18", whatever they call the answer before.
        stated = stated_answer(last_line) if last_line.startswith("####") else None
        gold = stated or stated_answer(text) or (extract_answer(text) if _is_solution(text) else None) or text
        if not gold:
            raise DRPError(f"{where}: the field {field!r} is empty; fill it or drop the row.")
        golds.append(gold_text(whole(gold)))
    if not golds:
        raise DRPError(f"{where}: the field {field!r} is empty; fill it or drop the row.")
    return tuple(dict.fromkeys(golds))


def _is_solution(text: str) -> bool:
    """Whether a gold answer is more than an answer: long or of several lines, and not in brackets as a whole."""
    outside = text if _WORKED_OUT.search(text) else _outside_brackets(_DELIMITER.sub("", text))
    return "\n" in outside or (len(text) > LONGEST_BARE and bool(outside))


def _outside_brackets(text: str) -> str:
    """What stands in no brackets and no environment; all of a text whose brackets do not match."""
    outside, depth, at = "", 0, 0
    for bracket in _BRACKET.finditer(text):
        if depth == 0:
            outside += text[at : bracket.start()]
        depth += 1 if bracket[1] else -1
        if depth < 0:
            return text
        at = bracket.end()
    return text if depth else outside + text[at:]


def need(row: Mapping[str, Any], field: str, kinds: type | tuple[type, ...], where: str) -> Any:
    """The value of a field that a row must have.

    Raises:
        DRPError: it is missing or of another type.
    """
    if field not in row:
        raise DRPError(f"{where} has no field {field!r}, only {', '.join(row)}: add it or drop the row.")
    value = row[field]
    if kinds is int and isinstance(value, float) and value.is_integer():  # as a table with gaps holds whole numbers
        value = int(value)
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        expected = " or ".join(_NAMES[kind] for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise DRPError(f"{where}: the field {field!r} holds {value!r:.60}, it must be {expected}.")
    return value


def one_run(source: str, tasks: Mapping[str, str | None]) -> None:
    """Checks that no task is there twice.

    Args:
        source: what the user gave.
        tasks: task by file.

    Raises:
        DRPError: one is, as after two runs into the same folder.
    """
    seen: dict[str | None, str] = {}
    for path, task in tasks.items():
        if task in seen:
            raise DRPError(f"{source} holds the task {task} twice ({seen[task]} and {path}): give one of the files.")
        seen[task] = path


def name_of(source: str) -> str:
    """What a file, folder or data set is called: its last part, of a file without its ending."""
    path = Path(source)
    return path.stem if path.suffix in (*JSON_LINES, ".parquet") else path.name


_NAMES = {str: "text", int: "a whole number", bool: "true or false", dict: "an object", list: "a list"}
