"""Prints how much the losses of a training depend on how its batches are cut.

    python benchmarks/trainer_invariance.py [--hidden-size 128] [--layers 4]

Eight rows a step as 8 x 1, 4 x 2, 2 x 4 and 1 x 8 (rows at once x accumulated), and as 4 x 1 in two processes; rows of
very different lengths, steps of different weights, float32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset, disable_progress_bars
from rich.console import Console
from transformers.trainer_callback import PrinterCallback

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.trainer_corpus import ACTION_WEIGHTS, Line, print_table, small_llama, small_tokenizer, uneven_rows
from drp_hf.drp_config import DRPConfig
from drp_hf.drp_trainer import DRPTrainer

BOUND = 1e-5
STEPS = 20
CUTS = ((8, 1), (4, 2), (2, 4), (1, 8))


def train(batch: int, accumulation: int, hidden_size: int, layers: int, **settings) -> list[float]:
    """Trains on the processors.

    Args:
        batch: rows at once, in every process.
        accumulation: batches to a step.
        hidden_size: of the model.
        layers: of the model.
        **settings: further ones of `DRPConfig`.

    Returns:
        The loss of every step.
    """
    tokenizer = small_tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        config = DRPConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            train_sampling_strategy="sequential",
            max_steps=STEPS,
            max_length=None,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **{"action_weights": ACTION_WEIGHTS, **settings},
        )
        trainer = DRPTrainer(
            model=small_llama(tokenizer, hidden_size, layers),
            args=config,
            train_dataset=Dataset.from_list(uneven_rows(8 * STEPS)),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.accelerator.wait_for_everyone()  # see drp_hf.commands.training.train_and_save
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def train_in_processes(processes: int, hidden_size: int, layers: int) -> list[float]:
    """Trains like `train`, on 8 rows a step, in that many processes, which exchange gradients by gloo."""
    with tempfile.TemporaryDirectory() as folder:
        losses = Path(folder, "losses.json")
        # Not `accelerate launch --cpu --num_processes`, which starts one process where there is no MPI.
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
        sizes = ["--hidden-size", hidden_size, "--layers", layers]
        command = [*launch, __file__, *sizes, "--losses", losses]
        done = subprocess.run(
            [str(part) for part in command],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return json.loads(losses.read_text())


def distance(losses: Sequence[float], expected: Sequence[float]) -> float:
    """The largest relative difference of two trajectories of the same length."""
    return max(abs(one - other) / abs(other) for one, other in zip(losses, expected, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--losses", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    disable_progress_bars()
    sizes = (args.hidden_size, args.layers)
    if args.losses:  # one of the processes that train_in_processes starts
        losses = train(8 // int(os.environ["WORLD_SIZE"]), 1, *sizes, ddp_backend="gloo")
        if os.environ["RANK"] == "0":
            args.losses.write_text(json.dumps(losses))
        return
    with Console().status("training"):
        expected, *others = [train(*cut, *sizes) for cut in CUTS]
        others.append(train_in_processes(2, *sizes))
    names = [f"{batch} x {accumulation}" for batch, accumulation in CUTS[1:]] + ["4 x 1 in 2 processes"]
    lines = []
    for name, losses in zip(names, others, strict=True):
        found = distance(losses, expected)
        what = f"losses of {STEPS} steps, {name} against 8 x 1, relative"
        lines.append(Line(what, f"{found:.1e}", f"≤ {BOUND:.0e}", found <= BOUND))
    print_table("How a batch is cut", lines)


if __name__ == "__main__":
    main()
