"""Publishing out of a training, to the Hub on loopback, and what a process without this package makes of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard

from drp_hf.commands.dpo import PairConfig
from drp_hf.drp_config import DRPConfig
from drp_hf.errors import DRPError
from drp_hf.hub.checkpoints import checkpoint_branch
from tests.loopback_hub import LoopbackHub

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
CARD = {"README.md", ".gitattributes"}

TRAIN = """
import sys
from datasets import Dataset
from trl import ModelConfig
from drp_hf.commands.sft import SFTArguments, main
from drp_hf.drp_config import DRPConfig
from drp_hf.records import final_response, render_output

folder = sys.argv[1]
rows = [
    {"prompt": [{"role": "user", "content": f"What is {i} + 1?"}],
     "completion": [{"role": "assistant", "content": render_output(f"{i} + 1.", final_response(str(i + 1)))}]}
    for i in range(4)
]
Dataset.from_list(rows).push_to_hub("me/sums", private=True)
few = {"bf16": False, "gradient_checkpointing": False, "report_to": "none", "learning_rate": 1e-2}
training = DRPConfig(
    output_dir=f"{folder}/adapter", max_steps=3, save_steps=1, save_total_limit=1, push_to_hub=True,
    hub_model_id="me/adapter", push_to_hub_revision="pruned", **few,
)
model = ModelConfig("me/base", use_peft=True, lora_r=4, lora_target_modules="all-linear", dtype="float32")
main(SFTArguments(dataset="me/sums"), training, model)

from datasets import load_dataset
from drp_hf.drp_trainer import DRPTrainer
alone = DRPConfig(output_dir=f"{folder}/whole", max_steps=2, save_strategy="no", **few)
trainer = DRPTrainer("me/base", alone, load_dataset("me/sums", split="train"))
trainer.train()
alone.hub_model_id = "me/scripted"
trainer.push_to_hub(dataset_name="me/sums", tags="sums")

from drp_hf.commands.push_student import PushStudentArguments, main as push
asked = PushStudentArguments(repo_id="me/whole", student=f"{folder}/whole", tag="v1")

print("changed", push(asked).changed, push(asked).changed)

from huggingface_hub import ModelCard
for repo in ("me/whole", "me/adapter"):
    ModelCard.load(repo).validate()
"""
READ = """
import json, sys
sys.modules["drp_hf"] = None
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

folder, base = sys.argv[1:]
messages = [[{"role": "user", "content": f"What is {i} + 5?"}] for i in range(20)]
local = {
    "me/whole": AutoModelForCausalLM.from_pretrained(f"{folder}/whole"),
    "me/adapter": PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), f"{folder}/adapter"),
}
same = {}
for repo, own in local.items():
    hub = AutoModelForCausalLM.from_pretrained(repo)
    tokenizer = AutoTokenizer.from_pretrained(repo)
    ask = pipeline("text-generation", model=repo)
    tokenizer.padding_side = "left"
    wanted = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt", "padding": True}
    prompt = tokenizer.apply_chat_template(messages, **wanted)
    outputs = [model.generate(**prompt, max_new_tokens=12, do_sample=False) for model in (own, hub)]
    texts = tokenizer.batch_decode(outputs[0][:, prompt["input_ids"].shape[1]:], skip_special_tokens=True)
    said = ask(messages[0], max_new_tokens=12, do_sample=False)[0]["generated_text"][-1]["content"]
    same[repo] = [len(texts), torch.equal(*outputs), said == texts[0]]
plain = AutoModelForCausalLM.from_pretrained("me/base")
step = PeftModel.from_pretrained(plain, "me/adapter", revision="pruned-step-000000001")
same["steps differ"] = not torch.equal(step(**prompt).logits, hub(**prompt).logits)
print(json.dumps(same))
"""


def python(hub, home, script, *arguments):
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def hub(student):
    with LoopbackHub() as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("me/base", private=True)
        api.upload_folder(repo_id="me/base", folder_path=student)
        yield hub


@pytest.fixture(scope="module")
def trained(hub, tmp_path_factory):
    """Two trainings on the Hub's base and data; one checkpoint's upload fails."""
    folder = tmp_path_factory.mktemp("trained")
    hub.fail("500", lambda request: request.endswith("/branch/pruned-step-000000002"))
    done = python(hub, folder / "home", TRAIN, folder)
    hub.reset()
    assert done.returncode == 0, done.stderr
    return folder, done


def card(repository, revision="main"):
    return ModelCard(repository.files(revision)["README.md"].decode())


def test_the_student_and_its_checkpoints_are_on_their_branches(hub, trained):
    repository = hub.repository("me/adapter", "model")
    assert repository.private
    assert {"main", "pruned", "pruned-step-000000001", "pruned-step-000000003"} <= set(repository.branches)
    for branch in ("main", "pruned", "pruned-step-000000001", "pruned-step-000000003"):
        assert set(repository.files(branch)) == ADAPTER | TOKENIZER | CARD
    weights = [repository.files(branch)["adapter_model.safetensors"] for branch in ("main", "pruned")]
    assert weights[0] == weights[1]
    written = str(card(repository, "pruned-step-000000001"))
    assert "This is the checkpoint after optimiser step 1," in written
    assert '"me/adapter", revision="pruned-step-000000001")' in written
    assert "This is the checkpoint" not in str(card(repository))


def test_a_failed_upload_is_warned_of_and_ends_nothing(trained):
    folder, done = trained
    warning = next(line for line in done.stderr.splitlines() if "is not on the branch" in line)
    assert "checkpoint-2 is not on the branch pruned-step-000000002" in warning
    assert "--repo-id me/adapter --revision pruned-step-000000002`" in warning
    assert json.loads((folder / "adapter" / "trainer_state.json").read_text())["global_step"] == 3


def test_the_card_says_base_and_corpus(hub, trained):
    written = card(hub.repository("me/adapter", "model"))
    assert written.data.base_model == "me/base" and written.data.base_model_relation == "adapter"
    assert written.data.datasets == ["me/sums"] and written.data.library_name == "peft"
    assert "vllm serve me/base --tokenizer me/adapter --enable-lora --lora-modules adapter=me/adapter" in str(written)
    commit = hub.repository("me/sums").branches["main"]
    assert json.loads((trained[0] / "adapter" / "run.json").read_text())["inputs"]["me/sums"] == commit
    assert f"[me/sums](https://huggingface.co/datasets/me/sums), revision `{commit}`" in str(written)


def test_a_trainer_in_a_script_publishes_the_same_card(hub, trained):
    repository = hub.repository("me/scripted", "model")
    assert repository.private and not any(name.endswith(".bin") for name in repository.files())
    written = card(repository)
    assert written.data.base_model == "me/base" and written.data.base_model_relation == "finetune"
    assert "sums" in written.data.tags and "| length | 2 steps |" in str(written)
    assert f"revision `{hub.repository('me/sums').branches['main']}`" in str(written)


def test_the_same_push_again_makes_no_commit(hub, trained):
    assert "changed True False" in trained[1].stdout
    assert hub.repository("me/whole", "model").tags.keys() == {"v1"}


def test_a_process_without_this_package_gets_the_same_tokens(hub, trained, student, tmp_path):
    done = python(hub, tmp_path / "home", READ, trained[0], student)
    assert done.returncode == 0, done.stderr
    same = json.loads(done.stdout.splitlines()[-1])
    assert same == {"me/whole": [20, True, True], "me/adapter": [20, True, True], "steps differ": True}


@pytest.mark.parametrize("config", [DRPConfig, PairConfig])
def test_settings_that_would_publish_what_must_not_be(config, tmp_path):
    where = {"output_dir": str(tmp_path), "report_to": "none"}
    assert (
        config(**where).hub_private_repo is True and config(**where, hub_private_repo=False).hub_private_repo is False
    )
    for settings, message in (
        ({"hub_token": "a token"}, "hub_token is set"),
        ({"push_to_hub": True, "hub_strategy": "checkpoint"}, "uploads the optimiser's pickles"),
        ({"push_to_hub": True, "hub_strategy": "all_checkpoints"}, "uploads the optimiser's pickles"),
        ({"push_to_hub_revision": "pruned"}, "needs the repository, as hub_model_id"),
    ):
        with pytest.raises(DRPError, match=message):
            config(**where, **settings)


def test_branches_of_checkpoints_sort_as_their_steps():
    names = [checkpoint_branch("pruned", step) for step in (9, 100, 123_456_789)]
    assert names == sorted(names) and names[0] == "pruned-step-000000009"
