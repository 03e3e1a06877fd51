"""One HTML page that shows what pruning did: figures before and after, the corpus, traces step by step, answers.

The page stands alone: style and plots are inside, nothing is fetched, no script runs. Everything a model wrote is
escaped.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from drp_hf.errors import DRPError
from drp_hf.evaluations import AES_WEIGHTS, CONFIDENCE, RESAMPLES, SEED, Evaluation, align, figures, read_evaluation
from drp_hf.records import CORPUS_FEATURES, Action, CorpusRow

TRACES = 10
"""Traces shown in full."""
SKILLS = 20
"""Rows of the table of skills."""
ANSWERS = {"got worse": 3, "got better": 3, "right both times": 2, "wrong both times": 1}
"""Questions shown side by side, by what became of them."""


def write_report(
    output_html: str | Path,
    corpus_dir: str | Path | None,
    baseline_dir: str | Path,
    student_dirs: Sequence[str | Path] = (),
) -> Path:
    """Writes the page, and its plots beside it as PNG files (`<name>_lengths.png`, `<name>_skills.png`).

    Args:
        output_html: the page.
        corpus_dir: corpus folder that the student was trained on, as `drp prune` writes it; its part is left out if
            None.
        baseline_dir: evaluation of the model before.
        student_dirs: evaluations of the model after, one for each seed, on the same problems.

    Returns:
        The path of the page.

    Raises:
        DRPError: a folder, file or field is missing, or the evaluations do not answer the same problems.
    """
    from jinja2 import Environment, StrictUndefined

    from drp_hf import __version__, plots

    output_html = Path(output_html)
    baseline = read_evaluation(baseline_dir)
    students = [align(read_evaluation(folder), baseline) for folder in student_dirs]
    corpus = read_corpus(Path(corpus_dir)) if corpus_dir else None

    output_html.parent.mkdir(parents=True, exist_ok=True)
    pictures = {}
    if students:
        before = _tokens([baseline])
        after = _tokens(students)
        pictures["lengths"] = {theme: plots.length_histogram(before, after, theme) for theme in ("light", "dark")}
    if corpus and corpus.characters:
        pictures["skills"] = {theme: plots.skill_bars(corpus.characters, theme=theme) for theme in ("light", "dark")}
    for name, themes in pictures.items():
        output_html.with_name(f"{output_html.stem}_{name}.png").write_bytes(themes["light"])

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["negative"] = lambda value: -value
    template = environment.from_string(
        resources.files("drp_hf").joinpath("assets/report.html").read_text(encoding="utf-8")
    )
    page = template.render(
        version=__version__,
        models=table_rows(baseline, students),
        n=len(baseline.answers),
        baseline=baseline,
        students=students,
        limits=sorted({run.max_tokens for run in (baseline, *students)}),
        weights=AES_WEIGHTS,
        bootstrap={"resamples": RESAMPLES, "confidence": CONFIDENCE, "seed": SEED},
        pictures={name: {theme: _data_uri(png) for theme, png in themes.items()} for name, themes in pictures.items()},
        corpus=corpus,
        skills=SKILLS,
        outcomes=Counter(map(outcome, baseline.answers, students[0].answers)) if students else None,
        pairs=answer_pairs(baseline, students[0]) if students else [],
    )
    # Text of a model may hold half a surrogate pair, which no file can.
    output_html.write_text(page, encoding="utf-8", errors="replace")
    return output_html


# ------------------------------------------------------------------------------------------------------ evaluations


def table_rows(baseline: Evaluation, students: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """The rows of the table: before, after (one a run), and with several runs all of them together."""
    rows = [{"when": "before", "name": _model_name(baseline), **figures([baseline])}]
    for number, student in enumerate(students, 1):
        when = "after" if len(students) == 1 else f"after, run {number}"
        rows.append({"when": when, "name": _model_name(student), **figures([student], baseline)})
    if len(students) > 1:
        rows.append({"when": f"after, all {len(students)} runs", "name": "", **figures(students, baseline)})
    return rows


def outcome(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What became of a question; a key of `ANSWERS`."""
    if before["correct"]:
        return "right both times" if after["correct"] else "got worse"
    return "got better" if after["correct"] else "wrong both times"


def answer_pairs(baseline: Evaluation, student: Evaluation) -> list[dict[str, Any]]:
    """Questions with both answers, some of every outcome, evenly spread over the problems."""
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in ANSWERS}
    for number, (before, after) in enumerate(zip(baseline.answers, student.answers, strict=True), 1):
        name = outcome(before, after)
        groups[name].append({"number": number, "outcome": name, "before": before, "after": after})
    return [pair for name, most in ANSWERS.items() for pair in _spread(groups[name], most)]


def _tokens(runs: Sequence[Evaluation]) -> list[int]:
    return [row["n_tokens"] for run in runs for row in run.answers]


def _model_name(evaluation: Evaluation) -> str:
    """The model's name; of a path its last two parts, for the rest of it is nobody's business."""
    return "/".join(Path(evaluation.model).parts[-2:])


# ----------------------------------------------------------------------------------------------------------- corpus


@dataclass
class Corpus:
    """What the page shows of a corpus.

    Args:
        name: name of its folder.
        summary: its rows, counted (`drp_hf.corpus.card.CorpusSummary`).
        characters: characters of the original reasonings by category of skill and action, of accepted rows.
        teachers: names of the teachers.
        traces: accepted rows shown in full.
    """

    name: str
    summary: Any
    characters: Counter[tuple[str, Action]] = field(default_factory=Counter)
    teachers: set[str] = field(default_factory=set)
    traces: list[dict[str, Any]] = field(default_factory=list)


def read_corpus(folder: Path) -> Corpus:
    """Counts the rows of a corpus folder and picks the traces to show: evenly spread over the share of tokens kept.

    Raises:
        DRPError: the folder is no corpus, or its files lack a column.
    """
    from drp_hf.corpus.card import CorpusSummary

    corpus = Corpus(folder.resolve().name, CorpusSummary())
    kept: list[tuple[float, int]] = []
    for number, row in enumerate(corpus_rows(folder)):
        corpus.summary.add(row)
        if not row.accepted:
            continue
        corpus.teachers.add(row.teacher)
        kept.append((row.tokens_after / max(row.tokens_before, 1), number))
        for step in row.steps:
            corpus.characters[step.category or "none", step.action] += step.end - step.start
    chosen = [number for _, number in _spread(sorted(kept), TRACES)]
    shown = {number: shown_trace(row) for number, row in enumerate(corpus_rows(folder)) if number in set(chosen)}
    corpus.traces = [shown[number] for number in chosen]
    return corpus


def corpus_rows(folder: Path) -> Iterator[CorpusRow]:
    """Every row of a corpus, accepted or not, a thousand in memory at a time.

    Raises:
        DRPError: the folder is no corpus, or its files lack a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted((folder / "raw").glob("*.parquet"))
    if not files:
        raise DRPError(f"{folder} has no raw/*.parquet: give a corpus folder that drp prune wrote.")
    for file in files:
        try:
            parquet = pq.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise DRPError(f"{file} is not a Parquet file ({error}): prune again.") from error
        missing = [name for name in CORPUS_FEATURES if name not in parquet.schema_arrow.names]
        if missing:
            raise DRPError(f"{file} lacks the column {missing[0]!r}: prune again with this version.")
        for batch in parquet.iter_batches(1000, columns=list(CORPUS_FEATURES)):
            for row in batch.to_pylist():
                try:
                    corpus_row = CorpusRow.from_dict(row)
                except ValueError as error:
                    raise DRPError(f"{file} has a step with an unknown action ({error}): prune again.") from error
                yield corpus_row


def shown_trace(row: CorpusRow) -> dict[str, Any]:
    """A row as the page shows it: the original step by step, and the completion in pieces that come from steps."""
    from drp_hf.pruning import apply_steps, completion_spans

    steps = [
        {
            "action": step.action.value,
            "skill": step.skill,
            "text": row.reasoning[step.start : step.end].lstrip("\n").rstrip(),
            "rewrite": step.rewrite.strip(),
        }
        for step in row.steps
    ]
    pieces, position = [], 0
    for span in completion_spans(apply_steps(row.reasoning, row.steps).spans):
        pieces.append({"action": "", "skill": "", "text": row.completion[position : span.start]})
        text = row.completion[span.start : span.end]
        pieces.append({"action": span.action.value, "skill": span.skill, "text": text})
        position = span.end
    pieces.append({"action": "", "skill": "", "text": row.completion[position:]})
    return {"row": row, "steps": steps, "pieces": [piece for piece in pieces if piece["text"]]}


def _spread(items: list[Any], most: int) -> list[Any]:
    """At most so many items, evenly spread, first and last included."""
    if len(items) <= most:
        return items
    return [
        items[round(i * (len(items) - 1) / (most - 1))] if most > 1 else items[len(items) // 2] for i in range(most)
    ]


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
