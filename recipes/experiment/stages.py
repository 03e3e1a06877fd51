"""Runs `drp` commands, each in a process of its own, with its settings in a file beside what it makes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from drp_hf.errors import DRPError

PYTHON = (sys.executable, "-m")


def run_stage(stage: str, settings: Mapping[str, Any], config: Path, launcher: Sequence[str] = PYTHON) -> None:
    """Runs `drp <stage> --config <config>`.

    Args:
        stage: the command, of one or two words.
        settings: what the config file is to hold.
        config: the file, which is written.
        launcher: what runs a module: Python, or `accelerate launch` with its flags.

    Raises:
        DRPError: the command has failed; its own message tells why.
        SystemExit: SIGTERM came, which has ended the command, too.
    """
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
    Console(stderr=True).rule(f"drp {stage} --config {config}")
    status = _run([*launcher, "drp_hf.cli", *stage.split(), "--config", str(config)])
    if status == 130:
        raise KeyboardInterrupt
    if status:
        raise DRPError(f"drp {stage} --config {config} ended with status {status}: its message stands above.")


def _run(command: Sequence[str]) -> int:
    """The status that a process ends with; SIGTERM or SIGINT, sent to this one alone, ends both."""
    process = None
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        if process:
            process.terminate()

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with subprocess.Popen(command) as process:
            try:
                if stopped:  # before the process was known
                    process.terminate()
                status = process.wait()
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if stopped:
        raise SystemExit(128 + signal.SIGTERM)
    return status


def read_settings(file: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        DRPError: there is no such file, or it holds something else.
    """
    if not file.is_file():
        raise DRPError(f"There is no {file}: give a folder that has the settings of every stage.")
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DRPError(f"{file} is not YAML ({' '.join(str(error).split())}): correct it.") from error
    if not isinstance(settings, dict):
        raise DRPError(f"{file} holds no settings: write lines like `name: value`.")
    return settings


def training_figures(student: Path) -> dict[str, float]:
    """What a training took: `steps`, `tokens` (prompts included) and `seconds`.

    One that was resumed logs its tokens from 0 again, and the time of its last run alone: the runs before count as far
    as they were logged by their last checkpoint, and are taken to have been as fast.
    """
    state = json.loads((student / "trainer_state.json").read_text(encoding="utf-8"))
    log = state["log_history"]
    counts = [entry["num_tokens"] for entry in log if "num_tokens" in entry]
    [*_, seconds] = (entry["train_runtime"] for entry in log if "train_runtime" in entry)
    before = sum(count for count, following in pairwise(counts) if following < count)
    tokens = before + counts[-1]
    return {"steps": state["global_step"], "tokens": tokens, "seconds": round(seconds * tokens / counts[-1], 1)}
