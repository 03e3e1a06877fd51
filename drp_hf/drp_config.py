"""Settings of [`~drp_hf.drp_trainer.DRPTrainer`]."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from trl import SFTConfig

from drp_hf.errors import DRPError
from drp_hf.records import Action


@dataclass
class DRPConfig(SFTConfig):
    r"""
    Configuration class for the [`~drp_hf.drp_trainer.DRPTrainer`].

    This class includes only the parameters that are specific to step-aware training. For the others, see
    [`~trl.SFTConfig`] and [`~transformers.TrainingArguments`].

    Parameters:
        > Parameters that control the step weights

        action_weights (`dict[str, float]`, *optional*):
            Weight of a step's tokens in the loss, by the step's action (`"KEEP"`, `"DELETE"`, `"COMPRESS"`,
            `"MERGE"`). Actions that are not named weigh 1, and so does what lies outside every step: think tags, final
            answer, stop token. 0 masks: those tokens stay in the context and leave loss, denominator and metrics, as
            with a label of -100. Must be finite and not negative. If `None`, every token of the completion weighs 1
            and the loss is [`~trl.SFTTrainer`]'s.

    > [!NOTE]
    > - `use_cpu` becomes `True` where there is no accelerator, so that `bf16` (autocast, the default in TRL) works on
    >   a CPU too.
    """

    _VALID_DICT_FIELDS = SFTConfig._VALID_DICT_FIELDS + ["action_weights"]

    action_weights: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "Weight of a step's tokens in the loss by action, as JSON or a YAML mapping, for example "
            '{"MERGE": 0.5, "DELETE": 0}. Actions that are not named weigh 1; 0 masks.'
        },
    )

    def __post_init__(self):
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        super().__post_init__()
        actions = [action.value for action in Action]
        for action, weight in (self.action_weights or {}).items():
            if action not in actions:
                raise DRPError(f"action_weights names {action!r}: choose among {', '.join(actions)}.")
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
                raise DRPError(f"action_weights gives {action} the weight {weight!r}: give a number of 0 or more.")
