"""Asks a language model behind any OpenAI-compatible server, politely."""

from __future__ import annotations

import asyncio
from typing import Any

import openai

from drp_hf.errors import DRPError
from drp_hf.servers import (
    REFUSED,
    Caution,
    Manners,
    Parameters,
    client_options,
    delay_before,
    describe,
    finish_reason,
    hopeless,
)
from drp_hf.teacher import Reply, Request, Unanswerable, Unanswered
from drp_hf.teachers.asking import Asker, Conversations, Finished, Replies, Tally, Turn

PATH = "/chat/completions"
READY = 2
"""Conversations held for each request under way: while one waits for its reply, another gets its request ready."""
GIVEN_UP_IN_A_ROW = 10
"""So many requests given up, refused ones not counted, with none answered in between, and the run stops."""


class ChatAsker(Asker):
    """Asks through the `openai` client, `concurrency` requests at a time.

    Args:
        model: name of the model, as the server knows it.
        base_url: address of the server; OpenAI's if None.
        concurrency: requests under way at the same time.
        requests_per_minute, tokens_per_minute: limits to keep to, evenly spread; None for no limit.
        max_attempts: attempts for one request, after which its row goes on without a reply.
        timeout: seconds that one attempt may take.

    What the server refuses is not sent again; while it answers others, that is final.
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
    ) -> None:
        self.model = model
        self.options = client_options(base_url)
        self.parameters = Parameters(model)
        self.concurrency = concurrency
        self.max_attempts = max_attempts
        self.timeout = timeout
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
        self.caution = Caution(answered=replies.exist())
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

        try:
            async with (
                self.manners.client(timeout=self.timeout, **self.options) as self.client,
                asyncio.TaskGroup() as group,
            ):
                for _ in range(READY * self.concurrency):
                    group.create_task(hold_conversations())
        finally:
            replies.put(*keeper.waiting)  # what an interruption left there

    async def _ask(self, request: Request, tally: Tally) -> Reply | Unanswered:
        body = request_body(self.model, request)
        self.caution.under_way += 1
        for attempt in range(self.max_attempts):
            await asyncio.sleep(delay_before(attempt))
            try:
                reply = read_completion(await self.parameters.post(self.client, PATH, body))
            except (openai.APIError, ValueError) as error:
                problem = error
            else:
                self.given_up = 0
                await self.caution.settled(answered=True)
                self.manners.tokens.charge(reply.output_tokens)
                return reply
            finally:
                self.manners.release()
            tally.failures += 1
            if message := hopeless(problem, self.model):
                raise DRPError(message)
            if getattr(problem, "status_code", None) in REFUSED:
                return await self._refused(problem)
        await self.caution.settled(answered=False)
        self.given_up += 1
        if self.given_up >= GIVEN_UP_IN_A_ROW:
            raise DRPError(
                f"the last {self.given_up} requests were given up and none was answered ({describe(problem)}): "
                "mend that and start again; what is done is kept."
            )
        return Unanswered(f"the teacher gave no answer ({describe(problem)})")

    async def _refused(self, problem: Exception) -> Unanswered:
        """What a refusal comes to: nothing else ever where the server answers others, and else it may be mended."""
        answers_others = await self.caution.refused()
        if self.caution.refuses_all:
            raise DRPError(
                f"{self.caution.refusals} requests were refused and none was answered ({describe(problem)}): mend that "
                "and start again; what is done is kept."
            )
        return (Unanswerable if answers_others else Unanswered)(f"the teacher gave no answer ({describe(problem)})")


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


def request_body(model: str, request: Request) -> dict[str, Any]:
    """The body of a chat completion request."""
    body = {
        "model": model,
        "messages": list(request.messages),
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }
    if request.schema:
        schema = {"name": "pruning", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def read_completion(completion: Any) -> Reply:
    """The reply in a chat completion, as parsed JSON; `ValueError` where there is none, or it broke off."""
    try:
        choice = completion["choices"][0]
        text = choice["message"].get("content") or choice["message"].get("refusal") or ""
        usage = completion.get("usage") or {}
        return Reply(
            str(text),
            finish_reason(choice),
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
        )
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError("the server's answer is no chat completion") from error
