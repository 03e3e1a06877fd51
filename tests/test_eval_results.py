"""Results of a student in the forms that the Hub reads: parsed here by the Hub's own library."""

import json

import pytest
import yaml
from huggingface_hub import ModelCardData, parse_eval_result_entries

from drp_hf.errors import DRPError
from drp_hf.evaluations import write_evaluation
from drp_hf.hub.eval_results import leaderboard_files, model_index, plot_files, read_results

NAMES = ("org/base", "me/student")


def evaluation(folder, tokens, right, benchmark="gsm8k", count=12, **config):
    rows = [
        {
            "benchmark": benchmark,
            "question": f"What is {i} + 1?",
            "answer": str(i + 1),
            "sample": 0,
            "output": "…",
            "correct": right(i),
            "extracted": "1",
            "n_tokens": tokens + i,
            "think_tokens": tokens,
            "finished": True,
            "answer_at": tokens if right(i) else None,
            "first_correct": None,
            "new_tokens": 3,
            "reflections": 0,
        }
        for i in range(count)
    ]
    write_evaluation(folder, "a model", 400, rows)
    settings = {"benchmarks": [benchmark], "limit": None, "split": None, "temperature": 0.0, **config}
    info = {"stage": "evaluate", "created": "2026-11-25T22:05:58+00:00", "config": settings}
    (folder / "run.json").write_text(json.dumps(info))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluations")
    before = evaluation(folder / "before", 200, lambda i: i % 2 == 0)
    return before, evaluation(folder / "after", 80, lambda i: i % 3 == 0)


def test_the_table_has_both_and_the_change_with_intervals(folders):
    (result,) = read_results(*folders, NAMES)
    (accuracy, tokens) = result.rows()
    assert accuracy[1].startswith("50.0% (") and accuracy[2].startswith("33.3% (")
    assert accuracy[3].startswith("−16.7 (") and accuracy[3].endswith(") points")
    assert tokens[1].startswith("205.5 (") and tokens[2].startswith("85.5 (") and tokens[3].startswith("−58.4% (")
    assert result.how == "12 questions, temperature 0, cut at 400 tokens"


def test_the_student_alone(folders):
    (result,) = read_results(None, folders[1], NAMES)
    assert [row[1] for row in result.rows()] == ["–", "–"] and [row[3] for row in result.rows()] == ["", ""]
    assert [entry.metric_type for entry in model_index([result])] == ["accuracy", "mean_tokens"]


def test_the_model_index_is_read_back_by_the_hub_s_own_library(folders):
    entries = model_index(read_results(*folders, NAMES))
    text = ModelCardData(model_name="student", eval_results=entries).to_yaml()
    read = {entry.metric_type: entry for entry in ModelCardData(**yaml.safe_load(text)).eval_results}
    assert set(read) == {"accuracy", "mean_tokens", "token_reduction"}
    assert read["accuracy"].metric_value == 33.33 and read["token_reduction"].metric_value == 58.39
    assert (read["accuracy"].dataset_type, read["accuracy"].dataset_config) == ("openai/gsm8k", "main")
    low, high = read["accuracy"].metric_args["interval"]
    assert 0 <= low < 33.33 < high <= 100 and read["accuracy"].metric_args["n_questions"] == 12


def test_all_of_a_benchmark_of_the_hub_goes_on_its_leaderboard(folders, tmp_path):
    files = leaderboard_files(read_results(*folders, NAMES), "me/student")
    assert list(files) == [".eval_results/gsm8k.yaml"]
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[".eval_results/gsm8k.yaml"]))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "gsm8k", 33.33)
    assert entry.date == "2026-11-25T22:05:58+00:00" and entry.source_url == "https://huggingface.co/me/student"


@pytest.mark.parametrize(
    "changes",
    [{"limit": 12}, {"split": "train"}, {"benchmarks": ["data/gsm8k.jsonl"]}, {"benchmark": "math500"}],
    ids=["some questions", "another split", "a file of that name", "no benchmark of the Hub"],
)
def test_anything_else_does_not(tmp_path, changes):
    (result,) = read_results(None, evaluation(tmp_path / "after", 80, bool, **changes), NAMES)
    assert leaderboard_files([result], "me/student") == {}
    expected = {"data/gsm8k.jsonl": "gsm8k", "math500": "HuggingFaceH4/MATH-500"}
    assert model_index([result])[0].dataset_type == expected.get(result.config["benchmarks"][0], "openai/gsm8k")


def test_plots_are_png_files(folders):
    files = plot_files(read_results(*folders, NAMES))
    assert list(files) == [f"plots/gsm8k_{name}.png" for name in ("lengths", "budgets", "pareto")]
    assert all(content.startswith(b"\x89PNG") for content in files.values())


def test_mistakes_are_one_sentence(folders, tmp_path):
    assert read_results(None, None, NAMES) == []
    with pytest.raises(DRPError, match="before is given without after"):
        read_results(folders[0], None, NAMES)
    with pytest.raises(DRPError, match="is given twice"):
        read_results(folders[0], folders[0], NAMES)
    other = evaluation(tmp_path / "other", 80, bool, benchmark="svamp")
    with pytest.raises(DRPError, match="has answers to svamp|has answers to 'svamp'"):
        read_results(folders[0], other, NAMES)
