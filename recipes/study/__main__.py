"""Runs the study: `python -m recipes.study [--arms NAME …] [--seeds N …]`.

Several such commands at once share the work: each takes an arm that no other is at, and waits for what it needs of
another's.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import torch
from filelock import Timeout
from rich.console import Console

from drp_hf.budget_forcing import FORCED_END
from drp_hf.commands.parsing import parse_and_run
from drp_hf.commands.training import is_trained
from drp_hf.embedded import REASONER
from drp_hf.engines.base import QUESTION, put
from drp_hf.errors import DRPError
from drp_hf.evaluations import read_evaluation
from drp_hf.likelihood import Likelihood
from drp_hf.models import model_identity
from drp_hf.provenance import fingerprint, versions
from drp_hf.store import content_key
from recipes.experiment.stages import training_figures
from recipes.study.arms import Arm, choose, read_arms
from recipes.study.material import Material, StudyConfig, alone, read_pairs, run_recipe
from recipes.study.results import (
    REASONER_ARM,
    REPEATS,
    Answers,
    Result,
    read_result,
    result_file,
    write_result,
)
from recipes.study.table import print_tables

SCORED = 100
"""Training texts whose likelihood is measured."""
ANSWER_TOKENS = 3
"""Tokens that an answer forced at once has, about."""


def main(config: StudyConfig) -> None:
    """Runs the arms that have no result yet, a seed after the other, and prints the tables."""
    arms = read_arms()
    chosen = choose(config.arms, arms)
    material = Material(config)
    for wait in (False, True):  # first what no other process is at
        for seed in config.seeds:
            for arm in chosen:
                with suppress(Timeout):
                    # Without a training there is nothing that a seed would change.
                    run_arm(arm, seed if arm.trained else 0, material, arms, wait)
    print_tables(config.results_dir)


def run_arm(arm: Arm, seed: int, material: Material, arms: Mapping[str, Arm], wait: bool = True) -> Result:
    """Makes the result of an arm, or reads it where it is there already.

    Args:
        arm, seed: what to run.
        material: the study's.
        arms: all of them, by name.
        wait: whether to wait for another process that is at it.

    Raises:
        DRPError: the result that is there was made with other settings.
        Timeout: another process is at it, and it is not waited for.
    """
    config = material.config
    folder = Path(config.results_dir) / (REPEATS if config.repeat else "")
    file = result_file(folder, arm.name, seed)
    if not file.exists():
        with alone(material.folder / "arms" / f"{arm.name}-{seed}", wait):
            if not file.exists():  # another process may have made it by now
                Console(stderr=True).rule(f"[bold]{arm.name}, seed {seed}")
                write_result(folder, make_result(arm, seed, material, arms))
    found = read_result(file)
    if found.settings != json.loads(json.dumps(arm.settings)):
        raise DRPError(f"{file} was made with other settings of {arm.name}: delete it to run the arm again.")
    return found


def make_result(arm: Arm, seed: int, material: Material, arms: Mapping[str, Arm]) -> Result:
    """Trains the arm's student, if it has one, and lets it answer the tests."""
    training, model, learnt = {}, REASONER, {}
    if arm.trained:
        taught = arms[arm.student_of] if arm.student_of else arm
        student = train(taught, seed, material, arms)
        rows = learnt_rows(arms[taught.after] if taught.after else taught, material)
        learnt = {"learnt": content_key(rows)[:16]}
        training = {"rows": len(rows), **training_figures(student), "nll": nll(rows, learnt["learnt"], material)}
        model = str(student)
    if arm.budget_of:
        answers = cut_answers(arm, material, arms)
    else:
        answers = whole_answers(evaluate(f"{arm.name}-{seed}", model, material, **arm.asking))
    made = {
        "command": shlex.join(["python", "-m", "recipes.study", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": versions(),
        "fingerprints": {"reasoner": " ".join(model_identity(REASONER)), **learnt}
        | {test: fingerprint(path) for test, path in material.tests.items()},
    }
    return Result(arm.name, seed, arm.settings, training, made, answers)


# ------------------------------------------------------------------------------------------------------- training


def train(arm: Arm, seed: int, material: Material, arms: Mapping[str, Arm]) -> Path:
    """Trains the student of an arm; one that is there already is kept."""
    student = material.folder / "students" / f"{arm.name}-{seed}"
    with alone(student):
        if is_trained(student):
            return student
        if arm.after:
            taught, stage, settings = arms[arm.after], "dpo", arm.dpo
            before = train(taught, seed, material, arms)
        else:
            taught, stage, settings, before = arm, "sft", arm.sft, REASONER
        own = {"dataset": str(learnt_from(taught, material)), "model_name_or_path": str(before), "seed": seed}
        return run_recipe(stage, stage, student, {**own, **taught.asking, **settings})


def learnt_from(arm: Arm, material: Material) -> Path:
    """The data set of an arm."""
    return material.texts(arm.texts) if arm.texts else material.corpus(arm.prune)


def learnt_rows(arm: Arm, material: Material) -> list[tuple[str, str]]:
    """Questions and completions that an arm trains on."""
    view = "masked-raw" if arm.sft.get("loss_scope") == "masked-raw" else None
    rows = read_pairs(learnt_from(arm, material), view)
    return [(put(question, arm.prompt or QUESTION), completion) for question, completion in rows]


def nll(rows: Sequence[tuple[str, str]], key: str, material: Material) -> float:
    """How unlikely the reasoner finds what is learnt, in nats a token: the learnability gap as a number.

    Args:
        rows: questions and completions.
        key: under which the figure is kept.
        material: the study's.
    """
    kept = material.folder / "nll" / f"{key}.json"
    with alone(kept):
        if not kept.exists():
            some = Random(0).sample(rows, min(SCORED, len(rows)))
            kept.write_text(json.dumps(fmean(score for _, score in Likelihood(REASONER, dtype="float32").score(some))))
    return round(json.loads(kept.read_text()), 4)


# -------------------------------------------------------------------------------------------------------- answers


def evaluate(name: str, model: str, material: Material, **settings: Any) -> Path:
    """Lets a model answer the tests."""
    benchmarks = [str(path) for path in material.tests.values()]
    folder = material.folder / "answers" / name
    return run_recipe("evaluate", "evaluate", folder, {"benchmarks": benchmarks, "model": model, **settings})


def whole_answers(folder: Path) -> dict[str, Answers]:
    """The scores of an evaluation's answers."""
    return {
        name: Answers(answers.table.correct.astype(int), answers.table.n_tokens.astype(int))
        for name, answers in read_evaluation(folder).benchmarks.items()
    }


def cut_answers(arm: Arm, material: Material, arms: Mapping[str, Arm]) -> dict[str, Answers]:
    """The scores of the reasoner's answers, cut at the mean length of another arm (seed 0) and forced to an end."""
    like, _ = (run_arm(arms[name], 0, material, arms) for name in (arm.budget_of, REASONER_ARM))
    budget = round(like.tests["heldout"].tokens.mean()) - material.count_tokens(FORCED_END) - ANSWER_TOKENS
    folder = evaluate(f"{REASONER_ARM}-0", REASONER, material, budgets=[budget], force_answer=True)
    answers = whole_answers(folder)
    places = {
        (name, question): place
        for name, each in read_evaluation(folder).benchmarks.items()
        for place, (question, _) in enumerate(each.problems)
    }
    with (folder / "forced.jsonl").open(encoding="utf-8") as stream:
        for row in map(json.loads, stream):
            of_test, place = answers[row["benchmark"]], places[row["benchmark"], row["question"]]
            of_test.right[place], of_test.tokens[place] = row["correct"], row["n_tokens"]
    return answers


if __name__ == "__main__":
    parse_and_run(main, StudyConfig)
