"""`drp score`: outputs of other programs become run folders like those of `drp evaluate`."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from drp_hf.commands.score import ScoreConfig, main, run_folders
from drp_hf.errors import DRPError
from drp_hf.evaluations import read_evaluation
from tests.loopback_hub import LoopbackHub

FIXTURES = Path(__file__).parent / "fixtures"
LM_EVAL = FIXTURES / "lm_eval" / "quickstart-reasoner"
SAMPLES = str(next(LM_EVAL.glob("samples_word_problems_2*.jsonl")))
REPEATED = str(next(LM_EVAL.glob("samples_word_problems_sampled_*.jsonl")))


def output(answer: int | str, wait: int = 0) -> str:
    return f"<think>\n{'Wait. ' * wait}2 + 3 = {answer}.\n</think>\n\nThe answer is {answer}."


def row(question: str, gold: int, answer: int | str, **known) -> dict:
    return {"question": question, "answer": gold, "output": output(answer), **known}


def write(path: Path, *rows: dict) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def answers(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]


def score(*files: str, **settings) -> dict:
    return main(ScoreConfig(files=list(files), **settings))


# ------------------------------------------------------------------------------------------------------- lm-eval


def test_samples_of_lm_eval(tmp_path, smollm2_tokenizer):
    run = tmp_path / "run"
    results = score(SAMPLES, output_dir=str(run), tokenizer="smollm2-embedded")[str(run)]
    assert results["model"] == "quickstart-reasoner" and results["max_tokens"] == 400
    figures = results["benchmarks"]["word_problems"]
    assert (figures["n_questions"], figures["n_samples"], figures["accuracy"]) == (3, 3, 1.0)
    assert figures["constants"]["acu"]["n_parameters"] == 134515008
    rows = answers(run)
    lengths = [len(smollm2_tokenizer(row["output"], add_special_tokens=False)["input_ids"]) for row in rows]
    assert [row["n_tokens"] for row in rows] == lengths
    assert all(row["finished"] for row in rows)
    assert {"benchmark", "question", "answer", "sample", "output", "correct", "extracted"} <= rows[0].keys()
    assert (run / "run.json").is_file()
    assert (run / "disagreements.jsonl").read_text(encoding="utf-8") == ""
    assert read_evaluation(run).benchmarks["word_problems"].row(2) == rows[2]


def test_repeats_that_were_cut_are_not_right(tmp_path):
    run = tmp_path / "run"
    figures = score(REPEATED, output_dir=str(run), tokenizer="smollm2-embedded")[str(run)]["benchmarks"]
    assert figures["word_problems_sampled"]["n_samples"] == 6
    assert figures["word_problems_sampled"]["share_truncated"] == 1.0  # generated up to the limit of 256
    assert list(figures["word_problems_sampled"]["pass_at_k"]) == ["1", "2", "3"]
    rows = answers(run)
    assert [row["sample"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert not any(row["correct"] for row in rows if "</think>" not in row["output"])


def test_outputs_longer_than_their_limit_raise_a_doubt(tmp_path, capsys):
    row = json.loads(Path(SAMPLES).read_text(encoding="utf-8").splitlines()[0])
    row["arguments"]["gen_args_0"]["arg_1"]["max_gen_toks"] = 100
    score(write(tmp_path / "s.jsonl", row), output_dir=str(tmp_path / "run"), tokenizer="smollm2-embedded")
    assert "1 of 1 outputs are longer than the limit at which they were cut" in capsys.readouterr().err


def test_a_limit_that_is_given_raises_the_doubt_too(tmp_path, capsys):
    file = write(tmp_path / "t.jsonl", row("2 + 3?", 5, 5))
    score(file, output_dir=str(tmp_path / "run"), tokenizer="smollm2-embedded", max_tokens=10)
    assert "1 of 1 outputs are longer than the limit at which they were cut" in capsys.readouterr().err


def test_a_cut_output_that_counts_a_little_less_is_no_finished_one(tmp_path, smollm2_tokenizer):
    ids = smollm2_tokenizer("So the total is 9 + 9 = 18.\n\nWait")["input_ids"]
    limit = len(ids) - 1
    cut = smollm2_tokenizer.decode(ids[:limit])
    assert len(smollm2_tokenizer(cut)["input_ids"]) < limit  # two line ends are one token where nothing follows them
    rows = [{"question": text, "answer": 18, "output": text} for text in (cut, "So it is 18.")]
    file = write(tmp_path / "t.jsonl", *rows)
    score(file, output_dir=str(tmp_path / "run"), tokenizer="smollm2-embedded", max_tokens=limit)
    assert [row["finished"] for row in answers(tmp_path / "run")] == [False, True]


def test_without_a_tokenizer_counts_must_be_there(tmp_path):
    with pytest.raises(DRPError, match=r"row 1 has no count of its tokens: name the model's tokenizer"):
        score(SAMPLES, output_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run" / "results.json").exists()


# ---------------------------------------------------------------------------------------------------- plain rows


def test_two_files_are_compared(tmp_path):
    before = [row(f"question {n}", n, n, n_tokens=200, finished=True) for n in range(4)]
    after = [row(f"question {n}", n, n if n else 9, n_tokens=50, finished=True) for n in reversed(range(4))]
    files = (write(tmp_path / "before.jsonl", *before), write(tmp_path / "after.jsonl", *after))
    results = score(*files, output_dir=str(tmp_path / "runs"), budgets=[100])
    assert list(results) == [str(tmp_path / "runs" / name) for name in ("before", "after")]
    first, second = (of["benchmarks"]["before"] for of in results.values())  # the baseline names what is not named
    assert "baseline_accuracy" not in first and first["hca"] == {"100": 0.0}
    assert second["token_reduction"] == 0.75 and second["delta_accuracy"] == -0.25
    assert (second["questions_gained"], second["questions_lost"]) == (0, 1)
    assert second["hca"] == {"100": 0.75}

    alone = score(
        files[1], output_dir=str(tmp_path / "alone"), baseline=str(tmp_path / "runs" / "before"), budgets=[100]
    )
    assert alone[str(tmp_path / "alone")]["benchmarks"]["before"] == second


def test_files_of_the_same_name_are_told_apart_by_their_folders(tmp_path):
    assert list(run_folders(["a/out.jsonl", "b/out.jsonl", "c.jsonl"], "runs")) == [
        Path("runs/a-out"),
        Path("runs/b-out"),
        Path("runs/c"),
    ]
    assert list(run_folders(["a/out.jsonl"], "runs")) == [Path("runs")]
    assert list(run_folders(["m/Qwen2.5-7B", "m/Qwen2.5-1.5B"], "runs")) == [
        Path("runs/Qwen2.5-7B"),
        Path("runs/Qwen2.5-1.5B"),
    ]
    with pytest.raises(DRPError, match="would both be written to runs/a-out"):
        run_folders(["x/a/out.jsonl", "y/a/out.jsonl"], "runs")


def test_long_outputs_count_as_cut_unless_they_say_that_they_are_finished(tmp_path, capsys):
    rows = [
        row("a", 5, 5, n_tokens=9),
        row("b", 5, 5, n_tokens=10),
        row("c", 5, 5, n_tokens=10, finished=True),
        row("d", 5, 5, n_tokens=9, finished=False),
    ]
    file = write(tmp_path / "t.jsonl", *rows)
    score(file, output_dir=str(tmp_path / "limit"), max_tokens=10)
    assert [row["finished"] for row in answers(tmp_path / "limit")] == [True, False, True, False]
    assert "warning" not in capsys.readouterr().err
    score(file, output_dir=str(tmp_path / "none"))
    assert [row["finished"] for row in answers(tmp_path / "none")] == [None, None, True, False]
    assert "warning: whether 2 of 4 outputs were cut is not known" in capsys.readouterr().err


def test_a_question_that_comes_again_is_another_sample_and_any_of_several_golds_is_right(tmp_path):
    rows = [{"question": "x² = 4?", "answer": [2, -2], "output": output(x), "n_tokens": 9} for x in (-2, 2, 3)]
    run = tmp_path / "run"
    results = score(write(tmp_path / "t.jsonl", *rows), output_dir=str(run))
    assert [(row["sample"], row["answer"], row["correct"]) for row in answers(run)] == [
        (0, "2 or -2", True),
        (1, "2 or -2", True),
        (2, "2 or -2", False),
    ]
    assert results[str(run)]["benchmarks"]["t"]["n_questions"] == 1


def test_only_uncounted_outputs_are_counted(tmp_path):
    rows = [row(f"{n}", 5, 5, n_tokens=None if n % 2 else 1000 + n) for n in range(600)]
    run = tmp_path / "run"
    score(write(tmp_path / "t.jsonl", *rows), output_dir=str(run), tokenizer="smollm2-embedded")
    counts = [row["n_tokens"] for row in answers(run)]
    assert counts[::2] == list(range(1000, 1600, 2)) and set(counts[1::2]) == {counts[1]} and 10 < counts[1] < 40


def test_outputs_of_drp_evaluate_can_be_scored_again(tmp_path):
    file = write(tmp_path / "t.jsonl", row("a", 5, 5, n_tokens=9, benchmark="sums", model="m", finished=True))
    score(file, output_dir=str(tmp_path / "once"))
    score(str(tmp_path / "once" / "answers.jsonl"), output_dir=str(tmp_path / "twice"))
    assert answers(tmp_path / "once") == answers(tmp_path / "twice")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"budgets": [10, -1]}, r"budgets are \[10, -1\]: each must be at least 1"),
        ({"budgets": [10, 10]}, "give each one once"),
        ({"n_parameters": 0}, "n_parameters is 0"),
        ({"baseline": "run"}, "run is both the baseline and a folder to write"),
        ({"baseline": "run/u", "files": ["t.jsonl", "u.jsonl"]}, "run/u is both the baseline and a folder to write"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, settings, message):
    with pytest.raises(DRPError, match=message):
        main(ScoreConfig(**{"files": ["t.jsonl"], "output_dir": "run"} | settings))


# ------------------------------------------------------------------------------------------------------- the Hub


def in_a_process(hub: LoopbackHub, cache: Path, *command: str) -> subprocess.CompletedProcess:
    """Runs Python with the Hub on loopback as its only one."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(cache)}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_data_set_of_the_hub(tmp_path):
    write(tmp_path / "repository" / "test.jsonl", *(row(f"{n}", n, n, n_tokens=20 + n, model="m") for n in range(3)))
    (tmp_path / "repository" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    run = tmp_path / "run"
    with LoopbackHub({"demo/outputs": tmp_path / "repository"}) as hub:
        command = ("-m", "drp_hf.cli", "score", "demo/outputs", "--output-dir", str(run))
        done = in_a_process(hub, tmp_path / "cache", *command)
        assert done.returncode == 0, done.stderr
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert results["model"] == "m" and results["benchmarks"]["outputs"]["mean_tokens"] == 21
    assert any(request.endswith("/test.jsonl") for request in hub.requests)
    inputs = json.loads((run / "run.json").read_text(encoding="utf-8"))["inputs"]
    assert list(inputs) == ["demo/outputs"] and re.fullmatch("[0-9a-f]{40}", inputs["demo/outputs"])


CLIENT = """
from huggingface_hub import HfApi, HfFileSystem, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

api = HfApi()
info = api.dataset_info("demo/outputs")
print(sorted(sibling.rfilename for sibling in info.siblings))
print([entry.path for entry in api.list_repo_tree("demo/outputs", repo_type="dataset")])
print([entry.path for entry in api.list_repo_tree("demo/outputs", repo_type="dataset", recursive=True)])
print([(entry.path, getattr(entry, "size", None)) for entry in api.get_paths_info(
    "demo/outputs", ["a/b.txt", "a", "c"], repo_type="dataset", revision=info.sha)])
print(sorted(path.name for path in __import__("pathlib").Path(
    snapshot_download("demo/outputs", repo_type="dataset")).rglob("*") if path.is_file()))
files = HfFileSystem()
with files.open("datasets/demo/outputs/a/b.txt", block_size=4) as stream:
    stream.seek(6)
    print(stream.read(5))
for name, revision, path in (
    ("demo/none", None, "x"), ("demo/outputs", "other", "x"), ("demo/outputs", None, "x")):
    try:
        api.hf_hub_download(name, path, repo_type="dataset", revision=revision)
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        print(type(error).__name__)
"""


def test_the_hub_on_loopback_serves_the_real_client(tmp_path):
    (tmp_path / "repository" / "a").mkdir(parents=True)
    (tmp_path / "repository" / "a" / "b.txt").write_text("hello world, this is a file")
    (tmp_path / "repository" / "top.txt").write_text("top")
    with LoopbackHub({"demo/outputs": tmp_path / "repository"}) as hub:
        done = in_a_process(hub, tmp_path / "cache", "-c", CLIENT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['a/b.txt', 'top.txt']",
        "['a', 'top.txt']",
        "['a', 'a/b.txt', 'top.txt']",
        "[('a/b.txt', 27), ('a', None)]",
        "['b.txt', 'top.txt']",
        "b'world'",
        "RepositoryNotFoundError",
        "RevisionNotFoundError",
        "RemoteEntryNotFoundError",
    ]
