import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from drp_hf.embedded import resolve
from drp_hf.errors import DRPError
from drp_hf.models import (
    adapter_chain,
    check_tokens,
    load_model_and_tokenizer,
    load_tokenizer,
    local_model_dir,
    model_identity,
    parameter_count,
)
from tests.loopback.content import Content
from tests.loopback.repository import Repository
from tests.loopback_hub import LoopbackHub

IDS = torch.tensor([[1, 2, 3, 4, 5]])


def add_adapter(model, base, folder):
    """Puts a LoRA with random weights on the model and saves it; gives the model with it merged."""
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(folder)
    return adapted.merge_and_unload()


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A plain bfloat16 model, an adapter on it, an adapter on that, and the logits of all three together."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, bos_token_id=1, eos_token_id=2, **sizes)).to(torch.bfloat16)
    model.save_pretrained(folder / "plain")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(f"{resolve('smollm2-embedded')}/{file}", folder / "plain")
    model = AutoModelForCausalLM.from_pretrained(folder / "plain", dtype=torch.float32)
    model = add_adapter(model, folder / "plain", folder / "first")
    model = add_adapter(model, folder / "first", folder / "second")
    with torch.no_grad():
        return folder, model(IDS).logits


def test_adapters_are_followed_down_to_the_plain_model(chain):
    folder, _ = chain
    expected = (str(folder / "plain"), "main", [str(folder / "first"), str(folder / "second")])
    assert adapter_chain(str(folder / "second")) == expected
    assert adapter_chain(str(folder / "plain")) == (str(folder / "plain"), "main", [])
    assert adapter_chain("smollm2-embedded") == (resolve("smollm2-embedded"), "main", [])


def test_parameters_that_are_stored_twice_count_once(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, tie_word_embeddings=True, **sizes))
    model.save_pretrained(tmp_path)
    assert parameter_count(str(tmp_path)) == model.num_parameters()
    weights = load_file(tmp_path / "model.safetensors")
    head = weights["model.embed_tokens.weight"].clone()
    save_file(weights | {"lm_head.weight": head}, tmp_path / "model.safetensors", {"format": "pt"})
    assert parameter_count(str(tmp_path)) == model.num_parameters()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    assert parameter_count(str(tmp_path)) == model.num_parameters() + head.numel()


def test_adapters_are_merged_in_float32_and_rounded_once(chain):
    folder, logits = chain
    model, _ = load_model_and_tokenizer(str(folder / "second"), dtype="float32")
    with torch.no_grad():
        torch.testing.assert_close(model(IDS).logits, logits, rtol=1e-5, atol=1e-6)
    rounded, _ = load_model_and_tokenizer(str(folder / "second"))
    assert rounded.dtype == rounded.config.dtype == torch.bfloat16
    assert not rounded.training
    for name, weight in model.state_dict().items():
        assert torch.equal(rounded.state_dict()[name], weight.to(torch.bfloat16)), name


def test_a_merged_copy_is_made_once_and_any_program_can_load_it(chain, tmp_path, monkeypatch):
    folder, _ = chain
    monkeypatch.setenv("DRP_CACHE", str(tmp_path))
    assert local_model_dir(str(folder / "plain")) == str(folder / "plain")
    merged = local_model_dir(str(folder / "second"))
    made = (tmp_path / merged / "model.safetensors").stat().st_mtime_ns
    expected, _ = load_model_and_tokenizer(str(folder / "second"))
    found = AutoModelForCausalLM.from_pretrained(merged)
    with torch.no_grad():
        assert torch.equal(found(IDS).logits, expected(IDS).logits)
    assert all(torch.equal(found.state_dict()[name], w) for name, w in expected.state_dict().items())
    assert AutoTokenizer.from_pretrained(merged).eos_token == "<|im_end|>"
    (folder / "second" / "trainer_state.json").write_text("{}")  # what does not decide the weights changes nothing
    assert local_model_dir(str(folder / "second")) == merged
    assert (tmp_path / merged / "model.safetensors").stat().st_mtime_ns == made
    assert local_model_dir(str(folder / "first")) != merged
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")] == []


def test_the_tokenizer_saved_with_an_adapter_goes_before_its_bases(chain, tmp_path):
    folder, _ = chain
    shutil.copytree(folder / "first", tmp_path / "own")
    tokenizer = load_tokenizer(str(folder / "first"))
    tokenizer.chat_template = "mine"
    tokenizer.save_pretrained(tmp_path / "own")
    assert load_tokenizer(str(tmp_path / "own")).chat_template == "mine"


def test_what_is_merged_stops_where_the_adapter_s_tokenizer_does(chain, tmp_path, monkeypatch):
    folder, _ = chain
    monkeypatch.setenv("DRP_CACHE", str(tmp_path / "cache"))
    shutil.copytree(folder / "first", tmp_path / "own")
    tokenizer = load_tokenizer(str(folder / "first"))
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(tmp_path / "own")
    assert load_model_and_tokenizer(str(tmp_path / "own"))[0].generation_config.eos_token_id == [0, 2]
    assert GenerationConfig.from_pretrained(local_model_dir(str(tmp_path / "own"))).eos_token_id == [0, 2]


def test_an_adapter_of_tokens_that_its_base_has_not(chain, tmp_path):
    folder, _ = chain
    own = shutil.copytree(folder / "first", tmp_path / "own")
    config = json.loads((own / "adapter_config.json").read_text())
    for indices in ([63], {"embed_tokens": [63]}, None):
        (own / "adapter_config.json").write_text(json.dumps(config | {"trainable_token_indices": indices}))
        check_tokens(str(own), str(folder / "plain"))
    for indices in ([63, 64], {"embed_tokens": [64]}):
        (own / "adapter_config.json").write_text(json.dumps(config | {"trainable_token_indices": indices}))
        with pytest.raises(DRPError, match="own was trained with tokens added to the 64 of its base") as error:
            load_model_and_tokenizer(str(own))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "trained",
    [
        {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "ensure_weight_tying": True},
    ],
)
def test_an_adapter_that_trains_one_of_two_tied_weights(chain, tmp_path, monkeypatch, trained):
    """Embeddings and head of its base are the same weight; merged they are what the adapter has made of each."""
    monkeypatch.setenv("DRP_CACHE", str(tmp_path / "cache"))
    config = LlamaConfig.from_pretrained(chain[0] / "plain", tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tied")
    load_tokenizer(str(chain[0] / "plain")).save_pretrained(tmp_path / "tied")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "tied", dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM", **trained))
    for name, weight in adapted.named_parameters():
        if "modules_to_save" in name:
            weight.data += torch.randn_like(weight) / 10
    adapted.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = adapted.eval()(IDS).logits
        merged, _ = load_model_and_tokenizer(str(tmp_path / "adapter"), dtype="float32")
        torch.testing.assert_close(merged(IDS).logits, expected)
        saved = AutoModelForCausalLM.from_pretrained(local_model_dir(str(tmp_path / "adapter"), "float32"))
        torch.testing.assert_close(saved(IDS).logits, expected)


def test_names_that_lead_nowhere(tmp_path):
    with pytest.raises(DRPError, match="No model found under .*: give smollm2-embedded, quickstart-reasoner, quickst"):
        load_model_and_tokenizer(str(tmp_path / "none"))
    with pytest.raises(DRPError, match="holds neither a model"):
        load_model_and_tokenizer(str(tmp_path))
    config = tmp_path / "adapter_config.json"
    config.write_text("{}")
    with pytest.raises(DRPError, match="names no base_model_name_or_path"):
        adapter_chain(str(tmp_path))
    config.write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(DRPError, match="stands on itself"):
        adapter_chain(str(tmp_path))


def test_what_lies_beside_a_model_does_not_change_it(chain, tmp_path):
    folder, _ = chain
    student = tmp_path / "student"
    shutil.copytree(folder / "second", student)
    before = model_identity(str(student))
    assert before == model_identity(str(folder / "second")) and len(before) == 3
    for name in ("run.json", "trainer_state.json", "checkpoint-2/adapter_model.safetensors", "eval/outputs.sqlite"):
        (student / name).parent.mkdir(exist_ok=True)
        (student / name).write_text("another time")
    assert model_identity(str(student)) == before
    (student / "adapter_config.json").write_text((student / "adapter_config.json").read_text() + " ")
    assert model_identity(str(student))[:2] == before[:2] and model_identity(str(student)) != before


# ------------------------------------------------------------------------------------------------------ on the Hub

ON_THE_HUB = """
import sys
from pathlib import Path

import huggingface_hub.constants
import torch
from huggingface_hub import HfApi, hf_hub_download
from safetensors.torch import load_file, save
from transformers import AutoModelForCausalLM

from drp_hf.engines.vllm import _parts
from drp_hf.models import (
    load_model_and_tokenizer, load_tokenizer, local_model_dir, model_identity, parameter_count, served_parts
)

folder, api = Path(sys.argv[1]), HfApi()
for name in ("plain", "first", "second"):
    api.create_repo(f"you/{name}")
    api.upload_folder(repo_id=f"you/{name}", folder_path=folder / name)

tokenizer = load_tokenizer("you/first")
assert (tokenizer.chat_template, tokenizer.eos_token) == ("mine", "<|endoftext|>"), tokenizer
assert load_tokenizer("you/plain").eos_token == "<|im_end|>"
commit = api.model_info("you/plain").sha
plain, revision, adapter = served_parts("you/first")
assert (plain, revision) == ("you/plain", commit), (plain, revision)
files = {path.name for path in Path(adapter).iterdir()}
assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= files, files
assert "README.md" not in files, files

def logits(model):
    with torch.no_grad():
        return model(torch.tensor([[1, 2, 3, 4, 5]])).logits

expected = torch.load(folder / "logits.pt")
assert torch.allclose(logits(load_model_and_tokenizer("you/second", dtype="float32")[0]), expected, atol=1e-5)
merged = {name: local_model_dir(f"you/{name}", "float32") for name in ("first", "second")}
assert merged["first"] != merged["second"], merged
assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(merged["second"])), expected, atol=1e-5)
assert parameter_count("you/second") == parameter_count("you/plain")

before = model_identity("you/second")
assert before[0] == f"you/plain@{commit}" and len(set(before)) == 3, before
api.upload_file(repo_id="you/first", path_in_repo="README.md", path_or_fileobj=b"A better card.")
hf_hub_download("you/first", "README.md")
assert model_identity("you/second") == before, "a card decides nothing"
assert local_model_dir("you/second", "float32") == merged["second"]

weights = {name: 2 * weight for name, weight in load_file(folder / "first" / "adapter_model.safetensors").items()}
api.upload_file(repo_id="you/first", path_in_repo="adapter_model.safetensors", path_or_fileobj=save(weights))
after = model_identity("you/second")
assert [one == other for one, other in zip(after, before)] == [True, False, True], (before, after)
again = local_model_dir("you/second", "float32")
assert again != merged["second"]
assert not torch.allclose(logits(AutoModelForCausalLM.from_pretrained(again)), expected, atol=1e-5)

weights = {name: 2 * weight for name, weight in load_file(folder / "plain" / "model.safetensors").items()}
weights = save(weights, {"format": "pt"})
api.upload_file(repo_id="you/plain", path_in_repo="model.safetensors", path_or_fileobj=weights)
newest = f"you/plain@{api.model_info('you/plain').sha}"
assert newest != before[0] and model_identity("you/plain") == [newest], newest
assert model_identity("you/second") == [newest, *after[1:]]
merged = local_model_dir("you/second", "float32")
assert merged != again
assert not torch.equal(*(logits(AutoModelForCausalLM.from_pretrained(each)) for each in (merged, again)))
for merge in (True, False):
    assert _parts("you/plain", "auto", merge) == (*newest.split("@"), None), "vLLM loads that commit"

loaded = logits(load_model_and_tokenizer("you/plain", dtype="float32")[0])
assert not torch.equal(loaded, logits(load_model_and_tokenizer("you/plain", "float32", commit)[0]))
huggingface_hub.constants.HF_HUB_OFFLINE = True
assert model_identity("you/second") == [newest, *after[1:]] and local_model_dir("you/second", "float32") == merged
assert torch.equal(logits(load_model_and_tokenizer("you/plain", dtype="float32")[0]), loaded)
"""


def run_with(hub, tmp_path, program, *arguments):
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "DRP_CACHE": str(tmp_path / "cache")}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_an_adapter_on_the_hub_is_loaded_as_from_its_folder(chain, tmp_path):
    folder, logits = chain
    shutil.copytree(folder, tmp_path / "models")
    for name, base in (("first", "plain"), ("second", "first")):
        config = tmp_path / "models" / name / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": f"you/{base}"}))
    tokenizer = load_tokenizer(str(folder / "plain"))
    tokenizer.chat_template, tokenizer.eos_token = "mine", "<|endoftext|>"
    tokenizer.save_pretrained(tmp_path / "models" / "first")
    torch.save(logits, tmp_path / "models" / "logits.pt")
    with LoopbackHub() as hub:
        run_with(hub, tmp_path, ON_THE_HUB, tmp_path / "models")


NOT_LOADED = """
import json, resource, sys
from drp_hf.errors import DRPError
from drp_hf.models import load_model_and_tokenizer

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
said = {}
for name in sys.argv[1:]:
    try:
        load_model_and_tokenizer(name)
    except DRPError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


def test_why_a_model_cannot_be_loaded_is_said(chain, tmp_path):
    folder, _ = chain
    shard = shutil.copytree(folder / "plain", tmp_path / "shard")
    (shard / "model.safetensors").unlink()
    index = {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}, "metadata": {}}
    (shard / "model.safetensors.index.json").write_text(json.dumps(index))
    files = {path.name: Content.regular(path) for path in (folder / "plain").iterdir()}
    with LoopbackHub() as hub:
        for name in ("gated", "large"):
            hub.repositories["model", f"you/{name}"] = repository = Repository(f"you/{name}", "model")
            repository.add_commit(files, "Files")
        hub.repository("you/gated", "model").gated = "manual"
        names = ["you/gated", "you/large", "you/none", str(shard)]
        said = json.loads(run_with(hub, tmp_path, NOT_LOADED, *names).splitlines()[-1])
    assert said.keys() == set(names)
    assert said["you/gated"].startswith("The model 'you/gated' is gated: accept its terms on its page on the Hub, and")
    assert said["you/large"].startswith("The model 'you/large' cannot be loaded: [Errno 27] File too large")
    assert said["you/none"].startswith("No model found under 'you/none' (you/none is not a local folder and is not a ")
    assert said[str(shard)].startswith(f"No model found under '{shard}' (No such file or directory")
    assert not any("\n" in sentence for sentence in said.values())
