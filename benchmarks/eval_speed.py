"""Prints how long the metric takes for 100,000 predictions, all figures included, over math-verify's own loop.

    python benchmarks/eval_speed.py [--predictions 100000] [--loop 2000]

The loop is `verify(parse(gold), parse(prediction))` as math-verify's documentation shows it: verdicts, nothing else.
It is timed on a random sample of the same predictions, half of it before the metric and half after, and scaled. Exits
with 1 if the metric is not 5 times as fast.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence

import evaluate
from math_verify import parse, verify
from rich.console import Console
from rich.table import Table

import drp_hf.metrics.token_efficiency
from drp_hf.problems import WordProblem, generate

WANTED = 5.0
LEADS = ("First, ", "Then ", "So ", "Next, ", "Now ", "That means ")
ENDINGS = (
    "The answer is {}.",
    "\\boxed{{{}}}",
    "**Final Answer:** {}",
    "So the final answer is ${}$.",
    "#### {}",
    "Altogether that makes {}.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=100_000)
    parser.add_argument("--loop", type=int, default=2000, help="predictions that math-verify's loop is timed on")
    args = parser.parse_args()

    predictions, references = zip(*made(args.predictions), strict=True)
    words = [len(prediction.split()) for prediction in predictions]
    metric = evaluate.load(drp_hf.metrics.token_efficiency.__path__[0])
    metric.compute(predictions=predictions[:100], references=references[:100], n_tokens=words[:100])

    chosen = random.Random(0).sample(range(args.predictions), min(args.loop, args.predictions))
    seconds, right = loop(predictions, references, chosen[::2])

    start = time.perf_counter()
    results = metric.compute(predictions=predictions, references=references, n_tokens=words)
    ours = time.perf_counter() - start

    more_seconds, more_right = loop(predictions, references, chosen[1::2])
    theirs = (seconds + more_seconds) * args.predictions / len(chosen)

    characters = sum(map(len, predictions)) / len(predictions)
    title = f"{args.predictions:,} predictions of {characters:.0f} characters and {sum(words) / len(words):.0f} words"
    table = Table("", "seconds", "ms each", "right", title=title)
    for name, seconds, share in (
        ("token_efficiency, all figures", ours, results["accuracy"]),
        (f"math-verify, scaled from {len(chosen):,}", theirs, (right + more_right) / len(chosen)),
    ):
        table.add_row(name, f"{seconds:.1f}", f"{1000 * seconds / args.predictions:.3f}", f"{share:.1%}")
    Console().print(table)
    print(f"{theirs / ours:.1f} times as fast (wanted: {WANTED:g})")
    sys.exit(theirs / ours < WANTED)


def loop(predictions: Sequence[str], references: Sequence[str], chosen: Sequence[int]) -> tuple[float, int]:
    """Seconds that math-verify's loop takes, and how many it finds right."""
    start = time.perf_counter()
    right = sum(verify(parse(references[i]), parse(predictions[i])) for i in chosen)
    return time.perf_counter() - start, right


def made(count: int) -> Iterator[tuple[str, str]]:
    """Outputs for word problems with their gold answers; three in four are right."""
    random_ = random.Random(2505)
    problems = list(generate(min(count, 20_000)))
    for number in range(count):
        problem = problems[number % len(problems)]
        yield _output(problem, random_), str(problem.answer)


def _output(problem: WordProblem, random_: random.Random) -> str:
    sentences = [f"I need to find {problem.asked}.", *problem.facts]
    for step in problem.computations:
        sentences.append(f"{random_.choice(LEADS)}{step.what} is {step.equation}.")
        if random_.random() < 0.3:
            sentences.append(f"Wait, let me check: {step.equation}. Yes.")
    # Numbers of its own in each output, as real outputs have them.
    sentences.append(f"Rough check: {random_.randint(100, 99_999)} would be far off.")
    answer = str(problem.answer)
    if random_.random() < 0.25:
        answer = str(int(problem.answer) + random_.randint(1, 500))
    return f"<think>\n{' '.join(sentences)}\n</think>\n\n{random_.choice(ENDINGS).format(answer)}"


if __name__ == "__main__":
    main()
