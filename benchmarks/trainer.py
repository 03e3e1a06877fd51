"""Prints what `DRPTrainer` costs over `SFTTrainer`: time and memory of a step, and the preparation of the data.

    python benchmarks/trainer.py [--pairs 24] [--rows 3000]

Both train SmolLM2-135M on the same batches: `SFTTrainer` gets the token ids and labels that `DRPTrainer` prepared.
They run in turns, A B B A …, a few steps each; a ratio is that of the same step of neighbouring runs, and the first
step of a run does not count. Peak memory is the resident size of a process that trains a few steps, or, on a GPU, what
torch allocated there. The preparation is timed as the whole construction of a trainer with a small model, without the
caches of `datasets`.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets
import torch
from rich.console import Console
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import SFTConfig, SFTTrainer

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.trainer_corpus import ACTION_WEIGHTS, Line, print_table, sample_rows, small_llama
from drp_hf.drp_config import DRPConfig
from drp_hf.drp_trainer import DRPTrainer
from drp_hf.models import load_model_and_tokenizer, load_tokenizer

MODEL = "smollm2-embedded"
ON_GPU = torch.cuda.is_available()
BATCH = 32 if ON_GPU else 2
MOST_TIME, MOST_MEMORY, LEAST_RATE = 1.02, 1.02, 0.8
STEPS = 5
"""Steps of a run, the first of which does not count."""
RUNS = 3
"""Runs of each trainer that measure memory, and that prepare data."""


class StepTimer(TrainerCallback):
    """Seconds from the end of a step to the end of the next one, so that making the batch counts too."""

    def __init__(self):
        self.ends = []

    def on_step_end(self, args, state, control, **kwargs):
        if ON_GPU:
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        return [end - start for start, end in zip(self.ends, self.ends[1:], strict=False)]


def make_trainer(weighted: bool, data: datasets.Dataset, folder: Path, steps: int = STEPS) -> SFTTrainer:
    """A trainer of SmolLM2-135M: `DRPTrainer` with weights, or `SFTTrainer`."""
    settings = {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "max_steps": steps,
        "train_sampling_strategy": "sequential",
        "bf16": ON_GPU,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }
    config = (
        DRPConfig(action_weights=ACTION_WEIGHTS, **settings) if weighted else SFTConfig(use_cpu=not ON_GPU, **settings)
    )
    model, tokenizer = load_model_and_tokenizer(MODEL, dtype=torch.float32)
    trainer = (DRPTrainer if weighted else SFTTrainer)(
        model=model, args=config, train_dataset=data, processing_class=tokenizer
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def run(weighted: bool, data: datasets.Dataset, folder: Path, steps: int = STEPS) -> tuple[list[float], int, int]:
    """Trains; returns the seconds of each step but the first, tokens seen, and peak bytes on the GPU (or 0)."""
    gc.collect()  # what a trainer before held
    trainer = make_trainer(weighted, data, folder, steps)
    timer = StepTimer()
    trainer.add_callback(timer)
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    peak = torch.cuda.max_memory_allocated() if ON_GPU else 0
    tokens = next(entry["num_tokens"] for entry in reversed(trainer.state.log_history) if "num_tokens" in entry)
    return timer.seconds, tokens, peak


def compare_steps(raw: datasets.Dataset, prepared: datasets.Dataset, folder: Path, pairs: int) -> list[Line]:
    """Time of a step, and on a GPU its memory."""
    seconds, peaks, seen = {True: [], False: []}, {True: [], False: []}, set()
    rounds = -(-pairs // (STEPS - 1))
    order = [weighted for i in range(rounds) for weighted in ((True, False) if i % 2 == 0 else (False, True))]
    for weighted in order:
        times, tokens, peak = run(weighted, raw if weighted else prepared, folder)
        seconds[weighted] += times
        peaks[weighted].append(peak)
        seen.add(tokens)
    if len(seen) != 1:
        raise RuntimeError(f"The trainers did not see the same batches: {seen} tokens.")
    ratios = sorted(drp / sft for drp, sft in zip(seconds[True], seconds[False], strict=True))
    ratio, (low, _, high) = statistics.median(ratios), statistics.quantiles(ratios, n=4)
    what = (
        f"seconds a step over SFTTrainer's, median of {len(ratios)} pairs ({statistics.median(seconds[False]):.2f} s)"
    )
    lines = [Line(what, f"{ratio:.3f} (middle half {low:.3f} to {high:.3f})", f"≤ {MOST_TIME}", ratio <= MOST_TIME)]
    if ON_GPU:
        lines.append(memory_line(peaks[True], peaks[False]))
    return lines


def memory_line(weighted: list[int], plain: list[int]) -> Line:
    """Peak memory in bytes of some runs of each trainer."""
    drp, sft = statistics.median(weighted), statistics.median(plain)
    what = f"peak memory over SFTTrainer's, medians of {len(plain)} runs each ({sft / 2**20:,.0f} MiB)"
    return Line(what, f"{drp / sft:.3f}", f"≤ {MOST_MEMORY}", drp / sft <= MOST_MEMORY)


def compare_memory(data: dict[bool, Path], folder: Path) -> Line:
    """Peak resident size of processes that train, in turns."""
    peaks = {True: [], False: []}
    for _ in range(RUNS):
        for weighted, path in data.items():
            command = [sys.executable, __file__, "--train", "drp" if weighted else "sft", "--data", str(path)]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise RuntimeError(f"{' '.join(command)} failed.")
            peaks[weighted].append(usage.ru_maxrss * 1024)
    return memory_line(peaks[True], peaks[False])


def compare_preparation(rows: int, folder: Path) -> Line:
    """Rows a second from conversations to what is trained."""
    datasets.disable_caching()
    datasets.Dataset.from_list(sample_rows(rows)).save_to_disk(folder / "rows")
    conversations = datasets.load_from_disk(folder / "rows")
    tokenizer = load_tokenizer(MODEL)
    model = small_llama(tokenizer, 32, 1)

    def prepare(weighted: bool, data: datasets.Dataset) -> float:
        settings = {"output_dir": str(folder / "model"), "report_to": "none", "bf16": False}
        if weighted:
            trainer, config = DRPTrainer, DRPConfig(action_weights=ACTION_WEIGHTS, **settings)
        else:
            trainer, config = SFTTrainer, SFTConfig(use_cpu=not ON_GPU, **settings)
            data = data.remove_columns("steps")
        start = time.perf_counter()
        trainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
        return time.perf_counter() - start

    seconds = {True: [], False: []}
    for weighted in (True, False):  # what is done only once
        prepare(weighted, conversations.select(range(10)))
    for i in range(RUNS):
        for weighted in (True, False) if i % 2 == 0 else (False, True):
            seconds[weighted].append(prepare(weighted, conversations))
    ratio = statistics.median(sft / drp for drp, sft in zip(seconds[True], seconds[False], strict=True))
    drp, sft = (rows / statistics.median(seconds[weighted]) for weighted in (True, False))
    what = (
        f"rows prepared a second over SFTTrainer's, {rows:,} rows, median of {RUNS} pairs ({drp:,.0f} over {sft:,.0f})"
    )
    return Line(what, f"{ratio:.2f}", f"≥ {LEAST_RATE}", ratio >= LEAST_RATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=24, help="pairs of steps")
    parser.add_argument("--rows", type=int, default=3000, help="rows to prepare")
    parser.add_argument("--train", choices=["drp", "sft"], help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    datasets.disable_progress_bars()
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.train:  # one of the processes of compare_memory
            # Nothing is allocated for the first time after the second step.
            run(args.train == "drp", datasets.load_from_disk(args.data), folder, steps=3)
            return
        console = Console()
        data = {True: folder / "raw", False: folder / "prepared"}
        datasets.Dataset.from_list(sample_rows(BATCH * STEPS)).save_to_disk(data[True])
        raw = datasets.load_from_disk(data[True])
        prepared = make_trainer(True, raw, folder).train_dataset.select_columns(["input_ids", "labels"])
        prepared.save_to_disk(data[False])
        with console.status("training in turns"):
            lines = compare_steps(raw, prepared, folder, args.pairs)
        if not ON_GPU:
            with console.status("training in processes of their own"):
                lines.append(compare_memory(data, folder))
        with console.status("preparing data"):
            lines.append(compare_preparation(args.rows, folder))
    print_table("DRPTrainer over SFTTrainer", lines)


if __name__ == "__main__":
    main()
