"""Results of the study: one small file for each arm and seed, and what is read off all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drp_hf.composites import aes
from drp_hf.errors import DRPError
from drp_hf.figures import CONSTANTS
from drp_hf.statistics import bootstrap_intervals
from drp_hf.store import whole_file

REASONER_ARM = "1_reasoner"
REPEATS = "repeats"
"""Folder of results that were made once more, below that of the first ones."""
TESTS = {"heldout": "held-out", "unseen": "unseen families", "svamp": "SVAMP"}


@dataclass(frozen=True)
class Answers:
    """Scores of the answers to a test, an entry a question.

    Args:
        right: 1 where the answer is right, else 0.
        tokens: of the whole output.
    """

    right: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True)
class Result:
    """What came of an arm with a seed.

    Args:
        arm: its name.
        seed: of the training.
        settings: the arm's.
        training: `rows`, `steps`, `tokens` (prompts included), `seconds` and `nll`, the mean negative log-likelihood
            of the completions under the reasoner in nats a token; empty where nothing was trained. Of DPO without the
            training before it.
        made: the command, the date (UTC), the machine, versions and fingerprints.
        tests: the answers by test.
    """

    arm: str
    seed: int
    settings: Mapping[str, Any]
    training: Mapping[str, float]
    made: Mapping[str, Any]
    tests: Mapping[str, Answers]


def result_file(folder: str | Path, arm: str, seed: int) -> Path:
    return Path(folder) / f"{arm}-{seed}.json"


def write_result(folder: str | Path, result: Result) -> None:
    """Writes a result; answers as one line a test."""
    file = result_file(folder, result.arm, result.seed)
    values = {
        "arm": result.arm,
        "seed": result.seed,
        "settings": result.settings,
        "training": result.training,
        "made": result.made,
        "tests": {
            name: {
                "accuracy": round(float(answers.right.mean()), 4),
                "mean_tokens": round(float(answers.tokens.mean()), 2),
                "right": "".join(str(int(each)) for each in answers.right),
                "tokens": " ".join(str(int(each)) for each in answers.tokens),
            }
            for name, answers in result.tests.items()
        },
    }
    with whole_file(file) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_result(file: Path) -> Result:
    """Reads a result.

    Raises:
        DRPError: the file is none.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        tests = {
            name: Answers(np.array(list(map(int, each["right"]))), np.array(list(map(int, each["tokens"].split()))))
            for name, each in values["tests"].items()
        }
        return Result(**{**values, "tests": tests})
    except (KeyError, TypeError, ValueError) as error:
        raise DRPError(f"{file} holds no result of the study ({error!r}): delete it, and run its arm again.") from None


def read_results(folder: str | Path) -> dict[str, list[Result]]:
    """All results by arm, the seeds in order."""
    found: dict[str, list[Result]] = {}
    for file in sorted(Path(folder).glob("*.json")):
        result = read_result(file)
        found.setdefault(result.arm, []).append(result)
    return found


def reasoner_of(results: Mapping[str, Sequence[Result]]) -> Result:
    """The result of the reasoner as it is."""
    if REASONER_ARM not in results:
        raise DRPError(
            f"There is no result of {REASONER_ARM} yet: run `python -m recipes.study --arms {REASONER_ARM}`."
        )
    return results[REASONER_ARM][0]


@dataclass(frozen=True)
class Comparison:
    """An arm beside the reasoner on one test, seeds averaged question by question; intervals are 95 %.

    Args:
        tokens, accuracy: means.
        saved: share of the reasoner's tokens that is saved.
        gained: accuracy over the reasoner's.
        kept: share of the reasoner's right answers that stay right.
        gained_interval: from paired bootstrap resamples of the questions.
        aes: accuracy-efficiency score (2501.12570).
        tokens_per_right: tokens of all answers over the number of right ones.
        by_seed: the accuracy of each seed.
    """

    tokens: float
    accuracy: float
    saved: float
    gained: float
    kept: float
    gained_interval: Sequence[float]
    aes: float
    tokens_per_right: float
    by_seed: Sequence[float]


def compare(results: Sequence[Result], reasoner: Result, test: str) -> Comparison:
    """Compares the seeds of an arm with the reasoner on one test.

    Raises:
        DRPError: they were made with other questions.
    """
    base = reasoner.tests[test]
    for result in results:
        asked = (result.made["fingerprints"][test], reasoner.made["fingerprints"][test])
        if asked[0] != asked[1]:
            raise DRPError(f"{result.arm}-{result.seed} and the reasoner answered other questions of {test}.")
    right = np.mean([result.tests[test].right for result in results], axis=0)
    tokens = np.mean([result.tests[test].tokens for result in results], axis=0)
    table = np.stack([right, tokens, base.right, base.tokens], axis=1).astype(float)

    interval = bootstrap_intervals(table, lambda means: {"gained": means[:, 0] - means[:, 2]})["gained"]
    accuracy, mean_tokens, base_accuracy, base_tokens = map(float, table.mean(axis=0))
    return Comparison(
        tokens=mean_tokens,
        accuracy=accuracy,
        saved=1 - mean_tokens / base_tokens,
        gained=accuracy - base_accuracy,
        kept=float(right[base.right == 1].mean()) if base.right.any() else 1.0,
        gained_interval=interval,
        aes=aes(accuracy, mean_tokens, base_accuracy, base_tokens, **CONSTANTS["aes"]),
        tokens_per_right=mean_tokens / accuracy if accuracy else float("inf"),
        by_seed=[float(result.tests[test].right.mean()) for result in results],
    )
