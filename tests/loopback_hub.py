"""A read-only Hub on loopback: serves local folders as data-set repositories to the real clients.

    with LoopbackHub({"demo/outputs": folder}) as hub:
        subprocess.run([...], env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": cache})

The clients read the endpoint when they are imported, so that they must be in a process of their own. Served are the
repository's description, listings of its tree, descriptions of paths, and files, whole or in ranges. A repository has
one revision, `main`, whose commit is a hash of its content.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REPOSITORY = r"(?P<repository>[^/]+/[^/]+)"
REVISION = r"(?P<revision>[^/]+)"
ROUTES = (
    ("GET", rf"/api/datasets/{REPOSITORY}(?:/revision/{REVISION})?", "describe"),
    ("GET", rf"/api/datasets/{REPOSITORY}/tree/{REVISION}(?:/(?P<path>.*))?", "list_tree"),
    ("POST", rf"/api/datasets/{REPOSITORY}/paths-info/{REVISION}", "describe_paths"),
    ("HEAD", rf"/datasets/{REPOSITORY}/resolve/{REVISION}/(?P<path>.+)", "send_file"),
    ("GET", rf"/datasets/{REPOSITORY}/resolve/{REVISION}/(?P<path>.+)", "send_file"),
)
"""Method, path and the handler's method that answers; the first that fits is taken."""


class NotHere(Exception):
    """What is asked for does not exist.

    Args:
        code: how the Hub names it: `RepoNotFound`, `RevisionNotFound` or `EntryNotFound`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Repository:
    """A local folder as a repository."""

    name: str
    folder: Path

    def files(self) -> dict[str, Path]:
        """All files by their path in the repository."""
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in found}

    @property
    def commit(self) -> str:
        """40 hex digits that change with the content."""
        digest = hashlib.sha1()
        for name, path in self.files().items():
            digest.update(f"{name} {blob_id(path)}\n".encode())
        return digest.hexdigest()

    def check(self, revision: str) -> None:
        if revision not in ("main", self.commit):
            raise NotHere("RevisionNotFound", f"{self.name} has no revision {revision}")

    def entry(self, name: str) -> dict[str, Any] | None:
        """The description of a file or folder, None where there is none."""
        files = self.files()
        if name in files:
            size, oid = files[name].stat().st_size, blob_id(files[name])
            return {"type": "file", "path": name, "size": size, "oid": oid}
        if any(file.startswith(f"{name}/") for file in files):
            return {"type": "directory", "path": name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}
        return None


def blob_id(path: Path) -> str:
    """Git's name of a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class LoopbackHub:
    """Runs the server in a thread while it is entered.

    Args:
        repositories: local folders by name (`owner/name`).

    Attributes:
        url: the endpoint.
        requests: `METHOD path` of all requests so far, for tests to look at.
    """

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.repositories = {name: Repository(name, Path(folder)) for name, folder in repositories.items()}
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        """Keeps quiet: the hub keeps a list."""

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.hub.requests.append(f"{self.command} {url.path}")
        try:
            for method, pattern, name in ROUTES:
                match = re.fullmatch(pattern, url.path) if method == self.command else None
                if match:
                    return self._answer_with(
                        getattr(self, name), {k: unquote(v) for k, v in match.groupdict("").items()}
                    )
            raise NotHere("EntryNotFound", f"nothing at {url.path}")
        except NotHere as missing:
            self._send(404, json.dumps({"error": str(missing)}).encode(), {"X-Error-Code": missing.code})

    def _answer_with(self, method: Any, parts: dict[str, str]) -> None:
        repository = self.server.hub.repositories.get(parts.pop("repository"))
        if repository is None:
            raise NotHere("RepoNotFound", "Repository not found")
        repository.check(parts.pop("revision") or "main")
        method(repository, **parts)

    # --------------------------------------------------------------------------------------------------- answers

    def describe(self, repository: Repository) -> None:
        siblings = [{"rfilename": name} for name in repository.files()]
        self._send_json(
            {
                "id": repository.name,
                "author": repository.name.split("/")[0],
                "sha": repository.commit,
                "private": False,
                "gated": False,
                "disabled": False,
                "tags": [],
                "siblings": siblings,
            }
        )

    def list_tree(self, repository: Repository, path: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        if path and (repository.entry(path) or {}).get("type") != "directory":
            raise NotHere("EntryNotFound", f"{path} does not exist on {repository.name}")
        below = f"{path}/" if path else ""
        names: dict[str, None] = {}
        for file in repository.files():
            parts = file.removeprefix(below).split("/") if file.startswith(below) else []
            depths = range(1, len(parts) + 1) if recursive else range(1, min(len(parts), 1) + 1)
            names |= {below + "/".join(parts[:depth]): None for depth in depths}
        self._send_json([repository.entry(name) for name in names])

    def describe_paths(self, repository: Repository) -> None:
        if self.headers.get("Content-Type", "").startswith("application/json"):
            paths = json.loads(self.body)["paths"]
        else:
            paths = parse_qs(self.body.decode())["paths"]
        entries = (repository.entry(path.rstrip("/")) for path in paths)
        self._send_json([entry for entry in entries if entry])

    def send_file(self, repository: Repository, path: str) -> None:
        file = repository.files().get(path)
        if file is None:
            raise NotHere("EntryNotFound", f"{path} does not exist on {repository.name}")
        content = file.read_bytes()
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{blob_id(file)}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self._send(200, content, headers, "application/octet-stream")
        first, last = asked.groups()
        start = int(first) if first else max(0, len(content) - int(last))
        end = min(int(last), len(content) - 1) if first and last else len(content) - 1
        if start > end:
            return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._send(206, content[start : end + 1], headers, "application/octet-stream")

    def _send_json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {})

    def _send(self, status: int, body: bytes, headers: dict[str, str], kind: str = "application/json") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
