import json
import os
import random
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import ParallelismConfig
from datasets import Dataset
from peft import LoraConfig
from test_drp_trainer import TextProcessor, make_rows
from transformers import (
    AutoTokenizer,
    EarlyStoppingCallback,
    LlamaConfig,
    LlamaForCausalLM,
    TrainerCallback,
)

from drp_hf.answers_callback import ACCURACY, FINISHED, TOKENS, AnswersCallback
from drp_hf.drp_config import DRPConfig
from drp_hf.drp_trainer import DRPTrainer
from drp_hf.embedded import resolve
from drp_hf.engines import Sampling
from drp_hf.engines.transformers import TransformersEngine
from drp_hf.errors import DRPError
from drp_hf.records import Problem

# The prompt ends with the question's last word, by which the chain model below tells questions apart.
TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ '<|im_end|>' }}{% endif %}"
    "{% endfor %}"
)
OUTPUTS = {
    "How many apples": "<think>two and then more</think>The answer is 4.",
    "How many of all those green pears": "####5",
    "Count your plums": "Seven",
    "And nuts": " nuts",  # and so on without an end
}
PROBLEMS = [
    Problem("How many apples", "4"),
    Problem("How many of all those green pears", "5"),
    Problem("Count your plums", "8"),
    Problem("And nuts", "9"),
]
FINE = PROBLEMS[:1]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def make_tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(resolve("smollm2-embedded"))
    tokenizer.chat_template = TEMPLATE
    tokenizer.add_tokens(["<think>", "</think>"])  # so that the tokens of an output are all different
    return tokenizer


def random_model(tokenizer, **settings):
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        **settings,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def chain_model(tokenizer, **settings):
    """A model that writes `OUTPUTS`: its layers add nothing, and its head maps every token to the one that follows."""
    following = {}
    for question, output in OUTPUTS.items():
        ids = tokenizer(question + output)["input_ids"] + ([] if "nuts" in output else [tokenizer.eos_token_id])
        start = len(tokenizer(question)["input_ids"]) - 1
        for token, after in pairwise(ids[start:]):
            assert following.setdefault(token, after) == after
    model = random_model(tokenizer, **settings)
    with torch.no_grad():
        for weight in (model.model.embed_tokens.weight, model.lm_head.weight):
            weight.zero_()
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        for place, (token, after) in enumerate(following.items()):
            model.model.embed_tokens.weight[token, place] = 1
            model.lm_head.weight[after, place] = 1
    return model


def make_trainer(model, tokenizer, output_dir, **settings):
    data = Dataset.from_list(list(make_rows(4)))
    kwargs = {name: settings.pop(name) for name in ("peft_config", "callbacks") if name in settings}
    if settings.get("eval_strategy"):
        kwargs["eval_dataset"] = data
    defaults = {
        "per_device_train_batch_size": 2,
        "max_steps": 2,
        "learning_rate": 0.0,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    args = DRPConfig(output_dir=str(output_dir), **{**defaults, **settings})
    return DRPTrainer(model=model, args=args, train_dataset=data, processing_class=tokenizer, **kwargs)


@pytest.fixture
def trainer_of(tokenizer, tmp_path):
    return partial(make_trainer, tokenizer=tokenizer, output_dir=tmp_path)


@pytest.fixture
def trainer(trainer_of, tokenizer):
    return trainer_of(chain_model(tokenizer))


def begin(trainer, callback):
    """The figures before the first step."""
    callback.on_train_begin(trainer.args, trainer.state, trainer.control)
    return trainer.state.log_history[-1]


def completions(callback):
    return dict(callback.student.complete(callback.openings, callback.prompts, callback.sampling))


def curve(trainer):
    return [entry["step"] for entry in trainer.state.log_history if ACCURACY in entry]


def count(tokenizer, output):
    """Tokens of an output with its stop token."""
    return len(tokenizer(output)["input_ids"]) + 1


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_known_answers_have_their_exact_figures(trainer_of, tokenizer, lora, batch_size):
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None
    trainer = trainer_of(chain_model(tokenizer), peft_config=config)
    callback = AnswersCallback(trainer, PROBLEMS, every=1, max_tokens=40, batch_size=batch_size)
    found = completions(callback)
    finished = {index: completion.text for index, completion in found.items() if completion.finished}
    assert finished == dict(enumerate(list(OUTPUTS.values())[:3]))
    assert found[3].text == " nuts" * 40
    tokens = [count(tokenizer, output) for output in list(OUTPUTS.values())[:3]]
    assert [found[index].n_tokens for index in range(4)] == [*tokens, 40]
    entry = begin(trainer, callback)
    assert entry[ACCURACY] == 2 / 4
    assert entry[TOKENS] == (sum(tokens) + 40) / 4
    assert entry[FINISHED] == 3 / 4
    assert entry["step"] == 0


def test_a_model_with_a_processor_answers_with_its_tokenizer(trainer_of, tokenizer):
    processor = TextProcessor(tokenizer, chat_template=tokenizer.chat_template)
    trainer = trainer_of(chain_model(tokenizer), tokenizer=processor)
    entry = begin(trainer, AnswersCallback(trainer, FINE, every=1, max_tokens=40))
    assert (entry[ACCURACY], entry[TOKENS]) == (1, count(tokenizer, OUTPUTS["How many apples"]))


def test_a_model_that_is_always_right(trainer, tokenizer):
    entry = begin(trainer, AnswersCallback(trainer, FINE * 3, every=1, max_tokens=40, batch_size=2))
    expected = (1, count(tokenizer, OUTPUTS["How many apples"]), 1)
    assert (entry[ACCURACY], entry[TOKENS], entry[FINISHED]) == expected


@pytest.mark.parametrize(("missing", "accuracy"), [(2, 1), (3, 0)], ids=["stated", "not stated"])
def test_a_cut_answer_counts_at_the_limit(trainer, tokenizer, missing, accuracy):
    limit = count(tokenizer, OUTPUTS["How many apples"]) - missing  # without full stop and stop token; without the 4
    entry = begin(trainer, AnswersCallback(trainer, FINE, every=1, max_tokens=limit))
    assert (entry[ACCURACY], entry[TOKENS], entry[FINISHED]) == (accuracy, limit, 0)


def test_answers_are_those_of_the_engine(trainer, tokenizer, tmp_path):
    trainer.save_model(tmp_path / "student")
    engine = TransformersEngine(str(tmp_path / "student"), dtype="float32")
    expected = dict(engine.generate([problem.question for problem in PROBLEMS], Sampling(30)))
    assert completions(AnswersCallback(trainer, PROBLEMS, every=1, max_tokens=30, batch_size=3)) == expected


def test_answers_of_the_engine_where_the_context_ends(trainer_of, tokenizer, tmp_path):
    trainer = trainer_of(chain_model(tokenizer, max_position_embeddings=12))
    problems = [Problem(question + " And nuts", "1") for question in ("", "a", "one two", "so")]
    found = completions(AnswersCallback(trainer, problems, every=1, max_tokens=9))
    trainer.save_model(tmp_path / "student")
    engine = TransformersEngine(str(tmp_path / "student"), dtype="float32")
    assert found == dict(engine.generate([problem.question for problem in problems], Sampling(9)))
    assert {completion.n_tokens for completion in found.values()} == {8, 9}


def test_a_prefilled_think_tag_belongs_to_the_answer(trainer_of, tokenizer, monkeypatch):
    prefill = "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE + prefill)
    trainer = trainer_of(chain_model(tokenizer))
    callback = AnswersCallback(trainer, FINE, every=1, max_tokens=5)
    assert completions(callback)[0].text.startswith("<think>\n")
    assert completions(callback)[0].n_tokens == 5


def test_penalties_and_bans_of_the_generation_config_are_left_out(trainer, tokenizer):
    config = trainer.model.generation_config
    config.update(repetition_penalty=9.0, do_sample=True, temperature=3.0, max_length=7, num_beams=2)
    config.suppress_tokens = tokenizer(" answer")["input_ids"]
    before = config.to_dict()
    found = completions(AnswersCallback(trainer, PROBLEMS, every=1, max_tokens=40))
    assert found[0].text == OUTPUTS["How many apples"]
    assert found[3].text == " nuts" * 40
    assert trainer.model.generation_config is config and config.to_dict() == before


def test_every_stop_token_of_the_generation_config_ends_an_answer(trainer, tokenizer):
    closing = tokenizer(" then")["input_ids"][0]
    trainer.model.generation_config.eos_token_id = [closing, tokenizer.eos_token_id]
    found = completions(AnswersCallback(trainer, PROBLEMS, every=1, max_tokens=40))
    assert found[0].finished and found[0].text == "<think>two and"
    assert found[2].finished and found[2].text == OUTPUTS["Count your plums"]


@pytest.mark.parametrize(
    ("max_steps", "expected"), [(5, [0, 2, 4, 5]), (4, [0, 2, 4]), (1, [0, 1])], ids=["beyond", "on it", "short"]
)
def test_the_curve_has_its_ends(trainer_of, tokenizer, max_steps, expected):
    trainer = trainer_of(chain_model(tokenizer), max_steps=max_steps)
    trainer.add_callback(AnswersCallback(trainer, FINE, every=2, max_tokens=4))
    trainer.train()
    assert curve(trainer) == expected
    for entry in trainer.state.log_history:
        if ACCURACY in entry:
            assert entry.keys() == {ACCURACY, TOKENS, FINISHED, "step", "epoch"}  # and no metric of the training


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 3


@pytest.mark.parametrize("first", [True, False])
def test_a_training_that_is_stopped_has_its_end(trainer_of, tokenizer, first):
    trainer = trainer_of(chain_model(tokenizer), max_steps=9, callbacks=[Stop()] if first else [])
    trainer.add_callback(AnswersCallback(trainer, FINE, every=2, max_tokens=4))
    if not first:
        trainer.add_callback(Stop())
    trainer.train()
    assert curve(trainer) == [0, 2, 3]


@pytest.mark.parametrize("first", [True, False], ids=["seen", "not seen"])
def test_the_best_model_is_not_taken_for_that_of_the_last_step(trainer_of, tokenizer, first):
    stopping = EarlyStoppingCallback(1)
    trainer = trainer_of(
        random_model(tokenizer),
        max_steps=9,
        learning_rate=1.0,  # the loss grows: the best model is the first
        lr_scheduler_type="constant",
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        callbacks=[stopping] if first else [],
    )
    trainer.add_callback(AnswersCallback(trainer, FINE, every=100, max_tokens=4))
    if not first:  # after our callback, which then learns of the end when the best model is already loaded
        trainer.add_callback(stopping)
    trainer.train()
    assert trainer.state.best_global_step < trainer.state.global_step < 9
    assert curve(trainer) == ([0, trainer.state.global_step] if first else [0])


def test_resuming_goes_on_with_the_curve(trainer_of, tokenizer, tmp_path):
    def run(checkpoint=None):
        trainer = trainer_of(chain_model(tokenizer), max_steps=4, save_strategy="steps", save_steps=2)
        trainer.add_callback(AnswersCallback(trainer, FINE, every=3, max_tokens=4))
        trainer.train(resume_from_checkpoint=checkpoint)
        return curve(trainer)

    assert run() == [0, 3, 4]
    assert run(str(tmp_path / "checkpoint-2")) == [0, 3, 4]
    assert run(str(tmp_path / "checkpoint-4")) == [0, 3, 4]  # nothing is left to train


def draw(module, inputs, output):
    """A hook for a model that takes random numbers while it generates."""
    if not module.training:
        torch.rand(1), random.random(), np.random.rand()


def test_random_numbers_go_on_as_if_nothing_had_been(trainer):
    trainer.model.lm_head.register_forward_hook(draw)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    begin(trainer, AnswersCallback(trainer, FINE, every=1, max_tokens=4))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert all(np.array_equal(one, other) for one, other in zip(np.random.get_state(), before[2], strict=True))


def trained(trainer, with_answers):
    """Final weights and everything the training logged."""
    trainer.model.get_output_embeddings().register_forward_hook(draw)
    if with_answers:
        trainer.add_callback(AnswersCallback(trainer, PROBLEMS, every=2, max_tokens=6, batch_size=2))
    torch.manual_seed(0)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if ACCURACY not in entry]
    return trainer.model.state_dict(), [
        {name: value for name, value in entry.items() if "runtime" not in name and "second" not in name}
        for entry in entries
    ]


@pytest.mark.parametrize(
    "settings",
    [{"logging_steps": 1}, {"logging_steps": 3, "gradient_checkpointing": True}],
    ids=["plain", "checkpointed"],
)
def test_the_training_is_the_same_to_the_last_bit(trainer_of, tokenizer, settings):
    settings = {"max_steps": 5, "learning_rate": 1e-2, **settings}
    lora = partial(LoraConfig, r=4, target_modules="all-linear", task_type="CAUSAL_LM", lora_dropout=0.3)
    expected = trained(trainer_of(random_model(tokenizer), peft_config=lora(), **settings), with_answers=False)
    found = trained(trainer_of(random_model(tokenizer), peft_config=lora(), **settings), with_answers=True)
    assert found[1] == expected[1]
    assert sum("loss" in entry for entry in found[1]) == 5 // settings["logging_steps"]
    assert found[0].keys() == expected[0].keys()
    assert all(torch.equal(found[0][name], expected[0][name]) for name in expected[0])


def test_modes_and_checkpointing_are_what_they_were(trainer_of, tokenizer):
    model = chain_model(tokenizer)
    trainer = trainer_of(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    model.model.layers[0].eval()
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append((model.training, output.shape[1])))

    def state():
        modules = list(model.modules())
        flags = [getattr(module, "gradient_checkpointing", None) for module in modules]
        functions = [getattr(module, "_gradient_checkpointing_func", None) for module in modules]
        return [module.training for module in modules], flags, functions

    before = state()
    begin(trainer, AnswersCallback(trainer, FINE, every=1, max_tokens=6))
    assert state() == before and True in before[1]
    # One position a step: the cache is in use.
    assert seen == [(False, 1)] * 6


def test_nothing_is_printed(trainer_of, tokenizer, capfd, recwarn, caplog):
    trainer = trainer_of(chain_model(tokenizer), gradient_checkpointing=True)
    callback = AnswersCallback(trainer, PROBLEMS, every=1, max_tokens=6)
    recwarn.clear()
    caplog.clear()
    capfd.readouterr()
    completions(callback)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list and not caplog.records


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problems": []}, "There are no held-out problems to answer"),
        ({"every": 0}, "every is 0 for the held-out answers: give 1 or more."),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"problems": [*FINE, Problem("plums " * 40, "1")]}, "leaving no room in the context of"),
    ],
)
def test_what_cannot_be_answered_is_refused(trainer_of, tokenizer, settings, message):
    trainer = trainer_of(chain_model(tokenizer, max_position_embeddings=40))
    with pytest.raises(DRPError, match=message):
        AnswersCallback(trainer, **{"problems": FINE, "every": 1, "max_tokens": 4, **settings})


def test_processes_that_share_a_layer_are_refused(trainer, monkeypatch):
    monkeypatch.setattr(trainer.accelerator.state, "parallelism_config", ParallelismConfig(tp_size=2))
    with pytest.raises(DRPError, match="cannot be written with tensor, context or sequence parallelism"):
        AnswersCallback(trainer, FINE, every=1, max_tokens=4)


def launch(output_dir, *arguments):
    """Runs this file in two processes; gives what each wrote."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    done = subprocess.run([*command, str(output_dir), *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads((Path(output_dir) / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_two_processes_share_the_problems(trainer, tokenizer, tmp_path):
    entry = begin(trainer, AnswersCallback(trainer, PROBLEMS + FINE, every=1, max_tokens=30, batch_size=2))
    figures = {name: entry[name] for name in (ACCURACY, TOKENS, FINISHED)}
    first, second = launch(tmp_path)
    assert first["curve"] == second["curve"] == [{**figures, "step": step} for step in (0, 1, 2)]
    assert sorted(first["share"] + second["share"]) == [0, 1, 2, 3, 4]
    assert first["share"] and second["share"]
    # FSDP2, with an adapter: the same answers from sharded weights, and a backward pass afterwards.
    assert first["sharded"] == first["whole"] and second["sharded"] == second["whole"]


def main(output_dir):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    tokenizer = make_tokenizer()
    trainer = make_trainer(chain_model(tokenizer), tokenizer, output_dir, per_device_train_batch_size=1)
    callback = AnswersCallback(trainer, PROBLEMS + FINE, every=1, max_tokens=30, batch_size=2)
    trainer.add_callback(callback)
    trainer.train()
    names = (ACCURACY, TOKENS, FINISHED, "step")
    entries = [entry for entry in trainer.state.log_history if ACCURACY in entry]
    found = {"curve": [{name: entry[name] for name in names} for entry in entries]}
    found["share"] = sorted(completions(callback))

    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = make_trainer(chain_model(tokenizer), tokenizer, output_dir, peft_config=lora)
    callback = AnswersCallback(trainer, PROBLEMS + FINE, every=1, max_tokens=30, batch_size=2)
    trainer.model.eval()
    found["whole"] = [completion.text for completion in completions(callback).values()]
    mesh = init_device_mesh("cpu", (2,))
    for layer in trainer.model.get_base_model().model.layers:
        fully_shard(layer, mesh=mesh)
    trainer.model_wrapped = fully_shard(trainer.model, mesh=mesh)
    found["sharded"] = [completion.text for completion in completions(callback).values()]
    ids = torch.tensor([[1, 2, 3]])
    trainer.model(input_ids=ids, labels=ids).loss.backward()
    Path(output_dir, f"{trainer.args.process_index}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
