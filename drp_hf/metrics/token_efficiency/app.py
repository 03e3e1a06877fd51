"""The metric as a Space: a table of outputs, and the figures they give."""

from collections.abc import Sequence
from pathlib import Path

import evaluate
import gradio

# By its file: in a folder called app, where Spaces run, the library would take this file for the metric.
METRIC = evaluate.load(str(Path(__file__).with_name("token_efficiency.py")))
COLUMNS = {
    "output": "str",
    "tokens": "number",
    "gold answer": "str",
    "baseline's output": "str",
    "baseline's tokens": "number",
}
EXAMPLE = [
    ["<think>3 + 4 = 7</think>The answer is 7.", 12, "7", "<think>3 + 4 = 7. Wait, yes.</think>The answer is 7.", 20],
    ["<think>2 * 5 = 10</think>The answer is 10.", 18, "10", "<think>2 * 5 = 11</think>So 11.", 80],
]


def compute(rows: list[list]) -> dict:
    """The figures of a table; its last two columns may be empty."""
    rows = [row for row in rows if row[0]]
    outputs, tokens, golds, baseline, baseline_tokens = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    against = {}
    if any(baseline):
        against = {"baseline_predictions": baseline, "baseline_n_tokens": whole(baseline_tokens)}
    golds = [str(gold) for gold in golds]
    return METRIC.compute(predictions=outputs, references=golds, n_tokens=whole(tokens), **against)


def whole(counts: Sequence[object]) -> list[int]:
    """A column of tokens as numbers."""
    try:
        return [int(count) for count in counts]
    except ValueError as error:
        raise gradio.Error("Give the tokens of every output, as a whole number.") from error


if __name__ == "__main__":
    gradio.Interface(
        compute,
        gradio.Dataframe(EXAMPLE, headers=list(COLUMNS), datatype=list(COLUMNS.values()), type="array"),
        gradio.JSON(label="figures"),
        title="Token efficiency",
        description="Outputs with their think tags, tokens as generated, gold answers, and a baseline if you like.",
        article=Path(__file__).with_name("README.md").read_text(encoding="utf-8").split("---\n", 2)[-1],
    ).launch(show_error=True)
