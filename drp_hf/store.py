"""Rows that survive: a durable key-value file for a running stage, and Parquet for its result."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drp_hf.errors import DRPError

if TYPE_CHECKING:
    from datasets import Features

ROWS_PER_GROUP = 1000
PERMISSIONS = "choose another folder, or correct its permissions."


def content_key(*parts: Any) -> str:
    """SHA-256 (hex) of everything that decides a row; equal parts give equal keys in every process.

    Args:
        parts: JSON values; order counts, and `("ab", "c")` differs from `("a", "bc")`.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class RowStore:
    """Rows of a stage, each on disk before `put` returns (SQLite, write-ahead log, full synchronisation).

    A process killed at any point leaves every row it had put, and at most a torn last one, which SQLite drops by its
    checksum when the file is next opened. One process writes at a time: the file stays locked while it is open, and
    `<path>-owner` names the process that holds it. Several threads of that process may use it.

    Args:
        path: the file; made with its folder when absent. SQLite keeps `<path>-wal` beside it while it is open.
        remakeable: whether rows can be made again at no cost. Then a power cut may take the last ones (nothing else
            does), and a row costs no wait for the disk.

    Raises:
        DRPError: another process has it open, it cannot be written, or the file is not a store.
    """

    def __init__(self, path: str | Path, remakeable: bool = False):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._transaction = threading.Lock()
        self._owner = self.path.with_name(f"{self.path.name}-owner")
        try:
            # One connection may serve several threads: SQLite itself is built serialised.
            self._db = sqlite3.connect(self.path, timeout=1, isolation_level=None, check_same_thread=False)
        except sqlite3.OperationalError as error:
            raise DRPError(f"{self.path} cannot be opened ({error}): {PERMISSIONS}") from error
        try:
            # An exclusive lock needs no shared memory, so that network file systems work too.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(f"PRAGMA synchronous={'NORMAL' if remakeable else 'FULL'}")
            self._db.execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, row TEXT NOT NULL) WITHOUT ROWID")
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._db.close()
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                holder = self._owner.read_text(encoding="utf-8") if self._owner.exists() else "another process"
                advice = f"{holder} uses it; wait for it, or choose another folder."
            else:
                advice = PERMISSIONS
            raise DRPError(f"{self.path} cannot be opened ({error}): {advice}") from error
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise DRPError(f"{self.path} is not a row store ({error}): delete it to start afresh.") from error
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self._owner.write_text(f"process {os.getpid()} on {platform.node()} (since {since})", encoding="utf-8")

    def get(self, key: str) -> dict[str, Any] | None:
        """The row put under `key`, or None."""
        found = self._db.execute("SELECT row FROM rows WHERE key = ?", (key,)).fetchone()
        return json.loads(found[0]) if found else None

    def put(self, key: str, row: Mapping[str, Any]) -> None:
        """Writes a row (JSON values) and returns when it is on disk; an earlier row of that key is replaced."""
        self.put_many({key: row})

    def put_many(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes the rows of a batch by key, all of them or none, and returns when they are on disk."""
        with self._transaction:
            self._db.execute("BEGIN")
            try:
                self._db.executemany(
                    "INSERT OR REPLACE INTO rows VALUES (?, ?)",
                    ((key, json.dumps(row, ensure_ascii=True)) for key, row in rows.items()),
                )
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError):
                    raise DRPError(
                        f"{self.path} cannot be written ({error}): make room or mend the disk, and start again; what "
                        "is done is kept."
                    ) from error
                raise

    def __contains__(self, key: str) -> bool:
        return self._db.execute("SELECT 1 FROM rows WHERE key = ?", (key,)).fetchone() is not None

    def __iter__(self) -> Iterator[str]:
        """The keys, sorted."""
        return (key for (key,) in self._db.execute("SELECT key FROM rows ORDER BY key"))

    def __len__(self) -> int:
        return self._db.execute("SELECT count(*) FROM rows").fetchone()[0]

    def close(self) -> None:
        self._owner.unlink(missing_ok=True)
        self._db.close()

    def __enter__(self) -> RowStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write a file at, which becomes `path` when all is written and on disk, and goes when that fails.

    Args:
        path: the file; its folder is made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        with partial.open("rb") as written:
            os.fsync(written.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)


def write_json_lines(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line; whole or not at all."""
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_parquet(path: str | Path, rows: Iterable[Mapping[str, Any]], features: Features) -> int:
    """Writes rows as one Parquet file that `datasets` reads back with the same features; whole or not at all.

    Args:
        path: the file; its folder is made. It appears under this name only when it is complete.
        rows: any number of rows, taken in groups of 1000, so that they need not fit in memory.
        features: their columns.

    Returns:
        The number of rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = features.arrow_schema
    remaining = iter(rows)
    count = 0
    with whole_file(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        while group := list(islice(remaining, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            count += len(group)
    return count
