"""What the arms are made of: problems, traces, corpora. Each is made when first needed, and then kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from rich.console import Console

from drp_hf.benchmarks import read_benchmark
from drp_hf.corpus.reading import read_traces
from drp_hf.embedded import REASONER
from drp_hf.models import load_tokenizer
from drp_hf.problems import WordProblem, generate
from drp_hf.pruning import judge
from drp_hf.records import Trace
from drp_hf.store import content_key, write_json_lines
from drp_hf.unseen_problems import UNSEEN_FAMILIES
from recipes.experiment.stages import read_settings, run_stage
from recipes.study.arms import FOLDER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBLEM_SEED = 7
"""The reasoner was taught on seed 0, and the quickstart takes those from 1 on."""


@dataclass
class StudyConfig:
    """
    Configuration of the study.

    Parameters:
        arms (`list[str]`, *optional*):
            Names of the arms to run; all of them if not given.
        seeds (`list[int]`, *optional*, defaults to `[0, 1, 2]`):
            Seeds of the trainings.
        output_dir (`str`, *optional*, defaults to `"runs/study"`):
            Folder of everything that is made on the way. An interrupted run goes on where it stopped.
        results_dir (`str`, *optional*, defaults to `"recipes/study/results"`):
            Folder of the results, one small JSON file for each arm and seed. What is there is not made again.
        repeat (`bool`, *optional*, defaults to `False`):
            Whether to make results once more that are there, into the subfolder `repeats`, beside which the tables
            then show them. Give another `output_dir`, or what was made on the way is used again.
        svamp (`str`, *optional*, defaults to `"svamp"`):
            SVAMP: a file with `question` and `answer`; from the Hub if not given.
        train_problems (`int`, *optional*, defaults to `1000`):
            Problems that the reasoner writes traces for.
        heldout_problems (`int`, *optional*, defaults to `500`):
            Test problems of the families that the reasoner was taught on.
        unseen_problems (`int`, *optional*, defaults to `200`):
            Test problems of other families.
        svamp_problems (`int`, *optional*, defaults to `300`):
            Test problems of SVAMP, from the first on.
    """

    arms: list[str] = field(default_factory=list, metadata={"help": "Names of the arms to run; else all."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2], metadata={"help": "Seeds of the trainings."})
    output_dir: str = field(default="runs/study", metadata={"help": "Folder of what is made on the way."})
    results_dir: str = field(default="recipes/study/results", metadata={"help": "Folder of the results."})
    repeat: bool = field(default=False, metadata={"help": "Make results again, into the subfolder `repeats`."})
    svamp: str = field(default="svamp", metadata={"help": "A file with SVAMP; from the Hub if not given."})
    train_problems: int = field(default=1000, metadata={"help": "Problems the reasoner writes traces for."})
    heldout_problems: int = field(default=500, metadata={"help": "Test problems of the reasoner's families."})
    unseen_problems: int = field(default=200, metadata={"help": "Test problems of other families."})
    svamp_problems: int = field(default=300, metadata={"help": "Test problems of SVAMP."})


def run_recipe(stage: str, recipe: str, output_dir: Path, settings: Mapping[str, Any]) -> Path:
    """Runs a `drp` command with the settings of one of the study's YAML files, and some over them.

    All settings then stand in `<output_dir>.<stage>.yaml`.

    Args:
        stage: the command.
        recipe: the file's name, without its ending.
        output_dir: what the command makes.
        settings: over those of the recipe.

    Returns:
        `output_dir`.
    """
    values = {**read_settings(FOLDER / f"{recipe}.yaml"), **settings, "output_dir": str(output_dir)}
    run_stage(stage, values, output_dir.with_name(f"{output_dir.name}.{stage}.yaml"))
    return output_dir


@contextmanager
def alone(path: Path, wait: bool = True) -> Iterator[None]:
    """Keeps other processes of the study away from what is made at `path`.

    The lock's file stays. Were it deleted, one that waits could lock the old file and one that comes a new one, which
    not every version of filelock notices, nor every network file system shows.

    Args:
        path: whose folder is made, for the lock beside it.
        wait: whether to wait for one that is at it.

    Raises:
        Timeout: one is at it, and it is not waited for.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise
        Console(stderr=True).print(f"Another process is at {path}: waiting for it.", soft_wrap=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Material:
    """Everything that several arms share.

    Args:
        config: the study's.
    """

    def __init__(self, config: StudyConfig):
        self.config = config
        self.folder = Path(config.output_dir)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(REASONER)

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    # ------------------------------------------------------------------------------------------------ problems

    @cached_property
    def problems(self) -> list[WordProblem]:
        """The training problems."""
        return list(generate(self.config.train_problems, "train", PROBLEM_SEED))

    @cached_property
    def tests(self) -> dict[str, Path]:
        """Files of test problems, by the name of the test."""
        config = self.config
        problems = {
            "heldout": generate(config.heldout_problems, "test", PROBLEM_SEED),
            "unseen": generate(config.unseen_problems, "test", PROBLEM_SEED, UNSEEN_FAMILIES),
        }
        rows = {name: [asdict(each.to_problem()) for each in written] for name, written in problems.items()}
        rows["svamp"] = list(map(asdict, read_benchmark(config.svamp, None, config.svamp_problems).problems))
        return {name: self._write(f"{name}.jsonl", each) for name, each in rows.items()}

    def _write(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        path = self.folder / name
        write_json_lines(path, rows)
        return path

    # -------------------------------------------------------------------------------------------------- traces

    @cached_property
    def greedy(self) -> list[Trace | None]:
        """The reasoner's likeliest trace of every training problem; None where it is not whole."""
        return self._rollout("rollout")

    @cached_property
    def samples(self) -> list[list[Trace]]:
        """Four traces of every training problem, the likeliest first, without those that are not whole."""
        sampled = self._rollout("rollout_sampled")
        each = len(sampled) // len(self.greedy)
        return [
            [trace for trace in (first, *sampled[each * number : each * (number + 1)]) if trace]
            for number, first in enumerate(self.greedy)
        ]

    def _rollout(self, recipe: str) -> list[Trace | None]:
        folder = self.folder / recipe
        with alone(folder):
            if not (folder / "traces.jsonl").exists():
                train = self._write("train.jsonl", [asdict(problem.to_problem()) for problem in self.problems])
                run_recipe("rollout", recipe, folder, {"problems": str(train), "model": REASONER})
        readings = read_traces(folder / "traces.jsonl")["train"]
        return [None if reading.problem else reading.trace for reading in readings]

    @cached_property
    def right(self) -> list[Trace]:
        """For every problem that one of the four traces solves, the first that does."""
        firsts = (next((trace for trace in traces if not judge(trace)), None) for traces in self.samples)
        return [trace for trace in firsts if trace]

    # ----------------------------------------------------------------------------------------------- what is learnt

    def corpus(self, settings: Mapping[str, Any]) -> Path:
        """The right traces, pruned.

        Args:
            settings: of `drp prune`, over those in `prune.yaml`.
        """
        folder = self.folder / "corpora" / content_key(settings)[:8]
        with alone(folder):
            if not (folder / "README.md").exists():  # what is written last
                traces = self._write("right.jsonl", [asdict(trace) for trace in self.right])
                run_recipe("prune", "prune", folder, {"traces": str(traces), **settings})
        return folder

    @cached_property
    def pruned(self) -> dict[str, str]:
        """The pruned completions, by question."""
        return dict(read_pairs(self.corpus({})))

    @cached_property
    def pruned_lengths(self) -> dict[str, int]:
        """Tokens of the pruned completion, by question."""
        return {question: self.count_tokens(completion) for question, completion in self.pruned.items()}

    def texts(self, name: str) -> Path:
        """Questions and completions, as a data set of conversations.

        Args:
            name: a function of `recipes.study.texts`.
        """
        from recipes.study import texts

        folder = self.folder / "texts" / name
        with alone(folder):
            if not (folder / "train.jsonl").exists():
                rows = [
                    {
                        "prompt": [{"role": "user", "content": question}],
                        "completion": [{"role": "assistant", "content": completion}],
                    }
                    for question, completion in getattr(texts, name)(self)
                ]
                self._write(f"texts/{name}/train.jsonl", rows)
        return folder


def read_pairs(dataset: Path, view: str | None = None) -> list[tuple[str, str]]:
    """Questions and completions of a data set of conversations.

    Args:
        dataset: its folder.
        view: of a corpus; the first if not given.
    """
    from datasets import load_dataset

    rows = load_dataset(str(dataset), view, split="train")
    return [(row["prompt"][-1]["content"], row["completion"][-1]["content"]) for row in rows]
