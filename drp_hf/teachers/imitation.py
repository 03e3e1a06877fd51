"""What a language model would answer if it decided as the slicing teacher does: for estimates, without asking anybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from drp_hf.records import Step, Trace
from drp_hf.segment import segment
from drp_hf.teacher import Reply, Request
from drp_hf.teachers.language_model import LanguageModelTeacher
from drp_hf.teachers.slicing import SlicingTeacher
from drp_hf.teachers.windows import Window, open_window


def imitate(
    teacher: LanguageModelTeacher, trace: Trace, steps: list[Step] | None = None
) -> Iterator[tuple[Request, str]]:
    """The requests that a teacher makes for a trace, each with the reply that leads to the given steps.

    Args:
        teacher: whose protocol is used.
        trace: the trace; its reasoning is not empty.
        steps: steps that end where units end; those of the slicing teacher by default.
    """
    units = segment(trace.reasoning)
    if steps is None:
        steps = next(SlicingTeacher().propose(trace, units)).steps
    start = 0
    while start < len(trace.reasoning):
        window = open_window(trace, units, start, teacher.window_tokens, teacher.count_tokens)
        inside = _clipped(steps, window)
        conversation = teacher.protocol.steps(window)
        request = next(conversation)
        try:
            for text in teacher.protocol.write(inside, window):
                yield request, text
                request = conversation.send(Reply(text, "stop", 0, 0))
        except StopIteration:  # understood; it goes on with the next window
            pass
        start = window.settled(inside)[-1].end


def _clipped(steps: list[Step], window: Window) -> list[Step]:
    """What of the steps lies in a window."""
    inside = [step for step in steps if step.start < window.end and step.end > window.start]
    return [replace(step, start=max(step.start, window.start), end=min(step.end, window.end)) for step in inside]


@dataclass(frozen=True)
class Estimate:
    """What traces will take, extrapolated from some of them.

    Args:
        traces: traces to ask about.
        calls: requests, corrections left out.
        input_tokens: of the requests, by the tokenizer that counts.
        output_tokens: of the replies, as long as the slicing teacher's decisions take.
        first: the first request.
    """

    traces: int
    calls: float
    input_tokens: float
    output_tokens: float
    first: Request


def estimate(
    teachers: list[LanguageModelTeacher], traces: list[Trace], total: int, count_tokens: Callable[[str], int]
) -> Estimate:
    """Estimates what `total` traces take, from some of them (at least one)."""
    calls = asked = answered = 0
    first = None
    for trace in traces:
        for teacher in teachers:
            for request, reply in imitate(teacher, trace):
                first = first or request
                calls += 1
                asked += sum(count_tokens(message["content"]) for message in request.messages)
                answered += count_tokens(reply)
    scale = total / len(traces)
    return Estimate(total, calls * scale, asked * scale, answered * scale, first)
