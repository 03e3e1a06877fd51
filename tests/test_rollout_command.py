import json
import sys

import pytest

from drp_hf.commands import rollout
from drp_hf.commands.parsing import parse
from drp_hf.commands.rollout import RolloutConfig
from drp_hf.corpus.reading import read_traces
from drp_hf.engines.transformers import TransformersEngine
from drp_hf.errors import DRPError

PROBLEMS = [
    {"question": "What is 2+3?", "answer": "5"},
    {"question": "Hi", "answer": "1"},
    {"question": "Name a colour and say why you like it.", "answer": "2"},
]


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """In bfloat16, the choice where the processor has matrix units, a batch's size shows in its results."""
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)


@pytest.fixture
def problems(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS), encoding="utf-8")
    return path


def config(problems, output_dir, **changes) -> RolloutConfig:
    settings = {"max_tokens": 12, "samples": 2, "engine": "transformers", "batch_size": 2, **changes}
    return RolloutConfig(problems=str(problems), model="smollm2-embedded", output_dir=str(output_dir), **settings)


def read(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_traces_are_what_the_pruner_reads(problems, tmp_path, capsys):
    traces = rollout.main(config(problems, tmp_path / "run"))
    rows = read(traces)
    assert [(row["question"], row["sample"]) for row in rows] == [(p["question"], s) for p in PROBLEMS for s in (0, 1)]
    assert all(row["n_tokens"] == 12 or (row["finished"] and 0 < row["n_tokens"] < 12) for row in rows)
    assert rows[4]["output"] != rows[5]["output"]

    readings = list(read_traces(traces)["train"])
    assert [reading.trace.question for reading in readings] == [row["question"] for row in rows]
    assert {reading.trace.model for reading in readings} == {"smollm2-embedded"}
    # The embedded model as it comes does not think: the reader says so, and keeps the text.
    assert {reading.problem for reading in readings} == {"no think tags"}
    assert readings[0].trace.response == rows[0]["output"].strip()

    info = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert info["stage"] == "rollout" and info["config"]["samples"] == 2
    assert info["measured"]["answers"] == len(rows) and info["measured"]["seconds"] > 0
    assert info["measured"]["tokens"] == sum(row["n_tokens"] for row in rows)
    assert list(info["inputs"]) == ["smollm2-embedded", str(problems)]
    assert "mean tokens" in capsys.readouterr().out


def test_an_interrupted_rollout_goes_on_and_asks_nothing_twice(problems, tmp_path, monkeypatch):
    undisturbed = read(rollout.main(config(problems, tmp_path / "undisturbed")))

    complete = TransformersEngine._generate_ids
    asked = []

    def interrupted(self, prompts, sampling, seeds):
        asked.append(len(prompts))
        for number, answer in enumerate(complete(self, prompts, sampling, seeds)):
            if number == 2:
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(TransformersEngine, "_generate_ids", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rollout.main(config(problems, tmp_path / "run"))
    assert not (tmp_path / "run" / "traces.jsonl").exists()

    def counted(self, prompts, sampling, seeds):
        asked.append(len(prompts))
        return complete(self, prompts, sampling, seeds)

    monkeypatch.setattr(TransformersEngine, "_generate_ids", counted)
    assert read(rollout.main(config(problems, tmp_path / "run"))) == undisturbed
    assert asked == [6, 4]
    assert read(rollout.main(config(problems, tmp_path / "run"))) == undisturbed
    assert asked == [6, 4], "a finished run asks nothing"
    rollout.main(config(problems, tmp_path / "run", seed=1, samples=1, limit=2))
    assert asked == [6, 4, 2], "other settings are other answers"


def test_rows_that_are_left_out_are_told(problems, tmp_path, capsys):
    with problems.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(PROBLEMS[0]) + "\n")
    rows = read(rollout.main(config(problems, tmp_path / "run", max_tokens=1)))
    assert len(rows) == 2 * len(PROBLEMS)
    said = capsys.readouterr().err
    assert f"warning: 1 rows of {problems} repeat an earlier one, and are left out: for several answers" in said
    assert "set samples" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "samples is 0"),
        ({"temperature": 0.0}, "all samples are the same"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"engine": "tgi"}, "no engine 'tgi'"),
        ({"problems": "nowhere.jsonl"}, "nowhere.jsonl does not exist"),
    ],
)
def test_bad_settings_are_named(problems, tmp_path, changes, message):
    bad = config(problems, tmp_path / "run")
    for name, value in changes.items():
        setattr(bad, name, value)
    with pytest.raises(DRPError, match=message):
        rollout.main(bad)


def test_gold_answers_that_nothing_equals_are_said_before_the_model_is_loaded(problems, tmp_path, capsys):
    problems.write_text(json.dumps({"question": "2 + 3?", "answer": "$"}) + "\n", encoding="utf-8")
    bad = config(problems, tmp_path / "run")
    bad.model = "./nosuch"
    with pytest.raises(DRPError, match="No model found"):
        rollout.main(bad)
    assert "1 gold answers cannot be compared with anything" in capsys.readouterr().err


def test_the_command_line_ends_with_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["drp rollout", "nowhere.jsonl", "--model", "m", "--output-dir", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        rollout.cli()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: nowhere.jsonl does not exist")


def test_flags_override_the_recipe():
    args = ["p.jsonl", "--model", "m", "--output_dir", "o", "--config", "recipes/quickstart/rollout.yaml"]
    parsed = parse(RolloutConfig, [*args, "--top_p", "0.5"], positional="problems")
    assert (parsed.problems, parsed.max_tokens, parsed.top_p) == ("p.jsonl", 640, 0.5)
