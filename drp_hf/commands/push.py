"""`drp push corpus|student|metric …`: launches the publishing of one kind of thing, and nothing else."""

from __future__ import annotations

import sys
from importlib import import_module

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


if __name__ == "__main__":
    cli()
