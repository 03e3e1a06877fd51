"""What rollout and evaluation share: questions in, one durable row for every answer out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from drp_hf.errors import DRPError
from drp_hf.records import Problem
from drp_hf.store import RowStore, content_key

STORE = "outputs.sqlite"


@dataclass
class GenerationArguments:
    """
    Arguments of the commands that let a model answer questions.

    Parameters:
        > Parameters that control what is asked

        problems (`str`):
            Problems with `question` and `answer`: a JSON Lines or Parquet file, a folder, or a data set's name.
        model (`str`):
            Who answers: `smollm2-embedded`, a local folder (model or LoRA adapter), or a model's name on the Hub.
        output_dir (`str`):
            Folder of the run. A run that was interrupted goes on where it stopped.
        split (`str`, *optional*):
            Split to read where the problems have several.
        limit (`int`, *optional*):
            Only so many problems, from the first on.

        > Parameters that control generation

        max_tokens (`int`, *optional*, defaults to `12000`):
            An output is cut after so many tokens.
        temperature (`float`, *optional*):
            0 is greedy.
        top_p (`float`, *optional*):
            Smallest probability mass that is sampled from.
        seed (`int`, *optional*, defaults to `0`):
            Makes sampling repeatable.
        engine (`str`, *optional*, defaults to `"auto"`):
            `transformers`, `vllm`, or `auto` for vLLM when it is installed, else transformers.
        batch_size (`int`, *optional*):
            Outputs written at the same time; the engine's own default if not given.
    """

    problems: str = field(metadata={"help": "Problems with `question` and `answer`: file, folder or data set."})
    model: str = field(metadata={"help": "Who answers: smollm2-embedded, a local folder or a name on the Hub."})
    output_dir: str = field(metadata={"help": "Folder of the run; an interrupted run goes on where it stopped."})
    split: str | None = field(default=None, metadata={"help": "Split to read where the problems have several."})
    limit: int | None = field(default=None, metadata={"help": "Only so many problems, from the first on."})
    max_tokens: int = field(default=12_000, metadata={"help": "An output is cut after so many tokens."})
    temperature: float = field(default=0.0, metadata={"help": "0 is greedy."})
    top_p: float = field(default=1.0, metadata={"help": "Smallest probability mass that is sampled from."})
    seed: int = field(default=0, metadata={"help": "Makes sampling repeatable."})
    engine: str = field(default="auto", metadata={"help": "transformers, vllm, or auto."})
    batch_size: int | None = field(default=None, metadata={"help": "Outputs written at the same time."})


def answer_all(config: GenerationArguments, samples: int = 1) -> list[dict[str, Any]]:
    """Lets the model answer every problem; each answer is on disk as soon as it is written.

    Args:
        config: what is asked and how.
        samples: answers to each problem.

    Returns:
        One row an answer, in the order of the problems, the samples of a problem together: `question`, `answer`
        (gold), `output` (all the model wrote), `model`, `sample`, `n_tokens`, `finished` (False if it was cut).

    Raises:
        DRPError: a setting or a problem that cannot be used.
    """
    _check(config, samples)
    from drp_hf.corpus.reading import read_problems
    from drp_hf.engines import Sampling, make_engine, resolve_engine
    from drp_hf.models import model_identity

    problems = read_problems(config.problems, config.split)[: config.limit]
    engine_name = resolve_engine(config.engine)
    sampling = Sampling(config.max_tokens, config.temperature, config.top_p, config.seed)
    settings = [model_identity(config.model), engine_name, vars(sampling)]
    asked: list[tuple[str, Problem, int]] = [
        (content_key(settings, problem.question, problem.answer, sample), problem, sample)
        for problem in problems
        for sample in range(samples)
    ]
    with RowStore(Path(config.output_dir) / STORE) as store:
        missing = {key: (problem, sample) for key, problem, sample in asked if key not in store}
        if len(missing) < len(asked):
            done = f"{len(asked) - len(missing)} of {len(asked)} answers are there already"
            Console(stderr=True, soft_wrap=True).print(f"{config.output_dir}: {done}", markup=False, highlight=False)
        if missing:
            engine = make_engine(engine_name, config.model, batch_size=config.batch_size, seed=config.seed)
            keys = list(missing)
            questions = [problem.question for problem, _ in missing.values()]
            # The seed comes from the question and not from its place: going on gives what an undisturbed run gives.
            seeds = [int(key[:15], 16) for key in keys]
            for index, completion in engine.generate(questions, sampling, seeds):
                problem, sample = missing[keys[index]]
                store.put(
                    keys[index],
                    {
                        "question": problem.question,
                        "answer": problem.answer,
                        "output": completion.text,
                        "model": config.model,
                        "sample": sample,
                        "n_tokens": completion.n_tokens,
                        "finished": completion.finished,
                    },
                )
        return [store.get(key) for key, _, _ in asked]


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line; the file appears under its name only when it is complete."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    os.replace(partial, path)


def _check(config: GenerationArguments, samples: int) -> None:
    settings = {"samples": samples, "max_tokens": config.max_tokens, "limit": config.limit}
    for name, value in {**settings, "batch_size": config.batch_size}.items():
        if value is not None and value < 1:
            raise DRPError(f"{name} is {value}: it must be at least 1.")
    if config.temperature < 0:
        raise DRPError(f"temperature is {config.temperature}: it must not be negative.")
    if not 0 < config.top_p <= 1:
        raise DRPError(f"top_p is {config.top_p}: it must be above 0 and at most 1.")
    if samples > 1 and config.temperature == 0:
        raise DRPError("At temperature 0 all samples are the same: raise the temperature, or set samples to 1.")
