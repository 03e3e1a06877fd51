"""From rows to token ids, labels and weights, through one encoding of one text.

The prompt has the tokens it has at inference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from drp_hf.errors import DRPError
from drp_hf.rendering import Rendered, RowRenderer, Span
from drp_hf.step_metrics import group_code
from drp_hf.step_weights import WeightRules, per_step, token_owners

if TYPE_CHECKING:
    from drp_hf.drp_config import DRPConfig

ENCODED_TOGETHER = 128
"""Rows; each is in memory with the offsets of all its tokens, 2 MB at 8,600 tokens."""
IGNORED = -100
WEIGHTS = "loss_weights"
WARMUP_WEIGHTS = "warmup_weights"
GROUPS = "loss_groups"


class TokenView(NamedTuple):
    """A token as the loss sees it: the text it stands for, the span it belongs to, and its weight (0 masks)."""

    text: str
    span: Span
    weight: float


class Tokens(NamedTuple):
    """The tokens of a rendered row, with offsets of shape `(tokens, 2)`; the completion begins at token `border`."""

    ids: list[int]
    offsets: np.ndarray
    border: int


class Encoded(NamedTuple):
    """A row as the trainer gets it: arrays of shape `(tokens,)`."""

    ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    warmup_weights: np.ndarray
    owners: np.ndarray
    """Indices into the spans of the rendered row."""


@dataclass
class RowEncoder:
    """Turns rows of the `sft` view into what the trainer's data set holds. Called on batches by `Dataset.map`.

    Args:
        tokenizer: a fast tokenizer (offsets are needed), with a chat template if the rows are conversational.
        rules: what the tokens weigh.
        max_length: longest sequence in tokens; longer ones are cut. `None` cuts nothing.
        keep_end: whether a sequence that is cut loses its start instead of its end.
        columns: which of `loss_weights`, `warmup_weights` and `loss_groups` are wanted beside ids and labels.
        weight_column: column of the rows with a weight for every step, if there is one.
        source: name of the data in messages.

    Raises:
        DRPError: a tokenizer without offsets; on a call, a row that cannot be trained as it is, named by its number
            (from 1).
    """

    tokenizer: PreTrainedTokenizerBase
    rules: WeightRules = field(default_factory=WeightRules)
    max_length: int | None = None
    keep_end: bool = False
    columns: Sequence[str] = ()
    weight_column: str | None = None
    source: str = "train"

    def __post_init__(self):
        if not self.tokenizer.is_fast:
            raise DRPError(
                f"{type(self.tokenizer).__name__} gives no character offsets, which step weights need: use a fast "
                "tokenizer."
            )
        self.render = RowRenderer(self.tokenizer, self.weight_column)

    def __call__(self, rows: Mapping[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        """Encodes a batch of columns. A row of which nothing is left in the loss once it is cut is left out.

        Returns:
            For every row `input_ids`, `labels` (-100 where nothing is learnt), `columns`, and `cut` (whether it was
            longer than `max_length`).
        """
        batch = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
        names = [f"Row {index + 1} of the {self.source} data" for index in indices]
        rendered = [self.render(row, name) for name, row in zip(names, batch, strict=True)]
        tokenized = self._tokenize(rendered, names, special=isinstance(batch[0]["prompt"], str))
        found: dict[str, list[Any]] = {name: [] for name in ("input_ids", "labels", *self.columns, "cut")}
        for where, one, tokens in zip(names, rendered, tokenized, strict=True):
            encoded = self._encode(one, tokens, where)
            is_cut = len(encoded.ids) < len(tokens.ids)
            if is_cut and (encoded.labels == IGNORED).all():
                continue
            codes = np.array([group_code(span) for span in one.spans], dtype=np.int8)
            columns = {
                "input_ids": encoded.ids,
                "labels": encoded.labels,
                WEIGHTS: encoded.weights,
                WARMUP_WEIGHTS: encoded.warmup_weights,
                GROUPS: codes[encoded.owners],
                "cut": is_cut,
            }
            for name, values in found.items():
                values.append(columns[name])
        return found

    def preview(self, row: Mapping[str, Any], where: str = "The row") -> list[TokenView]:
        """The tokens of one row as the loss sees them, for people and for tests; `where` begins an error's message."""
        one = self.render(row, where)
        (tokens,) = self._tokenize([one], [where], special=isinstance(row["prompt"], str))
        encoded = self._encode(one, tokens, where)
        first = len(tokens.ids) - len(encoded.ids) if self.keep_end else 0
        view, shown = [], 0
        for (start, end), owner, weight in zip(tokens.offsets[first:], encoded.owners, encoded.weights, strict=False):
            # Tokens that share a character (parts of an emoji) show it once.
            view.append(TokenView(one.text[max(start, shown) : end], one.spans[owner], float(weight)))
            shown = max(end, shown)
        return view

    def _encode(self, one: Rendered, tokens: Tokens, where: str) -> Encoded:
        self.rules.check(one.spans, where)
        by_span = np.array([self.rules.weight(span) for span in one.spans])
        in_scope = np.array([self.rules.in_scope(span) for span in one.spans], dtype=float)
        owners = token_owners(tokens.offsets, one.text, one.spans, by_span, self.rules.straddle)
        owners[: tokens.border] = 0
        if not by_span[owners].any():
            raise DRPError(
                f"{where} has no token with a weight, so nothing would be learnt from it: remove the row or change "
                "the weights."
            )
        kept = slice(-self.max_length, None) if self.keep_end and self.max_length else slice(self.max_length)
        ids, owners = np.array(tokens.ids[kept]), owners[kept]
        weights, warmup_weights = by_span[owners], in_scope[owners]
        learnt = weights != 0
        if WARMUP_WEIGHTS in self.columns:
            learnt |= warmup_weights != 0
        if self.rules.step_normalization == "step":
            counted = learnt.copy()
            counted[:1] = False  # nothing predicts the first token
            share = per_step(owners, counted)
            weights, warmup_weights = weights * share, warmup_weights * share
        labels = np.where(learnt, ids, IGNORED)
        return Encoded(ids, labels, weights.astype(np.float32), warmup_weights.astype(np.float32), owners)

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
            tokens = Tokens(ids, _array(offsets), len(prompt))
            if ids[: len(prompt)] != prompt or tokens.offsets[len(prompt), 0] < one.border:
                tokens = self._tokenize_apart(one, tokens, where, kwargs)
            self._check_complete(one, tokens, where)
            tokenized.append(tokens)
        return tokenized

    def _tokenize_apart(self, one: Rendered, joint: Tokens, where: str, kwargs: dict[str, Any]) -> Tokens:
        """The tokenizer joins the prompt's end to the completion's start, which a model that generates never does."""
        prompt = self.tokenizer(one.text[: one.border], return_offsets_mapping=True, **kwargs)
        kwargs = {**kwargs, "add_special_tokens": False}
        completion = self.tokenizer(one.text[one.border :], return_offsets_mapping=True, **kwargs)
        ids = prompt["input_ids"] + completion["input_ids"]
        if self.tokenizer.decode(ids) != self.tokenizer.decode(joint.ids):
            raise DRPError(
                f"{where}: the tokenizer joins the end of the prompt to the start of the completion and cannot encode "
                "them apart: move white space at the prompt's end to the completion."
            )
        offsets = [_array(prompt["offset_mapping"]), _array(completion["offset_mapping"]) + one.border]
        return Tokens(ids, np.concatenate(offsets), len(prompt["input_ids"]))

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


def encoder_for(
    args: DRPConfig,
    tokenizer: PreTrainedTokenizerBase,
    completion_only: bool = True,
    packing: bool = False,
    columns: Sequence[str] = (),
    source: str = "train",
) -> RowEncoder:
    """The encoder that the settings of a training ask for."""
    # Packing cuts rows itself, and only with this strategy what is left of them goes.
    cuts = not packing or args.packing_strategy == "bfd"
    return RowEncoder(
        tokenizer,
        replace(args.weight_rules, completion_only=completion_only),
        max_length=args.max_length if cuts else None,
        keep_end=args.truncation_mode == "keep_end",
        columns=columns,
        weight_column=args.step_weight_column,
        source=source,
    )


def _array(offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    return np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
