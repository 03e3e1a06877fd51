"""What others published on known benchmarks, to put measurements beside. Nothing here was measured by this project."""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "Jiang, Li, Ferraro: Distilled Reasoning Pruning, arXiv 2505.13975, main results"
"""Where every figure below comes from, its comparison methods' included (as secondary sources give the table)."""
QUESTIONS = {"aime24": 30, "amc23": 40}
"""Benchmarks whose accuracy is published as a number of right answers, with their number of questions."""
BENCHMARKS = ("gsm8k", "math500", "aime24", "amc23")
RESULTS = {
    ("R1-Distill-Qwen-7B", "base"): ((91.7, 917), (92.4, 2486), (15, 8674), (31, 4845)),
    ("R1-Distill-Qwen-7B", "TALE"): ((91.0, 522), (91.6, 2530), (10, 8602), (31, 3998)),
    ("R1-Distill-Qwen-7B", "CoT-Valve"): ((90.8, 364), (89.4, 1975), (13, 6315), (30, 3157)),
    ("R1-Distill-Qwen-7B", "DRP"): ((94.1, 328), (93.0, 1781), (15, 4966), (33, 3258)),
    ("R1-Distill-Qwen-1.5B", "base"): ((70.7, 1443), (80.4, 3276), (6, 10484), (23, 6516)),
    ("R1-Distill-Qwen-1.5B", "ThinkPrune"): ((80.0, 712), (79.2, 2006), (9, 5745), (25, 3291)),
    ("R1-Distill-Qwen-1.5B", "DRP"): ((83.4, 721), (82.0, 2122), (10, 6135), (27, 3657)),
}
"""By model and method, in the order of `BENCHMARKS`: right answers (percent, or a number of them) and mean tokens."""


@dataclass(frozen=True)
class Published:
    """One published point.

    Args:
        model: the model that was made shorter.
        method: what made it so.
        accuracy: share of right answers, from 0 to 1.
        tokens: mean tokens of an output.
        right: the accuracy as it was published.
    """

    model: str
    method: str
    accuracy: float
    tokens: int
    right: str

    @property
    def name(self) -> str:
        """Method and size, short enough for a plot."""
        return f"{self.method} {self.model.rpartition('-')[2]}"


def published_points(benchmark: str) -> list[Published]:
    """The published points of a benchmark: none unless it is one of `BENCHMARKS`, by exactly that name."""
    if benchmark not in BENCHMARKS:
        return []
    column, of = BENCHMARKS.index(benchmark), QUESTIONS.get(benchmark, 100)
    points = []
    for (model, method), results in RESULTS.items():
        right, tokens = results[column]
        as_published = f"{right} of {of}" if benchmark in QUESTIONS else f"{right}%"
        points.append(Published(model, method, right / of, tokens, as_published))
    return points
