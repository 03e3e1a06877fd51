"""`drp prune TRACES`: traces in, a verified corpus out."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import drp_hf
from drp_hf.commands.parsing import parse, run
from drp_hf.corpus import VIEWS, view_file
from drp_hf.corpus.reading import Reading, Readings, read_traces
from drp_hf.embedded import EMBEDDED
from drp_hf.errors import DRPError
from drp_hf.provenance import fingerprint, write_run_info
from drp_hf.records import CorpusRow
from drp_hf.store import RowStore, content_key, write_parquet

if TYPE_CHECKING:
    from drp_hf.corpus.card import CorpusSummary
    from drp_hf.teachers.base import Teacher

STORE = "rows.sqlite"
DECIDES_A_ROW = ("answers", "math_worker", "numerals", "pruning", "records", "segment", "teachers/*")


@dataclass
class PruneConfig:
    """
    Configuration of `drp prune`.

    > Parameters that control what is read and written

    Args:
        traces (`str`):
            Traces to prune: a JSON Lines or Parquet file, a data set folder, or the name of a data set on the Hub,
            with the columns `question`, `answer` (gold) and either `reasoning` and `response` or `output` (with think
            tags).
        output_dir (`str`):
            Folder of the corpus. A run that was interrupted goes on where it stopped.
        split (`str`, *optional*):
            Split of a data set to read. All of them if not given.

    > Parameters that control the pruning

        teacher (`str`, *optional*, defaults to `"slicing"`):
            Who decides the steps: `"slicing"` (offline, no model).
        strength (`str`, *optional*, defaults to `"default"`):
            How much goes: `"light"`, `"default"` or `"hard"`.
        tokenizer (`str`, *optional*, defaults to `"smollm2-embedded"`):
            Tokenizer that counts tokens, best the student's: a folder or a name on the Hub.
    """

    traces: str = field(metadata={"help": "JSON Lines or Parquet file, data set folder or data set name."})
    output_dir: str = field(metadata={"help": "Folder of the corpus; an interrupted run goes on there."})
    split: str | None = field(default=None, metadata={"help": "Split of a data set to read; all if not given."})
    teacher: Literal["slicing"] = field(default="slicing", metadata={"help": "Who decides the steps."})
    strength: Literal["light", "default", "hard"] = field(default="default", metadata={"help": "How much goes."})
    tokenizer: str = field(default=EMBEDDED, metadata={"help": "Tokenizer that counts tokens, best the student's."})


def main(config: PruneConfig) -> Path:
    """Prunes traces into a corpus folder.

    Returns:
        The folder: `README.md`, one Parquet file per view and split, `run.json`, and the store of a resumable run.

    Raises:
        DRPError: the traces cannot be read, or none of them was accepted.
    """
    from drp_hf.corpus.card import CorpusSummary, write_card
    from drp_hf.teachers.slicing import SlicingTeacher

    splits = read_traces(config.traces, config.split)
    teacher = SlicingTeacher(config.strength)
    count_tokens = token_counter(config.tokenizer)
    output_dir = Path(config.output_dir)
    key = row_keys(teacher, config.tokenizer)
    with RowStore(output_dir / STORE) as store:
        prune_missing(splits, store, key, teacher, count_tokens)
        summary = CorpusSummary(row for readings in splits.values() for row in rows_of(readings, store, key))
        counts = write_views(output_dir, splits, store, key)
    write_card(output_dir, summary, counts, teacher.name, config.tokenizer, command_line(config))
    write_run_info(output_dir, "prune", config, [config.traces])
    print_summary(summary, output_dir)
    if not summary.funnel.accepted:
        (reason, count), *_ = summary.funnel.rejected.most_common(1)
        raise DRPError(
            f"no trace of {config.traces} was accepted ({count} of {summary.funnel.read}: {reason}): "
            f"see the column 'reason' in {output_dir / 'raw'}."
        )
    return output_dir


def token_counter(tokenizer: str) -> Callable[[str], int]:
    """Counts the tokens of a text, special tokens that frame it left out."""
    from drp_hf.models import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    return lambda text: len(loaded(text, add_special_tokens=False, verbose=False)["input_ids"])


def row_keys(teacher: Teacher, tokenizer: str) -> Callable[[Reading], str]:
    """Gives the store's key of a reading: everything that decides its row, this package's own code included."""
    package = Path(drp_hf.__file__).parent
    code = [fingerprint(file) for name in DECIDES_A_ROW for file in sorted(package.glob(f"{name}.py"))]
    return lambda reading: content_key(asdict(reading.trace), teacher.name, tokenizer, code)


def prune_missing(
    splits: Mapping[str, Readings],
    store: RowStore,
    key: Callable[[Reading], str],
    teacher: Teacher,
    count_tokens: Callable[[str], int],
) -> None:
    """Prunes every readable trace that the store does not hold yet."""
    from drp_hf.pruning import prune_trace

    columns = (TextColumn("pruning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("pruning", total=sum(map(len, splits.values())))
        for reading in (reading for readings in splits.values() for reading in readings):
            if not reading.problem and key(reading) not in store:
                store.put(key(reading), prune_trace(reading.trace, teacher, count_tokens).to_dict())
            progress.advance(task)


def rows_of(readings: Readings, store: RowStore, key: Callable[[Reading], str]) -> Iterator[CorpusRow]:
    """The corpus rows of a split, in the order of its traces; those that could not be read are rejected rows."""
    from drp_hf.pruning import Reason

    for reading in readings:
        if reading.problem:
            reason = f"{Reason.UNREADABLE.value}: {reading.problem} ({reading.location})"
            yield CorpusRow(**asdict(reading.trace), reason=reason)
        else:
            yield CorpusRow.from_dict(store.get(key(reading)))


def write_views(
    output_dir: Path, splits: Mapping[str, Readings], store: RowStore, key: Callable[[Reading], str]
) -> dict[str, dict[str, int]]:
    """Writes every view of every split, and removes what an earlier run left there; returns the rows written.

    A view without rows in a split gets no file: `load_dataset` takes none without rows.
    """
    from drp_hf.corpus.views import VIEW_FEATURES, view_rows

    counts: dict[str, dict[str, int]] = {view: {} for view in VIEWS}
    for view in VIEWS:
        for split, readings in splits.items():
            rows = view_rows(view, rows_of(readings, store, key))
            count = write_parquet(output_dir / view_file(view, split), rows, VIEW_FEATURES[view])
            if count:
                counts[view][split] = count
        for file in (output_dir / view).glob("*.parquet"):
            if file.stem not in counts[view]:
                file.unlink()
    return counts


def command_line(config: PruneConfig) -> str:
    """The command that makes the same corpus again."""
    options = {name: value for name, value in asdict(config).items() if name != "traces" and value is not None}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["drp", "prune", str(config.traces), *words])


def print_summary(summary: CorpusSummary, output_dir: Path) -> None:
    """Prints the funnel, tokens, actions and most frequent skills."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(justify="right")
    for what, count, share in summary.funnel.to_rows():
        table.add_row(escape(what), f"{count:,}", f"{share:.1%}")
    table.add_section()
    for name, total, mean, _ in summary.token_rows():
        table.add_row(f"tokens {name}", f"{total:,}", f"mean {mean:.0f}")
    table.add_row("tokens kept", "", f"{summary.kept:.1%}")
    table.add_section()
    for action, count, share, _ in summary.action_rows():
        table.add_row(action, f"{count:,}", f"{share:.1%}")
    table.add_section()
    for skill, count, deleted in summary.skill_rows(10):
        table.add_row(escape(skill), f"{count:,}", f"{deleted:.0%} deleted")
    console = Console()
    console.print(str(output_dir), markup=False, highlight=False, soft_wrap=True)
    console.print(table)


def cli() -> None:
    """Entry point of `drp prune`."""
    run(main, parse(PruneConfig, None, positional="traces"))


if __name__ == "__main__":
    cli()
