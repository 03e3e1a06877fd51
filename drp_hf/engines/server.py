"""Generation on any OpenAI-compatible server (vLLM's, SGLang's, llama.cpp's, OpenAI's, …).

Where the model's tokenizer can be loaded here, its prompts are rendered here and sent as token ids: they are the same
as on every other engine, and a completion can be made to go on from a prefix. Where it cannot, or where the server has
nothing but a chat, it gets the messages and uses its own chat template.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import openai
from rich.console import Console

from drp_hf.engines.base import (
    QUESTION,
    Completion,
    Engine,
    Refusal,
    Sampling,
    TokenEngine,
    chat_messages,
    describe_model,
)
from drp_hf.errors import DRPError
from drp_hf.records import THINK_CLOSE, THINK_OPEN, whole
from drp_hf.servers import (
    ABSENT,
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

BATCH_SIZE = 64
"""Requests under way at the same time."""
MAX_ATTEMPTS = 8
"""Attempts at one answer, over one to two minutes, before the run stops."""
ANSWER_SECONDS = 3600.0
"""A long output on a busy server takes long; a server that is gone is noticed at once."""
CONNECT_SECONDS = 30.0
REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Where servers put what stood between the think tags, if they take it out of the text."""
BEYOND_OPENAI = {
    # In some vocabularies the think tags are special tokens.
    "skip_special_tokens": False,
    # What a server would otherwise take from the model's generation config.
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
"""Settings of completions that OpenAI's own do not have, as vLLM and SGLang call them."""
COMPLETIONS = "/completions"
Count = Callable[[str, bool], int]
"""Takes a text and whether it is finished, and gives its tokens: for servers that do not say."""


def make_server_engine(
    model: str,
    base_url: str | None = None,
    batch_size: int = BATCH_SIZE,
    context_length: int | None = None,
    prompt: str = QUESTION,
    system: str | None = None,
    tokenizer: str | None = None,
    chat: bool = False,
) -> Engine:
    """An engine that asks a server; its chat where `chat` is set, or where no tokenizer is found.

    The other arguments are as in [`~drp_hf.engines.make_engine`].

    Raises:
        DRPError: the server cannot be reached, refuses the key, or does not serve such a model.
    """
    server = Server(model, base_url)
    served_context = server.check()
    if chat:
        return ChatEngine(server, batch_size, prompt, system)
    try:
        tokenizer, config, stops = describe_model(tokenizer or model)
    except (DRPError, OSError, ValueError) as error:
        reason = f"no tokenizer was found here ({describe(error)})"
    else:
        if tokenizer.chat_template:
            settings = (tokenizer, config, stops, context_length, prompt, system)
            return CompletionsEngine(server, served_context, batch_size, *settings)
        reason = "its tokenizer has no chat template"
    message = f"{model} is asked through the server's own chat template, for {reason}"
    Console(stderr=True, soft_wrap=True).print(message, markup=False, highlight=False)
    return ChatEngine(server, batch_size, prompt, system)


class CompletionsEngine(TokenEngine):
    """Sends prompts as token ids to a server's completions.

    Args:
        server: who answers.
        served_context: tokens of prompt and completion together that it takes; None where it does not say.
        batch_size: requests under way at the same time.
        *args: as in [`~drp_hf.engines.base.TokenEngine`], from the tokenizer on.
    """

    def __init__(self, server: Server, served_context: int | None, batch_size: int, *args: Any):
        super().__init__(server.model, *args)
        self.server = server
        self.served_context = served_context
        self.batch_size = batch_size

    def _write(
        self, openings: list[str], prompts: list[list[int]], seeds: list[int], sampling: Sampling
    ) -> Iterator[tuple[int, Completion | Refusal]]:
        self._check_context(max(map(len, prompts), default=0), sampling.max_tokens)
        bodies = [
            {
                "prompt": prompt,
                **_sampling(sampling, seed),
                "max_tokens": min(sampling.max_tokens, self.context_length - len(prompt)),
                "stop_token_ids": sorted(self.stop_ids),
                **BEYOND_OPENAI,
            }
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        read = partial(read_completion, count=self._count)
        for index, answer in self.server.ask(COMPLETIONS, bodies, read, self.batch_size):
            yield index, answer if isinstance(answer, Refusal) else replace(answer, text=openings[index] + answer.text)

    def _check_context(self, longest: int, max_tokens: int) -> None:
        """Refuses a server that would cut what no setting cuts: after another start it may cut elsewhere, or not."""
        wanted = min(longest + max_tokens, self.context_length)
        if self.served_context and self.served_context < wanted:
            raise DRPError(
                f"The server at {self.server.address} has a context of {self.served_context} tokens, and the longest "
                f"prompt of {longest} tokens and max_tokens {max_tokens} need {wanted}: start the server with more, "
                f"lower --max-tokens, or set --context-length {self.served_context}."
            )

    def _count(self, text: str, finished: bool) -> int:
        """Tokens of a text, with the stop token that does not stand in it."""
        return len(self.tokenizer(whole(text), add_special_tokens=False)["input_ids"]) + finished


class ChatEngine(Engine):
    """Sends messages to a server's chat completions; prompt, context and stop rules are the server's.

    Args:
        server: who answers.
        batch_size: requests under way at the same time.
        prompt: the user's message, with `{question}` for the question.
        system: the system message, if any.
    """

    tokenizer = None

    def __init__(
        self, server: Server, batch_size: int = BATCH_SIZE, prompt: str = QUESTION, system: str | None = None
    ):
        self.name = server.model
        self.server = server
        self.batch_size = batch_size
        self.prompt = prompt
        self.system = system

    def _complete(
        self, questions: Sequence[str], sampling: Sampling, seeds: Sequence[int], prefixes: Sequence[str | None]
    ) -> Iterator[tuple[int, Completion | Refusal]]:
        if any(prefix is not None for prefix in prefixes):
            raise DRPError(
                f"{self.name} cannot be made to go on from a text, as a server's chat has no place for it: serve a "
                "model whose tokenizer can be loaded here."
            )
        bodies = [
            {
                "messages": chat_messages(question, self.prompt, self.system),
                **_sampling(sampling, seed),
                "max_tokens": sampling.max_tokens,
            }
            for question, seed in zip(questions, seeds, strict=True)
        ]
        read = partial(read_chat, count=self._count)
        yield from self.server.ask("/chat/completions", bodies, read, self.batch_size)

    def _count(self, text: str, finished: bool) -> int:
        raise DRPError(
            f"{self.server.address}: the server does not count the tokens of its answers (no usage comes with them): "
            "have it count them, or take --engine server with the model's --tokenizer, and they are counted here."
        )


class Server:
    """A model behind an address.

    Args:
        model: name of the model, as the server knows it.
        base_url: address of the server; OpenAI's if None.

    Raises:
        DRPError: no key for OpenAI, or a key within the address.
    """

    def __init__(self, model: str, base_url: str | None = None) -> None:
        self.model = model
        self.address = base_url or "OpenAI"
        self.options = client_options(base_url)
        self.parameters = Parameters(model)

    def check(self) -> int | None:
        """Asks which models there are, so that a mistake is told before anything is generated.

        Returns:
            Tokens of prompt and completion together that the server takes, where it says.

        Raises:
            DRPError: the server cannot be reached, refuses the key, or does not serve such a model.
        """
        try:
            with openai.OpenAI(max_retries=2, timeout=CONNECT_SECONDS, **self.options) as client:
                models = {model.id: model for model in client.models.list()}
        except openai.NotFoundError:  # it does not say; the first answer will show
            return None
        except openai.OpenAIError as error:
            raise self._failure(error) from None
        # Routers take a provider behind the name, as in "Qwen/Qwen3-32B:together", and list the name alone.
        model = models.get(self.model) or models.get(self.model.rpartition(":")[0])
        if model is None:
            known = ", ".join(sorted(models)[:10]) or "nothing"
            raise DRPError(f"The server at {self.address} serves {known}, and not {self.model!r}: correct the model.")
        return (model.model_extra or {}).get("max_model_len")

    def ask(
        self,
        path: str,
        bodies: Sequence[Mapping[str, Any]],
        read: Callable[[Mapping[str, Any]], Completion],
        concurrency: int,
    ) -> Iterator[tuple[int, Completion | Refusal]]:
        """Sends requests, so many at a time, and yields position and completion, or refusal, as they are answered.

        A refused request keeps no other from being sent, unless `FEW_REFUSALS` were refused and none is answered.

        Args:
            path: where they are sent.
            bodies: the requests, without the model.
            read: takes the completion out of an answer; `ValueError` where there is none, and `DRPError` where no
                other answer can have one either.
            concurrency: requests under way at the same time.

        Raises:
            DRPError: no request can be answered, or one was not in `MAX_ATTEMPTS` attempts. What came is not lost.
        """
        waiting = iter(enumerate(bodies))
        answered: asyncio.Queue[tuple[int, Completion | Refusal | DRPError]] = asyncio.Queue()
        manners = Manners(concurrency, None, None)
        caution = Caution()

        async def work() -> None:
            timeout = openai.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
            async with manners.client(timeout=timeout, **self.options) as client:
                await asyncio.gather(*(worker(client) for _ in range(min(concurrency, len(bodies)))))

        async def worker(client: openai.AsyncOpenAI) -> None:
            for index, body in waiting:
                caution.under_way += 1
                try:
                    answer = await self._answer(client, manners, path, body, read)
                except DRPError as error:
                    answered.put_nowait((index, error))
                    return
                answered.put_nowait((index, answer))
                if isinstance(answer, Completion):
                    await caution.settled(answered=True)
                else:
                    await caution.refused()
                if caution.refuses_all:
                    return

        # Leaving it, also when the caller takes no more, cancels what is under way.
        with asyncio.Runner() as runner:
            working = runner.get_loop().create_task(work())
            while came := runner.run(_all_that_came(answered, working)):
                yield from (one for one in came if not isinstance(one[1], DRPError))
                for _, failure in came:
                    if isinstance(failure, DRPError):
                        raise failure

    async def _answer(
        self,
        client: openai.AsyncOpenAI,
        manners: Manners,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[Mapping[str, Any]], Completion],
    ) -> Completion | Refusal:
        for attempt in range(MAX_ATTEMPTS):
            await asyncio.sleep(delay_before(attempt))
            try:
                return read(await self.parameters.post(client, path, {"model": self.model, **body}))
            except DRPError:
                raise
            except (openai.APIError, ValueError) as error:
                failure = error
            finally:
                manners.release()
            if hopeless(failure, self.model):
                break
            if getattr(failure, "status_code", None) in REFUSED:
                return Refusal(f"{self.address}: {describe(failure)}")
        raise self._failure(failure, path)

    def _failure(self, error: Exception, path: str = "") -> DRPError:
        """An error that does not pass by itself, in one sentence."""
        if path == COMPLETIONS and getattr(error, "status_code", None) in ABSENT:
            return DRPError(
                f"{self.address}: the server has no model {self.model!r}, or no {path} ({describe(error)}): correct "
                "--model or --base_url, or use its chat with --engine chat."
            )
        if message := hopeless(error, self.model):
            return DRPError(f"{self.address}: {message}")
        return DRPError(
            f"{self.address}: the server does not answer ({describe(error)}): start it, or correct --base_url, and "
            "give the same command again; what is done is kept."
        )


async def _all_that_came(answered: asyncio.Queue, working: asyncio.Task) -> list[Any]:
    """Waits for an answer, and takes all that are there; none when those who work have ended.

    An unforeseen error of theirs is raised here.
    """
    taking = asyncio.ensure_future(answered.get())
    await asyncio.wait((taking, working), return_when=asyncio.FIRST_COMPLETED)
    if not taking.done() and answered.empty():
        taking.cancel()
        working.result()
        return []
    return [await taking, *(answered.get_nowait() for _ in range(answered.qsize()))]


def _sampling(sampling: Sampling, seed: int) -> dict[str, Any]:
    return {"temperature": sampling.temperature, "top_p": sampling.top_p} | (
        {"seed": seed % 2**63} if sampling.temperature > 0 else {}
    )


def read_completion(answer: Mapping[str, Any], count: Count) -> Completion:
    """The completion in an answer of `/completions`; `ValueError` where there is none, or it broke off."""
    return _read(answer, lambda choice, finished: choice["text"], count)


def read_chat(answer: Mapping[str, Any], count: Count) -> Completion:
    """The completion in an answer of `/chat/completions`, with both think tags where the model has thought.

    Tags are put back where the server has taken the reasoning out of the text, or where its chat template has written
    the first one. The second one is missing where the output was cut within the reasoning.
    """
    return _read(answer, lambda choice, finished: _with_tags(choice["message"], finished), count)


def _with_tags(message: Mapping[str, Any], finished: bool) -> str:
    content = message.get("content") or ""
    reasoning = next((message[field] for field in REASONING_FIELDS if message.get(field)), None)
    if reasoning is not None:
        thought = f"{THINK_OPEN}\n{reasoning.strip()}"
        return f"{thought}\n{THINK_CLOSE}\n\n{content.lstrip()}" if content or finished else thought
    if THINK_CLOSE in content and THINK_OPEN not in content:
        return f"{THINK_OPEN}\n{content.lstrip()}"
    return content


def _read(answer: Mapping[str, Any], text: Callable[[Mapping[str, Any], bool], str], count: Count) -> Completion:
    try:
        choice = answer["choices"][0]
        finished = finish_reason(choice) == "stop"
        written = text(choice, finished)
        n_tokens = (answer.get("usage") or {}).get("completion_tokens")
        return Completion(written, count(written, finished) if n_tokens is None else int(n_tokens), finished)
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError("it sent no completion") from error
