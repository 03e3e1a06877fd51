"""Durable rows: what was put is there after a kill, and nothing half-written is ever read."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, List, Value, load_dataset

from drp_hf.errors import DRPError
from drp_hf.store import RowStore, content_key, write_parquet

FEATURES = Features({"text": Value("string"), "spans": List({"start": Value("int64"), "skill": Value("string")})})
ROWS = [
    {"text": "a", "spans": []},
    {"text": "é\n漢 🙂", "spans": [{"start": 0, "skill": "addition"}, {"start": 1, "skill": ""}]},
]

PUT_AND_DIE = """
import os, signal, sys
from drp_hf.store import RowStore
store = RowStore(sys.argv[1])
for number in range(20):
    store.put(str(number), {"number": number})
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_store(path: Path) -> None:
    """Fills `path` with 20 rows in a process that is killed before it can close the file."""
    result = subprocess.run([sys.executable, "-c", PUT_AND_DIE, str(path)], capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr


def test_rows_come_back(tmp_path):
    with RowStore(tmp_path / "deep" / "rows.sqlite") as store:
        assert store.get("k") is None and "k" not in store
        store.put("k", ROWS[1])
        store.put_many({"l": ROWS[0], "m": {"n": [1, 2.5, None, True]}})
        assert store.get("k") == ROWS[1] and "k" in store and len(store) == 3
    with RowStore(tmp_path / "deep" / "rows.sqlite") as store:
        assert store.get("m") == {"n": [1, 2.5, None, True]}
        store.put("k", ROWS[0])
        assert store.get("k") == ROWS[0] and len(store) == 3


def test_a_lone_surrogate_is_kept(tmp_path):
    with RowStore(tmp_path / "rows.sqlite") as store:
        store.put("k", {"text": "\ud83d"})
        assert store.get("k") == {"text": "\ud83d"}


def test_a_batch_is_all_or_nothing(tmp_path):
    with RowStore(tmp_path / "rows.sqlite") as store:
        with pytest.raises(TypeError):
            store.put_many({"a": {"fine": 1}, "b": {"not json": object()}})
        assert len(store) == 0
        store.put("a", {"fine": 1})
        assert len(store) == 1


def test_rows_survive_sigkill(tmp_path):
    killed_store(tmp_path / "rows.sqlite")
    with RowStore(tmp_path / "rows.sqlite") as store:
        assert [store.get(str(number)) for number in range(20)] == [{"number": number} for number in range(20)]


@pytest.mark.parametrize("damage", ["truncated", "garbled"])
def test_a_torn_tail_costs_the_last_row_only(tmp_path, damage):
    killed_store(tmp_path / "rows.sqlite")
    log = tmp_path / "rows.sqlite-wal"
    content = log.read_bytes()
    log.write_bytes(content[:-100] if damage == "truncated" else content[:-100] + b"\xff" * 100)
    with RowStore(tmp_path / "rows.sqlite") as store:
        assert len(store) == 19 and store.get("18") == {"number": 18}
        store.put("19", {"number": 19})
    with RowStore(tmp_path / "rows.sqlite") as store:
        assert len(store) == 20


def test_one_writer_at_a_time(tmp_path):
    with RowStore(tmp_path / "rows.sqlite"):
        with pytest.raises(DRPError, match="rows.sqlite cannot be opened"):
            RowStore(tmp_path / "rows.sqlite")
    RowStore(tmp_path / "rows.sqlite").close()


def test_what_cannot_be_opened_blames_nobody(tmp_path):
    (tmp_path / "rows.sqlite").mkdir()
    (tmp_path / "rows.sqlite-owner").write_text("process 123 on a machine of long ago")
    with pytest.raises(DRPError, match="rows.sqlite cannot be opened .*: choose another folder, or correct its perm"):
        RowStore(tmp_path / "rows.sqlite")


def test_another_file_is_not_a_store(tmp_path):
    (tmp_path / "rows.sqlite").write_text("hello, I am a text file, quite a long one\n" * 50)
    with pytest.raises(DRPError, match="rows.sqlite is not a row store"):
        RowStore(tmp_path / "rows.sqlite")


def test_key_depends_on_every_part_and_on_nothing_else():
    assert content_key("ab", "c") != content_key("a", "bc")
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key("a", 1) != content_key("a", "1")
    command = "from drp_hf.store import content_key; print(content_key('é', {'b': 2, 'a': [1, None]}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=environment)
    assert other.stdout.strip() == content_key("é", {"b": 2, "a": [1, None]})


def test_parquet_keeps_rows_and_features(tmp_path, monkeypatch):
    monkeypatch.setattr("drp_hf.store.ROWS_PER_GROUP", 3)
    rows = ROWS * 5
    assert write_parquet(tmp_path / "new" / "rows.parquet", iter(rows), FEATURES) == 10
    read = load_dataset("parquet", data_files=str(tmp_path / "new" / "rows.parquet"), cache_dir=tmp_path / "cache")
    assert read["train"].features == FEATURES
    assert read["train"].to_list() == Dataset.from_list(rows, features=FEATURES).to_list() == rows


def test_parquet_of_no_rows_has_its_columns(tmp_path):
    assert write_parquet(tmp_path / "rows.parquet", [], FEATURES) == 0
    assert Features.from_arrow_schema(pq.read_schema(tmp_path / "rows.parquet")) == FEATURES


def test_failed_parquet_leaves_the_old_file(tmp_path):
    def broken():
        yield ROWS[0]
        raise RuntimeError("no more")

    write_parquet(tmp_path / "rows.parquet", ROWS, FEATURES)
    before = (tmp_path / "rows.parquet").read_bytes()
    with pytest.raises(RuntimeError, match="no more"):
        write_parquet(tmp_path / "rows.parquet", broken(), FEATURES)
    assert (tmp_path / "rows.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"], "its room is given back"
