"""What a corpus holds, counted, and its card: a README whose front matter lets `load_dataset` and the Hub find it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from statistics import mean, median
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from drp_hf.corpus import VIEWS, view_file
from drp_hf.provenance import fingerprint
from drp_hf.pruning import Funnel
from drp_hf.records import Action, CorpusRow
from drp_hf.taxonomy import CATEGORIES

BAR = 40
"""Characters of the longest bar of a histogram."""
BINS = 12
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class CorpusSummary:
    """Counts the rows of a corpus; tokens, actions and skills are those of its accepted rows."""

    def __init__(self, rows: Iterable[CorpusRow] = ()) -> None:
        self.funnel = Funnel()
        self.models: Counter[str] = Counter()
        self.before: list[int] = []
        self.after: list[int] = []
        self.actions: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()
        self.skills: Counter[str] = Counter()
        self.deleted: Counter[str] = Counter()
        self.categories: Counter[str] = Counter()
        self.categories_deleted: Counter[str] = Counter()
        for row in rows:
            self.add(row)

    def add(self, row: CorpusRow) -> None:
        """Counts one row."""
        self.funnel.add(row)
        self.models[row.model] += 1
        if not row.accepted:
            return
        self.before.append(row.tokens_before)
        self.after.append(row.tokens_after)
        for step in row.steps:
            self.actions[step.action.value] += 1
            self.characters[step.action.value] += step.end - step.start
            self.skills[step.skill] += 1
            self.deleted[step.skill] += step.action is Action.DELETE
            self.categories[step.category] += 1
            self.categories_deleted[step.category] += step.action is Action.DELETE

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
        steps, characters = self.actions.total() or 1, self.characters.total() or 1
        counted = [(action.value, self.actions[action.value]) for action in Action]
        return [(action, count, count / steps, self.characters[action] / characters) for action, count in counted]

    def skill_rows(self, most: int) -> list[tuple[str, int, float]]:
        """The most frequent skills: steps, and share of them deleted."""
        return [(skill, count, self.deleted[skill] / count) for skill, count in self.skills.most_common(most)]

    def category_rows(self) -> list[tuple[str, int, float, str]]:
        """The categories of skills, the most frequent first: steps, share of them deleted, description."""
        return [
            (category, count, self.categories_deleted[category] / count, CATEGORIES.get(category, ""))
            for category, count in self.categories.most_common()
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


def write_card(
    output_dir: str | Path,
    summary: CorpusSummary,
    counts: Mapping[str, Mapping[str, int]],
    teacher: str,
    tokenizer: str,
    command: str,
) -> None:
    """Writes the folder's `README.md`.

    Args:
        output_dir: the corpus folder; its name is the card's title.
        summary: the counted rows.
        counts: rows by view and split; only what is named here is declared.
        teacher: the teacher's name.
        tokenizer: name of the tokenizer that counted the tokens.
        command: the command line that made the corpus.
    """
    from drp_hf import __version__

    title = Path(output_dir).resolve().name
    views = [view for view in VIEWS if counts[view]]
    rows = sum(counts["raw"].values())
    data = DatasetCardData(
        pretty_name=title,
        task_categories=["text-generation"],
        tags=["reasoning", "chain-of-thought", "distilled-reasoning-pruning", "drp_hf", "trl"],
        size_categories=[next((label for limit, label in SIZES if rows < limit), "n>1M")],
        configs=[_config(Path(output_dir), view, counts[view], default=view == views[0]) for view in views],
    )
    card = DatasetCard.from_template(
        data,
        template_str=resources.files("drp_hf.model_cards").joinpath("corpus.md").read_text(encoding="utf-8"),
        title=title,
        views=[{"name": view, "description": VIEWS[view], "splits": counts[view]} for view in views],
        summary=summary,
        funnel=[(_cell(what), count, share) for what, count, share in summary.funnel.to_rows()],
        skills=[(_cell(skill), count, share) for skill, count, share in summary.skill_rows(25)],
        models=[_cell(model) for model in sorted(summary.models)],
        teacher=teacher,
        tokenizer=tokenizer,
        version=__version__,
        command=command,
    )
    card.save(Path(output_dir) / "README.md")


def _config(output_dir: Path, view: str, splits: Mapping[str, int], default: bool) -> dict[str, Any]:
    return {
        "config_name": view,
        **({"default": True} if default else {}),
        # `load_dataset` keys its cache of a local folder by this block, not by the files: without their fingerprint, a
        # corpus written anew would be loaded as it was before.
        "description": f"{VIEWS[view]} Content {fingerprint(output_dir / view)}.",
        "data_files": [{"split": split, "path": view_file(view, split)} for split in splits],
    }


def _cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|") or "(none)"
