"""The arms of the study: a YAML file each, whose name begins with the number of its group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from drp_hf.errors import DRPError

FOLDER = Path(__file__).parent
_NAMES = ("name", "title")
GROUPS = {
    1: "the reasoner, untrained",
    2: "trained on its own whole traces",
    3: "trained on its own traces, cut without a teacher",
    4: "trained on somebody else's short solutions",
    5: "DRP",
}


@dataclass(frozen=True)
class Arm:
    """One way to make the reasoner brief.

    Args:
        name: the file's, without its ending.
        title: what the table calls it.
        texts: what it is trained on, by the name of a function in `recipes.study.texts`.
        prune: what it is trained on, by settings of `drp prune`. Without `texts`,
            `prune`, `after` and `student_of` nothing is trained.
        prompt: how questions are put, with `{question}`, in training and in the tests.
        sft: settings of `drp sft` over those in `sft.yaml`.
        after: arm whose student is trained further, with DPO on the same corpus.
        dpo: settings of `drp dpo` over those in `dpo.yaml`, for that.
        student_of: arm whose student is asked, and none trained here.
        budget_of: arm whose mean length (seed 0) the reasoning is cut at, the answer forced.
    """

    name: str
    title: str
    texts: str | None = None
    prune: Mapping[str, Any] | None = None
    prompt: str | None = None
    sft: Mapping[str, Any] = field(default_factory=dict)
    after: str | None = None
    dpo: Mapping[str, Any] = field(default_factory=dict)
    student_of: str | None = None
    budget_of: str | None = None

    @property
    def group(self) -> int:
        return int(self.name[0])

    @property
    def trained(self) -> bool:
        return any(each is not None for each in (self.texts, self.prune, self.after, self.student_of))

    @property
    def asking(self) -> dict[str, str]:
        """The prompt, as a setting of `drp sft`, `drp dpo` and `drp evaluate`."""
        return {"prompt": self.prompt} if self.prompt else {}

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides what comes of it, as far as it is set."""
        return {name: value for name, value in asdict(self).items() if value is not None and name not in _NAMES}


def read_arms() -> dict[str, Arm]:
    """All arms by name, in the order in which they can be run: what needs another's length comes last."""
    arms = [_read(file) for file in sorted((FOLDER / "arms").glob("*.yaml"))]
    return {arm.name: arm for arm in sorted(arms, key=lambda arm: arm.budget_of is not None)}


def _read(file: Path) -> Arm:
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    if unknown := set(values) - {each.name for each in fields(Arm)}:
        raise DRPError(f"{file} has no use for {', '.join(sorted(unknown))}: remove it.")
    return Arm(file.stem, **values)


def choose(names: list[str], arms: Mapping[str, Arm]) -> list[Arm]:
    """The arms of these names, all of them if there is none, in the order in which they can be run.

    Raises:
        DRPError: there is no such arm.
    """
    if unknown := sorted(set(names) - set(arms)):
        raise DRPError(f"There is no arm {unknown[0]!r}: choose among {', '.join(arms)}.")
    return [arm for name, arm in arms.items() if name in names or not names]
