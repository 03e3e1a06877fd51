"""From the name on the command line to the command of that name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module


def launch(program: str, what: str, choices: Mapping[str, str], module: str) -> None:
    """Launches the command that the first argument names; without one, or for `--help`, shows what there is.

    Args:
        program: what stands before the name (`drp push`).
        what: what is chosen (`kind`).
        choices: a description by name.
        module: of each command, with `{}` for the name; its `cli` is called.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(f"usage: {program} <{what}> [options]   ({program} <{what}> --help shows a {what}'s options)\n")
        for choice, description in choices.items():
            print(f"  {choice:<12} {description}")
        return
    if name not in choices:
        print(f"error: no {what} {name!r} of {program}; choose one of {', '.join(choices)}.", file=sys.stderr)
        raise SystemExit(2)
    sys.argv = [f"{program} {name}", *sys.argv[2:]]
    import_module(module.format(name)).cli()
