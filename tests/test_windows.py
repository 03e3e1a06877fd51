"""Long reasonings are cut into windows that fit, overlap, and come to an end."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.audit import audit_row
from drp_hf.pruning import FALLBACK, judge, prune
from drp_hf.records import Action, Step, Trace
from drp_hf.segment import segment
from drp_hf.teacher import Reply
from drp_hf.teachers.imitation import imitate
from drp_hf.teachers.language_model import PROTOCOLS, LanguageModelTeacher
from drp_hf.teachers.slicing import SlicingTeacher
from drp_hf.teachers.windows import OVERLAP, SUMMARY_VALUES, Window, numbered, one_line, open_window

KEEP, DELETE, MERGE = Action.KEEP, Action.DELETE, Action.MERGE
TRACE = Trace("What is 2 + 3?", "5", "So 2 + 3 = 5.", "It is 5.")


def octets(text: str) -> int:
    """As many tokens as a tokenizer can make."""
    return len(text.encode())


def words(text: str) -> int:
    return len(text.split())


def size(window: Window, count_tokens) -> int:
    return sum(count_tokens(f"{line}\n") for line in numbered(window.units))


PIECES = st.sampled_from(
    [
        *(
            "So 3 + 4 = 7. ",
            "Let me see. ",
            "Hm! ",
            "é🙂。",
            "- an item\n",
            "\n\n",
            "A rather long sentence, " * 8 + "ends. ",
        ),
        *(
            "```\n1\n2\n\n3\n```\n",
            "| a | b |\n|---|---|\n",
            "\\[ x = y \\]\n",
            "\u2028",
            "```\n" + "x\n" * 40 + "```\n",
        ),
    ]
)
reasonings = st.lists(PIECES, min_size=1, max_size=80).map("".join).map(str.strip).filter(bool)


# ------------------------------------------------------------------------------------------------------- one window


@settings(deadline=None)
@given(st.data(), reasonings, st.integers(1, 600), st.sampled_from([octets, words]))
def test_windows_tile_and_fit_and_come_to_an_end(data, reasoning, budget, count_tokens):
    trace = replace(TRACE, reasoning=reasoning)
    units = segment(reasoning)
    steps: list[Step] = []
    windows = 0
    while not steps or steps[-1].end < len(reasoning):
        start = steps[-1].end if steps else 0
        window = open_window(trace, units, start, budget, count_tokens)
        windows += 1
        assert window.start == start and window.final == (window.end == len(reasoning))
        assert "".join(unit.text for unit in window.units) == reasoning[start : window.end]
        assert all(reasoning[unit.start : unit.end] == unit.text for unit in window.units)
        assert len(window.units) == 1 or size(window, count_tokens) <= budget
        if not window.final:  # another unit would not have fitted, or at least may not have
            further = next(unit for unit in units if unit.end > window.end)
            assert size(replace(window, units=[*window.units, further]), count_tokens) > budget
        found = data.draw(tilings(window))
        settled = window.settled(found)
        assert settled and settled == found[: len(settled)]
        if window.final:
            assert settled == found
        else:
            undecided = max(1, int(OVERLAP * len(window.units)))
            border = window.units[-undecided].start
            assert len(settled) == 1 or settled[-1].end <= border
            assert len(settled) == len(found) or found[len(settled)].end > border
        assert settled[-1].end > start
        steps += settled
    assert windows <= len(reasoning)
    assert [step.start for step in steps] == [0, *(step.end for step in steps[:-1])]


@st.composite
def tilings(draw, window: Window) -> list[Step]:
    """Steps that tile a window and end anywhere in it."""
    cuts = draw(st.lists(st.integers(window.start, window.end), max_size=6))
    edges = sorted({window.start, window.end, *cuts})
    return [Step(*edge, "s", draw(st.sampled_from([KEEP, DELETE]))) for edge in zip(edges, edges[1:], strict=False)]


def test_a_single_huge_unit_is_a_window_and_its_middle_is_not_shown():
    huge = "x" * 100_000 + "y" * 100_000
    trace = replace(TRACE, reasoning=f"{huge}. So it is 5.")
    units = segment(trace.reasoning)
    window = open_window(trace, units, 0, 100, words)
    assert window.final  # its line is short
    window = open_window(trace, units, 0, 100, octets)
    assert len(window.units) == 1 and not window.final
    (line,) = numbered(window.units)
    assert re.fullmatch(r"\[1\] x{1500} \[…\] y{499}\.", line)
    assert window.settled([Step(0, window.end, "s", KEEP)]) == [Step(0, window.end, "s", KEEP)]
    assert open_window(trace, units, window.end, 100, octets).final


def test_a_window_begins_where_a_step_ends_within_a_unit():
    trace = replace(TRACE, reasoning="First one. Second, which is longer. Third, So it is 5.")
    units = segment(trace.reasoning)
    middle = trace.reasoning.index("which")
    window = open_window(trace, units, middle, 1000, words)
    assert [unit.text for unit in window.units] == ["which is longer. ", *(unit.text for unit in units[2:])]
    assert window.start == middle and window.final
    edge = open_window(trace, units, units[1].start, 1000, words)
    assert edge.units == units[1:]


def test_the_overlap_is_decided_again():
    trace = replace(TRACE, reasoning="One is it. " * 100)
    units = segment(trace.reasoning)
    window = Window(trace, units[:40], [], final=False)
    border = units[40 - 6].start  # 15 % of 40 units
    each = [Step(unit.start, unit.end, "s", KEEP) for unit in window.units]
    assert window.settled(each)[-1].end == border
    pairs = [Step(a.start, b.end, "s", KEEP) for a, b in zip(units[:40:2], units[1:40:2], strict=True)]
    assert window.settled(pairs)[-1].end == border
    over = [Step(0, units[32].end, "s", KEEP), Step(units[32].end, window.end, "s", DELETE)]
    assert window.settled(over) == over[:1]
    late = [Step(0, units[38].end, "s", KEEP), Step(units[38].end, window.end, "s", DELETE)]
    assert window.settled(late) == late[:1]  # at least one, or there would be no end
    assert replace(window, final=True).settled(each) == each


@given(st.text())
def test_one_line_is_one_line(text):
    assert len(one_line(text).splitlines()) <= 1 and "\n" not in one_line(text)
    assert one_line(text) == one_line(text).strip()


# --------------------------------------------------------------------------------------------------------- summary


def test_the_summary_names_what_was_established_before():
    sentences = [f"So {n} + {n} = {2 * n}. " for n in range(1, 31)]
    trace = replace(
        TRACE, reasoning="".join(sentences) + "Again, 15 + 45 = 60, which is it. Then what? 7 + 8 = 16? No."
    )
    units = segment(trace.reasoning)
    assert open_window(trace, units, 0, 10**6, words).summary == []
    assert open_window(trace, units, units[2].start, 10**6, words).summary == ["2: So 1 + 1 = 2.", "4: So 2 + 2 = 4."]
    summary = open_window(trace, units, units[-2].start, 10**6, words).summary
    assert len(summary) == SUMMARY_VALUES and summary[-2:] == [
        "58: So 29 + 29 = 58.",
        "60: Again, 15 + 45 = 60, which is it.",
    ]
    assert not any(line.startswith("16:") for line in open_window(trace, units, units[-1].start, 10**6, words).summary)


def test_a_summary_line_is_one_short_line():
    trace = replace(TRACE, reasoning=f"So 1 + 1\n[9] = 2, {'and so on ' * 50}. Next. Last.")
    summary = open_window(trace, segment(trace.reasoning), len(trace.reasoning) - 5, 10**6, words).summary
    assert all(len(line.splitlines()) == 1 and len(line) < 140 for line in summary)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_the_final_window_is_told_the_answer(protocol):
    trace = replace(TRACE, answer="777", reasoning="So 1 + 1 = 2. " + "Let me see that again. " * 40 + "It is seven.")
    units = segment(trace.reasoning)
    contents = []
    start = 0
    while start < len(trace.reasoning):
        window = open_window(trace, units, start, 100, words)
        request = next(PROTOCOLS[protocol]("default", "skill", 100, 0.0).steps(window))
        assert "777" not in request.messages[0]["content"]
        contents.append(request.messages[1]["content"])
        start = window.end
    assert len(contents) > 2
    *others, last = contents
    assert "Final answer: 777\n" in last and "goes on after these units" not in last
    assert all("777" not in content and "goes on after these units" in content for content in others)
    established = "Established before these units:\n- 2: So 1 + 1 = 2.\n"
    assert [established in content for content in contents] == [False] + [True] * (len(contents) - 1)


# --------------------------------------------------------------------------------------------- whole conversations


@pytest.fixture(scope="module")
def long_traces(shared_data) -> list[Trace]:
    path = shared_data / "traces" / "math_train__r1-distill-qwen-1.5b.jsonl"
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    traces = [Trace(*(row[key].strip() for key in ("question", "answer", "reasoning", "response"))) for row in rows]
    traces = [trace for trace in traces if len(trace.reasoning) > 6000 and not judge(trace)]
    assert len(traces) >= 8
    return sorted(traces, key=lambda trace: len(trace.reasoning))[-40::5]


def small(protocol: str, count_tokens=words, **settings) -> LanguageModelTeacher:
    context = {"compact": 1500 + 600 + 350, "paper": 1500 + 3 * 500 + 350}[protocol]
    tokens = {"compact": 300, "paper": 500}[protocol]
    return LanguageModelTeacher("m", count_tokens, protocol, max_tokens=tokens, context=context, **settings)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_imitation_of_long_traces(long_traces, protocol):
    for trace in long_traces:
        teacher = small(protocol)
        calls = list(imitate(teacher, trace))
        assert len(calls) >= 4
        for request, _ in calls:
            content = request.messages[1]["content"]
            if content.count("\n[") and "Reasoning:\n" in content:
                assert words(content.rpartition("Reasoning:\n")[2]) <= teacher.window_tokens
        seen = "".join(request.messages[1]["content"] for request, _ in calls)
        assert seen.count("Final answer: ") == (1 if protocol == "compact" else 2)
        assert all(json.loads(reply) for _, reply in calls)


def scripted(request, action: str) -> str:
    """Three units a step in the compact protocol; a step for each sentence, in the paper's."""
    content = request.messages[1]["content"]
    if "\n\nReasoning:\n" in content:
        count = len(content.rpartition("\n\nReasoning:\n")[2].split("\n"))
        starts = range(1, count + 1, 3)
        return json.dumps({"steps": [f"{first}-{min(first + 2, count)} {action[0]} planning" for first in starts]})
    if "as a JSON string: " in content:
        original = json.loads(content.rpartition("as a JSON string: ")[2])
        texts = [original[at : at + 70] for at in range(0, len(original), 70)]  # in the middle of a unit, mostly
        return json.dumps({"steps": [{"skill": "planning", "text": text} for text in texts if text.strip()]})
    lines = content.rpartition("\n\nSteps:\n")[2].split("\n")
    final = "\nFinal answer: " in content
    told = [str(number) for number in range(1, len(lines) + 1)] if action == "KEEP" else []
    told = told or ([str(len(lines))] if final else [])
    actions = ["KEEP" if str(number) in told else "DELETE" for number in range(1, len(lines) + 1)]
    return json.dumps({"actions": actions, "passages": [{"steps": n, "text": "PLACEHOLDER"} for n in told]})


def hold(trace: Trace, teacher: LanguageModelTeacher, answer) -> tuple:
    """The row of a conversation, and its requests."""
    conversation = prune(trace, teacher, words)
    requests = [next(conversation)]
    while True:
        try:
            requests.append(conversation.send(Reply(answer(requests[-1]), "stop", 0, 0)))
        except StopIteration as done:
            return done.value, requests
        assert len(requests) < 1000


def test_long_traces_window_by_window(long_traces):
    for trace in long_traces:
        row, requests = hold(trace, small("compact"), lambda request: scripted(request, "KEEP"))
        assert row.accepted and row.reason == "" and len(requests) >= 4
        assert row.pruned_reasoning == trace.reasoning
        assert audit_row(row.to_dict()) == []
        ends = {unit.end for unit in segment(trace.reasoning)}
        assert {step.end for step in row.steps} <= ends


def test_steps_that_end_within_units_tile_too(long_traces):
    """The paper's first call may cut anywhere: what follows goes on from there."""
    within = 0
    for trace in long_traces:
        teacher = small("paper")
        units = segment(trace.reasoning)
        steps: list[Step] = []
        while not steps or steps[-1].end < len(trace.reasoning):
            start = steps[-1].end if steps else 0
            window = open_window(trace, units, start, teacher.window_tokens, words)
            conversation = teacher.protocol.steps(window)
            request = next(conversation)
            request = conversation.send(Reply(scripted(request, "DELETE"), "stop", 0, 0))
            reply = scripted(request, "DELETE").replace("PLACEHOLDER", "So that is it.")
            with pytest.raises(StopIteration) as done:
                # The last step is told in other words: it is not to be kept as it is.
                conversation.send(Reply(reply.replace('"KEEP"', '"COMPRESS"'), "stop", 0, 0))
            settled = window.settled(done.value.value[0])
            within += settled[-1].end not in {unit.end for unit in units}
            steps += settled
        assert [step.start for step in steps] == [0, *(step.end for step in steps[:-1])]
        assert [step.action for step in steps if step.action is not DELETE] == [Action.COMPRESS]
    assert within >= 10


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_window_that_cannot_be_used_ends_the_conversation(long_traces, protocol):
    trace = long_traces[0]
    row, requests = hold(trace, small(protocol, fallback=SlicingTeacher()), lambda request: "no")
    assert len(requests) == 2 and row.reason.startswith(f"{FALLBACK}: slicing-default")
    row, requests = hold(trace, small(protocol), lambda request: "no")
    assert not row.accepted and len(requests) == 2

    def once(request) -> str:
        return (
            "no" if len(request.messages) > 2 or "Established" in str(request.messages) else scripted(request, "KEEP")
        )

    row, requests = hold(trace, small("compact"), once)
    assert not row.accepted and "not JSON" in row.reason and row.steps == []


def test_a_failed_check_sends_the_last_window_back(long_traces):
    trace = long_traces[0]

    def forgetful(request) -> str:
        return scripted(request, "DELETE" if len(request.messages) == 2 else "KEEP")

    row, requests = hold(trace, small("compact"), forgetful)
    assert row.accepted and row.reason.startswith(f"{FALLBACK}: corrected after a failed check")
    assert 0 < len(row.pruned_reasoning) < len(trace.reasoning) and trace.reasoning.endswith(row.pruned_reasoning)
    assert "Final answer: " in requests[-1].messages[1]["content"]
    assert [len(request.messages) for request in requests] == [2] * (len(requests) - 1) + [4]
