"""How certain a figure is: the paired bootstrap, the sign test, and pass@k."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np
from tqdm import tqdm

from drp_hf.errors import DRPError

BLOCK = 1_000_000
"""Counts held at once."""
EQUAL_ROWS = 20
"""So many rows of each kind on average, or more, are not drawn one by one."""


def bootstrap_intervals(
    table: np.ndarray,
    figures: Callable[[np.ndarray], dict[str, np.ndarray]],
    n_resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Percentile bootstrap (Efron and Tibshirani 1993, chapter 13) of figures that are made from column means.

    Rows are drawn whole, so that what belongs to one question stays paired. How often each row was drawn is all that
    is kept of a resample, and that in blocks: the memory does not grow with the number of resamples. The draws are
    those of `scipy.stats.bootstrap` with the same seed; only where most rows have many equals (`EQUAL_ROWS`) is it the
    numbers of each kind that are drawn, from the multinomial distribution that they have in such a resample.

    Args:
        table: one row a question, shape `(n, columns)`.
        figures: from column means, shape `(resamples, columns)`, to each figure's values, shape `(resamples,)`.
        n_resamples: how often the rows are drawn.
        confidence: share of the resamples inside the interval.
        seed: of the drawing.

    Returns:
        Lower and upper end of each figure; NaN where a figure is not defined in some resample.

    Raises:
        DRPError: a setting with which nothing can be drawn.
    """
    if n_resamples < 1 or not 0 < confidence < 1:
        raise DRPError(
            f"The bootstrap cannot use n_resamples {n_resamples} and confidence {confidence}: give at least one "
            "resample and a confidence between 0 and 1."
        )
    random = np.random.default_rng(seed)
    kinds, often = np.unique(table, axis=0, return_counts=True)
    if len(kinds) * EQUAL_ROWS > len(table):
        rows, draw = table, lambda size: _draws(random, len(table), size)
    else:
        rows, draw = kinds, lambda size: random.multinomial(len(table), often / len(table), size)

    means = np.empty((n_resamples, table.shape[1]))
    block = max(1, min(BLOCK // len(rows), n_resamples))
    for done in tqdm(range(0, n_resamples, block), desc="Resampling", unit="block", delay=5, leave=False):
        size = min(block, n_resamples - done)
        means[done : done + size] = draw(size) @ rows / len(table)
    tail = 50 * (1 - confidence)
    return {name: np.percentile(values, [tail, 100 - tail]).tolist() for name, values in figures(means).items()}


def _draws(random: np.random.Generator, n: int, size: int) -> np.ndarray:
    """How often each of n rows is drawn when n are drawn one by one, `size` times over; shape `(size, n)`."""
    drawn = random.integers(n, size=(size, n))
    drawn += np.arange(size)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)


def sign_test(gained: int, lost: int) -> float:
    """Exact two-sided sign test: how likely so uneven a split is if gains and losses were equally likely.

    With one sample a question, `gained` and `lost` count the questions on which exactly one of two models is right,
    and this is McNemar's exact test (McNemar 1947; the exact form is the binomial one).

    Args:
        gained: questions that improved.
        lost: questions that got worse; those that did not change say nothing.

    Returns:
        The p-value; 1 where nothing changed.

    One gain and five losses: 2 · (C(6, 0) + C(6, 1)) / 2⁶ = 14 / 64.

    >>> sign_test(1, 5)
    0.21875
    """
    n, ways, tail = gained + lost, 1, 0
    for k in range(min(gained, lost) + 1):
        tail += ways
        ways = ways * (n - k) // (k + 1)
    return min(1.0, 2 * tail / 2**n)


def pass_at_k(n_samples: int, n_correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is right (2107.03374): 1 - C(n - c, k) / C(n, k).

    Args:
        n_samples: samples n of a question.
        n_correct: right ones c among them.
        k: at most n.

    Two of four right, two tries: 1 - C(2, 2) / C(4, 2) = 1 - 1/6.

    >>> round(pass_at_k(4, 2, 2), 12)
    0.833333333333
    """
    return 1 - comb(n_samples - n_correct, k) / comb(n_samples, k)
