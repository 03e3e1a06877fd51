"""A model that answers questions and forgets nothing: one durable row for every completion."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from drp_hf.engines import SERVERS, Completion, Sampling, make_engine, resolve_engine
from drp_hf.errors import DRPError
from drp_hf.models import load_tokenizer, model_identity
from drp_hf.records import Problem, whole
from drp_hf.store import RowStore, content_key

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from drp_hf.benchmarks import Benchmark
    from drp_hf.commands.generating import GenerationArguments
    from drp_hf.engines import Engine

STORE = "outputs.sqlite"


@dataclass(frozen=True)
class Request:
    """One completion to be had.

    Args:
        question: what is asked.
        sample: which of several answers to it.
        prefix: how the completion is made to begin; None leaves it to the model.
    """

    question: str
    sample: int = 0
    prefix: str | None = None


class AnsweringModel:
    """The model of a run, whose completions are kept: each is on disk as soon as it is written, and had only once.

    The engine is loaded when the first completion is missing. A context manager: the run's store is closed at its end.

    Args:
        config: who answers, and how; checked.

    Attributes:
        identity: what makes the model that model: the content of local folders, name and commit on the Hub, or the
            name that a server has for it.
        measured: `answers` and `tokens` written by this run, and the `seconds` that it took, without loading.

    Raises:
        DRPError: there is no such model or engine, or another process is at work in the folder.
    """

    def __init__(self, config: GenerationArguments):
        self.config = config
        self.engine_name = resolve_engine(config.engine)
        self.sampling = Sampling(config.max_tokens, config.temperature, config.top_p, config.seed)
        # Everything that decides an answer besides question and sampling; a server's address does not.
        self.identity = [config.model] if self.engine_name in SERVERS else model_identity(config.model)
        self.settings = [
            self.identity,
            self.engine_name,
            self.tokenizer.chat_template if self.engine_name != "chat" and self.tokenizer else None,
            config.prompt,
            config.system,
            config.context_length,
            config.dtype,
        ]
        self.store = RowStore(Path(config.output_dir) / STORE)
        self.measured = {"answers": 0, "tokens": 0, "seconds": 0.0}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer of the outputs; None where only a server has it."""
        try:
            return load_tokenizer(self.config.tokenizer or self.config.model)
        except (DRPError, OSError, ValueError):
            if self.engine_name not in SERVERS or self.config.tokenizer:
                raise
            return None

    @cached_property
    def engine(self) -> Engine:
        config = self.config
        return make_engine(
            self.engine_name,
            config.model,
            batch_size=config.batch_size,
            dtype=config.dtype,
            seed=config.seed,
            context_length=config.context_length,
            prompt=config.prompt,
            system=config.system,
            base_url=config.base_url,
            tokenizer=config.tokenizer,
        )

    def keys(self, requests: Sequence[Request], sampling: Sampling) -> list[str]:
        """Names of completions in the store: hashes of everything that decides each of them."""
        return [content_key(self.settings, asdict(sampling), asdict(request)) for request in requests]

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Has the completions that are missing written, and then reads all of them from the disk.

        Args:
            requests: what is asked; equal ones are asked once.
            sampling: how tokens are chosen. A request's seed comes from everything that decides it and not from its
                place: a run that goes on gives what an undisturbed run gives.

        Returns:
            The completions, in the order of the requests.
        """
        keys = self.keys(requests, sampling)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in self.store}
        if missing:
            asked, engine = list(missing), self.engine
            start = time.monotonic()
            completions = engine.generate(
                [request.question for request in missing.values()],
                sampling,
                seeds=[int(key[:15], 16) for key in asked],
                prefixes=[request.prefix for request in missing.values()],
            )
            for place, completion in completions:
                self.store.put(asked[place], asdict(completion))
                self.measured["answers"] += 1
                self.measured["tokens"] += completion.n_tokens
            self.measured["seconds"] += time.monotonic() - start
        # What a server wrote may hold half of a surrogate pair.
        return (Completion(**row | {"text": whole(row["text"])}) for row in map(self.store.get, keys))

    def answer_all(self, benchmarks: Iterable[Benchmark]) -> Iterator[dict[str, Any]]:
        """Lets the model answer every problem of the benchmarks as often as the run's settings say.

        Returns:
            One row an answer, read from the disk as it is taken; the samples of a problem together, problems and
            benchmarks in order: `benchmark`, `question`, `answer` (gold), `sample`, `output` (all the model wrote),
            `n_tokens`, `finished` (False if it was cut).
        """
        asked: list[tuple[str, Problem, int]] = [
            (benchmark.name, problem, sample)
            for benchmark in benchmarks
            for problem in benchmark.problems
            for sample in range(self.config.samples)
        ]
        requests = [Request(problem.question, sample) for _, problem, sample in asked]
        wanted = set(self.keys(requests, self.sampling))
        if done := sum(key in self.store for key in wanted):
            said = f"{self.config.output_dir}: {done} of {len(wanted)} answers are there already"
            Console(stderr=True, soft_wrap=True).print(said, markup=False, highlight=False)
        completions = self.complete(requests, self.sampling)
        return (
            {
                "benchmark": name,
                "question": problem.question,
                "answer": problem.answer,
                "sample": sample,
                "output": completion.text,
                "n_tokens": completion.n_tokens,
                "finished": completion.finished,
            }
            for (name, problem, sample), completion in zip(asked, completions, strict=True)
        )

    def __enter__(self) -> AnsweringModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.store.close()
