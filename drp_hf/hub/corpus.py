"""A corpus folder as a data set of the Hub: its views in shards, a card made anew from its rows, and a plot."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import DatasetInfo, SplitDict, SplitInfo
from datasets.info import DatasetInfosDict
from tqdm import tqdm

from drp_hf.benchmarks import BENCHMARKS
from drp_hf.corpus import shard_pattern
from drp_hf.corpus.card import CorpusSummary, Published, Source, View, render_card
from drp_hf.corpus.folder import corpus_rows, views_of
from drp_hf.corpus.origin import read_origin
from drp_hf.errors import DRPError
from drp_hf.hub.contamination import Contamination, open_contamination
from drp_hf.hub.publication import CARD, Publication, PushOptions, publish
from drp_hf.hub.publication import Published as Pushed
from drp_hf.hub.shards import Shards, write_shards
from drp_hf.plots import length_histograms
from drp_hf.provenance import RUN, fingerprint

logger = logging.getLogger(__name__)

PLOT = "assets/tokens.png"
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
"""What the Hub's identifiers of licences look like (https://huggingface.co/docs/hub/repositories-licenses)."""
SOURCE = re.compile(r"(?P<name>https?://[^=\s]+|[\w.-]+(?:/[\w.-]+)?)(?:=(?P<license>.*))?")


@dataclass(kw_only=True)
class CorpusOptions(PushOptions):
    """
    How a corpus is published.

    > Parameters that control what the card says

    Args:
        license (`str`, *optional*):
            Licence of the corpus, as the Hub's identifier (`"apache-2.0"`). The card states none if not given.
        sources (`list[str]`, *optional*):
            What the corpus was made from, with licences: `"openai/gsm8k=mit"` for a data set of the Hub, or an address
            on the web.
        language (`list[str]`, *optional*, defaults to `["en"]`):
            Languages of the corpus, as ISO 639 codes.
        contamination (`list[str]`, *optional*):
            Test sets that the questions are compared with: names of benchmarks, or files and data sets with the
            columns `question` and `answer`. All benchmarks if not given.
    """

    license: str | None = field(default=None, metadata={"help": "Licence of the corpus, such as apache-2.0."})
    sources: list[str] = field(
        default_factory=list,
        metadata={"help": "What it was made from, with licences, such as openai/gsm8k=mit."},
    )
    language: list[str] = field(default_factory=lambda: ["en"], metadata={"help": "Languages, as ISO 639 codes."})
    contamination: list[str] = field(
        default_factory=lambda: list(BENCHMARKS),
        metadata={"help": "Test sets that the questions are compared with: benchmarks, files or data sets."},
    )


def push_corpus(folder: str | Path, options: CorpusOptions) -> Pushed:
    """Publishes a corpus folder.

    The shards are written to a temporary folder first, which takes about as much room as the corpus does.

    Args:
        folder: what `drp prune` wrote.
        options: where it goes, and what its card says.

    Raises:
        DRPError: the folder is no corpus, a setting cannot be used, or the Hub did not take it.
    """
    with tempfile.TemporaryDirectory(prefix="drp-push-") as work_dir:
        return publish(corpus_publication(Path(folder), options, Path(work_dir)), options)


def corpus_publication(folder: Path, options: CorpusOptions, work_dir: Path) -> Publication:
    """Everything that the Hub gets of a corpus folder; the same corpus gives the same files.

    Args:
        folder: what `drp prune` wrote.
        options: the address, and what the card says.
        work_dir: an empty folder for the shards, which must stay until they are published.

    Raises:
        DRPError: the folder is no corpus, or a setting cannot be used.
    """
    license, sources = _license(options.license), _sources(options.sources)
    origin = read_origin(folder)
    contamination = open_contamination(options.contamination)
    shards = _write_views(folder, work_dir)
    summary = _count(folder, contamination)
    views = [_view(view, splits, work_dir) for view, splits in shards.items()]
    title = options.repo_id.rpartition("/")[2]
    files: dict[str, Path | bytes] = {
        name: path for splits in shards.values() for written in splits.values() for name, path in written.files.items()
    }
    if summary.before:
        files[PLOT] = length_histograms({"before pruning": summary.before, "after pruning": summary.after})
    if origin.config:
        files[RUN] = origin.to_json()
    infos = DatasetInfosDict({view: _info(view, splits) for view, splits in shards.items()})
    published = Published(license, sources, options.language, contamination, PLOT, infos)
    card = render_card(title, options.repo_id, summary, views, origin, published=published)
    files[CARD] = str(card).encode()
    return Publication("dataset", files, f"Corpus of {summary.funnel.accepted:,} pruned traces")


def _license(license: str | None) -> str | None:
    if license is None:
        logger.warning("The card states no licence, so that nobody may use the corpus: give one, such as apache-2.0.")
    elif not LICENSE.fullmatch(license):
        raise DRPError(
            f"license is {license!r}: give an identifier of https://huggingface.co/docs/hub/repositories-licenses, "
            "such as apache-2.0 or cc-by-4.0."
        )
    return license


def _sources(texts: Sequence[str]) -> list[Source]:
    if not texts:
        logger.warning("The card does not say what the corpus was made from: give sources, such as openai/gsm8k=mit.")
    sources = []
    for text in texts:
        found = SOURCE.fullmatch(text)
        if not found:
            raise DRPError(
                f"sources has {text!r}: give a data set of the Hub or an address, with its licence after '='."
            )
        if not found["license"]:
            logger.warning("The card states no licence of %s: give %s=LICENCE.", text, found["name"])
        sources.append(Source(found["name"], found["license"] or ""))
    return sources


def _count(folder: Path, contamination: Contamination) -> CorpusSummary:
    """One pass through all rows."""
    summary = CorpusSummary()
    for row in tqdm(corpus_rows(folder, texts=False), desc="Counting rows", unit="row", delay=5, leave=False):
        summary.add(row)
        contamination.add(row.question)
    return summary


def _write_views(folder: Path, work_dir: Path) -> dict[str, dict[str, Shards]]:
    """Writes all views; one without rows is left out, as `load_dataset` takes none."""
    todo = [(view, split, files) for view, splits in views_of(folder).items() for split, files in splits.items()]
    written: dict[str, dict[str, Shards]] = {}
    for view, split, files in tqdm(todo, desc="Writing shards", unit="split", delay=5, leave=False):
        shards = write_shards(files, work_dir, view, split)
        if shards.rows:
            written.setdefault(view, {})[split] = shards
    return written


def _view(view: str, splits: Mapping[str, Shards], work_dir: Path) -> View:
    rows = {split: shards.rows for split, shards in splits.items()}
    patterns = {split: shard_pattern(view, split) for split in splits}
    return View(view, rows, patterns, fingerprint(work_dir / view))


def _info(view: str, splits: Mapping[str, Shards]) -> DatasetInfo:
    """Columns and sizes of a view, so that neither the viewer nor `load_dataset` needs to look for them."""
    of_splits = SplitDict()
    for split, shards in splits.items():
        of_splits.add(SplitInfo(split, num_bytes=shards.bytes_in_memory, num_examples=shards.rows))
    return DatasetInfo(
        config_name=view,
        features=next(iter(splits.values())).features,
        splits=of_splits,
        download_size=sum(shards.bytes_on_disk for shards in splits.values()),
        dataset_size=sum(shards.bytes_in_memory for shards in splits.values()),
    )
