"""What the commands that train share: rows and a student in; a trained student, its card and its account out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from drp_hf.commands.push import tell
from drp_hf.corpus import DEFAULT_VIEW
from drp_hf.corpus.folder import rows_fingerprint
from drp_hf.embedded import NAMES
from drp_hf.engines.base import QUESTION, put
from drp_hf.errors import DRPError
from drp_hf.hub.student import MERGED
from drp_hf.hub.student_run import deciding, is_local, read_run
from drp_hf.models import (
    DEFAULT_BRANCH,
    TOKENIZER_FILES,
    adapter_chain,
    load_model_and_tokenizer,
    local_model_dir,
    model_identity,
)
from drp_hf.provenance import fingerprint, write_run_info
from drp_hf.tables import hub_commit, load_data_set

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
    from trl import ModelConfig

    from drp_hf.hub.training import PublishingTrainer

TRAINER_STATE_NAME = "trainer_state.json"
"""What a checkpoint's folder gets last."""
INTERRUPTED = (
    "interrupted: with --resume_from_checkpoint true the same command goes on from the last whole checkpoint, or "
    "begins again where none was saved (as with save_strategy no)."
)


@dataclass
class StudentArguments:
    """
    Arguments of the commands that train, beside those of the trainer and of [`~trl.ModelConfig`].

    Parameters:
        > Parameters that control the data

        dataset (`str`):
            A folder made by `drp prune`, a JSON Lines or Parquet file, or the name of a data set.
        dataset_config (`str`, *optional*):
            Configuration of the data set; its default one (for a corpus `sft`) if not given. A file has but one.
        dataset_split (`str`, *optional*, defaults to `"train"`):
            Split to train on.
        prompt (`str`, *optional*, defaults to `"{question}"`):
            The user's message, with `{question}` for what the row asks. Put questions to the student in the same way:
            `drp evaluate` has the same option.

        > Parameters that control what is saved

        merge (`bool`, *optional*, defaults to `False`):
            Also save the adapter merged into its base, in the folder `merged` of `output_dir`.
    """

    dataset: str = field(
        metadata={"help": "A folder made by `drp prune`, a JSON Lines or Parquet file, or the name of a data set."}
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration of the data set; its default one if not given."}
    )
    dataset_split: str = field(default="train", metadata={"help": "Split to train on."})
    prompt: str = field(default=QUESTION, metadata={"help": "The user's message, with {question} in it."})
    merge: bool = field(default=False, metadata={"help": "Also save the adapter merged into its base."})


@dataclass
class StudentRun:
    """Everything that made a run, as `run.json` tells it."""

    arguments: dict[str, Any]
    training: dict[str, Any]
    model: dict[str, Any]
    devices: int


def check(stage: str, arguments: StudentArguments, training: TrainingArguments, model_config: ModelConfig) -> None:
    """Refuses before anything is loaded what could not be done at the end."""
    from drp_hf.hub.training import check_base

    if not model_config.model_name_or_path:
        raise DRPError(f"Give the student as model_name_or_path: {', '.join(NAMES)}, a folder or a name on the Hub.")
    if arguments.merge and not model_config.use_peft:
        raise DRPError("merge needs an adapter: set use_peft, or remove merge (a full model is saved as it is).")
    if training.n_gpu > 1:
        raise DRPError(
            f"This process sees {training.n_gpu} GPUs, and trains on one: start it with `accelerate launch`, or set "
            "CUDA_VISIBLE_DEVICES to one of them."
        )
    if training.eval_strategy != "no":
        raise DRPError(
            f"drp {stage} has no evaluation data: remove eval_strategy and use drp evaluate on the student."
        )
    name, revision = model_config.model_name_or_path, model_config.model_revision
    if revision not in (None, DEFAULT_BRANCH) and is_local(name):
        raise DRPError(
            f"model_revision is {revision!r}, and {name} is on this machine, where there are no revisions: remove it; "
            "the base of an adapter is loaded at the revision that its adapter_config.json names."
        )
    check_base(training, name, model_config.use_peft, arguments.merge)
    check_checkpoints(stage, arguments, training, model_config)


def check_checkpoints(
    stage: str, arguments: StudentArguments, training: TrainingArguments, model_config: ModelConfig
) -> None:
    """Refuses a folder with checkpoints of another training, from which this one would go on, now or after a stop.

    One that is named is the user's choice, and one of which nothing tells how it was trained is taken for this one's.
    """
    last = last_complete_checkpoint(training.output_dir)
    if last is None or asked_to_resume(training) not in ("true", "false"):
        return
    there = read_run(last)
    if there and not trains_alike(there, stage, arguments, training, model_config):
        raise DRPError(
            f"{last} was trained with other settings or on another corpus: delete it and those before it, give "
            f"another output_dir, or name it to go on from it all the same (--resume_from_checkpoint {last})."
        )


def load_rows(arguments: StudentArguments) -> Dataset:
    """The rows to train on.

    Raises:
        DRPError: no such data set, configuration or split, it cannot be read, or it has no questions that `prompt`
            could put in other words.
    """
    rows = load_data_set(arguments.dataset, arguments.dataset_config, arguments.dataset_split)
    if arguments.prompt == QUESTION:
        return rows
    if "prompt" not in rows.column_names:
        raise DRPError(f"{arguments.dataset} has no column prompt: leave the option prompt out.")
    from trl.trainer.utils import global_then_local_main_first

    with global_then_local_main_first():
        return rows.map(_ask, fn_kwargs={"prompt": arguments.prompt}, desc="Questions put as the prompt says")


def _ask(row: dict[str, Any], prompt: str) -> dict[str, Any]:
    asked = row["prompt"]
    # An empty one stays so: the trainer refuses it, with its row's number.
    if asked and isinstance(asked, str):
        asked = put(asked, prompt)
    elif asked:
        *before, user = asked
        asked = [*before, {**user, "content": put(user["content"], prompt)}]
    return {"prompt": asked}


def load_student(
    training: TrainingArguments, model_config: ModelConfig
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The student, which may itself be an adapter (that one is merged), and its tokenizer."""
    from trl import get_quantization_config

    quantization = get_quantization_config(model_config)
    name, revision = model_config.model_name_or_path, model_config.model_revision
    # An adapter can be merged neither into weights that are cut nor into quantized ones.
    is_adapter = bool(adapter_chain(name, revision).adapters)
    with uncut(training) if is_adapter else nullcontext():
        model, tokenizer = load_model_and_tokenizer(
            local_model_dir(name, revision=revision) if quantization else name,
            dtype=model_config.dtype,
            revision=revision,
            trust_remote_code=training.trust_remote_code,
            attn_implementation=model_config.attn_implementation,
            quantization_config=quantization,
        )
    if not (model_config.use_peft or quantization):
        model.requires_grad_(True)  # an adapter leaves the base frozen that it is merged into
    return model, tokenizer


def train_and_save(
    stage: str,
    trainer: PublishingTrainer,
    arguments: StudentArguments,
    training: TrainingArguments,
    model_config: ModelConfig,
) -> float:
    """Trains, and saves the model with its tokenizer, its card and `run.json` into `training.output_dir`.

    What is published of it, during the training and at its end, is what [`~drp_hf.hub.training.PublishingConfig`]
    says; at the end all is saved before.

    Returns:
        How many seconds the training took.
    """
    trainer.base = model_config.model_name_or_path
    if model_config.model_revision != DEFAULT_BRANCH:
        trainer.base_revision = model_config.model_revision
    checkpoint = checkpoint_to_resume(training)
    if trainer.is_world_process_zero():
        # Before the training: cards of checkpoints tell of it, and what it reads may change on the way.
        record = StudentRun(asdict(arguments), training.to_dict(), asdict(model_config), training.world_size)
        fingerprints = {arguments.dataset: hub_commit(trainer.train_dataset)}
        fingerprints |= input_fingerprints(arguments, training, model_config)
        # First: the end of a training before this one must not be taken for the end of this one.
        (Path(training.output_dir) / TRAINER_STATE_NAME).unlink(missing_ok=True)
        write_run_info(training.output_dir, stage, record, fingerprints=fingerprints)
        trainer.run = read_run(Path(training.output_dir))
    trained = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(training.output_dir, _internal_call=True)
    if trainer.is_world_process_zero():
        trainer.create_model_card(model_name=Path(training.output_dir).name)
        if arguments.merge:
            with uncut(training):
                save_merged(training.output_dir)
    trainer.save_state()  # last: whoever finds it takes the student for finished
    # Nobody leaves before all is written; and a gloo group that is released right after a collective can hang: torch
    # waits, holding the GIL, for a thread that wants the GIL to release the collective's tensors.
    trainer.accelerator.wait_for_everyone()
    for published in trainer.publish_student(MERGED if arguments.merge else None):
        tell(published)
    return trained.metrics["train_runtime"]


def is_trained(student: Path) -> bool:
    """Whether a training in this folder has come to its end: its state is written last."""
    return (student / TRAINER_STATE_NAME).exists()


def trains_alike(
    there: Mapping[str, Any],
    stage: str,
    arguments: StudentArguments,
    training: TrainingArguments,
    model_config: ModelConfig,
) -> bool:
    """Whether the training that a `run.json` tells of gives the weights that this one gives."""
    if there.get("stage") != stage:
        return False
    config = StudentRun(asdict(arguments), training.to_dict(), asdict(model_config), training.world_size)
    inputs = input_fingerprints(arguments, training, model_config)
    run = {"stage": stage, "config": asdict(config), "inputs": inputs}
    return deciding(json.loads(json.dumps(run, default=str))) == deciding(there)


def input_fingerprints(
    arguments: StudentArguments, training: TrainingArguments, model_config: ModelConfig
) -> dict[str, str]:
    """Fingerprints of data set, model and chat template, by name, where they lie on this machine.

    Of a corpus the rows of the view that is trained count: all else changes when it is pruned again, and the bytes of
    the files with the library that writes them.
    """
    data_set, model = Path(arguments.dataset), Path(model_config.model_name_or_path)
    found = {}
    if data_set.exists():
        rows = rows_fingerprint(data_set, arguments.dataset_config or DEFAULT_VIEW)
        # The student itself may lie within the folder.
        folder, student = data_set.resolve(), Path(training.output_dir).resolve()
        files = (file for file in folder.rglob("*") if student not in file.parents)
        found[arguments.dataset] = rows or fingerprint(folder, files)
    if model.exists():
        found[model_config.model_name_or_path] = " ".join(model_identity(model_config.model_name_or_path))
    template = training.to_dict().get("chat_template_path")  # a setting of drp sft alone
    if template and Path(template).exists():
        files = [file for pattern in TOKENIZER_FILES for file in Path(template).glob(pattern)]
        found[template] = fingerprint(template, files)
    return found


def tell_kept(student: Path) -> None:
    """Says that a finished student is not trained again."""
    said = f"{student}: the student is there already, trained with the same settings on the same corpus"
    Console(stderr=True, highlight=False, soft_wrap=True).print(said)


@contextmanager
def uncut(training: TrainingArguments) -> Iterator[None]:
    """Within, models are loaded whole: DeepSpeed's ZeRO-3 would cut them, on all devices at the same time."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    if training.deepspeed_plugin is None:
        yield
        return
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        training.deepspeed_plugin.set_deepspeed_weakref()


def asked_to_resume(training: TrainingArguments) -> str:
    """What `resume_from_checkpoint` says: `true`, `false` or a path."""
    asked = str(training.resume_from_checkpoint or "false")
    return asked.lower() if asked.lower() in ("true", "false") else asked


def checkpoint_to_resume(training: TrainingArguments) -> str | None:
    """The checkpoint that `resume_from_checkpoint` means: a path, or `true` for the last complete one, if any.

    Raises:
        DRPError: there is no checkpoint at the path, or it is not complete.
    """
    asked = asked_to_resume(training)
    if asked == "false":
        return None
    if asked == "true":
        last = last_complete_checkpoint(training.output_dir)
        return str(last) if last else None
    if not is_complete(Path(asked)):
        raise DRPError(
            f"{asked} is no complete checkpoint ({TRAINER_STATE_NAME} or the optimiser's state is missing or cut "
            "off): give another one, or --resume_from_checkpoint true for the last complete one."
        )
    return asked


def last_complete_checkpoint(folder: str | Path) -> Path | None:
    """The newest complete checkpoint in a training's output folder."""
    found = ((re.fullmatch(r"checkpoint-(\d+)", path.name), path) for path in Path(folder).glob("checkpoint-*"))
    numbered = {int(step[1]): path for step, path in found if step}
    return next((numbered[step] for step in sorted(numbered, reverse=True) if is_complete(numbered[step])), None)


def is_complete(checkpoint: Path) -> bool:
    """Whether a training can go on from a checkpoint: its state, written last, and an optimiser's are there."""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return any(any(checkpoint.glob(pattern)) for pattern in ("*optimizer*", "global_step*"))  # the latter DeepSpeed's


def save_merged(folder: str) -> None:
    """Saves the adapter in `folder` merged into its base, as any other program can load it, in `folder/merged`."""
    model, tokenizer = load_model_and_tokenizer(folder)
    model.save_pretrained(Path(folder) / MERGED)
    tokenizer.save_pretrained(Path(folder) / MERGED)


def logged(trainer: Trainer, name: str) -> list[float]:
    """Every value of a metric that the trainer has logged, in order."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def figures_table(output_dir: str, figures: dict[str, str]) -> Table:
    """Figures of a finished training for the terminal, by their titles."""
    table = Table(title=f"Student in {output_dir}")
    for name in figures:
        table.add_column(name, justify="right")
    table.add_row(*figures.values())
    return table


def decimals(value: float | None, digits: int = 4) -> str:
    """A figure for the terminal; a dash where nothing was logged."""
    return "–" if value is None else f"{value:.{digits}f}"
