"""Of several prunings of a trace, the one that the student should learn."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import drp_hf.likelihood
from drp_hf.candidates import STRENGTHS, choose, scored_texts, strengths, temperatures
from drp_hf.commands.prune import SCORES, STORE, PruneConfig, main, make_teachers
from drp_hf.errors import DRPError
from drp_hf.pruning import FALLBACK, Funnel, Reason
from drp_hf.records import Candidate, CorpusRow
from drp_hf.store import RowStore

TRACES = Path(__file__).parents[1] / "recipes" / "quickstart" / "sample_traces.jsonl"


def row(name: str, tokens: int, accepted: bool = True, reason: str = "") -> CorpusRow:
    made = CorpusRow("2 + 3?", "5", "So 2 + 3 = 5.", "It is 5.", "m", teacher=name, tokens_before=100)
    if not accepted:
        return replace(made, reason=reason or Reason.ANSWER_LOST)
    return replace(made, accepted=True, completion=f"text of {name}", tokens_after=tokens, reason=reason)


LONG, MIDDLE, SHORT = row("long", 50), row("middle", 30), row("short", 10)
LOST = row("lost", 5, accepted=False)
ORIGINAL = LONG.trace.output


def scores(original: float, **rest: float) -> dict[str, float]:
    return {ORIGINAL: original} | {f"text of {name}": nll for name, nll in rest.items()}


def chosen(row: CorpusRow) -> tuple[str, str]:
    return row.teacher, row.reason


# ---------------------------------------------------------------------------------------------------------- choice


def test_what_varies():
    assert [strengths(1, strength) for strength in STRENGTHS] == [["light"], ["default"], ["hard"]]
    assert strengths(2, "light") == ["default", "hard"] and strengths(3, "hard") == ["light", "default", "hard"]
    assert temperatures(1, 0.3) == [0.3]
    assert temperatures(2, 0.0) == [0.0, 1.0] and temperatures(3, 0.5) == [0.5, 0.75, 1.0]
    assert temperatures(4, 0.0) == [0.0, 0.333, 0.667, 1.0]


@pytest.mark.parametrize(
    ("settings", "traits"),
    [
        ({}, ["default"]),
        ({"candidates": 3}, ["light", "default", "hard"]),
        ({"candidates": 3, "vary": "temperature"}, ["default", "temperature 0.5", "temperature 1"]),
    ],
)
def test_each_candidate_has_a_teacher_of_its_own(settings, traits):
    config = PruneConfig("traces", "corpus", teacher="chat", model="m", **settings)
    teachers = make_teachers(config, len)
    assert len({teacher.name for teacher in teachers}) == len(teachers) == len(traits)
    assert all(trait in teacher.name for trait, teacher in zip(traits, teachers, strict=True))


def test_a_single_pruning_is_left_as_it_is():
    assert choose([LONG]) is LONG and choose([LOST]) is LOST


def test_the_shortest_accepted_one():
    taken = choose([LONG, LOST, SHORT, MIDDLE])
    assert chosen(taken) == ("short", "") and taken.nll_before is None
    assert taken.candidates == [
        Candidate("long", True, 50, None),
        Candidate("lost", False, 0, None),
        Candidate("short", True, 10, None),
        Candidate("middle", True, 30, None),
    ]
    assert replace(taken, candidates=[]) == SHORT
    assert choose([MIDDLE, replace(SHORT, tokens_after=30)]).teacher == "middle"  # the first of equals


@pytest.mark.parametrize(
    ("likelihoods", "margin", "teacher"),
    [
        (scores(1.0, long=0.5, middle=0.9, short=1.2), 0.25, "short"),
        (scores(1.0, long=0.5, middle=0.9, short=1.2), 0.1, "middle"),
        (scores(1.0, long=0.5, middle=1.1, short=1.2), 0.0, "long"),
        (scores(1.0, long=1.0, middle=1.1, short=1.2), 0.0, "long"),  # equal is near enough
        (scores(1.0, long=0.5, middle=0.9, short=math.inf), 0.1, "middle"),
        (scores(math.inf, long=0.5, middle=0.9, short=9.0), 0.0, "short"),
        (scores(math.inf, long=0.5, middle=0.9, short=math.inf), 0.0, "short"),
    ],
)
def test_the_shortest_that_the_student_finds_likely(likelihoods, margin, teacher):
    taken = choose([SHORT, LONG, MIDDLE], likelihoods, margin)
    assert chosen(taken) == (teacher, "") and taken.nll_before == likelihoods[ORIGINAL]
    assert [each.nll for each in taken.candidates] == [
        likelihoods[f"text of {n}"] for n in ("short", "long", "middle")
    ]


def test_none_is_likely_enough():
    taken = choose([SHORT, MIDDLE, LONG], scores(1.0, short=2.0, middle=1.5, long=1.6), 0.1)
    assert chosen(taken) == ("middle", f"{FALLBACK}: no candidate within 0.1 nats of the original")
    reason = f"{FALLBACK}: cut only (before it: {Reason.LONGER})"
    taken = choose([SHORT, replace(MIDDLE, reason=reason)], scores(1.0, short=2.0, middle=1.5), 0.1)
    assert chosen(taken) == ("middle", f"{reason}; no candidate within 0.1 nats of the original")
    funnel = Funnel()
    funnel.add(taken)
    assert ("accepted by fall-back: cut only", 1, 1.0) in funnel.to_rows()
    assert choose([LONG, SHORT], scores(1.0, short=math.inf, long=math.inf)).teacher == "short"


def test_a_single_one_is_scored_too():
    assert chosen(choose([LONG], scores(1.0, long=1.05), 0.1)) == ("long", "")
    assert choose([LONG], scores(1.0, long=2.0), 0.1).reason.startswith(FALLBACK)
    assert choose([LONG], scores(1.0, long=2.0), 0.1).candidates == [Candidate("long", True, 50, 2.0)]


def test_none_is_accepted():
    other = row("other", 1, accepted=False, reason=Reason.LONGER)
    for likelihoods in (None, {}):
        taken = choose([LOST, other], likelihoods)
        assert chosen(taken) == ("lost", Reason.ANSWER_LOST) and not taken.accepted and taken.nll_before is None
        assert [each.teacher for each in taken.candidates] == ["lost", "other"]
    assert list(scored_texts([LOST, other])) == []


def test_what_is_rejected_needs_no_score():
    assert list(scored_texts([LOST, SHORT, LONG])) == [ORIGINAL, "text of short", "text of long"]
    taken = choose([LOST, SHORT, LONG], scores(1.0, short=5.0, long=1.0))
    assert taken.teacher == "long" and [each.nll for each in taken.candidates] == [None, 5.0, 1.0]


nats = st.one_of(st.floats(0, 10), st.just(math.inf))


@given(st.lists(st.tuples(st.integers(1, 99), st.booleans(), nats), min_size=1, max_size=6), nats, st.floats(0, 2))
def test_any_candidates(drawn, before, margin):
    rows = [row(f"t{place}", tokens, accepted) for place, (tokens, accepted, _) in enumerate(drawn)]
    likelihoods = scores(before, **{f"t{place}": nll for place, (_, _, nll) in enumerate(drawn)})
    taken = choose(rows, {text: likelihoods[text] for text in scored_texts(rows)}, margin)
    accepted = [(tokens, nll) for tokens, good, nll in drawn if good]
    assert taken.accepted == bool(accepted) and len(taken.candidates) == len(rows)
    assert CorpusRow.from_dict(taken.to_dict()) == taken
    if accepted:
        near = [tokens for tokens, nll in accepted if nll <= before + margin]
        nll = likelihoods[taken.completion]
        assert (taken.tokens_after == min(near)) if near else (nll == min(nll for _, nll in accepted))
        assert bool(taken.reason) == (not near)


# ------------------------------------------------------------------------------------------------------- end to end


@pytest.fixture
def scored(monkeypatch) -> list[int]:
    """How many texts are scored at a time while the test runs; the first layers of the real model do it."""
    calls = []
    real = drp_hf.likelihood.Likelihood.score
    load = drp_hf.likelihood.load_model_and_tokenizer

    def shortened(*args, **kwargs):
        model, tokenizer = load(*args, **kwargs)
        model.model.layers = model.model.layers[:2]
        return model, tokenizer

    monkeypatch.setattr(drp_hf.likelihood, "load_model_and_tokenizer", shortened)

    def counting(self, pairs):
        calls.append(len(pairs))
        return real(self, pairs)

    monkeypatch.setattr(drp_hf.likelihood.Likelihood, "score", counting)
    return calls


def raw(folder: Path) -> list[dict]:
    return pq.read_table(folder / "raw" / "train.parquet").to_pylist()


def test_student_nll_end_to_end(tmp_path, scored, monkeypatch):
    out = tmp_path / "corpus"
    settings = {"candidates": 3, "select": "student-nll", "student": "smollm2-embedded"}
    config = PruneConfig(str(TRACES), str(out), **settings)
    main(config)
    rows = raw(out)
    assert len(rows) == 12 and all(len(row["candidates"]) == 3 for row in rows)
    names = ["slicing-light", "slicing-default", "slicing-hard"]
    assert all([each["teacher"] for each in row["candidates"]] == names for row in rows)
    accepted = [row for row in rows if row["accepted"]]
    assert len(accepted) >= 10
    for row in rows:
        for each in row["candidates"]:
            assert each["accepted"] == (each["nll"] is not None) == bool(each["tokens_after"])
        if row["accepted"]:
            assert 0 < row["nll_before"] < math.inf
            mine = {each["teacher"]: each for each in row["candidates"]}[row["teacher"]]
            assert mine["accepted"] and mine["tokens_after"] == row["tokens_after"]
            near = [e for e in row["candidates"] if e["accepted"] and e["nll"] <= row["nll_before"] + 0.1]
            if near:
                assert mine["tokens_after"] == min(each["tokens_after"] for each in near) and mine in near
            else:
                assert "no candidate within 0.1 nats of the original" in row["reason"]
        else:
            assert row["nll_before"] is None

    with RowStore(out / SCORES) as store:
        texts = sum(scored)
        assert len(store) == texts >= 2 * len(accepted)
    card = (out / "README.md").read_text(encoding="utf-8")
    (teachers,) = (line for line in card.splitlines() if line.startswith("| teacher (decided the steps) |"))
    assert all(teacher in teachers for teacher in {row["teacher"] for row in rows})
    assert "--candidates 3 --select student-nll --student smollm2-embedded" in card

    # Once more: nothing is scored, and no model is loaded for it.
    monkeypatch.setattr(drp_hf.likelihood, "Likelihood", None)
    files = {path: path.read_bytes() for path in out.glob("*/*.parquet")}
    main(config)
    assert {path: path.read_bytes() for path in out.glob("*/*.parquet")} == files and sum(scored) == texts

    # Another margin chooses anew, from the same scores.
    main(replace(config, nll_margin=100.0))
    for before, after in zip(rows, raw(out), strict=True):
        assert after["candidates"] == before["candidates"] and after["nll_before"] == before["nll_before"]
        if after["accepted"]:
            lengths = [each["tokens_after"] for each in after["candidates"] if each["accepted"]]
            assert after["tokens_after"] == min(lengths) and "nats" not in after["reason"]
    main(replace(config, nll_margin=-100.0))
    for row in raw(out):
        if row["accepted"]:
            nll = {each["teacher"]: each["nll"] for each in row["candidates"]}
            assert nll[row["teacher"]] == min(value for value in nll.values() if value is not None)
            assert row["reason"].startswith(FALLBACK) and row["reason"].endswith("within -100 nats of the original")
    assert sum(scored) == texts


class Lengths:
    """Stands for a student: finds the shorter texts the less likely."""

    def __init__(self, student: str) -> None:
        assert student == "smollm2-embedded"

    def score(self, pairs):
        order = sorted(range(len(pairs)), key=lambda place: -len(pairs[place][1]))
        yield from ((place, 1000 / len(pairs[place][1])) for place in order)


def test_scoring_goes_on_where_it_stopped(tmp_path, monkeypatch):
    out = tmp_path / "corpus"
    config = PruneConfig(str(TRACES), str(out), candidates=3, select="student-nll", student="smollm2-embedded")
    asked = []

    class Stopping(Lengths):
        left = 7

        def score(self, pairs):
            for each in super().score(pairs):
                if Stopping.left == 0:
                    raise KeyboardInterrupt
                Stopping.left -= 1
                asked.append(pairs[each[0]])
                yield each

    monkeypatch.setattr(drp_hf.likelihood, "Likelihood", Stopping)
    monkeypatch.setattr("drp_hf.corpus.prunings.SCORED_AT_ONCE", 5)
    with pytest.raises(KeyboardInterrupt):
        main(config)
    assert not (out / "raw").exists()
    with RowStore(out / SCORES) as store, RowStore(out / STORE) as prunings:
        assert len(store) == 7 and len(prunings) == 36
    Stopping.left = 10**6
    main(config)
    assert len(asked) == len(set(asked)) > 24
    assert sum(row["accepted"] for row in raw(out)) >= 10


def test_scores_that_overflow(tmp_path, monkeypatch):
    class Overflowing(Lengths):
        def score(self, pairs):
            yield from ((place, math.inf) for place in range(len(pairs)))

    monkeypatch.setattr(drp_hf.likelihood, "Likelihood", Overflowing)
    config = PruneConfig(
        str(TRACES), str(tmp_path / "c"), candidates=2, select="student-nll", student="smollm2-embedded"
    )
    main(config)
    main(config)
    rows = [row for row in raw(tmp_path / "c") if row["accepted"]]
    assert rows and all(row["nll_before"] == math.inf and "nats" not in row["reason"] for row in rows)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": 4}, "there can be 1 to 3"),
        ({"candidates": 0}, "there can be 1 to 3"),
        ({"candidates": 2, "vary": "temperature"}, "vary in temperature only with a language model"),
        ({"select": "student-nll"}, "go together"),
        ({"student": "smollm2-embedded"}, "go together"),
    ],
)
def test_settings_that_do_not_go_together(tmp_path, settings, message):
    with pytest.raises(DRPError, match=message):
        main(PruneConfig(str(TRACES), str(tmp_path / "corpus"), **settings))
    assert not (tmp_path / "corpus").exists()


def test_traces_that_no_candidate_prunes_are_not_scored(tmp_path, monkeypatch):
    wrong = [json.loads(line) | {"answer": "123456"} for line in TRACES.read_text(encoding="utf-8").splitlines()[:2]]
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in wrong), encoding="utf-8")
    monkeypatch.setattr(drp_hf.likelihood, "Likelihood", None)
    config = PruneConfig(
        str(path), str(tmp_path / "c"), candidates=2, select="student-nll", student="smollm2-embedded"
    )
    with pytest.raises(DRPError, match="no trace of .* was accepted"):
        main(config)
    assert all(len(row["candidates"]) == 2 and not row["accepted"] for row in raw(tmp_path / "c"))
