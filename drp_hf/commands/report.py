"""`drp report BEFORE AFTER… --corpus DIR --output report.html`: one page of what pruning did."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from drp_hf.commands.parsing import parse, run
from drp_hf.errors import DRPError
from drp_hf.report import write_report


@dataclass
class ReportConfig:
    """
    Configuration of `drp report`.

    Parameters:
        > Parameters that control what is compared

        runs (`list[str]`):
            Output folders of `drp evaluate` on the same problems: first the model before, then the model after, once
            for each seed.
        corpus (`str`, *optional*):
            Corpus folder that the model was trained on, as `drp prune` wrote it. Without it, the page shows no traces.

        > Parameters that control what is written

        output (`str`, *optional*, defaults to `"report.html"`):
            The page; the plots are also written beside it as PNG files.
    """

    runs: list[str] = field(metadata={"help": "Output folders of drp evaluate: first the one before, then after."})
    corpus: str | None = field(default=None, metadata={"help": "Corpus folder that the model was trained on."})
    output: str = field(default="report.html", metadata={"help": "The page to write."})


def main(config: ReportConfig) -> Path:
    """Writes the page and says where it is.

    Returns:
        Its path.

    Raises:
        DRPError: there is no run, or a folder, file or field is missing.
    """
    if not config.runs:
        raise DRPError("runs is empty: give at least one output folder of drp evaluate.")
    before, *after = config.runs
    page = write_report(config.output, config.corpus, before, after)
    Console().print(str(page), markup=False, highlight=False, soft_wrap=True)
    return page


def cli() -> None:
    """Entry point of `drp report`."""
    run(main, parse(ReportConfig, None, positional="runs"))


if __name__ == "__main__":
    cli()
