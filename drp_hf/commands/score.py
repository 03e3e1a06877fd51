"""`drp score FILE… --output-dir DIR [--baseline RUN]`: accuracy and tokens of outputs that other programs wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, tee
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from tqdm import tqdm

from drp_hf.commands.evaluate import check_figures, write_disagreements
from drp_hf.commands.generating import warn
from drp_hf.commands.parsing import parse_and_run
from drp_hf.errors import DRPError
from drp_hf.provenance import write_run_info

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from drp_hf.evaluations import Evaluation
    from drp_hf.grading import Grader
    from drp_hf.outputs import Output, Outputs

COUNTED_TOGETHER = 256
"""Outputs that the tokenizer gets at a time."""
SHORTER, SHORTER_SHARE = 4, 0.01
"""Tokens, and share of the limit, that a cut output may be short of it when it is counted again; the larger holds.

Of 249 real traces cut anywhere, 4 count a token less, as the tokenizer joins two line ends that the cut left apart;
what a model writes in other tokens than its tokenizer would grows with the length.
"""


@dataclass
class ScoreConfig:
    """
    Configuration of `drp score`.

    Parameters:
        > Parameters that control what is read

        files (`list[str]`):
            Outputs, each of one model: samples of lm-evaluation-harness (`--log_samples`) or its output folder,
            details of lighteval (`--save-details`) or its output folder, or JSON Lines, Parquet or a data set (folder,
            or name on the Hub) with `question`, `answer` and `output`, or `reasoning` and `response`; `n_tokens`,
            `finished`, `sample`, `benchmark` and `model` are used where they are there. Of several, the first is the
            baseline.
        tokenizer (`str`, *optional*):
            The model whose tokenizer counts the tokens of outputs that come without a count, as lm-evaluation-harness
            writes them. It counts what stands in the text: the token that ended it does not.
        max_tokens (`int`, *optional*):
            Outputs of at least so many tokens were cut, unless they say that they are finished. If not given, the
            limit that the outputs came with, where they did. Where the tokenizer counts, outputs of up to 4 tokens
            or 1 % less count as cut, too: a text that was cut can be written in fewer tokens than it was generated in.

        > Parameters that control what is measured

        baseline (`str`, *optional*):
            Folder of an evaluation on the same questions to compare with.
        budgets (`list[int]`, *optional*):
            Tokens; the accuracy within each of them (HCA, SCA, CCA) is among the figures.
        n_parameters (`int`, *optional*):
            Parameters of the model, for ACU. If not given, what the outputs came with, where they did.

        > Parameters that control what is written

        output_dir (`str`):
            The run folder, as `drp evaluate` writes it; of several outputs, one folder each in it, named as they are.
    """

    files: list[str] = field(
        metadata={"help": "Outputs that other programs wrote; of several, the first is the baseline."}
    )
    output_dir: str = field(metadata={"help": "Run folder; of several outputs, the folder of their run folders."})
    tokenizer: str | None = field(
        default=None, metadata={"help": "Model whose tokenizer counts, where no count came."}
    )
    max_tokens: int | None = field(default=None, metadata={"help": "Outputs of at least so many tokens were cut."})
    baseline: str | None = field(default=None, metadata={"help": "Folder of an evaluation to compare with."})
    budgets: list[int] = field(default_factory=list, metadata={"help": "Tokens within which accuracy is measured."})
    n_parameters: int | None = field(default=None, metadata={"help": "Parameters of the model, for ACU."})


def main(config: ScoreConfig) -> dict[str, dict[str, Any]]:
    """Scores outputs; writes a run folder for each of the files and prints its figures.

    Returns:
        The results, as in `results.json`, by run folder.

    Raises:
        DRPError: a setting, file or row that cannot be used.
    """
    _check(config)
    from drp_hf.evaluations import read_evaluation, results_table, write_evaluation
    from drp_hf.grading import Grader
    from drp_hf.outputs import name_of, read_outputs

    # Opened first: what cannot be used is said before anything is scored.
    baseline = read_evaluation(config.baseline) if config.baseline else None
    opened = {folder: read_outputs(file) for folder, file in run_folders(config.files, config.output_dir).items()}
    tokenizer = _tokenizer(config.tokenizer)
    results = {}
    for (folder, outputs), file in zip(opened.items(), config.files, strict=True):
        doubts = Doubts()
        unnamed = _only_name(baseline) or name_of(file)
        with Grader() as grader:
            rows = scored(outputs, grader, tokenizer, config.max_tokens, unnamed, doubts)
            results[str(folder)] = write_evaluation(
                folder,
                outputs.model,
                config.max_tokens or outputs.limit,
                tqdm(rows, desc=f"score {file}", unit="output", delay=1),
                baseline=baseline,
                budgets=config.budgets,
                n_parameters=config.n_parameters or outputs.n_parameters,
            )
        write_disagreements(folder, grader)
        commit = {file: outputs.commit} if outputs.commit else {}
        write_run_info(folder, "score", config, inputs=[file], fingerprints=commit)
        Console().print(results_table(results[str(folder)]))
        for doubt in doubts.sentences(config.tokenizer):
            warn(doubt)
        baseline = baseline or (read_evaluation(folder) if len(opened) > 1 else None)
    return results


@dataclass
class Doubts:
    """What may be wrong with outputs that could be scored.

    Args:
        outputs: all of them.
        unknown: of which nobody knows whether they were cut.
        too_long: which the tokenizer finds longer than the limit at which they were cut.
    """

    outputs: int = 0
    unknown: int = 0
    too_long: int = 0

    def sentences(self, tokenizer: str | None) -> Iterator[str]:
        """What the user should look into."""
        if self.unknown:
            yield (
                f"whether {self.unknown} of {self.outputs} outputs were cut is not known, so that a cut one may count "
                "as a short one: give the limit with --max-tokens, or the column finished."
            )
        if self.too_long:
            yield (
                f"{self.too_long} of {self.outputs} outputs are longer than the limit at which they were cut: is "
                f"{tokenizer} the model's own tokenizer?"
            )


def run_folders(files: list[str], output_dir: str) -> dict[Path, str]:
    """Where the run of each file goes: into `output_dir`, or where there are several, below it.

    A file that shares its name with another is called after its folder too.

    Raises:
        DRPError: two have the same name all the same.
    """
    if len(files) == 1:
        return {Path(output_dir): files[0]}
    from drp_hf.outputs import name_of

    often = Counter(map(name_of, files))
    folders: dict[Path, str] = {}
    for file in files:
        name = name_of(file)
        if often[name] > 1:
            name = f"{Path(file).absolute().parent.name}-{name}"
        folder = Path(output_dir) / name
        if folder in folders:
            raise DRPError(f"{folders[folder]} and {file} would both be written to {folder}: rename one of them.")
        folders[folder] = file
    return folders


def scored(
    outputs: Outputs,
    grader: Grader,
    tokenizer: PreTrainedTokenizerBase | None,
    max_tokens: int | None,
    unnamed: str,
    doubts: Doubts,
) -> Iterator[dict[str, Any]]:
    """The rows of `answers.jsonl`, made as they are asked for.

    Args:
        outputs: what is scored.
        grader: compares answers.
        tokenizer: counts tokens where the outputs come without a count, and finds their places.
        max_tokens: length from which on an output counts as cut where it does not say; its own limit if None. Where
            the tokenizer counts, somewhat less does.
        unnamed: benchmark of outputs that name none.
        doubts: counts what may be wrong.

    Raises:
        DRPError: a row that cannot be used, or tokens that nobody counted.
    """
    from drp_hf.scoring import Sample, score_samples

    seen: Counter[int] = Counter()
    ahead, behind = tee(counted(outputs.read(), tokenizer))
    samples = (
        Sample(output.output, _reference(output, grader), n_tokens, _finished(output, n_tokens, max_tokens))
        for output, n_tokens in ahead
    )
    for score, (output, _) in zip(score_samples(samples, grader, tokenizer), behind, strict=True):
        doubts.outputs += 1
        doubts.unknown += score.finished is None
        doubts.too_long += output.n_tokens is None and score.n_tokens > (_limit(output, max_tokens) or inf)
        row = {
            "benchmark": output.benchmark or unnamed,
            "question": output.question,
            "answer": " or ".join(output.golds),
        }
        # Hashes of the rows seen, not the rows: there may be many.
        earlier = hash(tuple(row.values()))
        row["sample"] = seen[earlier] if output.sample is None else output.sample
        seen[earlier] += 1
        yield row | {"output": output.output} | vars(score)


def counted(outputs: Iterable[Output], tokenizer: PreTrainedTokenizerBase | None) -> Iterator[tuple[Output, int]]:
    """Outputs with their tokens: as generated where they say so, else by the tokenizer, many at a time.

    Raises:
        DRPError: neither is there.
    """
    outputs = iter(outputs)
    while batch := list(islice(outputs, COUNTED_TOGETHER)):
        unknown = [output for output in batch if output.n_tokens is None]
        if unknown and tokenizer is None:
            raise DRPError(
                f"{unknown[0].where} has no count of its tokens: name the model's tokenizer (--tokenizer NAME), or "
                "add the column n_tokens."
            )
        texts = [output.output for output in unknown]
        counts = iter([len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else [])
        for output in batch:
            yield output, next(counts) if output.n_tokens is None else output.n_tokens


def _finished(output: Output, n_tokens: int, max_tokens: int | None) -> bool | None:
    if output.finished is not None:
        return output.finished
    limit = _limit(output, max_tokens)
    if limit is None:
        return None
    margin = max(SHORTER, SHORTER_SHARE * limit) if output.n_tokens is None else 0
    return n_tokens < limit - margin


def _limit(output: Output, max_tokens: int | None) -> int | None:
    """Tokens after which an output was cut: what the user says goes before what came with it."""
    return max_tokens or output.limit


def _reference(output: Output, grader: Grader) -> str:
    """The gold answer to compare with: of several, the one that the output gives, or else the first."""
    from drp_hf.answers import extract_answer

    if len(output.golds) == 1:
        return output.golds[0]
    answer = extract_answer(output.output)
    verdicts = grader.grade([(gold, answer) for gold in output.golds])
    return next(
        (gold for gold, verdict in zip(output.golds, verdicts, strict=True) if verdict.correct), output.golds[0]
    )


def _only_name(baseline: Evaluation | None) -> str | None:
    """The benchmark that is meant where none is named."""
    return next(iter(baseline.benchmarks)) if baseline and len(baseline.benchmarks) == 1 else None


def _tokenizer(name: str | None) -> PreTrainedTokenizerBase | None:
    if name is None:
        return None
    from drp_hf.models import load_tokenizer

    return load_tokenizer(name)


def _check(config: ScoreConfig) -> None:
    if not config.files:
        raise DRPError("files is empty: give at least one file, folder or data set with outputs.")
    if config.max_tokens is not None and config.max_tokens < 1:
        raise DRPError(f"max_tokens is {config.max_tokens}: it must be at least 1.")
    check_figures(config.budgets, config.n_parameters)
    for folder in run_folders(config.files, config.output_dir):
        if config.baseline and Path(config.baseline).resolve() == folder.resolve():
            raise DRPError(f"{folder} is both the baseline and a folder to write: give another output_dir.")


def cli() -> None:
    """Entry point of `drp score`."""
    parse_and_run(
        main,
        ScoreConfig,
        "files",
        interrupted="interrupted: no run folder is half written; begin anew.",
    )
