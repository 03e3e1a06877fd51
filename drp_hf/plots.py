"""Plots of a report as PNG bytes, each in a light and a dark theme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from drp_hf.records import Action

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Theme = Literal["light", "dark"]

INK = {"light": "#1f2530", "dark": "#e4e8ee"}
PAPER = {"light": "#ffffff", "dark": "#171c24"}
FAINT = {"light": "#d5dae2", "dark": "#37404d"}
BEFORE = {"light": "#8a94a6", "dark": "#8491a5"}
AFTER = {"light": "#0b6bcb", "dark": "#58a6ff"}
ACTIONS = {
    Action.KEEP: {"light": "#1a7f4b", "dark": "#4cc38a"},
    Action.COMPRESS: {"light": "#b26a00", "dark": "#f0b04a"},
    Action.MERGE: {"light": "#7a4bc2", "dark": "#b794f6"},
    Action.DELETE: {"light": "#e3a5a0", "dark": "#7d3b3a"},
}
"""In the order of the bars: what stays, what is rewritten, what goes."""
HATCHES = {Action.KEEP: "", Action.COMPRESS: "..", Action.MERGE: "xx", Action.DELETE: "//"}
BINS = 40


def length_histogram(before: Sequence[int], after: Sequence[int], theme: Theme = "light") -> bytes:
    """Lengths of outputs before and after, overlaid, with the medians marked.

    Args:
        before: tokens of the baseline's whole outputs.
        after: tokens of the student's, of all its runs together.
        theme: colours.

    Returns:
        A PNG file.
    """
    import numpy as np

    tokens = np.concatenate([before, after])
    # One long tail would squeeze everything else into the first bins.
    logarithmic = tokens.min() > 0 and tokens.max() > 20 * min(np.median(before), np.median(after))
    if logarithmic:
        edges = np.geomspace(tokens.min(), tokens.max() + 1, BINS + 1)
    else:
        edges = np.linspace(0, tokens.max() + 1, BINS + 1)
    with _figure(theme, height=3.6) as (figure, axes):
        styles = (("before", before, BEFORE, None, "dashed"), ("after", after, AFTER, "//", "solid"))
        for name, lengths, colour, hatch, line in styles:
            axes.hist(
                lengths,
                edges,
                weights=np.full(len(lengths), 1 / len(lengths)),
                histtype="stepfilled",
                facecolor=(colour[theme], 0.35),
                edgecolor=colour[theme],
                hatch=hatch,
                linewidth=1.4,
                label=f"{name} (median {np.median(lengths):,.0f})",
            )
            axes.axvline(np.median(lengths), color=colour[theme], linestyle=line, linewidth=2)
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(axis="y", color=FAINT[theme], linewidth=0.8)
        axes.set_xlabel("tokens of the whole output")
        axes.set_ylabel("share of outputs")
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)  # above the bars and lines
        return _png(figure)


def skill_bars(characters: Mapping[tuple[str, Action], int], most: int = 12, theme: Theme = "light") -> bytes:
    """What became of the text of each skill: bars stacked by action.

    Args:
        characters: characters of the original reasonings by skill and action.
        most: so many skills, those with most text; the others make one bar together.
        theme: colours.

    Returns:
        A PNG file.
    """
    total = sum(characters.values()) or 1
    sizes: dict[str, int] = {}
    for (skill, _), count in characters.items():
        sizes[skill] = sizes.get(skill, 0) + count
    ranked = sorted(sizes, key=lambda skill: (-sizes[skill], skill))
    groups = [(_short(skill), [skill]) for skill in ranked[:most]]
    if ranked[most:]:
        others = len(ranked) - most
        groups.append((f"{others} other skill{'s' * (others > 1)}", ranked[most:]))
    with _figure(theme, height=1.3 + 0.32 * len(groups)) as (figure, axes):
        left = [0.0] * len(groups)
        for action, colour in ACTIONS.items():
            widths = [sum(characters.get((skill, action), 0) for skill in skills) / total for _, skills in groups]
            if not any(widths):
                continue
            axes.barh(
                [name for name, _ in groups],
                widths,
                left=left,
                color=colour[theme],
                edgecolor=PAPER[theme],
                hatch=HATCHES[action],
                linewidth=0,
                height=0.72,
                label=f"{action.value} {sum(widths):.1%}",
            )
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.invert_yaxis()
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        axes.grid(axis="x", color=FAINT[theme], linewidth=0.8)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("share of the original reasonings (characters)")
        axes.legend(frameon=False, loc="lower right")
        return _png(figure)


def answers_curve(
    steps: Sequence[int], tokens: Sequence[float], accuracy: Sequence[float], theme: Theme = "light"
) -> bytes:
    """Tokens per answer and accuracy on held-out problems over a training.

    Args:
        steps: optimiser steps at which answers were written.
        tokens: mean tokens of an answer at each.
        accuracy: share of right answers at each.
        theme: colours.

    Returns:
        A PNG file.
    """
    with _figure(theme, height=3.6) as (figure, axes):
        (tokens_line,) = axes.plot(
            steps, tokens, color=AFTER[theme], marker="o", linewidth=2, label="tokens per answer"
        )
        axes.set_ylim(0, 1.1 * max(tokens))
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("tokens per answer")
        axes.grid(axis="y", color=FAINT[theme], linewidth=0.8)
        right = axes.twinx()
        (accuracy_line,) = right.plot(
            steps, accuracy, color=BEFORE[theme], marker="s", linestyle="dashed", linewidth=2, label="accuracy"
        )
        right.set_ylim(0, 1.1)
        right.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value <= 1 else "")
        right.set_ylabel("accuracy")
        lines = [tokens_line, accuracy_line]
        axes.legend(handles=lines, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return _png(figure)


def _short(text: str, most: int = 32) -> str:
    """A skill as a label: matplotlib would read dollar signs as mathematics."""
    text = " ".join(text.split()) or "(none)"
    return (text if len(text) <= most else f"{text[: most - 1]}…").replace("$", r"\$")


@contextmanager
def _figure(theme: Theme, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure 6.2 inches wide, on no screen and in no global state but the style of this block."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {
        "text.color": INK[theme],
        "axes.labelcolor": INK[theme],
        "axes.edgecolor": FAINT[theme],
        "xtick.color": INK[theme],
        "ytick.color": INK[theme],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.axisbelow": True,
        "font.size": 11,
        "hatch.linewidth": 0.7,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(6.2, height), facecolor=PAPER[theme], layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.add_subplot(facecolor=PAPER[theme])


def _png(figure: Figure) -> bytes:
    # Without the library's version in it, the same data give the same bytes.
    with BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=180, metadata={"Software": None})
        return stream.getvalue()
