"""The composite figures of the field, each a small function with its paper, its formula and an example by hand.

A is accuracy and L mean tokens, with a 0 behind them the baseline's. What depends on single outputs takes arrays with
a value an output and returns such an array, to be averaged by whoever knows which outputs answer the same question.
"""

from __future__ import annotations

import numpy as np

RATE_TOKENS = 1000
"""Tokens to which reflection markers are related."""


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

    With ΔL = (L₀ - L) / L₀ and ΔA = (A - A₀) / A₀ it is α·ΔL + β·|ΔA| where ΔA ≥ 0, else α·ΔL - γ·|ΔA|.

    Args:
        accuracy, baseline_accuracy: shares of right answers A and A₀.
        tokens, baseline_tokens: mean tokens L and L₀.
        alpha: weight of the relative saving of tokens.
        beta: weight of a relative gain in accuracy.
        gamma: weight of a relative loss of accuracy.

    Returns:
        The score: 0 for the baseline itself, None where the baseline solves or writes nothing.

    Half the tokens, accuracy down from 0.8 to 0.6: 1 · 0.5 - 5 · 0.25 = -0.75.

    >>> round(aes(0.6, 500, 0.8, 1000), 12)
    -0.75
    """
    if not baseline_accuracy or not baseline_tokens:
        return None
    saving = (baseline_tokens - tokens) / baseline_tokens
    gain = (accuracy - baseline_accuracy) / baseline_accuracy
    return alpha * saving + (beta if gain >= 0 else gamma) * gain


def acu(accuracy: float, tokens: float, n_parameters: int, parameters_unit: float = 1e9) -> float | None:
    """Accuracy per computation unit of CoT-Valve (2502.09601): A / (parameters · L).

    Args:
        accuracy: share of right answers A.
        tokens: mean tokens L.
        n_parameters: parameters of the model.
        parameters_unit: what they are counted in; a billion makes numbers that can be read.

    Returns:
        The figure; None where nothing was written.

    A model of 2 billion with 0.9 at 300 tokens: 0.9 / (2 · 300) = 0.0015.

    >>> round(acu(0.9, 300, 2_000_000_000), 12)
    0.0015
    """
    return accuracy / (n_parameters / parameters_unit * tokens) if tokens else None


def e3(
    accuracy: float,
    tokens: float,
    baseline_accuracy: float,
    baseline_tokens: float,
    rho: float = -1.0,
    clip: float = 0.001,
) -> float | None:
    """E3 (2511.10201): [w·r_A^ρ + (1 - w)·r_T^ρ]^(1/ρ), with r_A = odds(A) / odds(A₀), r_T = L₀ / L and w = A₀.

    Args:
        accuracy, baseline_accuracy: shares of right answers A and A₀.
        tokens, baseline_tokens: mean tokens L and L₀.
        rho: -1 makes it the weighted harmonic mean.
        clip: accuracies, also that of the weight, are kept so far from 0 and 1, where the odds are not defined.

    Returns:
        The figure: 1 for the baseline itself, None where either writes nothing.

    Accuracy up from 0.5 to 0.75, half the tokens: r_A = 3, r_T = 2, 1 / (0.5 / 3 + 0.5 / 2) = 2.4.

    >>> round(e3(0.75, 50, 0.5, 100), 12)
    2.4
    """
    if not tokens or not baseline_tokens:
        return None
    accuracy, weight = (min(max(share, clip), 1 - clip) for share in (accuracy, baseline_accuracy))
    ratio = accuracy / (1 - accuracy) / (weight / (1 - weight))
    return (weight * ratio**rho + (1 - weight) * (baseline_tokens / tokens) ** rho) ** (1 / rho)


def reflection_rate(reflections: float, tokens: float) -> float | None:
    """Reflection markers ("wait", "hmm", …) for every thousand tokens.

    Args:
        reflections: mean markers of an output.
        tokens: mean tokens L.

    Returns:
        The rate; None where nothing was written.

    Three markers in 600 tokens: 5.

    >>> reflection_rate(3, 600)
    5.0
    """
    return RATE_TOKENS * reflections / tokens if tokens else None


# ----------------------------------------------------------------------------------------------------- of each output


def outcome_efficiency(first_correct: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """Outcome efficiency of each output (2412.21187): σ·T̂ / T; the figure is their mean.

    Args:
        first_correct: tokens T̂ to the end of the first solution that arrives at the right answer; NaN where none does
            (σ = 0).
        n_tokens: all tokens T.

    Right after 30 of 100 tokens, and never right: 0.3 and 0.

    >>> outcome_efficiency(np.array([30, np.nan]), np.array([100, 200])).tolist()
    [0.3, 0.0]
    """
    return np.nan_to_num(first_correct / np.maximum(n_tokens, 1))


def process_efficiency(new_tokens: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """Process efficiency of each output (2412.21187): D / T; the figure is their mean.

    Args:
        new_tokens: tokens D of the solutions that are new.
        n_tokens: all tokens T.

    60 of 200 tokens in new solutions: 0.3.

    >>> process_efficiency(np.array([60]), np.array([200])).tolist()
    [0.3]
    """
    return new_tokens / np.maximum(n_tokens, 1)


def underthinking(first_correct: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """Underthinking of each wrong output (2501.18585): 1 - T̂ / T; the figure is their mean.

    Args:
        first_correct: tokens T̂ to the end of the first solution that arrives at the right answer; NaN where none does,
            and then T̂ = T.
        n_tokens: all tokens T.

    The right answer was there after 40 of 200 tokens and given up again; another output never had it: 0.8 and 0.

    >>> underthinking(np.array([40, np.nan]), np.array([200, 100])).tolist()
    [0.8, 0.0]
    """
    return np.nan_to_num(1 - first_correct / np.maximum(n_tokens, 1))


def hca(correct: np.ndarray, n_tokens: np.ndarray, budget: float) -> np.ndarray:
    """Hard-k concise accuracy of each output (2407.19825): 1 if it is right and has at most k tokens, else 0.

    Args:
        correct: 1 where it is right, else 0.
        n_tokens: its tokens.
        budget: tokens k.

    >>> hca(np.array([1, 1, 0]), np.array([100, 101, 50]), 100).tolist()
    [1, 0, 0]
    """
    return correct * (n_tokens <= budget)


def sca(correct: np.ndarray, n_tokens: np.ndarray, budget: float, alpha: float = 10.0) -> np.ndarray:
    """Soft-k concise accuracy of each output (2407.19825): correct · min(1, exp((k - ℓ) / α)).

    Args:
        correct: 1 where it is right, else 0.
        n_tokens: its tokens ℓ.
        budget: tokens k.
        alpha: so many tokens above k leave 1 / e of the credit.

    Right with 110 tokens at k = 100 and α = 10: exp(-1) = 0.3679.

    >>> sca(np.array([1, 1]), np.array([90, 110]), 100, 10.0).round(4).tolist()
    [1.0, 0.3679]
    """
    return correct * np.exp(np.minimum(0.0, (budget - n_tokens) / alpha))


def consistency(n_tokens: np.ndarray, beta: float = 20.0) -> float:
    """What consistent concise accuracy (2407.19825) multiplies SCA(k, α) with: min(1, exp((β - s) / β)).

    Args:
        n_tokens: tokens of all outputs; s is their standard deviation (of the population).
        beta: deviation up to which nothing is taken off.

    Lengths 60 and 140 deviate by 40, β = 20: exp(-1) = 0.3679.

    >>> round(consistency(np.array([60, 140]), 20.0), 4)
    0.3679
    """
    return float(np.exp(min(0.0, (beta - float(n_tokens.std())) / beta)))
