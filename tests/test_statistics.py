from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, bootstrap
from statsmodels.stats.contingency_tables import mcnemar

import drp_hf.statistics as module
from drp_hf.errors import DRPError
from drp_hf.statistics import bootstrap_intervals, pass_at_k, sign_test


def table(n: int, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.stack([random.random(n) < 0.8, random.integers(50, 300, n)], axis=1).astype(float)


def figures(means: np.ndarray) -> dict[str, np.ndarray]:
    return {"accuracy": means[:, 0], "per_token": means[:, 0] / means[:, 1]}


SCIPY = {
    "accuracy": lambda a, t, axis=-1: a.mean(axis),
    "per_token": lambda a, t, axis=-1: a.mean(axis) / t.mean(axis),
}


@pytest.mark.parametrize(("n", "confidence", "seed"), [(200, 0.95, 0), (37, 0.8, 7)])
def test_intervals_are_those_of_scipy(n, confidence, seed):
    rows = table(n)
    ours = bootstrap_intervals(rows, figures, 3000, confidence, seed)
    for name, figure in SCIPY.items():
        theirs = bootstrap(
            (rows[:, 0], rows[:, 1]),
            figure,
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=3000,
            confidence_level=confidence,
            rng=np.random.default_rng(seed),
        ).confidence_interval
        assert ours[name] == pytest.approx([theirs.low, theirs.high], rel=1e-9, abs=1e-12), name


def test_blocks_do_not_change_the_draws(monkeypatch):
    rows = table(50)
    whole = bootstrap_intervals(rows, figures, 100)
    monkeypatch.setattr(module, "BLOCK", 333)  # six resamples at once, and four in the last block
    assert bootstrap_intervals(rows, figures, 100) == whole
    monkeypatch.setattr(module, "BLOCK", 1)
    assert bootstrap_intervals(rows, figures, 100) == whole


def test_rows_of_few_kinds_are_drawn_by_kind():
    rows = np.repeat([[1.0, 70.0], [0.0, 90.0], [1.0, 80.0]], [600, 300, 100], axis=0)
    np.random.default_rng(0).shuffle(rows)
    ends = bootstrap_intervals(rows, figures, 20_000)
    # The right ones of a resample are binomial, whose percentiles are known.
    low, high = binom(1000, 0.7).ppf([0.025, 0.975]) / 1000
    assert ends["accuracy"] == pytest.approx([low, high], abs=1.5 / 1000)
    one_by_one = bootstrap(
        (rows[:, 0], rows[:, 1]), SCIPY["per_token"], paired=True, vectorized=True, method="percentile", rng=1
    ).confidence_interval
    width = one_by_one.high - one_by_one.low
    # Two draws of 10,000 resamples differ by chance; 8 % of the width is about four standard errors of an end.
    assert ends["per_token"] == pytest.approx([one_by_one.low, one_by_one.high], abs=0.08 * width)
    assert bootstrap_intervals(rows, figures, 20_000) == ends


def test_a_figure_that_a_resample_leaves_undefined_has_no_interval():
    rows = np.array([[1.0, np.nan], [0.0, 3.0]])
    ends = bootstrap_intervals(rows, lambda means: {"first": means[:, 0], "second": means[:, 1]}, 100)
    assert ends["first"] == [0, 1]
    assert np.isnan(ends["second"]).all()


@pytest.mark.parametrize(("n_resamples", "confidence"), [(0, 0.95), (100, 0), (100, 1), (100, 95)])
def test_a_bootstrap_that_cannot_be_drawn_is_refused(n_resamples, confidence):
    with pytest.raises(DRPError, match="at least one resample and a confidence between 0 and 1"):
        bootstrap_intervals(table(5), figures, n_resamples, confidence)


def test_sign_test_by_hand():
    assert sign_test(0, 0) == 1
    assert sign_test(3, 3) == 1
    assert sign_test(0, 5) == pytest.approx(2 / 32, abs=1e-12)
    assert sign_test(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024, abs=1e-12)


@given(st.integers(0, 60), st.integers(0, 60))
def test_sign_test_is_mcnemars_exact_test(gained, lost):
    ours = sign_test(gained, lost)
    assert ours == sign_test(lost, gained)
    # The agreements on the diagonal do not matter.
    assert ours == pytest.approx(mcnemar([[30, lost], [gained, 12]], exact=True).pvalue, abs=1e-9)
    if gained + lost:
        assert ours == pytest.approx(binomtest(gained, gained + lost).pvalue, abs=1e-9)


def test_sign_test_of_many():
    assert sign_test(5200, 4800) == pytest.approx(binomtest(5200, 10_000).pvalue, rel=1e-9)
    assert sign_test(40_000, 60_000) < 1e-300


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n, data):
    correct = data.draw(st.integers(0, n))
    k = data.draw(st.integers(1, n))
    draws = list(combinations([True] * correct + [False] * (n - correct), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-9)
