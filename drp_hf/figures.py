"""Many scored outputs: accuracy, tokens, what was saved against a baseline, and the composites of the field.

Samples of one question are averaged first, then questions; the bootstrap resamples questions.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields
from math import inf, nan
from typing import Any

import numpy as np

from drp_hf.composites import (
    RATE_TOKENS,
    acu,
    aes,
    consistency,
    e3,
    hca,
    outcome_efficiency,
    process_efficiency,
    reflection_rate,
    sca,
    underthinking,
)
from drp_hf.errors import DRPError
from drp_hf.scoring import NEW_VALUES, REFLECTION_MARKERS, SampleScore
from drp_hf.statistics import bootstrap_intervals, pass_at_k, sign_test

CONSTANTS: dict[str, dict[str, Any]] = {
    "aes": {"alpha": 1.0, "beta": 3.0, "gamma": 5.0},
    "acu": {"parameters_unit": 1e9},
    "sca": {"alpha": 10.0},
    "cca": {"alpha": 10.0, "beta": 20.0},
    "e3": {"rho": -1.0, "clip": 0.001},
    "budget_keeping": {"share": 0.99},
    "bootstrap": {"n_resamples": 10_000, "confidence": 0.95, "seed": 0},
}
"""What can be set."""
FIXED: dict[str, dict[str, Any]] = {
    "new_tokens": {"new_values": NEW_VALUES},
    "reflection_rate": {"per_tokens": RATE_TOKENS, "markers": list(REFLECTION_MARKERS)},
}
"""What scoring is made with."""


@dataclass
class ScoreTable:
    """Scores of many samples, a column each; see `SampleScore`.

    Args:
        question: which question a sample answers, 0 to `n_questions - 1`.
        correct: whether it is right.
        n_tokens: tokens of the whole output.
        think_tokens: tokens of the reasoning and its tags.
        finished: 1 if it ended by itself, 0 if it was cut, NaN if that is not known.
        answered: whether it has an answer.
        answer_at: tokens from which on a cut leaves it right; infinite where it is wrong.
        first_correct: tokens to the end of the first right solution; NaN where there is none.
        new_tokens: tokens of new solutions.
        reflections: reflection markers.
    """

    question: np.ndarray
    correct: np.ndarray
    n_tokens: np.ndarray
    think_tokens: np.ndarray
    finished: np.ndarray
    answered: np.ndarray
    answer_at: np.ndarray
    first_correct: np.ndarray
    new_tokens: np.ndarray
    reflections: np.ndarray

    @classmethod
    def of(cls, question_indices: Iterable[int], scores: Iterable[SampleScore]) -> ScoreTable:
        """Gathers scores as they come; nothing but numbers is kept.

        Args:
            question_indices: the question of each score, 0 to n - 1 with none left out.
            scores: the scores, as many.

        Raises:
            DRPError: there is no score.
        """
        builder = ScoreTableBuilder()
        for question, score in zip(question_indices, scores, strict=True):
            builder.add(question, score)
        return builder.table()

    def __len__(self) -> int:
        return len(self.question)

    @property
    def n_questions(self) -> int:
        return int(self.question.max()) + 1

    @property
    def n_samples(self) -> np.ndarray:
        """Samples of each question, shape `(n_questions,)`."""
        return np.bincount(self.question, minlength=self.n_questions)

    def by_question(self, values: np.ndarray) -> np.ndarray:
        """The mean of a column over the samples of each question, shape `(n_questions,)`."""
        return np.bincount(self.question, weights=values, minlength=self.n_questions) / self.n_samples

    def mean(self, values: np.ndarray) -> float:
        """The mean over questions of the mean over their samples."""
        return float(self.by_question(values).mean())

    def reordered(self, new_index: np.ndarray) -> tuple[ScoreTable, np.ndarray]:
        """The table with question `i` called `new_index[i]`, its samples in that order, and where each row was."""
        question = new_index[self.question]
        order = np.argsort(question, kind="stable")
        columns = {column.name: getattr(self, column.name)[order] for column in fields(self)}
        return ScoreTable(**{**columns, "question": question[order]}), order


class ScoreTableBuilder:
    """Gathers scores as they come, ten numbers a sample."""

    def __init__(self) -> None:
        self._numbers = array("d")

    def add(self, question: int, score: SampleScore) -> None:
        self._numbers.extend(
            (
                question,
                score.correct,
                score.n_tokens,
                score.think_tokens,
                nan if score.finished is None else score.finished,
                score.extracted is not None,
                inf if score.answer_at is None else score.answer_at,
                nan if score.first_correct is None else score.first_correct,
                score.new_tokens,
                score.reflections,
            )
        )

    def table(self) -> ScoreTable:
        """The table of what was added.

        Raises:
            DRPError: nothing was.
        """
        if not self._numbers:
            raise DRPError("There is nothing to score: give at least one output.")
        question, *columns = np.array(self._numbers).reshape(-1, len(fields(ScoreTable))).T.copy()
        return ScoreTable(question.astype(np.int64), *columns)


# ------------------------------------------------------------------------------------------------------ all of them


def figures(
    table: ScoreTable,
    baseline: ScoreTable | None = None,
    *,
    budgets: Sequence[int] = (),
    n_parameters: int | None = None,
    limit: int | None = None,
    **constants: dict[str, Any],
) -> dict[str, Any]:
    """Every figure of a model, plain ones first.

    Args:
        table: its scores.
        baseline: scores of the baseline on the same questions, with the same indices.
        budgets: tokens k at which HCA, SCA and CCA are given.
        n_parameters: parameters of the model, for ACU.
        limit: tokens up to which accuracy is followed over the budget; the longest output of both if not given.
        constants: what differs from `CONSTANTS`, such as `aes={"beta": 1.0}`.

    Returns:
        The figures by name, `…_interval` after those that have one, and all `constants`. What is not defined is None.

    Raises:
        DRPError: the two do not have the same questions, or a constant is unknown.
    """
    used = _constants(constants)
    if isinstance(budgets, int):
        raise DRPError(f"budgets is {budgets}: give a list of tokens.")
    if baseline is not None and baseline.n_questions != table.n_questions:
        raise DRPError(
            f"The baseline answers {baseline.n_questions} questions and the model {table.n_questions}: compare them "
            "on the same questions."
        )
    intervals = _intervals(table, baseline, used["bootstrap"])
    accuracy, mean_tokens = table.mean(table.correct), table.mean(table.n_tokens)
    right = table.correct > 0
    found: dict[str, Any] = {
        "n_questions": table.n_questions,
        "n_samples": len(table),
        "accuracy": accuracy,
        "accuracy_interval": intervals["accuracy"],
        "pass_at_k": _passes(table),
        "mean_tokens": mean_tokens,
        "mean_tokens_interval": intervals["mean_tokens"],
        "median_tokens": float(np.median(table.n_tokens)),
        "p10_tokens": float(np.percentile(table.n_tokens, 10)),
        "p90_tokens": float(np.percentile(table.n_tokens, 90)),
        "p99_tokens": float(np.percentile(table.n_tokens, 99)),
        "total_tokens": int(table.n_tokens.sum()),
        "mean_think_tokens": table.mean(table.think_tokens),
        "mean_answer_tokens": table.mean(table.n_tokens - table.think_tokens),
        "mean_tokens_correct": _mean(table.n_tokens[right]),
        "mean_tokens_wrong": _mean(table.n_tokens[~right]),
        "tokens_per_correct": mean_tokens / accuracy if accuracy else None,
        "share_truncated": _mean(1 - table.finished[~np.isnan(table.finished)]),
        "share_without_answer": table.mean(1 - table.answered),
    }
    if limit is None:
        limit = int(max(table.n_tokens.max(), baseline.n_tokens.max() if baseline is not None else 0))
    found |= {
        "budget_limit": limit,
        "budget_auc": budget_auc(table, limit),
        "budget_keeping": budget_keeping(table, used["budget_keeping"]["share"]),
    }
    if baseline is not None:
        found |= _comparison(table, baseline, intervals, used)
        baseline_means = (found["baseline_accuracy"], found["baseline_mean_tokens"])
    found |= {
        "accuracy_per_token": accuracy / mean_tokens if mean_tokens else None,
        "acu": acu(accuracy, mean_tokens, n_parameters, **used["acu"]) if n_parameters else None,
        "outcome_efficiency": table.mean(outcome_efficiency(table.first_correct, table.n_tokens)),
        "process_efficiency": table.mean(process_efficiency(table.new_tokens, table.n_tokens)),
        "underthinking": _mean(underthinking(table.first_correct[~right], table.n_tokens[~right])),
        "hca": {str(budget): table.mean(hca(table.correct, table.n_tokens, budget)) for budget in budgets},
        "sca": {str(budget): _sca(table, budget, **used["sca"]) for budget in budgets},
        "cca": {str(budget): _cca(table, budget, **used["cca"]) for budget in budgets},
        "e3": None if baseline is None else e3(accuracy, mean_tokens, *baseline_means, **used["e3"]),
        "reflection_rate": reflection_rate(table.mean(table.reflections), mean_tokens),
    }
    if n_parameters:
        used["acu"] = {"n_parameters": n_parameters, **used["acu"]}
    return found | {"constants": used}


def _constants(changed: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    used = deepcopy(CONSTANTS)
    for name, values in changed.items():
        if name not in used or not isinstance(values, dict) or not values.keys() <= used[name].keys():
            known = ", ".join(f"{name} ({', '.join(of)})" for name, of in used.items())
            raise DRPError(f"{name}={values!r} sets no constant: give a dictionary of {known}.")
        used[name] |= values
    for name, key, fits, wanted in (
        ("sca", "alpha", used["sca"]["alpha"] > 0, "above 0"),
        ("cca", "alpha", used["cca"]["alpha"] > 0, "above 0"),
        ("cca", "beta", used["cca"]["beta"] > 0, "above 0"),
        ("acu", "parameters_unit", used["acu"]["parameters_unit"] > 0, "above 0"),
        ("e3", "rho", used["e3"]["rho"] != 0, "other than 0"),
        ("e3", "clip", 0 < used["e3"]["clip"] < 0.5, "between 0 and 0.5"),
        ("budget_keeping", "share", 0 < used["budget_keeping"]["share"] <= 1, "above 0 and at most 1"),
    ):
        if not fits:
            raise DRPError(f"{key} of {name} is {used[name][key]}: it must be {wanted}.")
    return used | deepcopy(FIXED)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _sca(table: ScoreTable, budget: int, alpha: float) -> float:
    return table.mean(sca(table.correct, table.n_tokens, budget, alpha))


def _cca(table: ScoreTable, budget: int, alpha: float, beta: float) -> float:
    return _sca(table, budget, alpha) * consistency(table.n_tokens, beta)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _passes(table: ScoreTable) -> dict[str, float]:
    """pass@k for k = 1, 2, 4, … and the number of samples (the smallest, where questions have different numbers)."""
    samples = table.n_samples
    correct = np.bincount(table.question, weights=table.correct, minlength=table.n_questions).astype(int)
    most = int(samples.min())
    ks = sorted({2**i for i in range(most.bit_length())} | {most})
    kinds, counts = np.unique(np.stack([samples, correct], axis=1), axis=0, return_counts=True)
    return {str(k): float(np.average([pass_at_k(int(n), int(c), k) for n, c in kinds], weights=counts)) for k in ks}


def _intervals(
    table: ScoreTable, baseline: ScoreTable | None, bootstrap: dict[str, Any]
) -> dict[str, list[float | None]]:
    columns = [table.by_question(table.correct), table.by_question(table.n_tokens)]
    if baseline is not None:
        columns += [baseline.by_question(baseline.correct), baseline.by_question(baseline.n_tokens)]
        with np.errstate(divide="ignore", invalid="ignore"):
            columns.append(np.where(columns[3] > 0, 1 - columns[1] / columns[3], np.nan))

    def of(means: np.ndarray) -> dict[str, np.ndarray]:
        values = {"accuracy": means[:, 0], "mean_tokens": means[:, 1]}
        if baseline is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                reduction = np.where(means[:, 3] > 0, 1 - means[:, 1] / means[:, 3], np.nan)
            values |= {
                "token_reduction": reduction,
                "mean_token_reduction": means[:, 4],
                "delta_accuracy": means[:, 0] - means[:, 2],
            }
        return values

    ends = bootstrap_intervals(np.stack(columns, axis=1), of, **bootstrap)
    return {name: [_plain(end) for end in interval] for name, interval in ends.items()}


def _comparison(
    table: ScoreTable, baseline: ScoreTable, intervals: dict[str, list[float | None]], used: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    accuracy, tokens = table.mean(table.correct), table.mean(table.n_tokens)
    accuracy0, tokens0 = baseline.mean(baseline.correct), baseline.mean(baseline.n_tokens)
    change = table.by_question(table.correct) - baseline.by_question(baseline.correct)
    # Means of the same samples in another order may differ in the last bit.
    gained, lost = int((change > 1e-12).sum()), int((change < -1e-12).sum())
    each, each0 = table.by_question(table.n_tokens), baseline.by_question(baseline.n_tokens)
    return {
        "baseline_accuracy": accuracy0,
        "baseline_mean_tokens": tokens0,
        "token_reduction": 1 - tokens / tokens0 if tokens0 else None,
        "token_reduction_interval": intervals["token_reduction"],
        "mean_token_reduction": float((1 - each / each0).mean()) if each0.all() else None,
        "mean_token_reduction_interval": intervals["mean_token_reduction"],
        "delta_accuracy": accuracy - accuracy0,
        "delta_accuracy_interval": intervals["delta_accuracy"],
        "questions_gained": gained,
        "questions_lost": lost,
        "mcnemar_p": sign_test(gained, lost),
        "aes": aes(accuracy, tokens, accuracy0, tokens0, **used["aes"]),
    }


# ----------------------------------------------------------------------------------------------- accuracy and budget


def budget_curve(table: ScoreTable, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy if every output were cut after so many tokens: a step function.

    Args:
        table: scores.
        limit: tokens up to which it is followed.

    Returns:
        Budgets from 0 to `limit` at which it steps, and the accuracy from each on.
    """
    weights = 1 / (table.n_samples[table.question] * table.n_questions)
    within = table.answer_at <= limit
    places, inverse = np.unique(table.answer_at[within], return_inverse=True)
    steps = np.bincount(inverse, weights=weights[within], minlength=len(places))
    budgets = np.concatenate([[0.0], places, [float(limit)]])
    accuracy = np.concatenate([[0.0], np.cumsum(steps), [steps.sum()]])
    return budgets, accuracy


def budget_auc(table: ScoreTable, limit: float) -> float | None:
    """Area under accuracy against budget from 0 to the limit, over the limit: 1 if every answer were there at once.

    It is the mean over outputs of max(0, 1 - answer_at / limit).
    """
    if not limit:
        return None
    return table.mean(np.maximum(0.0, 1 - table.answer_at / limit))


def budget_keeping(table: ScoreTable, share: float) -> int | None:
    """The smallest budget (tokens) with at least that share of the accuracy; None where nothing is right."""
    right = np.isfinite(table.answer_at)
    if not right.any():
        return None
    budgets, accuracy = budget_curve(table, table.answer_at[right].max())
    # Sums of shares may fall short of the whole by a last bit.
    return int(budgets[np.argmax(accuracy >= share * accuracy[-1] - 1e-12)])
