"""From steps to a pruned trace, with every promise checked: the one way into a corpus.

A trace enters only if its own answer is right. Its reasoning is segmented, the teacher proposes steps, boldest first,
and the first proposal that passes `check` is taken. Whatever happens, the row says why.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from drp_hf import numerals
from drp_hf.answers import answers_match, extract_answer, parses, stated_answer, states_answer
from drp_hf.errors import DRPError
from drp_hf.records import (
    THINK_CLOSE,
    THINK_OPEN,
    Action,
    CorpusRow,
    Step,
    Trace,
    final_response,
    render_output,
)
from drp_hf.segment import segment
from drp_hf.teacher import Reply, Request, Teacher, Unanswered

MAX_REASONING = 1_000_000
"""Characters; a longer reasoning is rejected (`Reason.TOO_LONG`)."""
ENDING_UNITS = 3
"""The answer must be stated in that many last units of the pruned reasoning."""


class Reason(StrEnum):
    """Why a trace is not in the corpus. A row's `reason` is one of these, then ": " and details if there are any."""

    UNREADABLE = "unreadable row"
    BAD_GOLD = "gold answer does not parse"
    EMPTY = "empty reasoning"
    TOO_LONG = f"reasoning over {MAX_REASONING} characters"
    THINK_TAGS = "think tags inside the text"
    CUT_OFF = "no final answer"
    WRONG = "wrong answer"
    NO_PROPOSAL = "teacher made no proposal"
    TILING = "steps do not tile the reasoning"
    KEEP_CHANGED = "kept text changed"
    REWRITE = "rewrite missing or out of place"
    NOTHING_LEFT = "nothing left"
    NEVER_STATED = "reasoning never states the answer"
    ANSWER_LOST = "pruning lost the answer"
    FOREIGN_NUMBER = "number from nowhere"
    FALSE_EQUATION = "false equation"
    LONGER = "longer than the original"


FALLBACK = "fall-back"
"""How the reason of a row begins that was accepted, but not as the teacher first proposed."""


# ------------------------------------------------------------------------------------------------- applying steps


_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")


@dataclass(frozen=True)
class Pruned:
    """A pruned reasoning.

    Args:
        text: what is left, without surrounding white space.
        spans: for every step of which something is left, where in `text` it stands (`start`, `end`; the rewrite is
            empty: it is the text). The spans tile `text`.
    """

    text: str
    spans: list[Step]


def apply_steps(reasoning: str, steps: Sequence[Step]) -> Pruned:
    """Prunes a reasoning.

    A KEEP step's text stays byte for byte. A rewrite takes the place of a COMPRESS or MERGE step and inherits the
    white space that followed it. White space is trimmed at the very beginning and end, and mended around deletions:
    what stood in different paragraphs stays in different paragraphs, and two sentences that a deletion would glue
    together get one space between them (it counts to the span before it).

    Args:
        reasoning: the original text.
        steps: steps that tile it.
    """
    pieces: list[tuple[str, Step]] = []
    for step in steps:
        original = reasoning[step.start : step.end]
        if step.action is Action.KEEP:
            piece = original
        elif step.action is Action.DELETE or not step.rewrite.strip():
            continue
        else:
            piece = step.rewrite.strip() + original[len(original.rstrip()) :]
        if pieces and piece and pieces[-1][1].end != step.start:
            left, before = pieces[-1]
            pieces[-1] = (_mended(left, reasoning[before.end : step.start], piece), before)
        pieces.append((piece, step))
    whole = "".join(piece for piece, _ in pieces)
    first, last = len(whole) - len(whole.lstrip()), len(whole.rstrip())
    spans, position = [], 0
    for piece, step in pieces:
        start, end = max(position, first), min(position + len(piece), last)
        position += len(piece)
        if start < end:
            spans.append(replace(step, start=start - first, end=end - first, rewrite=""))
    return Pruned(whole[first:last] if first < last else "", spans)


def _mended(left: str, deleted: str, right: str) -> str:
    """The text before a deletion, with the white space that must now follow it."""
    ending = left[len(left.rstrip()) :]
    if not _PARAGRAPH.search(ending) and _PARAGRAPH.search(ending + deleted):
        return left.rstrip() + "\n\n"
    # Full-width punctuation ends a sentence without a space.
    glued = bool(left) and not left[-1].isspace() and not right[0].isspace() and left[-1] not in "。！？」』）…"
    return left + " " if glued else left


def completion_spans(spans: Sequence[Step]) -> list[Step]:
    """Moves the spans of a pruned reasoning to where they stand in the completion, behind the opening think tag."""
    offset = len(f"{THINK_OPEN}\n")
    return [replace(span, start=span.start + offset, end=span.end + offset) for span in spans]


# --------------------------------------------------------------------------------------------------------- checks


def check(
    trace: Trace, steps: Sequence[Step], pruned: Pruned, count_tokens: Callable[[str], int] | None = None
) -> str:
    """Checks every promise that a pruned trace makes.

    The steps tile the reasoning; kept text is unchanged; rewrites are there; no think tag is inside; the ending states
    the gold answer; no number appears that neither the question nor the original trace names ("three" names 3); no
    plain equation is false ("10 - 90 = 10"); the whole output is not longer than the original.

    Args:
        trace: the original.
        steps: the teacher's steps.
        pruned: what `apply_steps` made of them.
        count_tokens: measures length in tokens instead of characters.

    Returns:
        Empty if all is well, else the reason (a `Reason`, then details).
    """
    return _check(trace, steps, pruned, count_tokens, None)[0]


def _check(
    trace: Trace,
    steps: Sequence[Step],
    pruned: Pruned,
    count_tokens: Callable[[str], int] | None,
    limit: int | None,
) -> tuple[str, int]:
    """`check`, with the original's length if it is known; also returns the length of the completion."""
    problem = _check_text(trace, steps, pruned)
    if problem:
        return problem, 0
    measure = count_tokens or len
    limit = measure(trace.output) if limit is None else limit
    length = measure(completion(trace, pruned))
    if length > limit:
        unit = "tokens" if count_tokens else "characters"
        return f"{Reason.LONGER}: {length} {unit} for {limit}", length
    return "", length


def completion(trace: Trace, pruned: Pruned) -> str:
    """What the student is trained to write: the pruned reasoning in think tags, then the final answer."""
    return render_output(pruned.text, final_response(trace.answer.strip()))


def _check_text(trace: Trace, steps: Sequence[Step], pruned: Pruned) -> str:
    position = 0
    for step in steps:
        if step.start != position or step.end <= step.start:
            return f"{Reason.TILING}: at character {position}"
        position = step.end
    if position != len(trace.reasoning):
        return f"{Reason.TILING}: they end at character {position} of {len(trace.reasoning)}"
    if problem := _check_pieces(trace.reasoning, steps, pruned):
        return problem
    text = pruned.text
    if not text:
        return Reason.NOTHING_LEFT
    if THINK_OPEN in text or THINK_CLOSE in text:
        return Reason.THINK_TAGS
    if not states_answer(_ending(text), trace.answer):
        return Reason.ANSWER_LOST
    if foreign := foreign_numbers(trace, text):
        return f"{Reason.FOREIGN_NUMBER}: {', '.join(sorted(foreign))}"
    if false := numerals.false_equation(text):
        return f"{Reason.FALSE_EQUATION}: {false}"
    return ""


def foreign_numbers(trace: Trace, text: str) -> set[str]:
    """Numbers of the text that the trace names nowhere; the cheap and likely places are looked at first."""
    foreign = numerals.named(text) - {"1"}
    for read in (numerals.digits, numerals.suggested):
        for source in (trace.question, trace.reasoning, trace.response):
            if not foreign:
                return foreign
            foreign -= read(source)
    return foreign


def _check_pieces(reasoning: str, steps: Sequence[Step], pruned: Pruned) -> str:
    """Walks through the pruned text: every piece stands where its span says, and nothing stands between them."""
    spans = iter(pruned.spans)
    position = 0
    for step in steps:
        original = reasoning[step.start : step.end]
        if step.action in (Action.COMPRESS, Action.MERGE):
            if not step.rewrite.strip():
                return f"{Reason.REWRITE}: step at character {step.start}"
        elif step.rewrite:
            return f"{Reason.REWRITE}: {step.action.value} step at character {step.start} has one"
        if step.action is Action.DELETE or (step.action is Action.KEEP and not original.strip()):
            continue
        span = next(spans, None)
        while span is not None and not pruned.text[span.start : span.end].strip():
            position, span = span.end, next(spans, None)
        kept = step.action is Action.KEEP
        expected = original if kept else step.rewrite.strip() + original[len(original.rstrip()) :]
        if span is None or span.start != position:
            return f"{(Reason.KEEP_CHANGED if kept else Reason.REWRITE)}: step at character {step.start}"
        found = pruned.text[span.start : span.end]
        if position == 0:
            expected = expected.lstrip()
        if span.end == len(pruned.text):
            expected = expected.rstrip()
        if found not in (expected, expected + " ", expected.rstrip() + "\n\n"):
            return f"{(Reason.KEEP_CHANGED if kept else Reason.REWRITE)}: step at character {step.start}"
        position = span.end
    if position != len(pruned.text) and pruned.text[position:].strip():
        return f"{Reason.KEEP_CHANGED}: text after the last step"
    return ""


def _ending(text: str) -> str:
    """The last units of a text, of a bounded stretch of it."""
    return "".join(unit.text for unit in segment(text[-2000:])[-ENDING_UNITS:])


# -------------------------------------------------------------------------------------------------- the whole way


def prune_trace(trace: Trace, teacher: Teacher, count_tokens: Callable[[str], int]) -> CorpusRow:
    """Turns a trace into a corpus row with a teacher that asks nobody; arguments and row as in [`prune`].

    Raises:
        DRPError: the teacher asks a language model.
    """
    try:
        next(prune(trace, teacher, count_tokens))
    except StopIteration as done:
        return done.value
    raise DRPError(f"the teacher {teacher.name} asks a language model: run it with `drp prune`.")


def prune(trace: Trace, teacher: Teacher, count_tokens: Callable[[str], int]) -> Generator[Request, Reply, CorpusRow]:
    """Turns a trace into a corpus row, accepted or not; what the teacher asks a language model is yielded.

    Args:
        trace: what a model wrote.
        teacher: proposes steps, boldest first.
        count_tokens: tokens of a text; called once for the original and once for every proposal otherwise good.

    Yields:
        Requests, each to be answered with `send(reply)`, or with `throw(Unanswered(why))` where there is none.

    Returns:
        The row. `reason` is empty when the teacher's first choice was taken, begins with "fall-back" when a milder one
        was (naming it, and why the bolder ones failed), and else is a `Reason` with details.
    """
    row = CorpusRow(trace.question, trace.answer, trace.reasoning, trace.response, trace.model, teacher=teacher.name)
    if len(trace.reasoning) > MAX_REASONING or len(trace.response) > MAX_REASONING:
        return replace(row, reason=Reason.TOO_LONG)
    before = count_tokens(trace.output)
    row = replace(row, tokens_before=before)
    if problem := judge(trace):
        return replace(row, reason=problem)
    failed: list[str] = []
    proposals = teacher.propose(trace, segment(trace.reasoning))
    heard: Reply | Unanswered | None = None
    while True:
        try:
            said = proposals.throw(heard) if isinstance(heard, Unanswered) else proposals.send(heard)
        except StopIteration as done:
            why = done.value
            break
        heard = None
        if isinstance(said, Request):
            try:
                heard = yield said
            except Unanswered as nobody:
                heard = nobody
            continue
        pruned = apply_steps(trace.reasoning, said.steps)
        said.problem, after = _check(trace, said.steps, pruned, count_tokens, before)
        if not said.problem:
            return replace(
                row,
                steps=said.steps,
                pruned_reasoning=pruned.text,
                completion=completion(trace, pruned),
                tokens_after=after,
                accepted=True,
                reason=_fallback(said.note, failed),
            )
        failed.append(said.problem)
    reason = failed[-1] if failed else f"{Reason.NO_PROPOSAL}: {why}" if why else Reason.NO_PROPOSAL
    if reason == Reason.ANSWER_LOST and not states_answer(trace.reasoning, trace.answer):
        reason = Reason.NEVER_STATED
    return replace(row, reason=reason)


def judge(trace: Trace) -> str:
    """Why a trace is no material for pruning; empty if it is whole and its answer is right.

    The answer is taken from the response; without a response, only from what the reasoning expressly calls the answer
    (an output that was cut off has none).
    """
    if not parses(trace.answer):
        return f"{Reason.BAD_GOLD}: {trace.answer[:80]!r}"
    if not trace.reasoning.strip():
        return Reason.EMPTY
    text = trace.reasoning + trace.response
    if THINK_OPEN in text or THINK_CLOSE in text:
        return Reason.THINK_TAGS
    found = extract_answer(trace.response) or stated_answer(_ending(trace.reasoning.rstrip()))
    if found is None:
        return Reason.CUT_OFF
    verdict = answers_match(trace.answer, found)
    if not verdict.correct:
        details = f" ({verdict.note})" if verdict.note else ""
        return f"{Reason.WRONG}: {found[:80]} for {trace.answer[:80]}{details}"
    return ""


def _fallback(note: str, failed: list[str]) -> str:
    if not note and not failed:
        return ""
    kind = note or f"proposal {len(failed) + 1}"
    return f"{FALLBACK}: {kind}" + (f" (before it: {'; '.join(failed)})" if failed else "")


# --------------------------------------------------------------------------------------------------------- funnel


class Funnel:
    """Counts what became of the traces: read, right, accepted, by which fall-back, rejected for what reason."""

    def __init__(self) -> None:
        self.read = 0
        self.right = 0
        self.clean = 0
        self.fallbacks: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()

    def add(self, row: CorpusRow) -> None:
        """Counts one row."""
        self.read += 1
        kind = row.reason.partition(":")[0]
        before_teacher = (
            Reason.UNREADABLE,
            Reason.BAD_GOLD,
            Reason.EMPTY,
            Reason.TOO_LONG,
            Reason.THINK_TAGS,
            Reason.CUT_OFF,
            Reason.WRONG,
        )
        self.right += row.accepted or kind not in before_teacher
        if not row.accepted:
            self.rejected[kind] += 1
        elif row.reason:
            self.fallbacks[row.reason.removeprefix(f"{FALLBACK}: ").partition(" (before it")[0].partition(":")[0]] += 1
        else:
            self.clean += 1

    @property
    def accepted(self) -> int:
        return self.clean + self.fallbacks.total()

    def to_rows(self) -> list[tuple[str, int, float]]:
        """Rows of the card's table: what, how many, and their share of all traces read."""
        rows = [("traces read", self.read), ("traces whole and right", self.right), ("accepted", self.accepted)]
        rows.append(("accepted as first proposed", self.clean))
        rows += [(f"accepted by fall-back: {kind}", count) for kind, count in self.fallbacks.most_common()]
        rows += [(f"rejected: {kind}", count) for kind, count in self.rejected.most_common()]
        return [(what, count, count / self.read if self.read else 0.0) for what, count in rows]
