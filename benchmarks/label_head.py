"""Prints how much faster `drp sft` trains on a CPU for scoring labels alone, with TRL's own head beside it.

    python benchmarks/label_head.py [--pairs 24]

Both put a LoRA adapter on SmolLM2-135M and train it on the same batches of pruned traces, in turns, A B B A …, a few
steps each; a ratio is that of the same step of neighbouring runs, and the first step of a run does not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import datasets
from peft import LoraConfig
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.trainer import MODEL, STEPS, StepTimer
from benchmarks.trainer_corpus import Line, print_table
from drp_hf.drp_config import DRPConfig
from drp_hf.drp_trainer import DRPTrainer
from drp_hf.label_head import score_labels_only
from drp_hf.models import load_model_and_tokenizer
from drp_hf.problems import generate
from drp_hf.pruning import prune_trace
from drp_hf.teachers.slicing import SlicingTeacher
from drp_hf.verbose_traces import verbose_trace

ROWS = 4
"""Of a step, as in the quickstart."""


def rows() -> datasets.Dataset:
    """Pruned traces for the steps of a run."""
    pruned = (
        prune_trace(verbose_trace(problem), SlicingTeacher(), lambda text: len(text.split()))
        for problem in generate(ROWS * STEPS)
    )
    return datasets.Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": row.question}],
                "completion": [{"role": "assistant", "content": row.completion}],
            }
            for row in pruned
        ]
    )


def seconds(labels_only: bool, data: datasets.Dataset, folder: str) -> list[float]:
    """Seconds of the steps of a run."""
    model, tokenizer = load_model_and_tokenizer(MODEL, dtype="float32")
    settings = {"bf16": False, "gradient_checkpointing": False, "train_sampling_strategy": "sequential"}
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "logging_strategy": "no"}
    trainer = DRPTrainer(
        model=model,
        args=DRPConfig(
            output_dir=folder, per_device_train_batch_size=ROWS, max_steps=STEPS, use_cpu=True, **settings, **quiet
        ),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
    )
    if labels_only:
        score_labels_only(trainer.model)
    timer = StepTimer()
    trainer.add_callback(timer)
    trainer.train()
    return timer.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=24, help="pairs of steps")
    pairs = parser.parse_args().pairs
    datasets.disable_progress_bars()
    disable_progress_bar()
    data, found = rows(), {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder, Console().status("training in turns"):
        for turn in range(-(-pairs // (STEPS - 1))):
            for labels_only in (True, False) if turn % 2 == 0 else (False, True):
                found[labels_only] += seconds(labels_only, data, folder)
    ratios = [ours / theirs for ours, theirs in zip(found[True], found[False], strict=True)]
    ratio, (low, _, high) = statistics.median(ratios), statistics.quantiles(ratios, n=4)
    what = f"seconds of a step over those with TRL's head, median of {len(ratios)} pairs"
    print_table(
        "drp sft on a CPU", [Line(what, f"{ratio:.3f} (middle half {low:.3f} to {high:.3f})", "< 1", ratio < 1)]
    )


if __name__ == "__main__":
    main()
