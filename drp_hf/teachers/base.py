"""What every teacher offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from drp_hf.records import Step, Trace
from drp_hf.segment import Unit


@dataclass(frozen=True)
class Proposal:
    """One way to prune a trace.

    Args:
        steps: steps that tile the reasoning.
        note: empty for the teacher's first choice, else which fall-back this is and why.
    """

    steps: list[Step]
    note: str = ""


class Teacher(ABC):
    """Decides the steps of a trace.

    Attributes:
        name: how corpus rows and cards call it, settings included ("slicing-default").
    """

    name: str

    @abstractmethod
    def propose(self, trace: Trace, units: list[Unit]) -> Iterator[Proposal]:
        """Yields proposals, boldest first; the first that passes every check is taken.

        Args:
            trace: the trace to prune; its answer is known to be right.
            units: the segmented reasoning (`"".join(unit.text) == trace.reasoning`).
        """
