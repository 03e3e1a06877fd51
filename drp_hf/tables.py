"""Rows from a file, a folder or the Hub, as they are: which columns they must have is for the reader to say.

JSON Lines are read line by line and Parquet batch by batch, so that a file of any size fits. What is wrong with the
source (not found, not JSON, invalid UTF-8) is one sentence that names file and row.
"""

from __future__ import annotations

import glob
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drp_hf.errors import DRPError
from drp_hf.provenance import fingerprint

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict, IterableDataset

JSON_LINES = (".jsonl", ".ndjson", ".json")
BATCH = 100
"""Rows of a Parquet file that are in memory at a time: a row of a long trace may have a megabyte."""
COMMIT = re.compile(r"/[^/]+___[^/]+/[^/]+/[^/]+/([0-9a-f]{40})/")
"""How `datasets` keeps what it has loaded from the Hub: owner and name, configuration, version and commit."""


@dataclass(frozen=True)
class Table:
    """The rows of one file or split.

    Args:
        name: file or data set, for messages.
        columns: what the rows have (of JSON Lines: what the first row has).
        schema: the types; None for JSON Lines, whose rows can only be looked at one by one.
        count: number of rows; None for JSON Lines, which would have to be read for it.
        rows: called with the columns to read (all if None), gives row numbers from 1 and plain rows; can be called
            more than once.
        commit: of the data set on the Hub that they come from; empty where they do not, or it is not known.
    """

    name: str
    columns: list[str]
    schema: pa.Schema | None
    count: int | None
    rows: Callable[[Sequence[str] | None], Iterator[tuple[int, Mapping[str, Any]]]]
    commit: str = ""

    def first(self) -> Mapping[str, Any]:
        """The first row."""
        return next(self.rows(None))[1]


def open_tables(source: str | Path, split: str | None = None) -> dict[str, Table]:
    """Opens a source.

    Args:
        source: a JSON Lines or Parquet file (one split, `train`), a data set folder, or the name of a data set on the
            Hub.
        split: the split to open; all of them if None.

    Returns:
        A table a split, each with at least one row.

    Raises:
        DRPError: not found, empty or unreadable, or a split of a file is asked for.
    """
    path = Path(source)
    if path.is_file():
        if split is not None:
            raise DRPError(f"{source} is one file: leave out the split {split!r}, which only a data set has.")
        return {"train": open_file(path)}
    return _open_data_set(source, split)


def load_data_set(source: str | Path, name: str | None = None, split: str | None = None) -> Dataset | DatasetDict:
    """Loads what a source holds now, by `datasets`.

    Args:
        source: as in [`open_tables`].
        name: the configuration of the data set; a file has but one, however it is called.
        split: the split, or a part of one (`train[:100]`); all of them if None.

    Raises:
        DRPError: not found or unreadable, or there is no such configuration or split.
    """
    from datasets import config, load_dataset

    path = Path(source)
    what: dict[str, Any] = {"path": str(source), "name": name}
    if path.is_file():
        _check_file(path)
        kind = "parquet" if path.suffix == ".parquet" else "json"
        what = {"path": kind, "data_files": glob.escape(str(path))}
    elif not path.is_dir() and (path.suffix in (*JSON_LINES, ".parquet") or path.is_absolute() or len(path.parts) > 2):
        raise DRPError(f"{source} does not exist: give a JSON Lines or Parquet file, a folder, or a data set's name.")
    # A folder with a card is cached by its name alone: another of that name, or its earlier content, would be read.
    cache = Path(config.HF_DATASETS_CACHE, "folders", fingerprint(path)) if path.exists() else None
    try:
        return load_dataset(**what, split=split, cache_dir=cache and str(cache))
    except DRPError:  # of a corpus that comes with the package
        raise
    except Exception as error:  # a library's many ways to say that it cannot be loaded
        cause = error
        while cause.__cause__:  # what datasets raises last says only that something has failed
            cause = cause.__cause__
        said = " ".join(str(cause).split())
        raise DRPError(f"the data set {source} cannot be loaded ({type(cause).__name__}: {said}).") from error


def hub_commit(dataset: Dataset | IterableDataset | None) -> str:
    """The commit of the Hub's data set that rows were loaded from; empty if that is not known, as of a stream."""
    from datasets import Dataset

    files = dataset.cache_files if isinstance(dataset, Dataset) else []
    found = [COMMIT.search(Path(file["filename"]).as_posix()) for file in files]
    return next((match[1] for match in found if match), "")


def open_file(path: Path) -> Table:
    """Opens one JSON Lines or Parquet file.

    Raises:
        DRPError: its ending is another, or it is empty or unreadable.
    """
    if path.suffix not in (*JSON_LINES, ".parquet"):
        raise DRPError(f"{path} has an unknown ending: give JSON Lines (.jsonl) or Parquet (.parquet).")
    table = _open_parquet(path) if path.suffix == ".parquet" else _open_json_lines(path)
    if table is None or table.count == 0:
        raise DRPError(f"{path} is empty: give a file with at least one row.")
    return table


def _check_file(path: Path) -> None:
    """Refuses what `datasets` would refuse without naming file and row."""
    table = open_file(path)
    if table.schema is None:
        for _ in table.rows(None):
            pass


def _open_json_lines(path: Path) -> Table | None:
    def rows(columns: Sequence[str] | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, _parse(path, number, line)

    first = next(rows(), None)
    return Table(str(path), list(first[1]), None, None, rows) if first else None


def _parse(path: Path, number: int, line: bytes) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise DRPError(
            f"{path} row {number} is not valid UTF-8 (byte {error.start + 1} of the row): save the file as UTF-8."
        ) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DRPError(f"{path} row {number} is not JSON ({error}): write one object a line.") from error
    except ValueError as error:  # Python turns no more digits into a number
        raise DRPError(
            f"{path} row {number} holds a number of more than {sys.get_int_max_str_digits()} digits: write it in "
            "quotes, or drop the row."
        ) from error
    if not isinstance(row, dict):
        raise DRPError(
            f"{path} row {number} is not a JSON object but a {type(row).__name__}: write one object a line."
        )
    return row


def _open_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise DRPError(f"{path} is not a Parquet file ({error}): give a file that is.") from error

    def rows(columns: Sequence[str] | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        number = 0
        for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches(batch_size=BATCH, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield number, as_written(row)

    schema = file.schema_arrow
    as_written = _as_written(schema)
    return Table(str(path), schema.names, schema, file.metadata.num_rows, rows)


def _as_written(schema: pa.Schema) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What gives numbers of 16 or 32 bits their shortest digits back: as one of 64 bits 0.1 is 0.10000000149011612."""
    import pyarrow as pa

    kinds = (pa.types.is_float16, pa.types.is_float32)
    short = {field.name: field.type.to_pandas_dtype() for field in schema if any(kind(field.type) for kind in kinds)}

    def rewritten(row: dict[str, Any]) -> dict[str, Any]:
        fractions = {name: row[name] for name in short if row.get(name) is not None and not row[name].is_integer()}
        return row | {name: float(str(short[name](value))) for name, value in fractions.items()}

    return rewritten if short else lambda row: row


def _open_data_set(source: str | Path, split: str | None) -> dict[str, Table]:
    from datasets import DatasetDict

    loaded = load_data_set(source, split=split)
    data_sets: dict[str, Dataset] = dict(loaded) if isinstance(loaded, DatasetDict) else {str(split): loaded}
    tables = {}
    for name, data_set in data_sets.items():
        title = f"{source} ({name})"
        if not len(data_set):
            raise DRPError(f"{title} is empty: give a data set with at least one row.")

        def rows(columns: Sequence[str] | None = None, data_set: Dataset = data_set) -> Iterator[tuple[int, Any]]:
            chosen = data_set.select_columns(list(columns)) if columns else data_set
            return enumerate(map(_as_written(chosen.features.arrow_schema), chosen), 1)

        schema = data_set.features.arrow_schema
        tables[name] = Table(title, schema.names, schema, len(data_set), rows, hub_commit(data_set))
    return tables
