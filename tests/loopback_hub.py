"""A Hub on loopback: what the real clients need to create, write and read repositories, and faults to switch on.

    with LoopbackHub() as hub:
        HfApi(endpoint=hub.url, token=hub.token).create_repo("demo/outputs", repo_type="dataset")
        hub.fail("500", at=2)
        subprocess.run([...], env={**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": cache})

The clients read the endpoint when they are imported, so that they must be in a process of their own, except where they
take it as an argument. They upload to Xet where they find its library, unless `HF_HUB_DISABLE_XET=1` is set when they
are imported; the Hub takes both. Xet's library repeats failed requests itself, so that faults are for LFS uploads.
"""

from __future__ import annotations

import secrets
import sys
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.loopback.faults import Fault
from tests.loopback.handler import Handler
from tests.loopback.repository import Repository


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle of an answer is no error of the server's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class LoopbackHub:
    """Runs the server in a thread while it is entered.

    Args:
        repositories (*optional*): local folders by name (`owner/name`), served as public data sets of one commit.

    Attributes:
        url: the endpoint.
        token: the one token that may write and see private repositories.
        requests: `METHOD path` of all requests so far, for tests to look at.
        faults: planned faults.
    """

    def __init__(self, repositories: dict[str, Path] | None = None) -> None:
        named = {name: Repository.of_folder(name, Path(folder)) for name, folder in (repositories or {}).items()}
        self.repositories = {("dataset", name): repository for name, repository in named.items()}
        self.token = f"hf_{secrets.token_hex(17)}"
        self.signature = secrets.token_hex(8)
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self._folder = TemporaryDirectory(prefix="loopback-hub-")
        self.folder = Path(self._folder.name)
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._folder.cleanup()

    def repository(self, repo_id: str, repo_type: str = "dataset") -> Repository:
        """The repository of that name, to look at its commits and files."""
        return self.repositories[repo_type, repo_id]

    def fail(self, kind: str, at: int | Callable[[str], bool]) -> None:
        """Plans a fault: see [`tests.loopback.faults.Fault`]."""
        self.faults.append(Fault(kind, at))

    def reset(self) -> None:
        """Forgets planned faults and past requests."""
        self.faults.clear()
        self.requests.clear()

    def arriving(self, request: str) -> str | None:
        """Notes a request and says which fault, if any, strikes it."""
        with self.lock:
            self.requests.append(request)
            striking = [fault.kind for fault in self.faults if fault.strikes(request)]
        return striking[0] if striking else None
