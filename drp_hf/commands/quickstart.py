"""`drp quickstart`: the whole pipeline on the embedded default, without GPU, Hub or key.

Problems → rollout by the reasoner → pruned corpus → DRP training → both measured on held-out problems → report. Each
stage is the command of that name with the settings of `recipes/quickstart/<stage>.yaml`. With `--student released`
nothing is trained: the student that comes with the package is measured.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from drp_hf.commands import evaluate, problems, prune, report, rollout, sft
from drp_hf.commands.parsing import parse, parse_and_run
from drp_hf.commands.training import is_trained, tell_kept
from drp_hf.embedded import REASONER, STUDENT, STUDENT_PROMPT


@dataclass
class QuickstartConfig:
    """
    Configuration of `drp quickstart`.

    Parameters:
        > Parameters that control the run

        output_dir (`str`, *optional*, defaults to `"runs/quickstart"`):
            Folder of everything the run makes. An interrupted run goes on where it stopped.
        seed (`int`, *optional*, defaults to `0`):
            Decides the problems of both splits and the training.
        train_problems (`int`, *optional*, defaults to `176`):
            Problems the reasoner writes traces for.
        test_problems (`int`, *optional*, defaults to `160`):
            Held-out problems on which reasoner and student are measured.
        student (`str`, *optional*, defaults to `"trained"`):
            Who is measured beside the reasoner: `"trained"`, a student that is trained now, or `"released"`, the one
            that comes with the package.
    """

    output_dir: str = field(default="runs/quickstart", metadata={"help": "Folder of everything the run makes."})
    seed: int = field(default=0, metadata={"help": "Decides problems and training."})
    train_problems: int = field(default=176, metadata={"help": "Problems the reasoner writes traces for."})
    test_problems: int = field(default=160, metadata={"help": "Held-out problems to measure on."})
    student: Literal["trained", "released"] = field(
        default="trained", metadata={"help": "The student to measure: trained now, or released with the package."}
    )


def heading(text: str) -> None:
    """Says which stage begins."""
    Console(stderr=True).rule(text)


def settings(types: Any, stage: str, **overrides: Any) -> Any:
    """The config of a stage: its YAML in the recipes, with some fields overridden."""
    flags = [word for name, value in overrides.items() for word in (f"--{name}", str(value))]
    with resources.as_file(resources.files("drp_hf.quickstart_recipes") / f"{stage}.yaml") as recipe:
        return parse(types, ["--config", str(recipe), *flags])


def main(config: QuickstartConfig) -> Path:
    """Runs the stages one after the other.

    Returns:
        The path of the report.
    """
    run_dir = Path(config.output_dir)
    heading("problems")
    # Seed 0 of the train split is what the reasoner itself was taught on.
    train, test = (
        problems.main(problems.ProblemsConfig(str(run_dir / f"{split}.jsonl"), count, split, config.seed + 1))
        for split, count in (("train", config.train_problems), ("test", config.test_problems))
    )
    before = run_dir / "before"
    of_student = {"baseline": before}
    if config.student == "released":
        student, corpus, after, page = STUDENT, None, run_dir / "released", run_dir / "released.html"
        of_student["prompt"] = STUDENT_PROMPT
    else:
        student, corpus = train_student(config, train)
        after, page = run_dir / "after", run_dir / "report.html"
    heading("evaluate: reasoner and student on held-out problems")
    for model, output_dir, own in ((REASONER, before, {}), (student, after, of_student)):
        evaluate.main(
            settings(evaluate.EvaluateConfig, "evaluate", benchmarks=test, model=model, output_dir=output_dir, **own)
        )
    heading("report")
    return report.main(report.ReportConfig([str(before), str(after)], corpus, str(page)))


def train_student(config: QuickstartConfig, train: Path) -> tuple[str, str]:
    """Makes a student of the reasoner; one of the same settings and corpus that is there already is kept.

    Args:
        config: the run's.
        train: the problems it learns from.

    Returns:
        The folders of the student and of the corpus that it was trained on.
    """
    from trl import ModelConfig

    from drp_hf.drp_config import DRPConfig

    run_dir = Path(config.output_dir)
    heading("rollout: the reasoner writes traces")
    traces = rollout.main(
        settings(
            rollout.RolloutConfig,
            "rollout",
            problems=train,
            model=REASONER,
            output_dir=run_dir / "rollout",
            seed=config.seed,
        )
    )
    heading("prune: traces become a verified corpus")
    corpus = prune.main(settings(prune.PruneConfig, "prune", traces=traces, output_dir=run_dir / "corpus"))
    heading("sft: the student learns from the pruned traces")
    student = run_dir / "student"
    training = settings(
        (sft.SFTArguments, DRPConfig, ModelConfig),
        "sft",
        dataset=corpus,
        model_name_or_path=REASONER,
        output_dir=student,
        seed=config.seed,
        resume_from_checkpoint="true",
    )
    same = sft.is_same_student(*training)
    if not same:
        for checkpoint in student.glob("checkpoint-*"):  # or it would go on from another training's
            shutil.rmtree(checkpoint)
    if same and is_trained(student):
        tell_kept(student)
    else:
        sft.main(*training)
    return str(student), str(corpus)


def cli() -> None:
    """Entry point of `drp quickstart`."""
    parse_and_run(main, QuickstartConfig)
