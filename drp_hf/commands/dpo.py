"""`drp dpo DATASET --model_name_or_path M --output_dir DIR`: teaches a student to prefer pruned traces to raw ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from accelerate.logging import get_logger
from datasets import Dataset
from rich.console import Console
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer, ModelConfig, get_peft_config
from trl.trainer.utils import global_then_local_main_first

from drp_hf.commands.parsing import parse_and_run
from drp_hf.commands.training import (
    INTERRUPTED,
    StudentArguments,
    check,
    decimals,
    figures_table,
    load_rows,
    load_student,
    logged,
    train_and_save,
)
from drp_hf.errors import DRPError
from drp_hf.hub.training import PublishingConfig, PublishingTrainer
from drp_hf.rendering import check_stop
from drp_hf.row_encoder import ENCODED_TOGETHER, IGNORED, RowEncoder

logger = get_logger(__name__)

SIDES = ("chosen", "rejected")


@dataclass
class DPOArguments(StudentArguments):
    """
    Arguments of `drp dpo`, beside those of [`~trl.DPOConfig`] and [`~trl.ModelConfig`]. Only what differs from
    `StudentArguments` is listed.

    Parameters:
        > Parameters that control the data

        dataset_config (`str`, *optional*, defaults to `"pairs"`):
            Configuration of the data set, whose rows have `prompt`, `chosen` and `rejected`.
    """

    dataset_config: str | None = field(default="pairs", metadata={"help": "Configuration of the data set."})


@dataclass
class PairConfig(PublishingConfig, DPOConfig):
    """[`~trl.DPOConfig`] whose `use_cpu` becomes `True` where there is no accelerator, so that `bf16` works there."""


class PairTrainer(PublishingTrainer, DPOTrainer):
    """
    [`~trl.DPOTrainer`] that trains the tokens [`~drp_hf.drp_trainer.DRPTrainer`] does.

    A chat template never sees the completions, so that none can drop their reasoning, and both end with the stop token
    of the template. The prompt has the tokens it has at inference.

    Raises:
        DRPError: a row that cannot be trained as it is, or whose prompt alone fills `max_length`.
    """

    stage = "dpo"
    _tag_names = ["trl", "dpo", "drp"]

    def _prepare_dataset(
        self, dataset: Dataset, processing_class: PreTrainedTokenizerBase, args: DPOConfig, dataset_name: str
    ) -> Dataset:
        if missing := {"prompt", *SIDES} - set(dataset.column_names):
            raise DRPError(
                f"The {dataset_name} data has no column {' and no column '.join(sorted(missing))} (it has "
                f"{', '.join(dataset.column_names)}): give the view pairs of a corpus made by `drp prune`."
            )
        with global_then_local_main_first():
            dataset = dataset.map(
                PairEncoder(processing_class, args.max_length, dataset_name),
                batched=True,
                batch_size=ENCODED_TOGETHER,
                with_indices=True,
                remove_columns=dataset.column_names,
                num_proc=args.dataset_num_proc,
                desc=f"Encoding {dataset_name} dataset",
            )
        if cut := sum(dataset["cut"]):
            logger.warning(
                f"{cut} of {len(dataset)} pairs of the {dataset_name} data are longer than max_length="
                f"{args.max_length} and are cut: raise max_length to train them whole."
            )
        return dataset.remove_columns("cut")


class PairEncoder:
    """Turns rows of the `pairs` view into token ids. Called on batches by `Dataset.map`.

    Args:
        tokenizer: a fast tokenizer, with a chat template if the rows are conversational.
        max_length: longest sequence in tokens that the trainer leaves whole; `None` for any.
        source: name of the data in messages.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int | None, source: str):
        self.encoders = {side: RowEncoder(tokenizer, source=f"{source} ({side})") for side in SIDES}
        self.max_length = max_length
        self.source = source

    def __call__(self, rows: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        """Encodes a batch of columns.

        Returns:
            `prompt_ids`, `chosen_ids`, `rejected_ids` and `cut` (whether one of the two sequences is too long).
        """
        encoded: dict[str, list[Any]] = {"prompt_ids": []}
        for side, encoder in self.encoders.items():
            columns = encoder({**rows, "completion": rows[side]}, indices)
            borders = [int((labels != IGNORED).argmax()) for labels in columns["labels"]]
            both = list(zip(columns["input_ids"], borders, strict=True))
            encoded["prompt_ids"] = [ids[:border].tolist() for ids, border in both]
            encoded[f"{side}_ids"] = [ids[border:].tolist() for ids, border in both]
        limit = float("inf") if self.max_length is None else self.max_length
        lengths = [tuple(map(len, row)) for row in zip(*encoded.values(), strict=True)]
        for index, (prompt, *_) in zip(indices, lengths, strict=True):
            if prompt >= limit:
                raise DRPError(
                    f"Row {index + 1} of the {self.source} data has a prompt of {prompt} tokens, which fills "
                    f"max_length={limit}: raise max_length or remove the row."
                )
        return {**encoded, "cut": [prompt + max(completions) > limit for prompt, *completions in lengths]}


def main(arguments: DPOArguments, training: PairConfig, model_config: ModelConfig) -> dict[str, Any]:
    """Trains, saves the model with its tokenizer and `run.json` into `training.output_dir`, and prints the figures.

    Returns:
        The figures: `rows`, `steps`, `loss_first`, `loss_last`, `reward_accuracy` (share of pairs whose pruned trace
        has the higher reward) and `reward_margin` as they were last logged, and `seconds`.
    """
    check("dpo", arguments, training, model_config)
    trainer = make_trainer(load_rows(arguments), training, model_config)
    seconds = train_and_save("dpo", trainer, arguments, training, model_config)
    figures = summarize(trainer, seconds)
    if trainer.is_world_process_zero():
        titled = {
            "rows": f"{figures['rows']:,}",
            "steps": f"{figures['steps']:,}",
            "first loss": decimals(figures["loss_first"]),
            "last loss": decimals(figures["loss_last"]),
            "reward accuracy": decimals(figures["reward_accuracy"], 3),
            "reward margin": decimals(figures["reward_margin"]),
            "minutes": decimals(seconds / 60, 1),
        }
        Console().print(figures_table(training.output_dir, titled))
    trainer.end()
    return figures


def make_trainer(dataset: Dataset, training: PairConfig, model_config: ModelConfig) -> PairTrainer:
    """The trainer with the student and the reference, which is the student before training.

    With an adapter, TRL turns it off to get the reference. A fully trained student needs a second model, loaded here:
    TRL would load what the student's config names, without the adapters that were merged into it.
    """
    model, tokenizer = load_student(training, model_config)
    trainer = PairTrainer(
        model=model,
        ref_model=None if model_config.use_peft else load_student(training, model_config)[0],
        args=training,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_config),
    )
    if isinstance(dataset[0]["prompt"], list):  # plain text ends with the tokenizer's own stop token
        check_stop(tokenizer, trainer.model.generation_config)
    if training.precompute_ref_log_probs:
        trainer.ref_model = None  # what it said of the pairs is in the data now
    return trainer


def summarize(trainer: PairTrainer, seconds: float) -> dict[str, Any]:
    """The figures of a finished training."""
    losses, accuracies, margins = (logged(trainer, name) for name in ("loss", "rewards/accuracies", "rewards/margins"))
    return {
        "rows": len(trainer.train_dataset),
        "steps": trainer.state.global_step,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "reward_accuracy": accuracies[-1] if accuracies else None,
        "reward_margin": margins[-1] if margins else None,
        "seconds": seconds,
    }


def cli() -> None:
    """Entry point of `drp dpo`."""
    parse_and_run(main, (DPOArguments, PairConfig, ModelConfig), "dataset", interrupted=INTERRUPTED)
