import doctest
from math import exp, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

import drp_hf.composites
import drp_hf.statistics
from drp_hf.composites import e3
from drp_hf.errors import DRPError
from drp_hf.figures import ScoreTable, budget_auc, budget_curve, budget_keeping, figures
from drp_hf.scoring import SampleScore


def score(correct=True, n_tokens=100, **fields) -> SampleScore:
    usual = {
        "extracted": "7",
        "think_tokens": n_tokens // 2,
        "finished": True,
        "answer_at": n_tokens if correct else None,
        "first_correct": n_tokens // 2 if correct else None,
        "new_tokens": n_tokens,
        "reflections": 0,
    }
    return SampleScore(correct=correct, n_tokens=n_tokens, **(usual | fields))


# Question 0: two samples; question 1: two; question 2: one.
QUESTIONS = [0, 0, 1, 1, 2]
SCORES = [
    score(True, 100, think_tokens=60, answer_at=80, first_correct=30, new_tokens=50, reflections=2),
    score(False, 200, think_tokens=150, first_correct=40, new_tokens=120, reflections=5),
    score(True, 50, think_tokens=20, answer_at=50, first_correct=50, new_tokens=50),
    score(True, 150, think_tokens=100, answer_at=120, first_correct=60, new_tokens=90, reflections=1),
    score(False, 400, think_tokens=400, finished=False, extracted=None, new_tokens=0, reflections=8),
]
BASELINE = [score(True, 300), score(True, 200), score(False, 400)]


@pytest.fixture
def table() -> ScoreTable:
    return ScoreTable.of(QUESTIONS, iter(SCORES))


@pytest.fixture
def baseline() -> ScoreTable:
    return ScoreTable.of([0, 1, 2], BASELINE)


def test_a_table_holds_what_was_scored(table):
    assert table.n_questions == 3
    assert table.n_samples.tolist() == [2, 2, 1]
    assert table.question.tolist() == QUESTIONS
    assert table.correct.tolist() == [1, 0, 1, 1, 0]
    assert table.answer_at.tolist() == [80, np.inf, 50, 120, np.inf]
    assert np.array_equal(table.first_correct, [30, 40, 50, 60, np.nan], equal_nan=True)
    assert table.answered.tolist() == [1, 1, 1, 1, 0]
    unknown = ScoreTable.of([0], [score(finished=None)])
    assert np.isnan(unknown.finished).all()


def test_plain_figures_by_hand(table):
    found = figures(table)
    assert (found["n_questions"], found["n_samples"]) == (3, 5)
    expected = {
        "accuracy": (1 / 2 + 1 + 0) / 3,
        "mean_tokens": (150 + 100 + 400) / 3,
        "median_tokens": 150,
        # Five values: the tenth percentile lies 0.4 places from the first, the 90th 3.6, the 99th 3.96.
        "p10_tokens": 50 + 0.4 * 50,
        "p90_tokens": 200 + 0.6 * 200,
        "p99_tokens": 200 + 0.96 * 200,
        "total_tokens": 900,
        "mean_think_tokens": ((60 + 150) / 2 + (20 + 100) / 2 + 400) / 3,
        "mean_answer_tokens": ((40 + 50) / 2 + (30 + 50) / 2 + 0) / 3,
        "mean_tokens_correct": (100 + 50 + 150) / 3,
        "mean_tokens_wrong": (200 + 400) / 2,
        "tokens_per_correct": (650 / 3) / (1 / 2),
        "share_truncated": 1 / 5,
        "share_without_answer": (0 + 0 + 1) / 3,
        "budget_limit": 400,
        "budget_auc": ((1 - 80 / 400) / 2 + ((1 - 50 / 400) + (1 - 120 / 400)) / 2) / 3,
        "budget_keeping": 120,
        "accuracy_per_token": (1 / 2) / (650 / 3),
        "outcome_efficiency": ((30 / 100 + 40 / 200) / 2 + (1 + 60 / 150) / 2 + 0) / 3,
        "process_efficiency": ((50 / 100 + 120 / 200) / 2 + (1 + 90 / 150) / 2 + 0) / 3,
        "underthinking": ((1 - 40 / 200) + 0) / 2,
        "reflection_rate": 1000 * ((2 + 5) / 2 + (0 + 1) / 2 + 8) / 3 / (650 / 3),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name
    assert found["acu"] is None and found["e3"] is None
    assert found["hca"] == found["sca"] == found["cca"] == {}
    assert "token_reduction" not in found


def test_pass_at_k_by_hand():
    correct = [True, False, False, True, True, True, True, False]
    table = ScoreTable.of([0] * 4 + [1] * 4, [score(right) for right in correct])
    found = figures(table)["pass_at_k"]
    # Two of four right, and three of four: 1 - C(2, 2) / C(4, 2), and 1.
    assert found == pytest.approx({"1": (2 / 4 + 3 / 4) / 2, "2": (5 / 6 + 1) / 2, "4": 1}, abs=1e-9)


def test_pass_at_k_goes_to_the_smallest_number_of_samples():
    table = ScoreTable.of([0, 0, 0, 1, 1, 1, 1], [score(i < 1) for i in range(3)] + [score(i < 2) for i in range(4)])
    found = figures(table)["pass_at_k"]
    assert found == pytest.approx({"1": (1 / 3 + 1 / 2) / 2, "2": (2 / 3 + 5 / 6) / 2, "3": 1}, abs=1e-9)


def test_comparison_by_hand(table, baseline):
    found = figures(table, baseline)
    accuracy, tokens, accuracy0, tokens0 = 1 / 2, 650 / 3, 2 / 3, 300
    odds = (accuracy / (1 - accuracy)) / (accuracy0 / (1 - accuracy0))
    expected = {
        "baseline_accuracy": accuracy0,
        "baseline_mean_tokens": tokens0,
        "token_reduction": 1 - tokens / tokens0,
        "mean_token_reduction": ((1 - 150 / 300) + (1 - 100 / 200) + (1 - 400 / 400)) / 3,
        "delta_accuracy": accuracy - accuracy0,
        "questions_gained": 0,
        "questions_lost": 1,
        "mcnemar_p": 1,
        "aes": (tokens0 - tokens) / tokens0 - 5 * (accuracy0 - accuracy) / accuracy0,
        "e3": 1 / (accuracy0 / odds + (1 - accuracy0) / (tokens0 / tokens)),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


def test_budgets_by_hand(table):
    found = figures(table, budgets=[100, 130], sca={"alpha": 20.0}, cca={"beta": 50.0})
    assert found["hca"] == pytest.approx({"100": (1 / 2 + 1 / 2) / 3, "130": (1 / 2 + 1 / 2) / 3}, abs=1e-9)
    soft = {"100": (1 / 2 + (1 + exp(-50 / 20)) / 2) / 3, "130": (1 / 2 + (1 + exp(-20 / 20)) / 2) / 3}
    assert found["sca"] == pytest.approx(soft, abs=1e-9)
    # Lengths 100, 200, 50, 150, 400 with mean 180.
    deviation = sqrt((80**2 + 20**2 + 130**2 + 30**2 + 220**2) / 5)
    hard = {"100": (1 / 2 + (1 + exp(-50 / 10)) / 2) / 3, "130": (1 / 2 + (1 + exp(-20 / 10)) / 2) / 3}
    consistent = {k: share * exp((50 - deviation) / 50) for k, share in hard.items()}
    assert found["cca"] == pytest.approx(consistent, abs=1e-9)
    assert found["constants"]["sca"] == {"alpha": 20}
    assert found["constants"]["cca"] == {"alpha": 10, "beta": 50}


def test_acu_by_hand(table):
    found = figures(table, n_parameters=7_000_000_000)
    assert found["acu"] == pytest.approx((1 / 2) / (7 * 650 / 3), abs=1e-12)
    assert found["constants"]["acu"] == {"n_parameters": 7_000_000_000, "parameters_unit": 1e9}


def test_budget_curve_by_hand(table):
    budgets, accuracy = budget_curve(table, 400)
    assert budgets.tolist() == [0, 50, 80, 120, 400]
    assert accuracy == pytest.approx([0, 1 / 6, 1 / 6 + 1 / 6, 1 / 2, 1 / 2], abs=1e-9)
    budgets, accuracy = budget_curve(table, 100)
    assert budgets.tolist() == [0, 50, 80, 100]
    assert accuracy == pytest.approx([0, 1 / 6, 1 / 3, 1 / 3], abs=1e-9)
    assert budget_keeping(table, 0.99) == 120
    assert budget_keeping(table, 0.6) == 80
    assert budget_keeping(table, 0.3) == 50


PLACES = st.one_of(st.none(), st.integers(0, 50))


@given(st.lists(st.tuples(st.integers(0, 4), PLACES), max_size=30), st.integers(1, 60))
def test_the_area_is_that_under_the_curve(samples, limit):
    questions = list(range(5)) + [question for question, _ in samples]
    places = [None] * 5 + [place for _, place in samples]
    scores = [score(place is not None, 50, answer_at=place) for place in places]
    table = ScoreTable.of(questions, scores)
    budgets, accuracy = budget_curve(table, limit)
    assert (np.diff(budgets) >= 0).all() and (np.diff(accuracy) >= -1e-12).all()
    area = float((np.diff(budgets) * accuracy[:-1]).sum()) / limit
    assert budget_auc(table, limit) == pytest.approx(area, abs=1e-9)
    if limit >= 50:
        assert accuracy[-1] == pytest.approx(table.mean(table.correct), abs=1e-9)


def test_intervals_are_those_of_scipy_over_questions(table, baseline):
    found = figures(table, baseline, bootstrap={"n_resamples": 2000, "seed": 4, "confidence": 0.9})
    columns = [np.array(column) for column in ([0.5, 1, 0], [150, 100, 400], [1, 1, 0], [300, 200, 400])]
    formulas = {
        "accuracy": lambda a, t, a0, t0, axis=-1: a.mean(axis),
        "mean_tokens": lambda a, t, a0, t0, axis=-1: t.mean(axis),
        "token_reduction": lambda a, t, a0, t0, axis=-1: 1 - t.mean(axis) / t0.mean(axis),
        "mean_token_reduction": lambda a, t, a0, t0, axis=-1: (1 - t / t0).mean(axis),
        "delta_accuracy": lambda a, t, a0, t0, axis=-1: a.mean(axis) - a0.mean(axis),
    }
    for name, formula in formulas.items():
        expected = bootstrap(
            columns,
            formula,
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=2000,
            confidence_level=0.9,
            rng=np.random.default_rng(4),
        ).confidence_interval
        assert found[f"{name}_interval"] == pytest.approx([expected.low, expected.high], abs=1e-9), name
    assert found["constants"]["bootstrap"] == {"n_resamples": 2000, "confidence": 0.9, "seed": 4}


def test_a_comparison_with_itself_is_nothing_for_certain(table):
    found = figures(table, table)
    for name in ("token_reduction", "mean_token_reduction", "delta_accuracy"):
        assert found[name] == 0
        assert found[f"{name}_interval"] == [0, 0]
    assert (found["questions_gained"], found["questions_lost"], found["mcnemar_p"]) == (0, 0, 1)
    assert found["aes"] == 0
    assert found["e3"] == pytest.approx(1, abs=1e-12)


def test_the_order_of_samples_changes_nothing(table, baseline):
    order = [4, 1, 3, 0, 2]
    shuffled = ScoreTable.of([QUESTIONS[i] for i in order], [SCORES[i] for i in order])
    first, second = figures(table, baseline, budgets=[90]), figures(shuffled, baseline, budgets=[90])
    for name, value in first.items():
        if name != "constants":
            assert second[name] == pytest.approx(value, abs=1e-9), name


def test_what_is_not_defined_is_none():
    wrong = score(False, 10, extracted=None, finished=None)
    found = figures(ScoreTable.of([0], [wrong]), ScoreTable.of([0], [score(False, 0)]))
    for name in ("tokens_per_correct", "share_truncated", "budget_keeping", "mean_tokens_correct", "aes", "e3"):
        assert found[name] is None, name
    assert found["token_reduction"] is None and found["token_reduction_interval"] == [None, None]
    assert found["mean_token_reduction"] is None and found["mean_token_reduction_interval"] == [None, None]
    found = figures(ScoreTable.of([0], [score(True, 0)]))
    for name in ("accuracy_per_token", "underthinking", "mean_tokens_wrong", "budget_auc", "reflection_rate"):
        assert found[name] is None, name


def test_accuracies_are_kept_from_the_ends_in_e3():
    ratio = (0.999 / 0.001) / (0.5 / 0.5)
    assert e3(1, 50, 0.5, 100) == pytest.approx(1 / (0.5 / ratio + 0.5 / 2), abs=1e-9)
    assert e3(1, 50, 0.5, 100, rho=1) == pytest.approx(0.5 * ratio + 0.5 * 2, abs=1e-9)
    ratio = (0.9 / 0.1) / (0.1 / 0.9)
    assert e3(1, 100, 0, 100, clip=0.1) == pytest.approx(1 / (0.1 / ratio + 0.9), abs=1e-9)


def test_mistakes_are_named(table):
    with pytest.raises(DRPError, match="There is nothing to score"):
        ScoreTable.of([], [])
    with pytest.raises(DRPError, match="The baseline answers 1 questions and the model 3"):
        figures(table, ScoreTable.of([0], [score()]))
    for constants in ({"aes": {"delta": 1}}, {"alpha": {"x": 1}}, {"aes": 3}):
        with pytest.raises(DRPError, match=r"sets no constant: give a dictionary of aes \(alpha, beta, gamma\)"):
            figures(table, **constants)
    with pytest.raises(DRPError, match="beta of cca is 0: it must be above 0"):
        figures(table, cca={"beta": 0})
    with pytest.raises(DRPError, match="clip of e3 is 0.5"):
        figures(table, e3={"clip": 0.5})


def test_constants_are_reported_and_not_shared(table):
    first = figures(table)["constants"]
    first["aes"]["alpha"] = 99
    first["reflection_rate"]["markers"].clear()
    second = figures(table)["constants"]
    assert second["aes"] == {"alpha": 1, "beta": 3, "gamma": 5}
    assert "wait" in second["reflection_rate"]["markers"]
    assert second["new_tokens"] == {"new_values": 1}


@pytest.mark.parametrize(("of", "examples"), [(drp_hf.composites, 10), (drp_hf.statistics, 2)])
def test_the_worked_examples_run(of, examples):
    results = doctest.testmod(of)
    assert results.attempted == examples and results.failed == 0
