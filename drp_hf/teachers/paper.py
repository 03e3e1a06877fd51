"""The protocol of the paper (arXiv 2505.13975): two calls, in the first of which the teacher copies the whole trace.

The first call decomposes: the reasoning is copied in pieces, each with its skill. The second decides an action for each
step and writes the pruned reasoning as passages, each naming the steps it tells. Copies are compared with the original,
white space aside, and what is kept is taken from the original.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from typing import Any

from drp_hf.pruning import apply_steps
from drp_hf.records import Action, Step
from drp_hf.teacher import Reply, Request
from drp_hf.teachers.protocol import (
    ACTIONS,
    MATERIAL,
    PROMPT_TOKENS,
    RESULT,
    SKILLS,
    STEPS,
    STRENGTHS,
    WHOLE_SCHEMA,
    Exchange,
    Protocol,
    Unusable,
    check_rewrites,
    introduction,
    list_of,
    object_of,
    read_whole,
    texts_of,
    unit_range,
    whole_system,
    write_json,
)
from drp_hf.teachers.windows import Window, as_lines, one_line

COPY_SHARE = 0.6
"""Share of a reply that the copied text may take; skills and JSON take the rest."""


class PaperProtocol(Protocol):
    """Two calls: decompose by copying, then decide and rewrite."""

    name = "paper"

    def window_tokens(self, context: int) -> int:
        return min(context - 3 * self.max_tokens - PROMPT_TOKENS, int(COPY_SHARE * self.max_tokens))

    def steps(self, window: Window) -> Generator[Request, Reply, tuple[list[Step], Exchange]]:
        original = f"{introduction(window)}\n\n{quoted(window.trace.reasoning[window.start : window.end])}"
        if self.whole:
            exchange = self.exchange(
                whole_system(self.strength), original, WHOLE_SCHEMA, lambda reply: read_whole(reply, window)
            )
            return (yield from exchange.ask()), exchange
        fields = ("skill", "text") if self.with_skill else ("text",)
        exchange = self.exchange(
            decomposition(self.with_skill),
            original,
            list_schema("steps", fields),
            lambda reply: _decomposed(reply, fields, window),
        )
        pieces = yield from exchange.ask()
        lines = [
            f"[{number}] {f'({piece.skill}) ' if self.with_skill else ''}{one_line(text_of(piece, window))}"
            for number, piece in enumerate(pieces, 1)
        ]
        numbered = f"{introduction(window)}\n\nSteps:\n" + "\n".join(lines)
        exchange = self.exchange(
            pruning(self.strength), numbered, PRUNED_SCHEMA, lambda reply: _pruned(reply, pieces, window)
        )
        return (yield from exchange.ask()), exchange

    def write(self, steps: Sequence[Step], window: Window) -> list[str]:
        if self.whole:
            return [write_json({"text": apply_steps(window.trace.reasoning, steps).text})]
        texts = [text_of(step, window).strip() for step in steps]
        copies = [
            {"skill": step.skill, "text": text} if self.with_skill else {"text": text}
            for step, text in zip(steps, texts, strict=True)
        ]
        passages = [
            {"steps": str(number), "text": step.rewrite.strip() or text}
            for number, (step, text) in enumerate(zip(steps, texts, strict=True), 1)
            if step.action is not Action.DELETE
        ]
        actions = [step.action.value for step in steps]
        return [write_json({"steps": copies}), write_json({"actions": actions, "passages": passages})]


def _decomposed(reply: Any, fields: Sequence[str], window: Window) -> list[Step]:
    """The steps of the first call (all of them KEEP), laid on the original."""
    original = window.trace.reasoning
    places = [at for at in range(window.start, window.end) if not original[at].isspace()]
    steps: list[Step] = []
    used = 0
    for number, item in enumerate(list_of(reply, "steps"), 1):
        values = texts_of(item, fields, f"step {number}")
        copied = "".join(values["text"].split())
        if not copied:
            raise Unusable(f"step {number} has no text")
        ahead = places[used : used + len(copied)]
        if "".join(map(original.__getitem__, ahead)) != copied:
            raise Unusable(f"step {number} is no copy of the reasoning, which goes on {_excerpt(original, ahead)}")
        start = steps[-1].end if steps else window.start
        used += len(copied)
        end = places[used] if used < len(places) else window.end
        steps.append(Step(start, end, " ".join(values.get("skill", "").split()), Action.KEEP))
    if used < len(places):
        raise Unusable(f"the steps end before {_excerpt(original, places[used:])}")
    return steps


def _excerpt(original: str, places: Sequence[int]) -> str:
    return repr(original[places[0] : places[0] + 60]) if places else "no further"


def _pruned(reply: Any, pieces: list[Step], window: Window) -> list[Step]:
    """The steps of the second call: those that a passage tells with its text, the others deleted."""
    if not isinstance(reply, dict) or set(reply) != {"actions", "passages"}:
        raise Unusable('it is not an object with the fields "actions" and "passages"')
    actions = list_of({"actions": reply["actions"]}, "actions")
    if len(actions) != len(pieces):
        raise Unusable(f"there are {len(actions)} actions for {len(pieces)} steps")
    steps: list[Step] = []
    done = 0
    if not isinstance(reply["passages"], list):  # which is empty where nothing of a window is needed
        raise Unusable('the field "passages" is not a list')
    for number, item in enumerate(reply["passages"], 1):
        values = texts_of(item, ("steps", "text"), f"passage {number}")
        first, last = unit_range(values["steps"], f"passage {number}")
        if not done < first <= last <= len(pieces):
            raise Unusable(f"passage {number} tells steps {values['steps']} after {done} of {len(pieces)}")
        steps += _deleted(pieces[done : first - 1], actions, done)
        steps += _passage(
            pieces[first - 1 : last], actions[first - 1 : last], as_lines(values["text"], window.trace), number, window
        )
        done = last
    steps += _deleted(pieces[done:], actions, done)
    check_rewrites(steps, window.trace)
    return steps


def _deleted(pieces: list[Step], actions: Sequence[Any], before: int) -> list[Step]:
    for number, action in enumerate(actions[before : before + len(pieces)], before + 1):
        if action != Action.DELETE:
            raise Unusable(f"step {number} has the action {str(action)[:40]!r}, but no passage tells it")
    return [Step(piece.start, piece.end, piece.skill, Action.DELETE) for piece in pieces]


def _passage(pieces: list[Step], actions: Sequence[Any], text: str, number: int, window: Window) -> list[Step]:
    told = [piece for piece, action in zip(pieces, actions, strict=True) if action != Action.DELETE]
    if not text or not told or any(action not in list(Action) for action in actions):
        raise Unusable(f"passage {number} is empty, or its steps have the actions {list(actions)}")
    if text.split() == window.trace.reasoning[pieces[0].start : pieces[-1].end].split():
        return pieces
    if all(action == Action.KEEP for action in actions):
        raise Unusable(f"passage {number} changes the text of steps to KEEP")
    action = Action.COMPRESS if len(pieces) == 1 else Action.MERGE
    return [Step(pieces[0].start, pieces[-1].end, told[-1].skill, action, text)]


# ---------------------------------------------------------------------------------------------------------- prompts


def quoted(original: str) -> str:
    """The reasoning as a JSON string: nothing in it can end it."""
    return f"Reasoning, as a JSON string: {json.dumps(original, ensure_ascii=False)}"


def text_of(piece: Step, window: Window) -> str:
    return window.trace.reasoning[piece.start : piece.end]


def list_schema(name: str, fields: Sequence[str]) -> dict[str, Any]:
    """JSON schema of an object with one list of objects, all of whose fields are strings."""
    return object_of({name: {"type": "array", "items": object_of(dict.fromkeys(fields, {"type": "string"}))}})


PRUNED_SCHEMA = object_of(
    {
        "actions": {"type": "array", "items": {"type": "string", "enum": [action.value for action in Action]}},
        "passages": list_schema("passages", ("steps", "text"))["properties"]["passages"],
    }
)


def decomposition(with_skill: bool) -> str:
    """The system prompt of the first call."""
    example = '"skill": "<its skill>", ' if with_skill else ""
    return f"""\
You split the reasoning of another model into steps. You get a problem and the reasoning. {MATERIAL}

{SKILLS if with_skill else STEPS} Copy the whole reasoning, word for word, cut into steps: nothing is left out, changed, \
added or told twice.

Answer with JSON only: {{"steps": [{{{example}"text": "<the copied text>"}}, …]}}"""


def pruning(strength: str) -> str:
    """The system prompt of the second call."""
    return f"""\
You shorten the reasoning of another model. You get a problem, its final answer, and the reasoning as numbered steps, one \
a line. {MATERIAL}

Choose one action for each step:
{ACTIONS}

Then write what is left as passages, in order. A passage names the steps it tells, one or a range; a step to keep is \
copied word for word. {STRENGTHS[strength]} {RESULT}

Answer with JSON only. For example, for five steps:
{{"actions": ["DELETE", "KEEP", "MERGE", "MERGE", "DELETE"], "passages": [{{"steps": "2", "text": "There are 80 pens."}}, \
{{"steps": "3-4", "text": "So 20% of 80 is 16."}}]}}"""
