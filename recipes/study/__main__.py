"""Runs the study: `python -m recipes.study [--arms NAME …] [--seeds N …]`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np
import torch
from rich.console import Console

from drp_hf.budget_forcing import FORCED_END
from drp_hf.commands.parsing import parse, run
from drp_hf.embedded import REASONER
from drp_hf.engines.base import QUESTION, put
from drp_hf.errors import DRPError
from drp_hf.evaluations import read_evaluation
from drp_hf.likelihood import Likelihood
from drp_hf.models import model_identity
from drp_hf.provenance import fingerprint, versions
from drp_hf.store import content_key
from recipes.experiment.stages import is_trained, training_figures
from recipes.study.arms import Arm, choose, read_arms
from recipes.study.material import Material, StudyConfig, read_pairs, run_recipe
from recipes.study.results import (
    REASONER_ARM,
    REPEATS,
    Answers,
    Result,
    read_result,
    read_results,
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
    for seed in config.seeds:
        for arm in chosen:
            # Without a training there is nothing that a seed would change.
            run_arm(arm, seed if arm.trained else 0, material, arms)
    print_tables(config.results_dir)


def run_arm(arm: Arm, seed: int, material: Material, arms: Mapping[str, Arm]) -> Result:
    """Makes the result of an arm, or reads it where it is there already.

    Raises:
        DRPError: the result that is there was made with other settings.
    """
    config = material.config
    folder = Path(config.results_dir) / (REPEATS if config.repeat else "")
    file = result_file(folder, arm.name, seed)
    if file.exists():
        found = read_result(file)
        if found.settings != json.loads(json.dumps(arm.settings)):
            raise DRPError(f"{file} was made with other settings of {arm.name}: delete it to run the arm again.")
        return found
    Console(stderr=True).rule(f"[bold]{arm.name}, seed {seed}")
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
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "versions": versions(),
        "fingerprints": {"reasoner": " ".join(model_identity(REASONER)), **learnt}
        | {test: fingerprint(path) for test, path in material.tests.items()},
    }
    result = Result(arm.name, seed, arm.settings, training, made, answers)
    write_result(folder, result)
    return result


# ------------------------------------------------------------------------------------------------------- training


def train(arm: Arm, seed: int, material: Material, arms: Mapping[str, Arm]) -> Path:
    """Trains the student of an arm; one that is there already is kept."""
    student = material.folder / "students" / f"{arm.name}-{seed}"
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
    if not kept.exists():
        some = Random(0).sample(rows, min(SCORED, len(rows)))
        kept.parent.mkdir(parents=True, exist_ok=True)
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
    """The scores of the reasoner's answers, cut at the mean length of another arm and forced to an end."""
    like = read_results(material.config.results_dir).get(arm.budget_of)
    if not like:
        raise DRPError(f"{arm.name} needs the length of {arm.budget_of}: run that arm first.")
    run_arm(arms[REASONER_ARM], 0, material, arms)
    length = np.mean([result.tests["heldout"].tokens.mean() for result in like])
    budget = round(length) - material.count_tokens(FORCED_END) - ANSWER_TOKENS
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
    run(main, parse(StudyConfig, None))
