"""Revisions of models on the Hub (on loopback): what was trained on one is merged with it, asked and published so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from drp_hf.models import load_tokenizer
from tests.loopback_hub import LoopbackHub

ROOT = Path(__file__).resolve().parents[1]
LOAD = """
import json, sys
from pathlib import Path
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM
from trl import ModelConfig
from drp_hf.commands.sft import SFTArguments, main
from drp_hf.drp_config import DRPConfig
from drp_hf.errors import DRPError
from drp_hf.hub.student import student_publication
from drp_hf.models import load_model_and_tokenizer, load_tokenizer, local_model_dir, model_identity, served_parts

folder, second = Path(sys.argv[1]), AutoModelForCausalLM.from_pretrained(sys.argv[2])
few = {"bf16": False, "use_cpu": True, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True}
settings = dict(max_steps=1, per_device_train_batch_size=1, learning_rate=1e-2, save_strategy="no", **few)
row = {"prompt": [{"role": "user", "content": "1 + 1?"}], "completion": [{"role": "assistant", "content": "2"}]}
(folder / "sums").mkdir()
Dataset.from_list([row]).to_parquet(folder / "sums" / "train.parquet")
lora = dict(use_peft=True, lora_target_modules="all-linear")

def train(name, base, revision, **model):
    training = DRPConfig(output_dir=str(folder / name), **settings)
    config = ModelConfig(base, model_revision=revision, **model)
    main(SFTArguments(dataset=str(folder / "sums"), merge=True), training, config)

def logits(model):
    with torch.no_grad():
        return model(torch.tensor([[1, 2, 3, 4]])).logits

def same(model, other):
    return torch.allclose(logits(model), logits(other), atol=1e-5)

def error(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except DRPError as refused:
        return str(refused)

found = {}
train("own", "me/base", "v2", **lora)
own = str(folder / "own")
adapted = PeftModel.from_pretrained(second, own).merge_and_unload()
found["named"] = json.loads((folder / "own/adapter_config.json").read_text())["revision"]
found["merged"] = same(AutoModelForCausalLM.from_pretrained(folder / "own/merged"), adapted)
found["evaluated"] = same(load_model_and_tokenizer(own, "float32")[0], adapted)
found["cached"] = same(AutoModelForCausalLM.from_pretrained(local_model_dir(own, "float32")), adapted)
found["identity"] = model_identity(own)[0]
found["served"] = served_parts(own)
for run in (None, {}):  # with and without run.json
    (folder / "work").mkdir(exist_ok=True)
    card = student_publication(own, "me/own", folder / "work", "adapter", run=run).files["README.md"].decode()
    found[f"card {run}"] = 'from_pretrained("me/base", revision="v2")' in card

adapter = load_model_and_tokenizer("me/adapter", "float32", revision="later")
found["templates"] = [load_tokenizer("me/adapter", each).chat_template for each in (None, "later")]
found["adapters differ"] = not same(adapter[0], load_model_and_tokenizer("me/adapter", "float32")[0])
found["not mixed up"] = local_model_dir("me/adapter") != local_model_dir("me/adapter", revision="later")
second = AutoModelForCausalLM.from_pretrained(sys.argv[2])
later = PeftModel.from_pretrained(second, "me/adapter", revision="later").merge_and_unload()
found["adapter"] = same(adapter[0], later)
train("further", "me/adapter", "later", **lora)
further = PeftModel.from_pretrained(later, folder / "further").merge_and_unload()
found["further"] = same(AutoModelForCausalLM.from_pretrained(folder / "further/merged"), further)

found["none"] = error(load_model_and_tokenizer, "me/base", revision="v9")
found["local"] = error(train, "no", own, "v2", **lora)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hub(student, tmp_path_factory):
    """Two revisions of a base, and two of an adapter of the second, with a template of its own."""
    folder = tmp_path_factory.mktemp("hub")
    torch.manual_seed(1)
    tokenizer = load_tokenizer(str(student))
    with LoopbackHub() as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        for name, branch in (("me/base", "v2"), ("me/adapter", "later")):
            api.create_repo(name)
            api.create_branch(name, branch=branch)
        api.upload_folder(repo_id="me/base", folder_path=student)
        second = AutoModelForCausalLM.from_pretrained(student)
        for weight in second.parameters():
            weight.data += torch.randn_like(weight) / 10
        second.save_pretrained(folder / "second")
        tokenizer.save_pretrained(folder / "second")
        api.upload_folder(repo_id="me/base", folder_path=folder / "second", revision="v2")
        for branch in ("main", "later"):
            lora = LoraConfig(target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
            adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(folder / "second"), lora)
            adapted.save_pretrained(folder / branch)
            config = json.loads((folder / branch / "adapter_config.json").read_text())
            config |= {"base_model_name_or_path": "me/base", "revision": "v2"}
            (folder / branch / "adapter_config.json").write_text(json.dumps(config))
            tokenizer.chat_template += "{# " + branch + " #}"
            tokenizer.save_pretrained(folder / branch)
            api.upload_folder(repo_id="me/adapter", folder_path=folder / branch, revision=branch)
        yield hub, folder / "second"


def test_an_adapter_stands_on_the_revision_of_its_base(hub, tmp_path):
    hub, second = hub
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "home")}
    environment |= {"DRP_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LOAD, str(tmp_path), str(second)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    commit = HfApi(endpoint=hub.url, token=hub.token).model_info("me/base", revision="v2").sha
    assert found.pop("named") == "v2" and found.pop("identity") == f"me/base@{commit}"
    assert found.pop("served") == ["me/base", commit, str(tmp_path / "own")]
    assert [template.rpartition("{#")[2] for template in found.pop("templates")] == [" main #}", " later #}"]
    assert found.pop("none").startswith("No model found under 'me/base' at the revision 'v9' (v9 is not a valid")
    assert f"model_revision is 'v2', and {tmp_path / 'own'} is on this machine" in found.pop("local")
    assert found and all(found.values()), found
