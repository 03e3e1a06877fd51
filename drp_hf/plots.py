"""Plots of evaluations, corpora and trainings, each in a light and a dark theme, as PNG or SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from drp_hf.plot_style import (
    ACTIONS,
    AFTER,
    BEFORE,
    HATCHES,
    INK,
    PAPER,
    SOFT,
    Form,
    Theme,
    figure,
    file_of,
    run_style,
    short,
)
from drp_hf.published import Published
from drp_hf.records import Action

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Line = tuple[tuple[float, float], tuple[float, float]]

BINS = 40
NAMED = 4
"""Runs whose names stand beside their points; those of more stand in the legend."""
CORNERS = 500
"""Corners of a step function that are drawn at most: more cannot be seen."""
LONG_TAIL = 12
"""An axis is logarithmic where the longest output has so many times the tokens of the shortest median: one long tail
would squeeze everything else into its first bins."""


# ------------------------------------------------------------------------------------------------------- evaluations


def length_histograms(lengths: Mapping[str, Sequence[int]], theme: Theme = "light", form: Form = "png") -> bytes:
    """Lengths of outputs, one histogram a run under one another, over the same axis.

    Args:
        lengths: tokens of the whole outputs, by run; the baseline first.
        theme: colours.
        form: kind of file.

    Returns:
        The file.
    """
    import numpy as np

    columns = {name: np.asarray(tokens) for name, tokens in lengths.items()}
    longest, shortest = max(map(np.max, columns.values())), min(map(np.min, columns.values()))
    logarithmic = shortest > 0 and longest > LONG_TAIL * min(map(np.median, columns.values()))
    ends = np.geomspace(shortest, longest + 1, BINS + 1) if logarithmic else np.linspace(0, longest + 1, BINS + 1)
    with figure(theme, height=0.9 + 1.05 * len(columns)) as drawn:
        strips = drawn.subplots(len(columns), sharex=True, sharey=True, squeeze=False)[:, 0]
        for number, (axes, (name, tokens)) in enumerate(zip(strips, columns.items(), strict=True)):
            colour = run_style(number).colour[theme]
            weights = np.full(len(tokens), 1 / len(tokens))
            axes.hist(tokens, ends, weights=weights, histtype="stepfilled", color=(colour, 0.45), edgecolor=colour)
            median = np.median(tokens)
            axes.axvline(median, color=INK[theme], linewidth=1.4)
            axes.set_title(f"{short(name)}: median {median:,.0f}", loc="left", fontsize=10.5)
            axes.yaxis.set_major_locator(_few_ticks())
            axes.yaxis.set_major_formatter(_share)
            axes.grid(axis="y")
        if logarithmic:
            strips[-1].set_xscale("log")
        token_axis(strips[-1], "tokens of the whole output")
        drawn.supylabel("share of outputs", fontsize=10.5)
        return file_of(drawn, form)


@dataclass(frozen=True)
class BudgetCurve:
    """Accuracy of one run over the budget of tokens at which its outputs would be cut.

    Args:
        budgets: tokens at which the accuracy changes, ascending, from 0 to the last budget.
        accuracy: share of right answers from each of them on.
        auc: area under the curve, over that of a run that is always right.
        keeping: smallest budget that keeps nearly all of the accuracy; None where there is none.
        forced: by budget, the accuracy measured when the answer was forced there.
    """

    budgets: np.ndarray
    accuracy: np.ndarray
    auc: float | None = None
    keeping: float | None = None
    forced: Mapping[int, float] = field(default_factory=dict)


def budget_curves(
    curves: Mapping[str, BudgetCurve], limit: float, theme: Theme = "light", form: Form = "png"
) -> bytes:
    """Accuracy over the budget of tokens, one line a run.

    Args:
        curves: by run; the baseline first.
        limit: last budget of the axis.
        theme: colours.
        form: kind of file.

    Returns:
        The file.
    """
    import numpy as np

    middles = [np.median(curve.budgets[1:-1]) for curve in curves.values() if len(curve.budgets) > 2]
    logarithmic = bool(middles) and limit > LONG_TAIL * min(middles)
    first = min((curve.budgets[1] for curve in curves.values() if len(curve.budgets) > 2), default=1)
    left, right = (max(1, 0.8 * first) if logarithmic else 0), max(limit, 1)
    with figure(theme, height=3.4 + 0.2 * len(curves)) as drawn:
        axes = drawn.add_subplot()
        for number, (name, curve) in enumerate(curves.items()):
            style = run_style(number)
            colour = style.colour[theme]
            budgets, accuracy = _thinned(curve.budgets, curve.accuracy)
            auc = "" if curve.auc is None else f", AUC {curve.auc:.3f}"
            line = {"color": colour, "linestyle": style.line, "linewidth": 1.9, "drawstyle": "steps-post"}
            axes.plot(np.maximum(budgets, left), accuracy, **line, label=f"{short(name)}{auc}")
            if curve.keeping is not None:
                place = np.searchsorted(curve.budgets, curve.keeping, side="right") - 1
                axes.plot(curve.keeping, curve.accuracy[place], style.marker, color=colour, markersize=8)
            if curve.forced:
                budgets = sorted(curve.forced)
                hollow = {"markerfacecolor": PAPER[theme], "markeredgewidth": 1.5, "linestyle": "none"}
                forced = [curve.forced[budget] for budget in budgets]
                axes.plot(budgets, forced, style.marker, color=colour, **hollow, label=f"{short(name)}, answer forced")
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xlim(left, right)
        axes.set_ylim(0, 1.02)
        token_axis(axes, "budget: tokens after which an output is cut")
        axes.yaxis.set_major_formatter(_share)
        axes.set_ylabel("accuracy")
        axes.grid(axis="y")
        drawn.legend(loc="outside lower left", fontsize=9.5, handlelength=3.2)
        return file_of(drawn, form)


@dataclass(frozen=True)
class Point:
    """Where one run stands.

    Args:
        tokens: mean tokens of an output.
        accuracy: share of right answers.
        tokens_interval: low and high end; None where there is none.
        accuracy_interval: low and high end; None where there is none.
    """

    tokens: float
    accuracy: float
    tokens_interval: Sequence[float] | None = None
    accuracy_interval: Sequence[float] | None = None


def pareto(
    measured: Mapping[str, Point], published: Sequence[Published] = (), theme: Theme = "light", form: Form = "png"
) -> bytes:
    """Accuracy against mean tokens: what was measured with intervals and frontier, what others published hollow.

    Args:
        measured: by run; the baseline first.
        published: points of others, on the same benchmark.
        theme: colours.
        form: kind of file.

    Returns:
        The file.
    """
    tokens = [point.tokens for point in (*measured.values(), *published)]
    beside = len(measured) <= NAMED
    with figure(theme, height=4.2 if beside else 4 + 0.2 * len(measured)) as drawn:
        axes = drawn.add_subplot()
        labels: list[tuple[float, float, str, str, str]] = []
        lines: list[Line] = []
        for number, (name, point) in enumerate(measured.items()):
            style = run_style(number)
            colour = style.colour[theme]
            arms = {
                "xerr": _arms(point.tokens, point.tokens_interval),
                "yerr": _arms(point.accuracy, point.accuracy_interval),
            }
            looks = {"color": colour, "marker": style.marker, "markersize": 8, "elinewidth": 1.6, "capsize": 3}
            axes.errorbar(point.tokens, point.accuracy, **arms, **looks, linestyle="none", zorder=3)
            if beside:
                labels.append((point.tokens, point.accuracy, short(name, 26), colour, "bold"))
            else:
                axes.plot([], [], style.marker, color=colour, markersize=8, label=short(name))
            across, up = point.tokens_interval or [point.tokens], point.accuracy_interval or [point.accuracy]
            lines.append(((across[0], point.accuracy), (across[-1], point.accuracy)))
            lines.append(((point.tokens, up[0]), (point.tokens, up[-1])))
        for number, model in enumerate(dict.fromkeys(point.model for point in published)):
            own = [point for point in published if point.model == model]
            marker = "o^dv"[number % 4]
            looks = {"facecolors": "none", "edgecolors": SOFT[theme], "linewidths": 1.3, "s": 46}
            places = [point.tokens for point in own], [point.accuracy for point in own]
            axes.scatter(*places, marker=marker, **looks, zorder=2, label=f"published, {model}")
            labels += [(point.tokens, point.accuracy, point.name, SOFT[theme], "normal") for point in own]
        if min(tokens) > 0 and max(tokens) > 10 * min(tokens):
            axes.set_xscale("log")
        axes.margins(0.12, 0.12)
        lines += draw_frontier(axes, list(measured.values()), theme, label="frontier of what was measured")
        token_axis(axes, "mean tokens of an output")
        axes.yaxis.set_major_formatter(_share)
        axes.set_ylabel("accuracy")
        axes.grid()
        drawn.legend(loc="outside lower left", fontsize=9.5)
        label_points(drawn, axes, labels, lines)
        return file_of(drawn, form)


def frontier(points: Sequence[Point]) -> list[tuple[float, float]]:
    """Tokens and accuracy of the points that no other beats in both, by ascending tokens."""
    corners: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point.tokens, -point.accuracy)):
        if not corners or point.accuracy > corners[-1][1]:
            corners.append((point.tokens, point.accuracy))
    return corners


def draw_frontier(axes: Axes, points: Sequence[Point], theme: Theme = "light", label: str | None = None) -> list[Line]:
    """From the lower edge over the corners of the frontier to the right edge: whatever lies below it is beaten.

    Args:
        axes: whose limits stay as they are.
        points: which the frontier is of.
        theme: colours.
        label: in the legend.

    Returns:
        The lines, which names should not cover.
    """
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    corners = frontier(points)
    stairs = [(corners[0][0], low), corners[0]]
    for tokens, accuracy in [*corners[1:], (right, corners[-1][1])]:
        stairs += [(tokens, stairs[-1][1]), (tokens, accuracy)]
    looks = {"color": SOFT[theme], "linewidth": 1.2, "linestyle": (0, (4, 2)), "zorder": 1}
    axes.plot(*zip(*stairs, strict=True), **looks, label=label)
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    return list(pairwise(stairs))


# ------------------------------------------------------------------------------------------------------------ corpus


def skill_bars(
    characters: Mapping[tuple[str, Action], int], most: int = 12, theme: Theme = "light", form: Form = "png"
) -> bytes:
    """What became of the text of each skill: bars stacked by action.

    Args:
        characters: characters of the original reasonings by skill and action.
        most: so many skills, those with most text; the others make one bar together.
        theme: colours.
        form: kind of file.

    Returns:
        The file.
    """
    total = sum(characters.values()) or 1
    sizes: dict[str, int] = {}
    for (skill, _), count in characters.items():
        sizes[skill] = sizes.get(skill, 0) + count
    ranked = sorted(sizes, key=lambda skill: (-sizes[skill], skill))
    groups = [(short(skill), [skill]) for skill in ranked[:most]]
    if ranked[most:]:
        others = len(ranked) - most
        groups.append((f"{others} other skill{'s' * (others > 1)}", ranked[most:]))
    with figure(theme, height=1.3 + 0.3 * len(groups)) as drawn:
        axes = drawn.add_subplot()
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
        axes.xaxis.set_major_formatter(_share)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("share of the original reasonings (characters)")
        axes.legend(loc="lower right")
        return file_of(drawn, form)


def position_bars(shares: Mapping[Action, Sequence[float]], theme: Theme = "light", form: Form = "png") -> bytes:
    """What became of the text by its place in the trace: bars stacked by action.

    Args:
        shares: by action, the share of the text in each of the equal parts that a trace is divided into.
        theme: colours.
        form: kind of file.

    Returns:
        The file.
    """
    import numpy as np

    parts = len(next(iter(shares.values())))
    left = np.arange(parts) / parts
    with figure(theme, height=3.6) as drawn:
        axes = drawn.add_subplot()
        bottom = np.zeros(parts)
        for action, colour in ACTIONS.items():
            heights = np.asarray(shares[action])
            if not heights.any():
                continue
            looks = {"color": colour[theme], "edgecolor": PAPER[theme], "hatch": HATCHES[action], "linewidth": 0.4}
            axes.bar(left, heights, 1 / parts, bottom, align="edge", **looks, label=f"{action.value}")
            bottom += heights
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(_share)
        axes.set_xlabel("place in the reasoning, from its beginning to its end")
        axes.set_ylabel("share of the text")
        drawn.legend(loc="outside upper center", ncols=4, fontsize=9.5, handlelength=1.4, columnspacing=1.2)
        return file_of(drawn, form)


# ---------------------------------------------------------------------------------------------------------- training


def answers_curve(
    steps: Sequence[int],
    tokens: Sequence[float],
    accuracy: Sequence[float],
    theme: Theme = "light",
    form: Form = "png",
) -> bytes:
    """Tokens per answer and accuracy on held-out problems over a training.

    Args:
        steps: optimiser steps at which answers were written.
        tokens: mean tokens of an answer at each.
        accuracy: share of right answers at each.
        theme: colours.
        form: kind of file.

    Returns:
        The file.
    """
    with figure(theme, height=3.6) as drawn:
        axes = drawn.add_subplot()
        (tokens_line,) = axes.plot(
            steps, tokens, color=AFTER[theme], marker="o", linewidth=2, label="tokens per answer"
        )
        axes.set_ylim(0, 1.1 * max(tokens))
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("tokens per answer")
        axes.grid(axis="y")
        right = axes.twinx()
        (accuracy_line,) = right.plot(
            steps, accuracy, color=BEFORE[theme], marker="s", linestyle="dashed", linewidth=2, label="accuracy"
        )
        right.set_ylim(0, 1.1)
        right.yaxis.set_major_formatter(_share)
        right.set_ylabel("accuracy")
        lines = [tokens_line, accuracy_line]
        axes.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        return file_of(drawn, form)


# ------------------------------------------------------------------------------------------------------------- parts


def _few_ticks():
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(3)


def _share(value: float, _: int) -> str:
    """A tick's label: as many decimals as it has, and nothing above all there is."""
    return f"{100 * value:g}%" if value <= 1 else ""


def token_axis(axes: Axes, label: str) -> None:
    """Tokens along the x axis, written out in full also where it is logarithmic."""
    from matplotlib.ticker import LogLocator, NullLocator

    if axes.get_xscale() == "log":
        low, high = axes.get_xlim()
        # Few decades need labels between the powers of ten, many leave no room for them.
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel(label)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), CORNERS)).round().astype(int))
    return x[kept], y[kept]


def _arms(value: float, interval: Sequence[float] | None) -> list[list[float]] | None:
    """An interval as lengths of the two arms of a cross."""
    return None if interval is None else [[max(value - interval[0], 0)], [max(interval[1] - value, 0)]]


def label_points(
    drawn: Figure, axes: Axes, labels: Sequence[tuple[float, float, str, str, str]], lines: Sequence[Line]
) -> None:
    """Writes names beside points, at the nearest place where they cover nothing.

    Args:
        drawn: the figure, complete but for the names.
        axes: its axes.
        labels: x, y, name, colour and weight of every point.
        lines: upright and level lines that names should not cover either.
    """
    from matplotlib.transforms import Bbox

    drawn.draw_without_rendering()
    drawn.set_layout_engine("none")  # the layout is made, and names do not change it
    renderer, scale = drawn.canvas.get_renderer(), drawn.dpi / 72  # scale: pixels of a typographic point
    frame = axes.get_window_extent(renderer)
    spots = [axes.transData.transform((x, y)) for x, y, *_ in labels]
    taken = [Bbox.from_bounds(x - 5 * scale, y - 5 * scale, 10 * scale, 10 * scale) for x, y in spots]
    taken += [Bbox(axes.transData.transform(line)).padded(2 * scale) for line in lines]
    directions = [(1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0)]
    places = [(distance, *direction) for distance in (6, 14, 24, 36) for direction in directions]
    for (x, y, name, colour, weight), spot in zip(labels, spots, strict=True):
        text = axes.text(0, 0, name, fontsize=9, color=colour, weight=weight, in_layout=False)
        size = text.get_window_extent(renderer)
        text.remove()

        def box(distance: float, across: int, up: int, spot=spot, size=size) -> Bbox:
            left = spot[0] + across * distance * scale + (across - 1) / 2 * size.width
            bottom = spot[1] + up * distance * scale + (up - 1) / 2 * size.height
            return Bbox.from_bounds(left, bottom, size.width, size.height)

        def covered(place: tuple[float, int, int], box=box) -> float:
            """Square pixels of names and points that a name there would cover, and of itself outside of the axes."""
            own = box(*place)
            inside = Bbox.intersection(own, frame)
            outside = _area(own) - _area(inside)
            return outside + sum(_area(Bbox.intersection(own, other)) for other in taken)

        best = min(places, key=covered)
        taken.append(box(*best))
        distance, across, up = best
        axes.annotate(
            name,
            (x, y),
            (distance * across, distance * up),
            textcoords="offset points",
            ha={1: "left", 0: "center", -1: "right"}[across],
            va={1: "bottom", 0: "center", -1: "top"}[up],
            color=colour,
            weight=weight,
            fontsize=9,
            in_layout=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6} if distance > 10 else None,
        )


def _area(box: Bbox | None) -> float:
    return 0.0 if box is None else box.width * box.height
