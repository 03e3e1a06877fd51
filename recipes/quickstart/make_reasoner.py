"""Makes the quickstart's reasoner: SmolLM2-135M-Instruct, taught by LoRA to reason in many words and end right.

    python recipes/quickstart/make_reasoner.py --output-dir runs/reasoner

Two parts in one pass over the data: sheets of plain arithmetic, then verbose traces of word problems from the train
split of `drp_hf.problems`. About an hour on 2 CPU cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from drp_hf.commands.parsing import parse_and_run
from drp_hf.embedded import EMBEDDED, resolve
from drp_hf.problems import generate
from drp_hf.provenance import write_run_info
from drp_hf.verbose_traces import inverse, verbose_trace

DRILL_SEED, TRACE_SEED = 100, 0


@dataclass
class ReasonerConfig:
    """Settings of the reasoner's training.

    Args:
        output_dir (`str`, *optional*, defaults to `"runs/reasoner"`): where checkpoints and the adapter go.
        sheets (`int`, *optional*, defaults to `240`): arithmetic sheets of 24 equations, seen first.
        traces (`int`, *optional*, defaults to `1340`): verbose traces, seen after them.
        rank (`int`, *optional*, defaults to `16`): LoRA rank on all linear layers; 16 makes an adapter of 9.8 MB.
        learning_rate (`float`, *optional*, defaults to `1e-3`): peak learning rate, decayed linearly to 0.
        batch_size (`int`, *optional*, defaults to `4`): rows a step.
        seed (`int`, *optional*, defaults to `0`): seed of the training.
    """

    output_dir: str = field(default="runs/reasoner", metadata={"help": "Where checkpoints and the adapter go."})
    sheets: int = field(default=240, metadata={"help": "Arithmetic sheets of 24 equations, seen first."})
    traces: int = field(default=1340, metadata={"help": "Verbose traces, seen after them."})
    rank: int = field(default=16, metadata={"help": "LoRA rank on all linear layers."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate, decayed linearly to 0."})
    batch_size: int = field(default=4, metadata={"help": "Rows a step."})
    seed: int = field(default=0, metadata={"help": "Seed of the training."})


def conversation(question: str, answer: str) -> dict[str, list[dict[str, str]]]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def arithmetic_sheets(count: int) -> Iterator[dict[str, list[dict[str, str]]]]:
    """Equations as they occur in the word problems, and their inverses, 24 to a sheet."""
    random = Random(DRILL_SEED)
    computations = {step for problem in generate(12 * count, seed=DRILL_SEED) for step in problem.computations}
    equations = sorted({equation for step in computations for equation in (step.equation, inverse(step))})
    for _ in range(count):
        yield conversation("Write down some arithmetic.", "\n".join(random.sample(equations, 24)))


def main(config: ReasonerConfig) -> None:
    rows = list(arithmetic_sheets(config.sheets))
    for problem in generate(config.traces, seed=TRACE_SEED):
        trace = verbose_trace(problem)
        rows.append(conversation(trace.question, trace.output))
    base = resolve(EMBEDDED)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(base),
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(r=config.rank, lora_alpha=2 * config.rank, target_modules="all-linear"),
        args=SFTConfig(
            output_dir=config.output_dir,
            num_train_epochs=1,
            per_device_train_batch_size=config.batch_size,
            train_sampling_strategy="sequential",
            learning_rate=config.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=20,
            max_length=1024,
            bf16=False,
            logging_steps=10,
            save_steps=100,
            save_only_model=True,
            report_to="none",
            seed=config.seed,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
        ),
    )
    trainer.train()
    adapter = trainer.model.to(torch.bfloat16)
    # The name every command resolves, instead of the path of this machine's cache.
    adapter.peft_config["default"].base_model_name_or_path = EMBEDDED
    adapter.save_pretrained(config.output_dir)
    write_run_info(config.output_dir, "make_reasoner", config)


if __name__ == "__main__":
    parse_and_run(main, ReasonerConfig)
