"""From a row of the corpus to the one text that is trained, with what every character of it is.

The text that is trained is the text the model must write: the prompt as the chat template renders it for generation,
then the completion as it is written in the row, then the stop token. The template never sees the completion, because
some templates (R1-Distill's) silently drop the reasoning of an assistant message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from transformers import GenerationConfig, PreTrainedTokenizerBase

from drp_hf.errors import DRPError
from drp_hf.models import stop_ids
from drp_hf.records import THINK_CLOSE, THINK_OPEN, Action
from drp_hf.taxonomy import categorise

ASIDE = {
    **dict.fromkeys(
        ("reasoning_content", "reasoning", "thinking"), f"put it into content between {THINK_OPEN} and {THINK_CLOSE}"
    ),
    "tool_calls": "write them into content as the student is to write them, or remove the row",
}
"""What a model has written besides a message's content, by the field's name, and what to do with it."""


class Region(StrEnum):
    """What a character outside of every step is."""

    PROMPT = "prompt"
    THINK_CLOSE = "think_close"
    """The closing think tag, with the white space before it."""
    ANSWER = "answer"
    """What follows the closing think tag: the response, with the final answer."""
    STOP = "stop"
    """The stop token."""
    OTHER = "other"
    """The opening think tag; the reasoning of a row without steps."""


class Span(NamedTuple):
    """A run of characters that are all the same: a step, or a region outside of the steps.

    Args:
        start: first character, an offset into the rendered text.
        end: one past the last.
        kind: the step's action or the region.
        skill: the step's skill, else empty.
        category: the skill's category in the taxonomy, else empty.
        weight: the step's own weight, from a data column; 1 where there is none.
    """

    start: int
    end: int
    kind: Action | Region
    skill: str = ""
    category: str = ""
    weight: float = 1.0


class Rendered(NamedTuple):
    """A row as one text; the completion begins at character `border`; the spans tile the text in its order."""

    text: str
    border: int
    spans: list[Span]


@dataclass
class RowRenderer:
    """Renders rows of the views `sft` and `masked-raw`, and any others of that shape.

    Args:
        tokenizer: has a chat template if the rows are conversational.
        weight_column: name of the column with a weight for every step, if there is one.

    Raises:
        DRPError: the tokenizer has no end-of-sequence token; on a call, a row that cannot be trained as it is.
    """

    tokenizer: PreTrainedTokenizerBase
    weight_column: str | None = None

    def __post_init__(self):
        if self.tokenizer.eos_token is None:
            raise DRPError("The tokenizer has no eos token, so the model could not learn to stop: set eos_token.")
        self.chat_stop = stop_text(self.tokenizer) if self.tokenizer.chat_template else None

    def __call__(self, row: Mapping[str, Any], where: str) -> Rendered:
        """One row as one text.

        Args:
            row: `prompt` and `completion`, both strings or both lists of messages; optionally `steps` (`start`, `end`
                in characters of the completion, `action`, and optionally `skill` and `category`).
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
        steps = self._steps(row, completion, where)
        border = len(prompt)
        shift = border - dropped
        steps = [
            step._replace(start=max(step.start, dropped) + shift, end=step.end + shift)
            for step in steps
            if step.end > dropped
        ]
        completion = completion[dropped:]
        _check_think(prompt, completion, where)
        text = prompt + completion.removesuffix(stop)
        rendered = Rendered(text + stop, border, _tile(text + stop, border, len(text), steps))
        if row.get("steps") is not None:
            _check_tiling(rendered, where)
        return rendered

    def _render_chat(self, row: Mapping[str, Any], where: str) -> tuple[str, str, str]:
        if self.chat_stop is None:
            raise DRPError(
                f"{where} is conversational but the tokenizer has no chat template: give one as chat_template_path (a "
                ".jinja file)."
            )
        if len(row["completion"]) != 1 or row["completion"][0]["role"] != "assistant":
            raise DRPError(f"{where} must have one assistant message as its completion.")
        completion = row["completion"][0].get("content") or ""
        if isinstance(completion, list):
            raise DRPError(f"{where} has a list as its completion's content: join its parts of text into one string.")
        for name, advice in ASIDE.items():
            if row["completion"][0].get(name):
                raise DRPError(
                    f"{where} has {name} beside its completion's content, which would not be trained: {advice}."
                )
        tools = row.get("tools")
        prompt = self.tokenizer.apply_chat_template(
            row["prompt"],
            tools=json.loads(tools) if isinstance(tools, str) else tools,
            tokenize=False,
            add_generation_prompt=True,
            **(row.get("chat_template_kwargs") or {}),
        )
        return prompt, completion, self.chat_stop

    def _steps(self, row: Mapping[str, Any], completion: str, where: str) -> list[Span]:
        """The row's steps as spans of the completion, in order."""
        steps = row.get("steps") or []
        weights: Sequence[float] = [1.0] * len(steps)
        if self.weight_column is not None:
            weights = row[self.weight_column] or []
            if len(weights) != len(steps):
                raise DRPError(
                    f"{where} has {len(steps)} steps but {len(weights)} weights in the column {self.weight_column}: "
                    "give one a step."
                )
        spans = sorted(
            (_step_span(step, weight, where) for step, weight in zip(steps, weights, strict=True)),
            key=lambda span: span.start,
        )
        end_before = 0
        for span in spans:
            if not 0 <= span.start < span.end <= len(completion):
                raise DRPError(
                    f"{where} has a step from character {span.start} to {span.end}, but its completion has "
                    f"{len(completion)} characters: make the steps again."
                )
            if span.start < end_before:
                raise DRPError(f"{where} has two steps that overlap at character {span.start}: make the steps again.")
            end_before = span.end
        return spans


def stop_text(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template writes to end an assistant's turn: the first special token after the message."""
    probe = "the message ends here"
    messages = [{"role": "user", "content": "question"}, {"role": "assistant", "content": probe}]
    after = tokenizer.apply_chat_template(messages, tokenize=False).rpartition(probe)[2]
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    written = [token for token in special if token in after]
    return min(written, key=lambda token: (after.index(token), -len(token)), default=tokenizer.eos_token)


def check_stop(tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig) -> None:
    """Refuses a student that would learn to end its turn with a token at which generation does not stop.

    Raises:
        DRPError: the chat template's stop token is neither the tokenizer's nor the generation config's.
    """
    if tokenizer.chat_template is None:
        return
    stop = stop_text(tokenizer)
    if tokenizer.convert_tokens_to_ids(stop) not in stop_ids(tokenizer, generation_config.eos_token_id):
        raise DRPError(
            f"The chat template ends a turn with {stop!r}, at which generation does not stop: set eos_token to it."
        )


def _step_span(step: Mapping[str, Any], weight: float, where: str) -> Span:
    try:
        action = Action(step["action"])
    except ValueError:
        raise DRPError(
            f"{where} has a step with the action {step['action']!r}: choose among {', '.join(sorted(Action))}."
        ) from None
    if weight is None or not 0 <= weight < float("inf"):
        raise DRPError(f"{where} gives a step the weight {weight}: give a number of 0 or more.")
    skill = step.get("skill") or ""
    return Span(step["start"], step["end"], action, skill, step.get("category") or categorise(skill), float(weight))


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
    if opened and prompt.rstrip().endswith(THINK_CLOSE):
        raise DRPError(
            f"{where}: the chat template closes the reasoning before the model can write it ({THINK_CLOSE} ends the "
            "prompt), so this reasoning would never be written: turn thinking on in the template (enable_thinking)."
        )


def _tile(text: str, border: int, stop: int, steps: Sequence[Span]) -> list[Span]:
    """Spans for all of the text: the prompt, the steps with what lies around them, the stop token.

    Args:
        text: prompt, completion and stop token.
        border: where the completion begins.
        stop: where the stop token begins.
        steps: spans of the completion, in order.
    """
    close = text.find(THINK_CLOSE, border, stop)
    if close < 0:
        regions = [Span(border, stop, Region.ANSWER)]
    else:
        reasoning_end = max(border, len(text[:close].rstrip()))
        answer = close + len(THINK_CLOSE)
        regions = [
            Span(border, reasoning_end, Region.OTHER),
            Span(reasoning_end, answer, Region.THINK_CLOSE),
            Span(answer, stop, Region.ANSWER),
        ]
    spans, position = [Span(0, border, Region.PROMPT)], border
    for step in steps:
        if isinstance(spans[-1].kind, Action) and text[position : step.start].isspace():
            spans[-1] = spans[-1]._replace(end=step.start)  # as in a corpus, whose steps end with their white space
        else:
            spans += _between(regions, position, step.start)
        spans.append(step)
        position = step.end
    return [*spans, *_between(regions, position, stop), Span(stop, len(text), Region.STOP)]


def _between(regions: Sequence[Span], start: int, end: int) -> list[Span]:
    cut = [span._replace(start=max(span.start, start), end=min(span.end, end)) for span in regions]
    return [span for span in cut if span.start < span.end]


def _check_tiling(rendered: Rendered, where: str) -> None:
    """Every character of the reasoning belongs to a step; without think tags, every character between two steps."""
    kinds = [span.kind for span in rendered.spans]
    reasoning = Region.OTHER if Region.THINK_CLOSE in kinds else Region.ANSWER
    steps = [i for i, kind in enumerate(kinds) if isinstance(kind, Action)]
    for i, span in enumerate(rendered.spans):
        between = steps and steps[0] < i < steps[-1]
        if span.kind is reasoning and (between or reasoning is Region.OTHER):
            gap = rendered.text[span.start : span.end].removeprefix(THINK_OPEN).strip()
            if gap:
                raise DRPError(
                    f"{where} has steps that do not tile its reasoning: {gap[:40]!r} is in none of them; make the "
                    "steps again."
                )
