import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.audit import audit_row
from drp_hf.pruning import (
    FALLBACK,
    MAX_REASONING,
    Funnel,
    Pruned,
    Reason,
    apply_steps,
    check,
    completion,
    completion_spans,
    judge,
    prune_trace,
)
from drp_hf.records import Action, CorpusRow, Step, Trace
from drp_hf.segment import Unit
from drp_hf.teacher import Proposal, Teacher

KEEP, DELETE, COMPRESS, MERGE = Action.KEEP, Action.DELETE, Action.COMPRESS, Action.MERGE
PARTS = [
    "Okay, let me see what is asked here. ",
    "Each session is 3 * 60 = 180 meters. ",
    "Wait, is that right? Yes, 60 times three. ",
    "Then, well, in a week it must come to 3 * 180 = 540 meters in all.\n\n",
    "Let me check that again. ",
    "So the answer is 540.",
]
REASONING = "".join(PARTS)
TRACE = Trace(
    "James runs 3 sprints of 60 meters 3 times a week. How many meters a week?",
    "540",
    REASONING,
    "James runs \\boxed{540} meters.",
    "some-model",
)


def steps_of(*actions: Action | tuple[Action, str], parts: list[str] = PARTS) -> list[Step]:
    steps, position = [], 0
    for part, action in zip(parts, actions, strict=True):
        action, rewrite = action if isinstance(action, tuple) else (action, "")
        steps.append(Step(position, position + len(part), "a skill", action, rewrite))
        position += len(part)
    return steps


GOOD = steps_of(DELETE, KEEP, DELETE, (COMPRESS, "In a week 3 * 180 = 540 meters."), DELETE, KEEP)


class Proposing(Teacher):
    name = "proposing"

    def __init__(self, *proposals: Proposal) -> None:
        self.proposals = proposals

    def propose(self, trace: Trace, units: list[Unit]) -> Iterator[Proposal]:
        assert "".join(unit.text for unit in units) == trace.reasoning
        yield from self.proposals


def pruned_row(*proposals: Proposal, trace: Trace = TRACE, count=len) -> CorpusRow:
    return prune_trace(trace, Proposing(*proposals), count)


# ------------------------------------------------------------------------------------------------- applying steps


def test_apply_steps():
    pruned = apply_steps(REASONING, GOOD)
    assert pruned.text == (
        "Each session is 3 * 60 = 180 meters. In a week 3 * 180 = 540 meters.\n\nSo the answer is 540."
    )
    assert [pruned.text[span.start : span.end] for span in pruned.spans] == [
        "Each session is 3 * 60 = 180 meters. ",
        "In a week 3 * 180 = 540 meters.\n\n",
        "So the answer is 540.",
    ]
    assert [span.action for span in pruned.spans] == [KEEP, COMPRESS, KEEP]
    assert all(span.skill == "a skill" and span.rewrite == "" for span in pruned.spans)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["One.", " Two.", "Three."], "One. Three."),  # a deletion between would glue them
        (["One. ", "Two. ", "Three."], "One. Three."),
        (["一。", "二。", "三。"], "一。三。"),  # full-width punctuation needs no space
        (["\n\nOne.\r\n", "Two.", "\tThree.  \n"], "One.\r\n\tThree."),
        (["One. ", "Two.\n\n", "Three."], "One.\n\nThree."),  # another paragraph stays another paragraph
        (["One.", " Two.\n\nTwo again. ", "Three."], "One.\n\nThree."),
        (["One.\n\n\n", "Two.\n\n", "Three."], "One.\n\n\nThree."),
    ],
)
def test_joints(parts, text):
    steps = steps_of(KEEP, DELETE, KEEP, parts=parts)
    pruned = apply_steps("".join(parts), steps)
    assert pruned.text == text
    assert "".join(text[span.start : span.end] for span in pruned.spans) == text


def test_adjacent_kept_steps_are_not_pulled_apart():
    parts = ["3.", "14 is ", "pi."]
    assert apply_steps("3.14 is pi.", steps_of(KEEP, KEEP, KEEP, parts=parts)).text == "3.14 is pi."


def test_spans_in_the_completion():
    row = pruned_row(Proposal(GOOD))
    pruned = apply_steps(REASONING, GOOD)
    spans = completion_spans(pruned.spans)
    assert [row.completion[span.start : span.end] for span in spans] == [
        pruned.text[span.start : span.end] for span in pruned.spans
    ]


texts = st.text(st.sampled_from("ab1. \n\t，。é🙂"), max_size=12)
tilings = st.lists(st.tuples(texts.filter(bool), st.sampled_from(list(Action)), texts), max_size=12)


@settings(deadline=None)
@given(tilings)
def test_random_tilings(pieces):
    parts = [part for part, _, _ in pieces]
    actions = [(action, rewrite if action in (COMPRESS, MERGE) else "") for _, action, rewrite in pieces]
    reasoning, steps = "".join(parts), steps_of(*actions, parts=parts)
    pruned = apply_steps(reasoning, steps)
    assert pruned.text == pruned.text.strip()
    edges = [edge for span in pruned.spans for edge in (span.start, span.end)]
    assert edges == sorted(edges) and "".join(pruned.text[s.start : s.end] for s in pruned.spans) == pruned.text
    position = 0
    for step in steps:
        if step.action is KEEP:
            found = pruned.text.find(reasoning[step.start : step.end].strip(), position)
            assert found >= 0
            position = found + len(reasoning[step.start : step.end].strip())
    if all(step.action is KEEP for step in steps):
        assert pruned.text == reasoning.strip()


@settings(deadline=None)
@given(tilings)
def test_what_apply_steps_makes_is_never_called_altered(pieces):
    parts = [part for part, _, _ in pieces]
    actions = [(action, rewrite if action in (COMPRESS, MERGE) else "") for _, action, rewrite in pieces]
    trace = replace(TRACE, reasoning="".join(parts))
    steps = steps_of(*actions, parts=parts)
    reason = check(trace, steps, apply_steps(trace.reasoning, steps)).partition(":")[0]
    missing = any(step.action in (COMPRESS, MERGE) and not step.rewrite.strip() for step in steps)
    assert reason not in (Reason.TILING, Reason.KEEP_CHANGED)
    assert (reason == Reason.REWRITE) == missing


# --------------------------------------------------------------------------------------------------------- checks


def test_a_good_pruning_passes():
    assert check(TRACE, GOOD, apply_steps(REASONING, GOOD)) == ""
    assert audit_row(pruned_row(Proposal(GOOD)).to_dict()) == []


def broken(what: str) -> tuple[list[Step], Pruned]:
    """The good pruning with one promise broken on purpose."""
    steps, pruned = list(GOOD), apply_steps(REASONING, GOOD)

    def with_text(old: str, new: str) -> Pruned:
        assert old in pruned.text
        at, shift = pruned.text.index(old), len(new) - len(old)
        moved = [
            replace(s, start=s.start + shift * (s.start > at), end=s.end + shift * (s.end > at)) for s in pruned.spans
        ]
        return Pruned(pruned.text.replace(old, new, 1), moved)

    if what == "gap":
        steps[2] = replace(steps[2], start=steps[2].start + 1)
    elif what == "overlap":
        steps[2] = replace(steps[2], start=steps[2].start - 1)
    elif what == "short":
        steps.pop()
    elif what == "empty step":
        steps.insert(2, Step(steps[2].start, steps[2].start, "a skill", DELETE))
    elif what == "kept text changed":
        pruned = with_text("Each session", "Per session")
    elif what == "kept text out of order":
        first, second, third = (pruned.text[span.start : span.end] for span in pruned.spans)
        pruned = Pruned(second + first + third, pruned.spans)
    elif what == "white space inside kept text":
        pruned = with_text("3 * 60", "3  * 60")
    elif what == "rewrite missing":
        steps[3] = replace(steps[3], rewrite="")
    elif what == "rewrite differs":
        pruned = with_text("In a week", "Weekly")
    elif what == "rewrite on a deleted step":
        steps[4] = replace(steps[4], rewrite="Checked.")
    elif what == "rewrite on a kept step":
        steps[1] = replace(steps[1], rewrite="180 meters.")
    elif what == "text added":
        pruned = Pruned(pruned.text + " Done.", pruned.spans)
    elif what == "answer lost":
        steps = steps_of(DELETE, KEEP, DELETE, DELETE, DELETE, DELETE)
        pruned = apply_steps(REASONING, steps)
    elif what == "wrong answer":
        steps[5] = replace(steps[5], action=COMPRESS, rewrite="So the answer is 180.")
        pruned = apply_steps(REASONING, steps)
    elif what == "number from nowhere":
        steps[3] = replace(steps[3], rewrite="In a week 540 meters, or 28080 a year.")
        pruned = apply_steps(REASONING, steps)
    elif what == "number word from nowhere":
        steps[3] = replace(steps[3], rewrite="In a week 540 meters on seventeen days.")
        pruned = apply_steps(REASONING, steps)
    elif what == "false equation":
        steps[3] = replace(steps[3], rewrite="In a week 3 * 60 = 540 meters.")
        pruned = apply_steps(REASONING, steps)
    elif what == "think tag inside":
        steps[3] = replace(steps[3], rewrite="In a week </think> 3 * 180 = 540 meters.")
        pruned = apply_steps(REASONING, steps)
    elif what == "longer":
        steps[3] = replace(steps[3], rewrite="In a week it is 3 * 180 = 540 meters. " * 20)
        pruned = apply_steps(REASONING, steps)
    elif what == "nothing left":
        steps = steps_of(*[DELETE] * 6)
        pruned = apply_steps(REASONING, steps)
    else:
        raise ValueError(what)
    return steps, pruned


BREAKS = {
    "gap": Reason.TILING,
    "overlap": Reason.TILING,
    "short": Reason.TILING,
    "empty step": Reason.TILING,
    "kept text changed": Reason.KEEP_CHANGED,
    "kept text out of order": Reason.KEEP_CHANGED,
    "white space inside kept text": Reason.KEEP_CHANGED,
    "rewrite missing": Reason.REWRITE,
    "rewrite differs": Reason.REWRITE,
    "rewrite on a deleted step": Reason.REWRITE,
    "rewrite on a kept step": Reason.REWRITE,
    "text added": Reason.KEEP_CHANGED,
    "answer lost": Reason.ANSWER_LOST,
    "wrong answer": Reason.ANSWER_LOST,
    "number from nowhere": Reason.FOREIGN_NUMBER,
    "number word from nowhere": Reason.FOREIGN_NUMBER,
    "false equation": Reason.FALSE_EQUATION,
    "think tag inside": Reason.THINK_TAGS,
    "longer": Reason.LONGER,
    "nothing left": Reason.NOTHING_LEFT,
}


@pytest.mark.parametrize("what", BREAKS)
def test_every_broken_promise_is_caught_twice(what):
    steps, pruned = broken(what)
    assert check(TRACE, steps, pruned).partition(":")[0] == BREAKS[what]
    row = pruned_row(Proposal(GOOD))
    after = completion(TRACE, pruned)
    row = replace(row, steps=steps, pruned_reasoning=pruned.text, completion=after, tokens_after=len(after))
    assert audit_row(row.to_dict()) != []


@pytest.mark.parametrize(
    ("rewrite", "passes"),
    [
        ("In a week 3 * 180.0 = 540 meters.", True),
        ("In a week three times 180, so 540 meters.", True),
        ("In a week 0.5 * 1080 = 540 meters.", False),
    ],
)
def test_numbers_are_compared_by_value(rewrite, passes):
    steps = [*GOOD[:3], replace(GOOD[3], rewrite=rewrite), *GOOD[4:]]
    assert (check(TRACE, steps, apply_steps(REASONING, steps)) == "") is passes


def test_length_is_measured_in_tokens_where_there_is_a_tokenizer():
    steps = steps_of(DELETE, KEEP, DELETE, KEEP, DELETE, KEEP)
    words = {"longer": lambda text: len(text.split()), "shorter": lambda text: 1000 - len(text)}
    pruned = apply_steps(REASONING, steps)
    assert check(TRACE, steps, pruned, words["longer"]) == ""
    assert check(TRACE, steps, pruned, words["shorter"]).startswith(Reason.LONGER)


# -------------------------------------------------------------------------------------------------- the whole way


def test_an_accepted_row():
    calls = []
    row = pruned_row(Proposal(GOOD), count=lambda text: calls.append(text) or len(text.split()))
    assert row.accepted and row.reason == "" and row.teacher == "proposing" and row.steps == GOOD
    assert row.completion == f"<think>\n{row.pruned_reasoning}\n</think>\n\nThe answer is 540."
    assert (row.tokens_before, row.tokens_after) == (len(TRACE.output.split()), len(row.completion.split()))
    assert calls == [TRACE.output, row.completion]


def test_a_milder_proposal_is_taken_and_the_row_says_why():
    row = pruned_row(Proposal(broken("answer lost")[0]), Proposal(GOOD, "all derivations kept: too bold"))
    assert row.accepted and row.steps == GOOD
    assert row.reason == f"{FALLBACK}: all derivations kept: too bold (before it: {Reason.ANSWER_LOST})"


def test_a_first_proposal_with_a_note_is_a_fallback():
    assert pruned_row(Proposal(GOOD, "cut only")).reason == f"{FALLBACK}: cut only"


def test_nothing_passes():
    row = pruned_row(Proposal(broken("answer lost")[0]), Proposal(broken("gap")[0]))
    assert not row.accepted and row.reason.startswith(Reason.TILING)
    assert (row.pruned_reasoning, row.completion, row.tokens_after) == ("", "", 0) and row.tokens_before > 0
    assert pruned_row().reason == Reason.NO_PROPOSAL
    assert audit_row(row.to_dict()) == []


def test_a_reasoning_that_never_says_the_answer():
    trace = replace(TRACE, reasoning="First I multiply, then I add. That gives what is asked.")
    row = pruned_row(Proposal([Step(0, len(trace.reasoning), "plan", KEEP)]), trace=trace)
    assert row.reason == Reason.NEVER_STATED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": ""}, Reason.BAD_GOLD),
        ({"answer": "\\frac{1}{"}, Reason.BAD_GOLD),
        ({"reasoning": ""}, Reason.EMPTY),
        ({"reasoning": " \n "}, Reason.EMPTY),
        ({"reasoning": f"a</think>b<think>{REASONING}"}, Reason.THINK_TAGS),
        ({"response": "</think> The answer is 540."}, Reason.THINK_TAGS),
        ({"response": "James runs \\boxed{54} meters."}, Reason.WRONG),
        ({"response": "", "reasoning": "So each session is 180 meters. And 540"}, Reason.CUT_OFF),
        ({"response": "I do not know.", "reasoning": "Hm."}, Reason.CUT_OFF),
        ({"reasoning": "a. " * (MAX_REASONING // 3 + 1)}, Reason.TOO_LONG),
        ({"reasoning": "(" * 5_000_000}, Reason.TOO_LONG),
    ],
)
def test_bad_input_is_rejected_with_its_reason(change, reason):
    trace = replace(TRACE, **change)
    row = pruned_row(Proposal([Step(0, len(trace.reasoning), "all", KEEP)]), trace=trace)
    assert not row.accepted and row.reason.partition(":")[0] == reason
    assert audit_row(row.to_dict()) == []


def test_a_trace_without_response_may_state_its_answer_in_the_reasoning():
    assert judge(replace(TRACE, response="")) == ""


@pytest.mark.parametrize(
    "text", ["(" * 900_000, "1 + " * 220_000, "Wait, no. " * 90_000, "\\boxed{" * 120_000, "one " * 220_000]
)
def test_a_huge_reasoning_is_worked_through(text):
    trace = replace(TRACE, reasoning=text + "So 540.")
    row = pruned_row(Proposal([Step(0, len(trace.reasoning), "all", KEEP)]), trace=trace)
    assert row.accepted == (row.reason == "")


def test_funnel():
    funnel = Funnel()
    for row in (
        pruned_row(Proposal(GOOD)),
        pruned_row(Proposal(GOOD, "cut: no equations")),
        pruned_row(Proposal(broken("answer lost")[0]), Proposal(GOOD, "cut: slice failed")),
        pruned_row(Proposal(broken("gap")[0])),
        pruned_row(trace=replace(TRACE, response="It is 7.")),
    ):
        funnel.add(row)
    assert funnel.to_rows() == [
        ("traces read", 5, 1.0),
        ("traces whole and right", 4, 0.8),
        ("accepted", 3, 0.6),
        ("accepted as first proposed", 1, 0.2),
        ("accepted by fall-back: cut", 2, 0.4),
        (f"rejected: {Reason.TILING}", 1, 0.2),
        (f"rejected: {Reason.WRONG}", 1, 0.2),
    ]
    assert Funnel().to_rows()[0] == ("traces read", 0, 0.0)


class EveryThird(Teacher):
    """Keeps every third unit and the last ones; milder ones keep more."""

    name = "every-third"

    def propose(self, trace: Trace, units: list[Unit]) -> Iterator[Proposal]:
        for last, note in ((2, ""), (5, "five"), (len(units), "all")):
            keep = [i % 3 == 0 or i >= len(units) - last for i in range(len(units))]
            yield Proposal(
                [Step(u.start, u.end, "s", KEEP if k else DELETE) for u, k in zip(units, keep, strict=True)], note
            )


@pytest.mark.parametrize("name", ["gsm8k_test__deepseek-r1", "math_train__r1-distill-qwen-1.5b"])
def test_real_traces_keep_every_promise(shared_data, name):
    funnel = Funnel()
    for line in (shared_data / "traces" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[::4]:
        source = json.loads(line)
        trace = Trace(*(source[key] for key in ("question", "answer", "reasoning", "response", "model")))
        row = prune_trace(trace, EveryThird(), lambda text: len(text) // 4)
        assert audit_row(row.to_dict()) == [], row.question
        funnel.add(row)
    assert funnel.accepted >= 0.97 * funnel.right > 0
