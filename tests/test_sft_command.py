import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import torch
import yaml
from datasets import Dataset, load_dataset
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from trl import ModelConfig

from drp_hf.benchmarks import BENCHMARKS
from drp_hf.commands.sft import SFTArguments, cli, is_same_student, main, read_asked
from drp_hf.commands.training import check, load_rows
from drp_hf.corpus.builder import SAMPLE_DIR
from drp_hf.drp_config import DRPConfig
from drp_hf.errors import DRPError
from drp_hf.models import adapter_chain, load_model_and_tokenizer
from drp_hf.records import Problem, final_response, render_output

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for i in range(8):
        content = render_output(f"{i} + 1 = {i + 1}.", final_response(str(i + 1)))
        start = content.index(f"{i} + 1")
        step = {"start": start, "end": content.index("\n</think>"), "skill": "adding", "action": "MERGE"}
        prompt = [{"role": "user", "content": f"What is {i} + 1?"}]
        rows.append({"prompt": prompt, "completion": [{"role": "assistant", "content": content}], "steps": [step]})
    Dataset.from_list(rows).to_parquet(folder / "train.parquet")
    return folder


def launch(*arguments):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "recipes/sft.py", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


def test_the_recipe_trains_saves_merges_and_accounts(student, corpus, tmp_path):
    settings = ["--dataset", str(corpus), "--model_name_or_path", str(student), "--output_dir", str(tmp_path)]
    settings += ["--action_weights", '{"MERGE": 0.5}', "--max_steps", "2", "--logging_steps", "1", "--merge"]
    done = launch("--config", "recipes/quickstart/sft.yaml", *settings)
    assert done.returncode == 0, done.stderr
    table = [line for line in done.stdout.splitlines() if "│" in line]
    assert len(table) == 1 and table[0].split("│")[1].strip() == "8"

    run = json.loads((tmp_path / "run.json").read_text())
    assert run["stage"] == "sft"
    assert run["config"]["training"]["action_weights"] == {"MERGE": 0.5}
    assert run["config"]["model"]["lora_target_modules"] == "all-linear"
    assert set(run["inputs"]) == {str(corpus), str(student)}
    assert "tags:" in (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == str(student)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 3 + 1?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(student), tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    loaded, _ = load_model_and_tokenizer(str(tmp_path))
    outputs = [model.generate(**prompt, max_new_tokens=12, do_sample=False) for model in (adapted, merged, loaded)]
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])
    base = AutoModelForCausalLM.from_pretrained(student)
    assert not torch.allclose(base(**prompt).logits, merged(**prompt).logits)  # something was learnt


def test_a_mistake_is_one_sentence_and_status_2(tmp_path):
    done = launch("--dataset", str(tmp_path / "none"), "--output_dir", str(tmp_path), "--model_name_or_path", "x")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and f"{tmp_path}/none does not exist: give a" in lines[0]
    assert 'File "' + str(ROOT / "drp_hf") not in done.stderr  # no traceback of ours; accelerate prints its own


def test_what_is_said_after_ctrl_c_is_true_without_checkpoints_too(tmp_path, monkeypatch, capsys):
    def stop(*configs):
        raise KeyboardInterrupt

    monkeypatch.setattr("drp_hf.commands.sft.main", stop)
    monkeypatch.setattr("sys.argv", ["drp", "d", "--output_dir", str(tmp_path), "--save_strategy", "no"])
    with pytest.raises(SystemExit) as end:
        cli()
    assert end.value.code == 130
    assert "from the last whole checkpoint, or begins again where none was saved" in capsys.readouterr().err


def configs(corpus, student, tmp_path, arguments=None, training=None, model=None):
    return (
        SFTArguments(dataset=str(corpus), **(arguments or {})),
        DRPConfig(output_dir=str(tmp_path), report_to="none", **(training or {})),
        ModelConfig(**{"model_name_or_path": str(student), **(model or {})}),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"model_name_or_path": None}}, "Give the student as model_name_or_path"),
        ({"arguments": {"merge": True}}, "merge needs an adapter"),
        ({"training": {"eval_strategy": "steps", "eval_steps": 1}}, "remove eval_strategy"),
        ({"arguments": {"dataset_split": "nosuch"}}, "cannot be loaded (ValueError: Unknown split"),
        ({"arguments": {"dataset_config": "nosuch"}}, "cannot be loaded (ValueError: BuilderConfig 'nosuch' not"),
        ({"model": {"model_name_or_path": "./nosuch"}}, "No model found under './nosuch'"),
        (
            {"arguments": {"answers_problems": "none.jsonl"}, "model": {"model_name_or_path": "./nosuch"}},
            "none.jsonl does not exist",
        ),
        ({"arguments": {"answers_problems": "gsm8k", "answers_count": 0}}, "answers_count is 0: it must be"),
        (
            {"model": {"use_peft": True}, "training": {"chat_template_path": "org/other"}},
            "chat_template_path is org/other, which is no .jinja file: an adapter takes its template from one",
        ),
    ],
)
def test_mistakes_are_told_before_training(corpus, student, tmp_path, changes, message):
    with pytest.raises(DRPError) as error:
        main(*configs(corpus, student, tmp_path, **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_one_process_trains_on_one_gpu(corpus, student, tmp_path):
    arguments, training, model = configs(corpus, student, tmp_path)
    training._n_gpu = 2
    with pytest.raises(DRPError, match="This process sees 2 GPUs, and trains on one: start it with `accelerate"):
        main(arguments, training, model)


def test_a_folder_without_data(student, tmp_path):
    with pytest.raises(DRPError, match="cannot be loaded"):
        main(*configs(tmp_path, student, tmp_path))


def test_questions_are_put_as_the_prompt_says(corpus):
    plain = load_rows(SFTArguments(str(corpus)))
    twice = load_rows(SFTArguments(str(corpus), prompt="{question} {question}"))
    assert twice[3]["prompt"] == [{"role": "user", "content": "What is 3 + 1? What is 3 + 1?"}]
    assert twice.remove_columns("prompt").to_list() == plain.remove_columns("prompt").to_list()


def test_only_the_last_message_and_plain_texts_are_put_as_the_prompt_says(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    for name, prompt in (("chat", [system, {"role": "user", "content": "2?"}]), ("text", "2?")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text(json.dumps({"prompt": prompt, "completion": "2"}))
    chat, text = (
        load_rows(SFTArguments(str(tmp_path / name), prompt="\\boxed{}: {question}")) for name in ("chat", "text")
    )
    assert chat[0]["prompt"] == [system, {"role": "user", "content": "\\boxed{}: 2?"}]
    assert text[0]["prompt"] == "\\boxed{}: 2?"


def test_held_out_problems_are_asked_as_the_prompt_says(tmp_path):
    (tmp_path / "problems.jsonl").write_text('{"question": "2 + 3?", "answer": "5"}\n')
    arguments = SFTArguments("d", prompt="{question} Say.", answers_problems=str(tmp_path / "problems.jsonl"))
    assert read_asked(arguments) == [Problem("2 + 3? Say.", "5")]
    assert read_asked(replace(arguments, answers_problems=None)) == []


def test_held_out_problems_are_those_of_a_benchmark(tmp_path, monkeypatch):
    folder = tmp_path / uuid4().hex  # `datasets` knows a folder by its name
    folder.mkdir()
    rows = [{"question": f"{i} + 1?", "answer": f"{i} + 1 = {i + 1}\n#### {i + 1}"} for i in range(3)]
    Dataset.from_list(rows).to_parquet(folder / "test.parquet")
    monkeypatch.setitem(BENCHMARKS, "gsm8k", replace(BENCHMARKS["gsm8k"], data_set=str(folder), config=None))
    arguments = SFTArguments("d", answers_problems="gsm8k", answers_count=2)
    assert read_asked(arguments) == [Problem("0 + 1?", "1"), Problem("1 + 1?", "2")]


def test_rows_are_those_that_the_folder_holds_now(tmp_path, monkeypatch):
    """`datasets` knows a folder with a card by its name alone."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def loaded(parent, completion, prompt):
        folder = tmp_path / parent / "corpus"
        folder.mkdir(parents=True, exist_ok=True)
        config = {"config_name": "sft", "data_files": "rows.jsonl"}
        (folder / "README.md").write_text(f"---\nconfigs: {json.dumps([config])}\n---\n")
        (folder / "rows.jsonl").write_text(json.dumps({"prompt": "2?", "completion": completion}))
        return load_rows(SFTArguments(str(folder), prompt=prompt))["completion"][:]

    for prompt in ("{question}", "{question} {question}"):
        assert loaded("mine", "old", prompt) == ["old"]
        assert loaded("mine", "corrected", prompt) == ["corrected"]
        assert loaded("another", "another", prompt) == ["another"]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.ndjson", "rows [1].parquet"])
def test_rows_of_a_file(tmp_path, name):
    rows = Dataset.from_list([{"prompt": "2?", "completion": "2"}, {"prompt": "3?", "completion": "3"}])
    rows.to_parquet(tmp_path / name) if name.endswith("parquet") else rows.to_json(tmp_path / name)
    assert load_rows(SFTArguments(str(tmp_path / name))).to_list() == rows.to_list()
    # A file is its only view, also where a command takes another one than the default.
    assert load_rows(SFTArguments(str(tmp_path / name), "masked-raw", "train[1:]")).to_list() == [rows[1]]


def test_a_file_that_cannot_be_read_is_named_with_its_row(tmp_path):
    with pytest.raises(DRPError, match=rf"^{tmp_path}/none\.jsonl does not exist: give a JSON Lines or Parquet file"):
        load_rows(SFTArguments(str(tmp_path / "none.jsonl")))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "2?", "completion": "2"}\n{"prompt"\n')
    with pytest.raises(DRPError, match=rf"^{tmp_path}/rows\.jsonl row 2 is not JSON .*: write one object a line"):
        load_rows(SFTArguments(str(tmp_path / "rows.jsonl")))
    with pytest.raises(DRPError, match="rows.csv has an unknown ending: give JSON Lines"):
        (tmp_path / "rows.csv").write_text("prompt,completion\n2?,2\n")
        load_rows(SFTArguments(str(tmp_path / "rows.csv")))


@pytest.mark.parametrize("empty", ["", []])
def test_an_empty_prompt_stays_empty(tmp_path, empty):
    (tmp_path / "train.jsonl").write_text(json.dumps({"prompt": empty, "completion": "2"}))
    assert load_rows(SFTArguments(str(tmp_path), prompt="{question} {question}"))[0]["prompt"] == empty


def test_a_prompt_that_cannot_be_used(corpus, tmp_path):
    with pytest.raises(DRPError, match=r"'Think\.' has no place for the question"):
        load_rows(SFTArguments(str(corpus), prompt="Think."))
    (tmp_path / "train.jsonl").write_text('{"text": "2"}')
    with pytest.raises(DRPError, match=f"{tmp_path} has no column prompt: leave the option prompt out"):
        load_rows(SFTArguments(str(tmp_path), prompt="{question} {question}"))


FEW_STEPS = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "logging_steps": 1,
}


TEMPLATE = "{% for m in messages %}{{ m.role + ': ' + m.content + '<|endoftext|>' }}{% endfor %}"


@pytest.fixture(scope="module")
def own_stop(corpus, student, tmp_path_factory):
    """Settings with a chat template and a stop token that the base has not, and what was trained with them."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.jinja").write_text(TEMPLATE)
    training = {"chat_template_path": str(folder / "own.jinja"), "eos_token": "<|endoftext|>", "max_steps": 1}
    model = {"use_peft": True, "lora_r": 2, "lora_target_modules": "all-linear"}
    used = {"arguments": {"merge": True}, "training": training | FEW_STEPS, "model": model}
    main(*configs(corpus, student, folder / "run", **used))
    return folder, used


def test_a_student_with_a_stop_token_of_its_own_stops_everywhere(own_stop):
    folder, _ = own_stop
    model, tokenizer = load_model_and_tokenizer(str(folder / "run"))
    assert (tokenizer.eos_token_id, tokenizer.chat_template) == (0, TEMPLATE)
    assert model.generation_config.eos_token_id == [0, 2]
    assert GenerationConfig.from_pretrained(folder / "run" / "merged").eos_token_id == [0, 2]
    assert "max_new_tokens=2048, eos_token_id=[0, 2])" in (folder / "run" / "README.md").read_text()


def test_the_card_s_settings_make_the_student_again(own_stop):
    card = (own_stop[0] / "run" / "README.md").read_text()
    settings = yaml.safe_load(card.partition("```yaml\n")[2].partition("```")[0])
    assert settings["chat_template_path"] == "own.jinja" and settings["eos_token"] == "<|endoftext|>"
    assert str(own_stop[0]) not in card and "pad_token" not in settings


def test_template_and_stop_token_decide_a_student(corpus, student, own_stop, tmp_path):
    folder, used = own_stop

    def is_same(**training):
        changed = used | {"training": used["training"] | training}
        return is_same_student(*configs(corpus, student, folder / "run", **changed))

    assert is_same() and not is_same(eos_token=None)
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    assert not is_same(chat_template_path=str(tmp_path / "own.jinja")) and not is_same(chat_template_path=None)
    (folder / "own.jinja").write_text(TEMPLATE + "\n")
    assert not is_same()
    (folder / "own.jinja").write_text(TEMPLATE)
    assert is_same()


def test_a_student_of_before_tokens_were_recorded_is_known_again(corpus, student, tmp_path):
    main(*configs(corpus, student, tmp_path, training={"max_steps": 1, **FEW_STEPS}))
    run = json.loads((tmp_path / "run.json").read_text())
    run["config"]["training"] |= {"eos_token": "<EOS_TOKEN>", "pad_token": "<PAD_TOKEN>"}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert is_same_student(*configs(corpus, student, tmp_path, training={"max_steps": 1, **FEW_STEPS}))


def test_answers_on_the_way_are_logged_shown_and_drawn(corpus, student, tmp_path, capsys):
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(f'{{"question": "What is {i} + 1?", "answer": "{i + 1}"}}\n' for i in range(5)))
    answers = {"answers_problems": str(problems), "answers_count": 3, "answers_every": 2, "answers_max_tokens": 8}
    main(*configs(corpus, student, tmp_path, answers, {"max_steps": 3, **FEW_STEPS}))
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    points = [entry for entry in state["log_history"] if "eval_answers_tokens" in entry]
    assert [point["step"] for point in points] == [0, 2, 3] and all(p["eval_answers_tokens"] <= 8 for p in points)
    assert (tmp_path / "answers.png").read_bytes().startswith(b"\x89PNG")
    assert "Held-out answers on the way" in capsys.readouterr().out


def test_masked_raw_takes_its_view(student, tmp_path):
    training = {"loss_scope": "masked-raw", "max_steps": 1, "max_length": 2048, **FEW_STEPS}
    figures = main(*configs(SAMPLE_DIR, student, tmp_path, training=training))
    sample = load_dataset(str(SAMPLE_DIR), "masked-raw", split="train")
    kept = sum(step["action"] != "DELETE" for row in sample for step in row["steps"])
    assert figures["rows"] == len(sample) and 0 < kept < sum(len(row["steps"]) for row in sample)
    with pytest.raises(DRPError, match="a step with the action DELETE, which a pruned trace has not"):
        main(*configs(SAMPLE_DIR, student, tmp_path, {"dataset_config": "masked-raw"}, FEW_STEPS))


def test_an_adapter_on_an_adapter_names_it_and_nothing_is_looked_for_elsewhere(corpus, student, tmp_path, recwarn):
    model = {"use_peft": True, "lora_r": 2, "lora_target_modules": "all-linear"}
    saving = {**FEW_STEPS, "save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    first, second = tmp_path / "first", tmp_path / "second"
    main(*configs(corpus, student, first, training=saving, model=model))
    main(*configs(corpus, first, second, training=saving, model=model))
    for folder in (second, second / "checkpoint-1"):
        assert adapter_chain(str(folder)) == (str(student), "main", [str(first), str(folder)])
    assert not [warning for warning in recwarn if "Could not find a config file" in str(warning.message)]


def test_going_on_from_the_last_checkpoint(corpus, student, tmp_path):
    model = {"use_peft": True, "lora_r": 2, "lora_target_modules": "all-linear", "lora_dropout": 0.2}
    saving = {**FEW_STEPS, "save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-2, "max_steps": 4}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    main(*configs(corpus, student, whole, training=saving, model=model))
    main(*configs(corpus, student, parts, training=saving, model=model))
    for step in (3, 4):
        shutil.rmtree(parts / f"checkpoint-{step}")
    (parts / "checkpoint-3").mkdir()  # cut off while it was written
    main(*configs(corpus, student, parts, training={**saving, "resume_from_checkpoint": "true"}, model=model))
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (whole, parts)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    base = json.loads((parts / "checkpoint-4" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert base == str(student)
    assert "tags:" in (parts / "README.md").read_text()
    state = (parts / "trainer_state.json").read_bytes()
    with pytest.raises(DRPError, match="is no complete checkpoint"):
        main(*configs(corpus, student, parts, training={**saving, "resume_from_checkpoint": "/none"}, model=model))
    assert (parts / "trainer_state.json").read_bytes() == state


@pytest.fixture(scope="module")
def with_checkpoints(corpus, student, tmp_path_factory):
    """A finished student with checkpoints, and what it was trained with."""
    folder = tmp_path_factory.mktemp("checkpoints")
    training = {**FEW_STEPS, "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    main(*configs(corpus, student, folder / "student", training=training))
    return folder / "student", training


def another_corpus(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "corpus")
    Dataset.from_parquet(str(corpus / "train.parquet")).select(range(4)).to_parquet(
        tmp_path / "corpus" / "train.parquet"
    )
    return tmp_path / "corpus"


@pytest.mark.parametrize("resume", ["true", None])
@pytest.mark.parametrize("other", ["corpus", "settings"])
def test_no_training_takes_up_the_checkpoints_of_another(corpus, student, with_checkpoints, tmp_path, other, resume):
    """Also one that begins anew: it would be stopped, and then go on from them."""
    folder, training = with_checkpoints
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    training = {**training, "resume_from_checkpoint": resume}
    if other == "corpus":
        corpus = another_corpus(corpus, tmp_path)
    else:
        training["learning_rate"] = 1e-2
    last = folder / "checkpoint-2"
    with pytest.raises(DRPError) as error:
        main(*configs(corpus, student, folder, training=training))
    assert str(error.value) == (
        f"{last} was trained with other settings or on another corpus: delete it and those before it, give another "
        f"output_dir, or name it to go on from it all the same (--resume_from_checkpoint {last})."
    )
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_does_not_change_the_weights_keeps_no_training_from_going_on(
    corpus, student, with_checkpoints, tmp_path, monkeypatch
):
    def may_go_on(corpus=corpus, folder=None, arguments=None, **changes):
        check("sft", *configs(corpus, student, folder or saved, arguments, {**training, **changes}))

    saved, training = with_checkpoints
    training = {**training, "resume_from_checkpoint": "true"}
    may_go_on()
    may_go_on(resume_from_checkpoint=None)
    may_go_on(logging_steps=3, save_steps=5, save_total_limit=1)
    may_go_on(per_device_train_batch_size=4, gradient_accumulation_steps=2)
    monkeypatch.chdir(corpus.parent)
    may_go_on(f"{corpus.name}/")  # the same corpus by another name
    shutil.copytree(saved, tmp_path / "old")
    (tmp_path / "old" / "run.json").unlink()
    for checkpoint in (tmp_path / "old").glob("checkpoint-*"):
        (checkpoint / "run.json").unlink(missing_ok=True)
    may_go_on(folder=tmp_path / "old", learning_rate=1e-2)  # nothing tells with what it was trained
    with pytest.raises(DRPError, match="was trained with other settings"):
        may_go_on(learning_rate=1e-2)
    may_go_on(learning_rate=1e-2, resume_from_checkpoint=str(saved / "checkpoint-2"))


def test_a_student_is_merged_afterwards(corpus, student, tmp_path):
    saving = {**FEW_STEPS, "save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    model = {"use_peft": True, "lora_r": 2, "lora_target_modules": "all-linear"}
    main(*configs(corpus, student, tmp_path, training=saving, model=model))
    again = configs(corpus, student, tmp_path, {"merge": True}, {**saving, "resume_from_checkpoint": "true"}, model)
    assert not is_same_student(*again)
    main(*again)
    assert (tmp_path / "merged").is_dir() and is_same_student(*again)


def test_a_student_within_the_folder_of_its_rows_goes_on(corpus, student, tmp_path):
    shutil.copytree(corpus, tmp_path / "data")
    saving = {**FEW_STEPS, "save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    within = tmp_path / "data" / "student"
    main(*configs(tmp_path / "data", student, within, training=saving))
    check("sft", *configs(tmp_path / "data", student, within, training={**saving, "resume_from_checkpoint": "true"}))


def test_checkpoints_that_lie_beside_a_named_one_are_still_known_as_another_training_s(
    corpus, student, with_checkpoints, tmp_path
):
    shutil.copytree(with_checkpoints[0], tmp_path / "student")
    changed = {**with_checkpoints[1], "learning_rate": 1e-2}
    named = {**changed, "resume_from_checkpoint": str(tmp_path / "student" / "checkpoint-1"), "save_strategy": "no"}
    main(*configs(corpus, student, tmp_path / "student", training=named))
    on = {**changed, "resume_from_checkpoint": "true"}
    with pytest.raises(DRPError, match="checkpoint-2 was trained with other settings"):
        check("sft", *configs(corpus, student, tmp_path / "student", training=on))
