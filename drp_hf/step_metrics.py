"""Loss and share of the tokens by action and by skill, gathered while a model is trained."""

from __future__ import annotations

from collections.abc import Callable

import torch

from drp_hf.records import Action
from drp_hf.rendering import Region, Span
from drp_hf.taxonomy import CATEGORIES

GROUPS = [
    *((str(action), category) for action in Action for category in CATEGORIES),
    *((str(region), "") for region in Region),
]
"""What a token may belong to: (action, category) of its step, or a region outside of the steps."""
_CODES = {group: code for code, group in enumerate(GROUPS)}


def group_code(span: Span) -> int:
    """The index into `GROUPS` of a span; categories that the taxonomy has not are "other"."""
    category = span.category if span.category in CATEGORIES else "other"
    return _CODES[str(span.kind), category if isinstance(span.kind, Action) else ""]


class StepMetrics:
    """Sums over the tokens with a label since the last report."""

    def __init__(self):
        self._sums: torch.Tensor | None = None
        self._device: torch.device | None = None

    def add(self, log_probs: torch.Tensor, groups: torch.Tensor, mask: torch.Tensor) -> None:
        """Counts tokens.

        Args:
            log_probs: of the labels, in nats; 0 where there is no label.
            groups: indices into `GROUPS`, of the same shape.
            mask: whether there is a label, of the same shape.
        """
        values = torch.stack([-log_probs.detach().float(), mask.float()]).reshape(2, -1)
        sums = values.new_zeros(2, len(GROUPS)).index_add_(1, groups.reshape(-1).long(), values)
        # In float32, millions of tokens are a sum to which the next one adds nothing. Not every device has float64;
        # SFTTrainer has waited for this batch already, to log its figures.
        self._device = sums.device
        self._sums = sums.cpu().double() + (0 if self._sums is None else self._sums)

    def report(self, total: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """The figures since the last report: of every action (or region) and skill category that occurred.

        Args:
            total: adds a tensor up over all processes.

        Returns:
            `action_loss/…` and `skill_loss/…`, the mean negative log-likelihood in nats a token, without weights, and
            `action_tokens/…` and `skill_tokens/…`, the share of all tokens with a label.
        """
        if self._sums is None:
            return {}
        nll, count = total(self._sums.to(self._device, torch.float32)).tolist()
        self._sums = None
        figures = {}
        for kind, name_of in (("action", lambda group: group[0]), ("skill", lambda group: group[1])):
            for name in dict.fromkeys(map(name_of, GROUPS)):
                codes = [code for code, group in enumerate(GROUPS) if name and name_of(group) == name]
                tokens = sum(count[code] for code in codes)
                if tokens:
                    figures[f"{kind}_loss/{name}"] = sum(nll[code] for code in codes) / tokens
                    figures[f"{kind}_tokens/{name}"] = tokens / sum(count)
        return figures
