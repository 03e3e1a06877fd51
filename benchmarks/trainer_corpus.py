"""What the trainer's benchmarks share: rows, a small model, and one table of what was measured."""

from __future__ import annotations

import random
from itertools import cycle, islice
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import drp_hf  # noqa: F401  (registers the data set)
from drp_hf.records import final_response, render_output

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

ACTION_WEIGHTS = {"KEEP": 0.5, "COMPRESS": 2.5, "MERGE": 0.0}
"""Different numbers, so that no short cut for equal ones is taken."""


class Line(NamedTuple):
    """One line of the table.

    Args:
        what: what was measured.
        measured: the value, for people.
        bound: what it must be.
        met: whether it is.
    """

    what: str
    measured: str
    bound: str
    met: bool


def sample_rows(count: int) -> list[dict[str, Any]]:
    """Rows of the packaged sample, again and again with other numbers.

    Digits are exchanged one for one, so that the steps' characters stay where they are.
    """
    from datasets import load_dataset

    sample = load_dataset("drp_hf/gsm8k_pruned", "sample", split="train").to_list()
    generator = random.Random(0)
    rows = []
    for row in islice(cycle(sample), count):
        digits = str.maketrans("123456789", "".join(generator.sample("123456789", 9)))
        prompt, completion = (
            [{**message, "content": message["content"].translate(digits)} for message in row[part]]
            for part in ("prompt", "completion")
        )
        rows.append({"prompt": prompt, "completion": completion, "steps": row["steps"]})
    return rows


def uneven_rows(count: int, longest: int = 16) -> list[dict[str, Any]]:
    """Rows of one step to `longest`, in no order, so that a mean of means is far from a mean over all tokens."""
    generator = random.Random(0)
    rows = []
    for number in range(count):
        length = generator.choice((1, 1, 2, longest // 2, longest))
        sentences = [f" {i} and {number} are {i + number}." for i in range(length)]
        content = render_output("".join(sentences), final_response(str(number)))
        steps, start = [], content.index(sentences[0])
        for sentence in sentences:
            action = generator.choice(list(ACTION_WEIGHTS))
            steps.append({"start": start, "end": start + len(sentence), "skill": "adding", "action": action})
            start += len(sentence)
        prompt = [{"role": "user", "content": f"Count up to {number}."}]
        rows.append({"prompt": prompt, "completion": [{"role": "assistant", "content": content}], "steps": steps})
    return rows


def small_tokenizer() -> PreTrainedTokenizerFast:
    """A token a byte, with ChatML. So few tokens that a small model spends its time on other things than logits."""
    stop, pad = "<|im_end|>", "<|pad|>"
    vocabulary = {token: i for i, token in enumerate([*sorted(ByteLevel.alphabet()), "<|im_start|>", stop, pad])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    special = {"eos_token": stop, "pad_token": pad, "additional_special_tokens": ["<|im_start|>"]}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=CHATML, **special)


def small_llama(tokenizer: PreTrainedTokenizerFast, hidden_size: int, layers: int) -> LlamaForCausalLM:
    """A float32 Llama for a tokenizer, with random weights, always the same ones."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).float()


def print_table(title: str, lines: list[Line]) -> None:
    """Prints the lines.

    Raises:
        SystemExit: a bound is not met.
    """
    table = Table("what", "measured", "bound", "met", title=title)
    for what, measured, bound, met in lines:
        table.add_row(what, measured, bound, "yes" if met else "NO")
    Console().print(table)
    if not all(line.met for line in lines):
        raise SystemExit(1)
