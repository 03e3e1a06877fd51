"""The teacher that asks a language model, whatever brings the questions there and the answers back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from drp_hf.errors import DRPError
from drp_hf.records import Action, Step, Trace
from drp_hf.segment import Unit
from drp_hf.teacher import Proposal, Proposals, Teacher, Unanswered
from drp_hf.teachers.paper import PaperProtocol
from drp_hf.teachers.protocol import VERSION, CompactProtocol, Segmentation, Unusable
from drp_hf.teachers.windows import open_window

PROTOCOLS = {protocol.name: protocol for protocol in (CompactProtocol, PaperProtocol)}
SMALLEST_WINDOW = 100


class LanguageModelTeacher(Teacher):
    """Lets a language model decide the steps (DRP, arXiv 2505.13975, sections on decomposition and pruning).

    A reply that cannot be used, and a pruning that fails the checks, are sent back once with what is wrong. Then the
    original text takes the place of the rewrites, and then the fall-back teacher decides, if there is one.

    Args:
        model: name of the language model.
        count_tokens: tokens of a text, to keep windows within the context.
        protocol: `compact` or `paper`.
        strength: how much explanation stays: `light`, `default`, `hard`, `goal` or `bare`.
        segmentation: `skill`, `plain` (steps without skills) or `none` (rewritten as a whole).
        temperature: 0 is greedy.
        max_tokens: a reply is cut after so many tokens.
        context: tokens that the language model reads and writes in one call; longer traces are cut into windows.
        structured_outputs: whether the schema of the reply goes along, for the server to enforce.
        fallback: who decides where the language model's pruning cannot be used.
    """

    def __init__(
        self,
        model: str,
        count_tokens: Callable[[str], int],
        protocol: str = "compact",
        strength: str = "default",
        segmentation: Segmentation = "skill",
        temperature: float = 0.0,
        max_tokens: int = 4096,
        context: int = 32_768,
        structured_outputs: bool = True,
        fallback: Teacher | None = None,
    ) -> None:
        self.protocol = PROTOCOLS[protocol](strength, segmentation, max_tokens, temperature, structured_outputs)
        self.window_tokens = self.protocol.window_tokens(context)
        if self.window_tokens < SMALLEST_WINDOW:
            raise DRPError(
                f"A context of {context} tokens has no room for replies of {max_tokens}: raise context_length or lower "
                "max_tokens."
            )
        self.count_tokens = count_tokens
        self.fallback = fallback
        traits = [f"{protocol}-v{VERSION}", strength]
        traits += [f"segmentation {segmentation}"] if segmentation != "skill" else []
        traits += [f"temperature {temperature:g}"] if temperature else []
        traits += [f"context {context}", f"max_tokens {max_tokens}"] if (context, max_tokens) != (32_768, 4096) else []
        traits += ["no schema"] if not structured_outputs else []
        traits += [f"else {fallback.name}"] if fallback else []
        self.name = f"{model} ({', '.join(traits)})"

    def propose(self, trace: Trace, units: list[Unit]) -> Proposals:
        steps: list[Step] = []
        checked, unusable = Proposal(steps), ""
        try:
            while not steps or steps[-1].end < len(trace.reasoning):
                start = steps[-1].end if steps else 0
                window = open_window(trace, units, start, self.window_tokens, self.count_tokens)
                found, exchange = yield from self.protocol.steps(window)
                before, steps = steps, steps + window.settled(found)
            checked = Proposal(steps)
            yield checked
            revised = before + (yield from exchange.send_back(checked.problem))
            yield Proposal(revised, "corrected after a failed check")
        except (Unusable, Unanswered) as why:
            if str(why) != checked.problem:  # which is known to who checked
                unusable = str(why)
        if steps and steps[-1].end == len(trace.reasoning) and any(step.rewrite for step in steps):
            yield Proposal(_unwritten(steps), "original text in place of new text")
        if self.fallback is not None:
            yield from _named(self.fallback, trace, units, unusable)
        return unusable


def _unwritten(steps: list[Step]) -> list[Step]:
    """The steps with the original text kept where they would rewrite it."""
    return [replace(step, action=Action.KEEP, rewrite="") if step.rewrite else step for step in steps]


def _named(teacher: Teacher, trace: Trace, units: list[Unit], why: str) -> Iterator[Proposal]:
    """Another teacher's proposals; their notes say whose they are, and why that one is asked."""
    for proposal in teacher.propose(trace, units):
        note = ", ".join(filter(None, [teacher.name, proposal.note]))
        yield replace(proposal, note=": ".join(filter(None, [note, why])))
