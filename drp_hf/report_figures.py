"""The figures of a benchmark as rows of text, a column a run: what a report's tables hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One figure of one run: its value, and its interval if it has one; empty where the run has no such figure."""

    value: str
    interval: str = ""


@dataclass(frozen=True)
class Row:
    """One figure of every run.

    Args:
        label: its name.
        note: what it means, or its formula; may be empty.
        cells: one a run, in the order of the runs.
    """

    label: str
    note: str
    cells: list[Cell]


# ----------------------------------------------------------------------------------------------------------- numbers

MINUS = "\N{MINUS SIGN}"
UNDEFINED = "\N{EN DASH}"


def percent(value: float) -> str:
    """0.941 as "94.1%"."""
    return f"{value:.1%}".replace("-", MINUS)


def points(value: float) -> str:
    """A difference of shares in percentage points: 0.024 as "+2.4"."""
    return f"{100 * value:+.1f}".replace("-", MINUS)


def tokens(value: float) -> str:
    """Tokens: with one decimal up to a thousand, whole from there on."""
    return f"{value:,.1f}" if abs(value) < 999.95 else f"{value:,.0f}"


def whole(value: float) -> str:
    """A count, or tokens that need no decimals."""
    return f"{value:,.0f}"


def three_decimals(value: float) -> str:
    """A score around 1."""
    return f"{value:.3f}".replace("-", MINUS)


def three_digits(value: float) -> str:
    """A number of any size."""
    return f"{value:.3g}".replace("-", MINUS)


def p_value(value: float) -> str:
    """The probability of a test."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def shown(value: float | None, form: Callable[[float], str]) -> str:
    """A figure as text; a dash where it is not defined."""
    return UNDEFINED if value is None else form(value)


def interval(figures: Figures, name: str, form: Callable[[float], str]) -> str:
    """The interval of a figure as text, empty where it has none."""
    ends = figures.get(f"{name}_interval")
    if ends is None or None in ends:
        return ""
    return f"{form(ends[0])} to {form(ends[1])}"


def change(reduction: float | None) -> str:
    """Saved tokens as a change: 0.643 as "−64.3%"."""
    return shown(None if reduction is None else -reduction, lambda value: f"{value:+.1%}".replace("-", MINUS))


def change_interval(figures: Figures) -> str:
    """The interval of the change of tokens as text, the larger saving first."""
    ends = figures["token_reduction_interval"]
    return "" if None in ends else f"{change(ends[1])} to {change(ends[0])}"


# ------------------------------------------------------------------------------------------------------------ tables

TOKENS = [
    ("mean_tokens", "Mean", "whole output, right or wrong", tokens),
    ("median_tokens", "Median", "", whole),
    ("p90_tokens", "90th percentile", "", whole),
    ("p99_tokens", "99th percentile", "", whole),
    ("mean_think_tokens", "Mean of thinking", "with its tags", tokens),
    ("mean_answer_tokens", "Mean of the answer", "what follows the thinking", tokens),
    ("mean_tokens_correct", "Mean of right outputs", "", tokens),
    ("mean_tokens_wrong", "Mean of wrong outputs", "", tokens),
    ("tokens_per_correct", "Per right answer", "all tokens ÷ right answers", tokens),
]
ENDINGS = [
    ("share_truncated", "Cut off", "ended by the limit", percent),
    ("share_without_answer", "Without an answer", "", percent),
    ("n_samples", "Outputs", "", whole),
]
COMPARISON = [
    ("token_reduction", "Tokens saved", "1 − mean tokens after ÷ before", percent),
    ("mean_token_reduction", "Tokens saved a question", "mean of 1 − after ÷ before", percent),
    ("delta_accuracy", "Accuracy gained", "percentage points", points),
    ("questions_gained", "Questions gained", "right more often", whole),
    ("questions_lost", "Questions lost", "right less often", whole),
    ("mcnemar_p", "McNemar's exact p", "sign test of gained and lost", p_value),
]


COMPOSITES = [
    ("accuracy_per_token", "Accuracy per token", "A / L", three_digits),
    ("acu", "ACU", "A / (parameters × L), 2502.09601", three_digits),
    ("outcome_efficiency", "Outcome efficiency", "mean of σ·T̂ / T, 2412.21187", three_decimals),
    ("process_efficiency", "Process efficiency", "mean of D / T, 2412.21187", three_decimals),
    ("underthinking", "Underthinking", "mean over wrong outputs of 1 − T̂ / T, 2501.18585", three_decimals),
    ("e3", "E3", "[w·r_A^ρ + (1 − w)·r_T^ρ]^(1/ρ), 2511.10201", three_decimals),
    ("reflection_rate", "Reflection markers", "a thousand tokens", three_digits),
]
CONCISE = [
    ("hca", "HCA", "right within k tokens, 2407.19825"),
    ("sca", "SCA", "mean of correct · min(1, e^((k − ℓ) / α)), 2407.19825"),
    ("cca", "CCA", "SCA · min(1, e^((β − s) / β)), 2407.19825"),
]


def rows_of(names: Sequence[tuple[str, str, str, Callable[[float], str]]], runs: Sequence[Figures]) -> list[Row]:
    """Rows of figures.

    Args:
        names: of every row the key, the label, the note and the form of its numbers.
        runs: the figures of every run; a baseline has none that compare with it.
    """
    return [
        Row(label, note, [_cell(run, name, form) if name in run else Cell("") for run in runs])
        for name, label, note, form in names
    ]


def figure_groups(runs: Sequence[Figures], forced: Sequence[Mapping[str, Figures]]) -> list[tuple[str, list[Row]]]:
    """The main table in groups of rows, each with its title.

    Args:
        runs: the figures of every run, the baseline first.
        forced: of every run what was measured when the answer was forced, by budget; empty where it was not.
    """
    passes = sorted({k for run in runs for k in run["pass_at_k"] if k != "1"}, key=int)
    accuracy = [("accuracy", "Accuracy", "pass@1" if passes else "share of right answers", percent)]
    pass_rows = [
        Row(f"Pass@{k}", f"one of {k} samples right", [_cell(run["pass_at_k"], k, percent) for run in runs])
        for k in passes
    ]
    limit = max(run["budget_limit"] for run in runs)
    share = runs[0]["constants"]["budget_keeping"]["share"]
    budget = [
        ("budget_auc", "Area under the curve", f"budgets up to {whole(limit)} tokens", three_decimals),
        ("budget_keeping", "Budget that suffices", f"tokens, for {share:.0%} of the accuracy", whole),
    ]
    forced_rows = [
        Row(f"Forced after {whole(int(k))} tokens", "accuracy, mean tokens", [_forced(run.get(k)) for run in forced])
        for k in sorted({k for run in forced for k in run}, key=int)
    ]
    groups = [
        ("Answers", rows_of(accuracy, runs) + pass_rows + rows_of(ENDINGS, runs)),
        ("Tokens of an output", rows_of(TOKENS, runs)),
        ("Accuracy at a budget", rows_of(budget, runs) + forced_rows),
    ]
    if len(runs) > 1:
        weights = runs[0]["constants"]["aes"]
        named = ", ".join(f"{weights[name]:g}" for name in ("alpha", "beta", "gamma"))
        aes = ("aes", "AES", f"α, β, γ = {named}, 2501.12570", three_decimals)
        groups.append(("Compared with the first run", rows_of([*COMPARISON, aes], runs)))
    return groups


def composite_rows(runs: Sequence[Figures]) -> list[Row]:
    """Rows of the composite figures; those that no run has are left out."""
    sizes = [run["constants"]["acu"].get("n_parameters") for run in runs]
    rows = rows_of(COMPOSITES, runs)
    rows.insert(1, Row("Parameters", "of the model", [Cell("" if size is None else whole(size)) for size in sizes]))
    for name, label, note in CONCISE:
        budgets = sorted({budget for run in runs for budget in run[name]}, key=int)
        rows += [
            Row(
                f"{label}({whole(int(k))})",
                note if k == budgets[0] else "",
                [_cell(run[name], k, three_decimals) for run in runs],
            )
            for k in budgets
        ]
    return [row for row in rows if any(cell.value not in ("", UNDEFINED) for cell in row.cells)]


def constants_text(constants: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[tuple[str, str]]:
    """Every constant of the runs, by the figure that it belongs to; the sizes of models are in the table."""
    every = {name: values for of_run in reversed(constants) for name, values in of_run.items()}
    return [
        (name, ", ".join(f"{key} = {_constant(value)}" for key, value in values.items() if key != "n_parameters"))
        for name, values in every.items()
    ]


def _constant(value: Any) -> str:
    if isinstance(value, list):
        return " / ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else repr(value)


def _forced(measured: Figures | None) -> Cell:
    if measured is None:
        return Cell("")
    return Cell(percent(measured["accuracy"]), f"{tokens(measured['mean_tokens'])} tokens")


def _cell(run: Figures, name: str, form: Callable[[float], str]) -> Cell:
    return Cell(shown(run.get(name), form), interval(run, name, form))
