"""The study's plots, from the results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from drp_hf.plot_style import INK, SOFT, figure, file_of, run_style
from drp_hf.plots import Point, draw_frontier, label_points, token_axis
from recipes.study.results import REASONER_ARM, TESTS, Comparison, Result, compare, reasoner_of

SHOWN = {"heldout": 0.1, "unseen": 0.3}
"""An arm that loses more is named at the lower edge: it would squeeze all others together.

On SVAMP the reasoner and all that comes of it are near 0.
"""


def pareto_plot(results: Mapping[str, Sequence[Result]]) -> bytes:
    """Accuracy gained over the tokens of an answer, on the held-out questions and on those of unseen families."""
    return _panels(results, lambda name, found: found.tokens, "mean tokens of an answer", of_tokens=True)


def learnability_plot(results: Mapping[str, Sequence[Result]]) -> bytes:
    """Accuracy gained, over how unlikely the reasoner found what was learnt."""
    nll = {name: of_arm[0].training["nll"] for name, of_arm in results.items() if of_arm[0].training}
    shown = {name: of_arm for name, of_arm in results.items() if name in nll or name == REASONER_ARM}
    label = "mean NLL of what is learnt under the reasoner, nats a token"
    return _panels(shown, lambda name, _: nll.get(name), label)


def _panels(
    results: Mapping[str, Sequence[Result]],
    across: Callable[[str, Comparison], float | None],
    label: str,
    of_tokens: bool = False,
) -> bytes:
    """A panel for each test, with the reasoner's accuracy as the line at 0; colours and markers by group.

    Args:
        results: by arm.
        across: from an arm's name and how it compares to its place on the x axis; an arm at None is left out.
        label: of the x axis, which is logarithmic.
        of_tokens: whether that is tokens; then the frontier is drawn.

    Returns:
        The PNG file.
    """
    reasoner = reasoner_of(results)
    with figure("light", 8 * len(SHOWN)) as drawn:
        every = drawn.subplots(len(SHOWN), sharex=True)
        named = []
        for axes, (test, far) in zip(every, SHOWN.items(), strict=True):
            found = {name: compare(of_arm, reasoner, test) for name, of_arm in results.items()}
            edge = 100 * min(each.gained_interval[0] for each in found.values() if each.gained > -far) - 2
            labels, lines = [], []
            named.append((labels, lines))
            for name, each in found.items():
                if (place := across(name, each)) is None:
                    continue
                style = run_style(0 if name == REASONER_ARM else int(name[0]))
                colour, height, text = style.colour["light"], 100 * each.gained, name
                if each.gained > -far:
                    ends = [[100 * abs(end - each.gained)] for end in each.gained_interval]
                    looks = {"color": colour, "marker": style.marker, "markersize": 7, "elinewidth": 0.8, "zorder": 3}
                    axes.errorbar(place, height, ends, **looks)
                    lines.append([(place, 100 * end) for end in each.gained_interval])
                else:
                    colour, height, text = SOFT["light"], edge, f"{name}: {height:+.0f}"
                    axes.plot(place, height, marker="$\\downarrow$", color=colour)
                labels.append((place, height, text, colour, "normal"))
            axes.axhline(0, color=INK["light"], linewidth=0.8, zorder=1)
            axes.set_title(TESTS[test], loc="left", fontsize=10.5)
            axes.set_ylabel("accuracy gained, points")
            axes.grid()
            axes.set_xscale("log")
            axes.margins(0.1)
            if of_tokens:
                lines += draw_frontier(axes, [Point(each.tokens, 100 * each.gained) for each in found.values()])
                token_axis(axes, "")
        every[-1].set_xlabel(label)
        for axes, (labels, lines) in zip(every, named, strict=True):
            label_points(drawn, axes, labels, lines)
        return file_of(drawn, "png")
