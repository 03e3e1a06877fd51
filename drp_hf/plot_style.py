"""How plots look: colours that can be told apart by anybody, on light and dark paper, as PNG or SVG."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from drp_hf.records import Action

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Theme = Literal["light", "dark"]
Form = Literal["png", "svg"]

INK = {"light": "#1f2530", "dark": "#e4e8ee"}
SOFT = {"light": "#566072", "dark": "#a3adbb"}
PAPER = {"light": "#ffffff", "dark": "#171c24"}
FAINT = {"light": "#d5dae2", "dark": "#37404d"}
BEFORE = {"light": "#717c8f", "dark": "#8f9bae"}
AFTER = {"light": "#0b6bcb", "dark": "#58a6ff"}
ACTIONS = {
    Action.KEEP: {"light": "#1a7f4b", "dark": "#4cc38a"},
    Action.COMPRESS: {"light": "#b26a00", "dark": "#f0b04a"},
    Action.MERGE: {"light": "#7a4bc2", "dark": "#b794f6"},
    Action.DELETE: {"light": "#e3a5a0", "dark": "#7d3b3a"},
}
"""In the order of the bars: what stays, what is rewritten, what goes."""
HATCHES = {Action.KEEP: "", Action.COMPRESS: "..", Action.MERGE: "xx", Action.DELETE: "//"}
WIDTH = 5.4
"""Inches of every plot: two of them fit side by side on a page, and one on a phone."""


@dataclass(frozen=True)
class RunStyle:
    """How one run is drawn in every plot: by colour, line and marker, so that no one of them is needed."""

    colour: dict[Theme, str]
    line: Any
    marker: str


_COLOURS = (
    AFTER,
    {"light": "#b26a00", "dark": "#f0b04a"},
    {"light": "#7a4bc2", "dark": "#b794f6"},
    {"light": "#1a7f4b", "dark": "#4cc38a"},
    {"light": "#b83273", "dark": "#f28ab8"},
)
_LINES = ("solid", "dashdot", (0, (1, 1)), (0, (8, 2)))
_MARKERS = "s^Dv*Xph<>"


def run_style(number: int) -> RunStyle:
    """The style of a run: 0 is the baseline."""
    if number == 0:
        return RunStyle(BEFORE, "dashed", "o")
    place = number - 1
    return RunStyle(_COLOURS[place % len(_COLOURS)], _LINES[place % len(_LINES)], _MARKERS[place % len(_MARKERS)])


@contextmanager
def figure(theme: Theme, height: float) -> Iterator[Figure]:
    """A figure `WIDTH` inches wide, on no screen and in no global state but the style of this block."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style = {
        "text.color": INK[theme],
        "axes.facecolor": PAPER[theme],
        "axes.labelcolor": INK[theme],
        "axes.edgecolor": FAINT[theme],
        "grid.color": FAINT[theme],
        "grid.linewidth": 0.8,
        "xtick.color": INK[theme],
        "ytick.color": INK[theme],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.axisbelow": True,
        "font.size": 10.5,
        "hatch.linewidth": 0.7,
        "legend.frameon": False,
        # Text of an SVG stays text, and the same data give the same bytes.
        "svg.fonttype": "none",
        "svg.hashsalt": "drp_hf",
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # A model's name may have characters that the plot's font lacks; its table shows them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        drawn = Figure(figsize=(WIDTH, height), facecolor=PAPER[theme], layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn


def file_of(drawn: Figure, form: Form) -> bytes:
    """The figure as a file, without the date or the library's version in it."""
    unwanted = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    with BytesIO() as stream:
        drawn.savefig(stream, format=form, dpi=180, metadata=unwanted[form])
        return stream.getvalue()


def short(text: str, most: int = 32) -> str:
    """Somebody's words as a label.

    Matplotlib would read dollar signs as mathematics, and neither it nor an SVG can hold half a surrogate pair or
    control characters.
    """
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = " ".join(text.split()) or "(none)"
    if len(text) > most:
        # Names of models often begin and end alike: some of both ends is kept.
        tail = most // 3
        text = f"{text[: most - tail - 1]}…{text[-tail:]}"
    return text.replace("$", r"\$")
