"""Kills a training again and again and prints whether it ends with the weights of an undisturbed one.

    python benchmarks/trainer_resume.py [--hidden-size 128] [--layers 4]

Every training runs in a process of its own that kills itself (SIGKILL): at random steps, and in the middle of saving a
checkpoint. It is started again from the last complete checkpoint until it ends. Its weights must be equal to the last
bit, and its losses too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig
from rich.console import Console
from safetensors.torch import load_file
from tqdm import tqdm
from transformers import TrainerCallback

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.trainer_corpus import ACTION_WEIGHTS, Line, print_table, small_llama, small_tokenizer, uneven_rows
from drp_hf.commands.training import last_complete_checkpoint
from drp_hf.drp_config import DRPConfig
from drp_hf.drp_trainer import DRPTrainer


@dataclass
class Training:
    """A training that can be repeated to the last bit: AdamW, cosine with warm-up, float32.

    Args:
        settings: further ones of `DRPConfig`.
        lora: whether an adapter (with dropout) is trained, instead of all weights.
        streaming: whether the rows come as an `IterableDataset`, which is long enough for one pass.
        hidden_size: of the model.
        layers: of the model.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    lora: bool = True
    streaming: bool = False
    hidden_size: int = 32
    layers: int = 2

    STEPS = 24
    SAVE_STEPS = 3
    ROWS = 20  # two and a half epochs

    def run(self, folder: Path, kill_at: int | None = None, while_saving: str | None = None) -> None:
        """Trains from the last complete checkpoint in the folder, or from the start, and saves the model there.

        Args:
            folder: where checkpoints and the model go.
            kill_at: step after which the process kills itself.
            while_saving: instead of after the step, when the next checkpoint has got so far: `"model"` (only the
                model is written) or `"optimizer"` (model and optimizer are).
        """
        _silence(folder)
        torch.set_num_threads(1)
        rows = Dataset.from_list(uneven_rows((3 if self.streaming else 1) * self.ROWS, longest=8))
        config = DRPConfig(
            output_dir=str(folder),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=2,
            max_steps=self.STEPS,
            learning_rate=1e-2,
            lr_scheduler_type="cosine",
            warmup_steps=4,
            logging_steps=1,
            save_strategy="steps",
            save_steps=self.SAVE_STEPS,
            save_total_limit=3,
            disable_tqdm=True,
            report_to="none",
            **{"action_weights": ACTION_WEIGHTS, **self.settings},
        )
        lora = LoraConfig(r=4, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM")
        tokenizer = small_tokenizer()
        trainer = _Mortal(
            model=small_llama(tokenizer, self.hidden_size, self.layers),
            args=config,
            train_dataset=rows.to_iterable_dataset() if self.streaming else rows,
            processing_class=tokenizer,
            peft_config=lora if self.lora else None,
        )
        trainer.deadly_stage = (while_saving, kill_at)
        if kill_at is not None and while_saving is None:
            trainer.add_callback(_Kill(kill_at))
        checkpoint = last_complete_checkpoint(folder)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.save_model()
        trainer.save_state()


def _silence(folder: Path) -> None:
    """Sends what this process prints to a file."""
    folder.mkdir(exist_ok=True)
    with (folder / "messages.txt").open("a") as messages:
        os.dup2(messages.fileno(), 1)
        os.dup2(messages.fileno(), 2)
    disable_progress_bars()
    tqdm.set_lock(threading.RLock())  # its own lock is a semaphore that a killed process leaves behind


class _Kill(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class _Mortal(DRPTrainer):
    """A trainer that can die while it saves."""

    deadly_stage: tuple[str | None, int | None] = (None, None)

    def _die_in(self, stage: str) -> None:
        name, step = self.deadly_stage
        if name == stage and self.state.global_step >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        self._die_in("model")
        super()._save_optimizer_and_scheduler(output_dir)

    def _save_rng_state(self, output_dir: str) -> None:
        self._die_in("optimizer")
        super()._save_rng_state(output_dir)


def run_apart(training: Training, folder: Path, kill_at: int | None = None, while_saving: str | None = None) -> None:
    """Runs a training in a process of its own, with the arguments of `Training.run`.

    Raises:
        RuntimeError: it did not end as it should: by SIGKILL if `kill_at` is given, else well.
    """
    # Forked from a process that has imported everything and done nothing.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.trainer_resume"])
    process = context.Process(target=training.run, args=(folder, kill_at, while_saving))
    process.start()
    process.join()
    if process.exitcode != (0 if kill_at is None else -signal.SIGKILL):
        messages = (folder / "messages.txt").read_text()
        raise RuntimeError(f"The training (to be killed: {kill_at}) ended with {process.exitcode}: {messages}")


def survives(training: Training, folder: Path, kills: Sequence[tuple[int, str | None]]) -> bool:
    """Whether a training that is killed ends like an undisturbed one.

    Args:
        training: what to train.
        folder: for both.
        kills: step, and stage of saving or None, of every kill.
    """
    run_apart(training, folder / "undisturbed")
    for step, stage in kills:
        run_apart(training, folder / "killed", step, stage)
    run_apart(training, folder / "killed")
    return results(folder / "undisturbed") == results(folder / "killed")


def results(folder: Path) -> tuple[dict[str, bytes], list[float]]:
    """The weights of a finished training, as bytes, and its losses."""
    (file,) = folder.glob("*.safetensors")
    weights = {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return weights, [entry["loss"] for entry in history if "loss" in entry]


TRAININGS = {
    "LoRA": {},
    "LoRA, grouped by length": {"settings": {"train_sampling_strategy": "group_by_length"}},
    "LoRA, packing": {"settings": {"packing": True, "max_length": 512}},
    "LoRA, a stream of rows": {"streaming": True},
    "all weights": {"lora": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--only", choices=TRAININGS, nargs="+", default=list(TRAININGS), metavar="TRAINING")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    generator = random.Random(args.seed)
    lines = []
    for name in args.only:
        training = Training(**TRAININGS[name], hidden_size=args.hidden_size, layers=args.layers)
        at = sorted(generator.sample(range(training.SAVE_STEPS, training.STEPS - training.SAVE_STEPS), 3))
        kills = [(at[0], None), (at[1], None), (at[1], "model"), (at[2], "optimizer"), (at[2], None)]
        steps = ", ".join(f"{step}{' while saving' if stage else ''}" for step, stage in kills)
        with tempfile.TemporaryDirectory() as folder, Console().status(f"training and killing: {name}"):
            same = survives(training, Path(folder), kills)
        what = f"{name}: weights and losses, killed at steps {steps}"
        lines.append(Line(what, "identical" if same else "different", "identical", same))
    print_table("Kill and resume", lines)


if __name__ == "__main__":
    main()
