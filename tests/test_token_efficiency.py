import doctest
import json
import re
import subprocess
import sys
from pathlib import Path

import evaluate
import pandas
import pytest
from evaluate.utils.gradio import infer_gradio_input_types, parse_gradio_data

import drp_hf.metrics.token_efficiency.token_efficiency as module
from drp_hf.errors import DRPError
from drp_hf.models import load_tokenizer

FOLDER = Path(module.__file__).parent
FEW = {"bootstrap": {"n_resamples": 100}}


@pytest.fixture
def metric(tmp_path):
    return evaluate.load(str(FOLDER), cache_dir=str(tmp_path))


def output(answer: object) -> str:
    return f"<think>\nSome thinking about 99.\n</think>\n\nThe answer is {answer}."


def counted(answer: object, n_tokens: int, finished: bool | None = True) -> dict:
    return {"output": output(answer), "n_tokens": n_tokens, "finished": finished}


def test_counts_for_texts(metric):
    results = metric.compute(
        predictions=[output(1), output(2), output(3), output(4), output(0)],
        references=["1", "2", "3", "5", "6"],
        n_tokens=[10, 20, 30, 40, 100],
        finished=[True, True, True, True, False],
        **FEW,
    )
    assert results["n_questions"] == results["n_samples"] == 5
    assert results["accuracy"] == pytest.approx(3 / 5, abs=1e-12)
    assert (results["mean_tokens"], results["median_tokens"]) == (40, 30)
    assert results["share_truncated"] == pytest.approx(1 / 5, abs=1e-12)
    assert "token_reduction" not in results


def test_a_comparison(metric):
    results = metric.compute(
        predictions=[output(1), output(2), output(3), output(0)],
        references=["1", "2", "3", "4"],
        n_tokens=[10, 10, 20, 40],
        baseline_predictions=[output(1), output(2), output(0), output(0)],
        baseline_n_tokens=[50, 50, 60, 40],
        aes={"beta": 2.0},
        **FEW,
    )
    # L = 20, L0 = 50; A = 3/4, A0 = 2/4.
    assert results["token_reduction"] == pytest.approx(0.6, abs=1e-12)
    assert results["delta_accuracy"] == pytest.approx(0.25, abs=1e-12)
    assert (results["baseline_accuracy"], results["baseline_mean_tokens"]) == (0.5, 50)
    assert results["aes"] == pytest.approx(1 * 0.6 + 2 * 0.5, abs=1e-12)
    assert results["constants"]["aes"] == {"alpha": 1, "beta": 2, "gamma": 5}
    assert results["share_truncated"] is None


FORMS = [
    output(1),
    {"output": output(1)},
    {"output": output(1), "n_tokens": 10},
    {"output": output(1), "finished": True},
    counted(1, 10),
    {"reasoning": "Some thinking about 99.", "response": "The answer is 1."},
    {"reasoning": "Some thinking about 99.", "response": "The answer is 1.", "n_tokens": 10, "finished": None},
    [output(1)],
    [{"reasoning": "Some thinking about 99.", "response": "The answer is 1."}],
    [{"output": output(1), "n_tokens": 10}],
]


@pytest.mark.parametrize("first", FORMS)
def test_every_form_of_a_prediction_says_the_same(metric, first):
    settings = {"n_tokens": [10, 10], "finished": [True, True], **FEW}
    expected = metric.compute(predictions=[output(1), output(2)], references=["1", "3"], **settings)
    # The form of the first prediction does not bind the second.
    assert metric.compute(predictions=[first, output(2)], references=["1", "3"], **settings) == expected
    assert metric.compute(predictions=[output(1), FORMS[4]], references=["1", "3"], **settings) == expected
    metric.add(prediction=first, reference="1")
    metric.add(prediction=output(2), reference="3")
    assert metric.compute(**settings) == expected
    metric.add_batch(predictions=[output(1)], references=["1"])
    metric.add_batch(predictions=[first], references=["3"])
    assert metric.compute(**settings)["accuracy"] == 0.5


def test_counts_in_the_predictions_come_first(metric):
    results = metric.compute(
        predictions=[counted(1, 10), output(1)],
        references=["1", "1"],
        n_tokens=[77, 20],
        finished=[False, True],
        **FEW,
    )
    assert results["mean_tokens"] == 15
    assert results["share_truncated"] == 0


def test_samples_of_a_question(metric):
    results = metric.compute(
        predictions=[[output(1), output(2)], output(3)],
        references=["1", "3"],
        n_tokens=[[10, 30], 40],
        finished=[[True, False], True],
        baseline_predictions=[counted(1, 50), [counted(3, 50), counted(0, 60), counted(0, 70)]],
        **FEW,
    )
    assert (results["n_questions"], results["n_samples"]) == (2, 3)
    assert results["pass_at_k"] == {"1": 0.75}
    assert results["mean_tokens"] == 30
    assert results["baseline_accuracy"] == pytest.approx((1 + 1 / 3) / 2, abs=1e-12)
    assert results["mean_token_reduction"] == pytest.approx((1 - 20 / 50 + 1 - 40 / 60) / 2, abs=1e-12)


def test_outputs_as_long_as_the_limit_were_cut(metric):
    cut = "<think>\n3 + 4 = 7. So the answer is 7. But wait"
    settings = {"references": ["7", "7"], "n_tokens": [500, 100], **FEW}
    results = metric.compute(predictions=[cut, output(7)], limit=500, **settings)
    assert (results["accuracy"], results["mean_tokens"], results["share_truncated"]) == (0.5, 300, 0.5)
    assert results["budget_limit"] == 500
    half = metric.compute(predictions=["<think>…</think>7", output(7)], **settings)
    assert (half["accuracy"], half["share_truncated"]) == (1, None)


def test_a_tokenizer_counts_where_no_counts_are_given(metric):
    predictions = [output(1), counted(1234567, 5)]
    results = metric.compute(predictions=predictions, references=["1", "1"], tokenizer="smollm2-embedded", **FEW)
    count = len(load_tokenizer("smollm2-embedded")(predictions[0])["input_ids"])
    assert results["mean_tokens"] == (count + 5) / 2


def test_half_a_surrogate_pair_does_no_harm(metric):
    predictions = [f"\ud83d{output(1)}", {"reasoning": "\ud83d", "response": "The answer is 1."}]
    results = metric.compute(predictions=predictions, references=["1", "1"], n_tokens=[9, 9], **FEW)
    assert results["accuracy"] == 1


@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_what_a_space_hands_over_is_understood(metric):
    names, types = zip(*metric.features.items(), strict=True)
    kinds = infer_gradio_input_types(types)
    assert kinds == ["json", "str"]
    cells = pandas.DataFrame([[json.dumps([counted(1, 10)]), '"1"'], [json.dumps(counted(2, 20)), "3"]], columns=names)
    results = metric.compute(**parse_gradio_data(cells, kinds))
    assert (results["accuracy"], results["mean_tokens"]) == (0.5, 15)


def test_it_combines_with_other_metrics(metric, tmp_path):
    other = evaluate.load(str(FOLDER), cache_dir=str(tmp_path / "other"))
    both = evaluate.combine({"one": metric, "two": other}, force_prefix=True)
    both.add(prediction=counted(1, 10), reference="1")
    both.add_batch(predictions=[counted(2, 20)], references=["3"])
    results = both.compute()
    assert results["one_accuracy"] == results["two_accuracy"] == 0.5
    assert results["one_mean_tokens"] == 15
    alone = evaluate.combine([metric]).compute(predictions=[output(1)], references=["1"], n_tokens=[8], **FEW)
    assert (alone["accuracy"], alone["mean_tokens"]) == (1, 8)


SECOND_PROCESS = """
import sys
import evaluate
folder, cache = sys.argv[1:]
metric = evaluate.load(
    folder, num_process=2, process_id=1, experiment_id="halves", cache_dir=cache, timeout=300
)
for number in range(5, 10):
    text = f"<think>Well.</think>The answer is {number}."
    metric.add(
        prediction=[{"output": text, "n_tokens": 10 * number + 1, "finished": number != 9}],
        reference=str(number if number % 2 else 99),
    )
print(metric.compute())
"""


@pytest.mark.timeout(400)
def test_two_processes_score_together(metric, tmp_path):
    shared = str(tmp_path / "shared")
    second = subprocess.Popen(
        [sys.executable, "-c", SECOND_PROCESS, str(FOLDER), shared], stdout=subprocess.PIPE, text=True
    )
    first = evaluate.load(
        str(FOLDER), num_process=2, process_id=0, experiment_id="halves", cache_dir=shared, timeout=300
    )
    for number in range(10):
        text = f"<think>Well.</think>The answer is {number}."
        question = {
            "prediction": {"output": text, "n_tokens": 10 * number + 1, "finished": number != 9},
            "reference": str(number if number % 2 else 99),
        }
        metric.add(**question)
        if number < 5:
            first.add(**question)
    together = first.compute(**FEW)
    assert second.communicate(timeout=60)[0] == "None\n"
    assert together == metric.compute(**FEW)
    assert (together["n_questions"], together["accuracy"], together["total_tokens"]) == (10, 0.5, 460)
    assert together["share_truncated"] == pytest.approx(0.1, abs=1e-12)


def test_mistakes_are_named(metric):
    good = {"predictions": [output(1)], "references": ["1"]}
    with pytest.raises(DRPError, match=r"predictions\[0\] has no count: give n_tokens as they were generated"):
        metric.compute(**good)
    with pytest.raises(DRPError, match="n_tokens has 2 entries for 1 questions"):
        metric.compute(**good, n_tokens=[1, 2])
    with pytest.raises(DRPError, match=r"finished\[0\] has 2 entries for 1 samples"):
        metric.compute(**good, n_tokens=[1], finished=[[True, True]])
    with pytest.raises(DRPError, match="baseline_predictions has 2 entries for 1 references"):
        metric.compute(**good, n_tokens=[1], baseline_predictions=["a", "b"], baseline_n_tokens=[1, 1])
    with pytest.raises(DRPError, match=r"baseline_predictions\[0\] has no count: give baseline_n_tokens"):
        metric.compute(**good, n_tokens=[1], baseline_predictions=["a"])
    for wrong in (7, {"text": "a"}, {"output": "a", "response": "b"}, {"reasoning": "a"}):
        with pytest.raises(DRPError, match=r"predictions\[1\] is .*: give a text, or a dictionary with output"):
            metric.compute(predictions=["a", wrong], references=["1", "1"])
    with pytest.raises(DRPError, match=r"predictions\[0\] has output None: give a text"):
        metric.compute(predictions=[{"output": None}], references=["1"], n_tokens=[1])
    with pytest.raises(DRPError, match="n_tokens is 3: give a list with a value for each question"):
        metric.compute(**good, n_tokens=3)
    with pytest.raises(DRPError, match=r"predictions\[0\] has -3 tokens: give 0 or more"):
        metric.compute(**good, n_tokens=[-3])
    with pytest.raises(DRPError, match="budgets is 5: give a list of tokens"):
        metric.compute(**good, n_tokens=[1], budgets=5)
    with pytest.raises(DRPError, match=r"predictions\[0\] is empty"):
        metric.compute(predictions=[[]], references=["1"])
    with pytest.raises(DRPError, match="alpha=2 sets no constant"):
        metric.compute(**good, n_tokens=[1], alpha=2)


# ------------------------------------------------------------------------------------------------------------ the card


def card_tables() -> tuple[list[list[str]], list[list[str]]]:
    """The rows of the two tables of the card's example."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    example = text.partition("## An example to check by hand")[2].partition("\n## ")[0]
    tables = [
        [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines()[2:]]
        for block in re.findall(r"(?:^\|.*\n)+", example, re.MULTILINE)
    ]
    outputs, figures = tables
    return outputs, figures


def test_the_cards_example_is_what_the_metric_computes(metric):
    outputs, table = card_tables()
    texts = [re.search("`(.*)`", row[1])[1] for row in outputs]
    samples = [{"output": text, "n_tokens": len(text), "finished": True} for text in texts]
    samples[3]["finished"] = False
    results = metric.compute(
        predictions=[samples[:2], samples[2:4]],
        references=["7", "10"],
        baseline_predictions=samples[4:],
        budgets=[50],
        n_parameters=2_000_000_000,
        limit=128,
    )
    results |= {name: results[name]["50"] for name in ("hca", "sca", "cca")}
    results["pass_at_k"] = results["pass_at_k"]["2"]
    shown = {row[0].strip("`"): float(row[2]) for row in table}
    assert set(shown) == {name for name in results if not name.endswith("_interval")} - {
        "n_questions",
        "n_samples",
        "budget_limit",
        "constants",
    }
    for name, value in shown.items():
        assert results[name] == pytest.approx(value, rel=1e-11, abs=1e-12), name


def test_the_cards_readings_of_outputs_are_those_of_scoring():
    from drp_hf.grading import Grader
    from drp_hf.scoring import Sample, score_samples

    outputs, _ = card_tables()
    for number, row in enumerate(outputs):
        text = re.search("`(.*)`", row[1])[1]
        gold = ["7", "7", "10", "10", "7", "10"][number]
        (score,) = score_samples([Sample(text, gold, len(text), number != 3)], Grader())
        found = [
            score.n_tokens,
            "yes" if score.correct else "no",
            score.think_tokens,
            score.answer_at,
            score.first_correct,
            score.new_tokens,
            score.reflections,
        ]
        assert ["–" if value is None else str(value) for value in found] == row[2:], text


def test_the_card_tells_of_every_figure(metric):
    results = metric.compute(
        predictions=[output(1)], references=["1"], n_tokens=[5], baseline_predictions=[counted(1, 9)], **FEW
    )
    text = (FOLDER / "README.md").read_text(encoding="utf-8").partition("### Outputs")[2].partition("\n## ")[0]
    for name in results:
        assert f"`{name}`" in text or name.endswith("_interval"), name
        if name.endswith("_interval"):
            assert f"`{name.removesuffix('_interval')}`*" in text, name


def test_the_documented_examples_run(tmp_path, monkeypatch):
    # Under its published name, which `evaluate` first looks for as a folder.
    (tmp_path / "drp_hf").mkdir()
    (tmp_path / "drp_hf" / "token_efficiency").symlink_to(FOLDER)
    monkeypatch.chdir(tmp_path)
    test = doctest.DocTestParser().get_doctest(module._KWARGS_DESCRIPTION, {}, "token_efficiency", None, 0)
    assert len(test.examples) == 11
    assert doctest.DocTestRunner().run(test).failed == 0
