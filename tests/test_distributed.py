"""Training on two processes gives what one process gives with the same rows a step; on the CPU, over gloo."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from trl import ModelConfig

from drp_hf.commands.sft import SFTArguments, main
from drp_hf.drp_config import DRPConfig
from drp_hf.records import final_response, render_output

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "recipes" / "accelerate_configs"
SETTINGS = {
    "action_weights": {"MERGE": 0.5},
    "max_steps": 2,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "bf16": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}

LORA = {"use_peft": True, "lora_target_modules": "all-linear", "lora_dropout": 0.0, "merge": True}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Rows of very different length, so that a mean over devices would differ from a mean over tokens."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for i in range(16):
        kept, merged = f"{i} + 1 = {i + 1}.", f" So {i} and one are {i + 1}." * (1 + i % 5)
        content = render_output(kept + merged, final_response(str(i + 1)))
        steps = [
            {"start": content.index(text), "end": content.index(text) + len(text), "skill": "adding", "action": action}
            for text, action in ((kept, "KEEP"), (merged, "MERGE"))
        ]
        prompt = [{"role": "user", "content": f"What is {i} + 1?"}]
        rows.append({"prompt": prompt, "completion": [{"role": "assistant", "content": content}], "steps": steps})
    Dataset.from_list(rows).to_parquet(folder / "train.parquet")
    return folder


def train_alone(output_dir, student, corpus, merge=False, **model):
    training = DRPConfig(output_dir=str(output_dir), per_device_train_batch_size=8, use_cpu=True, **SETTINGS)
    main(SFTArguments(str(corpus), merge=merge), training, ModelConfig(model_name_or_path=str(student), **model))
    return output_dir


@pytest.fixture(scope="module")
def one_process(student, corpus, tmp_path_factory):
    return train_alone(tmp_path_factory.mktemp("one"), student, corpus)


@pytest.fixture(scope="module")
def adapter(student, tmp_path_factory):
    """A student that is an adapter itself."""
    folder = tmp_path_factory.mktemp("adapter")
    torch.manual_seed(1)
    lora = LoraConfig(target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(student), lora).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def one_process_on_adapter(adapter, corpus, tmp_path_factory):
    return train_alone(tmp_path_factory.mktemp("one_on_adapter"), adapter, corpus, **LORA)


def logged(folder, name):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry[name] for entry in history if name in entry]


def launch(config, output_dir, student, corpus, epochs=1, **more):
    """Runs the recipe with one of the shipped configs, changed only to two processes on the CPU."""
    settings = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())
    local = output_dir / "accelerate.yaml"
    local.write_text(yaml.safe_dump({**settings, "mixed_precision": "no", "use_cpu": True}))
    recipe = output_dir / "sft.yaml"
    paths = {"dataset": str(corpus), "model_name_or_path": str(student), "output_dir": str(output_dir)}
    batches = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    recipe.write_text(yaml.safe_dump({**SETTINGS, **paths, **batches, **more}))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(local)]
    command += ["--num_processes", "2", "--main_process_port", "0", "recipes/sft.py", "--config", str(recipe)]
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu"}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((output_dir / "trainer_state.json").read_text())["epoch"] == epochs  # shared by two processes


def assert_same(folder, expected, weights):
    assert len(logged(expected, "loss")) == 2
    assert logged(folder, "loss") == pytest.approx(logged(expected, "loss"), rel=1e-5)
    assert logged(folder, "grad_norm") == pytest.approx(logged(expected, "grad_norm"), rel=1e-4)
    saved = load_file(folder / weights)
    for name, weight in load_file(expected / weights).items():
        torch.testing.assert_close(saved[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["cpu", "multi_gpu", "fsdp2", "zero3"])
def test_two_processes_train_what_one_trains(config, one_process, student, corpus, tmp_path):
    if config == "zero3":
        pytest.importorskip("deepspeed")
    launch(config, tmp_path, student, corpus)
    assert_same(tmp_path, one_process, "model.safetensors")


@pytest.mark.slow
def test_two_processes_go_on_in_the_middle_of_an_epoch(student, corpus, tmp_path):
    """An epoch has 2 steps, and step 4 is the second of the second one."""
    settings = {
        "train_sampling_strategy": "group_by_length",
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 3,
    }
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    launch("cpu", whole, student, corpus, epochs=2, **settings)
    shutil.copytree(whole / "checkpoint-3", resumed / "checkpoint-3")
    launch("cpu", resumed, student, corpus, epochs=2, resume_from_checkpoint="true", **settings)
    assert logged(resumed, "loss") == logged(whole, "loss")
    weights, expected = (load_file(folder / "model.safetensors") for folder in (resumed, whole))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["fsdp2", "zero3"])
def test_an_adapter_on_an_adapter_is_merged(config, one_process_on_adapter, adapter, corpus, tmp_path):
    if config == "zero3":
        pytest.importorskip("deepspeed")
    launch(config, tmp_path, adapter, corpus, **LORA)
    assert_same(tmp_path, one_process_on_adapter, "merged/model.safetensors")


PREPARE = """
import sys
from trl import ModelConfig
from drp_hf.commands import dpo, sft
from drp_hf.drp_config import DRPConfig

corpus, student, output = sys.argv[1:]
settings = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"}
training = DRPConfig(output, packing=True, packing_strategy="wrapped", max_length=64, **settings)
rows = sft.load_rows(sft.SFTArguments(corpus, prompt="Think. {question}"))
sft.make_trainer(rows, training, ModelConfig(student))
dpo.make_trainer(rows, dpo.PairConfig(output, **settings), ModelConfig(student))
"""


def test_one_of_two_processes_prepares_the_data_and_the_other_reads_it(student, corpus, tmp_path):
    rows = Dataset.from_parquet(str(corpus / "train.parquet"))
    pairs = {"chosen": rows["completion"], "rejected": rows["completion"]}
    (tmp_path / "pairs").mkdir()
    Dataset.from_dict({**rows.to_dict(), **pairs}).to_parquet(tmp_path / "pairs" / "train.parquet")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", PREPARE, str(tmp_path / "pairs"), str(student), str(tmp_path / "out")]
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **variables, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    try:
        said = [process.communicate(timeout=280)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    for title in ("Questions put as the prompt says", "Encoding train dataset", "Packing"):
        assert title in said[0] and title not in said[1]


def test_the_configs_are_for_one_machine():
    files = sorted(CONFIGS.glob("*.yaml"))
    assert [path.stem for path in files] == ["cpu", "fsdp2", "multi_gpu", "zero3"]
    for path in files:
        settings = yaml.safe_load(path.read_text())
        gpus = path.stem != "cpu"
        assert path.read_text().startswith(
            f"# accelerate launch --config_file recipes/accelerate_configs/{path.name} "
        )
        assert settings["num_machines"] == 1 and settings["num_processes"] == (8 if gpus else 2)
        assert settings["mixed_precision"] == ("bf16" if gpus else "no") and settings["use_cpu"] is not gpus
