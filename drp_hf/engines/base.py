"""What every engine offers: questions in, completions out as they finish."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from drp_hf.errors import DRPError
from drp_hf.models import adapter_chain, load_generation_config, load_tokenizer
from drp_hf.records import THINK_OPEN

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

PREFILLED_THINK = re.compile(rf"{re.escape(THINK_OPEN)}\s*\Z")
QUESTION = "{question}"
"""Where the question stands in a prompt."""
CONTEXT_LENGTH = 131_072
"""Tokens of prompt and completion together, where the model can take so many and nothing else is said."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Args:
        max_tokens: generation is cut after so many tokens.
        temperature: 0 is greedy.
        top_p: smallest probability mass that is sampled from.
        seed: makes sampling repeatable.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Completion:
    """What a model wrote.

    Args:
        text: the text, without the stop token; a think tag that the chat template had prefilled stands in front, a
            prefix does not.
        n_tokens: tokens generated, the stop token included.
        finished: whether the model stopped by itself; False means that it was cut at a limit.
    """

    text: str
    n_tokens: int
    finished: bool


@dataclass(frozen=True)
class Refusal:
    """Instead of a completion: the question gets none, however often it is asked.

    Args:
        reason: who refuses it, and in what words.
    """

    reason: str


class Engine(ABC):
    """Writes completions for questions.

    Attributes:
        name: the model's name as the user gave it.
        tokenizer: its tokenizer; None where only a server has it.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase | None

    def generate(
        self,
        questions: Sequence[str],
        sampling: Sampling,
        seeds: Sequence[int] | None = None,
        prefixes: Sequence[str | None] | None = None,
    ) -> Iterator[tuple[int, Completion]]:
        """Yields completions as they finish, in any order, so that what is done can be kept.

        Args:
            questions: each becomes the user's message of a chat.
            sampling: how tokens are chosen.
            seeds: one for each question, so that what is sampled does not depend on the other questions;
                `sampling.seed` plus the position by default.
            prefixes: for each question, how its completion is made to begin, or None; the model goes on from there,
                and the completion holds only what is new. A think tag that the chat template prefills may stand at the
                beginning or not. Where a prefix leaves no room in the context, the completion is empty and cut.

        Yields:
            The position of the question and its completion.

        Raises:
            DRPError: a question leaves no room in the model's context, or the engine cannot write it; where single
                questions are refused, when all others are answered.
        """
        seeds = [sampling.seed + i for i in range(len(questions))] if seeds is None else seeds
        prefixes = [None] * len(questions) if prefixes is None else prefixes
        with tqdm(total=len(questions), desc="generate", unit="answer", disable=not questions) as progress:
            written = answers = 0
            refused: dict[int, Refusal] = {}
            for index, completion in self._complete(questions, sampling, seeds, prefixes):
                if isinstance(completion, Refusal):
                    refused[index] = completion
                    continue
                written += completion.n_tokens
                progress.set_postfix_str(f"{written / (progress.format_dict['elapsed'] + 1e-9):.0f} tokens/s")
                progress.update()
                answers += 1
                yield index, completion
        if refused:
            raise DRPError(f"{self.name}: {_tell_refused(questions, refused, answers)}")

    @abstractmethod
    def _complete(
        self, questions: Sequence[str], sampling: Sampling, seeds: Sequence[int], prefixes: Sequence[str | None]
    ) -> Iterator[tuple[int, Completion | Refusal]]:
        """Yields position and completion of each question as it finishes."""


class TokenEngine(Engine):
    """An engine that renders prompts itself, to token ids: they are the same for all such engines.

    Args:
        name: the model's name as the user gave it.
        tokenizer: its tokenizer, with a chat template.
        config: its config.
        stop_ids: tokens that end a completion.
        context_length: tokens of prompt and completion together; `CONTEXT_LENGTH` by default, and never more than
            the model can take.
        prompt: the user's message, with `{question}` for the question.
        system: the system message, if any.
    """

    def __init__(
        self,
        name: str,
        tokenizer: PreTrainedTokenizerBase,
        config: PreTrainedConfig,
        stop_ids: Sequence[int],
        context_length: int | None = None,
        prompt: str = QUESTION,
        system: str | None = None,
    ):
        self.name = name
        self.tokenizer = tokenizer
        self.stop_ids = frozenset(stop_ids)
        self.context_length = usable_context(config, context_length)
        self.prompt = prompt
        self.system = system

    def encode(
        self, questions: Sequence[str], prefixes: Sequence[str | None] | None = None
    ) -> tuple[list[str], list[list[int]]]:
        """The prompts of questions.

        Prompt and prefix are encoded apart, as when the model writes.

        Returns:
            What of each output the chat template has prefilled (a think tag or nothing; nothing where there is a
            prefix), and the token ids of each prompt, prefix included.

        Raises:
            DRPError: a question leaves no room in the model's context.
        """
        if not questions:
            return [], []
        prefixes = [None] * len(questions) if prefixes is None else prefixes
        rendered = [render_prompt(self.tokenizer, question, self.prompt, self.system) for question in questions]
        prompts = self.tokenizer(rendered, add_special_tokens=False)["input_ids"]
        for question, prompt in zip(questions, prompts, strict=True):
            if len(prompt) >= self.context_length:
                raise DRPError(
                    f"The question {question[:40]!r}… has {len(prompt)} tokens, leaving no room in the context of "
                    f"{self.name} ({self.context_length}): remove it."
                )
        openings = []
        for ids, text, prefix in zip(prompts, rendered, prefixes, strict=True):
            openings.append(prefilled(text) if prefix is None else "")
            if prefix is not None:
                ids += self.tokenizer(after_prefill(text, prefix), add_special_tokens=False)["input_ids"]
        return openings, prompts

    def _complete(
        self, questions: Sequence[str], sampling: Sampling, seeds: Sequence[int], prefixes: Sequence[str | None]
    ) -> Iterator[tuple[int, Completion | Refusal]]:
        openings, prompts = self.encode(questions, prefixes)
        full = [index for index, prompt in enumerate(prompts) if len(prompt) >= self.context_length]
        yield from ((index, Completion("", 0, False)) for index in full)
        rest = sorted(set(range(len(prompts))) - set(full))
        written = self._write(*([column[i] for i in rest] for column in (openings, prompts, seeds)), sampling)
        yield from ((rest[place], completion) for place, completion in written)

    @abstractmethod
    def _write(
        self, openings: list[str], prompts: list[list[int]], seeds: list[int], sampling: Sampling
    ) -> Iterator[tuple[int, Completion | Refusal]]:
        """Yields position and completion, begun by its opening, of each prompt as it finishes."""


class LocalEngine(TokenEngine):
    """An engine that has the model in this process, and so the generated token ids."""

    def _write(
        self, openings: list[str], prompts: list[list[int]], seeds: list[int], sampling: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        for index, ids in self._generate_ids(prompts, sampling, seeds):
            yield index, self._completion(openings[index], ids)

    @abstractmethod
    def _generate_ids(
        self, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[int]]]:
        """Yields position and generated token ids (stop token included) of each prompt as it finishes."""

    def _completion(self, opening: str, ids: list[int]) -> Completion:
        finished = bool(ids) and ids[-1] in self.stop_ids
        # Special tokens stay in the text: in some vocabularies the think tags are among them.
        text = self.tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=False)
        return Completion(opening + text, len(ids), finished)


def _tell_refused(questions: Sequence[str], refused: Mapping[int, Refusal], answers: int) -> str:
    first = min(refused)
    said = f"{len(refused)} of {len(questions)} questions were refused, the first of them {questions[first][:40]!r}…"
    said += f" ({refused[first].reason})"
    if others := len(questions) - len(refused) - answers:
        said += f", and as none was answered, the other {others} were not asked"
    return f"{said}: change the settings, or remove what is refused, and start again; what is done is kept."


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, question: str, prompt: str = QUESTION, system: str | None = None
) -> str:
    """The chat prompt of a question, up to where the model begins to write.

    Args:
        tokenizer: its chat template is used.
        question: what is asked.
        prompt: the user's message, with `{question}` for the question.
        system: the system message; None leaves it to the template.

    Raises:
        DRPError: the tokenizer has no chat template, or the prompt no place for the question.
    """
    if not tokenizer.chat_template:
        raise DRPError(f"The tokenizer of {tokenizer.name_or_path} has no chat template: give a model made for chat.")
    return tokenizer.apply_chat_template(
        chat_messages(question, prompt, system), tokenize=False, add_generation_prompt=True
    )


def chat_messages(question: str, prompt: str = QUESTION, system: str | None = None) -> list[dict[str, str]]:
    """The messages that ask a question.

    Raises:
        DRPError: the prompt has no place for the question.
    """
    user = {"role": "user", "content": put(question, prompt)}
    return [user] if system is None else [{"role": "system", "content": system}, user]


def put(question: str, prompt: str) -> str:
    """The user's message that asks a question.

    Raises:
        DRPError: the prompt has no place for the question.
    """
    if QUESTION not in prompt:
        raise DRPError(f"The prompt {prompt!r} has no place for the question: write {QUESTION} where it shall stand.")
    # Not `str.format`: prompts for mathematics hold braces of their own, as in \boxed{}.
    return prompt.replace(QUESTION, question)


def prefilled(prompt: str) -> str:
    """The think tag that a chat template has already written for the model at the end of a prompt; empty if none."""
    found = PREFILLED_THINK.search(prompt)
    return found.group() if found else ""


def after_prefill(prompt: str, output: str) -> str:
    """What is left of an output after a think tag that the prompt already ends with."""
    opening = prefilled(prompt)
    if not opening:
        return output
    return output.removeprefix(opening) if output.startswith(opening) else output.removeprefix(THINK_OPEN)


def usable_context(config: PreTrainedConfig, context_length: int | None = None) -> int:
    """Tokens of prompt and completion together: as wished, or `CONTEXT_LENGTH`, within what the model can take."""
    own = config.get_text_config().max_position_embeddings
    return min(CONTEXT_LENGTH if context_length is None else context_length, own)


def describe_model(name: str) -> tuple[PreTrainedTokenizerBase, PreTrainedConfig, list[int]]:
    """Tokenizer, config and stop tokens of a model that runs elsewhere.

    Args:
        name: as in [`~drp_hf.models.adapter_chain`].

    Raises:
        DRPError: no tokenizer or config is found.
    """
    from transformers import AutoConfig

    base, revision, _ = adapter_chain(name)
    tokenizer = load_tokenizer(name)
    config = AutoConfig.from_pretrained(base, revision=revision)
    return tokenizer, config, load_generation_config(base, tokenizer, revision).eos_token_id or []
