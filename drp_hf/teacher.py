"""What every teacher offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from drp_hf.records import Step, Trace
from drp_hf.segment import Unit

Message = Mapping[str, str]
"""A chat message: `role` and `content`."""


@dataclass
class Proposal:
    """One way to prune a trace.

    Args:
        steps: steps that tile the reasoning.
        note: empty for the teacher's first choice, else which fall-back this is and why.

    Attributes:
        problem: what the checks found, once the proposal was made; empty before.
    """

    steps: list[Step]
    note: str = ""
    problem: str = field(default="", init=False)


@dataclass(frozen=True)
class Request:
    """What a teacher asks a language model; everything of it that decides the reply.

    Args:
        messages: the chat so far.
        schema: JSON schema of the reply; None where free text is wanted.
        max_tokens: the reply is cut after so many tokens.
        temperature: 0 is greedy.
    """

    messages: Sequence[Message]
    schema: Mapping[str, Any] | None
    max_tokens: int
    temperature: float = 0.0


@dataclass(frozen=True)
class Reply:
    """What the language model answered.

    Args:
        text: the answer.
        finish_reason: `"stop"` where the model ended by itself, `"length"` where it was cut off, or as in
            [`~drp_hf.servers.finish_reason`].
        input_tokens: tokens of the request, as the server counts them.
        output_tokens: tokens of the answer.
    """

    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int


class Unanswered(Exception):
    """Nobody answered a request, or the server refused it; the message says why."""


class Unanswerable(Unanswered):
    """Nobody ever can answer a request: it need not be asked again."""


Proposals = Generator[Proposal | Request, Any, str | None]
"""What `Teacher.propose` gives; it is sent the `Reply` to a `Request`."""


class Teacher(ABC):
    """Decides the steps of a trace.

    Attributes:
        name: how corpus rows and cards call it, settings included ("slicing-default").
    """

    name: str

    @abstractmethod
    def propose(self, trace: Trace, units: list[Unit]) -> Proposals:
        """Yields proposals, boldest first; the first that passes every check is taken.

        A teacher that needs a language model yields a `Request` and is sent the `Reply`; it does no input and output
        itself, so that the same conversation can run against a server, a batch file or a model in this process, and be
        replayed from the replies on disk. Where nobody answers, `Unanswered` is thrown in. A `Proposal` that
        fails has its `problem` when the teacher goes on.

        Args:
            trace: the trace to prune; its answer is known to be right.
            units: the segmented reasoning (`"".join(unit.text) == trace.reasoning`).

        Returns:
            Why there is no (further) proposal, where the teacher can say.
        """
