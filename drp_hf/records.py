"""The one schema: problems, traces, steps and corpus rows.

Words: a *trace* is everything a model wrote for a question, the *reasoning* is the text inside the think tags and the
*response* what follows them. A *step* is a run of the reasoning with one skill and one action.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from datasets import Features, List, Value

from drp_hf.taxonomy import categorise

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"


class Action(StrEnum):
    """What a teacher does with a step (DRP, arXiv 2505.13975, section on pruning)."""

    KEEP = "KEEP"
    """Needed and concise: the text stays, byte for byte."""
    DELETE = "DELETE"
    """Redundant: the text goes."""
    COMPRESS = "COMPRESS"
    """Needed but wordy: replaced by a shorter `rewrite`."""
    MERGE = "MERGE"
    """Several units told as one: replaced by a `rewrite`."""


def render_output(reasoning: str, response: str) -> str:
    """The whole output of a reasoning model: think tags around the reasoning, then the response."""
    return f"{THINK_OPEN}\n{reasoning}\n{THINK_CLOSE}\n\n{response}"


def final_response(answer: str) -> str:
    """The response a student is trained to write after its pruned reasoning."""
    return f"The answer is {answer}."


def whole(text: str) -> str:
    """The text with halves of surrogate pairs, which JSON can hold but no file and no tokenizer, replaced."""
    return text.encode("utf-8", "replace").decode()


@dataclass(frozen=True)
class Problem:
    """A question with its gold answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Trace:
    """What `model` wrote for a problem.

    Args:
        question: the problem's text.
        answer: the gold answer, bare.
        reasoning: the text inside the think tags, without surrounding white space.
        response: what follows the closing tag, without surrounding white space.
        model: name of the model that wrote it.
    """

    question: str
    answer: str
    reasoning: str
    response: str
    model: str = "unknown"

    @property
    def output(self) -> str:
        return render_output(self.reasoning, self.response)


@dataclass(frozen=True)
class Step:
    """A run of the reasoning with one skill and one action.

    Args:
        start: first character, an offset into the reasoning.
        end: one past the last character.
        skill: what the step exercises, in free text ("addition", "checking a condition", …).
        action: what the teacher does with it.
        rewrite: the new text for COMPRESS and MERGE, else empty.
    """

    start: int
    end: int
    skill: str
    action: Action
    rewrite: str = ""

    @property
    def category(self) -> str:
        """The skill's category in the taxonomy (`drp_hf.taxonomy`)."""
        return categorise(self.skill)


STEP_FEATURES = {
    "start": Value("int64"),
    "end": Value("int64"),
    "skill": Value("string"),
    "category": Value("string"),
    "action": Value("string"),
    "rewrite": Value("string"),
}
CANDIDATE_FEATURES = {
    "teacher": Value("string"),
    "accepted": Value("bool"),
    "tokens_after": Value("int64"),
    "nll": Value("float64"),
}

CORPUS_FEATURES = Features(
    {
        "question": Value("string"),
        "answer": Value("string"),
        "reasoning": Value("string"),
        "response": Value("string"),
        "model": Value("string"),
        "steps": List(STEP_FEATURES),
        "pruned_reasoning": Value("string"),
        "completion": Value("string"),
        "tokens_before": Value("int64"),
        "tokens_after": Value("int64"),
        "teacher": Value("string"),
        "accepted": Value("bool"),
        "reason": Value("string"),
        "nll_before": Value("float64"),
        "candidates": List(CANDIDATE_FEATURES),
    }
)


@dataclass(frozen=True)
class Candidate:
    """One of several prunings of a trace that were made to choose from.

    Args:
        teacher: who made it.
        accepted: whether every check passed.
        tokens_after: tokens of its completion, 0 where it is not accepted.
        nll: mean negative log-likelihood of its completion under the student, in nats per token; None if not scored.
    """

    teacher: str
    accepted: bool
    tokens_after: int
    nll: float | None = None


@dataclass(frozen=True)
class CorpusRow:
    """One row of a corpus, accepted or not.

    Args:
        question, answer, reasoning, response, model: the `Trace`.
        steps: the teacher's steps; they tile the reasoning. Empty where no step could be made.
        pruned_reasoning: what is left of the reasoning; empty in a rejected row.
        completion: what the student is trained to write (think tags, pruned reasoning, final answer); empty in a
            rejected row.
        tokens_before: tokens of the whole original output.
        tokens_after: tokens of the completion, 0 in a rejected row.
        teacher: who decided the steps.
        accepted: whether every check passed.
        reason: why it was not accepted, or which fall-back was taken; empty for a clean acceptance.
        nll_before: mean negative log-likelihood of the original output under the student, in nats per token; None if
            it was not scored.
        candidates: the prunings that this one was chosen from, itself included; empty where there was no choice.
    """

    question: str
    answer: str
    reasoning: str
    response: str
    model: str
    steps: list[Step] = field(default_factory=list)
    pruned_reasoning: str = ""
    completion: str = ""
    tokens_before: int = 0
    tokens_after: int = 0
    teacher: str = ""
    accepted: bool = False
    reason: str = ""
    nll_before: float | None = None
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def trace(self) -> Trace:
        return Trace(self.question, self.answer, self.reasoning, self.response, self.model)

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary in the shape of `CORPUS_FEATURES`."""
        row = asdict(self)
        for step, values in zip(self.steps, row["steps"], strict=True):
            values |= {"action": step.action.value, "category": step.category}
        return row

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> CorpusRow:
        steps = [
            Step(step["start"], step["end"], step["skill"], Action(step["action"]), step["rewrite"])
            for step in row["steps"]
        ]
        candidates = [Candidate(**candidate) for candidate in row["candidates"]]
        return cls(**{**row, "steps": steps, "candidates": candidates})
