"""The content of one file, in memory or on disk, and how the Hub names it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PIECE = 1 << 20
"""Bytes that are read and sent at a time."""


@dataclass(frozen=True)
class Content:
    """The content of a file.

    Args:
        size: in bytes.
        oid: git's name of the blob; of an LFS object: of its pointer.
        source: the bytes themselves or the file that has them.
        sha256 (*optional*): name of an LFS object, None for a regular file.
    """

    size: int
    oid: str
    source: bytes | Path
    sha256: str | None = None

    @classmethod
    def regular(cls, source: bytes | Path) -> Content:
        """A file that git keeps itself."""
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        digest = hashlib.sha1(b"blob %d\0" % size)
        for piece in _pieces(source, 0, size):
            digest.update(piece)
        return cls(size, digest.hexdigest(), source)

    @classmethod
    def large(cls, path: Path, sha256: str) -> Content:
        """A file that git keeps a pointer to."""
        size = path.stat().st_size
        return cls(size, cls.regular(pointer(sha256, size)).oid, path, sha256)

    @property
    def etag(self) -> str:
        """What changes with the content."""
        return self.sha256 or self.oid

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, a piece at a time."""
        return _pieces(self.source, start, self.size if end is None else end)

    def read(self) -> bytes:
        return b"".join(self.pieces())

    def describe(self) -> dict:
        """Size and names as a listing has them."""
        described = {"type": "file", "size": self.size, "oid": self.oid}
        if self.sha256:
            size = len(pointer(self.sha256, self.size))
            described["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": size}
        return described


def pointer(sha256: str, size: int) -> bytes:
    """The text that git keeps for an LFS object."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _pieces(source: bytes | Path, start: int, end: int) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source[start:end]
        return
    with source.open("rb") as stream:
        stream.seek(start)
        while start < end and (piece := stream.read(min(PIECE, end - start))):
            start += len(piece)
            yield piece
