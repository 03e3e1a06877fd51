"""Budget forcing (s1, 2501.19393): what a model answers when its reasoning is ended after so many tokens.

An output that reasons for longer than a budget is cut there, its think tag closed, and the model made to answer at
once: its answer is the first paragraph that it then writes. What reasons for less is what it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from drp_hf.answering import Request
from drp_hf.engines import Completion
from drp_hf.records import THINK_CLOSE
from drp_hf.scoring import Sample, score_samples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from drp_hf.answering import AnsweringModel
    from drp_hf.evaluations import Answers
    from drp_hf.figures import ScoreTable
    from drp_hf.grading import Grader

FORCED_END = f"\n{THINK_CLOSE}\n\nThe final answer is"
"""What stands in place of the rest of the reasoning."""
FORCED_TOKENS = 64
"""Tokens that the model may then write."""
TOGETHER = 500
"""Outputs in memory at the same time."""
# "The final answer is:", and what it is begins a paragraph of its own.
_ANNOUNCES = re.compile(r":[\s*_]*\Z")


class ForcedFigures:
    """The figures of one budget: what a model wrote when it was re-asked, in place of the samples it is made of.

    Args:
        table: the scores of all samples.
    """

    def __init__(self, table: ScoreTable):
        self._correct = table.correct.astype(float)
        self._n_tokens = table.n_tokens.astype(float)
        self._forced = 0

    def add(self, index: int, row: dict[str, Any]) -> None:
        """Puts a row of `force_answers` in the place of sample `index`."""
        self._correct[index], self._n_tokens[index] = row["correct"], row["n_tokens"]
        self._forced += 1

    def of_all(self) -> dict[str, float]:
        """`accuracy` and `mean_tokens` of all samples (of one that was re-asked the budget, `FORCED_END` and the
        answer), and `share_forced`, the share that was re-asked."""
        return {
            "accuracy": float(self._correct.mean()),
            "mean_tokens": float(self._n_tokens.mean()),
            "share_forced": self._forced / len(self._correct),
        }


def cut_reasoning(output: str, budget: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The first `budget` tokens of an output that reasons for longer, with the reasoning brought to an end."""
    spans = tokenizer(output, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    place = spans[budget - 1][1] if budget <= len(spans) else len(output)
    closing = output.rfind(THINK_CLOSE)
    # A closing tag of several tokens may be cut in two: then it goes as a whole.
    return output[: place if closing < 0 else min(place, closing)].rstrip() + FORCED_END


def at_once(completion: Completion, tokenizer: PreTrainedTokenizerBase) -> Completion:
    """What a model answers at once: its first paragraph, and after a colon the next one, too.

    What follows is reasoning again, and was not asked for.
    """
    text = completion.text
    ends = (match.start() for match in re.finditer(r"\n\n", text))
    end = next((end for end in ends if text[:end].strip() and not _ANNOUNCES.search(text, 0, end)), None)
    if end is None:
        return completion
    return Completion(text[:end], len(tokenizer(text[:end], add_special_tokens=False)["input_ids"]), True)


def force_answers(
    model: AnsweringModel, answers: Answers, budget: int, grader: Grader
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Re-asks every sample whose reasoning is longer than a budget.

    Args:
        model: who answered; its tokenizer must be known.
        answers: its answers to a benchmark, scored.
        budget: tokens of reasoning, tags included.
        grader: compares answers with gold.

    Yields:
        For each such sample its number among the answers, and its row: `benchmark`, `question`, `answer`, `sample`,
        `budget`, `output` (cut reasoning, `FORCED_END` and the model's answer), `n_tokens` of it,
        `finished` and `correct`.
    """
    sampling = replace(model.sampling, max_tokens=FORCED_TOKENS)
    spent = budget + len(model.tokenizer(FORCED_END, add_special_tokens=False)["input_ids"])
    longer = [index for index, tokens in enumerate(answers.table.think_tokens) if tokens > budget]
    for start in range(0, len(longer), TOGETHER):
        indices = longer[start : start + TOGETHER]
        rows = [answers.row(index) for index in indices]
        prefixes = [cut_reasoning(row["output"], budget, model.tokenizer) for row in rows]
        requests = [
            Request(row["question"], row["sample"], prefix) for row, prefix in zip(rows, prefixes, strict=True)
        ]
        completions = [at_once(completion, model.tokenizer) for completion in model.complete(requests, sampling)]
        samples = [
            Sample(prefix + completion.text, row["answer"], spent + completion.n_tokens, completion.finished)
            for row, prefix, completion in zip(rows, prefixes, completions, strict=True)
        ]
        for index, row, sample, score in zip(indices, rows, samples, score_samples(samples, grader), strict=True):
            yield (
                index,
                {
                    **{name: row[name] for name in ("benchmark", "question", "answer", "sample")},
                    "budget": budget,
                    "output": sample.output,
                    "n_tokens": sample.n_tokens,
                    "finished": sample.finished,
                    "correct": score.correct,
                },
            )
