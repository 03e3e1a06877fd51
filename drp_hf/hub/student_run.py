"""What made a student: read from its `run.json`, and followed to what the Hub knows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from math import prod
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi

from drp_hf.embedded import EMBEDDED, EMBEDDED_ON_HUB, NAMES, STUDENT, STUDENT_PROMPT
from drp_hf.engines.base import QUESTION, put
from drp_hf.hub.remote import NO_ANSWER
from drp_hf.models import DEFAULT_BRANCH
from drp_hf.provenance import read_run_info

COMMIT = re.compile(r"[0-9a-f]{40}")
LEFT_OUT = re.compile(
    r"output_dir|run_name|logging_|log_|report_to|project|trackio_|push_to_hub|hub_|save_|load_best|resume_from|"
    r"use_cpu|local_rank|dataloader_|ddp_|disable_tqdm|dataset_num_proc|include_|eval_|per_device_eval|do_|deepspeed|"
    r"fsdp|skip_memory|accelerator_config|parallelism_config|debug|model_name_or_path|pad_to_multiple_of|"
    r"gradient_checkpointing"
)
"""Settings of the machine, the folder and the log, those that the card gives elsewhere, and an old name of one."""
SHARED_OUT = ("per_device_train_batch_size", "gradient_accumulation_steps")
"""Settings of which the product with the number of devices counts."""
NOT_DECIDING = (*SHARED_OUT, "activation_checkpointing", "liger_kernel_config")
"""Those, one that saves memory, and one that TRL's trainer completes."""


@dataclass(frozen=True)
class Student:
    """What made a student.

    Args:
        stage: `sft` or `dpo`; None where that is not known.
        base: the model it was trained from, as the Hub has it; None where the Hub has it not.
        base_revision: its revision, where one was named.
        trained_from: the model as the user named it; of a folder its name.
        corpus: what it was trained on: a data set of the Hub, or the name of a folder; None where that is not known.
        corpus_on_hub: whether it is the former.
        corpus_view: the configuration.
        corpus_split: the split.
        prompt: the user's message that it was trained with, with `{question}` in it.
        corpus_revision: the commit of the data set, or the fingerprint of the files of its rows.
        training: the trainer's settings that differ from the defaults.
        model: the settings of model and adapter that differ from the defaults.
        adapter: PEFT's type of the adapter that was trained, if it is no LoRA, as `IA3`.
        all_training: all of the trainer's settings.
        versions: of the libraries.
    """

    stage: str | None = None
    base: str | None = None
    base_revision: str | None = None
    trained_from: str | None = None
    corpus: str | None = None
    corpus_on_hub: bool = False
    corpus_view: str | None = None
    corpus_split: str = "train"
    prompt: str = QUESTION
    corpus_revision: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    adapter: str | None = None
    all_training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_direct(self) -> bool:
        """Whether it was trained from the base itself, and not from something that was trained from it."""
        return self.trained_from in (self.base, EMBEDDED)

    @property
    def lora_rank(self) -> int:
        """The rank of the adapter that was trained, if one was."""
        return self.model.get("lora_r", 16)

    @property
    def settings(self) -> str:
        """What differs from the defaults, as YAML that `drp sft --config` reads; the folder to write is left open."""
        asked = {"model_name_or_path": self.trained_from, "model_revision": self.base_revision}
        asked |= {"dataset": self.corpus, "dataset_config": self.corpus_view}
        asked |= {"dataset_split": _unless(self.corpus_split, "train"), "prompt": _unless(self.prompt, QUESTION)}
        given = {name: value for name, value in asked.items() if value is not None}
        # A script may give settings that YAML does not know; they stand here as they stand in `run.json`.
        plain = json.loads(json.dumps({**given, **self.model, **self.training}, default=str))
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).strip()

    def asked(self, question: str) -> str:
        """The user's message that asks a question, as a Python string."""
        return json.dumps(put(question, self.prompt), ensure_ascii=False)

    def rows(self) -> list[tuple[str, str]]:
        """The main settings, for people."""
        of = self.all_training
        if not of:
            return []
        weights = f"an adapter ({self.adapter})" if self.adapter else "all weights"
        if self.model.get("use_peft"):
            targets = self.model.get("lora_target_modules") or "the usual layers"
            targets = ", ".join(targets) if isinstance(targets, list) else targets
            alpha = self.model.get("lora_alpha", 32)
            weights = f"LoRA of rank {self.lora_rank}, alpha {alpha}, on {targets}"
        length = f"{of['max_steps']:,} steps" if of["max_steps"] > 0 else f"{of['num_train_epochs']:g} epochs"
        batch = of["per_device_train_batch_size"] * of["gradient_accumulation_steps"]
        rows = [("what is trained", weights), ("length", length), ("rows a step, on each device", f"{batch}")]
        rows += [("learning rate", f"{of['learning_rate']:g}, {of['lr_scheduler_type']}")]
        rows += [("longest row", f"{of['max_length']:,} tokens" if of["max_length"] else "not cut")]
        rows += [("precision", "bfloat16" if of["bf16"] else "float16" if of["fp16"] else "float32")]
        if self.stage == "sft":
            rows += [("the loss is over", of["loss_scope"])]
        if self.stage == "dpo":
            rows += [("beta", f"{of['beta']:g}")]
        return [*rows, ("seed", f"{of['seed']}")]


def read_run(folder: Path) -> dict[str, Any]:
    """What made a student, as `drp sft` or `drp dpo` wrote it; of a checkpoint without it what lies beside; or empty.

    Raises:
        DRPError: it cannot be read.
    """
    places = [folder, folder.resolve().parent] if checkpoint_step(folder) is not None else [folder]
    return next(filter(None, map(read_run_info, places)), {})


def trained_prompt(model: str) -> str | None:
    """The user's message that a student was trained with; None where that is not known here."""
    if model == STUDENT:
        return STUDENT_PROMPT
    return read_run(Path(model)).get("config", {}).get("arguments", {}).get("prompt")


def checkpoint_step(folder: Path) -> int | None:
    """The optimiser step of a trainer's checkpoint; None for any other folder."""
    numbered = re.fullmatch(r"checkpoint-(\d+)", folder.resolve().name)
    return int(numbered[1]) if numbered else None


def student_of(
    run: Mapping[str, Any], base: str | None, base_revision: str | None = None, corpus: str | None = None
) -> Student:
    """What made a student.

    Args:
        run: the content of `run.json`.
        base: the model it was trained from, where the run does not say.
        base_revision: that one's, where the run does not say.
        corpus: the corpus's name on the Hub, where the training read it from a folder.
    """
    from trl import DPOConfig, ModelConfig

    from drp_hf.drp_config import DRPConfig

    config = run.get("config", {})
    if run.get("stage") not in ("sft", "dpo"):
        found = hub_name(base)
        revision = _unless(base_revision, DEFAULT_BRANCH) if found == base else None
        on_hub = {"corpus": corpus, "corpus_on_hub": corpus is not None}
        return Student(base=found, base_revision=revision, trained_from=found, **on_hub)
    model, training, arguments = config["model"], config["training"], config["arguments"]
    data_set, inputs = arguments.get("dataset"), run.get("inputs", {})
    # What was read on the machine of the training has a fingerprint there, also what cannot be seen from here.
    folders = {name for name, what in inputs.items() if what and not COMMIT.fullmatch(what)}
    local = data_set is not None and (data_set in folders or is_local(data_set))
    trained_from = model.get("model_name_or_path") or base
    base = None if trained_from in folders and not is_local(trained_from) else hub_name(trained_from)
    named = trained_from == base or trained_from in NAMES
    differing = _differing(training, DRPConfig if run["stage"] == "sft" else DPOConfig)
    if (template := differing.get("chat_template_path")) and (template in folders or is_local(template)):
        differing["chat_template_path"] = Path(template).name
    return Student(
        stage=run["stage"],
        base=base,
        trained_from=trained_from if named or trained_from is None else Path(trained_from).name,
        base_revision=_unless(model.get("model_revision"), DEFAULT_BRANCH),
        corpus=corpus or (Path(data_set).name if local else data_set),
        corpus_on_hub=corpus is not None or (data_set is not None and not local),
        corpus_view=arguments.get("dataset_config"),
        corpus_split=arguments.get("dataset_split", "train"),
        prompt=arguments.get("prompt", QUESTION),
        corpus_revision=inputs.get(data_set) or None,
        training=differing,
        model=_differing(model, ModelConfig),
        adapter=model.get("peft_type"),
        all_training=training,
        versions=run.get("versions", {}),
    )


def deciding(run: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a student's weights: two trainings that agree in it make the same ones.

    Neither the machine, the folder and the log nor the versions of the libraries are looked at, and of the rows of a
    step only how many they are on all devices. A data set or model of the Hub is taken by its name, a local one by
    its content.

    Args:
        run: the content of `run.json`, of `drp sft` or `drp dpo`.
    """
    student, config = student_of(run, base=None), run["config"]
    arguments = config["arguments"]
    local = {name: what for name, what in run["inputs"].items() if what and not COMMIT.fullmatch(what)}
    data_set, base = arguments.get("dataset"), config["model"]["model_name_or_path"]
    template = student.all_training.get("chat_template_path")
    rows_a_step = prod([*(student.all_training[name] for name in SHARED_OUT), config.get("devices", 1)])
    return {
        "stage": run["stage"],
        "rows": [local.get(data_set, data_set), arguments.get("dataset_config"), arguments.get("dataset_split")],
        "prompt": student.prompt,
        "chat template": [template, local.get(template)],
        "base": local.get(base, base),
        "model": student.model,
        "training": {name: value for name, value in student.training.items() if name not in NOT_DECIDING},
        "rows a step": rows_a_step,
    }


def is_local(name: str) -> bool:
    """Whether a model's or data set's name means something that only this machine has."""
    from_here = name in NAMES or name.startswith((".", "/", "~")) or name.count("/") > 1
    return from_here or Path(name).exists()


def hub_name(name: str | None) -> str | None:
    """The model on the Hub that a name leads to: through adapters and students that were trained from one another."""
    seen = set()
    while name and name not in seen:
        seen.add(name)
        if name in NAMES:
            return EMBEDDED_ON_HUB
        if not is_local(name):
            return name
        folder = Path(name)
        run, adapter = read_run(folder), folder / "adapter_config.json"
        name = run.get("config", {}).get("model", {}).get("model_name_or_path")
        if name is None and adapter.is_file():
            name = json.loads(adapter.read_bytes()).get("base_model_name_or_path")
    return None


def license_of(base: str | None) -> dict[str, str]:
    """The licence of a model of the Hub, as its card declares it; empty where that cannot be found out."""
    if base is None:
        return {}
    try:
        data = HfApi().model_info(base, timeout=10).card_data
    except NO_ANSWER:  # not there, not to be read by this user, or no Hub
        return {}
    names = ("license", "license_name", "license_link")
    return {name: data[name] for name in names if data and data.get(name)}


def _differing(settings: Mapping[str, Any], config: type) -> dict[str, Any]:
    """The settings that differ from a configuration's defaults.

    The defaults are those of its fields: to make one would set up the devices anew, in the middle of a training. What
    transformers takes for a secret by its name it has hidden already; older runs have so lost `eos_token`, too.
    """
    defaults = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(config)
    }
    return {
        name: value
        for name, value in settings.items()
        if not LEFT_OUT.match(name) and name in defaults and value not in (defaults[name], f"<{name.upper()}>")
    }


def _unless(value: str | None, usual: str) -> str | None:
    return None if value == usual else value
