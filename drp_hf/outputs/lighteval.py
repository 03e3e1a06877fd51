"""Details of lighteval (`--save-details`): a Parquet file a task, a row a document with all its samples.

Since version 0.10 a row holds a `doc` and a `model_response`; before, it held `full_prompt`, `predictions`, `gold` and
`cont_tokens`. `results/<model>/results_<date>.json` in the output folder names the model and its limit.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drp_hf.errors import DRPError
from drp_hf.outputs.output import Output, Outputs, bare_golds, name_of, need, one_run
from drp_hf.records import THINK_CLOSE, render_output, whole
from drp_hf.tables import Table

DETAILS = {"doc", "model_response"}
OLDER_DETAILS = {"full_prompt", "predictions", "cont_tokens", "gold"}
"""Columns by which the format is recognised."""
LONGEST_PERIOD = 40
"""Characters of a piece that a text may repeat at its end."""


@dataclass(frozen=True)
class _Row:
    """What both forms of a row say."""

    question: str
    golds: Any
    texts: list[str]
    tokens: list[Sequence[int]]
    limit: int | None


def read_lighteval(source: str, tables: Mapping[str, Table]) -> Outputs:
    """Opens details.

    Args:
        source: what the user gave.
        tables: files of details by path, or the splits of a data set.

    Raises:
        DRPError: they are of more than one run.
    """
    tasks = {path: _task(path) for path in tables}
    one_run(source, tasks)
    runs = {path: _run(source, Path(path)) for path in tables}
    models = {model for model, _ in runs.values()}
    if len(models) > 1:
        raise DRPError(f"{source} holds the models {', '.join(sorted(models))}: give the outputs of one of them.")

    def read() -> Iterator[Output]:
        for path, table in tables.items():
            yield from _outputs(table, tasks[path], runs[path][1])

    limits = {
        runs[path][1] or _reader(table)(f"{table.name} row 1", table.first()).limit for path, table in tables.items()
    }
    return Outputs(models.pop(), read, limits.pop() if len(limits) == 1 else None)


def _task(path: str) -> str:
    """The task in the name `details_<suite>|<task>|<shots>_<date>`, as versions 0.10 on without the suite."""
    name = Path(path).stem.removeprefix("details_").rpartition("_")[0] or path
    parts = name.split("|")
    return next((part for part in parts[-2::-1] if part), name)


def _run(source: str, path: Path) -> tuple[str, int | None]:
    """Model, and the limit of all its outputs where one was set, of the run that a file of details belongs to."""
    date = path.stem.rpartition("_")[2]
    folders = [parent for parent in list(path.parents)[2:] if parent.name == "details"]
    if not folders:
        return name_of(source), None
    model_folder = path.parent.parent
    results = folders[0].parent / "results" / model_folder.relative_to(folders[0]) / f"results_{date}.json"
    if not results.is_file():
        return str(model_folder.relative_to(folders[0])), None
    try:
        config = json.loads(results.read_bytes())["config_general"]
        settings = (config.get("model_config") or {}).get("generation_parameters") or {}
        return config["model_name"], settings.get("max_new_tokens")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DRPError(f"{results} is not what lighteval writes ({error!r}): mend it or take it away.") from error


def _outputs(table: Table, task: str, run_limit: int | None) -> Iterator[Output]:
    read = _reader(table)
    fill = _Filling.of(read(table.name, row) for _, row in table.rows(None))
    for number, row in table.rows(None):
        where = f"{table.name} row {number}"
        found = read(where, row)
        golds = bare_golds(found.golds, where, "gold")
        limit = run_limit or found.limit
        for index, text in enumerate(found.texts):
            tokens = found.tokens[index] if index < len(found.tokens) else []
            count = fill.length(tokens) if len(tokens) else None
            finished = None if count is None or limit is None else count < limit
            if count and tokens[count - 1] == fill.end:
                finished = True
            yield Output(where, found.question, golds, whole(text), task, index, count, finished, limit)


def _reader(table: Table) -> Callable[[str, Mapping[str, Any]], _Row]:
    return _present if set(table.columns) >= DETAILS else _older


def _present(where: str, row: Mapping[str, Any]) -> _Row:
    doc, response = need(row, "doc", dict, where), need(row, "model_response", dict, where)
    indices = doc.get("gold_index")
    try:
        golds = [doc["choices"][index] for index in (indices if isinstance(indices, list) else [indices])]
    except (KeyError, IndexError, TypeError) as error:
        raise DRPError(f"{where} has no gold answer ({error!r}): give details of a task that has.") from error
    texts = _texts(where, response.get("text"))
    reasonings = response.get("reasonings") or [None] * len(texts)
    for index, (text, reasoning) in enumerate(zip(texts, reasonings, strict=True)):
        if reasoning and THINK_CLOSE not in text:  # where a server kept it apart
            texts[index] = render_output(reasoning, text)
    return _Row(
        question=whole((doc.get("original_query") or need(doc, "query", str, where)).strip()),
        golds=golds,
        texts=texts,
        tokens=response.get("output_tokens") or [],
        limit=doc.get("generation_size"),
    )


def _older(where: str, row: Mapping[str, Any]) -> _Row:
    tokens: list[Any] = row["cont_tokens"] or []
    if tokens and tokens[0] and isinstance(tokens[0][0], list):  # several samples of one request
        tokens = [sample for request in tokens for sample in request]
    question = row.get("example") or row["full_prompt"]
    return _Row(whole(str(question).strip()), row["gold"], _texts(where, row["predictions"]), tokens, None)


def _texts(where: str, texts: Any) -> list[str]:
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise DRPError(f"{where} has no generated text ({texts!r:.60}): give details of a generative task.")
    return list(texts)


@dataclass(frozen=True)
class _Filling:
    """How the outputs of a file were filled up to the longest of their batch, as lighteval's transformers engine does.

    The file does not name the token. It is the one that ends outputs over and over while their texts do not repeat
    themselves, and that occurs nowhere else.

    Args:
        pad: the token outputs are filled with; None if they are not.
        end: the token at which the model ends an output, often the same; None if it is not known.
    """

    pad: int | None = None
    end: int | None = None

    @classmethod
    def of(cls, rows: Iterable[_Row]) -> _Filling:
        inside: set[int] = set()
        filled: Counter[int] = Counter()
        before: dict[int, set[int]] = {}
        for row in rows:
            for tokens, text in zip(row.tokens, row.texts, strict=False):
                start = _run_start(tokens)
                inside.update(tokens[: max(start - 1, 0)])
                if len(tokens) - start > 1 and not _repeats(text, len(tokens) - start):
                    filled[tokens[-1]] += 1
                    before.setdefault(tokens[-1], set()).update(tokens[start - 1 : start])
        pad = next((token for token, _ in filled.most_common() if token not in inside), None)
        if pad is None:
            return cls()
        ends = before[pad] - inside
        # Of outputs that the filling itself ends, the tokens before it are of their texts and occur elsewhere, too.
        return cls(pad, *ends) if len(ends) == len(before[pad]) == 1 else cls(pad, pad)

    def length(self, tokens: Sequence[int]) -> int:
        """Tokens without the filling, the one that ends the output included."""
        if self.pad is None or tokens[-1] != self.pad:
            return len(tokens)
        return _run_start(tokens) + (self.end == self.pad)


def _run_start(tokens: Sequence[int]) -> int:
    """Where the run of equal tokens at the end begins."""
    start = len(tokens)
    while start and tokens[start - 1] == tokens[-1]:
        start -= 1
    return start


def _repeats(text: str, times: int) -> bool:
    """Whether the text ends in the same piece so many times."""
    return any(text.endswith(text[-period:] * times) for period in range(1, LONGEST_PERIOD) if text[-period:])
