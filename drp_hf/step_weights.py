"""How much a token counts in the loss: rules that weigh spans of text, and the span every token belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from drp_hf.errors import DRPError
from drp_hf.records import Action
from drp_hf.rendering import Region, Span

SCOPES = ("pruned", "masked-raw", "compressed-only")
STRADDLES = ("max", "min", "first", "last")
NORMALIZATIONS = ("token", "step")


@dataclass(frozen=True)
class WeightRules:
    """What [`~drp_hf.drp_config.DRPConfig`] says about weights; its docstring tells what each of these means.

    Args:
        action_weights, skill_weights, answer_weight, think_close_weight, eos_weight, loss_scope, straddle,
            step_normalization, deleted_unlikelihood: as there.
        completion_only: whether the prompt is out of the loss.
    """

    action_weights: Mapping[str, float] = field(default_factory=dict)
    skill_weights: Mapping[str, float] = field(default_factory=dict)
    answer_weight: float = 1.0
    think_close_weight: float = 1.0
    eos_weight: float = 1.0
    loss_scope: str = "pruned"
    straddle: str = "max"
    step_normalization: str = "token"
    deleted_unlikelihood: float = 0.0
    completion_only: bool = True

    def in_scope(self, span: Span) -> bool:
        """Whether the span's tokens are learnt at all, whatever they weigh."""
        if span.kind is Region.PROMPT:
            return not self.completion_only
        if span.kind is Action.DELETE:
            return False
        return not (self.loss_scope == "compressed-only" and span.kind is Action.KEEP)

    def weight(self, span: Span) -> float:
        """The weight of the span's tokens: the product of the rules that concern it; below 0 for unlikelihood."""
        by_skill = self.skill_weights.get(span.skill, self.skill_weights.get(span.category, 1.0))
        if span.kind is Action.DELETE:
            return -self.deleted_unlikelihood * by_skill * span.weight
        if not self.in_scope(span):
            return 0.0
        if isinstance(span.kind, Action):
            return self.action_weights.get(span.kind, 1.0) * by_skill * span.weight
        regions = {
            Region.ANSWER: self.answer_weight,
            Region.THINK_CLOSE: self.think_close_weight,
            Region.STOP: self.eos_weight,
        }
        return regions.get(span.kind, 1.0)

    def check(self, spans: Sequence[Span], where: str) -> None:
        """Refuses a raw trace where a pruned one is meant.

        Raises:
            DRPError: a deleted step in a scope that trains on the pruned trace.
        """
        if self.loss_scope != "masked-raw" and any(span.kind is Action.DELETE for span in spans):
            raise DRPError(
                f"{where} has a step with the action DELETE, which a pruned trace has not: set "
                "loss_scope='masked-raw' to train on the raw trace, or give the corpus' view sft."
            )


def token_owners(
    offsets: np.ndarray, text: str, spans: Sequence[Span], weights: Sequence[float], straddle: str = "max"
) -> np.ndarray:
    """The span that every token belongs to.

    A token belongs to the span of the characters it covers, white space aside (so that the space a byte-level
    tokenizer glues to the next word does not count). Where those lie in several spans, `straddle` decides.

    Args:
        offsets: `[start, end)` of every token in the text, shape `(tokens, 2)`.
        text: what was encoded.
        spans: tile the text.
        weights: of the spans, for `straddle="max"` and `"min"`.
        straddle: `"max"` and `"min"` take the span of the largest or smallest weight (the first of equal ones),
            `"first"` and `"last"` that of the first or last character.

    Returns:
        Indices into `spans`, shape `(tokens,)`.
    """
    lengths = [span.end - span.start for span in spans]
    index = np.repeat(np.arange(len(spans)), lengths)
    index = np.append(index, index[-1])  # a token that covers no character may stand at the end
    starts, ends = offsets[:, 0], offsets[:, 1]
    owners = index[starts]
    for token in np.flatnonzero(owners != index[np.maximum(ends - 1, starts)]):
        covered = range(starts[token], ends[token])
        inked = [i for i in covered if not text[i].isspace()] or covered
        touched = list(dict.fromkeys(index[i] for i in inked))
        if straddle in ("max", "min"):
            choose = max if straddle == "max" else min
            owners[token] = choose(touched, key=lambda span: weights[span])
        else:
            owners[token] = touched[0 if straddle == "first" else -1]
    return owners


def per_step(owners: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Factors that make every span count the same, however many tokens it has.

    Args:
        owners: span of every token, shape `(tokens,)`.
        counted: whether the token is in the loss, shape `(tokens,)`.

    Returns:
        One over the number of counted tokens of the token's span, shape `(tokens,)`; 0 for tokens that do not count.
    """
    sizes = np.bincount(owners[counted], minlength=owners.max(initial=0) + 1)
    return np.where(counted, 1 / np.maximum(sizes[owners], 1), 0)
