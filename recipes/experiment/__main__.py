"""Runs an experiment, or plans it: `python -m recipes.experiment FOLDER [--plan]`."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from drp_hf.commands.parsing import parse, parse_and_run
from drp_hf.commands.prune import REPLIES
from drp_hf.commands.sft import SFTArguments, is_same_student
from drp_hf.commands.training import is_trained, last_complete_checkpoint, tell_kept
from drp_hf.errors import DRPError
from drp_hf.hub.publication import PushOptions, check_target
from drp_hf.hub.remote import Remote, in_one_sentence
from drp_hf.servers import client_options
from drp_hf.store import RowStore
from drp_hf.teachers.asking import Replies, Tally
from recipes.experiment.plan import print_plan
from recipes.experiment.stages import PYTHON, read_settings, run_stage

SEVERAL_GPUS = Path(__file__).parents[1] / "accelerate_configs" / "multi_gpu.yaml"
NEEDED = {
    "rollout": ("problems", "model", "output_dir"),
    "prune": ("traces", "output_dir"),
    "sft": ("dataset", "model_name_or_path", "output_dir"),
    "evaluate": ("benchmarks", "model", "output_dir"),
}
"""What the file of every stage must say, though the command would take it as a flag as well."""


@dataclass
class ExperimentConfig:
    """
    Configuration of an experiment.

    Parameters:
        folder (`str`):
            Folder with the settings of every stage: `rollout.yaml`, `prune.yaml`, `sft.yaml` and `evaluate.yaml`; and,
            if there is more to say of what is published, `push_corpus.yaml` and `push_student.yaml`.
        plan (`bool`, *optional*, defaults to `False`):
            Run every stage on a few problems only, and print what time, tokens and money the whole will take. What is
            answered and paid for is kept, and not asked again by the experiment itself.
        pilot (`int`, *optional*, defaults to `64`):
            Problems of the plan's rollout, and of each benchmark. More give better rates: a GPU is faster when it is
            full.
        gpus (`int`, *optional*, defaults to `1`):
            Devices that train. The rows of an optimiser step stay the same. Rollout and evaluation use one.
        push_to (`str`, *optional*):
            Your name on the Hub, or your organisation's: corpus and student are published there, private. A plan
            only shows what would be.
    """

    folder: str = field(metadata={"help": "Folder with the settings of every stage."})
    plan: bool = field(default=False, metadata={"help": "Run a pilot, and print what the whole will take."})
    pilot: int = field(default=64, metadata={"help": "Problems of the plan's rollout, and of each benchmark."})
    gpus: int = field(default=1, metadata={"help": "Devices that train."})
    push_to: str | None = field(default=None, metadata={"help": "Your name on the Hub, to publish there."})


def main(config: ExperimentConfig) -> None:
    """Runs the stages one after the other; what is there already is not made again."""
    settings = {stage: read_settings(Path(config.folder) / f"{stage}.yaml") for stage in NEEDED}
    check(config, settings)
    few = {"limit": config.pilot} if config.plan else {}
    # A student of few traces is another one than the experiment's, and so are its answers.
    of_pilot = f"-pilot-{config.pilot}" if config.plan else ""
    student = Path(settings["sft"]["output_dir"] + of_pilot)
    before, after = student.with_name("before"), Path(settings["evaluate"]["output_dir"] + of_pilot)
    runs = student.parent / "settings"
    base = settings["sft"]["model_name_or_path"]

    run_stage("rollout", settings["rollout"] | few, runs / "rollout.yaml")
    run_stage("prune", settings["prune"], runs / "prune.yaml")
    if not config.plan:
        check_answered(Path(settings["prune"]["output_dir"]))
    if is_kept(student, config.folder):
        tell_kept(student)
    else:
        training = settings["sft"] | share(settings["sft"], config.gpus) | {"output_dir": str(student)}
        training |= {"resume_from_checkpoint": "true"}
        run_stage("sft", training, runs / f"sft{of_pilot}.yaml", training_launcher(config.gpus))
    answers = settings["evaluate"] | few
    run_stage("evaluate", answers | {"model": base, "output_dir": str(before)}, runs / "before.yaml")
    compared = {"model": str(student), "output_dir": str(after), "baseline": str(before)}
    run_stage("evaluate", answers | compared, runs / f"after{of_pilot}.yaml")
    if config.push_to:
        dry = {"dry_run": True} if config.plan else {}
        corpus = push_settings(config, "corpus") | {"corpus": settings["prune"]["output_dir"]}
        run_stage("push corpus", corpus | dry, runs / "push_corpus.yaml")
        measured = {"before": str(before), "after": str(after), "corpus": corpus["repo_id"]}
        publication = push_settings(config, "student") | {"student": str(student)} | measured
        run_stage("push student", publication | dry, runs / "push_student.yaml")
    if config.plan:
        print_plan(settings, config.pilot, before, student)


def check(config: ExperimentConfig, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuses before anything is run what would fail after hours.

    Raises:
        DRPError: a stage's file lacks a setting, settings of two stages do not fit together, the devices do not
            divide a step, the teacher's key is not there, or the Hub would not take what is to be published.
    """
    folder = config.folder
    if config.pilot < 1 or config.gpus < 1:
        raise DRPError(f"pilot is {config.pilot} and gpus is {config.gpus}: both must be at least 1.")
    for stage, names in NEEDED.items():
        if missing := [name for name in names if name not in settings[stage]]:
            raise DRPError(f"{folder}/{stage}.yaml has no {' and no '.join(missing)}: an experiment needs it there.")
    links = [
        ("prune", "traces", "rollout", str(Path(settings["rollout"]["output_dir"], "traces.jsonl"))),
        ("sft", "dataset", "prune", settings["prune"]["output_dir"]),
        ("sft", "model_name_or_path", "rollout", settings["rollout"]["model"]),
        ("evaluate", "model", "sft", settings["sft"]["output_dir"]),
    ]
    for stage, name, made_by, expected in links:
        if settings[stage][name] != expected:
            raise DRPError(
                f"{folder}/{stage}.yaml has {name} {settings[stage][name]!r}, but {made_by}.yaml makes "
                f"{expected!r}: write the same in both."
            )
    share(settings["sft"], config.gpus)
    if settings["prune"].get("teacher") in ("chat", "batch"):
        client_options(settings["prune"].get("base_url"))  # a key that is lacking
    if config.push_to and not config.plan:
        check_hub(config)


def training_launcher(gpus: int) -> tuple[str, ...]:
    """What runs the training on so many devices, whatever this machine has and `accelerate config` has noted there."""
    if gpus == 1:  # one process would take all that it sees, which TRL refuses
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        return ("env", f"CUDA_VISIBLE_DEVICES={first}", *PYTHON)
    several = ("--config_file", str(SEVERAL_GPUS), "--num_processes", str(gpus))
    return (*PYTHON, "accelerate.commands.launch", *several, "-m")


def check_answered(corpus: Path) -> None:
    """Refuses a corpus in which requests were given up that may be answered yet.

    What is asked once more with no success at all is taken as it is, where others were answered.

    Raises:
        DRPError: there are such requests.
    """
    info = json.loads((corpus / "run.json").read_text(encoding="utf-8"))
    made = info["measured"]
    if not made["unanswered"]:
        return
    with RowStore(corpus / REPLIES) as store:
        answered = Replies(store, info["config"]["model"], Tally()).exist()
    if not answered:
        raise DRPError(
            f"{corpus}: the teacher has answered nothing, so that others decide everywhere: mend what the column "
            f"'reason' in {corpus / 'raw'} says, and give the same command again."
        )
    if made["output_tokens"]:
        raise DRPError(
            f"{corpus}: {made['unanswered']} requests to the teacher were given up, so that others decide there: give "
            "the same command again, which asks these alone; what is done is kept."
        )


def is_kept(student: Path, folder: str) -> bool:
    """Whether the student is finished and as the experiment would train it.

    Raises:
        DRPError: what is there, finished or with a checkpoint to go on from, was trained otherwise.
    """
    if not (is_trained(student) or last_complete_checkpoint(student)):
        return False
    from trl import ModelConfig

    from drp_hf.drp_config import DRPConfig

    # The settings alone are wanted: the devices are the stages', which may need all their memory.
    flags = ["--config", f"{folder}/sft.yaml", "--output_dir", str(student), "--use_cpu", "true"]
    if not is_same_student(*parse((SFTArguments, DRPConfig, ModelConfig), flags)):
        raise DRPError(
            f"{student} was trained with other settings or on another corpus: delete it or give another output_dir."
        )
    return is_trained(student)


def share(sft: Mapping[str, Any], gpus: int) -> dict[str, int]:
    """The settings with which so many devices take the same rows in an optimiser step as one does.

    Raises:
        DRPError: the rows cannot be divided.
    """
    each, steps = sft.get("per_device_train_batch_size", 8), sft.get("gradient_accumulation_steps", 1)
    rows = each * steps
    if rows % gpus:
        raise DRPError(f"A step of {rows} rows cannot be divided among {gpus} GPUs: give another number of gpus.")
    own = rows // gpus
    batch = max(size for size in range(1, min(each, own) + 1) if own % size == 0)
    return {"per_device_train_batch_size": batch, "gradient_accumulation_steps": own // batch}


def push_settings(config: ExperimentConfig, kind: str) -> dict[str, Any]:
    """Where a corpus or student is published, and what else the folder says of that."""
    name = Path(config.folder).resolve().name + ("_pruned" if kind == "corpus" else "")
    file = Path(config.folder) / f"push_{kind}.yaml"
    return {"repo_id": f"{config.push_to}/{name}"} | (read_settings(file) if file.exists() else {})


def check_hub(config: ExperimentConfig) -> None:
    """Makes the repositories, private, where there are none, so that it is known whether they take anything.

    Raises:
        DRPError: one does not.
    """
    for kind, repo_type in (("corpus", "dataset"), ("student", "model")):
        settings = push_settings(config, kind)
        options = PushOptions(settings["repo_id"], public=settings.get("public", False))
        with in_one_sentence(options.repo_id):
            remote = Remote(HfApi(), options.repo_id, repo_type)
            remote.create(None)
            check_target(options, remote)


if __name__ == "__main__":
    parse_and_run(main, ExperimentConfig, "folder")
