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
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import openai

from drp_hf.errors import DRPError
from drp_hf.servers import (
    FEW_REFUSALS,
    REFUSED,
    Parameters,
    client_options,
    describe,
    hopeless,
    hopeless_answer,
)
from drp_hf.teacher import Request, Unanswerable, Unanswered
from drp_hf.teachers.asking import Asker, Conversations, Finished, Replies, Turn
from drp_hf.teachers.chat import read_completion, request_body

ENDPOINT = "/v1/chat/completions"
FILE = "drp_hf_file"
"""The batch's metadata field with the name of its file, which no other file has, whatever it holds."""
BATCHES = "batches"
"""The store's key of what is under way: the name of each file, and the batch that was made of it."""
SET_ASIDE = "batches of other models"
"""The store's key of the same for models that were asked before: their replies come when they are asked again."""
TOKEN_LIMIT = "token_limit_exceeded"
"""The error's code of a batch that has more tokens than the account may have under way."""
OVER = ("completed", "failed", "expired", "cancelled")
LINES_AT_ONCE = 500
"""Replies that are put on disk together."""


class BatchAsker(Asker):
    """Asks through OpenAI's Batch API (files of requests, answered within 24 hours).

    Args:
        model: name of the model, as the provider knows it.
        base_url: address of the provider; OpenAI's if None.
        max_attempts: batches that a request may be in, in one run, after which its row goes on without a reply; one that
            the server refuses is in no other.
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
        self.parameters = Parameters(model)
        self.max_attempts = max_attempts
        self.poll_seconds = poll_seconds
        self.requests_per_batch = requests_per_batch
        self.bytes_per_batch = bytes_per_batch

    def run(self, conversations: Conversations, replies: Replies, finished: Finished) -> None:
        self._problems: dict[str, list[str]] = {}  # by request: why it got no reply, batch by batch
        self._refused: set[str] = set()  # requests that the server refuses
        self._left: set[str] = set()  # rows that go on without a reply
        self._one_at_a_time = False
        self._hopeless = ""  # why the run stops when what is over is fetched
        self._answered_before = replies.exist()
        try:
            _set_aside(replies)
            self._find_again(replies)
            while True:
                self._fetch(replies)
                self._doubt = ""  # why a request got no reply, while none got any
                for file in self._files(conversations, replies, finished):
                    self._submit(file, replies)
                    if self._one_at_a_time:
                        break
                if not _under_way(replies):
                    if self._doubt:
                        raise DRPError(
                            f"no request was answered ({self._doubt}): mend that and start again; what is done is kept."
                        )
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
        answered = self._answered_before or replies.tally.replies
        for key, start in conversations:
            if key in self._left:
                continue
            turn = Turn(start(), replies)
            while turn.request is not None and answered and self._given_up(asked := replies.key(turn.request)):
                turn.answer(self._unanswered(asked, replies))
            if turn.request is None:
                if not turn.final:
                    self._left.add(key)
                finished(key, turn.row, turn.final)
                continue
            asked = replies.key(turn.request)
            if self._given_up(asked):
                self._doubt = self._doubt or self._problems[asked][0]
                continue
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

    def _given_up(self, key: str) -> bool:
        """Whether a request is submitted no more in this run."""
        return key in self._refused or len(self._problems.get(key, ())) >= self.max_attempts

    def _unanswered(self, key: str, replies: Replies) -> Unanswered:
        """What giving up a request comes to: nothing else ever where the server refuses it and answers others."""
        answers_others = replies.tally.replies or len(self._refused) <= FEW_REFUSALS
        kind = Unanswerable if key in self._refused and answers_others else Unanswered
        return kind(f"the teacher gave no answer ({self._problems[key][-1]})")

    def _line(self, key: str, request: Request) -> bytes:
        body = self.parameters.adapt(request_body(self.model, request))
        line = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"

    def _submit(self, file: dict[str, Request], replies: Replies) -> None:
        content = b"".join(self._line(key, request) for key, request in file.items())
        name = uuid.uuid4().hex
        how = {"file": name, "without": sorted(self.parameters.unsupported)}
        rows = {key: {"request": vars(request), **how} for key, request in file.items()}
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
        alone = len(_under_way(replies)) == 1
        while under_way := _under_way(replies):
            done = total = 0
            for name, identity in under_way.items():
                batch = self.client.batches.retrieve(identity)
                if batch.status in OVER:
                    self._take(batch, replies)
                    replies.store.put(BATCHES, {n: b for n, b in _under_way(replies).items() if n != name})
                    if batch.status == "failed" and any(error.code == TOKEN_LIMIT for error in _errors(batch)):
                        self._submit_less(batch, name, alone, replies)
                    elif batch.status in ("failed", "cancelled"):
                        reasons = f"the batch {identity} is {batch.status} ({_reasons(batch)})"
                        self._hopeless = self._hopeless or f"{reasons}: mend that and start again."
                elif batch.request_counts:
                    done += batch.request_counts.completed
                    total += batch.request_counts.total
            if self._hopeless:
                raise DRPError(self._hopeless)
            if still := _under_way(replies):
                replies.tally.status = f"{len(still)} batches under way, {done:,} of {total:,} requests answered"
                time.sleep(self.poll_seconds)
        replies.tally.status = ""

    def _submit_less(self, batch: Any, file: str, alone: bool, replies: Replies) -> None:
        """Halves the files to come, and submits one at a time, as the account may not have so much under way.

        Raises:
            DRPError: a single request, with no other batch of this run under way, is too much.
        """
        requests = sum(row.get("file") == file for row in map(replies.store.get, replies.store))
        if alone and requests == 1:
            raise DRPError(
                f"the batch {batch.id} of a single request is failed ({_reasons(batch)}): wait until the account has no "
                "other batches under way, or have its limit raised, and start again; what is done is kept."
            )
        self._one_at_a_time = True
        self.requests_per_batch = min(self.requests_per_batch, max(1, requests // 2))

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
            without = row.get("without", ())
            self.parameters.unsupported.update(without)  # which a run that was stopped has learnt
            try:
                answered.append((Request(**row["request"]), read_completion((line.get("response") or {}).get("body"))))
            except ValueError as failure:
                replies.tally.failures += 1
                self._note(line, without, failure)
            if len(answered) == LINES_AT_ONCE:
                replies.put(*answered)
                answered = []
        replies.put(*answered)

    def _note(self, line: Mapping[str, Any], without: Collection[str], failure: ValueError) -> None:
        """Notes why a request has no reply, unless it shall be submitted again without parameters just learnt of."""
        response = line.get("response") or {}
        status, body = response.get("status_code"), response.get("body")
        error = line.get("error") or (body.get("error") if isinstance(body, Mapping) else None)
        refused = status in REFUSED
        if refused and self.parameters.learn(error, without):
            return
        known = error if isinstance(error, Mapping) else {}
        told = failure if status == 200 and not error else json.dumps(error or response)
        problem = describe(ValueError(known.get("message") or told))
        self._hopeless = self._hopeless or hopeless_answer(status, known.get("code"), problem, self.model)
        self._problems.setdefault(line["custom_id"], []).append(problem)
        if refused:
            self._refused.add(line["custom_id"])


def _under_way(replies: Replies) -> dict[str, str]:
    """The batch of each file under way; empty for a file whose batch is not known."""
    return replies.store.get(BATCHES) or {}


def _noted(replies: Replies) -> dict[str, str]:
    """What is under way, whatever model is asked."""
    return _under_way(replies) | (replies.store.get(SET_ASIDE) or {})


def refuse_what_is_under_way(conversations: Conversations, replies: Replies) -> None:
    """Before another way of asking: makes sure that nothing is asked, and paid, that is in a batch already.

    Raises:
        DRPError: a conversation waits for the reply to a request in a batch that is not known to be over.
    """
    noted = _noted(replies)
    for _, start in conversations if noted else ():
        request = Turn(start(), replies).request
        waiting = (request and replies.store.get(replies.key(request))) or {}
        if waiting.get("file") in noted:
            identity = noted[waiting["file"]] or "one that was being submitted"
            raise DRPError(
                f"some of these requests are in batches under way ({identity}), and would be paid twice: go on with "
                "--teacher batch, or cancel them at the provider and give the command once with --teacher batch, which "
                "keeps what they answered, says that they are cancelled, and forgets them."
            )


def _set_aside(replies: Replies) -> None:
    """Sorts what is under way by whether it was asked of this model or of another."""
    noted = _noted(replies)
    others = replies.files_of_others() & noted.keys() if noted else set()
    own = {name: batch for name, batch in noted.items() if name not in others}
    if own != _under_way(replies):
        replies.store.put_many({BATCHES: own, SET_ASIDE: {name: noted[name] for name in others}})


def _errors(batch: Any) -> list[Any]:
    return batch.errors.data if batch.errors and batch.errors.data else []


def _reasons(batch: Any) -> str:
    return "; ".join(str(error.message) for error in _errors(batch)[:3]) or "no reason given"
