"""What a corpus holds, counted, and its card: a README whose front matter lets `load_dataset` and the Hub find it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from huggingface_hub import DatasetCard, DatasetCardData

from drp_hf.corpus import VIEWS, view_file
from drp_hf.corpus.origin import Origin
from drp_hf.provenance import fingerprint
from drp_hf.pruning import Funnel
from drp_hf.records import Action, CorpusRow
from drp_hf.taxonomy import CATEGORIES, categorise

if TYPE_CHECKING:
    from datasets.info import DatasetInfosDict

    from drp_hf.hub.contamination import Contamination

BAR = 40
"""Characters of the longest bar of a histogram."""
BINS = 12
SIZES = tuple(
    (10**exponent, label)
    for exponent, label in (
        *((3, "n<1K"), (4, "1K<n<10K"), (5, "10K<n<100K"), (6, "100K<n<1M"), (7, "1M<n<10M"), (8, "10M<n<100M")),
        *((9, "100M<n<1B"), (10, "1B<n<10B"), (11, "10B<n<100B"), (12, "100B<n<1T")),
    )
)
"""The Hub's words for numbers of rows below a limit."""
INPUTS = {"tokenizer": "tokenizer (counted tokens)", "student": "student (scored prunings)"}
"""What the settings name beside the traces, and what it is for."""
PROMPTS = re.compile(r"\((compact|paper)-v([^,)]+)")


class CorpusSummary:
    """Counts the rows of a corpus; tokens, actions and skills are those of its accepted rows."""

    def __init__(self, rows: Iterable[CorpusRow] = ()) -> None:
        self.funnel = Funnel()
        self.models: Counter[str] = Counter()
        self.teachers: Counter[str] = Counter()
        self.before: list[int] = []
        self.after: list[int] = []
        self.steps: Counter[tuple[str, Action]] = Counter()
        """By skill and action."""
        self.characters: Counter[Action] = Counter()
        for row in rows:
            self.add(row)

    def add(self, row: CorpusRow) -> None:
        """Counts one row."""
        self.funnel.add(row)
        self.models[row.model] += 1
        if row.teacher:
            self.teachers[row.teacher] += 1
        if not row.accepted:
            return
        self.before.append(row.tokens_before)
        self.after.append(row.tokens_after)
        for step in row.steps:
            self.steps[step.skill, step.action] += 1
            self.characters[step.action] += step.end - step.start

    @property
    def skills(self) -> Counter[str]:
        """Steps by skill."""
        return _summed((skill, count) for (skill, _), count in self.steps.items())

    @property
    def kept(self) -> float:
        """Share of tokens kept: sum after over sum before, whole outputs of accepted rows; 0 without any."""
        return sum(self.after) / sum(self.before) if self.before else 0.0

    def token_rows(self) -> list[tuple[str, int, float, float]]:
        """Before and after: sum, mean and median of tokens a trace; empty without accepted rows."""
        lengths = {"before": self.before, "after": self.after}
        return [(name, sum(of), mean(of), median(of)) for name, of in lengths.items() if of]

    def action_rows(self) -> list[tuple[str, int, float, float]]:
        """Actions in the order of the enumeration: steps, share of steps, share of the original's characters."""
        counts = _summed((action, count) for (_, action), count in self.steps.items())
        steps, characters = counts.total() or 1, self.characters.total() or 1
        return [(a.value, counts[a], counts[a] / steps, self.characters[a] / characters) for a in Action]

    def skill_rows(self, most: int) -> list[tuple[str, int, float]]:
        """The most frequent skills: steps, and share of them deleted."""
        return [
            (skill, count, self.steps[skill, Action.DELETE] / count) for skill, count in self.skills.most_common(most)
        ]

    def category_rows(self) -> list[tuple[str, int, float, str]]:
        """The categories of skills, the most frequent first: steps, share of them deleted, description."""
        counts = _summed((categorise(skill), count) for skill, count in self.skills.items())
        deleted = _summed(
            (categorise(skill), count) for (skill, action), count in self.steps.items() if action is Action.DELETE
        )
        return [
            (category, count, deleted[category] / count, CATEGORIES.get(category, ""))
            for category, count in counts.most_common()
        ]

    def histogram(self) -> str:
        """Traces by tokens before and after pruning, as lines of text."""
        width = -(-max(self.before) // BINS)
        bins = {name: Counter(length // width for length in getattr(self, name)) for name in ("before", "after")}
        highest = max(max(counts.values()) for counts in bins.values())
        lines = [f"{'tokens':>13}  {'':6} traces"]
        for number in range(max(max(counts) for counts in bins.values()) + 1):
            label = f"{number * width:,}–{(number + 1) * width - 1:,}"
            for name, counts in bins.items():
                bar = "█" * -(-counts[number] * BAR // highest)
                lines.append(f"{label:>13}  {name:6} {bar} {counts[number]:,}".rstrip())
                label = ""
        return "\n".join(lines)


def _summed(counts: Iterable[tuple[Any, int]]) -> Counter:
    total: Counter = Counter()
    for name, count in counts:
        total[name] += count
    return total


@dataclass(frozen=True)
class View:
    """A view as its card declares it.

    Args:
        name: one of `VIEWS`.
        rows: their number by split.
        files: where a split lies, as a path or a pattern of paths.
        content: fingerprint of the files.
    """

    name: str
    rows: Mapping[str, int]
    files: Mapping[str, str]
    content: str

    @property
    def description(self) -> str:
        return VIEWS[self.name]

    def config(self, default: bool) -> dict[str, Any]:
        """The block of the front matter that declares it."""
        return {
            "config_name": self.name,
            **({"default": True} if default else {}),
            # `load_dataset` keys its cache of a local folder by this block, not by the files: without their
            # fingerprint, a corpus written anew would be loaded as it was before.
            "description": f"{self.description} Content {self.content}.",
            "data_files": [{"split": split, "path": path} for split, path in self.files.items()],
        }


@dataclass(frozen=True)
class Source:
    """Something a corpus was made from.

    Args:
        name: a data set of the Hub, or an address on the web.
        license: its licence; empty where it is not stated.
    """

    name: str
    license: str = ""

    @property
    def on_hub(self) -> bool:
        return "://" not in self.name

    @property
    def address(self) -> str:
        return f"https://huggingface.co/datasets/{self.name}" if self.on_hub else self.name


@dataclass(frozen=True)
class Published:
    """What only the card of the Hub says.

    Args:
        license: of the corpus, as the Hub's identifier; None where none is stated.
        sources: what the corpus was made from; empty where it is not stated.
        languages: ISO 639 codes.
        contamination: overlaps with test sets.
        plot: path of the plot of tokens in the repository.
        infos: columns and sizes by view.
    """

    license: str | None
    sources: Sequence[Source]
    languages: Sequence[str]
    contamination: Contamination
    plot: str
    infos: DatasetInfosDict


def write_card(
    output_dir: str | Path,
    summary: CorpusSummary,
    counts: Mapping[str, Mapping[str, int]],
    origin: Origin,
    command: str,
) -> None:
    """Writes the `README.md` of a corpus folder.

    Args:
        output_dir: the corpus folder; its name is the card's title.
        summary: the counted rows.
        counts: rows by view and split; only what is named here is declared.
        origin: how the corpus was made.
        command: the command line that made it.
    """
    folder = Path(output_dir)
    title = folder.resolve().name
    views = [
        View(view, counts[view], {split: view_file(view, split) for split in counts[view]}, fingerprint(folder / view))
        for view in VIEWS
        if counts[view]
    ]
    card = render_card(title, title, summary, views, origin, command)
    card.save(folder / "README.md")


def render_card(
    title: str,
    address: str,
    summary: CorpusSummary,
    views: Sequence[View],
    origin: Origin,
    command: str = "",
    published: Published | None = None,
) -> DatasetCard:
    """The card of a corpus, in a local folder or on the Hub.

    Args:
        title: its heading.
        address: what `load_dataset` is given to load it.
        summary: the counted rows.
        views: those that have rows, the default first.
        origin: how the corpus was made.
        command: the command line that made it; if not given, the settings are shown as a file.
        published: what only the card of the Hub says.
    """
    data = DatasetCardData(
        language=list(published.languages) if published else None,
        license=published.license if published else None,
        annotations_creators=["machine-generated"] if published else None,
        source_datasets=[source.name for source in published.sources if source.on_hub] or None if published else None,
        pretty_name=title,
        task_categories=["text-generation"],
        tags=["reasoning", "chain-of-thought", "distilled-reasoning-pruning", "drp_hf", "trl"],
        size_categories=[next((label for limit, label in SIZES if summary.funnel.read < limit), "n>1T")],
        configs=[view.config(default=view is views[0]) for view in views],
    )
    if published:
        published.infos.to_dataset_card_data(data)
    return DatasetCard.from_template(
        data,
        template_str=resources.files("drp_hf.model_cards").joinpath("corpus.md").read_text(encoding="utf-8"),
        title=title,
        address=address,
        views=views,
        summary=summary,
        students=_names(summary.models),
        teachers=_names(summary.teachers),
        prompts=sorted({f"protocol {kind}, version {version}" for kind, version in _prompts(summary.teachers)}),
        funnel=[(_cell(what), count, share) for what, count, share in summary.funnel.to_rows()],
        skills=[(_cell(skill), count, share) for skill, count, share in summary.skill_rows(25)],
        overlaps=[(_cell(question), name) for question, name in published.contamination.listed] if published else [],
        published=published,
        origin=origin,
        inputs={origin.config.get(name): what for name, what in INPUTS.items()},
        command=command,
    )


def _names(counted: Iterable[str]) -> str:
    """Names of models or teachers for a sentence or a table's cell."""
    return ", ".join(f"`{_cell(name)}`" for name in sorted(counted)) or "(unknown)"


def _prompts(teachers: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Protocols and versions of the prompts, which a language model as teacher has in its name."""
    for teacher in teachers:
        for found in PROMPTS.finditer(teacher):
            yield found.groups()


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table: never more than words."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;") or "(none)"
