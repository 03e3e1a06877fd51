"""On a CPU, lets a student in training score only what has a label.

TRL's fused head projects every position onto the whole vocabulary there, prompts and padding too, in tiles that are
worth their while on a GPU, whose kernel leaves out what has no label. On short traces that is a third of a CPU's
training step. The head here takes the positions with a label, through torch's own kernels, and gives the same up to
rounding.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch.nn.functional import log_softmax
from torch.utils.checkpoint import checkpoint
from trl.trainer.utils import FusedCausalLMOutput

from drp_hf.models import plain_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

POSITIONS = 1024
"""Positions whose logits over the whole vocabulary are held at the same time."""


def score_labels_only(model: PreTrainedModel | PeftModel) -> None:
    """Puts the head on a model that has TRL's; a model whose logits are scaled or capped keeps TRL's.

    Args:
        model: as an `SFTTrainer` has it, on a CPU.
    """
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    config = inner.config.get_text_config()
    if plain_head(inner) is None or getattr(config, "output_router_logits", False):
        return
    tiled = inner.forward

    def forward(self, *args: Any, fused_lm_head: bool = False, labels: torch.Tensor | None = None, **kwargs: Any):
        if not fused_lm_head or labels is None:
            return tiled(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        num_items = kwargs.pop("num_items_in_batch", None)
        hidden = self.base_model(*args, **kwargs | {"use_cache": False}).last_hidden_state[:, :-1]
        mask = labels[:, 1:] != -100
        scores = scored(hidden[mask], labels[:, 1:][mask], self.get_output_embeddings())
        log_probs, entropy, is_top1 = (score.new_zeros(mask.shape).masked_scatter(mask, score) for score in scores)
        loss = -log_probs.sum() / (mask.sum().clamp(min=1) if num_items is None else num_items)
        return FusedCausalLMOutput(
            loss=loss, log_probs=log_probs, entropy=entropy, is_top1=is_top1.bool(), label_mask=mask
        )

    inner.forward = types.MethodType(forward, inner)


def scored(hidden: torch.Tensor, labels: torch.Tensor, head: torch.nn.Module) -> list[torch.Tensor]:
    """Scores labels, some positions after the others; logits are made anew for the gradient where there are many.

    Args:
        hidden: last hidden states, shape `(positions, width)`.
        labels: of these positions, shape `(positions,)`.
        head: the output projection.

    Returns:
        The log-probability of every label, and, without gradients, the entropy of its distribution in nats and whether
        it is the likeliest (1 or 0); each of shape `(positions,)`.
    """

    def score(hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        log_probs = log_softmax(head(hidden).float(), dim=-1)
        with torch.no_grad():
            entropy = -(log_probs.exp() * log_probs).sum(-1)
            is_top1 = log_probs.argmax(-1) == labels
        return log_probs.gather(-1, labels[:, None])[:, 0], entropy, is_top1.float()

    if len(labels) <= POSITIONS:
        return list(score(hidden, labels))
    parts = zip(hidden.split(POSITIONS), labels.split(POSITIONS), strict=True)
    done = [checkpoint(score, *part, use_reentrant=False) for part in parts]
    return [torch.cat(part) for part in zip(*done, strict=True)]
