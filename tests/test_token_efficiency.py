import doctest
from pathlib import Path

import evaluate
import numpy as np
import pytest
from scipy.stats import bootstrap

import drp_hf.metrics.token_efficiency.token_efficiency as module
from drp_hf.errors import DRPError
from drp_hf.metrics.token_efficiency.token_efficiency import aes, is_correct
from drp_hf.models import load_tokenizer

FOLDER = Path(module.__file__).parent


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(str(FOLDER))


def output(answer: object) -> str:
    return f"<think>\nSome thinking about 99.\n</think>\n\nThe answer is {answer}."


def test_plain_figures_by_hand(metric):
    results = metric.compute(
        predictions=[output(1), output(2), output(3), output(4), output(0)],
        references=["1", "2", "3", "5", "6"],
        n_tokens=[10, 20, 30, 40, 100],
        finished=[True, True, True, True, False],
    )
    assert results["n"] == 5
    assert results["accuracy"] == pytest.approx(3 / 5, abs=1e-12)
    assert results["mean_tokens"] == 40
    assert results["median_tokens"] == 30
    # The 90th percentile lies 0.9 · 4 = 3.6 places from the first: 40 + 0.6 · (100 - 40).
    assert results["p90_tokens"] == pytest.approx(76, abs=1e-12)
    assert results["share_truncated"] == pytest.approx(1 / 5, abs=1e-12)
    assert "token_reduction" not in results


def test_comparison_by_hand(metric):
    results = metric.compute(
        predictions=[output(1), output(2), output(3), output(0)],
        references=["1", "2", "3", "4"],
        n_tokens=[10, 10, 20, 40],
        baseline_predictions=[output(1), output(2), output(0), output(0)],
        baseline_n_tokens=[50, 50, 60, 40],
    )
    # L = 20, L0 = 50; A = 3/4, A0 = 2/4.
    assert results["token_reduction"] == pytest.approx(0.6, abs=1e-12)
    assert results["delta_accuracy"] == pytest.approx(0.25, abs=1e-12)
    assert (results["baseline_accuracy"], results["baseline_mean_tokens"]) == (0.5, 50)
    assert results["aes"] == pytest.approx(1 * 0.6 + 3 * 0.5, abs=1e-12)
    assert (results["aes_alpha"], results["aes_beta"], results["aes_gamma"]) == (1, 3, 5)
    assert results["share_truncated"] is None


def test_aes_by_hand():
    assert aes(0.8, 300, 0.8, 1000) == pytest.approx(0.7, abs=1e-12)
    assert aes(0.6, 500, 0.8, 1000) == pytest.approx(0.5 - 5 * 0.25, abs=1e-12)
    assert aes(0.6, 500, 0.8, 1000, alpha=2, gamma=1) == pytest.approx(2 * 0.5 - 0.25, abs=1e-12)
    assert aes(0.8, 2000, 0.4, 1000) == pytest.approx(-1 + 3 * 1, abs=1e-12)
    assert aes(0.5, 10, 0.0, 20) is None


def test_a_comparison_with_itself_is_zero_for_certain(metric):
    predictions = [output(i % 3) for i in range(30)]
    tokens = list(range(10, 40))
    results = metric.compute(
        predictions=predictions,
        references=["1"] * 30,
        n_tokens=tokens,
        baseline_predictions=predictions,
        baseline_n_tokens=tokens,
    )
    # Only because both outputs of a question are drawn together.
    assert results["token_reduction_interval"] == [0, 0]
    assert results["delta_accuracy_interval"] == [0, 0]
    assert results["accuracy_interval"][0] < 1 / 3 < results["accuracy_interval"][1]


def test_intervals_agree_with_scipy(metric):
    random = np.random.default_rng(1)
    n = 200
    right, right0 = random.random(n) < 0.8, random.random(n) < 0.7
    tokens, tokens0 = random.integers(50, 300, n), random.integers(200, 900, n)
    results = metric.compute(
        predictions=[output(1 if r else 2) for r in right],
        references=["1"] * n,
        n_tokens=tokens.tolist(),
        baseline_predictions=[output(1 if r else 2) for r in right0],
        baseline_n_tokens=tokens0.tolist(),
    )
    figures = {
        "accuracy": lambda a, t, a0, t0, axis=-1: a.mean(axis),
        "mean_tokens": lambda a, t, a0, t0, axis=-1: t.mean(axis),
        "token_reduction": lambda a, t, a0, t0, axis=-1: 1 - t.mean(axis) / t0.mean(axis),
        "delta_accuracy": lambda a, t, a0, t0, axis=-1: a.mean(axis) - a0.mean(axis),
    }
    for name, figure in figures.items():
        expected = bootstrap(
            (right.astype(float), tokens, right0.astype(float), tokens0),
            figure,
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=10_000,
            rng=np.random.default_rng(2),
        ).confidence_interval
        width = expected.high - expected.low
        # Two draws of 10,000 resamples differ by chance; 8 % of the width is about four standard errors of an end.
        assert results[f"{name}_interval"] == pytest.approx([expected.low, expected.high], abs=0.08 * width), name


def test_intervals_are_repeatable_and_follow_their_settings(metric):
    inputs = {
        "predictions": [output(i % 2) for i in range(40)],
        "references": ["1"] * 40,
        "n_tokens": [i * i for i in range(40)],
    }
    first, again = metric.compute(**inputs), metric.compute(**inputs)
    assert first == again
    narrow = metric.compute(**inputs, confidence=0.5, n_resamples=2000, seed=3)
    assert first["mean_tokens_interval"][0] < narrow["mean_tokens_interval"][0]
    assert narrow["mean_tokens_interval"][1] < first["mean_tokens_interval"][1]
    assert (narrow["confidence"], narrow["n_resamples"], narrow["seed"]) == (0.5, 2000, 3)


def test_resampling_in_blocks_covers_every_resample(monkeypatch):
    table = np.arange(20.0).reshape(10, 2)
    seen = []

    def figures(means):
        seen.append(len(means))
        return {"mean": means[:, 0]}

    monkeypatch.setattr(module, "BLOCK", 60)
    module.bootstrap_interval(table, figures, n_resamples=100, confidence=0.95, seed=0)
    assert seen == [100]


def test_a_baseline_that_solves_nothing_has_no_aes(metric):
    results = metric.compute(
        predictions=[output(1)],
        references=["1"],
        n_tokens=[5],
        baseline_predictions=[output(2)],
        baseline_n_tokens=[10],
    )
    assert results["aes"] is None
    assert results["delta_accuracy"] == 1


def test_a_cut_output_is_never_a_short_right_one(metric):
    cut_in_thought = "<think>\n3 + 4 = 7. So the answer is 7. But wait"
    cut_in_response = "<think>\nfine\n</think>\n\nFirst we take 7"
    stated_then_cut = "<think>\nfine\n</think>\n\nThe answer is 7. Let me also"
    assert not is_correct(cut_in_thought, "7", finished=False)
    assert not is_correct(cut_in_thought, "7", finished=True)
    assert not is_correct(cut_in_response, "7", finished=False)
    assert is_correct(cut_in_response, "7", finished=True)
    assert is_correct(stated_then_cut, "7", finished=False)
    assert not is_correct("3 + 4 = 7", "7", finished=False)
    results = metric.compute(
        predictions=[cut_in_thought, output(7)], references=["7", "7"], n_tokens=[500, 100], limit=500
    )
    assert (results["accuracy"], results["mean_tokens"], results["share_truncated"]) == (0.5, 300, 0.5)


def test_a_tokenizer_counts_where_no_counts_are_given(metric):
    predictions = [output(1), output(1234567)]
    results = metric.compute(predictions=predictions, references=["1", "1"], tokenizer="smollm2-embedded")
    counts = [len(ids) for ids in load_tokenizer("smollm2-embedded")(predictions)["input_ids"]]
    assert results["mean_tokens"] == sum(counts) / 2


def test_add_batch_works(metric):
    metric.add_batch(predictions=[output(1)], references=["1"])
    metric.add_batch(predictions=[output(2)], references=["3"])
    assert metric.compute(n_tokens=[4, 6])["accuracy"] == 0.5


def test_bad_input_is_named(metric):
    good = {"predictions": [output(1)], "references": ["1"]}
    with pytest.raises(DRPError, match="n_tokens as they were generated"):
        metric.compute(**good)
    with pytest.raises(DRPError, match="n_tokens has 2 entries for 1 references"):
        metric.compute(**good, n_tokens=[1, 2])
    with pytest.raises(DRPError, match="baseline_predictions has 2 entries"):
        metric.compute(**good, n_tokens=[1], baseline_predictions=["a", "b"], baseline_n_tokens=[1])
    with pytest.raises(DRPError, match="baseline_n_tokens"):
        metric.compute(**good, n_tokens=[1], baseline_predictions=["a"])


def test_the_documented_examples_run():
    test = doctest.DocTestParser().get_doctest(module._KWARGS_DESCRIPTION, {}, "token_efficiency", None, 0)
    assert len(test.examples) >= 5
    assert doctest.DocTestRunner().run(test).failed == 0
