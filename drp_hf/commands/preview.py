"""`drp preview DATASET --model_name_or_path M`: what the loss of `drp sft` would see, token by token."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from drp_hf.commands.parsing import parse, run
from drp_hf.commands.sft import SFTArguments, view_of
from drp_hf.commands.training import load_rows
from drp_hf.errors import DRPError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import ModelConfig

    from drp_hf.drp_config import DRPConfig
    from drp_hf.row_encoder import TokenView


@dataclass
class PreviewArguments(SFTArguments):
    """
    Arguments of `drp preview`. It takes everything that `drp sft` takes, also its YAML files; only what is added is
    listed.

    Parameters:
        > Parameters that control the preview

        rows (`int`, *optional*, defaults to `3`):
            How many rows to show.
        first_row (`int`, *optional*, defaults to `1`):
            The first of them, counted from 1.
        html (`str`, *optional*):
            Write a page into this file instead of the terminal.
    """

    rows: int = field(default=3, metadata={"help": "How many rows to show."})
    first_row: int = field(default=1, metadata={"help": "The first of them, counted from 1."})
    html: str | None = field(default=None, metadata={"help": "Write a page into this file instead of the terminal."})


def main(arguments: PreviewArguments, training: DRPConfig, model_config: ModelConfig) -> list[list[TokenView]]:
    """Shows rows of the data as the loss sees them. The model itself is not loaded.

    Returns:
        The tokens of every row shown.
    """
    from drp_hf import preview
    from drp_hf.row_encoder import encoder_for

    if not model_config.model_name_or_path:
        raise DRPError("Give the student as model_name_or_path: its tokenizer decides what the loss sees.")
    if arguments.rows < 1 or arguments.first_row < 1:
        raise DRPError("rows and first_row must be at least 1.")
    dataset = load_rows(view_of(arguments, training))
    if arguments.first_row > len(dataset):
        raise DRPError(f"first_row is {arguments.first_row}, but {arguments.dataset} has {len(dataset)} rows.")
    encoder = encoder_for(
        training,
        load_student_tokenizer(training, model_config),
        completion_only=training.completion_only_loss is not False,
        packing=training.packing,
    )
    numbers = range(arguments.first_row, min(arguments.first_row + arguments.rows, len(dataset) + 1))
    views = [
        (f"Row {number}", encoder.preview(dataset[number - 1], f"Row {number} of {arguments.dataset}"))
        for number in numbers
    ]
    if arguments.html is None:
        console = Console(highlight=False)
        for title, view in views:
            console.print(preview.to_table(view, title))
            console.print(preview.to_text(view), soft_wrap=False)
            console.print()
    else:
        page = preview.to_html(views, f"{arguments.dataset}, {training.loss_scope}, {model_config.model_name_or_path}")
        Path(arguments.html).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.html).write_text(page, encoding="utf-8", errors="replace")
        Console(soft_wrap=True).print(f"{len(views)} rows are in {arguments.html}", markup=False, highlight=False)
    return [view for _, view in views]


def load_student_tokenizer(training: DRPConfig, model_config: ModelConfig) -> PreTrainedTokenizerBase:
    """The student's tokenizer as the trainer would set it."""
    from drp_hf.models import load_tokenizer

    tokenizer = load_tokenizer(model_config.model_name_or_path, model_config.model_revision)
    if training.eos_token is not None:
        tokenizer.eos_token = training.eos_token
    if training.chat_template_path is not None:
        path = Path(training.chat_template_path)
        is_file = path.is_file() and path.suffix in (".jinja", ".j2")
        tokenizer.chat_template = (
            path.read_text(encoding="utf-8") if is_file else load_tokenizer(str(path)).chat_template
        )
    return tokenizer


def cli() -> None:
    """Entry point of `drp preview`."""

    def parse_and_show() -> None:
        from trl import ModelConfig

        from drp_hf.drp_config import DRPConfig

        main(*parse((PreviewArguments, DRPConfig, ModelConfig), None, positional="dataset"))

    run(parse_and_show)
