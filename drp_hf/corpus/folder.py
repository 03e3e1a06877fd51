"""What lies in a corpus folder: the files of its views, each split whole or in shards, and its rows."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from drp_hf.corpus import VIEWS
from drp_hf.errors import DRPError
from drp_hf.records import CORPUS_FEATURES, CorpusRow
from drp_hf.tables import BATCH

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
WHOLE = (0, 1)
"""Number and count of a split that is one file."""

TEXTS = ("reasoning", "response", "pruned_reasoning", "completion")
"""The columns of a row that are long."""


def split_files(names: Iterable[str], view: str) -> dict[str, list[str]]:
    """Parquet files of a view by split: one file, or shards in their order.

    Args:
        names: names or paths of the files; those that are no Parquet are passed over.
        view: where they lie, for messages.

    Raises:
        DRPError: a shard is missing, or a split is there twice.
    """
    splits: dict[str, dict[str, tuple[int, int]]] = {}
    for name in sorted(name for name in names if name.endswith(".parquet")):
        stem = PurePosixPath(name).stem
        shard = SHARD.fullmatch(stem)
        place = (int(shard["number"]), int(shard["count"])) if shard else WHOLE
        splits.setdefault(shard["split"] if shard else stem, {})[name] = place
    for split, files in splits.items():
        if sorted(files.values()) != [(number, len(files)) for number in range(len(files))]:
            raise DRPError(
                f"{view} has not every part of the split {split!r} just once ({', '.join(map(_name, files))}): "
                "remove what is too much, or fetch what is missing."
            )
    return {split: sorted(files, key=files.__getitem__) for split, files in splits.items()}


def view_files(folder: Path, view: str) -> dict[str, list[Path]]:
    """Local files of a view by split; empty where there are none.

    Raises:
        DRPError: as [`split_files`].
    """
    names = [path.as_posix() for path in (folder / view).glob("*.parquet")]
    return {split: list(map(Path, files)) for split, files in split_files(names, str(folder / view)).items()}


def open_parquet(file: Path) -> pq.ParquetFile:
    """Opens a Parquet file of a corpus.

    Raises:
        DRPError: it is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # What is read ahead would stay in memory as long as the file is open.
        return pq.ParquetFile(file, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise DRPError(f"{file} is not a Parquet file ({error}): prune again.") from error


def rows_fingerprint(folder: Path, view: str) -> str | None:
    """SHA-256 of the rows of a view by split (16 hex digits), however their files are cut and whatever wrote them.

    Raises:
        DRPError: as [`split_files`].
    """
    splits = view_files(folder, view)
    digest = hashlib.sha256()
    for split, files in sorted(splits.items()):
        digest.update(split.encode())
        for batch in (batch for file in files for batch in open_parquet(file).iter_batches(BATCH)):
            for row in batch.to_pylist():
                digest.update(json.dumps(row, default=str).encode())
    return digest.hexdigest()[:16] if splits else None


def corpus_rows(folder: Path, texts: bool = True) -> Iterator[CorpusRow]:
    """Every row of a corpus, accepted or not, a hundred in memory at a time.

    Args:
        folder: the corpus.
        texts: whether the long texts of a row are read too; they are empty if not.

    Raises:
        DRPError: the folder is no corpus, or its files lack a column.
    """
    splits = view_files(folder, "raw")
    if not splits:
        raise DRPError(f"{folder} has no raw/*.parquet: give a corpus folder that drp prune wrote.")
    for file in [file for files in splits.values() for file in files]:
        parquet = open_parquet(file)
        missing = [name for name in CORPUS_FEATURES if name not in parquet.schema_arrow.names]
        if missing:
            raise DRPError(f"{file} lacks the column {missing[0]!r}: prune again with this version.")
        columns = [name for name in CORPUS_FEATURES if texts or name not in TEXTS]
        for batch in parquet.iter_batches(BATCH, columns=columns):
            for row in batch.to_pylist():
                try:
                    corpus_row = CorpusRow.from_dict(row if texts else dict.fromkeys(TEXTS, "") | row)
                except ValueError as error:
                    raise DRPError(f"{file} has a step with an unknown action ({error}): prune again.") from error
                yield corpus_row


def views_of(folder: Path) -> dict[str, dict[str, list[Path]]]:
    """The files of every view that has any, by view and split; the default view first."""
    views = {view: view_files(folder, view) for view in VIEWS}
    return {view: splits for view, splits in views.items() if splits}


def _name(path: str) -> str:
    return PurePosixPath(path).name
