"""How much of what is gained rests on held-out questions that are training questions in other words.

`python -m recipes.study.twins`: a held-out question is a twin where a training question of its family has the same
equations, so that often only names and things differ. The table has what is gained without the twins, and on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table, box

from drp_hf.commands.parsing import parse_and_run
from drp_hf.errors import DRPError
from drp_hf.problems import WordProblem, generate
from recipes.study.material import PROBLEM_SEED, StudyConfig
from recipes.study.results import Answers, Result, compare, read_results, reasoner_of
from recipes.study.table import TableConfig, measures, ordered, rendered

SHOWN = ("right", "gained, points")


def main(config: TableConfig) -> None:
    """Prints the table."""
    results = read_results(config.results_dir)
    reasoner, twin = reasoner_of(results), heldout_twins()
    parts = {f"{sum(~twin)} without a twin": ~twin, f"{sum(twin)} twins": twin}
    table = Table("arm", *(f"{part}: {what}" for part in parts for what in SHOWN), box=box.MARKDOWN)
    for name in ordered(results):
        found = [
            compare(among(results[name], asked), *among([reasoner], asked), "heldout") for asked in parts.values()
        ]
        table.add_row(f"`{name}`", *(cell for each in found for cell in measures(each, SHOWN)))
    Console(soft_wrap=True, highlight=False, markup=False).print(rendered(table))


def heldout_twins() -> np.ndarray:
    """Which of the study's held-out questions are twins, shape `(questions,)`."""
    sizes = StudyConfig()
    known = {_problem(problem) for problem in generate(sizes.train_problems, "train", PROBLEM_SEED)}
    asked = generate(sizes.heldout_problems, "test", PROBLEM_SEED)
    return np.array([_problem(problem) in known for problem in asked])


def _problem(problem: WordProblem) -> tuple[str, ...]:
    return (problem.family, *(computation.equation for computation in problem.computations))


def among(results: Sequence[Result], asked: np.ndarray) -> list[Result]:
    """Results on some of the held-out questions.

    Raises:
        DRPError: they are of another number of questions.
    """
    part = []
    for result in results:
        answers = result.tests["heldout"]
        if len(answers.right) != len(asked):
            raise DRPError(
                f"{result.arm}-{result.seed} has {len(answers.right)} held-out answers, the study {len(asked)}."
            )
        part.append(replace(result, tests={"heldout": Answers(answers.right[asked], answers.tokens[asked])}))
    return part


if __name__ == "__main__":
    parse_and_run(main, TableConfig)
