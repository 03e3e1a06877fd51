"""Looks for secrets in all that is about to be published: texts, tables, metadata, and the names of the files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from drp_hf.errors import DRPError
from drp_hf.hub.secret_kinds import ANY, find_secrets, masked
from drp_hf.hub.texts import LOOKED_AT, texts_of

if TYPE_CHECKING:
    from drp_hf.hub.texts import Texts

SHOWN = 20
"""Findings that are described; how many more there are is said."""


@dataclass(frozen=True)
class Finding:
    """A secret, and where it is.

    Args:
        file: its path in the repository, without what is secret in it.
        place: row and column, or line.
        kind: what it is.
        secret: the secret itself.
    """

    file: str
    place: str
    kind: str
    secret: str

    def __str__(self) -> str:
        return f"{self.file} {self.place}: {self.kind} {masked(self.secret)}"


def check_secrets(files: Mapping[str, Path | bytes], allow: Iterable[str] = ()) -> None:
    """Looks through all files of a publication, and through their names.

    Args:
        files: the local file, or the content itself, by path in the repository.
        allow: texts that are no secrets although they look so.

    Raises:
        DRPError: there are secrets; says where.
    """
    found, shown = 0, []
    for finding in find_in_files(files, allow):
        found += 1
        if found <= SHOWN:
            shown.append(str(finding))
    if found:
        more = f"; and {found - SHOWN} more" if found > SHOWN else ""
        raise DRPError(
            f"nothing was sent, as there {'is a secret' if found == 1 else f'are {found} secrets'} or private data in "
            f"it ({'; '.join(shown)}{more}): take them out, or let pass what is harmless with --allow TEXT."
        )


def find_in_files(files: Mapping[str, Path | bytes], allow: Iterable[str] = ()) -> Iterator[Finding]:
    """The secrets of all files: those in names first.

    Args:
        files: the local file, or the content itself, by path in the repository.
        allow: texts that are no secrets although they look so.

    Raises:
        DRPError: a file that cannot be read as what it seems to be.
    """
    allowed = {form for text in allow for form in (text, text.rstrip("/\\"))}
    shown: dict[str, str] = {}
    for name in sorted(files):
        shown[name] = name
        for kind, secret in find_secrets(name):
            if secret not in allowed:
                shown[name] = shown[name].replace(secret, masked(secret))
                yield Finding(shown[name], "file name", kind, secret)
    last = None
    for group in _groups(_all_texts(files)):
        for texts, index, kind, secret in _find_in_group(group):
            finding = Finding(shown[texts.file], texts.place(index), kind, secret)
            if secret not in allowed and finding != last:  # the pieces of a long line overlap
                yield finding
                last = finding


def _groups(all_texts: Iterable[Texts]) -> Iterator[list[Texts]]:
    """Texts that are looked at together: an expression takes Arrow longer to compile than a small file to search."""
    group, size = [], 0
    for texts in all_texts:
        group.append(texts)
        size += texts.values.nbytes
        if size >= LOOKED_AT:
            yield group
            group, size = [], 0
    if group:
        yield group


def _find_in_group(group: list[Texts]) -> Iterator[tuple[Texts, int, str, str]]:
    """Where a secret is (the texts, and which of them), its kind, and itself.

    Arrow has a first look at all texts, and Python a second one at those that hold something.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    values = pa.concat_arrays([texts.values for texts in group])
    first, which = 0, iter(group)
    texts = next(which)
    for index in pc.indices_nonzero(pc.match_substring_regex(values, ANY).fill_null(False)).to_pylist():
        while index - first >= len(texts.values):
            first += len(texts.values)
            texts = next(which)
        for kind, secret in find_secrets(values[index].as_py().decode(errors="replace")):
            yield texts, index - first, kind, secret


def _all_texts(files: Mapping[str, Path | bytes]) -> Iterator[Texts]:
    sizes = {name: file.stat().st_size if isinstance(file, Path) else len(file) for name, file in files.items()}
    with tqdm(total=sum(sizes.values()), desc="look for secrets", unit="B", unit_scale=True, delay=2) as progress:
        for name in sorted(files):
            yield from texts_of(name, files[name])
            progress.update(sizes[name])
