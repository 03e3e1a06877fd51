"""`drp sft DATASET --model_name_or_path M --output_dir DIR`: fine-tunes a student on a corpus."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from drp_hf.commands.parsing import parse, run
from drp_hf.errors import DRPError
from drp_hf.models import ADAPTER_CONFIG, load_model_and_tokenizer, local_model_dir
from drp_hf.provenance import write_run_info

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import ModelConfig

    from drp_hf.drp_config import DRPConfig
    from drp_hf.drp_trainer import DRPTrainer

MERGED = "merged"


@dataclass
class SFTArguments:
    """
    Arguments of `drp sft`, beside those of [`~drp_hf.drp_config.DRPConfig`] and [`~trl.ModelConfig`].

    Parameters:
        > Parameters that control the data

        dataset (`str`):
            A folder made by `drp prune`, or the name of a data set; its rows have `prompt` and `completion` and, for
            step weights, `steps`.
        dataset_config (`str`, *optional*):
            Configuration of the data set; its default one (for a corpus `sft`) if not given.
        dataset_split (`str`, *optional*, defaults to `"train"`):
            Split to train on.

        > Parameters that control what is saved

        merge (`bool`, *optional*, defaults to `False`):
            Also save the adapter merged into its base, in the folder `merged` of `output_dir`.
    """

    dataset: str = field(metadata={"help": "A folder made by `drp prune`, or the name of a data set."})
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration of the data set; its default one if not given."}
    )
    dataset_split: str = field(default="train", metadata={"help": "Split to train on."})
    merge: bool = field(default=False, metadata={"help": "Also save the adapter merged into its base."})


@dataclass
class SFTRun:
    """Everything that made a run, as `run.json` tells it."""

    arguments: dict[str, Any]
    training: dict[str, Any]
    model: dict[str, Any]


def main(arguments: SFTArguments, training: DRPConfig, model_config: ModelConfig) -> dict[str, Any]:
    """Trains, saves the model with its tokenizer and `run.json` into `training.output_dir`, and prints the figures.

    Returns:
        The figures: `rows`, `trained_tokens` (tokens with a loss, all epochs), `steps`, `loss_first`, `loss_last` and
        `seconds`.
    """
    check(arguments, training, model_config)
    dataset = load_rows(arguments)
    trainer = make_trainer(dataset, training, model_config)
    trained = trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
    trainer.save_model(training.output_dir)
    trainer.save_state()
    if trainer.is_world_process_zero():
        trainer.create_model_card(model_name=Path(training.output_dir).name)
        if model_config.use_peft:
            name_base(training.output_dir, model_config.model_name_or_path)
        if arguments.merge:
            save_merged(training.output_dir)
        record = SFTRun(asdict(arguments), training.to_dict(), asdict(model_config))
        write_run_info(training.output_dir, "sft", record, inputs=[arguments.dataset, model_config.model_name_or_path])
    figures = summarize(trainer, trained.metrics["train_runtime"])
    if trainer.is_world_process_zero():
        Console().print(figures_table(figures, training.output_dir))
    trainer.end()
    return figures


def check(arguments: SFTArguments, training: DRPConfig, model_config: ModelConfig) -> None:
    """Refuses before anything is loaded what could not be done at the end."""
    if not model_config.model_name_or_path:
        raise DRPError("Give the student as model_name_or_path: smollm2-embedded, a folder or a name on the Hub.")
    if arguments.merge and not model_config.use_peft:
        raise DRPError("merge needs an adapter: set use_peft, or remove merge (a full model is saved as it is).")
    if training.eval_strategy != "no":
        raise DRPError("drp sft has no evaluation data: remove eval_strategy and use drp evaluate on the student.")


def load_rows(arguments: SFTArguments) -> Dataset:
    """The rows to train on.

    Raises:
        DRPError: no such data set, configuration or split, or it cannot be read.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    try:
        return load_dataset(arguments.dataset, arguments.dataset_config, split=arguments.dataset_split)
    except DRPError:
        raise
    except (OSError, ValueError, DatasetGenerationError) as error:
        cause = " ".join(str(error.__cause__ or error).split())
        raise DRPError(f"The data set {arguments.dataset} cannot be loaded: {cause}") from error


def make_trainer(dataset: Dataset, training: DRPConfig, model_config: ModelConfig) -> DRPTrainer:
    """The trainer with the student, which may itself be an adapter: that one is merged and a new one put on top."""
    from trl import get_peft_config, get_quantization_config

    from drp_hf.drp_trainer import DRPTrainer

    quantization = get_quantization_config(model_config)
    name = model_config.model_name_or_path
    model, tokenizer = load_model_and_tokenizer(
        local_model_dir(name) if quantization else name,  # an adapter cannot be merged into quantized weights
        dtype=model_config.dtype,
        revision=model_config.model_revision,
        trust_remote_code=training.trust_remote_code,
        attn_implementation=model_config.attn_implementation,
        quantization_config=quantization,
    )
    return DRPTrainer(
        model=model,
        args=training,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_config),
    )


def name_base(folder: str, name: str) -> None:
    """Writes the base's name, as the user gave it, into the adapter's config.

    PEFT writes the folder that the name was resolved to, which exists on this machine only and, where the base is an
    adapter itself, leaves that adapter out.
    """
    config = Path(folder) / ADAPTER_CONFIG
    settings = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": name}
    config.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def save_merged(folder: str) -> None:
    """Saves the adapter in `folder` merged into its base, as any other program can load it, in `folder/merged`."""
    model, tokenizer = load_model_and_tokenizer(folder)
    model.save_pretrained(Path(folder) / MERGED)
    tokenizer.save_pretrained(Path(folder) / MERGED)


def summarize(trainer: DRPTrainer, seconds: float) -> dict[str, Any]:
    """The figures of a finished training."""
    labels = trainer.train_dataset["labels"]
    trained = sum(label != -100 for row in labels for label in row)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "rows": len(labels),
        "trained_tokens": round(trained * trainer.state.epoch),
        "steps": trainer.state.global_step,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "seconds": seconds,
    }


def figures_table(figures: dict[str, Any], output_dir: str) -> Table:
    """The figures for the terminal."""
    table = Table(title=f"Student in {output_dir}")
    for name in ("rows", "tokens trained", "steps", "first loss", "last loss", "minutes"):
        table.add_column(name, justify="right")
    losses = [f"{figures[name]:.4f}" if figures[name] is not None else "–" for name in ("loss_first", "loss_last")]
    counts = [f"{figures[name]:,}" for name in ("rows", "trained_tokens", "steps")]
    table.add_row(*counts, *losses, f"{figures['seconds'] / 60:.1f}")
    return table


def cli() -> None:
    """Entry point of `drp sft`."""

    def parse_and_train() -> None:
        from trl import ModelConfig

        from drp_hf.drp_config import DRPConfig

        main(*parse((SFTArguments, DRPConfig, ModelConfig), None, positional="dataset"))

    run(parse_and_train)
