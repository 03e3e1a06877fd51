"""Asks a language model through a provider's batch API: half the price, answers within a day.

In rounds: the requests that the conversations wait for are written into files, submitted, polled and fetched; then the
conversations go on to their next requests. What is about to be submitted is noted first, and a batch carries the name
of its file: a run that was stopped at any point, for days if need be, finds its batches again and submits nothing twice.
"""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import openai

from drp_hf.errors import DRPError
from drp_hf.servers import client_options, describe, hopeless
from drp_hf.teachers.asking import Asker, Conversations, Finished, Replies, Turn
from drp_hf.teachers.base import Request, Unanswered
from drp_hf.teachers.chat import read_completion, request_body

ENDPOINT = "/v1/chat/completions"
FILE = "drp_hf_file"
"""The batch's metadata field with the name of its file, which no other file has, whatever it holds."""
BATCHES = "batches"
"""The store's key of what is under way: the name of each file, and the batch that was made of it."""
OVER = ("completed", "failed", "expired", "cancelled")
LINES_AT_ONCE = 500
"""Replies that are put on disk together."""


class BatchAsker(Asker):
    """Asks through OpenAI's Batch API (files of requests, answered within 24 hours).

    Args:
        model: name of the model, as the provider knows it.
        base_url: address of the provider; OpenAI's if None.
        max_attempts: batches that a request may be in, in one run, after which its row goes on without a reply.
        poll_seconds: time between two looks at the batches.
        requests_per_batch: requests in a file at most; OpenAI takes 50,000.
        bytes_per_batch: size of a file at most; OpenAI takes 200 MB.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        max_attempts: int = 3,
        poll_seconds: float = 60.0,
        requests_per_batch: int = 50_000,
        bytes_per_batch: int = 190_000_000,
    ) -> None:
        self.model = model
        self.client = openai.OpenAI(max_retries=8, **client_options(base_url))
        # Creates batches: one whose answer was lost is not created again, but found by its name at the next start.
        self.once = self.client.with_options(max_retries=0)
        self.max_attempts = max_attempts
        self.poll_seconds = poll_seconds
        self.requests_per_batch = requests_per_batch
        self.bytes_per_batch = bytes_per_batch

    def run(self, conversations: Conversations, replies: Replies, finished: Finished) -> None:
        self._problems: dict[str, list[str]] = {}  # by request: why it got no reply, batch by batch
        self._left: set[str] = set()  # rows that go on without a reply
        try:
            self._find_again(replies)
            while True:
                self._fetch(replies)
                for file in self._files(conversations, replies, finished):
                    self._submit(file, replies)
                if not _under_way(replies):
                    return
        except openai.APIError as error:
            problem = hopeless(error, self.model) or f"the batch API answers {describe(error)}: start again later."
            raise DRPError(problem) from error

    # ------------------------------------------------------------------------------------------------ submitting

    def _files(
        self, conversations: Conversations, replies: Replies, finished: Finished
    ) -> Iterator[dict[str, Request]]:
        """The requests that the conversations wait for, by key, a file's worth at a time; finishes rows."""
        file: dict[str, Request] = {}
        size = 0
        for key, start in conversations:
            if key in self._left:
                continue
            turn = Turn(start(), replies)
            while turn.request is not None:
                problems = self._problems.get(replies.key(turn.request), [])
                if len(problems) < self.max_attempts:
                    break
                turn.answer(Unanswered(f"the teacher gave no answer ({problems[-1]})"))
            if turn.request is None:
                if not turn.final:
                    self._left.add(key)
                finished(key, turn.row, turn.final)
                continue
            asked = replies.key(turn.request)
            waiting = replies.store.get(asked) or {}
            if asked in file or waiting.get("file") in _under_way(replies):
                continue
            file[asked] = turn.request
            size += len(self._line(asked, turn.request))
            if len(file) == self.requests_per_batch or size > self.bytes_per_batch:
                yield file
                file, size = {}, 0
        if file:
            yield file

    def _line(self, key: str, request: Request) -> bytes:
        body = request_body(self.model, request)
        line = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"

    def _submit(self, file: dict[str, Request], replies: Replies) -> None:
        content = b"".join(self._line(key, request) for key, request in file.items())
        name = uuid.uuid4().hex
        rows = {key: {"request": vars(request), "file": name} for key, request in file.items()}
        replies.store.put_many({**rows, BATCHES: {**_under_way(replies), name: ""}})
        uploaded = self.client.files.create(file=("requests.jsonl", content), purpose="batch")
        batch = self.once.batches.create(
            input_file_id=uploaded.id,
            endpoint=ENDPOINT,
            completion_window="24h",
            metadata={FILE: name},
        )
        replies.store.put(BATCHES, {**_under_way(replies), name: batch.id})

    def _find_again(self, replies: Replies) -> None:
        """Learns what became of files whose submission was cut off: their batch, or that there is none."""
        noted = _under_way(replies)
        lost = {name for name, batch in noted.items() if not batch}
        if not lost:
            return
        for batch in self.client.batches.list(limit=100):
            name = (batch.metadata or {}).get(FILE)
            if name in lost:
                noted[name] = batch.id
        replies.store.put(BATCHES, {name: batch for name, batch in noted.items() if batch})

    # -------------------------------------------------------------------------------------------------- fetching

    def _fetch(self, replies: Replies) -> None:
        """Waits until every batch under way is over, and puts its replies on disk."""
        while under_way := _under_way(replies):
            done = total = 0
            for name, identity in under_way.items():
                batch = self.client.batches.retrieve(identity)
                if batch.status in OVER:
                    self._take(batch, replies)
                    replies.store.put(BATCHES, {n: b for n, b in _under_way(replies).items() if n != name})
                    if batch.status in ("failed", "cancelled"):
                        raise DRPError(
                            f"the batch {identity} is {batch.status} ({_errors(batch)}): mend that and start again."
                        )
                elif batch.request_counts:
                    done += batch.request_counts.completed
                    total += batch.request_counts.total
            if still := _under_way(replies):
                replies.tally.status = f"{len(still)} batches under way, {done:,} of {total:,} requests answered"
                time.sleep(self.poll_seconds)
        replies.tally.status = ""

    def _take(self, batch: Any, replies: Replies) -> None:
        """Puts the replies of a batch on disk, and notes what got none."""
        lines = (
            json.loads(line)
            for file in (batch.output_file_id, batch.error_file_id)
            if file
            # Not `iter_lines`, which also ends a line at a line separator within a reply.
            for line in io.BytesIO(self.client.files.content(file).content)
            if line.strip()
        )
        answered = []
        for line in lines:
            row = replies.store.get(line["custom_id"])
            if row is None or "reply" in row:
                continue
            try:
                answered.append((Request(**row["request"]), read_completion((line.get("response") or {}).get("body"))))
            except ValueError:
                problem = json.dumps(line.get("error") or line.get("response"))[:300]
                self._problems.setdefault(line["custom_id"], []).append(problem)
                replies.tally.failures += 1
            if len(answered) == LINES_AT_ONCE:
                replies.put(*answered)
                answered = []
        replies.put(*answered)


def _under_way(replies: Replies) -> dict[str, str]:
    """The batch of each file under way; empty for a file whose batch is not known."""
    return replies.store.get(BATCHES) or {}


def _errors(batch: Any) -> str:
    errors = batch.errors.data if batch.errors and batch.errors.data else []
    return "; ".join(str(error.message) for error in errors[:3]) or "no reason given"
