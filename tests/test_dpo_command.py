import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import ModelConfig

from drp_hf.commands.dpo import DPOArguments, PairConfig, PairEncoder, main, make_trainer
from drp_hf.embedded import resolve
from drp_hf.errors import DRPError
from drp_hf.models import load_model_and_tokenizer
from drp_hf.records import final_response, render_output
from drp_hf.row_encoder import RowEncoder

ROOT = Path(__file__).resolve().parents[1]
# What R1-Distill's template does: writes the start token, opens the think tag for the model, and drops the reasoning
# of written messages. Its tokenizer adds a start token of its own to plain text.
R1_TEMPLATE = (
    "{{ '<|endoftext|>' }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|im_start|>' + message['content'].split('</think>')[-1] + '<|im_end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|><think>\n' }}{% endif %}"
)


def make_tokenizer(r1=False):
    tokenizer = AutoTokenizer.from_pretrained(resolve("smollm2-embedded"))
    if r1:
        tokenizer.chat_template = R1_TEMPLATE
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
        )
    return tokenizer


def make_pairs():
    for i in range(8):
        total, response = f"{i} + 1 = {i + 1}.", final_response(str(i + 1))
        completions = [total, f"Let me see. {total} Wait, let me check that. " + f"Again {total} " * (i % 3)]
        chosen, rejected = ([{"role": "assistant", "content": render_output(c, response)}] for c in completions)
        yield {"prompt": [{"role": "user", "content": f"What is {i} + 1?"}], "chosen": chosen, "rejected": rejected}


@pytest.fixture(scope="module")
def pairs():
    return list(make_pairs())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, pairs):
    """A folder like those of `drp prune`: `pairs` is one of its configurations."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "pairs").mkdir()
    Dataset.from_list(pairs).to_parquet(folder / "pairs" / "train.parquet")
    config = {"config_name": "pairs", "data_files": [{"split": "train", "path": "pairs/train.parquet"}]}
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps([config])}\n---\n")
    return folder


def configs(corpus, student, tmp_path, arguments=None, training=None, model=None):
    defaults = {"report_to": "none", "bf16": False, "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True}
    return (
        DPOArguments(dataset=str(corpus), **(arguments or {})),
        PairConfig(output_dir=str(tmp_path), **{**defaults, **(training or {})}),
        ModelConfig(**{"model_name_or_path": str(student), **(model or {})}),
    )


def as_columns(rows):
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.parametrize("r1", [False, True])
def test_the_tokens_are_those_that_the_drp_trainer_trains(pairs, r1):
    tokenizer = make_tokenizer(r1)
    indices = list(range(len(pairs)))
    encoded = PairEncoder(tokenizer, None, "train")(as_columns(pairs), indices)
    for side in ("chosen", "rejected"):
        rows = [{"prompt": pair["prompt"], "completion": pair[side]} for pair in pairs]
        whole = RowEncoder(tokenizer)(as_columns(rows), indices)
        for prompt, completion, ids, labels in zip(
            encoded["prompt_ids"], encoded[f"{side}_ids"], whole["input_ids"], whole["labels"], strict=True
        ):
            assert prompt + completion == ids.tolist()
            assert [-100] * len(prompt) + completion == labels.tolist()


@pytest.mark.parametrize("r1", [False, True])
def test_prompt_as_at_inference_reasoning_whole_one_start_and_one_stop_token(pairs, r1):
    tokenizer = make_tokenizer(r1)
    encoded = PairEncoder(tokenizer, None, "train")(as_columns(pairs), list(range(len(pairs))))
    for i, pair in enumerate(pairs):
        inference = tokenizer.apply_chat_template(pair["prompt"], add_generation_prompt=True, return_dict=True)
        assert encoded["prompt_ids"][i] == inference["input_ids"]
        assert encoded["prompt_ids"][i].count(tokenizer.convert_tokens_to_ids("<|endoftext|>")) == int(r1)
        for side in ("chosen", "rejected"):
            written = pair[side][0]["content"].removeprefix("<think>\n" if r1 else "")
            assert tokenizer.decode(encoded[f"{side}_ids"][i]) == written + "<|im_end|>"


def test_long_pairs_are_counted_and_long_prompts_refused(pairs):
    tokenizer = make_tokenizer()
    encoded = PairEncoder(tokenizer, None, "train")(as_columns(pairs), list(range(8)))
    lengths = [
        len(prompt) + max(len(chosen), len(rejected))
        for prompt, chosen, rejected in zip(
            encoded["prompt_ids"], encoded["chosen_ids"], encoded["rejected_ids"], strict=True
        )
    ]
    limit = sorted(lengths)[4]
    cut = PairEncoder(tokenizer, limit, "train")(as_columns(pairs), list(range(8)))["cut"]
    assert cut == [length > limit for length in lengths] and 0 < sum(cut) < 8
    with pytest.raises(DRPError, match=r"Row 1 of the train data has a prompt of \d+ tokens.*: raise max_length or"):
        PairEncoder(tokenizer, len(encoded["prompt_ids"][0]), "train")(as_columns(pairs), list(range(8)))


def test_an_empty_side_is_named(pairs):
    broken = {**pairs[1], "rejected": [{"role": "assistant", "content": ""}]}
    with pytest.raises(DRPError, match=r"Row 2 of the train \(rejected\) data has an empty completion"):
        PairEncoder(make_tokenizer(), None, "train")(as_columns([pairs[0], broken]), [0, 1])


def test_a_side_with_reasoning_beside_its_content_is_named(pairs):
    aside = {"role": "assistant", "content": "The answer is 2.", "reasoning_content": "1 + 1 = 2."}
    with pytest.raises(DRPError, match=r"Row 2 of the train \(chosen\) data has reasoning_content beside its"):
        PairEncoder(make_tokenizer(), None, "train")(as_columns([pairs[0], {**pairs[1], "chosen": [aside]}]), [0, 1])


def test_what_the_trainer_feeds_the_model(corpus, student, tmp_path, pairs, caplog):
    arguments, training, model_config = configs(
        corpus, student, tmp_path, training={"max_length": 80}, model={"use_peft": True}
    )
    trainer = make_trainer(load_dataset(str(corpus), "pairs", split="train"), training, model_config)
    assert "pairs of the train data are longer than max_length=80 and are cut: raise max_length" in caplog.text
    assert trainer.ref_model is None
    batch = trainer.data_collator([trainer.train_dataset[0]])
    tokenizer = trainer.processing_class
    texts = [
        tokenizer.decode(ids[mask == 1]) for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    prompt = tokenizer.apply_chat_template(pairs[0]["prompt"], tokenize=False, add_generation_prompt=True)
    assert texts == [prompt + pairs[0][side][0]["content"] + "<|im_end|>" for side in ("chosen", "rejected")]


def test_the_command_trains_saves_merges_and_accounts(student, corpus, tmp_path):
    settings = ["--model_name_or_path", str(student), "--output_dir", str(tmp_path), "--max_steps", "2"]
    settings += ["--use_peft", "--lora_target_modules", "all-linear", "--learning_rate", "1e-2", "--bf16", "false"]
    settings += ["--per_device_train_batch_size", "2", "--logging_steps", "1"]
    command = [sys.executable, "-m", "drp_hf.cli", "dpo", str(corpus), *settings, "--report_to", "none", "--merge"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    (row,) = (line.split("│")[1:-1] for line in done.stdout.splitlines() if "│" in line)
    rows, steps, first, last, accuracy, margin, _ = (cell.strip() for cell in row)
    assert (rows, steps, first) == ("8", "2", "0.6931")  # before the first step both models are the same: log 2
    assert float(last) != float(first) and 0 <= float(accuracy) <= 1 and float(margin) != 0

    run = json.loads((tmp_path / "run.json").read_text())
    assert run["stage"] == "dpo" and run["config"]["arguments"]["dataset_config"] == "pairs"
    assert set(run["inputs"]) == {str(corpus), str(student)}
    assert "dpo" in (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == str(student)
    ids = torch.tensor([[1, 2, 3, 4]])
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(student), tmp_path)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(adapted(ids).logits, merged(ids).logits)
    assert not torch.allclose(AutoModelForCausalLM.from_pretrained(student)(ids).logits, merged(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template


@pytest.mark.parametrize("precompute", [False, True])
def test_a_full_model_on_an_adapter_has_the_merged_adapter_as_reference(corpus, student, tmp_path, precompute):
    """With the bare base as reference the first loss would not be log 2."""
    base = AutoModelForCausalLM.from_pretrained(student)
    adapter = get_peft_model(base, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    adapter.save_pretrained(tmp_path / "adapter")
    settings = {
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "precompute_ref_log_probs": precompute,
    }
    figures = main(*configs(corpus, tmp_path / "adapter", tmp_path / "out", training=settings))
    assert figures["loss_first"] == pytest.approx(0.693147, abs=1e-5)
    assert figures["loss_last"] != figures["loss_first"]
    before, _ = load_model_and_tokenizer(str(tmp_path / "adapter"))
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not torch.equal(before.lm_head.weight, after.lm_head.weight)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"model_name_or_path": None}}, "Give the student as model_name_or_path"),
        ({"arguments": {"merge": True}}, "merge needs an adapter"),
        ({"training": {"eval_strategy": "steps", "eval_steps": 1}}, "drp dpo has no evaluation data"),
        ({"arguments": {"dataset_split": "nosuch"}}, "cannot be loaded (ValueError: Unknown split"),
        ({"arguments": {"dataset_config": "nosuch"}}, "cannot be loaded (ValueError: BuilderConfig 'nosuch' not"),
        ({"arguments": {"dataset_split": "train[:0]"}}, "corresponds to no data"),
        ({"model": {"model_name_or_path": "./nosuch"}}, "No model found under './nosuch'"),
    ],
)
def test_mistakes_are_told_before_training(corpus, student, tmp_path, changes, message):
    with pytest.raises(DRPError) as error:
        main(*configs(corpus, student, tmp_path, **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def with_stop(student, folder, stop):
    """The student with a chat template that ends a turn with another token."""
    shutil.copytree(student, folder)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", stop)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_stop_token_that_generation_ignores_is_refused(corpus, student, pairs, tmp_path):
    other = with_stop(student, tmp_path / "other", "<repo_name>")
    _, training, model_config = configs(corpus, other, tmp_path / "run", model={"use_peft": True})
    with pytest.raises(DRPError, match="ends a turn with '<repo_name>', at which generation does not stop"):
        make_trainer(Dataset.from_list(pairs), training, model_config)


def test_a_chat_template_that_is_not_used_refuses_nothing(corpus, student, tmp_path):
    """Pairs of plain text end with the tokenizer's own stop token."""
    other = with_stop(student, tmp_path / "other", "<repo_name>")
    _, training, model_config = configs(corpus, other, tmp_path / "run", model={"use_peft": True})
    pairs = Dataset.from_list([{"prompt": "1 + 1 =", "chosen": " 2", "rejected": " two, or 2"}])
    row = make_trainer(pairs, training, model_config).train_dataset[0]
    texts = [make_tokenizer().decode(row[name]) for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    assert texts == ["1 + 1 =", " 2<|im_end|>", " two, or 2<|im_end|>"]


def test_rows_without_pairs(student, tmp_path):
    (tmp_path / "data").mkdir()
    rows = [{"prompt": "What is 1 + 1?", "completion": "2"}]
    Dataset.from_list(rows).to_parquet(tmp_path / "data" / "train.parquet")
    with pytest.raises(DRPError, match="no column chosen and no column rejected.*give the view pairs of a corpus"):
        main(*configs(tmp_path / "data", student, tmp_path, arguments={"dataset_config": None}))


def test_a_mistake_is_one_sentence_and_status_2(tmp_path):
    settings = ["--model_name_or_path", "./nosuch", "--output_dir", str(tmp_path), "--report_to", "none"]
    command = [sys.executable, "-m", "drp_hf.cli", "dpo", str(tmp_path / "none"), *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1
    assert "Traceback" not in done.stderr
