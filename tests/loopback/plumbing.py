"""What all answers share: routing, tokens, bodies, faults."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from tests.loopback.content import PIECE, Content
from tests.loopback.errors import HubError, not_here
from tests.loopback.repository import Repository
from tests.loopback.routes import Route

USER = "tester"
"""The token's owner, who may write in every namespace."""


class Plumbing(BaseHTTPRequestHandler):
    """Finds the method that answers a request, and sends what it says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    routes: ClassVar[tuple[Route, ...]] = ()

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *arguments: object) -> None:
        """Keeps quiet: the hub keeps a list."""

    def _answer(self) -> None:
        self.hub = self.server.hub
        self.url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(self.url.query).items()}
        self.unread = self._body_pieces()
        self.fault = self.hub.arriving(f"{self.command} {self.url.path}")
        if self.fault == "cut":
            return self._cut()
        try:
            if self.fault in ("500", "429"):
                message = {"500": "Internal error", "429": "Too many requests"}[self.fault]
                raise HubError(int(self.fault), message)
            self._route()
        except HubError as error:
            self._send_error(error)

    def _route(self) -> None:
        route, parts = self._find_route()
        self._authenticate(route, parts)
        if "revision" in parts:
            parts["revision"] = parts["revision"] or "main"
        if route.alone:
            return getattr(self, route.answer)(**parts)
        self.body = b"".join(self.unread)
        with self.hub.lock:
            if "name" in parts:
                parts["repository"] = self._repository(parts.pop("kinds"), parts.pop("name"))
            getattr(self, route.answer)(**parts)

    def _find_route(self) -> tuple[Route, dict[str, str]]:
        for route in self.routes:
            parts = route.parts(self.command, self.url.path)
            if parts is not None:
                return route, parts
        raise not_here("Entry", f"nothing at {self.command} {self.url.path}")

    def _authenticate(self, route: Route, parts: dict[str, str]) -> None:
        if route.access == "signed":
            self.known = parts.pop("signature") == self.hub.signature
            if not self.known:
                raise HubError(403, "Request has expired")
            return
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme and token != self.hub.token:
            raise HubError(401, "Invalid credentials in Authorization header")
        self.known = bool(scheme)
        if route.access == "write" and not self.known:
            raise HubError(401, "Invalid username or password.")

    def _repository(self, kinds: str, name: str) -> Repository:
        repository = self.hub.repositories.get((kinds.removesuffix("s") or "model", name))
        if repository is None or (repository.private and not self.known):
            raise HubError(404 if self.known else 401, "Repository not found", "RepoNotFound")
        return repository

    def store_object(self, repository: Repository, sha256: str, pieces: Iterable[bytes]) -> None:
        """Takes an object's content to disk and lets the repository's commits use it."""
        digest = hashlib.sha256()
        with NamedTemporaryFile(dir=self.hub.folder, delete=False) as stream:
            for piece in pieces:
                digest.update(piece)
                stream.write(piece)
        path = Path(stream.name)
        if digest.hexdigest() != sha256:
            path.unlink()
            raise HubError(400, f"the content is not that of {sha256}")
        content = Content.large(path.rename(self.hub.folder / sha256), sha256)
        with self.hub.lock:
            repository.objects[sha256] = content

    def _page(self, repository: Repository) -> str:
        prefix = "" if repository.kind == "model" else f"{repository.kind}s/"
        return f"{self.hub.url}/{prefix}{repository.name}"

    def _flag(self, name: str) -> bool:
        return self.query.get(name, "false").lower() in ("true", "1")

    def _body_pieces(self) -> Iterator[bytes]:
        """The request's body, a piece at a time; a client that knows no size sends it in chunks.

        Raises:
            ConnectionResetError: the client went away, so that nothing may come of what it had sent.
        """
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield from self._read(int(self.headers.get("Content-Length", 0)))
            return
        size = True
        while size:
            line = self.rfile.readline()
            if not line:
                raise ConnectionResetError("the client went away between two chunks")
            size = int(line.split(b";")[0], 16)
            yield from self._read(size)
            self.rfile.readline()

    def _read(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self.rfile.read(min(PIECE, left))
            if not piece:
                raise ConnectionResetError(f"the client went away with {left} bytes left")
            left -= len(piece)
            yield piece

    def _send_json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), headers or {})

    def _send_error(self, error: HubError) -> None:
        for _ in self.unread:
            """The client reads the answer when it has sent everything."""
        headers = {"X-Error-Message": str(error).encode("ascii", "backslashreplace").decode()}
        if error.code:
            headers["X-Error-Code"] = error.code
        if error.status == 429:
            headers["Retry-After"] = "0"
        self._send(error.status, json.dumps({"error": str(error)}).encode(), headers)

    def _send(
        self,
        status: int,
        body: bytes | Iterable[bytes],
        headers: dict[str, str],
        kind: str = "application/json",
        size: int | None = None,
    ) -> None:
        if self.fault == "cut-after":
            return self._cut()
        size = len(body) if size is None else size
        self.send_response(status)
        for name, value in {**headers, "Content-Type": kind, "Content-Length": str(size)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            for piece in [body] if isinstance(body, bytes) else body:
                self.wfile.write(piece)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
