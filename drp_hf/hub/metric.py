"""The metric as a Space that needs nothing of this package on the machine that loads it.

`evaluate.load("OWNER/token_efficiency")` downloads the metric's script, and of the modules beside it those that the
script itself imports; it does not look into these, and a machine that has never seen this package could not install it
by a name that the script asks for. So the modules of this package that the metric needs are published beside the
script, as they are but for their imports, and the script imports every one of them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import drp_hf
import drp_hf.metrics.token_efficiency as metric
from drp_hf.errors import DRPError
from drp_hf.hub.publication import Publication

NAME = "token_efficiency"
PUBLISHED_AS = f"drp_hf/{NAME}"
"""The repository that the card's and the script's examples load; any other takes its place when it is published."""
PREFIX = "drp_"
"""Of the modules beside the script: a `statistics.py` in the folder of a program hides Python's own."""

_IMPORT = re.compile(r"^( *)from drp_hf\.(\w+) import ", re.MULTILINE)
_MODULE_IMPORT = re.compile(r"^( *)from drp_hf import (\w+)$", re.MULTILINE)


def metric_publication(repo_id: str) -> Publication:
    """The Space: card, script, widget, what pip must install, and the modules.

    Args:
        repo_id: where it will be published (`owner/token_efficiency`).

    Raises:
        DRPError: `evaluate` could not load it from there.
    """
    owner, _, name = repo_id.rpartition("/")
    if not owner or name != NAME:
        raise DRPError(
            f"repo_id is {repo_id!r}: evaluate looks in a Space for the script of the same name, so call it "
            f"{owner or 'OWNER'}/{NAME}."
        )
    folder = Path(metric.__path__[0])
    script = (folder / f"{NAME}.py").read_text(encoding="utf-8")
    modules = dict(sorted(_needed(script).items()))
    texts = {
        "README.md": (folder / "README.md").read_text(encoding="utf-8").replace(PUBLISHED_AS, repo_id),
        f"{NAME}.py": _relative(script).replace(PUBLISHED_AS, repo_id) + _for_the_scanner(modules),
    }
    for module, source in modules.items():
        texts[f"{PREFIX}{module}.py"] = (
            f"# {module}.py of the package drp_hf, with relative imports.\n{_relative(source)}"
        )
    files = {file: text.encode() for file, text in texts.items()}
    files |= {file: folder / file for file in ("app.py", "requirements.txt")}
    return Publication("space", files, f"Metric {NAME} of drp_hf {drp_hf.__version__}")


def _needed(source: str) -> dict[str, str]:
    """The sources of all modules that a source imports, directly or not, by name."""
    found: dict[str, str] = {}
    waiting = list(_imported(source))
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = (Path(drp_hf.__path__[0]) / f"{module}.py").read_text(encoding="utf-8")
            waiting += _imported(found[module])
    return found


def _imported(source: str) -> Iterator[str]:
    """The modules of this package that a source imports, at its top or later."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "drp_hf":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("drp_hf."):
            yield node.module.removeprefix("drp_hf.")


def _relative(source: str) -> str:
    source = _IMPORT.sub(rf"\1from .{PREFIX}\2 import ", source)
    return _MODULE_IMPORT.sub(rf"\1from . import {PREFIX}\2 as \2", source)


def _for_the_scanner(modules: dict[str, str]) -> str:
    """Imports at the end of the script, from which `evaluate` learns what to download and what must be installed.

    Its scanner takes a comment on such a line for an address.
    """
    lines = ["", "# For `evaluate`: what to download with this file, and what must be installed."]
    lines += ["import math_verify as _"]
    lines += [f"from .{PREFIX}{module} import __name__ as _" for module in modules]
    return "\n".join(lines) + "\n"
