"""Shards hold the rows as they are, and their bytes depend on nothing else."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features

from drp_hf.corpus.builder import SAMPLE_DIR
from drp_hf.corpus.folder import split_files
from drp_hf.corpus.views import VIEW_FEATURES
from drp_hf.errors import DRPError
from drp_hf.hub import shards as module
from drp_hf.hub.shards import write_shards

STEPS = SAMPLE_DIR / "steps" / "train.parquet"


@pytest.fixture
def many(tmp_path):
    """Ten thousand steps, all different."""
    table = pq.read_table(STEPS)
    table = pa.concat_tables([table] * (10_000 // len(table) + 1)).slice(0, 10_000)
    table = table.set_column(1, table.schema.field(1), pa.array(range(10_000)))
    pq.write_table(table, tmp_path / "train.parquet")
    return tmp_path / "train.parquet"


def test_many_shards(many, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 20_000)
    monkeypatch.setattr(module, "GROUP_BYTES", 200_000)
    written = write_shards([many], tmp_path / "a", "steps", "train")
    count = len(written.files)
    assert count > 2 and written.rows == 10_000 and written.features == VIEW_FEATURES["steps"]
    assert list(written.files) == [f"steps/train-{number:05d}-of-{count:05d}.parquet" for number in range(count)]
    assert split_files(written.files, "steps") == {"train": list(written.files)}
    assert written.bytes_on_disk == sum(path.stat().st_size for path in written.files.values())

    tables = [pq.read_table(path) for path in written.files.values()]
    assert pa.concat_tables(tables).equals(pq.read_table(many))
    for path in written.files.values():
        parquet = pq.ParquetFile(path)
        assert Features.from_arrow_schema(parquet.schema_arrow) == VIEW_FEATURES["steps"]
        column = parquet.metadata.row_group(0).column(2)
        assert column.compression == "ZSTD" and column.has_column_index and column.has_offset_index
        groups = [parquet.metadata.row_group(place).num_rows for place in range(parquet.num_row_groups)]
        assert len(groups) > 1 and max(groups) < 1500
        assert path.stat().st_size < 2 * 20_000

    again = write_shards([many], tmp_path / "b", "steps", "train")
    of_shards = write_shards(list(written.files.values()), tmp_path / "c", "steps", "train")
    for name, path in written.files.items():
        assert path.read_bytes() == again.files[name].read_bytes() == of_shards.files[name].read_bytes()


def test_columns_without_a_note_of_their_features(tmp_path):
    table = pq.read_table(STEPS).replace_schema_metadata()
    pq.write_table(table, tmp_path / "train.parquet")
    (shard,) = write_shards([tmp_path / "train.parquet"], tmp_path, "steps", "train").files.values()
    assert pq.read_schema(shard).metadata[b"huggingface"] and pq.read_table(shard).equals(table)


def test_no_rows_make_no_shard(many, tmp_path):
    pq.write_table(pq.read_table(many).slice(0, 0), many)
    written = write_shards([many], tmp_path / "a", "steps", "train")
    assert written.files == {} and written.rows == 0


def test_damaged_files(many, tmp_path):
    pq.write_table(pq.read_table(many).drop_columns("text"), tmp_path / "other.parquet")
    with pytest.raises(DRPError, match="other.parquet has other columns than .*train.parquet"):
        write_shards([many, tmp_path / "other.parquet"], tmp_path / "a", "steps", "train")
    (tmp_path / "none.parquet").write_text("no Parquet")
    with pytest.raises(DRPError, match="none.parquet is not a Parquet file"):
        write_shards([tmp_path / "none.parquet"], tmp_path / "a", "steps", "train")
