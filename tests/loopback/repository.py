"""A repository: commits of files, branches, tags, pull requests, and objects uploaded but not committed."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.loopback.content import Content
from tests.loopback.errors import HubError, not_here

LARGE_SUFFIXES = (
    "7z arrow bin bz2 ckpt ftz gz h5 jpeg jpg joblib lz4 mlmodel model mp4 msgpack npy npz onnx ot parquet pb pdf "
    "pickle pkl png pt pth rar safetensors tar tflite tgz wasm wav webp xz zip zst"
).split()
LARGE_ATTRIBUTES = "filter=lfs diff=lfs merge=lfs -text"
LARGE_SIZE = 10_000_000
"""A file above it becomes an LFS object whatever its name."""


@dataclass(frozen=True)
class Commit:
    """A state of all files.

    Args:
        oid: 40 hex digits.
        files: by path in the repository.
        title: first line of the message.
        message: the rest.
        parent (*optional*): the commit before.
    """

    oid: str
    files: dict[str, Content]
    title: str
    message: str
    parent: Commit | None
    date: str

    def history(self) -> list[Commit]:
        """This commit and all before it, newest first."""
        found, commit = [], self
        while commit:
            found.append(commit)
            commit = commit.parent
        return found

    def last_change(self, path: str) -> Commit:
        """The newest commit that changed a file, or anything in a folder."""
        parent = self.parent
        while parent and _below(parent.files, path) == _below(self.files, path):
            self, parent = parent, parent.parent
        return self


@dataclass
class PullRequest:
    """A proposal: its commits lie on `refs/pr/NUMBER`."""

    num: int
    title: str
    description: str
    base: str
    date: str
    status: str = "open"
    merge_commit: str | None = None

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.num}"


@dataclass
class Repository:
    """A repository of the Hub.

    Args:
        name: `owner/name`.
        kind: `model`, `dataset` or `space`.
        private: only the token's owner may see it.
        sdk (*optional*): of a space.
        gated: whether nobody may have its files, as nobody's request is granted here.
    """

    name: str
    kind: str = "dataset"
    private: bool = False
    sdk: str | None = None
    gated: str | bool = False
    pull_requests: list[PullRequest] = field(default_factory=list)
    objects: dict[str, Content] = field(default_factory=dict)
    refs: dict[str, Commit] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, name: str, folder: Path) -> Repository:
        """A public data set whose one commit has the files of a local folder."""
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        repository = cls(name)
        repository.add_commit({path.relative_to(folder).as_posix(): Content.regular(path) for path in found}, "Files")
        return repository

    @classmethod
    def created(cls, name: str, kind: str, private: bool, sdk: str | None) -> Repository:
        """A new repository as the Hub makes it: its first commit has `.gitattributes`."""
        repository = cls(name, kind, private, sdk)
        lines = [f"*.{suffix} {LARGE_ATTRIBUTES}\n" for suffix in LARGE_SUFFIXES]
        repository.add_commit({".gitattributes": Content.regular("".join(lines).encode())}, "initial commit")
        return repository

    # ----------------------------------------------------------------------------------------------- for tests to see

    @property
    def commits(self) -> list[Commit]:
        """The commits of `main`, newest first; the first one of a repository that a client created is the Hub's."""
        return self.history()

    def history(self, revision: str = "main") -> list[Commit]:
        """The commits of a branch, tag or pull request, newest first."""
        return self.commit_of(revision).history()

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """All files by path."""
        return {path: content.read() for path, content in self.commit_of(revision).files.items()}

    @property
    def branches(self) -> dict[str, str]:
        """The commit of each branch."""
        return self._refs_below("refs/heads/")

    @property
    def tags(self) -> dict[str, str]:
        """The commit of each tag."""
        return self._refs_below("refs/tags/")

    def _refs_below(self, prefix: str) -> dict[str, str]:
        return {ref.removeprefix(prefix): commit.oid for ref, commit in self.refs.items() if ref.startswith(prefix)}

    # -------------------------------------------------------------------------------------------------------- reading

    def commit_of(self, revision: str) -> Commit:
        """The commit of a branch, tag, full reference or commit's name."""
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref in self.refs:
                return self.refs[ref]
        for head in self.refs.values():
            for commit in head.history():
                if commit.oid == revision:
                    return commit
        raise not_here("Revision", f"{self.name} has no revision {revision}")

    def file(self, revision: str, path: str) -> Content:
        content = self.commit_of(revision).files.get(path)
        if content is None:
            raise not_here("Entry", f"{path} does not exist on {self.name}")
        return content

    def entry(self, commit: Commit, path: str, expand: bool) -> dict[str, Any] | None:
        """The description of a file or folder, None where there is none."""
        if path in commit.files:
            described = {"path": path, **commit.files[path].describe()}
        elif below := _below(commit.files, path):
            oid = hashlib.sha1(json.dumps({name: content.oid for name, content in below.items()}).encode())
            described = {"type": "directory", "path": path, "size": 0, "oid": oid.hexdigest()}
        else:
            return None
        if expand:
            last = commit.last_change(path)
            described["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
        return described

    def tree(self, commit: Commit, folder: str, recursive: bool) -> list[str]:
        """The paths in a folder, with `recursive` in the folders in it, too."""
        below = f"{folder}/" if folder else ""
        names: dict[str, None] = {}
        for file in sorted(commit.files):
            parts = file.removeprefix(below).split("/") if file.startswith(below) else []
            names |= {
                below + "/".join(parts[:n]): None for n in range(1, (len(parts) if recursive else 1) + 1) if parts
            }
        if folder and not names:
            raise not_here("Entry", f"{folder} does not exist on {self.name}")
        return list(names)

    # -------------------------------------------------------------------------------------------------------- writing

    def upload_mode(self, commit: Commit, path: str, size: int, sample: bytes) -> str:
        """`lfs` for what is large, binary or named so in `.gitattributes`, else `regular`."""
        attributes = commit.files.get(".gitattributes")
        patterns = _large_patterns(attributes.read().decode()) if attributes else [f"*.{s}" for s in LARGE_SUFFIXES]
        large = size > LARGE_SIZE or b"\0" in sample or _matches(path, patterns)
        return "lfs" if large else "regular"

    def ignores(self, commit: Commit, path: str, gitignore: str | None) -> bool:
        """Whether `.gitignore`, as sent or as committed, leaves a file out."""
        if gitignore is None:
            gitignore = commit.files[".gitignore"].read().decode() if ".gitignore" in commit.files else ""
        lines = [line.strip() for line in gitignore.splitlines()]
        return _matches(path, [line for line in lines if line and not line.startswith("#")])

    def add_commit(
        self, files: dict[str, Content], title: str, message: str = "", ref: str = "refs/heads/main"
    ) -> Commit:
        """Puts a new state of all files on a reference."""
        parent = self.refs.get(ref)
        self.refs[ref] = _commit(files, title, message, parent)
        return self.refs[ref]

    def commit(self, revision: str, lines: Iterable[bytes], pull_request: bool) -> tuple[Commit, PullRequest | None]:
        """Carries out a commit as clients send it: all or nothing.

        Args:
            revision: the branch it is based on.
            lines: JSON, one line an operation, the first one the message.
            pull_request: puts it on a new pull request instead of the branch.

        Returns:
            The commit, and the pull request if there is one.
        """
        head, files, header = self.commit_of(revision), {}, {}
        for line in filter(bytes.strip, lines):
            operation = json.loads(line)
            if operation["key"] != "header":
                self._change(files, operation["key"], operation["value"])
                continue
            header, files = operation["value"], dict(head.files)
            if header.get("parentCommit", head.oid) != head.oid:
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
        if not header.get("summary"):
            raise HubError(400, "a commit needs a summary")
        _name_large_files(files)
        title, message = header["summary"], header.get("description", "")
        if pull_request:
            proposal = self.propose(title, message, f"refs/heads/{revision}")
            self.refs[proposal.ref] = _commit(files, title, message, head)
            return self.refs[proposal.ref], proposal
        ref = f"refs/heads/{revision}" if f"refs/heads/{revision}" in self.refs else revision
        if ref not in self.refs:
            raise HubError(400, f"{revision} is not a branch")
        return self.add_commit(files, title, message, ref), None

    def _change(self, files: dict[str, Content], key: str, value: dict[str, Any]) -> None:
        """Carries out one operation of a commit."""
        path = value["path"].rstrip("/")
        if key == "file":
            content = value["content"]
            encoded = value.get("encoding") == "base64"
            files[path] = Content.regular(base64.b64decode(content) if encoded else content.encode())
        elif key == "lfsFile":
            if value["oid"] not in self.objects:
                raise HubError(400, f"the LFS object {value['oid']} of {path} was not uploaded")
            files[path] = self.objects[value["oid"]]
        elif key in ("deletedFile", "deletedFolder"):
            gone = _below(files, path)
            if not gone or (key == "deletedFile") != (path in files):
                raise not_here(
                    "Entry", f"A {key.removeprefix('deleted').lower()} with this name doesn't exist: {path}"
                )
            for name in gone:
                del files[name]
        else:
            raise HubError(400, f"unknown operation {key}")

    def propose(self, title: str, description: str, base: str = "refs/heads/main") -> PullRequest:
        """Opens a pull request without changes."""
        proposal = PullRequest(len(self.pull_requests) + 1, title, description, base, _now())
        self.refs[proposal.ref] = self.commit_of(base)
        self.pull_requests.append(proposal)
        return proposal

    def merge(self, proposal: PullRequest) -> None:
        """Puts a pull request's files on its base, which must not have moved since."""
        head = self.refs[proposal.ref]
        if self.refs[proposal.base] not in head.history():
            raise HubError(409, f"{proposal.base} has moved since pull request {proposal.num} was opened")
        self.refs[proposal.base] = head
        proposal.status, proposal.merge_commit = "merged", head.oid


def _commit(files: dict[str, Content], title: str, message: str, parent: Commit | None) -> Commit:
    state = {path: content.etag for path, content in sorted(files.items())}
    depth = len(parent.history()) if parent else 0
    oid = hashlib.sha1(json.dumps([state, title, message, parent and parent.oid, depth]).encode()).hexdigest()
    return Commit(oid, files, title, message, parent, _now())


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _below(files: dict[str, Content], path: str) -> dict[str, Content]:
    """The files at a path or in the folder of that name."""
    return {name: content for name, content in files.items() if name == path or name.startswith(f"{path}/")}


def _matches(path: str, patterns: list[str]) -> bool:
    """Whether a pattern fits the path, its name or a folder it is in."""
    parts = path.split("/")
    names = [*parts, *("/".join(parts[:n]) for n in range(1, len(parts) + 1))]
    return any(fnmatch(name, pattern.strip("/")) for pattern in patterns for name in names)


def _large_patterns(attributes: str) -> list[str]:
    return [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line]


def _name_large_files(files: dict[str, Content]) -> None:
    """Lists in `.gitattributes` the LFS objects that no pattern in it names, as the Hub does."""
    attributes = files.get(".gitattributes")
    text = attributes.read().decode() if attributes else ""
    patterns = _large_patterns(text)
    unnamed = [path for path, content in files.items() if content.sha256 and not _matches(path, patterns)]
    if unnamed:
        lines = "".join(f"{path} {LARGE_ATTRIBUTES}\n" for path in unnamed)
        files[".gitattributes"] = Content.regular((text + lines).encode())
