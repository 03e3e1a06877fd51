"""A small OpenAI-compatible server on loopback that fails on purpose, for tests and benchmarks of a client.

    python benchmarks/chat_server.py --answer module:function --port 0 --fault-rate 0.3 --latency 0.2 --log FILE

Its first line of output is its address, `http://127.0.0.1:PORT/v1`. In a test:

    with ChatServer(answer, fault_rate=0.3) as server:
        client = openai.OpenAI(base_url=server.url, api_key="sk-any", max_retries=0)

It serves chat completions, models, files and batches; `GET /stats` gives its counters. Everything it decides follows
from the seed, the request's body and how often that body was asked, so a run can be repeated. Only the standard
library is used, and HTTP is its own, so that it costs little processor time beside the client under test.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib
import json
import os
import re
import resource
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

Answer = Callable[[dict[str, Any]], "str | tuple[str, str]"]

# Half of the text with the finish reason "length"; a text that is not JSON.
CONTENT_FAULTS = ("truncated", "garbled")
# "slow" is a good answer late, "never" none on an open connection, "cut" half a body, "malformed" a 200 that is not
# JSON, "drop" a connection closed without a word. "twice" sends the whole response twice and leaves the connection
# open: a client that keeps connections may take the second copy for the answer to its next request.
FAULTS = ("429", "500", "503", "slow", "never", "cut", "malformed", "twice", "drop", *CONTENT_FAULTS)
REJECTS = ("key", "quota", "model", "bad", "down")
BATCH_ENDS = ("completed", "failed", "expired")
BATCH_ERRORS = ("expired", "500")

# Answers to the same request are the same to the byte, so they are not dated.
_CREATED = 1_700_000_000


def body_hash(body: Any) -> str:
    """SHA-256, in hexadecimal, of a request's body as compact JSON with sorted keys."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def echo(body: dict[str, Any]) -> str:
    """The last message's text: the default answer."""
    return _text(body["messages"][-1:])


def _text(messages: Iterable[Any]) -> str:
    """The messages' texts, joined; of a content in parts, its text parts."""
    texts = []
    for message in messages:
        content = message.get("content") or ""
        texts += [content] if isinstance(content, str) else [part.get("text", "") for part in content]
    return "\n".join(texts)


def _has_messages(body: dict[str, Any]) -> bool:
    messages = body.get("messages")
    return isinstance(messages, list) and bool(messages) and all(isinstance(message, dict) for message in messages)


def _digest(*parts: Any) -> bytes:
    return hashlib.sha256(" ".join(map(str, parts)).encode()).digest()


def _share(digest: bytes) -> float:
    """A number in [0, 1) from a digest's first half; its second half stays free for another choice."""
    return int.from_bytes(digest[:8]) / 2**64


def _choice(digest: bytes, options: tuple[str, ...]) -> str:
    return options[int.from_bytes(digest[16:24]) % len(options)]


# ------------------------------------------------------------------------------------------------------------- HTTP


class Request(NamedTuple):
    """One HTTP request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; refused with 400 if it is none."""
        try:
            body = json.loads(self.body)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Refusal(400, "We could not parse the JSON body of your request.")
        return body

    @property
    def key(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ").strip()


class Refusal(Exception):
    """An answer in OpenAI's error format.

    Args:
        status: HTTP status.
        message: text for the user.
        code: OpenAI's code of the error.
        kind: OpenAI's type of the error.
        headers: further lines of the head.
        param: the parameter that is at fault.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        kind: str = "invalid_request_error",
        headers: tuple[str, ...] = (),
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def response(self) -> bytes:
        return _response(self.status, json.dumps(self.body).encode(), headers=self.headers)


def _response(status: int, body: bytes, kind: str = "application/json", headers: Iterable[str] = ()) -> bytes:
    """A whole HTTP response."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join((*lines, *headers, "", "")).encode("latin-1") + body


class Connection(asyncio.Protocol):
    """One client's connection: requests are read and answered one after the other.

    Args:
        server: receives the requests.
    """

    def __init__(self, server: ChatServer) -> None:
        self.server = server
        self.timer: asyncio.TimerHandle | None = None
        self._buffer = bytearray()
        self._head: tuple[str, str, dict[str, str]] | None = None
        self._chunks = bytearray()
        self._busy = False
        self._last = False
        self._handed: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        # With no room in the buffer, `resume_writing` says that the socket has taken everything.
        self.transport.set_write_buffer_limits(high=0)
        self.server._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self.timer:
            self.timer.cancel()
        self.server._connections.discard(self)
        self.server._in_flight.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._serve()

    def resume_writing(self) -> None:
        if self._handed:
            self._finish()

    def send(self, response: bytes, handed: Callable[[], None] | None = None) -> None:
        """Sends a response and takes the next request.

        Args:
            response: head and body.
            handed: called once the socket has taken it all.
        """
        self._handed = handed or (lambda: None)
        self.transport.write(response)
        if not self.transport.get_write_buffer_size() and not self.transport.is_closing():
            self._finish()

    def send_and_close(self, response: bytes = b"") -> None:
        """Sends what is given and closes the connection."""
        self.transport.write(response)
        self.transport.close()

    def _finish(self) -> None:
        handed, self._handed, self._busy, self.timer = self._handed, None, False, None
        self.server._in_flight.discard(self)
        handed()
        if self._last:
            self.transport.close()
        elif self._buffer:
            self.server._loop.call_soon(self._serve)

    def _serve(self) -> None:
        try:
            while not self._busy and not self.transport.is_closing() and (request := self._take()):
                self._busy = True
                self.server._handle(self, request)
        except ValueError:
            self.send_and_close(Refusal(400, "This is no HTTP/1.1 request.").response())

    def _take(self) -> Request | None:
        """The next request if all of it has arrived."""
        buffer = self._buffer
        if self._head is None:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return None
            line, *fields = buffer[:end].decode("latin-1").split("\r\n")
            del buffer[: end + 4]
            method, target, version = line.split(" ")
            pairs = (field.partition(":") for field in fields)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            self._head = method, target, headers
            self._last = version != "HTTP/1.1" or headers.get("connection", "").lower() == "close"
            if headers.get("expect", "").lower() == "100-continue":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        method, target, headers = self._head
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = self._take_chunks()
            if body is None:
                return None
        else:
            length = int(headers.get("content-length", 0))
            if len(buffer) < length:
                return None
            body = bytes(buffer[:length])
            del buffer[:length]
        self._head = None
        path, _, query = target.partition("?")
        return Request(method, path, query, headers, body)

    def _take_chunks(self) -> bytes | None:
        """The body of a chunked request if all of it has arrived."""
        buffer = self._buffer
        while (end := buffer.find(b"\r\n")) >= 0:
            size = int(buffer[:end].split(b";")[0], 16)
            if not size:
                # Trailing fields may stand between the last chunk and the empty line.
                end = buffer.find(b"\r\n\r\n", end)
                if end < 0:
                    return None
                del buffer[: end + 4]
                body, self._chunks = bytes(self._chunks), bytearray()
                return body
            start, stop = end + 2, end + 2 + size
            if len(buffer) < stop + 2:
                return None
            self._chunks += buffer[start:stop]
            del buffer[: stop + 2]
        return None


# ---------------------------------------------------------------------------------------------------------- batches


class Batches:
    """The files and batches of a server.

    Args:
        server: answers the batches' requests and holds the settings.
        folder: where they are kept over a restart; in memory only if `None`.
    """

    def __init__(self, server: ChatServer, folder: Path | None) -> None:
        self.server = server
        self.folder = folder
        self.files: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        # Each with the object that clients see, the number of polls, and how it will end.
        self.batches: dict[str, dict[str, Any]] = {}
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("file-*.json"):
                self.files[path.stem] = json.loads(path.read_text())
                self.contents[path.stem] = path.with_suffix(".bin").read_bytes()
            states = [json.loads(path.read_text()) for path in folder.glob("batch_*.json")]
            self.batches = {state["batch"]["id"]: state for state in sorted(states, key=lambda state: state["number"])}

    def respond(self, request: Request) -> bytes:
        """The response to a request to `/v1/files` or `/v1/batches`."""
        match request.method, *request.path.split("/")[2:]:
            case "POST", "files":
                reply = self._upload(request)
            case "GET", "files", name:
                reply = self._file(name)
            case "GET", "files", name, "content":
                self._file(name)
                return _response(200, self.contents[name], "application/octet-stream")
            case "POST", "batches":
                reply = self._create(request.json())
            case "GET", "batches":
                reply = self._list(parse_qs(request.query))
            case "GET", "batches", name:
                reply = self._poll(self._state(name))
            case "POST", "batches", name, "cancel":
                reply = self._cancel(self._state(name))
            case _:
                raise Refusal(404, f"Invalid URL ({request.method} {request.path})")
        return _response(200, json.dumps(reply).encode())

    # -- files

    def _upload(self, request: Request) -> dict[str, Any]:
        boundary = re.search(r'boundary="?([^";]+)', request.headers.get("content-type", ""))
        form = {}
        if boundary:
            for part in (b"\r\n" + request.body).split(b"\r\n--" + boundary[1].encode())[1:-1]:
                head, _, content = part.partition(b"\r\n\r\n")
                fields = dict(re.findall(r'\b(name|filename)="([^"]*)"', head.decode()))
                form[fields.get("name")] = fields.get("filename"), content
        if form.get("purpose", (None, b""))[1] != b"batch" or "file" not in form:
            raise Refusal(400, "A 'file' is needed, and the 'purpose' must be 'batch'.")
        filename, content = form["file"]
        return self._add_file(filename or "upload", "batch", content)

    def _add_file(self, filename: str, purpose: str, content: bytes) -> dict[str, Any]:
        name = f"file-{_digest(len(self.files), hashlib.sha256(content).hexdigest()).hex()[:24]}"
        self.files[name] = {
            "id": name,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "expires_at": None,
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
            "status_details": None,
        }
        self.contents[name] = content
        # The content first: a file whose entry exists is whole.
        self._keep(f"{name}.bin", content)
        self._keep(f"{name}.json", json.dumps(self.files[name]).encode())
        return self.files[name]

    def _file(self, name: str) -> dict[str, Any]:
        if name not in self.files:
            raise Refusal(404, f"No such File object: {name}")
        return self.files[name]

    def _keep(self, name: str, content: bytes) -> None:
        if self.folder:
            part = self.folder / f"{name}.part"
            part.write_bytes(content)
            part.replace(self.folder / name)

    # -- batches

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("endpoint") != "/v1/chat/completions" or body.get("completion_window") != "24h":
            raise Refusal(400, "The endpoint must be '/v1/chat/completions', the completion_window '24h'.")
        source = self._file(body.get("input_file_id", ""))
        number = len(self.batches)
        now = int(time.time())
        moments = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        batch = {
            "id": f"batch_{_digest(number, source['id']).hex()[:24]}",
            "object": "batch",
            "endpoint": body["endpoint"],
            "errors": None,
            "input_file_id": source["id"],
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "expires_at": now + 86_400,
            **{f"{moment}_at": None for moment in moments},
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": body.get("metadata"),
        }
        ends = self.server.batch_ends
        end = ends[number] if number < len(ends) else "completed"
        self.batches[batch["id"]] = state = {"number": number, "polls": 0, "end": end, "batch": batch}
        return self._save(state)

    def _state(self, name: str) -> dict[str, Any]:
        if name not in self.batches:
            raise Refusal(404, f"No batch found with id '{name}'.")
        return self.batches[name]

    def _save(self, state: dict[str, Any], status: str | None = None) -> dict[str, Any]:
        """The batch, after its new status, if any, was noted."""
        batch = state["batch"]
        if status:
            batch["status"] = status
            batch[f"{status}_at"] = batch.get(f"{status}_at") or int(time.time())
        self._keep(f"{batch['id']}.json", json.dumps(state).encode())
        return batch

    def _list(self, query: dict[str, list[str]]) -> dict[str, Any]:
        names = list(reversed(self.batches))
        limit = int(query.get("limit", ["20"])[0])
        if after := query.get("after"):
            self._state(after[0])
            names = names[names.index(after[0]) + 1 :]
        page = names[:limit]
        return {
            "object": "list",
            "data": [self.batches[name]["batch"] for name in page],
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
            "has_more": len(names) > len(page),
        }

    def _cancel(self, state: dict[str, Any]) -> dict[str, Any]:
        status = state["batch"]["status"]
        if status not in ("validating", "in_progress"):
            raise Refusal(409, f"Cannot cancel a batch with status '{status}'.")
        return self._save(state, "cancelling")

    def _poll(self, state: dict[str, Any]) -> dict[str, Any]:
        """The batch, one poll further."""
        batch = state["batch"]
        if batch["status"] == "cancelling":
            return self._save(state, "cancelled")
        if batch["status"] not in ("validating", "in_progress"):
            return batch
        state["polls"] += 1
        last = state["polls"] >= self.server.batch_polls
        if last or state["polls"] == 1:
            lines, errors = self._read(batch)
            if state["end"] == "failed":
                message = "Enqueued token limit reached. Please try again once some batches have been completed."
                errors = [{"code": "token_limit_exceeded", "message": message, "param": None, "line": None}]
            if errors:
                batch["errors"] = {"object": "list", "data": errors}
                return self._save(state, "failed")
            batch["request_counts"]["total"] = len(lines)
        if last:
            batch["in_progress_at"] = batch["in_progress_at"] or int(time.time())
            batch["finalizing_at"] = int(time.time())
            self._run(batch, lines, state["end"])
            return self._save(state, state["end"])
        # Of three or more polls, the first still finds the batch being validated.
        return self._save(state, "in_progress" if state["polls"] > 1 or self.server.batch_polls == 2 else None)

    def _read(self, batch: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The requests of a batch's file and the errors in it."""
        lines: list[dict[str, Any]] = []
        errors = []
        seen = set()
        for number, text in enumerate(self.contents[batch["input_file_id"]].splitlines(), 1):
            code = None
            try:
                line = json.loads(text)
                name = line["custom_id"]
                if name in seen:
                    code, message = "duplicate_custom_id", f"The custom_id '{name}' is not unique."
                elif line["method"] != "POST" or line["url"] != batch["endpoint"]:
                    code, message = "mismatched_url", "The method must be POST, the url the batch's endpoint."
                elif not _has_messages(line["body"]):
                    code, message = "invalid_request", "The messages must be a list of at least one message."
                seen.add(name)
                lines.append(line)
            except (ValueError, KeyError, TypeError, AttributeError):
                code, message = "invalid_json_line", "This line is not a request."
            if code:
                errors.append({"code": code, "message": message, "param": None, "line": number})
        if not lines and not errors:
            errors.append({"code": "empty_file", "message": "The file is empty.", "param": None, "line": None})
        return lines, errors

    def _run(self, batch: dict[str, Any], lines: list[dict[str, Any]], end: str) -> None:
        """Answers the requests and adds the files of results and errors."""
        order = sorted(lines, key=lambda line: _digest(self.server.seed, line["custom_id"]))
        # The first half in this order was answered in time.
        late = {line["custom_id"] for line in order[(len(order) + 1) // 2 :]} if end == "expired" else set()
        results = {line["custom_id"]: self._result(line, line["custom_id"] in late) for line in lines}
        for kind, good in (("output", True), ("error", False)):
            names = [name for name, (_, is_good) in results.items() if is_good == good]
            shuffled = [line["custom_id"] for line in order if results[line["custom_id"]][1] == good]
            if shuffled == names:
                shuffled.reverse()
            batch["request_counts"]["completed" if good else "failed"] = len(names)
            if names:
                content = "".join(json.dumps(results[name][0]) + "\n" for name in shuffled)
                file = self._add_file(f"{batch['id']}_{kind}.jsonl", "batch_output", content.encode())
                batch[f"{kind}_file_id"] = file["id"]

    def _result(self, line: dict[str, Any], late: bool) -> tuple[dict[str, Any], bool]:
        """The line of results for one request, and whether it was answered."""
        server = self.server
        key = body_hash(line["body"])
        attempt = server._attempts[key] + 1
        digest = _digest("batch", server.seed, key, attempt)
        if late:
            outcome = "expired"
        elif _share(digest) < server.batch_error_rate:
            outcome = _choice(digest, server.batch_errors)
        else:
            # Faults of the connection have no meaning here.
            outcome = server._draw(key, attempt, line["body"])
            outcome = outcome if outcome in CONTENT_FAULTS else "good"
        record = server._receive(key, outcome)
        request_id = f"req_{_digest(key, attempt).hex()[:32]}"
        response: dict[str, Any] | None = None
        error = None
        try:
            if outcome == "expired":
                message = "This request could not be executed before the completion window expired."
                error = {"code": "batch_expired", "message": message}
            elif outcome == "500":
                raise Refusal(500, "The server had an error while processing your request.", kind="server_error")
            else:
                body = server._completion(line["body"], key, record)
                response = {"status_code": 200, "request_id": request_id, "body": body}
        except Refusal as refusal:
            response = {"status_code": refusal.status, "request_id": request_id, "body": refusal.body}
        if record.outcome == "good":
            server._complete(record)
        result = {"id": f"batch_req_{request_id[4:]}", "custom_id": line["custom_id"]}
        answered = response is not None and response["status_code"] == 200
        return result | {"response": response, "error": error}, answered


# ----------------------------------------------------------------------------------------------------------- server


@dataclass(slots=True)
class Attempt:
    """One attempt at a chat completion.

    Args:
        hash: hash of the request's body.
        attempt: which attempt with this body it is, from 1.
        outcome: "good", or the fault or refusal it met.
        received: monotonic time.
        answered: monotonic time when the socket had taken the good answer; `None` without one.
    """

    hash: str
    attempt: int
    outcome: str
    received: float
    answered: float | None = None


class ChatServer:
    """An OpenAI-compatible server on loopback; as a context manager it runs in a thread of its own.

    Its settings are attributes and can be changed while it runs. Its counters are attributes too; as an answer is
    counted just after it was sent, they are exact once `stop` has returned, or when read from `/stats`. Stopped, it
    can be started again, at the same address and with its memory.

    Args:
        answer: gives the assistant's text to a request's body, or the text and the finish reason, or raises a
            `Refusal`. It is called on the server's event loop, so it should be quick.
        port: port on 127.0.0.1; 0 takes a free one.
        fault_rate: share of the attempts that meet a fault.
        faults: kinds of faults, out of `FAULTS`.
        seed: of the choice of faults.
        latency: seconds from the receipt of a request to its answer. Errors come at once.
        slow_seconds: seconds to the answer under the fault "slow", in place of `latency`.
        retry_after: seconds in the `Retry-After` field of the fault "429".
        reject: refuse every request as one of `REJECTS`.
        api_key: the only key accepted; any key, or none, if `None`.
        max_requests_per_minute: count in `violations` the chat requests that exceed this within 60 seconds.
        log: file to append a line of JSON to for each attempt, and another for each good answer.
        models: names listed by `/v1/models`; requests may name any.
        batch_polls: number of polls after which a batch is completed.
        batch_error_rate: share of a batch's requests that land in its error file.
        batch_errors: how they do, out of `BATCH_ERRORS`.
        batch_ends: how the first, second, ... batch ends, out of `BATCH_ENDS`; later ones are completed.
        folder: where files and batches are kept over a restart; in memory only if `None`.
    """

    def __init__(
        self,
        answer: Answer = echo,
        *,
        port: int = 0,
        fault_rate: float = 0.0,
        faults: Iterable[str] = FAULTS,
        seed: int = 0,
        latency: float = 0.0,
        slow_seconds: float = 2.0,
        retry_after: float = 0.05,
        reject: str | None = None,
        api_key: str | None = None,
        max_requests_per_minute: int | None = None,
        log: str | os.PathLike[str] | None = None,
        models: Iterable[str] = ("teacher",),
        batch_polls: int = 3,
        batch_error_rate: float = 0.0,
        batch_errors: Iterable[str] = BATCH_ERRORS,
        batch_ends: Iterable[str] = (),
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.answer = answer
        self.port = port
        self.fault_rate = fault_rate
        self.faults = _checked("faults", faults, FAULTS)
        self.seed = seed
        self.latency = latency
        self.slow_seconds = slow_seconds
        self.retry_after = retry_after
        self.reject = reject
        self.api_key = api_key
        self.max_requests_per_minute = max_requests_per_minute
        self.log = log
        self.models = tuple(models)
        self.batch_polls = batch_polls
        self.batch_error_rate = batch_error_rate
        self.batch_errors = _checked("batch_errors", batch_errors, BATCH_ERRORS)
        self.batch_ends = _checked("batch_ends", batch_ends, BATCH_ENDS)
        _checked("reject", [reject] if reject else [], REJECTS)

        self.history: list[Attempt] = []
        self.attempts = 0
        self.completed = 0
        self.outcomes: Counter[str] = Counter()
        self.asked_after_completion = 0
        self.peak_concurrency = 0
        self.peak_requests_per_minute = 0
        self.violations = 0
        self._attempts: Counter[str] = Counter()
        self._completed: set[str] = set()
        self._recent: deque[float] = deque()
        self._connections: set[Connection] = set()
        self._in_flight: set[Connection] = set()
        self._batches = Batches(self, Path(folder) if folder else None)
        self._log_file: Any = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    # -- life

    @property
    def url(self) -> str:
        """The base address for a client."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> ChatServer:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server in a thread and waits until it listens."""
        self._ready.clear()
        self._failure = None
        self._thread = threading.Thread(target=self._run, name="chat-server", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure:
            raise self._failure

    def stop(self) -> None:
        """Cuts all connections and ends the thread."""
        if self._thread and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self.serve(self._ready.set))
        except BaseException as error:  # raised again in `start`
            self._failure = error
            self._ready.set()

    async def serve(self, ready: Callable[[], None], signals: Iterable[signal.Signals] = ()) -> None:
        """Serves until it is stopped.

        Args:
            ready: called once the server listens.
            signals: signals that stop it; only in the main thread.
        """
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        for number in signals:
            self._loop.add_signal_handler(number, self._stopping.set)
        # Unbuffered, so that a line is in the file even if the process is killed right after it.
        self._log_file = open(self.log, "ab", buffering=0) if self.log else None
        try:
            listener = await self._loop.create_server(
                lambda: Connection(self), "127.0.0.1", self.port, backlog=4096, reuse_address=True
            )
            self.port = listener.sockets[0].getsockname()[1]
            ready()
            await self._stopping.wait()
            listener.close()
            for connection in list(self._connections):
                connection.transport.abort()
            # The aborted connections are told so in the loop's next round.
            await asyncio.sleep(0)
        finally:
            if self._log_file:
                self._log_file.close()

    # -- requests

    def stats(self) -> dict[str, Any]:
        """The counters, as `GET /stats` gives them."""
        return {
            "attempts": self.attempts,
            "completed": self.completed,
            "outcomes": dict(self.outcomes),
            "faults": {kind: self.outcomes[kind] for kind in FAULTS if self.outcomes[kind]},
            "asked_after_completion": self.asked_after_completion,
            "peak_concurrency": self.peak_concurrency,
            "peak_requests_per_minute": self.peak_requests_per_minute,
            "violations": self.violations,
        }

    def _handle(self, connection: Connection, request: Request) -> None:
        try:
            if request.path == "/v1/chat/completions" and request.method == "POST":
                self._chat(connection, request)
                return
            if request.path == "/stats":
                response = _response(200, json.dumps(self.stats()).encode())
            else:
                if refusal := self._refusal(request, {}):
                    raise refusal[1]
                if request.path == "/v1/models":
                    models = [{"id": m, "object": "model", "created": 0, "owned_by": "drp_hf"} for m in self.models]
                    response = _response(200, json.dumps({"object": "list", "data": models}).encode())
                elif request.path.startswith("/v1/"):
                    response = self._batches.respond(request)
                else:
                    raise Refusal(404, f"Invalid URL ({request.method} {request.path})")
        except Refusal as refusal:
            response = refusal.response()
        except Exception:
            traceback.print_exc()
            response = Refusal(500, "The test server itself failed; see its output.", kind="server_error").response()
        connection.send(response)

    def _refusal(self, request: Request, body: dict[str, Any]) -> tuple[str, Refusal] | None:
        """Why a request is not even tried, if so."""
        key = request.key
        if self.reject == "key" or (self.api_key is not None and key != self.api_key):
            message = f"Incorrect API key provided: {key}." if key else "You didn't provide an API key."
            return "key", Refusal(401, message, "invalid_api_key")
        match self.reject:
            case "quota":
                message = "You exceeded your current quota, please check your plan and billing details."
                return "quota", Refusal(429, message, "insufficient_quota", "insufficient_quota")
            case "model":
                message = f"The model `{body.get('model')}` does not exist or you do not have access to it."
                return "model", Refusal(404, message, "model_not_found")
            case "bad":
                return "bad", Refusal(400, "Unsupported value in the request.", "unsupported_value")
            case "down":
                return "down", Refusal(503, "The server is down for maintenance.", None, "server_error")
        return None

    def _chat(self, connection: Connection, request: Request) -> None:
        now = self._loop.time()
        self._in_flight.add(connection)
        self.peak_concurrency = max(self.peak_concurrency, len(self._in_flight))
        self._recent.append(now)
        while self._recent[0] <= now - 60:
            self._recent.popleft()
        self.peak_requests_per_minute = max(self.peak_requests_per_minute, len(self._recent))
        if self.max_requests_per_minute is not None and len(self._recent) > self.max_requests_per_minute:
            self.violations += 1

        body: dict[str, Any] = {}
        refusal: tuple[str, Refusal] | None = None
        try:
            body = request.json()
            if not _has_messages(body):
                raise Refusal(400, "The messages must be a list of at least one message.")
            if body.get("stream") or body.get("n") not in (None, 1):
                raise Refusal(400, "This server gives one whole answer: no stream, and n = 1.", "unsupported_value")
        except Refusal as error:
            refusal = "invalid", error
        refusal = self._refusal(request, body) or refusal
        key = body_hash(body)
        outcome = refusal[0] if refusal else self._draw(key, self._attempts[key] + 1, body)
        record = self._receive(key, outcome, now)
        if refusal:
            raise refusal[1]
        match outcome:
            case "429":
                headers = (f"Retry-After: {self.retry_after:g}",)
                raise Refusal(429, "Rate limit reached for requests.", "rate_limit_exceeded", "requests", headers)
            case "500":
                raise Refusal(500, "The server had an error while processing your request.", kind="server_error")
            case "503":
                raise Refusal(503, "The engine is currently overloaded.", kind="server_error")
            case "never":
                return
            case "drop":
                connection.send_and_close()
                return
        payload = json.dumps(self._completion(body, key, record)).encode()
        # Made before the wait, so that the answer's own time is no part of the latency.
        wait = self.slow_seconds if outcome == "slow" else self.latency
        request_id = (f"x-request-id: req_{_digest(key, record.attempt).hex()[:32]}",)
        response = _response(200, payload, headers=request_id)
        send: Callable[..., None] = connection.send
        args: tuple[Any, ...] = (response, lambda: self._complete(record))
        match outcome:
            case "cut":
                send, args = connection.send_and_close, (response[: -(len(payload) // 2)],)
            case "malformed":
                args = (_response(200, payload[: len(payload) // 2], headers=request_id),)
            case "twice":
                args = (response * 2, args[1])
            case "truncated" | "garbled":
                args = (response,)
        if wait > 0:
            connection.timer = self._loop.call_at(now + wait, send, *args)
        else:
            send(*args)

    def _draw(self, key: str, attempt: int, body: dict[str, Any]) -> str:
        """The fault that strikes an attempt, or "good"."""
        faults = self.faults
        # A request with more than one user message is a correction: its content is spared, so that runs end.
        if sum(message.get("role") == "user" for message in body["messages"]) != 1:
            faults = tuple(kind for kind in faults if kind not in CONTENT_FAULTS)
        digest = _digest(self.seed, key, attempt)
        return _choice(digest, faults) if faults and _share(digest) < self.fault_rate else "good"

    def _completion(self, body: dict[str, Any], key: str, record: Attempt) -> dict[str, Any]:
        """The chat completion; refused as the answer's callable refuses it, and with 500 if that fails."""
        try:
            answer = self.answer(body)
            text, reason = (answer, "stop") if isinstance(answer, str) else answer
        except Exception as error:
            self.outcomes[record.outcome] -= 1
            record.outcome = "refused" if isinstance(error, Refusal) else "failed"
            self.outcomes[record.outcome] += 1
            if isinstance(error, Refusal):
                raise
            traceback.print_exc()
            raise Refusal(500, f"The answer's callable failed: {error!r}", kind="server_error") from error
        if record.outcome == "truncated":
            text, reason = text[: len(text) // 2], "length"
        elif record.outcome == "garbled":
            text, reason = f"Well {{it is: {text[::-1]}", "stop"
        asked, answered = len(_text(body["messages"])) // 4, len(text) // 4
        message = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        return {
            "id": f"chatcmpl-{key[:29]}",
            "object": "chat.completion",
            "created": _CREATED,
            "model": body.get("model"),
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reason}],
            "usage": {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered},
            "service_tier": "default",
            "system_fingerprint": f"fp_{key[:10]}",
        }

    # -- records

    def _receive(self, key: str, outcome: str, now: float | None = None) -> Attempt:
        """Notes an attempt."""
        self._attempts[key] += 1
        record = Attempt(key, self._attempts[key], outcome, time.monotonic() if now is None else now)
        self.history.append(record)
        self.attempts += 1
        self.outcomes[outcome] += 1
        self.asked_after_completion += key in self._completed
        self._write("received", record, record.received)
        return record

    def _complete(self, record: Attempt) -> None:
        """Notes that a good answer was given."""
        record.answered = time.monotonic()
        self.completed += 1
        self._completed.add(record.hash)
        self._write("answered", record, record.answered)

    def _write(self, event: str, record: Attempt, now: float) -> None:
        if self._log_file:
            line = {"event": event, "time": now, "hash": record.hash, "attempt": record.attempt}
            self._log_file.write(json.dumps(line | {"outcome": record.outcome}).encode() + b"\n")


def _checked(name: str, values: Iterable[str], allowed: tuple[str, ...]) -> tuple[str, ...]:
    values = tuple(values)
    if unknown := set(values) - set(allowed):
        raise ValueError(f"{name}: {', '.join(sorted(unknown))} not among {', '.join(allowed)}")
    return values


# ----------------------------------------------------------------------------------------------------- command line


def _load(name: str) -> Answer:
    module, _, function = name.partition(":")
    # As with `python -m`, modules are also found from the working directory.
    sys.path.insert(0, os.getcwd())
    return getattr(importlib.import_module(module), function)


def main(argv: list[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--answer", metavar="MODULE:FUNCTION", help="gives the text to a body (default: an echo)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one (default)")
    parser.add_argument("--fault-rate", type=float, default=0.0, help="share of the attempts that meet a fault")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds to each answer")
    parser.add_argument("--slow-seconds", type=float, default=2.0, help="seconds to an answer under the fault 'slow'")
    parser.add_argument("--retry-after", type=float, default=0.05, help="seconds that the fault '429' asks for")
    parser.add_argument("--reject", choices=REJECTS, help="refuse every request")
    parser.add_argument("--api-key", help="the only key accepted")
    parser.add_argument("--max-requests-per-minute", type=int, help="count what exceeds it as violations")
    parser.add_argument("--log", help="file of JSON lines to append to")
    parser.add_argument("--models", nargs="+", default=("teacher",), help="names to list")
    parser.add_argument("--batch-polls", type=int, default=3, help="polls after which a batch is completed")
    parser.add_argument("--batch-error-rate", type=float, default=0.0, help="share of requests in the error file")
    parser.add_argument("--batch-errors", nargs="+", choices=BATCH_ERRORS, default=BATCH_ERRORS)
    parser.add_argument("--batch-ends", nargs="+", choices=BATCH_ENDS, default=(), help="of the first batches")
    parser.add_argument("--folder", help="where files and batches are kept over a restart")
    settings = vars(parser.parse_args(argv))
    answer = settings.pop("answer")
    # Each held connection is an open file.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = ChatServer(_load(answer) if answer else echo, **settings)
    signals = (signal.SIGTERM, signal.SIGINT)
    asyncio.run(server.serve(lambda: print(server.url, flush=True), signals))


if __name__ == "__main__":
    main()
