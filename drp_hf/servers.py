"""What every caller of an OpenAI-compatible server shares: address and key, good manners, delays, and clear errors."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Collection, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import openai
from rich.console import Console

from drp_hf.errors import DRPError

KEY = "OPENAI_API_KEY"
"""The environment variable with the key; the only place that it is read from."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds before the second attempt, doubled for each further one; each is drawn between half of it and all."""
BYTES_PER_TOKEN = 4
"""Of a request, about."""
REFUSED = (400, 422)
"""HTTP statuses that say: this request gets no answer, however often it is sent."""
FEW_REFUSALS = 10
"""So many requests refused, with none answered in between, and it may be the settings that the server refuses."""
INSTEAD = {"max_tokens": "max_completion_tokens", "temperature": None, "top_p": None}
"""Parameters that not every model takes (OpenAI's reasoning models do not), and what is sent instead, if anything."""
UNSUPPORTED = ("unsupported_parameter", "unsupported_value")
ABSENT = (404, 405)
"""HTTP statuses of a server that has no such model or no such path."""
FINISHED = ("stop", "eos", "eos_token", "stop_sequence")
"""Finish reasons of a text that the model ended by itself: OpenAI's, Together's, and TGI's two."""
CUT = ("length", "content_filter")
"""Finish reasons of a text that was cut, and would be cut again."""
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


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

    def client(self, **options: Any) -> openai.AsyncOpenAI:
        """A client that sends a request once, and holds it back until it may be sent."""
        hooks = {"request": [self.before_sending], "response": [self.when_answered]}
        http_client = openai.DefaultAsyncHttpxClient(event_hooks=hooks)
        return openai.AsyncOpenAI(max_retries=0, http_client=http_client, **options)

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


class Caution:
    """Tells a server that refuses some requests from one that refuses all of them.

    Args:
        answered: whether it has answered any, before this run.

    Attributes:
        under_way: requests that are neither answered, refused nor given up yet.
        refusals: requests refused since the last answer.
    """

    def __init__(self, answered: bool = False) -> None:
        self.answered = answered
        self.answers = 0
        self.under_way = 0
        self.refusals = 0
        self.changed = asyncio.Condition()

    @property
    def refuses_all(self) -> bool:
        """Whether it has refused many and answered none."""
        return self.refusals >= FEW_REFUSALS and not self.answered

    async def settled(self, answered: bool) -> None:
        """Counts a request that was answered, or given up."""
        async with self.changed:
            self.under_way -= 1
            if answered:
                self.answered = True
                self.answers += 1
                self.refusals = 0
            self.changed.notify_all()

    async def refused(self) -> bool:
        """Counts a request that was refused; whether the server answers others.

        While that is in doubt, what is under way is waited for, until one is answered.
        """
        async with self.changed:
            self.under_way -= 1
            self.refusals += 1
            before = self.answers
            known = self.answered and self.refusals <= FEW_REFUSALS
            self.changed.notify_all()
            if not known:
                await self.changed.wait_for(lambda: self.answers > before or not self.under_way)
            return known or self.answers > before


class Parameters:
    """The parameters of its requests that a model does not take, learnt from the server's refusals.

    Args:
        model: name of the model, to tell the user of it.

    Attributes:
        unsupported: names of those parameters.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.unsupported: set[str] = set()

    def adapt(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request's body as the model takes it, as far as that is known."""
        names = {name: INSTEAD[name] if name in self.unsupported else name for name in body}
        return {names[name]: value for name, value in body.items() if names[name]}

    def learn(self, error: Any, known: Collection[str]) -> bool:
        """Whether a refusal is about such a parameter, so that the request, adapted, is worth sending once more.

        Args:
            error: what the server says, in OpenAI's format; nothing is learnt from another.
            known: the parameters to which the refused request was adapted already.
        """
        if not isinstance(error, Mapping) or error.get("code") not in UNSUPPORTED:
            return False
        named, message = error.get("param"), str(error.get("message"))
        for name in INSTEAD:
            if name not in known and (named == name or (not named and f"'{name}'" in message)):
                if name not in self.unsupported:
                    self.unsupported.add(name)
                    instead = f"{INSTEAD[name]} takes its place" if INSTEAD[name] else "the model's own is taken"
                    text = f"{self.model} does not take this {name}, and {instead} ({message})"
                    Console(stderr=True, soft_wrap=True).print(text, markup=False, highlight=False)
                return True
        return False

    async def post(self, client: openai.AsyncOpenAI, path: str, body: Mapping[str, Any]) -> Any:
        """Sends a request, adapted, and once more for each parameter that turns out not to be taken.

        Returns:
            The answer, as parsed JSON.

        Raises:
            openai.APIError: there is none.
        """
        while True:
            known = frozenset(self.unsupported)
            try:
                # Not `chat.completions.create`, which would look through every field of a schema each time.
                return await client.post(path, cast_to=object, body=self.adapt(body))
            except openai.APIStatusError as error:
                if error.status_code not in REFUSED or not self.learn(error.body, known):
                    raise


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


def delay_before(attempt: int) -> float:
    """Seconds to wait before an attempt, the first of which is 0: none, and then longer each time."""
    if attempt == 0:
        return 0.0
    return min(LONGEST_DELAY, FIRST_DELAY * 2 ** (attempt - 1)) * random.uniform(0.5, 1)


def hopeless(error: Exception, model: str) -> str:
    """What to tell the user where no further request can succeed either; empty where one can."""
    status, code = getattr(error, "status_code", None), getattr(error, "code", None)
    return hopeless_answer(status, code, describe(error), model)


def hopeless_answer(status: int | None, code: str | None, problem: str, model: str) -> str:
    """As [`hopeless`], of an answer that comes in a batch.

    Args:
        status: its HTTP status, if it has one.
        code: OpenAI's code of the error, if there is one.
        problem: the error in one line.
        model: name of the model.
    """
    if status in (401, 403):
        return f"the server refuses the key ({problem}): correct {KEY}."
    if status in ABSENT:
        return f"the server has no model {model!r}, or is none ({problem}): correct --model or --base_url."
    if status == 402 or code in NO_CREDIT:
        return f"the account has no quota left ({problem}): add credit and start again; what is done is kept."
    return ""


def finish_reason(choice: Mapping[str, Any]) -> str:
    """Why the text of an answer ends: `"stop"` where the model ended it by itself, else one of `CUT`.

    Raises:
        ValueError: for another reason (an overloaded server, an error, …), or none: asked again, it may be whole.
    """
    reason = choice.get("finish_reason")
    if reason in FINISHED:
        return "stop"
    if reason not in CUT:
        raise ValueError(f"its answer broke off, with finish_reason {reason!r}")
    return reason


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
