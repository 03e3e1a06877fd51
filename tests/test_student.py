"""A student as a publication: what is in it, what is not, and what its card says."""

import ast
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset
from huggingface_hub import ModelCard
from peft import IA3Config, LoraConfig, PeftConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LogitsProcessor
from trl import ModelConfig

from drp_hf.commands.parsing import parse
from drp_hf.commands.push_student import PushStudentArguments, main
from drp_hf.commands.sft import SFTArguments
from drp_hf.commands.sft import main as train
from drp_hf.drp_config import DRPConfig
from drp_hf.embedded import EMBEDDED, STUDENT, STUDENT_PROMPT
from drp_hf.errors import DRPError
from drp_hf.hub.publication import PICKLES
from drp_hf.hub.student import student_publication
from drp_hf.hub.student_card import student_card
from drp_hf.hub.student_run import Student, hub_name, is_local, student_of, trained_prompt
from drp_hf.models import load_generation_config, load_tokenizer
from drp_hf.records import final_response, render_output
from tests.test_eval_results import evaluation

TOKENIZER = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
MODEL = {"config.json", "generation_config.json", "model.safetensors"}
HERE = ["--output_dir", "student"]
FEW_STEPS = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "logging_steps": 1, "max_steps": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "sums"
    folder.mkdir()
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {i} + 1?"}],
            "completion": [
                {"role": "assistant", "content": render_output(f"{i} + 1 = {i + 1}.", final_response(str(i + 1)))}
            ],
        }
        for i in range(4)
    ]
    Dataset.from_list(rows).to_parquet(folder / "train.parquet")
    return folder


def trained_on(corpus, student, folder, merge=False, **model):
    training = DRPConfig(output_dir=str(folder), report_to="none", save_steps=1, learning_rate=1e-2, **FEW_STEPS)
    train(SFTArguments(dataset=str(corpus), merge=merge), training, ModelConfig(str(student), **model))
    return folder


@pytest.fixture(scope="module")
def whole(corpus, student, tmp_path_factory):
    """A student all of whose weights were trained."""
    return trained_on(corpus, student, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def adapter(corpus, student, tmp_path_factory):
    """A student that is an adapter, with its merged form."""
    lora = {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"}
    return trained_on(corpus, student, tmp_path_factory.mktemp("adapter") / "run", merge=True, **lora)


def content(publication, name):
    data = publication.files[name]
    return data if isinstance(data, bytes) else data.read_bytes()


def card_of(publication):
    return ModelCard(content(publication, "README.md").decode())


def test_a_whole_model_and_nothing_of_the_trainer(whole, student, tmp_path):
    publication = student_publication(whole, "me/student", tmp_path)
    assert publication.repo_type == "model"
    assert set(publication.files) == MODEL | TOKENIZER | {"README.md"}
    assert not any(name.endswith(tuple(PICKLES)) for name in publication.files)
    assert (whole / "training_args.bin").is_file() and (whole / "checkpoint-1" / "optimizer.pt").is_file()
    texts = {name: content(publication, name) for name in publication.files if not name.endswith(".safetensors")}
    local = (str(whole.parent).encode(), str(student.parent).encode())
    assert [name for name, text in texts.items() if any(path in text for path in local)] == []


def test_a_checkpoint_is_a_student_too(whole, tmp_path):
    publication = student_publication(whole / "checkpoint-1", "me/student", tmp_path)
    assert set(publication.files) == MODEL | TOKENIZER | {"README.md"}
    assert "checkpoint after optimiser step 1," in str(card_of(publication))
    assert "| length | 2 steps |" in str(card_of(publication))  # the run's settings


def test_an_adapter_is_published_merged(adapter, student, tmp_path):
    publication = student_publication(adapter, "me/student", tmp_path)
    assert set(publication.files) == MODEL | TOKENIZER | {"README.md"}
    assert publication.files["model.safetensors"] == adapter / "merged" / "model.safetensors"
    before = load_file(student / "model.safetensors")
    after = load_file(publication.files["model.safetensors"])
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)


def test_what_was_merged_before_the_last_training_is_not_published(adapter, tmp_path, monkeypatch):
    monkeypatch.setenv("DRP_CACHE", str(tmp_path / "cache"))
    again = tmp_path / "again"
    shutil.copytree(adapter, again, ignore=shutil.ignore_patterns("checkpoint-*"))
    os.utime(again / "merged" / "model.safetensors", (1, 1))
    publication = student_publication(again, "me/student", tmp_path / "work")
    made = publication.files["model.safetensors"]
    assert made.is_relative_to(tmp_path / "cache")
    merged, expected = load_file(made), load_file(adapter / "merged" / "model.safetensors")
    assert all(torch.equal(merged[name], expected[name]) for name in expected)


def with_base(adapter, folder, base):
    shutil.copytree(adapter, folder, ignore=shutil.ignore_patterns("checkpoint-*", "merged"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
    (folder / "run.json").unlink()
    return folder


@pytest.mark.parametrize("base", ["smollm2-embedded", "quickstart-reasoner", "./base", "/data/base"])
def test_an_adapter_whose_base_nobody_else_has(adapter, tmp_path, base):
    folder = with_base(adapter, tmp_path / "adapter", base)
    with pytest.raises(DRPError, match=f"an adapter for {base}, which nobody can load.*merged"):
        student_publication(folder, "me/student", tmp_path / "work", "adapter")


def test_an_adapter_of_tokens_that_its_base_has_not(adapter, student, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = with_base(adapter, tmp_path / "adapter", "me/base")
    monkeypatch.setattr("drp_hf.hub.student.is_local", lambda name: False)
    shutil.copytree(student, "me/base")  # where a name on the Hub is looked for first
    config = json.loads((folder / "adapter_config.json").read_text())
    config |= {"trainable_token_indices": {"embed_tokens": [49152]}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(DRPError, match="was trained with tokens added to the 49,152 of its base"):
        student_publication(folder, "me/student", tmp_path / "work", "adapter")


def test_weights_in_shards(whole, tmp_path):
    folder = tmp_path / "sharded"
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("checkpoint-*", "*.safetensors"))
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(folder, max_shard_size="1MB")
    publication = student_publication(folder, "me/student", tmp_path / "work")
    shards = [name for name in publication.files if name.startswith("model-")]
    assert len(shards) > 1 and "model.safetensors.index.json" in publication.files
    (folder / shards[-1]).unlink()
    with pytest.raises(DRPError, match=f"has no {shards[-1]}"):
        student_publication(folder, "me/student", tmp_path / "work")


def test_mistakes_are_one_sentence(whole, tmp_path):
    with pytest.raises(DRPError, match="holds neither a model"):
        student_publication(tmp_path, "me/student", tmp_path)
    with pytest.raises(DRPError, match="holds a whole model and no adapter"):
        student_publication(whole, "me/student", tmp_path, "adapter")
    with pytest.raises(DRPError, match="merged and adapter are both set"):
        main(PushStudentArguments(repo_id="me/student", student=str(whole), merged=True, adapter=True))
    pickled = tmp_path / "pickled"
    shutil.copytree(whole, pickled, ignore=shutil.ignore_patterns("checkpoint-*", "*.safetensors"))
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(DRPError, match="has no model.safetensors: save the model with save_pretrained"):
        student_publication(pickled, "me/student", tmp_path)


def test_the_card(adapter, corpus, tmp_path):
    card = card_of(student_publication(adapter, "me/shorter", tmp_path, corpus="me/sums", license={"license": "mit"}))
    data = card.data.to_dict()
    assert data["pipeline_tag"] == "text-generation" and data["library_name"] == "transformers"
    assert data["datasets"] == ["me/sums"] and data["license"] == "mit"
    assert {"reasoning", "distilled-reasoning-pruning", "drp_hf", "trl", "sft"} <= set(data["tags"])
    assert "base_model" not in data  # it is a folder of this machine
    text = card.text
    assert "# shorter" in text and 'pipeline("text-generation", model="me/shorter")' in text
    assert "[me/sums](https://huggingface.co/datasets/me/sums), content `" in text
    assert "| what is trained | LoRA of rank 4, alpha 32, on all-linear |" in text
    settings = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    expected = {"max_steps": 2, "learning_rate": 1e-2, "use_peft": True, "lora_r": 4}
    assert {name: settings.get(name) for name in expected} == expected
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    parsed = parse((SFTArguments, DRPConfig, ModelConfig), ["--config", str(tmp_path / "settings.yaml"), *HERE])
    assert parsed[1].learning_rate == 1e-2 and parsed[2].lora_r == 4
    assert str(corpus.parent) not in str(card) and "What it does has not been measured here." in text


@pytest.mark.parametrize(
    ("adapter", "served"),
    [
        ({"r": 16}, "=me/drp\n"),
        ({"r": 24}, "=me/drp --max-lora-rank 32\n"),
        ({"r": 200}, "=me/drp --max-lora-rank 256\n"),
        ({"r": 8, "rank_pattern": {"q_proj": 64}}, "=me/drp --max-lora-rank 64\n"),
        ({"r": 513}, None),
        ({"r": 16, "use_dora": True}, None),
        ({"r": 16, "modules_to_save": ["embed_tokens"]}, None),
    ],
)
def test_the_card_serves_the_adapters_that_vllm_takes(adapter, served):
    made = Student(base="me/base", trained_from="me/base")
    config = LoraConfig(target_modules=["q_proj"], **adapter)
    written = str(student_card("me/drp", made, adapter=config, stops=[2], opens_think=False))
    command = written.partition("vllm serve me/base --tokenizer me/drp --enable-lora --lora-modules drp")[2]
    assert command.startswith(served) if served else "vllm" not in written
    assert written.count("```") % 2 == 0 and "pipeline(" not in written


@pytest.mark.parametrize(
    ("trained", "called"),
    [
        (LoraConfig(r=8, target_modules=["q_proj"]), "a LoRA adapter of rank 8;"),
        (LoraConfig(r=8, target_modules=["q_proj"], rank_pattern={"q_proj": 64}), "a LoRA adapter of rank 8 to 64;"),
        (IA3Config(target_modules=["k_proj"], feedforward_modules=[]), "an adapter (IA3);"),
    ],
)
def test_the_card_calls_an_adapter_without_a_run_what_its_config_says(student, tmp_path, monkeypatch, trained, called):
    get_peft_model(AutoModelForCausalLM.from_pretrained(student), trained).save_pretrained(tmp_path / "made")
    load_tokenizer(str(student)).save_pretrained(tmp_path / "made")
    monkeypatch.setattr("drp_hf.hub.student.is_local", lambda name: False)
    text = card_of(student_publication(tmp_path / "made", "me/student", tmp_path / "work", "adapter")).text
    assert f"The weights here are {called} they need the base model." in text and "rank 16" not in text


class Always(LogitsProcessor):
    """Makes a model write one token again and again."""

    def __init__(self, token: int):
        self.token = token

    def __call__(self, input_ids, scores):
        scores = torch.full_like(scores, -torch.inf)
        scores[:, self.token] = 0
        return scores


def test_the_card_s_code_runs_the_adapter_that_was_trained(student, tmp_path):
    """With what transformers alone would leave out: magnitudes of DoRA, a template and a stop token of its own."""
    tokenizer = load_tokenizer(str(student))
    tokenizer.save_pretrained(tmp_path / "drp")
    tokenizer.chat_template, tokenizer.eos_token = None, "<|endoftext|>"
    tokenizer.save_pretrained(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(student)
    model.generation_config.eos_token_id = 0
    model.save_pretrained(tmp_path / "base")
    lora = LoraConfig(r=2, target_modules="all-linear", use_dora=True, init_lora_weights=False)
    trained = get_peft_model(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), lora).eval()
    for name, weight in trained.named_parameters():
        if "magnitude" in name:
            weight.data *= 1.5
    trained.save_pretrained(tmp_path / "drp")

    base = str(tmp_path / "base")
    stops = load_generation_config(base, load_tokenizer(str(tmp_path / "drp"))).eos_token_id
    made, config = Student(base=base, trained_from=base), PeftConfig.from_pretrained(tmp_path / "drp")
    card = str(student_card(str(tmp_path / "drp"), made, adapter=config, stops=stops, opens_think=False))
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names = {"always": [Always(2)]}
    exec(code.replace("max_new_tokens=2048", "max_new_tokens=4, logits_processor=always"), names)
    assert names["output"][0, names["prompt"]["input_ids"].shape[1] :].tolist() == [2]
    with torch.no_grad():
        torch.testing.assert_close(names["model"](**names["prompt"]).logits, trained(**names["prompt"]).logits)


def test_the_card_loads_the_base_that_was_named(student):
    of_hub = Student(base="me/base", base_revision="v2", trained_from="me/base")
    config = LoraConfig(target_modules=["q_proj"])
    card = str(student_card("me/drp", of_hub, adapter=config, stops=[2], opens_think=False))
    assert 'AutoModelForCausalLM.from_pretrained("me/base", revision="v2")' in card
    assert "vllm serve me/base --revision v2 --tokenizer me/drp" in card
    further = Student(base="me/base", trained_from="reasoner")  # the adapter does not stand on the base itself
    card = str(student_card("me/drp", further, adapter=config, stops=[2], opens_think=False))
    assert 'AutoModelForCausalLM.from_pretrained("reasoner")' in card and "vllm serve reasoner" in card


@pytest.mark.parametrize("has_config", [True, False])
def test_what_is_published_whole_stops_where_its_tokenizer_does(adapter, tmp_path, has_config):
    """Also where it was merged by a program that did not see to it."""
    folder = Path(shutil.copytree(adapter, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*")))
    file = folder / "merged" / "generation_config.json"
    file.write_text('{"eos_token_id": 2, "temperature": 0.6}')
    if not has_config:
        file.unlink()
    tokenizer = load_tokenizer(str(folder))
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    publication = student_publication(folder, "me/student", tmp_path / "work")
    assert set(publication.files) == MODEL | TOKENIZER | {"README.md"}
    published = json.loads(content(publication, "generation_config.json"))
    assert published["eos_token_id"] == [0, 2] and published.get("temperature") == (0.6 if has_config else None)


def test_the_card_of_a_student_that_wants_its_questions_put_in_other_words(whole, tmp_path):
    folder = Path(shutil.copytree(whole, tmp_path / "run"))
    run = json.loads((folder / "run.json").read_text())
    plain = card_of(student_publication(folder, "me/student", tmp_path / "plain")).text
    run["config"]["arguments"] |= {"prompt": '{question}\nSay "so".', "dataset_split": "part"}
    (folder / "run.json").write_text(json.dumps(run))
    text = card_of(student_publication(folder, "me/student", tmp_path / "work")).text
    question = "A box has 12 pencils. How many pencils are in 7 boxes?"
    for card, asked in ((plain, question), (text, f'{question}\nSay "so".')):
        written = re.findall(r"^messages = (\[.*\])$", card, re.MULTILINE)
        assert [ast.literal_eval(each) for each in written] == [[{"role": "user", "content": asked}]] * 2
    assert "put yours in the same way" in text and "put yours in the same way" not in plain
    assert [trained_prompt(str(each)) for each in (whole, folder)] == ["{question}", '{question}\nSay "so".']
    assert [trained_prompt(name) for name in (STUDENT, EMBEDDED)] == [STUDENT_PROMPT, None]
    settings = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert {name: settings[name] for name in ("prompt", "dataset_split")}.items() <= run["config"]["arguments"].items()
    assert "dataset_split" not in plain


def test_results_plots_and_the_leaderboard_s_file(whole, tmp_path, caplog):
    after = evaluation(tmp_path / "after", 80, lambda i: i % 3 == 0)
    publication = student_publication(whole, "me/student", tmp_path / "work", after=after)
    added = {".eval_results/gsm8k.yaml"} | {f"plots/gsm8k_{name}.png" for name in ("lengths", "budgets", "pareto")}
    assert set(publication.files) == MODEL | TOKENIZER | {"README.md"} | added
    card = card_of(publication)
    assert {name for name in added if name.endswith("png") and f"]({name})" in card.text} == added - {min(added)}
    assert "| gsm8k | accuracy | – | 33.3% (" in card.text and card.data.eval_results[0].metric_value == 33.33
    assert f"has the answers of a model, and the student is {whole}" in caplog.text


def test_the_settings_that_did_not_differ_are_left_out(whole, tmp_path):
    run = json.loads((whole / "run.json").read_text())
    student = student_of(run, None)
    # The last is TRL's own default, where transformers knows it by that name (from 5.23 on).
    assert set(student.training) - {"activation_checkpointing"} == {"max_steps", "learning_rate", "bf16"}
    assert student.model == {} and student.corpus == "sums" and not student.corpus_on_hub


def test_a_base_is_followed_to_the_hub(tmp_path):
    assert hub_name("org/base") == "org/base" and hub_name(None) is None
    assert hub_name("quickstart-reasoner") == "HuggingFaceTB/SmolLM2-135M-Instruct"
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, base in ((first, "org/base"), (second, str(first))):
        folder.mkdir()
        run = {"stage": "sft", "config": {"model": {"model_name_or_path": base}}}
        (folder / "run.json").write_text(json.dumps(run))
    assert hub_name(str(second)) == "org/base"
    assert hub_name(str(tmp_path)) is None and is_local(str(tmp_path)) and not is_local("org/base")


def test_a_relative_folder_of_another_place_is_no_name_on_the_hub(whole):
    run = json.loads((whole / "run.json").read_text())
    run["config"]["arguments"]["dataset"], run["config"]["model"]["model_name_or_path"] = "runs/corpus", "runs/base"
    run["inputs"] = {"runs/corpus": "0123456789abcdef", "runs/base": "0123456789abcdef"}
    student = student_of(run, None)
    assert (student.base, student.corpus, student.corpus_on_hub) == (None, "corpus", False)
    run["inputs"] = {"runs/corpus": "0" * 40}
    student = student_of(run, None)
    assert (student.base, student.corpus, student.corpus_on_hub) == ("runs/base", "runs/corpus", True)


def test_the_folder_of_a_training_has_the_card(whole):
    card = ModelCard.load(whole / "README.md")
    assert card.data.pipeline_tag == "text-generation" and "drp_hf" in card.data.tags
    assert "| rows a step, on each device |" in card.text
