"""`drp sft DATASET --model_name_or_path M --output_dir DIR`: fine-tunes a student on a corpus."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from drp_hf.commands.parsing import parse, run
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
    trains_alike,
)
from drp_hf.engines.base import put
from drp_hf.errors import DRPError
from drp_hf.hub.student_run import read_run

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import ModelConfig

    from drp_hf.drp_config import DRPConfig
    from drp_hf.drp_trainer import DRPTrainer
    from drp_hf.records import Problem


@dataclass
class SFTArguments(StudentArguments):
    """
    Arguments of `drp sft`, beside those of [`~drp_hf.drp_config.DRPConfig`] and [`~trl.ModelConfig`]. Only what is
    added to `StudentArguments` is listed. Without `dataset_config`, the view `masked-raw` is taken for
    `loss_scope="masked-raw"`.

    Parameters:
        > Parameters that control the answers on the way

        answers_problems (`str`, *optional*):
            Held-out problems that the student answers on the way: a benchmark's name, file, folder or data set, as in
            `drp evaluate`.
        answers_count (`int`, *optional*, defaults to `16`):
            How many of them, from the first on.
        answers_every (`int`, *optional*, defaults to `50`):
            Optimiser steps from one time to the next; they are also answered at the start and at the end.
        answers_max_tokens (`int`, *optional*, defaults to `1024`):
            An answer is cut after so many tokens.
    """

    answers_problems: str | None = field(
        default=None, metadata={"help": "Held-out problems that the student answers on the way."}
    )
    answers_count: int = field(default=16, metadata={"help": "How many of them, from the first on."})
    answers_every: int = field(default=50, metadata={"help": "Optimiser steps from one time to the next."})
    answers_max_tokens: int = field(default=1024, metadata={"help": "An answer is cut after so many tokens."})


def main(arguments: SFTArguments, training: DRPConfig, model_config: ModelConfig) -> dict[str, Any]:
    """Trains, saves the model with its tokenizer and `run.json` into `training.output_dir`, and prints the figures.

    With `answers_problems`, the curve of tokens and accuracy is printed and drawn into `answers.png`, too.

    Returns:
        The figures: `rows`, `trained_tokens` (tokens with a loss, were it only in a warm-up, all epochs), `steps`,
        `loss_first`, `loss_last` and `seconds`.
    """
    arguments = view_of(arguments, training)
    check("sft", arguments, training, model_config)
    problems = read_asked(arguments)  # first: what cannot be used is said before a model is loaded
    trainer = make_trainer(load_rows(arguments), training, model_config)
    if problems:
        add_answers(trainer, problems, arguments)
    seconds = train_and_save("sft", trainer, arguments, training, model_config)
    figures = summarize(trainer, seconds)
    if trainer.is_world_process_zero():
        titled = {
            "rows": f"{figures['rows']:,}",
            "tokens trained": f"{figures['trained_tokens']:,}",
            "steps": f"{figures['steps']:,}",
            "first loss": decimals(figures["loss_first"]),
            "last loss": decimals(figures["loss_last"]),
            "minutes": decimals(seconds / 60, 1),
        }
        Console().print(figures_table(training.output_dir, titled))
        if problems:
            show_answers(trainer, arguments)
    trainer.end()
    return figures


def view_of(arguments: SFTArguments, training: DRPConfig) -> SFTArguments:
    """The arguments with the view of a corpus that the loss is taken over, unless one is named."""
    if arguments.dataset_config is None and training.loss_scope == "masked-raw":
        return replace(arguments, dataset_config="masked-raw")
    return arguments


def is_same_student(arguments: SFTArguments, training: DRPConfig, model_config: ModelConfig) -> bool:
    """Whether the student that `main` would make of the same is in `training.output_dir` already, finished or not."""
    there = read_run(Path(training.output_dir))
    same = trains_alike(there, "sft", view_of(arguments, training), training, model_config)
    return same and there["config"]["arguments"].get("merge", False) == arguments.merge


def read_asked(arguments: SFTArguments) -> list[Problem]:
    """The held-out problems that the student answers on the way, their questions put as the prompt says; none if none.

    Raises:
        DRPError: they cannot be read, or are not asked for.
    """
    from drp_hf.benchmarks import read_benchmark

    if arguments.answers_problems is None:
        return []
    if arguments.answers_count < 1:
        raise DRPError(f"answers_count is {arguments.answers_count}: it must be at least 1.")
    problems = read_benchmark(arguments.answers_problems, limit=arguments.answers_count).problems
    return [replace(problem, question=put(problem.question, arguments.prompt)) for problem in problems]


def add_answers(trainer: DRPTrainer, problems: list[Problem], arguments: SFTArguments) -> None:
    """Lets the student answer held-out problems on the way."""
    from drp_hf.answers_callback import AnswersCallback

    trainer.add_callback(
        AnswersCallback(trainer, problems, arguments.answers_every, max_tokens=arguments.answers_max_tokens)
    )


def show_answers(trainer: DRPTrainer, arguments: SFTArguments) -> None:
    """Prints the answers' curve as a table and draws it into `answers.png`."""
    from drp_hf.answers_callback import ACCURACY, FINISHED, TOKENS
    from drp_hf.plots import answers_curve

    points = [entry for entry in trainer.state.log_history if TOKENS in entry]
    table = Table("step", "accuracy", "tokens", "ended by itself", title="Held-out answers on the way")
    for column in table.columns:
        column.justify = "right"
    for point in points:
        table.add_row(str(point["step"]), f"{point[ACCURACY]:.1%}", f"{point[TOKENS]:.1f}", f"{point[FINISHED]:.1%}")
    Console().print(table)
    picture = answers_curve(*([point[name] for point in points] for name in ("step", TOKENS, ACCURACY)))
    (Path(trainer.args.output_dir) / "answers.png").write_bytes(picture)


def make_trainer(dataset: Dataset, training: DRPConfig, model_config: ModelConfig) -> DRPTrainer:
    """The trainer with the student, on which a new adapter is put with `use_peft`."""
    from trl import get_peft_config

    from drp_hf.drp_trainer import DRPTrainer
    from drp_hf.label_head import score_labels_only

    model, tokenizer = load_student(training, model_config)
    trainer = DRPTrainer(
        model=model,
        args=training,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=get_peft_config(model_config),
    )
    if training.use_cpu and not trainer.is_fsdp_enabled:
        score_labels_only(trainer.model)
    return trainer


def summarize(trainer: DRPTrainer, seconds: float) -> dict[str, Any]:
    """The figures of a finished training."""
    labels = trainer.train_dataset["labels"]
    trained = sum(label != -100 for row in labels for label in row)
    losses = logged(trainer, "loss")
    return {
        "rows": len(labels),
        "trained_tokens": round(trained * trainer.state.epoch),
        "steps": trainer.state.global_step,
        "loss_first": losses[0] if losses else None,
        "loss_last": losses[-1] if losses else None,
        "seconds": seconds,
    }


def cli() -> None:
    """Entry point of `drp sft`."""

    def parse_and_train() -> None:
        from trl import ModelConfig

        from drp_hf.drp_config import DRPConfig

        main(*parse((SFTArguments, DRPConfig, ModelConfig), None, positional="dataset"))

    run(parse_and_train, interrupted=INTERRUPTED)
