import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from drp_hf.errors import DRPError
from drp_hf.evaluations import ANSWERS, RESULTS, align, read_evaluation, results_table, write_evaluation
from drp_hf.grading import Grader
from drp_hf.scoring import Sample, score_samples

FEW = {"n_resamples": 200}
PROBLEMS = [("3 + 4?", "7"), ("2 · 5?", "10"), ("Who?", "Evelyn")]


def rows(outputs: dict[str, list[str]], benchmark: str = "sums", finished: bool = True) -> list[dict]:
    """Rows for outputs by question, in the order given, with a token for each character."""
    gold = dict(PROBLEMS)
    asked = [(question, sample, output) for question, of in outputs.items() for sample, output in enumerate(of)]
    scores = score_samples((Sample(output, gold[q], len(output), finished) for q, _, output in asked), Grader())
    return [
        {"benchmark": benchmark, "question": q, "answer": gold[q], "sample": sample, "output": output, **asdict(score)}
        for (q, sample, output), score in zip(asked, scores, strict=True)
    ]


def says(answer: str) -> str:
    return f"<think>Well.</think>The answer is {answer}."


BEFORE = {"3 + 4?": [says("7") + " " * 60], "2 · 5?": [says("11") + " " * 80], "Who?": [says("Evelyn") + " " * 50]}
AFTER = {"Who?": [says("Eve"), says("Evelyn")], "3 + 4?": [says("7")] * 2, "2 · 5?": [says("10"), says("9")]}


@pytest.fixture
def before(tmp_path):
    write_evaluation(tmp_path / "before", "student", 500, rows(BEFORE), bootstrap=FEW)
    return read_evaluation(tmp_path / "before")


def test_a_run_folder_by_hand(tmp_path, before):
    results = write_evaluation(
        tmp_path / "after",
        "pruned",
        500,
        iter(rows(AFTER)),
        baseline=before,
        budgets=[35],
        n_parameters=1_000_000_000,
        bootstrap=FEW,
    )
    assert results == json.loads((tmp_path / "after" / RESULTS).read_text())
    assert {name: results[name] for name in ("model", "max_tokens", "baseline", "baseline_max_tokens")} == {
        "model": "pruned",
        "max_tokens": 500,
        "baseline": str(before.folder),
        "baseline_max_tokens": 500,
    }
    figures = results["benchmarks"]["sums"]
    assert (figures["n_questions"], figures["n_samples"]) == (3, 6)
    assert figures["accuracy"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3, abs=1e-9)
    assert figures["baseline_accuracy"] == pytest.approx(2 / 3, abs=1e-9)
    assert (figures["questions_gained"], figures["questions_lost"]) == (1, 1)
    lengths = {q: [len(output) for output in of] for q, of in BEFORE.items()}
    mine = {q: sum(map(len, of)) / 2 for q, of in AFTER.items()}
    reductions = [1 - mine[q] / lengths[q][0] for q in BEFORE]
    # Only if the two are put together question by question.
    assert figures["mean_token_reduction"] == pytest.approx(sum(reductions) / 3, abs=1e-9)
    assert figures["budget_limit"] == 500
    assert figures["acu"] == pytest.approx(figures["accuracy"] / figures["mean_tokens"], abs=1e-12)
    assert figures["constants"]["bootstrap"]["n_resamples"] == 200
    assert sorted(path.name for path in (tmp_path / "after").iterdir()) == [ANSWERS, RESULTS]


def test_what_was_written_is_read_back(tmp_path):
    written = rows(AFTER) + rows({"Who?": [says("Evelyn\ud83d")]}, "names", finished=False)
    results = write_evaluation(tmp_path, "student", None, written, bootstrap=FEW)
    evaluation = read_evaluation(tmp_path)
    assert (evaluation.folder, evaluation.model, evaluation.max_tokens) == (tmp_path, "student", None)
    assert list(evaluation.benchmarks) == ["sums", "names"] == list(results["benchmarks"])
    sums = evaluation.benchmarks["sums"]
    assert sums.problems == [("Who?", "Evelyn"), ("3 + 4?", "7"), ("2 · 5?", "10")]
    assert sums.table.question.tolist() == [0, 0, 1, 1, 2, 2]
    assert [sums.row(i) for i in range(6)] == written[:6]
    assert evaluation.benchmarks["names"].row(0) == written[6]
    assert evaluation.benchmarks["names"].table.finished.tolist() == [0]


def test_aligned_answers_keep_their_rows(tmp_path, before):
    write_evaluation(tmp_path / "after", "pruned", 500, rows(AFTER), bootstrap=FEW)
    answers = read_evaluation(tmp_path / "after").benchmarks["sums"]
    aligned = align(answers, before.benchmarks["sums"])
    assert aligned.problems == PROBLEMS
    assert aligned.table.question.tolist() == [0, 0, 1, 1, 2, 2]
    for i in range(6):
        row = aligned.row(i)
        assert (row["question"], row["answer"]) == PROBLEMS[aligned.table.question[i]]
        assert row["n_tokens"] == aligned.table.n_tokens[i]
        assert row["sample"] == i % 2
    assert align(aligned, before.benchmarks["sums"]) is aligned


def test_different_questions_are_not_compared(tmp_path, before):
    with pytest.raises(DRPError, match=r"do not answer the same questions of 'sums' \(1 differ, one is 'Who\?'…\)"):
        write_evaluation(
            tmp_path / "after",
            "pruned",
            500,
            rows({q: of for q, of in AFTER.items() if q != "Who?"}),
            baseline=before,
            bootstrap=FEW,
        )
    with pytest.raises(DRPError, match="before has no answers to 'names'"):
        write_evaluation(tmp_path / "other", "pruned", 500, rows(AFTER, "names"), baseline=before, bootstrap=FEW)
    assert not (tmp_path / "other" / RESULTS).exists()


def test_mistakes_in_rows_are_named(tmp_path):
    good = rows(AFTER)
    with pytest.raises(DRPError, match=r"Row 2 for .*answers.jsonl has no field 'n_tokens'"):
        write_evaluation(
            tmp_path, "student", 500, [good[0], {k: v for k, v in good[1].items() if k != "n_tokens"}], bootstrap=FEW
        )
    with pytest.raises(DRPError, match="There is no answer to write"):
        write_evaluation(tmp_path, "student", 500, [], bootstrap=FEW)
    write_evaluation(tmp_path, "student", 500, good, bootstrap=FEW)

    def broken(number: int, text: str) -> None:
        lines = [json.dumps(row) for row in good]
        lines[number - 1] = text
        (tmp_path / ANSWERS).write_text("\n".join(lines))

    broken(3, "{")
    with pytest.raises(DRPError, match="answers.jsonl row 3 is not JSON"):
        read_evaluation(tmp_path)
    broken(4, json.dumps(good[3] | {"finished": "yes"}))
    with pytest.raises(DRPError, match="row 4: 'finished' is 'yes' and not bool or null"):
        read_evaluation(tmp_path)
    broken(1, "[]")
    with pytest.raises(DRPError, match="row 1 has no field 'benchmark'"):
        read_evaluation(tmp_path)
    (tmp_path / ANSWERS).write_text("")
    with pytest.raises(DRPError, match="answers.jsonl is empty"):
        read_evaluation(tmp_path)
    (tmp_path / RESULTS).write_text('{"model": "student", "max_tokens": "many", "benchmarks": {}}')
    with pytest.raises(DRPError, match="results.json: 'max_tokens' is 'many' and not int or null"):
        read_evaluation(tmp_path)
    (tmp_path / RESULTS).unlink()
    with pytest.raises(DRPError, match="has no results.json: give an output folder of drp evaluate or drp score"):
        read_evaluation(tmp_path)


def test_a_folder_that_failed_keeps_what_it_had(tmp_path):
    write_evaluation(tmp_path, "student", 500, rows(AFTER), bootstrap=FEW)
    had = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def failing():
        yield rows(BEFORE)[0]
        raise RuntimeError("the engine died")

    with pytest.raises(RuntimeError):
        write_evaluation(tmp_path, "student", 500, failing(), bootstrap=FEW)
    assert {name: (tmp_path / name).read_bytes() for name in had} == had


def test_the_table_for_people(tmp_path, before):
    results = write_evaluation(
        tmp_path / "after",
        "[bold]pruned",
        400,
        rows(AFTER) + rows({"Who?": [says("Evelyn")]}, "names"),
        baseline=None,
        bootstrap=FEW,
    )
    console = Console(width=120, record=True, file=Path("/dev/null").open("w"))
    console.print(results_table(results))
    text = console.export_text()
    assert "[bold]pruned on sums: 3 questions, 6 answers" in text
    assert "[bold]pruned on names: 1 question\n" in re.sub(" +\n", "\n", text)
    assert "pass@2" in text and "cut off at 400" in text and "tokens saved" not in text

    results = write_evaluation(
        tmp_path / "again", "pruned", 400, rows(AFTER), baseline=before, budgets=[50], bootstrap=FEW
    )
    console.print(results_table(results))
    text = console.export_text()
    for words in (
        "tokens saved",
        "accuracy gained",
        "McNemar",
        "AES (α, β, γ = 1, 3, 5)",
        "E3 (ρ, clip = -1, 0.001)",
        "HCA at 50 tokens",
        "CCA at 50 tokens (α, β = 10, 20)",
    ):
        assert words in text, words
    assert "Not a fair comparison: the baseline was cut at 500 tokens." in text
