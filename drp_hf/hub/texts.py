"""The texts in a file, whatever kind of file it is: with their places, and never many of them in memory."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from drp_hf.errors import DRPError

if TYPE_CHECKING:
    import pyarrow as pa

LOOKED_AT = 8 << 20
"""Bytes that are in memory at a time, about."""
OVERLAP = 4096
"""Bytes of a line too long for that which come twice, so that nothing in it is cut."""
JSON_LINES = (".jsonl", ".ndjson")
PICTURES = (".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Texts:
    """Some texts of one file.

    Args:
        file: its name.
        unit: what is numbered: `row`, `line` and the like.
        numbers: of each text, from 1.
        values: bytes, or null where there is no text.
        column: they are from, if any.
    """

    file: str
    unit: str
    numbers: pa.Array
    values: pa.LargeBinaryArray
    column: str | None = None

    def place(self, index: int) -> str:
        """Where a text is, for people."""
        place = f"{self.unit} {self.numbers[index].as_py()}"
        return place if self.column is None else f"{place}, column {self.column}"


def texts_of(name: str, content: Path | bytes) -> Iterator[Texts]:
    """The texts of a file: all of a text file, the header of safetensors, the columns of Parquet, a picture's notes.

    Any other binary file has none.

    Args:
        name: of the file, by which its kind is known.
        content: the local file, or the content itself.

    Raises:
        DRPError: it cannot be read as what it seems to be.
    """
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
        try:
            yield from _reader(name, file)(name, file)
        except (struct.error, ValueError, OSError) as error:  # Arrow's and Pillow's errors are among them
            raise DRPError(f"{name} cannot be read as what its name says ({error}): make it again.") from error


def _reader(name: str, file: BinaryIO) -> Any:
    start = file.read(8192)
    file.seek(0)
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".parquet":
        return _parquet
    if suffix == ".safetensors":
        return _safetensors
    if suffix in PICTURES:
        return _picture
    return _nothing if b"\0" in start else _lines


def _nothing(name: str, file: BinaryIO) -> Iterator[Texts]:
    return iter(())


def _lines(name: str, file: BinaryIO) -> Iterator[Texts]:
    import pyarrow as pa

    unit = "row" if PurePosixPath(name).suffix.lower() in JSON_LINES else "line"
    number, size, numbers, values, tail = 1, 0, [], [], b""
    while line := file.readline(LOOKED_AT):
        numbers.append(number)
        values.append(tail + line)
        size += len(line)
        ended = line.endswith(b"\n")
        number += ended
        tail = b"" if ended else line[-OVERLAP:]
        if size >= LOOKED_AT:
            yield Texts(name, unit, pa.array(numbers), pa.array(values, pa.large_binary()))
            size, numbers, values = 0, [], []
    yield Texts(name, unit, pa.array(numbers, pa.int64()), pa.array(values, pa.large_binary()))


def _safetensors(name: str, file: BinaryIO) -> Iterator[Texts]:
    """The header, which is JSON: names and metadata; what follows is numbers."""
    (size,) = struct.unpack("<Q", file.read(8))
    yield _numbered(name, "header", [file.read(size)])


def _picture(name: str, file: BinaryIO) -> Iterator[Texts]:
    """What programs have written beside the pixels."""
    from PIL import Image

    with Image.open(file) as picture:
        picture.load()  # notes may follow the pixels
        notes = [*picture.info.values(), *picture.getexif().values()]
    yield _numbered(name, "note", [note for note in notes if isinstance(note, str | bytes)])


def _parquet(name: str, file: BinaryIO) -> Iterator[Texts]:
    """The names of the columns and the metadata, then the texts of all columns, a few megabytes of rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)  # else whole row groups are in memory
    metadata = table.schema_arrow.metadata or {}
    yield _numbered(name, "schema entry", [*table.schema_arrow.names, *metadata, *metadata.values()])
    size = sum(table.metadata.row_group(group).total_byte_size for group in range(table.num_row_groups))
    first = 1
    for batch in table.iter_batches(max(1, min(1 << 16, LOOKED_AT * table.metadata.num_rows // max(1, size)))):
        numbers = pa.array(range(first, first + len(batch)))
        for column, values in zip(batch.schema.names, batch.columns, strict=True):
            for path, rows, texts in _nested(column, numbers, values):
                yield Texts(name, "row", rows, texts.cast(pa.large_binary()), path)
        first += len(batch)


def _nested(path: str, rows: pa.Array, values: pa.Array) -> Iterator[tuple[str, pa.Array, pa.Array]]:
    """The texts in a column, however deep in lists and structs; with the path to them and their rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    if pa.types.is_dictionary(kind):
        yield from _nested(path, rows, values.dictionary_decode())
    elif pa.types.is_struct(kind):
        for index, field in enumerate(kind):
            yield from _nested(f"{path}.{field.name}", rows, pc.struct_field(values, [index]))
    elif pa.types.is_map(kind):
        pairs = pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))
        yield from _nested(path, rows, values.cast(pairs))
    elif isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        yield from _nested(path, rows.take(pc.list_parent_indices(values)), pc.list_flatten(values))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        yield path, rows, values
    elif pa.types.is_large_binary(kind):
        yield path, rows, values


def _numbered(name: str, unit: str, texts: Iterable[str | bytes]) -> Texts:
    import pyarrow as pa

    values = pa.array([text.encode() if isinstance(text, str) else text for text in texts], pa.large_binary())
    return Texts(name, unit, pa.array(range(1, len(values) + 1), pa.int64()), values)
