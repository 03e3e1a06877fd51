"""What the loss sees of a row, token by token, in colours: for the terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from itertools import groupby

from rich.style import Style
from rich.table import Table
from rich.text import Text

from drp_hf.records import Action
from drp_hf.rendering import Region
from drp_hf.row_encoder import TokenView

COLOURS = {
    Action.KEEP: "green",
    Action.DELETE: "red",
    Action.COMPRESS: "yellow",
    Action.MERGE: "magenta",
    Region.PROMPT: "bright_black",
    Region.THINK_CLOSE: "cyan",
    Region.ANSWER: "blue",
    Region.STOP: "cyan",
    Region.OTHER: "white",
}


def to_text(view: Sequence[TokenView]) -> Text:
    """The tokens for the terminal.

    Every run of tokens of one kind and weight begins with both in brackets. Masked tokens are dim, every second token
    is underlined, and ↵ marks a line break.

    Args:
        view: the tokens of a row.
    """
    text = Text()
    number = 0
    for (kind, weight), run in groupby(view, key=lambda token: (token.span.kind, token.weight)):
        text.append(f"[{kind} {_weight(weight)}]", Style(color=COLOURS[kind], reverse=True))
        for token in run:
            style = Style(color=COLOURS[kind], dim=weight == 0, underline=number % 2 == 1)
            text.append(_visible(token.text), style)
            number += 1
    return text


def to_table(view: Sequence[TokenView], title: str) -> Table:
    """Tokens and share of the weight of every kind, for the terminal."""
    table = Table(title=title)
    table.add_column("tokens of")
    for name in ("tokens", "in the loss", "weight", "share"):
        table.add_column(name, justify="right")
    for kind, tokens, learnt, weight, share in kind_rows(view):
        table.add_row(Text(kind, COLOURS[kind]), f"{tokens:,}", f"{learnt:,}", f"{weight:.4g}", f"{share:.1%}")
    return table


def kind_rows(view: Sequence[TokenView]) -> list[tuple[Action | Region, int, int, float, float]]:
    """For every kind of span in the row: tokens, tokens with a weight, sum of the absolute weights, and its share."""
    total = sum(abs(token.weight) for token in view) or 1.0
    rows = []
    for kind in COLOURS:
        tokens = [token for token in view if token.span.kind == kind]
        weight = sum(abs(token.weight) for token in tokens)
        if tokens:
            rows.append((kind, len(tokens), sum(token.weight != 0 for token in tokens), weight, weight / total))
    return rows


def to_html(views: Sequence[tuple[str, Sequence[TokenView]]], settings: str) -> str:
    """A page with the tokens of several rows.

    Args:
        views: title and tokens of every row.
        settings: what decided the weights, in words.

    Returns:
        HTML that needs no other file; a token's skill and weight appear when it is pointed at.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"weight": _weight, "visible": _visible}
    source = resources.files("drp_hf").joinpath("assets/preview.html").read_text(encoding="utf-8")
    rows = [{"title": title, "view": view, "kinds": kind_rows(view)} for title, view in views]
    return environment.from_string(source).render(rows=rows, kinds=list(COLOURS), settings=settings)


def _weight(weight: float) -> str:
    return "masked" if weight == 0 else f"×{weight:.3g}"


def _visible(text: str) -> str:
    return text.replace("\n", "↵\n")
