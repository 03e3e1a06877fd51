"""Between conversations and a language model: what every way to ask one shares.

A conversation is `drp_hf.pruning.prune` at work: it yields requests, is sent replies, and returns a corpus row. Every
reply is on disk before its conversation goes on. A conversation that starts anew is given the replies that are there
already, and so comes quickly to where it was: this is all that going on after an interruption takes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from drp_hf.records import CorpusRow
from drp_hf.store import RowStore, content_key
from drp_hf.teacher import Reply, Request, Unanswerable, Unanswered

Conversation = Generator[Request, Reply, CorpusRow]
Conversations = Iterable[tuple[str, Callable[[], Conversation]]]
"""Key of a row, and what starts the conversation that makes it. Can be gone through again; rows made are left out."""
Finished = Callable[[str, CorpusRow, bool], None]
"""Takes a row, by key, and whether it is final: a row that lacks a reply is not."""


@dataclass
class Tally:
    """What a run asked and got.

    Args:
        replies: replies that came.
        replayed: replies that were on disk already.
        failures: attempts without a reply, most of them made again.
        unanswered: requests given up.
        input_tokens: of the requests that were answered in this run, as the server counts them.
        output_tokens: of their replies.
        status: what is being waited for, where that takes long.
    """

    replies: int = 0
    replayed: int = 0
    failures: int = 0
    unanswered: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    status: str = ""

    def cost(self, price_input: float, price_output: float) -> float:
        """What the replies cost, at prices for a million tokens."""
        return (self.input_tokens * price_input + self.output_tokens * price_output) / 1e6


class Replies:
    """Requests and replies on disk, by everything that decides a reply; the server's address does not count.

    Args:
        store: where they are kept.
        model: name of the language model.
        tally: counts what is put and what is found.
    """

    def __init__(self, store: RowStore, model: str, tally: Tally) -> None:
        self.store = store
        self.model = model
        self.tally = tally
        self._counted: set[str] = set()

    def key(self, request: Request) -> str:
        return content_key(self.model, vars(request))

    def find(self, request: Request) -> Reply | None:
        """The reply that is there already."""
        key = self.key(request)
        row = self.store.get(key)
        if row is None or "reply" not in row:
            return None
        if key not in self._counted:
            self._counted.add(key)
            self.tally.replayed += 1
        return Reply(**row["reply"])

    def exist(self) -> bool:
        """Whether the model has ever answered."""
        return any("reply" in row and self._own(key, row) for key, row in self._rows())

    def files_of_others(self) -> set[str]:
        """The files with requests to other models that were asked before, those replied to left out."""
        return {row["file"] for key, row in self._rows() if "file" in row and not self._own(key, row)}

    def _rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        return ((key, self.store.get(key)) for key in self.store)

    def _own(self, key: str, row: Mapping[str, Any]) -> bool:
        return key == content_key(self.model, row["request"])

    def put(self, *answered: tuple[Request, Reply]) -> None:
        """Writes replies with their requests, and returns when all of them are on disk."""
        rows = {self.key(request): {"request": vars(request), "reply": vars(reply)} for request, reply in answered}
        self.store.put_many(rows)
        self._counted.update(rows)
        for _, reply in answered:
            self.tally.replies += 1
            self.tally.input_tokens += reply.input_tokens
            self.tally.output_tokens += reply.output_tokens


class Turn:
    """A conversation up to the next request that has no reply yet.

    Attributes:
        request: that request; None when the conversation is over.
        row: the row that it came to.
        final: whether no reply is lacking.
    """

    def __init__(self, conversation: Conversation, replies: Replies) -> None:
        self._conversation = conversation
        self._replies = replies
        self.request: Request | None = None
        self.row: CorpusRow | None = None
        self.final = True
        self._go_on(lambda: next(conversation))

    def answer(self, reply: Reply | Unanswered) -> None:
        """Goes on with a reply, which is on disk by now; or without one."""
        if isinstance(reply, Unanswered):
            if not isinstance(reply, Unanswerable):
                self.final = False
                self._replies.tally.unanswered += 1
            self._go_on(lambda: self._conversation.throw(reply))
        else:
            self._go_on(lambda: self._conversation.send(reply))

    def _go_on(self, resume: Callable[[], Request]) -> None:
        try:
            self.request = resume()
            while known := self._replies.find(self.request):
                self.request = self._conversation.send(known)
        except StopIteration as done:
            self.request, self.row = None, done.value


def ask_nobody(conversations: Conversations, finished: Finished) -> None:
    """Makes the rows of teachers that need no language model."""
    for key, start in conversations:
        try:
            request = next(start())
        except StopIteration as done:
            finished(key, done.value, True)
        else:
            raise TypeError(f"nobody is there to answer {request}")


class Asker(ABC):
    """Brings requests to a language model and replies back."""

    @abstractmethod
    def run(self, conversations: Conversations, replies: Replies, finished: Finished) -> None:
        """Holds the conversations, several at a time.

        Raises:
            DRPError: no request can succeed (a wrong key, no such model, …); what is done is kept.
        """
