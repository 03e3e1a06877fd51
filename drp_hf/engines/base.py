"""What every engine offers: questions in, completions out as they finish."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from drp_hf.errors import DRPError
from drp_hf.records import THINK_OPEN

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

PREFILLED_THINK = re.compile(rf"{re.escape(THINK_OPEN)}\s*\Z")


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
        text: the text, without the stop token; a think tag that the chat template had prefilled stands in front.
        n_tokens: tokens generated, the stop token included.
        finished: whether the model stopped by itself; False means that it was cut at a limit.
    """

    text: str
    n_tokens: int
    finished: bool


class Engine(ABC):
    """Writes completions for questions.

    Args:
        name: the model's name as the user gave it.
        tokenizer: its tokenizer, with a chat template.
        config: its config.
        stop_ids: tokens that end a completion.
    """

    def __init__(
        self, name: str, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, stop_ids: Sequence[int]
    ):
        self.name = name
        self.tokenizer = tokenizer
        self.stop_ids = frozenset(stop_ids)
        self.context_length = config.get_text_config().max_position_embeddings

    def generate(
        self, questions: Sequence[str], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> Iterator[tuple[int, Completion]]:
        """Yields completions as they finish, in any order, so that what is done can be kept.

        Args:
            questions: each becomes the user's message of a chat.
            sampling: how tokens are chosen.
            seeds: one for each question, so that what is sampled does not depend on the other questions;
                `sampling.seed` plus the position by default.

        Yields:
            The position of the question and its completion.

        Raises:
            DRPError: a question leaves no room in the model's context.
        """
        rendered, prompts = self.encode(questions)
        seeds = [sampling.seed + i for i in range(len(prompts))] if seeds is None else seeds
        with tqdm(total=len(prompts), desc="generate", unit="answer", disable=not prompts) as progress:
            written = 0
            for index, ids in self._generate_ids(prompts, sampling, seeds):
                written += len(ids)
                progress.set_postfix_str(f"{written / (progress.format_dict['elapsed'] + 1e-9):.0f} tokens/s")
                progress.update()
                yield index, self._completion(rendered[index], ids)

    def encode(self, questions: Sequence[str]) -> tuple[list[str], list[list[int]]]:
        """The prompts of questions, as text and as token ids.

        Raises:
            DRPError: a question leaves no room in the model's context.
        """
        rendered = [render_prompt(self.tokenizer, question) for question in questions]
        prompts = self.tokenizer(rendered, add_special_tokens=False)["input_ids"] if rendered else []
        for question, prompt in zip(questions, prompts, strict=True):
            if len(prompt) >= self.context_length:
                raise DRPError(
                    f"The question {question[:40]!r}… has {len(prompt)} tokens, leaving no room in the context of "
                    f"{self.name} ({self.context_length}): remove it."
                )
        return rendered, prompts

    @abstractmethod
    def _generate_ids(
        self, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[int]]]:
        """Yields position and generated token ids (stop token included) of each prompt as it finishes."""

    def _completion(self, prompt: str, ids: list[int]) -> Completion:
        finished = bool(ids) and ids[-1] in self.stop_ids
        # Special tokens stay in the text: in some vocabularies the think tags are among them.
        text = self.tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=False)
        prefilled = PREFILLED_THINK.search(prompt)
        return Completion((prefilled.group() if prefilled else "") + text, len(ids), finished)


def render_prompt(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """The chat prompt of a question, up to where the model begins to write.

    Args:
        tokenizer: its chat template is used.
        question: the user's message.

    Raises:
        DRPError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise DRPError(f"The tokenizer of {tokenizer.name_or_path} has no chat template: give a model made for chat.")
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )


def stop_ids(tokenizer: PreTrainedTokenizerBase, generation_config_eos: int | list[int] | None) -> list[int]:
    """Every token that ends a completion: those of the generation config and the tokenizer's own."""
    eos = generation_config_eos if isinstance(generation_config_eos, list) else [generation_config_eos]
    return sorted({token for token in [*eos, tokenizer.eos_token_id] if token is not None})
