"""`drp problems FILE`: writes word problems of the built-in generator."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from drp_hf.commands.parsing import parse_and_run
from drp_hf.problems import FAMILIES, generate
from drp_hf.unseen_problems import UNSEEN_FAMILIES


@dataclass
class ProblemsConfig:
    """
    Configuration of `drp problems`.

    Parameters:
        > Parameters that control what is written

        output (`str`):
            JSON Lines file with `question` and `answer`.
        count (`int`, *optional*, defaults to `200`):
            How many problems.
        split (`str`, *optional*, defaults to `"train"`):
            `"train"` or `"test"`; they never share a question.
        seed (`int`, *optional*, defaults to `0`):
            The same seed gives the same problems.
        families (`str`, *optional*, defaults to `"seen"`):
            `"seen"` or `"unseen"`: whether the embedded reasoner was taught on problems of their kind.
    """

    output: str = field(metadata={"help": "JSON Lines file with `question` and `answer`."})
    count: int = field(default=200, metadata={"help": "How many problems."})
    split: Literal["train", "test"] = field(default="train", metadata={"help": "They never share a question."})
    seed: int = field(default=0, metadata={"help": "The same seed gives the same problems."})
    families: Literal["seen", "unseen"] = field(
        default="seen", metadata={"help": "Whether the embedded reasoner was taught on problems of their kind."}
    )


def main(config: ProblemsConfig) -> Path:
    """Writes the problems and returns the file's path."""
    families = FAMILIES if config.families == "seen" else UNSEEN_FAMILIES
    problems = generate(config.count, config.split, config.seed, families)
    rows = [asdict(problem.to_problem()) for problem in problems]
    path = Path(config.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} {config.split} problems in {path}")
    return path


def cli() -> None:
    """Entry point of `drp problems`."""
    parse_and_run(main, ProblemsConfig, "output")
