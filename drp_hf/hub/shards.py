"""A split of a corpus as the Hub wants it: Parquet shards of one size, whose bytes depend on the rows alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, config

from drp_hf.corpus import shard_file
from drp_hf.corpus.folder import open_parquet
from drp_hf.errors import DRPError
from drp_hf.tables import BATCH

SHARD_BYTES = 400_000_000
"""A shard is closed when its file has so many bytes."""
GROUP_BYTES = 32 << 20
"""Rows of so many bytes in memory make a row group: what a reader, and the Hub's viewer, must read for any one row."""


@dataclass(frozen=True)
class Shards:
    """A split that was written.

    Args:
        files: the shards, by path in the repository.
        features: their columns.
        rows: number of rows.
        bytes_in_memory: size of the rows as Arrow tables.
        bytes_on_disk: size of the files.
    """

    files: dict[str, Path]
    features: Features
    rows: int
    bytes_in_memory: int
    bytes_on_disk: int


def write_shards(files: Sequence[Path], target: Path, view: str, split: str) -> Shards:
    """Writes a split anew, one row group in memory at a time.

    As `Dataset.push_to_hub` does, the files have a page index, so that a viewer can read single pages, and pages that
    are cut by content, so that the Hub stores what two versions have in common once.

    Args:
        files: Parquet files of the split, in their order.
        target: folder of the shards; those of the view get a folder in it.
        view: the view.
        split: the split.

    Raises:
        DRPError: a file is no Parquet file, or has other columns than the first.
    """
    features = Features.from_arrow_schema(open_parquet(files[0]).schema_arrow)
    groups = _groups(files, features.arrow_schema)
    (target / view).mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    rows = size = 0
    group = next(groups, None)
    while group is not None:
        shard = target / view / f"{split}-{len(written):05d}.parquet"
        with shard.open("wb") as stream, _writer(stream, features.arrow_schema) as writer:
            while group is not None and stream.tell() < SHARD_BYTES:
                writer.write_table(group, row_group_size=group.num_rows)
                rows += group.num_rows
                size += group.nbytes
                group = next(groups, None)
        written.append(shard)
    named = {}
    for number, shard in enumerate(written):
        name = shard_file(view, split, number, len(written))
        named[name] = shard.rename(target / name)
    on_disk = sum(shard.stat().st_size for shard in named.values())
    return Shards(named, features, rows, size, on_disk)


def _writer(stream, schema: pa.Schema) -> pq.ParquetWriter:
    chunking = config.DEFAULT_CDC_OPTIONS
    writer = pq.ParquetWriter(
        stream, schema, compression="zstd", use_content_defined_chunking=chunking, write_page_index=True
    )
    writer.add_key_value_metadata({"content_defined_chunking": json.dumps(chunking)})
    return writer


def _groups(files: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in tables of up to `GROUP_BYTES`."""
    pieces: list[pa.Table] = []
    size = 0
    for file in files:
        parquet = open_parquet(file)
        for batch in parquet.iter_batches(BATCH):
            try:
                piece = pa.Table.from_batches([batch]).cast(schema)
            except (pa.ArrowInvalid, ValueError) as error:
                raise DRPError(f"{file} has other columns than {files[0]} ({error}): prune again.") from error
            if pieces and size + piece.nbytes > GROUP_BYTES:
                yield pa.concat_tables(pieces).combine_chunks()
                pieces, size = [], 0
            pieces.append(piece)
            size += piece.nbytes
    if pieces:
        yield pa.concat_tables(pieces).combine_chunks()
