"""Accuracy against tokens, in the layout of the library `evaluate`."""

from collections.abc import Callable, Sequence

import datasets
import evaluate
import numpy as np

from drp_hf.answers import answers_match, extract_answer, stated_answer
from drp_hf.errors import DRPError
from drp_hf.records import THINK_CLOSE

_DESCRIPTION = """
Token efficiency of reasoning models: how often the final answer is right, how many tokens were written for it, and
against a baseline on the same questions how many tokens were saved and what that did to accuracy, with paired
bootstrap intervals.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list[str]`): whole outputs, think tags included, one for each question.
    references (`list[str]`): gold answers, bare.
    n_tokens (`list[int]`, *optional*): tokens of each output as generated; `tokenizer` is needed without them.
    tokenizer (`str`, *optional*): name of the tokenizer that counts the outputs where no counts are given.
    finished (`list[bool]`, *optional*): whether each output ended by itself; False means that it was cut at a limit.
        An output that was cut counts with all its tokens, and is wrong unless it closed its think tag and expressly
        stated the right answer after it.
    limit (`int`, *optional*): without `finished`, outputs of at least so many tokens count as cut.
    baseline_predictions, baseline_n_tokens, baseline_finished (*optional*): the same of a baseline on these questions.
    n_resamples (`int`, defaults to 10,000), confidence (`float`, defaults to 0.95), seed (`int`, defaults to 0):
        of the percentile bootstrap, which resamples questions (both models' outputs of a question together).
    alpha, beta, gamma (`float`, default to 1, 3 and 5): weights of AES.

Returns:
    `dict` of plain numbers; every `…_interval` is a list of two.

    - `n`: questions; `accuracy` (with `accuracy_interval`); `mean_tokens` (with `mean_tokens_interval`),
      `median_tokens`, `p90_tokens`: of all outputs, right or wrong; `share_truncated`: None where neither `finished`
      nor `limit` is given.
    - Against a baseline: `baseline_accuracy`, `baseline_mean_tokens`; `token_reduction` = 1 - L / L0, a ratio of
      mean tokens (with `token_reduction_interval`); `delta_accuracy` = A - A0 (with `delta_accuracy_interval`).
    - `aes` (2501.12570): with dL = (L0 - L) / L0 and dA = (A - A0) / A0, alpha dL + beta |dA| if dA >= 0, else
      alpha dL - gamma |dA|. None where the baseline solves nothing. `aes_alpha`, `aes_beta`, `aes_gamma`: its weights.
    - `n_resamples`, `confidence`, `seed`: what the intervals were made with.

Examples:

    >>> import evaluate
    >>> import drp_hf.metrics.token_efficiency as folder
    >>> metric = evaluate.load(folder.__path__[0])
    >>> results = metric.compute(
    ...     predictions=["<think>3 + 4 = 7</think>The answer is 7.", "<think>2 * 5 = 11</think>The answer is 11."],
    ...     references=["7", "10"],
    ...     n_tokens=[12, 14],
    ... )
    >>> results["accuracy"], results["mean_tokens"], results["share_truncated"]
    (0.5, 13.0, None)

    Against a baseline, whose second output was cut off:

    >>> results = metric.compute(
    ...     predictions=["<think>3 + 4 = 7</think>The answer is 7.", "<think>2 * 5 = 10</think>The answer is 10."],
    ...     references=["7", "10"],
    ...     n_tokens=[12, 18],
    ...     finished=[True, True],
    ...     baseline_predictions=["<think>3 + 4 = 7. Wait, yes.</think>The answer is 7.", "<think>2 * 5 = 10. Hmm"],
    ...     baseline_n_tokens=[20, 80],
    ...     baseline_finished=[True, False],
    ... )
    >>> results["token_reduction"], results["delta_accuracy"], results["aes"]
    (0.7, 0.5, 3.7)
"""

_CITATION = """
@article{jiang2025drp,
    title={{DRP}: Distilled Reasoning Pruning with Skill-aware Step Decomposition for Efficient Large Reasoning
        Models},
    author={Jiang, Yuxuan and Li, Dawei and Ferraro, Francis},
    journal={arXiv preprint arXiv:2505.13975},
    year={2025}
}
@article{luo2025o1pruner,
    title={{O1-Pruner}: Length-Harmonizing Fine-Tuning for {O1}-Like Reasoning Pruning},
    author={Luo, Haotian and others},
    journal={arXiv preprint arXiv:2501.12570},
    year={2025}
}
"""

BLOCK = 4_000_000
"""Resampled values held at once."""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class TokenEfficiency(evaluate.Metric):
    """See the description above."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
            reference_urls=["https://arxiv.org/abs/2505.13975", "https://arxiv.org/abs/2501.12570"],
        )

    def _compute(
        self,
        predictions,
        references,
        n_tokens=None,
        tokenizer=None,
        finished=None,
        limit=None,
        baseline_predictions=None,
        baseline_n_tokens=None,
        baseline_finished=None,
        n_resamples=10_000,
        confidence=0.95,
        seed=0,
        alpha=1.0,
        beta=3.0,
        gamma=5.0,
    ):
        correct, tokens, whole = _columns("", predictions, references, n_tokens, finished, tokenizer, limit)
        columns = [correct, tokens]
        if baseline_predictions is not None:
            columns += _columns(
                "baseline_", baseline_predictions, references, baseline_n_tokens, baseline_finished, tokenizer, limit
            )[:2]
        figures = against if baseline_predictions is not None else alone
        table = np.stack(columns, axis=1)
        values = figures(table.mean(axis=0)[None])
        ends = bootstrap_interval(table, figures, n_resamples, confidence, seed)

        results = {"n": len(tokens)}
        for name, value in values.items():
            results[name] = _plain(value[0])
            results[f"{name}_interval"] = [_plain(end) for end in ends[name]]
        results |= {
            "median_tokens": float(np.median(tokens)),
            "p90_tokens": float(np.percentile(tokens, 90)),
            "share_truncated": None if whole is None else float(1 - np.mean(whole)),
        }
        if baseline_predictions is not None:
            means = table.mean(axis=0).tolist()
            results["baseline_accuracy"], results["baseline_mean_tokens"] = means[2:]
            results["aes"] = aes(*means, alpha=alpha, beta=beta, gamma=gamma)
            results |= {"aes_alpha": alpha, "aes_beta": beta, "aes_gamma": gamma}
        return results | {"n_resamples": n_resamples, "confidence": confidence, "seed": seed}


def is_correct(output: str, reference: str, finished: bool = True) -> bool:
    """Whether an output answers a question.

    Args:
        output: the whole output.
        reference: the gold answer.
        finished: False for an output that was cut off. It is right only if it closed its think tag and expressly
            stated the right answer after it: the last number before a cut is no answer.
    """
    if finished:
        answer = extract_answer(output)
    else:
        answer = stated_answer(output.rpartition(THINK_CLOSE)[2]) if THINK_CLOSE in output else None
    return answers_match(reference, answer).correct


def aes(
    accuracy: float,
    tokens: float,
    baseline_accuracy: float,
    baseline_tokens: float,
    alpha: float = 1.0,
    beta: float = 3.0,
    gamma: float = 5.0,
) -> float | None:
    """Accuracy-efficiency score of O1-Pruner (2501.12570).

    Args:
        accuracy, baseline_accuracy: shares of right answers.
        tokens, baseline_tokens: mean tokens.
        alpha: weight of the relative saving of tokens.
        beta: weight of a relative gain in accuracy.
        gamma: weight of a relative loss of accuracy.

    Returns:
        The score: 0 for the baseline itself, None where the baseline solves or writes nothing.
    """
    if not baseline_accuracy or not baseline_tokens:
        return None
    saving = (baseline_tokens - tokens) / baseline_tokens
    gain = (accuracy - baseline_accuracy) / baseline_accuracy
    return alpha * saving + (beta if gain >= 0 else gamma) * gain


def bootstrap_interval(
    table: np.ndarray,
    figures: Callable[[np.ndarray], dict[str, np.ndarray]],
    n_resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, np.ndarray]:
    """Percentile bootstrap (Efron and Tibshirani 1993, chapter 13) of figures that are made from column means.

    Rows are resampled whole, so that what belongs to one question stays paired.

    Args:
        table: one row a question, shape `(n, columns)`.
        figures: from column means, shape `(resamples, columns)`, to each figure's values, shape `(resamples,)`.
        n_resamples: how often the rows are drawn.
        confidence: share of the resamples inside the interval.
        seed: of the drawing.

    Returns:
        Lower and upper end of each figure; NaN where a figure is not defined in some resample.
    """
    random = np.random.default_rng(seed)
    block = max(1, BLOCK // table.size)
    means = [
        table[random.integers(len(table), size=(min(block, n_resamples - done), len(table)))].mean(axis=1)
        for done in range(0, n_resamples, block)
    ]
    tail = 50 * (1 - confidence)
    return {name: np.percentile(values, [tail, 100 - tail]) for name, values in figures(np.concatenate(means)).items()}


def alone(means: np.ndarray) -> dict[str, np.ndarray]:
    """Figures of one model from means of its columns (right, tokens), shape `(resamples, 2)`."""
    return {"accuracy": means[:, 0], "mean_tokens": means[:, 1]}


def against(means: np.ndarray) -> dict[str, np.ndarray]:
    """The same and the comparison, from means of the columns of both (baseline's last), shape `(resamples, 4)`."""
    accuracy, tokens, baseline_accuracy, baseline_tokens = means.T
    with np.errstate(divide="ignore", invalid="ignore"):
        reduction = np.where(baseline_tokens > 0, 1 - tokens / baseline_tokens, np.nan)
    return {**alone(means), "token_reduction": reduction, "delta_accuracy": accuracy - baseline_accuracy}


def _columns(
    prefix: str,
    predictions: Sequence[str],
    references: Sequence[str],
    n_tokens: Sequence[int] | None,
    finished: Sequence[bool] | None,
    tokenizer: str | None,
    limit: int | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Per question: right (0 or 1), tokens, and whether the output is whole (None where nothing is known)."""
    if not len(references):
        raise DRPError("There is nothing to score: give at least one prediction.")
    if n_tokens is None:
        n_tokens = _count(prefix, predictions, tokenizer)
    for name, values in (("predictions", predictions), ("n_tokens", n_tokens), ("finished", finished)):
        if values is not None and len(values) != len(references):
            raise DRPError(
                f"{prefix}{name} has {len(values)} entries for {len(references)} references: give one for each."
            )
    tokens = np.asarray(n_tokens, dtype=float)
    whole = None
    if finished is not None:
        whole = np.asarray(finished, dtype=bool)
    elif limit is not None:
        whole = tokens < limit
    ended = np.ones(len(tokens), dtype=bool) if whole is None else whole
    correct = [is_correct(*row) for row in zip(predictions, references, ended.tolist(), strict=True)]
    return np.asarray(correct, dtype=float), tokens, whole


def _count(prefix: str, predictions: Sequence[str], tokenizer: str | None) -> list[int]:
    if tokenizer is None:
        raise DRPError(f"Give {prefix}n_tokens as they were generated, or the name of a tokenizer that counts them.")
    from drp_hf.models import load_tokenizer

    encoded = load_tokenizer(tokenizer)(list(predictions), add_special_tokens=False)
    return [len(ids) for ids in encoded["input_ids"]]


def _plain(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)
