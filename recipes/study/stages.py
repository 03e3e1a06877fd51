"""Runs `drp` commands, each in a process of its own, with its settings in a file beside what it makes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from drp_hf.errors import DRPError
from recipes.study.arms import FOLDER


def run_stage(stage: str, recipe: str, output_dir: Path, **settings: Any) -> Path:
    """Runs `drp <stage>` with the settings of a recipe, some of them overridden.

    The settings stand in `<output_dir>.<stage>.yaml`, so that `drp <stage> --config` repeats it.

    Args:
        stage: the command.
        recipe: a YAML file of the study.
        output_dir: what the command makes.
        settings: over those of the recipe.

    Returns:
        `output_dir`.

    Raises:
        DRPError: the command has failed; its own message tells why.
    """
    config = output_dir.with_name(f"{output_dir.name}.{stage}.yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    values = {**read_recipe(recipe), **settings, "output_dir": str(output_dir)}
    config.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    Console(stderr=True).rule(f"drp {stage} --config {config}")
    status = subprocess.run([sys.executable, "-m", "drp_hf.cli", stage, "--config", str(config)]).returncode
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise DRPError(f"drp {stage} --config {config} ended with status {status}: its message stands above.")
    return output_dir


def read_recipe(name: str) -> Mapping[str, Any]:
    """The settings in a YAML file of the study."""
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
