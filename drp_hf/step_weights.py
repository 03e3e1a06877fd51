"""From a row with character spans to token ids, labels and weights, through one encoding of one text.

The text that is trained is the text the model must write: the prompt as the chat template renders it for generation,
then the completion as it is written in the row, then the stop token. The prompt has the tokens it has at inference.
The template never sees the completion, because some templates (R1-Distill's) silently drop the reasoning of an
assistant message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from drp_hf.errors import DRPError
from drp_hf.records import THINK_CLOSE, THINK_OPEN, Action

IGNORED = -100


class TokenView(NamedTuple):
    """A token as the loss sees it: its text, the action of its step ("" outside every step) and its weight."""

    token: str
    action: str
    weight: float


class Rendered(NamedTuple):
    """A row as one text, with its steps as (start, end, action) in that text; the completion begins at `border`."""

    text: str
    border: int
    steps: list[tuple[int, int, str]]


class Tokens(NamedTuple):
    """The tokens of a rendered row, with offsets of shape `(tokens, 2)`; the completion begins at token `border`."""

    ids: list[int]
    offsets: np.ndarray
    border: int


def token_weights(offsets: np.ndarray, text: str, spans: Sequence[tuple[int, int, float]]) -> np.ndarray:
    """Weights of tokens from weighted character spans.

    A token takes the weight of the characters it covers, white space aside (so that the space a byte-level tokenizer
    glues to the next word does not count); of several weights it takes the largest, so that nothing wanted is lost to
    a border inside a token. Characters outside every span weigh 1.

    Args:
        offsets: `[start, end)` of every token in the text, shape `(tokens, 2)`.
        text: what was encoded.
        spans: (start, end, weight) in characters, not overlapping.

    Returns:
        One float32 weight a token, shape `(tokens,)`; 1 for tokens that cover no character.
    """
    if all(weight == 1 for _, _, weight in spans):
        return np.ones(len(offsets), dtype=np.float32)
    weights = np.ones(len(text) + 1, dtype=np.float32)  # one more than characters: a token may end at the end
    for start, end, weight in spans:
        weights[start:end] = weight
    inked = weights.copy()
    inked[[i for i, character in enumerate(text) if character.isspace()]] = -np.inf
    borders = offsets.reshape(-1)
    largest = np.maximum.reduceat(inked, borders)[::2]
    largest = np.where(np.isneginf(largest), np.maximum.reduceat(weights, borders)[::2], largest)
    return np.where(offsets[:, 0] < offsets[:, 1], largest, np.float32(1))


@dataclass
class RowEncoder:
    """Turns rows of the `sft` view into what the trainer's data set holds. Called on batches by `Dataset.map`.

    Args:
        tokenizer: a fast tokenizer (offsets are needed), with a chat template if the rows are conversational.
        action_weights: weight by action; missing actions weigh 1.
        max_length: longest sequence in tokens; longer ones lose their end. `None` cuts nothing.
        completion_only: whether the prompt is left out of the loss.
        source: name of the data in messages.

    Raises:
        DRPError: a tokenizer without offsets; on a call, a row that cannot be trained as it is, named by its number
            (from 1).
    """

    tokenizer: PreTrainedTokenizerBase
    action_weights: Mapping[str, float] = field(default_factory=dict)
    max_length: int | None = None
    completion_only: bool = True
    source: str = "train"

    def __post_init__(self):
        if not self.tokenizer.is_fast:
            raise DRPError(
                f"{type(self.tokenizer).__name__} gives no character offsets, which step weights need: use a fast "
                "tokenizer."
            )
        if self.tokenizer.eos_token is None:
            raise DRPError("The tokenizer has no eos token, so the model could not learn to stop: set eos_token.")
        self.chat_stop = stop_text(self.tokenizer) if self.tokenizer.chat_template else None

    def __call__(self, rows: Mapping[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        """Encodes a batch of columns.

        Returns:
            `input_ids`, `labels` (-100 where the weight is 0 or the token belongs to the prompt), `loss_weights` and
            `cut` (whether the row lost its end) for every row.
        """
        batch = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
        names = [f"Row {index + 1} of the {self.source} data" for index in indices]
        rendered = [self.render(row, name) for name, row in zip(names, batch, strict=True)]
        tokenized = self._tokenize(rendered, names, special=isinstance(batch[0]["prompt"], str))
        encoded: dict[str, list[Any]] = {"input_ids": [], "labels": [], "loss_weights": [], "cut": []}
        for one, tokens in zip(rendered, tokenized, strict=True):
            weights = self._weights(one, tokens)
            labels = np.where(weights == 0, IGNORED, tokens.ids)
            encoded["input_ids"].append(tokens.ids[: self.max_length])
            encoded["labels"].append(labels[: self.max_length].tolist())
            encoded["loss_weights"].append(weights[: self.max_length].tolist())
            encoded["cut"].append(self.max_length is not None and len(tokens.ids) > self.max_length)
        return encoded

    def preview(self, row: Mapping[str, Any]) -> list[TokenView]:
        """The tokens of one row as the loss sees them (prompt tokens weigh 0), for people and for tests."""
        one = self.render(row, "The row")
        (tokens,) = self._tokenize([one], ["The row"], special=isinstance(row["prompt"], str))
        view = []
        for token, weight, (start, end) in zip(tokens.ids, self._weights(one, tokens), tokens.offsets, strict=True):
            touched = [(max(s, start), min(e, end), action) for s, e, action in one.steps if s < end and start < e]
            inked = [action for s, e, action in touched if one.text[s:e].strip()]
            actions = inked or [action for _, _, action in touched]
            heaviest = max(actions, key=lambda action: self.action_weights.get(action, 1.0), default="")
            view.append(TokenView(self.tokenizer.decode([token]), heaviest, float(weight)))
        return view[: self.max_length]

    def render(self, row: Mapping[str, Any], where: str) -> Rendered:
        """One row as one text.

        Args:
            row: `prompt` and `completion`, both strings or both lists of messages; optionally `steps`.
            where: begins the message of an error.
        """
        prompt, completion = row["prompt"], row["completion"]
        if isinstance(prompt, str) and isinstance(completion, str):
            stop, dropped = self.tokenizer.eos_token, 0
        elif isinstance(prompt, list) and isinstance(completion, list):
            prompt, completion, stop = self._render_chat(row, where)
            dropped = _repeated_think(prompt, completion)
        else:
            raise DRPError(f"{where} needs prompt and completion, both text or both lists of messages.")
        if not prompt or not completion:
            raise DRPError(f"{where} has an empty {'completion' if prompt else 'prompt'}: remove the row.")
        steps = _checked_steps(row.get("steps") or [], completion, where)
        border = len(prompt)
        shifted = [(max(s - dropped, 0) + border, e - dropped + border, a) for s, e, a in steps if e > dropped]
        completion = completion[dropped:]
        _check_think(prompt, completion, where)
        return Rendered(prompt + completion + ("" if completion.endswith(stop) else stop), border, shifted)

    def _render_chat(self, row: Mapping[str, Any], where: str) -> tuple[str, str, str]:
        if self.chat_stop is None:
            raise DRPError(
                f"{where} is conversational but the tokenizer has no chat template: set chat_template_path."
            )
        if len(row["completion"]) != 1 or row["completion"][0]["role"] != "assistant":
            raise DRPError(f"{where} must have one assistant message as its completion.")
        tools = row.get("tools")
        prompt = self.tokenizer.apply_chat_template(
            row["prompt"],
            tools=json.loads(tools) if isinstance(tools, str) else tools,
            tokenize=False,
            add_generation_prompt=True,
            **(row.get("chat_template_kwargs") or {}),
        )
        return prompt, row["completion"][0]["content"], self.chat_stop

    def _tokenize(self, rendered: list[Rendered], names: list[str], special: bool) -> list[Tokens]:
        """Encodes whole texts; checks that all of the completion is in the ids and that the prompt is as it is alone.

        `special`: whether the tokenizer adds its special tokens; a chat template has written its own.
        """
        kwargs = {"add_special_tokens": special, "return_attention_mask": False}
        whole = self.tokenizer([one.text for one in rendered], return_offsets_mapping=True, **kwargs)
        prompts = self.tokenizer([one.text[: one.border] for one in rendered], **kwargs)["input_ids"]
        tokenized = []
        for where, one, ids, offsets, prompt in zip(
            names, rendered, whole["input_ids"], whole["offset_mapping"], prompts, strict=True
        ):
            tokens = Tokens(ids, np.asarray(offsets, dtype=np.int64).reshape(-1, 2), len(prompt))
            if ids[: len(prompt)] != prompt or tokens.offsets[len(prompt), 0] < one.border:
                tokens = self._tokenize_apart(one, tokens, prompt, where)
            self._check_complete(one, tokens, where)
            tokenized.append(tokens)
        return tokenized

    def _tokenize_apart(self, one: Rendered, joint: Tokens, prompt: list[int], where: str) -> Tokens:
        """The tokenizer joins the prompt's end to the completion's start, which a model that generates never does."""
        completion = self.tokenizer(
            one.text[one.border :], add_special_tokens=False, return_attention_mask=False, return_offsets_mapping=True
        )
        ids = prompt + completion["input_ids"]
        if self.tokenizer.decode(ids) != self.tokenizer.decode(joint.ids):
            raise DRPError(
                f"{where}: the tokenizer joins the end of the prompt to the start of the completion and cannot encode "
                "them apart: move white space at the prompt's end to the completion."
            )
        offsets = np.asarray(completion["offset_mapping"], dtype=np.int64).reshape(-1, 2) + one.border
        return Tokens(ids, np.concatenate([np.zeros((len(prompt), 2), dtype=np.int64), offsets]), len(prompt))

    def _check_complete(self, one: Rendered, tokens: Tokens, where: str) -> None:
        inside = tokens.offsets[tokens.border :]
        unknown = np.flatnonzero(np.asarray(tokens.ids[tokens.border :]) == self.tokenizer.unk_token_id)
        for start, end in inside[unknown]:
            if one.text[start:end] != self.tokenizer.unk_token:
                raise DRPError(f"{where}: the tokenizer does not know {one.text[start:end]!r} in the completion.")
        covered = np.zeros(len(one.text) + 1, dtype=np.int32)
        np.add.at(covered, inside[:, 0], 1)
        np.add.at(covered, inside[:, 1], -1)
        missing = np.flatnonzero(covered.cumsum()[one.border : -1] == 0) + one.border
        if lost := "".join(one.text[i] for i in missing).strip():
            raise DRPError(
                f"{where}: the tokenizer drops {lost[:20]!r} from the completion: use a lossless tokenizer."
            )

    def _weights(self, one: Rendered, tokens: Tokens) -> np.ndarray:
        spans = [(start, end, float(self.action_weights.get(action, 1.0))) for start, end, action in one.steps]
        weights = token_weights(tokens.offsets, one.text, spans)
        if self.completion_only:
            weights[: tokens.border] = 0
        return weights


def stop_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template writes to end an assistant's turn: the first special token after the message."""
    probe = "the message ends here"
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": probe}]
    after = tokenizer.apply_chat_template(messages, tokenize=False).rpartition(probe)[2]
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    written = [token for token in special if token in after]
    return min(written, key=lambda token: (after.index(token), -len(token)), default=tokenizer.eos_token)


def _repeated_think(prompt: str, completion: str) -> int:
    """Characters at the start of the completion that the generation prompt has already written (a think tag)."""
    if not prompt.rstrip().endswith(THINK_OPEN) or not completion.startswith(THINK_OPEN):
        return 0
    prefilled = prompt[prompt.rindex(THINK_OPEN) :]
    return len(prefilled) if completion.startswith(prefilled) else len(THINK_OPEN)


def _check_think(prompt: str, completion: str, where: str) -> None:
    opened = prompt.rstrip().endswith(THINK_OPEN) + completion.count(THINK_OPEN)
    closed = completion.count(THINK_CLOSE)
    if (opened, closed) not in ((0, 0), (1, 1)) or completion.find(THINK_CLOSE) < completion.find(THINK_OPEN):
        raise DRPError(
            f"{where} must be trained on one {THINK_OPEN} … {THINK_CLOSE} or on none, but after the chat template has "
            f"written its part there are {opened} opening and {closed} closing tags: correct the completion or the "
            "template."
        )


def _checked_steps(steps: Sequence[Mapping[str, Any]], completion: str, where: str) -> list[tuple[int, int, str]]:
    known = {action.value for action in Action}
    spans = sorted((step["start"], step["end"], step["action"]) for step in steps)
    end_before = 0
    for start, end, action in spans:
        if not 0 <= start < end <= len(completion):
            raise DRPError(
                f"{where} has a step from character {start} to {end}, but its completion has {len(completion)} "
                "characters: make the steps again."
            )
        if start < end_before:
            raise DRPError(f"{where} has two steps that overlap at character {start}: make the steps again.")
        if action not in known:
            raise DRPError(f"{where} has a step with the action {action!r}: choose among {', '.join(sorted(known))}.")
        end_before = end
    return spans
