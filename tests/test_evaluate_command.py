import json

import pytest

from drp_hf.commands import evaluate
from drp_hf.commands.evaluate import EvaluateConfig
from drp_hf.errors import DRPError

PROBLEMS = [
    {"question": "What is 2+3?", "answer": "5"},
    {"question": "Count from one to fifty in words.", "answer": "50"},
]


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    path.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS), encoding="utf-8")
    return path


def config(problems, output_dir, **changes) -> EvaluateConfig:
    settings = {"max_tokens": 16, "engine": "transformers", **changes}
    return EvaluateConfig(problems=str(problems), model="smollm2-embedded", output_dir=str(output_dir), **settings)


@pytest.fixture(scope="module")
def evaluation(problems, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "base"
    return folder, evaluate.main(config(problems, folder))


def test_answers_and_results(evaluation, problems):
    folder, results = evaluation
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [answer["question"] for answer in answers] == [problem["question"] for problem in PROBLEMS]
    # Greedy SmolLM2 says "2 + 3 = 5" and stops; it counts words until it is cut.
    assert [answer["correct"] for answer in answers] == [True, False]
    assert [answer["finished"] for answer in answers] == [True, False]
    assert results == json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["accuracy"] == 0.5 and results["share_truncated"] == 0.5
    assert results["mean_tokens"] == (answers[0]["n_tokens"] + 16) / 2
    assert (results["model"], results["problems"], results["max_tokens"]) == ("smollm2-embedded", str(problems), 16)
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["stage"] == "evaluate"


def test_against_a_baseline(evaluation, problems, tmp_path, capsys):
    folder, alone = evaluation
    same = evaluate.main(config(problems, tmp_path / "same", baseline=str(folder)))
    assert (same["token_reduction"], same["delta_accuracy"], same["aes"]) == (0, 0, 0)
    assert "Not a fair comparison" not in capsys.readouterr().out

    longer = evaluate.main(config(problems, tmp_path / "longer", baseline=str(folder), max_tokens=32))
    assert longer["token_reduction"] == pytest.approx(1 - longer["mean_tokens"] / alone["mean_tokens"], abs=1e-12)
    assert longer["token_reduction"] < 0
    assert longer["baseline_max_tokens"] == 16
    printed = capsys.readouterr().out
    assert "Not a fair comparison" in printed and "AES (α, β, γ = 1, 3, 5)" in printed


def test_a_baseline_must_be_an_evaluation_of_the_same_problems(evaluation, problems, tmp_path):
    folder, _ = evaluation
    with pytest.raises(DRPError, match="has no answers.jsonl"):
        evaluate.main(config(problems, tmp_path / "run", baseline=str(tmp_path)))
    other = tmp_path / "other.jsonl"
    other.write_text('{"question": "What is 2+9?", "answer": "11"}\n')
    with pytest.raises(DRPError, match="do not answer the same problems"):
        evaluate.main(config(other, tmp_path / "other", baseline=str(folder)))
