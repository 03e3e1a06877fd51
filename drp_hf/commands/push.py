"""`drp push corpus|student|metric …`: launches the publishing of one kind of thing, and nothing else."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drp_hf.hub.publication import Published

KINDS = {
    "corpus": "a pruned corpus, as a data set",
    "student": "a trained model",
    "metric": "the token_efficiency metric, as a Space",
}


def cli() -> None:
    """Entry point of `drp push`."""
    kind = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if kind in ("-h", "--help"):
        print("usage: drp push <kind> [options]   (drp push <kind> --help shows a kind's options)\n")
        for name, what in KINDS.items():
            print(f"  {name:<12} {what}")
        return
    if kind not in KINDS:
        print(f"error: nothing to push is called {kind!r}; choose one of {', '.join(KINDS)}.", file=sys.stderr)
        raise SystemExit(2)
    sys.argv = [f"{sys.argv[0]} {kind}", *sys.argv[2:]]
    import_module(f"drp_hf.commands.push_{kind}").cli()


def tell(published: Published) -> Published:
    """Prints where a publication is; nothing after a dry run, which has shown it.

    Returns:
        The same.
    """
    from rich.console import Console

    if published.commit is not None:
        Console(soft_wrap=True).print(f"{'published' if published.changed else 'unchanged'}: {published.url}")
    return published
