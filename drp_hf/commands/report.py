"""`drp report RUN… --corpus DIR --output report.html`: one page of accuracy against tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from drp_hf.commands.parsing import parse_and_run
from drp_hf.errors import DRPError
from drp_hf.report import write_report


@dataclass
class ReportConfig:
    """
    Configuration of `drp report`.

    Parameters:
        > Parameters that control what is compared

        runs (`list[str]`):
            Run folders of `drp evaluate` or `drp score` on the same questions: the first is the baseline; the others
            are other models, or other seeds of the same model, which are also shown all together.
        corpus (`str`, *optional*):
            Corpus folder that a model was trained on, as `drp prune` wrote it. Without it, the page shows no traces.

        > Parameters that control what is written

        output (`str`, *optional*, defaults to `"report.html"`):
            The page; the plots are also written beside it as PNG and SVG files.
    """

    runs: list[str] = field(metadata={"help": "Run folders of drp evaluate or drp score, the baseline first."})
    corpus: str | None = field(default=None, metadata={"help": "Corpus folder that a model was trained on."})
    output: str = field(default="report.html", metadata={"help": "The page to write."})


def main(config: ReportConfig) -> Path:
    """Writes the page and says where it is.

    Returns:
        Its path.

    Raises:
        DRPError: there is no run, or a folder, file or field is missing.
    """
    if not config.runs:
        raise DRPError("runs is empty: give at least one run folder of drp evaluate or drp score.")
    page = write_report(config.output, config.runs, config.corpus)
    Console().print(str(page), markup=False, highlight=False, soft_wrap=True)
    return page


def cli() -> None:
    """Entry point of `drp report`."""
    parse_and_run(main, ReportConfig, "runs")
