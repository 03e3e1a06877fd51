"""How a corpus was made, as far as its `run.json` tells: what a reader may know, and needs to make it again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from drp_hf.errors import DRPError
from drp_hf.provenance import RUN

DECIDES_NOTHING = (
    *("base_url", "dry_run", "concurrency", "requests_per_minute", "tokens_per_minute", "max_attempts", "timeout"),
    *("poll_seconds", "price_input", "price_output"),
)
"""Settings of `drp prune` that do not change the corpus; they stay out of its card."""


@dataclass(frozen=True)
class Origin:
    """What made a corpus; empty where it is not recorded.

    Args:
        config: the settings of `drp prune` that decide a corpus.
        versions: of Python and of packages, by name.
        inputs: fingerprints of what was read, by path.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)

    def to_yaml(self) -> str:
        """The settings as a file for `drp prune --config`."""
        return yaml.safe_dump(dict(self.config), sort_keys=False, allow_unicode=True, width=119).strip()

    def to_json(self) -> bytes:
        """The content of a `run.json` that says this and no more."""
        return (json.dumps({"stage": "prune", **asdict(self)}, indent=2, ensure_ascii=False) + "\n").encode()


def read_origin(folder: Path) -> Origin:
    """Reads the `run.json` of a corpus folder; no path of this or any other machine is left in it.

    Raises:
        DRPError: the file is not what `drp prune` writes.
    """
    file = folder / RUN
    if not file.is_file():
        return Origin()
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
        config = {name: value for name, value in run["config"].items() if name not in DECIDES_NOTHING}
        return Origin(
            {name: public_path(value) for name, value in config.items() if value is not None},
            run["versions"],
            {public_path(path): digest for path, digest in run["inputs"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DRPError(
            f"{file} is not what drp prune writes ({type(error).__name__}: {error}): remove or replace it."
        ) from error


def public_path(value: Any) -> Any:
    """A path without the folders that are nobody else's business; any other setting as it is.

    Below the working folder a path is made relative to it, else below the home folder to that; of any other absolute
    path, and of one that climbs (`../…`), only the name is left.
    """
    if not isinstance(value, str) or not (value.startswith(("/", "~")) or ".." in Path(value).parts):
        return value
    path = Path(os.path.abspath(Path(value).expanduser()))
    for known in (Path.cwd(), Path.home()):
        if path.is_relative_to(known):
            return path.relative_to(known).as_posix()
    return path.name or value
