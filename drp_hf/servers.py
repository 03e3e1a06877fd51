"""What every caller of an OpenAI-compatible server shares: address and key, good manners, delays, and clear errors."""

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

KEY = "OPENAI_API_KEY"
"""The environment variable with the key; the only place that it is read from."""
FIRST_DELAY, LONGEST_DELAY = 0.5, 60.0
"""Seconds before the second attempt, doubled for each further one; each is drawn between half of it and all."""
BYTES_PER_TOKEN = 4
"""Of a request, about."""


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


def delay_before(attempt: int) -> float:
    """Seconds to wait before an attempt, the first of which is 0: none, and then longer each time."""
    if attempt == 0:
        return 0.0
    return min(LONGEST_DELAY, FIRST_DELAY * 2 ** (attempt - 1)) * random.uniform(0.5, 1)


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
