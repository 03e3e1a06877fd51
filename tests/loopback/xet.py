"""Uploads to Xet, which the clients choose wherever they find its library.

A file comes as chunks in xorbs, and a shard says which chunks of which xorbs make it. The formats are those of
https://huggingface.co/docs/xet: shards and xorbs. Downloads need none of it: they come from `resolve`.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow

from tests.loopback.errors import HubError
from tests.loopback.plumbing import Plumbing
from tests.loopback.repository import Repository
from tests.loopback.routes import API, KINDS, NAME, REVISION, Route

CAS = rf"/cas/(?P<signature>\w+)/{KINDS}/{NAME}"
ENTRY = 48
"""Bytes of everything in a shard: its head, files, their terms and what follows them."""
END_OF_FILES = b"\xff" * 32
WITH_VERIFICATION, WITH_METADATA = 1 << 31, 1 << 30


class Xet(Plumbing):
    """What Xet's library asks for."""

    routes = (
        Route("GET", f"{API}/xet-write-token/{REVISION}", "grant_xet_uploads", "write"),
        Route("POST", rf"{CAS}/v1/xorbs/default/(?P<xorb>\w+)", "upload_xorb", "signed", alone=True),
        Route("POST", f"{CAS}/v1/shards", "upload_shard", "signed", alone=True),
    )

    def grant_xet_uploads(self, repository: Repository, revision: str) -> None:
        address = f"{self.hub.url}/cas/{self.hub.signature}/{repository.kind}s/{repository.name}"
        until = int(time.time()) + 3600
        token = {"casUrl": address, "accessToken": "xet", "exp": until}
        headers = {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": "xet", "X-Xet-Token-Expiration": str(until)}
        self._send_json(token, headers=headers)

    def upload_xorb(self, kinds: str, name: str, xorb: str) -> None:
        path = self.hub.folder / f"xorb-{xorb}"
        there = path.exists()
        path.write_bytes(b"".join(self.unread))
        self._send_json({"was_inserted": not there})

    def upload_shard(self, kinds: str, name: str) -> None:
        """Puts the files together that a shard describes."""
        repository, shard = self._repository(kinds, name), b"".join(self.unread)
        for sha256, terms in files_of(shard):
            pieces = (piece for xorb, start, end in terms for piece in self._chunks(xorb, start, end))
            self.store_object(repository, sha256, pieces)
        self._send_json({"result": 1})

    def _chunks(self, xorb: str, start: int, end: int) -> Iterator[bytes]:
        path: Path = self.hub.folder / f"xorb-{xorb}"
        if not path.exists():
            raise HubError(400, f"the xorb {xorb} was not uploaded")
        yield from chunks_of(path.read_bytes(), start, end)


def files_of(shard: bytes) -> Iterator[tuple[str, list[tuple[str, int, int]]]]:
    """The files of a shard: SHA-256, and for each term the xorb and its first and last chunk but one."""
    at = ENTRY
    while shard[at : at + 32] != END_OF_FILES:
        flags, count = struct.unpack_from("<II", shard, at + 32)
        terms = [struct.unpack_from("<32s8xII", shard, at + ENTRY * n) for n in range(1, count + 1)]
        at += ENTRY * (1 + count + (count if flags & WITH_VERIFICATION else 0))
        if not flags & WITH_METADATA:
            raise HubError(400, "a file of the shard has no SHA-256")
        yield hash_text(shard[at : at + 32]), [(hash_text(xorb), start, end) for xorb, start, end in terms]
        at += ENTRY


def hash_text(digest: bytes) -> str:
    """A hash as addresses have it: four numbers of 64 bits."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))


def chunks_of(xorb: bytes, start: int, end: int) -> Iterator[bytes]:
    """The content of a xorb's chunks from `start` up to `end`."""
    at = 0
    for number in range(end):
        head = xorb[at : at + 8]
        size, scheme, full_size = (int.from_bytes(head[1:4], "little"), head[4], int.from_bytes(head[5:8], "little"))
        if number >= start:
            yield decompress(xorb[at + 8 : at + 8 + size], scheme, full_size)
        at += 8 + size


def decompress(data: bytes, scheme: int, size: int) -> bytes:
    """A chunk's content: as it is (0), LZ4 (1), or LZ4 of every fourth byte, then of those that follow them … (2)."""
    if scheme == 0:
        return data
    packed = pyarrow.decompress(data, decompressed_size=size, codec="lz4", asbytes=True)
    if scheme == 1:
        return packed
    content, at = bytearray(size), 0
    for offset in range(4):
        count = len(range(offset, size, 4))
        content[offset::4] = packed[at : at + count]
        at += count
    return bytes(content)
