"""The study's plots, from the results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from drp_hf.plot_style import INK, SOFT, figure, file_of, run_style
from drp_hf.plots import label_points
from recipes.study.results import REASONER_ARM, TESTS, Comparison, Result, compare, reasoner_of

SHOWN = ("heldout", "unseen")
"""On SVAMP the reasoner and all that comes of it are near 0."""
FAR = 0.3
"""An arm that loses more is named at the lower edge: it would squeeze all others together."""


def pareto_plot(results: Mapping[str, Sequence[Result]]) -> bytes:
    """Accuracy gained over the tokens of an answer, on the held-out questions and on those of unseen families."""
    return _panels(results, lambda name, found: found.tokens, "mean tokens of an answer")


def learnability_plot(results: Mapping[str, Sequence[Result]]) -> bytes:
    """Accuracy gained, over how unlikely the reasoner found what was learnt."""
    nll = {name: of_arm[0].training["nll"] for name, of_arm in results.items() if of_arm[0].training}
    shown = {name: of_arm for name, of_arm in results.items() if name in nll or name == REASONER_ARM}
    label = "mean NLL of what is learnt under the reasoner, nats a token"
    return _panels(shown, lambda name, _: nll.get(name), label, logarithmic=True)


def _panels(
    results: Mapping[str, Sequence[Result]],
    across: Callable[[str, Comparison], float | None],
    label: str,
    logarithmic: bool = False,
) -> bytes:
    """A panel for each test, with the reasoner's accuracy as the line at 0; colours and markers by group.

    Args:
        results: by arm.
        across: from an arm's name and how it compares to its place on the x axis; an arm at None is left out.
        label: of the x axis.
        logarithmic: the x axis.

    Returns:
        The PNG file.
    """
    reasoner = reasoner_of(results)
    with figure("light", 8 * len(SHOWN)) as drawn:
        every = drawn.subplots(len(SHOWN), sharex=True)
        labels = []
        for axes, test in zip(every, SHOWN, strict=True):
            found = {name: compare(of_arm, reasoner, test) for name, of_arm in results.items()}
            edge = 100 * min(each.gained_interval[0] for each in found.values() if each.gained > -FAR) - 2
            labels.append([])
            for name, each in found.items():
                if (place := across(name, each)) is None:
                    continue
                style = run_style(0 if name == REASONER_ARM else int(name[0]))
                colour, height, text = style.colour["light"], 100 * each.gained, name
                if each.gained > -FAR:
                    ends = [[100 * abs(end - each.gained)] for end in each.gained_interval]
                    looks = {"color": colour, "marker": style.marker, "markersize": 7, "elinewidth": 0.8, "zorder": 3}
                    axes.errorbar(place, height, ends, **looks)
                else:
                    colour, height, text = SOFT["light"], edge, f"{name}: {height:+.0f}"
                    axes.plot(place, height, marker="$\\downarrow$", color=colour)
                labels[-1].append((place, height, text, colour, "normal"))
            axes.axhline(0, color=INK["light"], linewidth=0.8, zorder=1)
            axes.set_title(TESTS[test], loc="left", fontsize=10.5)
            axes.set_ylabel("accuracy gained, points")
            axes.grid()
        if logarithmic:
            every[-1].set_xscale("log")
        every[-1].set_xlabel(label)
        for axes, named in zip(every, labels, strict=True):
            label_points(drawn, axes, named, ())
        return file_of(drawn, "png")
