"""Asks a language model behind any OpenAI-compatible server, politely."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import openai

from drp_hf.errors import DRPError
from drp_hf.teachers.asking import Asker, Conversations, Finished, Replies, Tally, Turn
from drp_hf.teachers.base import Reply, Request, Unanswered

KEY = "OPENAI_API_KEY"
"""The environment variable with the key; the only place that it is read from."""
PATH = "/chat/completions"
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds before the second attempt, doubled for each further one; each is drawn between half of it and all."""
READY = 2
"""Conversations held for each request under way: while one waits for its reply, another gets its request ready."""
BYTES_PER_TOKEN = 4
"""Of a request, about."""
GIVEN_UP_IN_A_ROW = 10
"""So many requests given up, with none answered in between, and the run stops: everything fails."""


class ChatAsker(Asker):
    """Asks through the `openai` client, `concurrency` requests at a time.

    Args:
        model: name of the model, as the server knows it.
        base_url: address of the server; OpenAI's if None.
        concurrency: requests under way at the same time.
        requests_per_minute, tokens_per_minute: limits to keep to, evenly spread; None for no limit.
        max_attempts: attempts for one request, after which its row goes on without a reply.
        timeout: seconds that one attempt may take.
        structured_outputs: whether the server is given the schema of the reply.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        concurrency: int = 16,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        max_attempts: int = 8,
        timeout: float = 300.0,
        structured_outputs: bool = True,
    ) -> None:
        self.model = model
        self.options = client_options(base_url)
        self.concurrency = concurrency
        self.max_attempts = max_attempts
        self.timeout = timeout
        self.structured_outputs = structured_outputs
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute

    def run(self, conversations: Conversations, replies: Replies, finished: Finished) -> None:
        try:
            asyncio.run(self._run(conversations, replies, finished))
        except BaseExceptionGroup as group:
            expected = group.subgroup(DRPError)
            if expected is None:
                raise
            raise expected.exceptions[0] from None

    async def _run(self, conversations: Conversations, replies: Replies, finished: Finished) -> None:
        self.manners = Manners(self.concurrency, self.requests_per_minute, self.tokens_per_minute)
        self.given_up = 0
        keeper = Keeper(replies)
        waiting = iter(conversations)

        async def hold_conversations() -> None:
            for key, start in waiting:
                turn = Turn(start(), replies)
                while turn.request is not None:
                    reply = await self._ask(turn.request, replies.tally)
                    if isinstance(reply, Reply):
                        await keeper.keep(turn.request, reply)
                    turn.answer(reply)
                finished(key, turn.row, turn.final)
                await asyncio.sleep(0)  # rows that need no request must not keep the others from being sent

        hooks = {"request": [self.manners.before_sending], "response": [self.manners.when_answered]}
        client = openai.AsyncOpenAI(
            max_retries=0,
            timeout=self.timeout,
            http_client=openai.DefaultAsyncHttpxClient(event_hooks=hooks),
            **self.options,
        )
        try:
            async with client as self.client, asyncio.TaskGroup() as group:
                for _ in range(READY * self.concurrency):
                    group.create_task(hold_conversations())
        finally:
            replies.put(*keeper.waiting)  # what an interruption left there

    async def _ask(self, request: Request, tally: Tally) -> Reply | Unanswered:
        body = request_body(self.model, request, self.structured_outputs)
        for attempt in range(self.max_attempts):
            if attempt:
                delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** (attempt - 1))
                await asyncio.sleep(delay * random.uniform(0.5, 1))
            try:
                # Not `chat.completions.create`, which would look through every field of the schema each time.
                reply = read_completion(await self.client.post(PATH, cast_to=object, body=body))
            except (openai.APIError, ValueError) as error:
                problem = error
            else:
                self.given_up = 0
                self.manners.tokens.charge(reply.output_tokens)
                return reply
            finally:
                self.manners.release()
            tally.failures += 1
            if message := hopeless(problem, self.model):
                raise DRPError(message)
            if isinstance(problem, openai.BadRequestError | openai.UnprocessableEntityError):
                break
        self.given_up += 1
        if self.given_up >= GIVEN_UP_IN_A_ROW:
            raise DRPError(
                f"the last {self.given_up} requests were given up and none was answered ({describe(problem)}): "
                "mend that and start again; what is done is kept."
            )
        return Unanswered(f"the teacher gave no answer ({describe(problem)})")


class Manners:
    """Holds requests back at the moment of sending: hooks of the HTTP client.

    A request is under way from when it is sent until its answer begins; what goes on before and after, in this
    process, keeps no other from being sent.
    """

    def __init__(self, concurrency: int, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self.slots = asyncio.Semaphore(concurrency)
        self.under_way = ContextVar("under_way", default=False)
        self.requests = Pace(requests_per_minute)
        self.tokens = Pace(tokens_per_minute)
        self.paused_until = 0.0

    async def before_sending(self, request: Any) -> None:
        """Returns when the request may be sent."""
        await self.slots.acquire()
        self.under_way.set(True)
        while (pause := self.paused_until - time.monotonic()) > 0:
            await asyncio.sleep(pause)
        await self.requests.take(1)
        await self.tokens.take(len(request.content) // BYTES_PER_TOKEN)

    async def when_answered(self, response: Any) -> None:
        """Lets the next request be sent, unless the server asks to wait."""
        if response.is_error:
            self.paused_until = max(self.paused_until, time.monotonic() + retry_after(response.headers))
        self.release()

    def release(self) -> None:
        """The task's request is under way no more, however it ended."""
        if self.under_way.get():
            self.under_way.set(False)
            self.slots.release()


class Keeper:
    """Puts replies on disk without holding up the others: those that come while one write lasts share the next."""

    def __init__(self, replies: Replies) -> None:
        self.replies = replies
        self.waiting: list[tuple[Request, Reply]] = []
        self.writing = asyncio.Lock()

    async def keep(self, request: Request, reply: Reply) -> None:
        """Returns when the reply is on disk."""
        self.waiting.append((request, reply))
        async with self.writing:
            answered, self.waiting = self.waiting, []
            if answered:
                await asyncio.shield(asyncio.to_thread(self.replies.put, *answered))


class Pace:
    """Spreads what is taken evenly over time.

    Args:
        per_minute: how much may be taken in a minute; None for no limit.
    """

    def __init__(self, per_minute: float | None) -> None:
        self.seconds_each = 60 / per_minute if per_minute else 0.0
        self.free_at = 0.0

    async def take(self, amount: float) -> None:
        """Returns when so much may be taken."""
        start = max(self.free_at, time.monotonic())
        self.free_at = start
        self.charge(amount)
        await asyncio.sleep(max(0.0, start - time.monotonic()))

    def charge(self, amount: float) -> None:
        """Counts what was taken without asking; those who come next wait for it."""
        self.free_at += amount * self.seconds_each


def client_options(base_url: str | None) -> dict[str, Any]:
    """Address and key for an `openai` client. The key comes from the environment; a local server may need none.

    Raises:
        DRPError: no key for a server that needs one, or a key within the address.
    """
    if base_url and (urlsplit(base_url).username or urlsplit(base_url).query):
        raise DRPError(f"base_url must hold no user name, key or query: put the key into {KEY} instead.")
    key = os.environ.get(KEY)
    if not key and not base_url:
        raise DRPError(f"there is no key: set the environment variable {KEY}, or give the base_url of a local server.")
    # A connection serves one request: the second copy of an answer that comes twice would be taken for the next one's.
    return {"api_key": key or "none", "base_url": base_url, "default_headers": {"Connection": "close"}}


def request_body(model: str, request: Request, structured_outputs: bool) -> dict[str, Any]:
    """The body of a chat completion request."""
    body = {
        "model": model,
        "messages": list(request.messages),
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }
    if structured_outputs and request.schema:
        schema = {"name": "pruning", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def read_completion(completion: Any) -> Reply:
    """The reply in a chat completion, as parsed JSON; `ValueError` where there is none."""
    try:
        choice = completion["choices"][0]
        text = choice["message"].get("content") or choice["message"].get("refusal") or ""
        usage = completion.get("usage") or {}
        return Reply(
            str(text),
            str(choice.get("finish_reason") or "stop"),
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
        )
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError("the server's answer is no chat completion") from error


def hopeless(error: Exception, model: str) -> str:
    """What to tell the user where no further request can succeed either; empty where one can."""
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return f"the server refuses the key ({describe(error)}): correct {KEY}."
    if isinstance(error, openai.NotFoundError):
        return f"the server has no model {model!r}, or is none ({describe(error)}): correct --model or --base_url."
    if isinstance(error, openai.RateLimitError) and error.code == "insufficient_quota":
        return f"the account has no quota left ({describe(error)}): add credit and start again; what is done is kept."
    return ""


def describe(error: Exception) -> str:
    """An error in one line, without the key: some servers repeat it."""
    text = " ".join(str(error).split()) or type(error).__name__
    key = os.environ.get(KEY)
    return (text.replace(key, "…") if key else text)[:300]


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait; 0 where it does not say."""
    try:
        return min(LONGEST_DELAY, max(0.0, float(headers.get("retry-after", 0))))
    except ValueError:  # a date; the growing delay will do
        return 0.0
