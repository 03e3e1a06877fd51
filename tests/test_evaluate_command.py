import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
from test_engine_server import Loopback

from drp_hf import answering, budget_forcing
from drp_hf.answering import AnsweringModel, Request
from drp_hf.answers import stated_answer
from drp_hf.budget_forcing import FORCED_END, at_once, cut_reasoning
from drp_hf.commands import evaluate, rollout
from drp_hf.commands.evaluate import EvaluateConfig, ThinkTags, gold_warning
from drp_hf.commands.parsing import parse
from drp_hf.commands.rollout import RolloutConfig
from drp_hf.engines import Completion, transformers
from drp_hf.engines.transformers import TransformersEngine
from drp_hf.errors import DRPError
from drp_hf.evaluations import read_evaluation
from drp_hf.grading import Grader
from drp_hf.problems import generate
from drp_hf.store import RowStore

SUMS = [
    {"question": "What is 2+3?", "answer": "5"},
    {"question": "Count from one to fifty in words.", "answer": "50"},
]
WORDS = [{"question": "Hi", "answer": "Hello"}]


@pytest.fixture(scope="module", autouse=True)
def one_model_in_float32():
    """Each model is loaded once for all tests.

    In bfloat16, the choice where the processor has matrix units, a batch's size shows in its results.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
        patch.setattr(transformers, "load_model_and_tokenizer", cache(transformers.load_model_and_tokenizer))
        patch.setattr(answering, "load_tokenizer", cache(answering.load_tokenizer))
        patch.setattr(answering, "model_identity", cache(answering.model_identity))
        yield


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    folder = tmp_path_factory.mktemp("problems")
    for name, rows in {"sums": SUMS, "words": WORDS}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def config(problems, output_dir, **changes) -> EvaluateConfig:
    names = changes.pop("names", ("sums", "words"))
    settings = {"model": "smollm2-embedded", "max_tokens": 16, "engine": "transformers", **changes}
    benchmarks = [str(problems / f"{name}.jsonl") for name in names]
    return EvaluateConfig(benchmarks=benchmarks, output_dir=str(output_dir), **settings)


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def evaluation(problems, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "base"
    return folder, evaluate.main(config(problems, folder, budgets=[12, 16]))


def test_one_run_folder_for_all_benchmarks(evaluation, problems):
    folder, results = evaluation
    answers = read(folder / "answers.jsonl")
    assert [(row["benchmark"], row["question"]) for row in answers] == [
        *(("sums", problem["question"]) for problem in SUMS),
        ("words", "Hi"),
    ]
    # Greedy SmolLM2 says "2 + 3 = 5" and stops; it counts words, and greets, until it is cut.
    assert [row["correct"] for row in answers[:2]] == [True, False]
    assert [row["finished"] for row in answers[:2]] == [True, False]
    assert all(row["sample"] == 0 and row["think_tokens"] == 0 for row in answers)

    assert results == json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (results["model"], results["max_tokens"]) == ("smollm2-embedded", 16)
    assert list(results["benchmarks"]) == ["sums", "words"]
    sums = results["benchmarks"]["sums"]
    assert (sums["accuracy"], sums["share_truncated"]) == (0.5, 0.5)
    assert sums["mean_tokens"] == (answers[0]["n_tokens"] + 16) / 2
    assert set(sums["hca"]) == {"12", "16"}
    assert sums["constants"]["acu"]["n_parameters"] == 134_515_008, "counted from the weights"

    info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert info["stage"] == "evaluate" and info["config"]["budgets"] == [12, 16]
    assert info["measured"]["tokens"] == sum(answer["n_tokens"] for answer in answers)
    assert list(info["inputs"]) == [
        "smollm2-embedded",
        *(str(problems / f"{name}.jsonl") for name in ("sums", "words")),
    ]
    assert read(folder / "disagreements.jsonl") == []
    assert not (folder / "forced.jsonl").exists()
    back = read_evaluation(folder)
    assert back.benchmarks["sums"].row(1) == answers[1]


def test_against_a_baseline(evaluation, problems, tmp_path, capsys):
    folder, alone = evaluation
    same = evaluate.main(config(problems, tmp_path / "same", baseline=str(folder)))["benchmarks"]["sums"]
    assert (same["token_reduction"], same["delta_accuracy"], same["aes"]) == (0, 0, 0)
    printed = capsys.readouterr()
    assert "Not a fair comparison" not in printed.out
    assert "3 of 3 outputs have no </think>" in printed.err

    assert "sampled in another way" not in printed.err

    longer = evaluate.main(config(problems, tmp_path / "longer", baseline=str(folder), max_tokens=32, temperature=0.6))
    assert longer["baseline_max_tokens"] == 16
    figures = longer["benchmarks"]["sums"]
    before = alone["benchmarks"]["sums"]["mean_tokens"]
    assert figures["token_reduction"] == pytest.approx(1 - figures["mean_tokens"] / before, abs=1e-12)
    assert figures["token_reduction"] < 0
    printed = capsys.readouterr()
    assert "Not a fair comparison" in printed.out and "AES (α, β, γ = 1, 3, 5)" in printed.out
    assert "was sampled in another way: temperature 0 there and 0.6 here." in " ".join(printed.err.split())


def test_a_baseline_must_answer_the_same_questions(evaluation, problems, tmp_path, monkeypatch):
    folder, _ = evaluation
    monkeypatch.setattr(TransformersEngine, "__init__", None)  # nothing is generated
    with pytest.raises(DRPError, match="has no answers.jsonl"):
        evaluate.main(config(problems, tmp_path / "run", baseline=str(tmp_path)))
    with pytest.raises(DRPError, match="do not have the same questions .1 differ, one is 'Count from one"):
        evaluate.main(config(problems, tmp_path / "run", baseline=str(folder), limit=1))
    (tmp_path / "other.jsonl").write_text('{"question": "What is 2+9?", "answer": "11"}\n')
    with pytest.raises(DRPError, match="has no answers to 'other'"):
        evaluate.main(config(tmp_path, tmp_path / "run", names=["other"], baseline=str(folder)))
    with pytest.raises(DRPError, match="is both the baseline and the folder to write"):
        evaluate.main(config(problems, folder, baseline=str(folder)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 2}, "all samples are the same"),
        ({"budgets": [0, 4]}, r"budgets are \[0, 4\]: each must be at least 1"),
        ({"budgets": [4, 4]}, "give each one once"),
        ({"force_answer": True}, "force_answer is set, but no budgets"),
        ({"n_parameters": 0}, "n_parameters is 0"),
        ({"prompt": "Solve it."}, "no place for the question"),
        ({"base_url": "http://localhost:1/v1"}, "base_url is given, but the engine is transformers"),
        ({"force_answer": True, "budgets": [9], "engine": "chat"}, "go on from a text, which a chat cannot"),
        ({"names": ["sums", "nowhere"]}, "nowhere.jsonl does not exist"),
        ({"names": ["sums", "sums"]}, "are both called 'sums'"),
    ],
)
def test_bad_settings_are_named(problems, tmp_path, changes, message):
    with pytest.raises(DRPError, match=message):
        evaluate.main(config(problems, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists(), "found before anything is done"


def test_samples_differ_and_are_asked_once(problems, tmp_path, monkeypatch):
    complete = TransformersEngine._generate_ids
    asked = []

    def counted(self, prompts, sampling, seeds):
        asked.append(len(prompts))
        return complete(self, prompts, sampling, seeds)

    monkeypatch.setattr(TransformersEngine, "_generate_ids", counted)

    def run(samples=2):
        sampled = {"temperature": 2.0, "samples": samples, "max_tokens": 4}
        evaluate.main(config(problems, tmp_path / "run", names=["words"], **sampled))
        return read(tmp_path / "run" / "answers.jsonl")

    first = run()
    assert [row["sample"] for row in first] == [0, 1] and first[0]["output"] != first[1]["output"]
    assert run() == first and asked == [2]
    assert run(samples=3)[:2] == first and asked == [2, 1], "a third answer is asked for, and no other"


def test_everything_that_decides_an_answer_is_in_its_key(problems, student, tmp_path):
    def key(prefix=None, sample=0, **changes):
        with AnsweringModel(config(problems, tmp_path / "run", **{"model": str(student), **changes})) as model:
            return model.keys([Request("Hi", sample, prefix)], model.sampling)[0]

    changes = [
        {"prompt": "{question}!"},
        {"system": "Be short."},
        {"context_length": 100},
        {"temperature": 0.8},
        {"top_p": 0.9},
        {"seed": 1},
        {"max_tokens": 2},
        {"model": "smollm2-embedded"},
        {"engine": "server"},
        {"engine": "chat"},
        {"sample": 1},
        {"prefix": "Well"},
    ]
    keys = [key(**change) for change in ({}, *changes)]
    assert len(set(keys)) == len(keys)
    assert key() == key(batch_size=1) == key(names=["sums"]) == keys[0], "what decides nothing is not"


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    for name, count in (("one", 3), ("two", 2)):
        rows = (asdict(problem.to_problem()) for problem in generate(count, "test", seed=count))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"temperature": 0.7, "max_tokens": 4, "batch_size": 1, "names": ["one", "two"]}
    undisturbed = config(tmp_path, tmp_path / "undisturbed", **settings)
    evaluate.main(undisturbed)

    flags = ["--model", undisturbed.model, "--engine", "transformers", "--output_dir", str(tmp_path / "killed")]
    flags += ["--temperature", "0.7", "--max_tokens", "4", "--batch_size", "1"]
    program = "import torch; torch.cpu._is_amx_tile_supported = lambda: False; "
    program += "from drp_hf.commands.evaluate import cli; cli()"
    command = [sys.executable, "-c", program, *undisturbed.benchmarks, *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        seen = b""
        while b" 2/5 " not in seen:
            byte = process.stderr.read(1)
            assert byte, seen[-2000:]
            seen += byte
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "killed" / "answers.jsonl").exists()
    with RowStore(tmp_path / "killed" / "outputs.sqlite") as store:
        done = len(store)
    assert 1 <= done < 5

    asked = []
    complete = TransformersEngine._generate_ids

    def counted(self, prompts, sampling, seeds):
        asked.append(len(prompts))
        return complete(self, prompts, sampling, seeds)

    monkeypatch.setattr(TransformersEngine, "_generate_ids", counted)
    evaluate.main(config(tmp_path, tmp_path / "killed", **settings))
    assert asked == [5 - done]
    for file in ("answers.jsonl", "results.json", "disagreements.jsonl"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "undisturbed" / file).read_bytes()


def test_forced_answers(tmp_path, monkeypatch, capsys):
    """Two word problems, whose reasoning is cut at its 30th token; the model is made to answer after 8."""
    rows = [asdict(problem.to_problem()) for problem in generate(2, "test", 1)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"names": ["test"], "model": "quickstart-reasoner", "max_tokens": 30, "budgets": [8, 500]}
    settings |= {"force_answer": True}
    monkeypatch.setattr(budget_forcing, "FORCED_TOKENS", 8)
    results = evaluate.main(config(tmp_path, tmp_path / "run", **settings))
    forced = read(tmp_path / "run" / "forced.jsonl")
    answers = read(tmp_path / "run" / "answers.jsonl")
    assert [(row["budget"], row["question"]) for row in forced] == [(8, row["question"]) for row in rows]
    for row, answer in zip(forced, answers, strict=True):
        reasoning, _, said = row["output"].partition(FORCED_END)
        assert answer["output"].startswith(reasoning) and 0 < len(reasoning) < len(answer["output"])
        assert said.strip() and "\n\n" not in said.strip()
        assert row["correct"] == (stated_answer("The final answer is" + said) == row["answer"])
    figures = results["benchmarks"]["test"]
    assert figures["forced"]["8"] == {
        "accuracy": np.mean([row["correct"] for row in forced]),
        "mean_tokens": np.mean([row["n_tokens"] for row in forced]),
        "share_forced": 1,
    }
    # No reasoning is as long as 500 tokens: nothing is asked, and all stays as it was.
    assert figures["forced"]["500"] == {"accuracy": 0, "mean_tokens": 30, "share_forced": 0}
    assert figures["constants"]["forced"] == {"text": FORCED_END, "max_tokens": 8}
    assert json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8")) == results
    printed = capsys.readouterr()
    assert "Made to answer after a budget" in printed.out
    assert "30 tokens are too few, raise max_tokens" in printed.err

    monkeypatch.setattr(TransformersEngine, "_generate_ids", None)  # nothing is asked again
    assert evaluate.main(config(tmp_path, tmp_path / "run", **settings)) == results
    without = evaluate.main(config(tmp_path, tmp_path / "run", **settings | {"force_answer": False}))
    assert "forced" not in without["benchmarks"]["test"] and not (tmp_path / "run" / "forced.jsonl").exists()


def test_a_server_gives_what_the_model_itself_gives(tmp_path, monkeypatch):
    row = asdict(next(generate(1, "test", 1)).to_problem())
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    settings = {"names": ["test"], "max_tokens": 12, "budgets": [6], "force_answer": True}
    monkeypatch.setattr(budget_forcing, "FORCED_TOKENS", 4)
    evaluate.main(config(tmp_path, tmp_path / "itself", **settings, model="quickstart-reasoner"))
    server = Loopback(TransformersEngine("quickstart-reasoner"), names=["./served"])
    asked = {"model": "./served", "tokenizer": "quickstart-reasoner", "engine": "server", "base_url": server.url}
    evaluate.main(config(tmp_path, tmp_path / "server", **settings, **asked))
    for file in ("answers.jsonl", "forced.jsonl"):
        assert (tmp_path / "server" / file).read_bytes() == (tmp_path / "itself" / file).read_bytes()
    assert len(server.requests) == 2
    server.shutdown()
    evaluate.main(config(tmp_path, tmp_path / "server", **settings, **asked | {"base_url": "http://127.0.0.1:9/v1"}))

    asked["tokenizer"] = None
    with pytest.raises(DRPError, match="force_answer needs the tokenizer of ./served"):
        evaluate.main(config(tmp_path, tmp_path / "server", **settings, **asked))


def test_half_a_surrogate_pair_in_an_output_ends_no_run(problems, tmp_path):
    """JSON of a server can hold it; no tokenizer and no file takes it."""
    server = Loopback(TransformersEngine("smollm2-embedded"))
    write = server.write

    def broken(prompt, body):
        text, end = write(prompt, body)
        return f"{text}\ud83d", end

    server.write = broken
    asked = {"engine": "server", "base_url": server.url}
    evaluate.main(config(problems, tmp_path / "answers", names=("sums",), **asked, budgets=[4], force_answer=True))
    settings = {"model": "smollm2-embedded", "temperature": 0.0, "max_tokens": 16}
    rolled = RolloutConfig(problems=str(problems / "sums.jsonl"), output_dir=str(tmp_path / "traces"), **settings)
    traces = rollout.main(replace(rolled, **asked))
    server.shutdown()
    for rows in (read(tmp_path / "answers" / "answers.jsonl"), read(traces)):
        assert len(rows) == len(SUMS) and all(row["output"].endswith("?") for row in rows)


def test_where_reasoning_is_cut(smollm2_tokenizer):
    output = "<think>\nFirst 2 + 3 = 5. Then 5 + 4 = 9.\n</think>\n\nThe answer is 9."
    ids = smollm2_tokenizer(output, add_special_tokens=False)["input_ids"]
    for budget in range(1, 20):
        cut = cut_reasoning(output, budget, smollm2_tokenizer)
        assert cut == smollm2_tokenizer.decode(ids[:budget]).partition("\n</")[0].rstrip() + FORCED_END
    closing = cut_reasoning(output, len(ids) - 5, smollm2_tokenizer)
    assert closing == "<think>\nFirst 2 + 3 = 5. Then 5 + 4 = 9." + FORCED_END, "no tag is closed twice"


def test_what_is_answered_at_once(smollm2_tokenizer):
    def answered(text):
        return at_once(Completion(text, 30, False), smollm2_tokenizer)

    assert answered(" 28") == Completion(" 28", 30, False)
    assert answered("\n\n\\[ 28 \\]") == Completion("\n\n\\[ 28 \\]", 30, False)
    assert answered(" 28.\n\nWait, 29.") == Completion(" 28.", 4, True)
    assert answered(":\n\n\\[\n28\n\\]\n\nWait, 29.").text == ":\n\n\\[\n28\n\\]"
    assert answered(" as follows:**\n\n**28**\n\nWait.").text == " as follows:**\n\n**28**"
    assert answered(":\n\n") == Completion(":\n\n", 30, False)


def test_a_prompt_that_the_student_was_not_trained_with_is_said(problems, student, tmp_path, capsys):
    folder = shutil.copytree(student, tmp_path / "student")
    run = {"config": {"arguments": {"prompt": "{question} {question}"}}}
    (folder / "run.json").write_text(json.dumps(run))
    said = {}
    for prompt in ("{question}", "{question} {question}"):
        changes = {"model": str(folder), "prompt": prompt, "limit": 1, "max_tokens": 2}
        evaluate.main(config(problems, tmp_path / "run", **changes))
        said[prompt] = capsys.readouterr().err
    expected = "was trained with the prompt '{question} {question}', and is asked with '{question}'."
    assert expected in said["{question}"] and "was trained with" not in said["{question} {question}"]


def test_missing_think_tags_are_explained():
    def warning(*rows):
        tags = ThinkTags()
        list(tags.watch({"output": output, "finished": finished} for output, finished in rows))
        return tags.warning(max_tokens=100)

    good, cut, ended = ("<think>a</think>b", True), ("<think>a", False), ("b", True)
    assert warning(good, good, cut, ended) is None
    assert warning(good, cut, cut, ended) == (
        "3 of 4 outputs have no </think>, and 2 of these were cut: 100 tokens are too few, raise max_tokens."
    )
    assert "2 of 3 outputs have no </think>, and only 0 of these were cut: the model does not reason" in warning(
        good, ended, ended
    )


def test_gold_answers_that_nothing_equals():
    from drp_hf.benchmarks import Benchmark
    from drp_hf.records import Problem

    with Grader() as grader:
        assert gold_warning([Benchmark("a", "a.jsonl", [Problem("2+3?", "5")])], grader) is None
        bad = Benchmark("b", "b.jsonl", [Problem("2+3?", "5"), Problem("2+4?", "$")])
        assert gold_warning([bad], grader).startswith("1 gold answers cannot be compared with anything")


def test_the_command_line(tmp_path):
    args = ["p.jsonl", "gsm8k", "--model", "m", "--output_dir", "o", "--config", "recipes/quickstart/evaluate.yaml"]
    parsed = parse(EvaluateConfig, args, positional="benchmarks")
    assert (parsed.benchmarks, parsed.max_tokens, parsed.budgets) == (["p.jsonl", "gsm8k"], 640, [64, 128, 256])
    assert (parsed.samples, parsed.context_length, parsed.prompt) == (1, 131_072, "{question}")
