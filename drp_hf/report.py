"""One HTML page of accuracy against tokens: figures with intervals, plots, answers side by side, the corpus.

The page stands alone: style and plots are inside, nothing is fetched, no script runs. Everything a model wrote is
escaped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from tqdm import tqdm

from drp_hf import plots, report_figures
from drp_hf.errors import DRPError
from drp_hf.evaluations import read_evaluation
from drp_hf.figures import budget_curve
from drp_hf.published import SOURCE, published_points
from drp_hf.report_answers import outcomes_of, shown_questions
from drp_hf.report_corpus import Corpus, read_corpus
from drp_hf.report_runs import Benchmark, compare

SKILLS = 20
"""Rows of the table of skills."""

Plot = Callable[..., bytes]
"""Draws one plot, given `theme` and `form`."""


def write_report(
    output_html: str | Path, run_dirs: Sequence[str | Path], corpus_dir: str | Path | None = None
) -> Path:
    """Writes the page, and its plots beside it as PNG and SVG files (`<page>_<benchmark>_<plot>.png`).

    Args:
        output_html: the page.
        run_dirs: run folders of `drp evaluate` or `drp score`: first the baseline, then other models, or other seeds
            of the same model, on the same questions.
        corpus_dir: corpus folder that a student was trained on, as `drp prune` writes it; its part is left out if
            None.

    Returns:
        The path of the page.

    Raises:
        DRPError: a folder, file or field is missing, or the runs do not answer the same questions.
    """
    from jinja2 import Environment, StrictUndefined

    from drp_hf import __version__

    output_html = Path(output_html)
    if output_html.is_dir():
        raise DRPError(f"{output_html} is a folder: give the page's name, such as {output_html / 'report.html'}.")
    benchmarks = compare([read_evaluation(folder) for folder in run_dirs])
    corpus = read_corpus(Path(corpus_dir)) if corpus_dir else None

    parts = file_names(benchmarks)
    wanted = {part: benchmark_plots(benchmark) for part, benchmark in zip(parts, benchmarks, strict=True)}
    if corpus:
        wanted["corpus"] = corpus_plots(corpus)
    output_html.parent.mkdir(parents=True, exist_ok=True)
    pictures = draw(output_html, wanted)

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(
        resources.files("drp_hf").joinpath("assets/report.html").read_text(encoding="utf-8")
    )
    page = template.render(
        version=__version__,
        form=report_figures,
        sections=[section(of, pictures[part]) for part, of in zip(parts, benchmarks, strict=True)],
        corpus=corpus,
        corpus_pictures=pictures.get("corpus"),
        skills=SKILLS,
        source=SOURCE,
    )
    # Text of a model may hold half a surrogate pair, which no file can.
    output_html.write_text(page, encoding="utf-8", errors="replace")
    return output_html


def section(benchmark: Benchmark, pictures: dict[str, dict[str, str]]) -> dict[str, Any]:
    """What the page shows of one benchmark.

    Args:
        benchmark: its runs.
        pictures: its plots as data URIs, by name and theme.
    """
    baseline, *others = benchmark.runs
    found = [run.figures for run in benchmark.runs]
    return {
        "benchmark": benchmark,
        "groups": report_figures.figure_groups(found, [run.forced for run in benchmark.runs]),
        "composites": report_figures.composite_rows(found),
        "constants": report_figures.constants_text([of["constants"] for of in found]),
        "pictures": pictures,
        "published": published_points(benchmark.name),
        "outcomes": {
            name: len(questions) for name, questions in outcomes_of(baseline.answers, others[0].answers).items()
        }
        if others
        else {},
        "questions": shown_questions(baseline.answers, others[0].answers) if others else [],
    }


# ------------------------------------------------------------------------------------------------------------- plots


def benchmark_plots(benchmark: Benchmark) -> dict[str, Plot]:
    """The plots of one benchmark, by name."""
    runs, limit = benchmark.runs, benchmark.limit
    curves = {
        run.name: plots.BudgetCurve(
            *budget_curve(run.table, limit),
            auc=run.figures["budget_auc"],
            keeping=run.figures["budget_keeping"],
            forced={int(budget): of["accuracy"] for budget, of in run.forced.items()},
        )
        for run in runs
    }
    points = {
        run.name: plots.Point(
            run.figures["mean_tokens"],
            run.figures["accuracy"],
            run.figures["mean_tokens_interval"],
            run.figures["accuracy_interval"],
        )
        for run in runs
    }
    return {
        "lengths": partial(plots.length_histograms, {run.name: run.table.n_tokens for run in runs}),
        "budgets": partial(plots.budget_curves, curves, limit),
        "pareto": partial(plots.pareto, points, published_points(benchmark.name)),
    }


def corpus_plots(corpus: Corpus) -> dict[str, Plot]:
    """The plots of a corpus, by name: none where nothing was accepted."""
    if not corpus.characters:
        return {}
    return {
        "skills": partial(plots.skill_bars, corpus.characters),
        "places": partial(plots.position_bars, corpus.place_shares()),
    }


def draw(output_html: Path, wanted: dict[str, dict[str, Plot]]) -> dict[str, dict[str, dict[str, str]]]:
    """Draws every plot: for the page in both themes, and as files beside it.

    Args:
        output_html: the page.
        wanted: plots by the part of the page and their names.

    Returns:
        In the same order the pictures as data URIs, by theme.
    """
    pictures: dict[str, dict[str, dict[str, str]]] = {part: {} for part in wanted}
    every = [(part, name, plot) for part, of in wanted.items() for name, plot in of.items()]
    for part, name, plot in tqdm(every, desc="Drawing", unit="plot", delay=5, leave=False):
        png = {theme: plot(theme=theme, form="png") for theme in ("light", "dark")}
        file = output_html.with_name(f"{output_html.stem}_{part}_{name}.png")
        file.write_bytes(png["light"])
        file.with_suffix(".svg").write_bytes(plot(theme="light", form="svg"))
        pictures[part][name] = {theme: _data_uri(data) for theme, data in png.items()}
    return pictures


def file_names(benchmarks: Sequence[Benchmark]) -> list[str]:
    """Names of benchmarks as parts of file names: plain, and no two the same."""
    names: list[str] = []
    for benchmark in benchmarks:
        plain = re.sub(r"[^\w.-]+", "_", benchmark.name)[:60]
        taken = {*names, "corpus"}
        names.append(next(name for name in (plain, *(f"{plain}-{n}" for n in range(2, 99))) if name not in taken))
    return names


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
