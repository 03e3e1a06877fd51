import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import ModelConfig

from drp_hf.commands.sft import SFTArguments, main
from drp_hf.drp_config import DRPConfig
from drp_hf.embedded import resolve
from drp_hf.errors import DRPError
from drp_hf.models import load_model_and_tokenizer
from drp_hf.records import final_response, render_output

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"vocab_size": 49152, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, **tokens, tie_word_embeddings=True)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve("smollm2-embedded")).save_pretrained(folder)
    return folder


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
    assert len(lines) == 1 and f"The data set {tmp_path}/none cannot be loaded" in lines[0]
    assert 'File "' + str(ROOT / "drp_hf") not in done.stderr  # no traceback of ours; accelerate prints its own


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
        ({"arguments": {"dataset_split": "nosuch"}}, "cannot be loaded: Unknown split"),
        ({"arguments": {"dataset_config": "nosuch"}}, "cannot be loaded: BuilderConfig 'nosuch' not found"),
        ({"model": {"model_name_or_path": "./nosuch"}}, "No model found under './nosuch'"),
    ],
)
def test_mistakes_are_told_before_training(corpus, student, tmp_path, changes, message):
    with pytest.raises(DRPError) as error:
        main(*configs(corpus, student, tmp_path, **changes))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_data(student, tmp_path):
    with pytest.raises(DRPError, match="cannot be loaded"):
        main(*configs(tmp_path, student, tmp_path))
