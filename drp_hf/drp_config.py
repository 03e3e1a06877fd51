"""Settings of [`~drp_hf.drp_trainer.DRPTrainer`]."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from trl import SFTConfig

from drp_hf.errors import DRPError
from drp_hf.hub.training import PublishingConfig
from drp_hf.records import Action
from drp_hf.step_weights import NORMALIZATIONS, SCOPES, STRADDLES, WeightRules


@dataclass
class DRPConfig(PublishingConfig, SFTConfig):
    r"""
    Configuration class for the [`~drp_hf.drp_trainer.DRPTrainer`].

    This class includes only the parameters that are specific to step-aware training. For the others, see
    [`~trl.SFTConfig`], [`~transformers.TrainingArguments`] and, for what goes to the Hub,
    [`~drp_hf.hub.training.PublishingConfig`].

    The weight of a token is the product of all rules that concern it. What no rule concerns weighs 1; 0 masks: those
    tokens stay in the context and leave loss, denominator and metrics, as with a label of -100. Weights are finite and
    not negative. Without any rule the loss is [`~trl.SFTTrainer`]'s.

    Parameters:
        > Parameters that control what is learnt

        loss_scope (`str`, *optional*, defaults to `"pruned"`):
            What the loss is taken over. `"pruned"`: the pruned trace (view `sft` of a corpus). `"masked-raw"`: the raw
            trace (view `masked-raw`), whose deleted steps are read but not learnt. `"compressed-only"`: the pruned
            trace, of whose reasoning only what the teacher rewrote is learnt (COMPRESS and MERGE steps); the closing
            think tag, the answer and the stop token are learnt too.
        deleted_unlikelihood (`float`, *optional*, defaults to `0.0`):
            With `loss_scope="masked-raw"`, makes the tokens of deleted steps unlikely: each adds this many times
            \\( -\log(1 - (1 - \epsilon) p) \\), \\( p \\) its probability, \\( \epsilon = 10^{-5} \\) (unlikelihood
            training, arXiv 1908.04319). The skill's and the step's own weight multiply it.

        > Parameters that control the weights

        action_weights (`dict[str, float]`, *optional*):
            Weight by a step's action (`"KEEP"`, `"COMPRESS"`, `"MERGE"`).
        skill_weights (`dict[str, float]`, *optional*):
            Weight by a step's skill, or by its category in [`~drp_hf.taxonomy`] (a skill's own name goes first).
        step_weight_column (`str`, *optional*):
            Column of the data with a list of weights, one for each of the row's `steps`.
        answer_weight (`float`, *optional*, defaults to `1.0`):
            Weight of what follows `</think>`: the response with the final answer.
        think_close_weight (`float`, *optional*, defaults to `1.0`):
            Weight of `</think>`.
        eos_weight (`float`, *optional*, defaults to `1.0`):
            Weight of the stop token.
        straddle (`str`, *optional*, defaults to `"max"`):
            Which step a token belongs to that lies across a border: `"max"` or `"min"`, that of the largest or
            smallest weight; `"first"` or `"last"`, that of its first or last character. White space does not count: a
            space before a word belongs to the word.
        step_normalization (`str`, *optional*, defaults to `"token"`):
            `"token"`: every token counts its weight. `"step"`: every step counts its weight, however long it is, and
            so do the opening think tag, `</think>`, the answer and the stop token.
        weight_warmup_steps (`float`, *optional*, defaults to `0`):
            Optimiser steps over which the weights go linearly from 1 (0 for `deleted_unlikelihood`) to what the rules
            say; below 1, a share of all steps. What is out of the `loss_scope` stays out. Evaluation always takes the
            full weights.

    > [!NOTE]
    > - `use_cpu` becomes `True` where there is no accelerator, so that `bf16` (autocast, the default in TRL) works on
    >   a CPU too.
    """

    _VALID_DICT_FIELDS = SFTConfig._VALID_DICT_FIELDS + ["action_weights", "skill_weights"]

    loss_scope: str = field(
        default="pruned",
        metadata={
            "help": "What the loss is taken over: the pruned trace, the raw trace with its deleted steps masked, or "
            "only what the teacher rewrote.",
            "choices": list(SCOPES),
            "aliases": ["--stage"],
        },
    )
    deleted_unlikelihood: float = field(
        default=0.0,
        metadata={"help": "With loss_scope=masked-raw, weight of the unlikelihood of deleted steps."},
    )
    action_weights: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Weight of a step's tokens by its action, as JSON or a YAML mapping, for example "
            '{"MERGE": 0.5, "KEEP": 0}. Actions that are not named weigh 1; 0 masks.'
        },
    )
    skill_weights: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Weight of a step's tokens by its skill or the skill's category, as JSON or a YAML mapping, for "
            'example {"arithmetic": 2, "self-talk": 0}. Those that are not named weigh 1.'
        },
    )
    step_weight_column: str | None = field(
        default=None, metadata={"help": "Column of the data with a list of weights, one for each step."}
    )
    answer_weight: float = field(default=1.0, metadata={"help": "Weight of what follows the closing think tag."})
    think_close_weight: float = field(default=1.0, metadata={"help": "Weight of the closing think tag."})
    eos_weight: float = field(default=1.0, metadata={"help": "Weight of the stop token."})
    straddle: str = field(
        default="max",
        metadata={
            "help": "Which step a token belongs to that lies across a border: that of the largest or smallest weight, "
            "or of its first or last character.",
            "choices": list(STRADDLES),
        },
    )
    step_normalization: str = field(
        default="token",
        metadata={
            "help": "Whether every token counts its weight, or every step, however long it is.",
            "choices": list(NORMALIZATIONS),
        },
    )
    weight_warmup_steps: float = field(
        default=0,
        metadata={
            "help": "Optimiser steps over which the weights go linearly from 1 to what the rules say; below 1, a "
            "share of all steps."
        },
    )

    def __post_init__(self):
        for name in ("action_weights", "skill_weights"):
            setattr(self, name, _mapping(name, getattr(self, name)))
        super().__post_init__()
        for name, choices in (
            ("loss_scope", SCOPES),
            ("straddle", STRADDLES),
            ("step_normalization", NORMALIZATIONS),
        ):
            if getattr(self, name) not in choices:
                raise DRPError(f"{name} is {getattr(self, name)!r}: choose among {', '.join(choices)}.")
        for name in (
            "deleted_unlikelihood",
            "answer_weight",
            "think_close_weight",
            "eos_weight",
            "weight_warmup_steps",
        ):
            _check_number(name, getattr(self, name))
        for name in ("action_weights", "skill_weights"):
            for key, weight in (getattr(self, name) or {}).items():
                _check_number(f"{name}[{key!r}]", weight)
        weighable = [action.value for action in Action if action is not Action.DELETE]
        for action in self.action_weights or {}:
            if action == Action.DELETE:
                raise DRPError(
                    "action_weights names DELETE, whose steps are never learnt: remove it; loss_scope='masked-raw' "
                    "reads them, and deleted_unlikelihood makes them unlikely."
                )
            if action not in weighable:
                raise DRPError(f"action_weights names {action!r}: choose among {', '.join(weighable)}.")
        if self.deleted_unlikelihood and self.loss_scope != "masked-raw":
            raise DRPError("deleted_unlikelihood needs the deleted steps: set loss_scope='masked-raw', or remove it.")
        if self.weight_warmup_steps and not self._has_weights():
            raise DRPError("weight_warmup_steps has no weight to warm up: set weights, or remove it.")

    @property
    def weight_rules(self) -> WeightRules:
        """The rules for a token's weight, with the prompt out of the loss."""
        return WeightRules(
            action_weights=self.action_weights or {},
            skill_weights=self.skill_weights or {},
            answer_weight=self.answer_weight,
            think_close_weight=self.think_close_weight,
            eos_weight=self.eos_weight,
            loss_scope=self.loss_scope,
            straddle=self.straddle,
            step_normalization=self.step_normalization,
            deleted_unlikelihood=self.deleted_unlikelihood,
        )

    @property
    def has_rules(self) -> bool:
        """Whether anything differs from learning every token of the completion alike."""
        return self.weight_rules != WeightRules() or self.step_weight_column is not None

    @property
    def needs_steps(self) -> bool:
        """Whether a setting asks for the data's `steps`."""
        return bool(
            self.action_weights
            or self.skill_weights
            or self.step_weight_column
            or self.loss_scope != "pruned"
            or self.step_normalization == "step"
        )

    @property
    def needs_weights(self) -> bool:
        """Whether the loss needs weights, because labels alone (0 and 1) cannot say what is meant."""
        return (
            self.step_weight_column is not None
            or self.step_normalization == "step"
            or self.weight_warmup_steps > 0
            or self.deleted_unlikelihood > 0
            or any(weight not in (0, 1) for weight in self._weights())
        )

    def _weights(self) -> list[float]:
        by_name = [*(self.action_weights or {}).values(), *(self.skill_weights or {}).values()]
        return [*by_name, self.answer_weight, self.think_close_weight, self.eos_weight]

    def _has_weights(self) -> bool:
        given = self.step_weight_column is not None or self.deleted_unlikelihood > 0
        return given or any(weight != 1 for weight in self._weights())


def _mapping(name: str, value: Any) -> dict[str, Any] | None:
    """Weights by name, which a flag gives as JSON."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, dict | None):
        raise DRPError(f"{name} is {value!r}: give weights by name, as JSON or a YAML mapping.")
    return value


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise DRPError(f"{name} is {value!r}: give a number of 0 or more.")
