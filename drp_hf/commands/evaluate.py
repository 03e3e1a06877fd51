"""`drp evaluate BENCHMARK … --model M --output-dir DIR [--baseline DIR2]`: accuracy and tokens of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from drp_hf.commands.generating import GenerationArguments, check_generation, warn, warn_of_repeated
from drp_hf.commands.parsing import parse_and_run
from drp_hf.errors import DRPError
from drp_hf.provenance import read_run_info, write_run_info
from drp_hf.records import THINK_CLOSE
from drp_hf.store import write_json_lines

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from drp_hf.answering import AnsweringModel
    from drp_hf.benchmarks import Benchmark
    from drp_hf.evaluations import Evaluation
    from drp_hf.grading import Grader

DISAGREEMENTS = "disagreements.jsonl"
FORCED = "forced.jsonl"


@dataclass
class EvaluateConfig(GenerationArguments):
    """
    Configuration of `drp evaluate`. Only what differs from `GenerationArguments` is listed.

    Parameters:
        > Parameters that control what is asked

        benchmarks (`list[str]`):
            Names of the registry (`gsm8k`, `math500`, `aime24`, `aime25`, `amc23`, `svamp`), or problems of your own
            with `question` and `answer`: JSON Lines or Parquet files, folders, data sets.

        > Parameters that control what is measured

        baseline (`str`, *optional*):
            Folder of an earlier evaluation on the same problems to compare with.
        budgets (`list[int]`, *optional*):
            Tokens; the accuracy within each of them (HCA, SCA, CCA) is among the figures.
        force_answer (`bool`, *optional*, defaults to `False`):
            For each of the budgets, also end the reasoning of every output there and make the model answer at once.
        n_parameters (`int`, *optional*):
            Parameters of the model, for ACU; counted if not given, where the model's files are on this machine.
    """

    benchmarks: list[str] = field(kw_only=True, metadata={"help": "Names of the registry, or problems of your own."})
    baseline: str | None = field(
        default=None, metadata={"help": "Folder of an earlier evaluation on the same problems to compare with."}
    )
    budgets: list[int] = field(default_factory=list, metadata={"help": "Tokens within which accuracy is measured."})
    force_answer: bool = field(default=False, metadata={"help": "Make the model answer at once after each budget."})
    n_parameters: int | None = field(default=None, metadata={"help": "Parameters of the model; counted if not given."})


def main(config: EvaluateConfig) -> dict[str, Any]:
    """Lets the model answer the benchmarks, and measures what it wrote.

    Writes `answers.jsonl` and `results.json` (what `drp report` reads), `run.json`, `disagreements.jsonl` (answers on
    which the two checkers differ) and, with `force_answer`, `forced.jsonl`; prints the figures.

    Returns:
        The results, as in `results.json`.
    """
    _check(config)
    from drp_hf.answering import AnsweringModel
    from drp_hf.benchmarks import read_benchmarks
    from drp_hf.evaluations import read_evaluation, results_table, write_evaluation
    from drp_hf.grading import Grader
    from drp_hf.hub.student_run import trained_prompt

    # Read first: what cannot be used is said before anything is generated.
    baseline = read_evaluation(config.baseline) if config.baseline else None
    benchmarks = read_benchmarks(config.benchmarks, config.split, config.limit)
    if baseline:
        _check_baseline(benchmarks, baseline)
        if warning := _sampled_otherwise(config, baseline.folder):
            warn(warning)
    if (prompt := trained_prompt(config.model)) not in (None, config.prompt):
        warn(f"{config.model} was trained with the prompt {prompt!r}, and is asked with {config.prompt!r}.")
    output_dir = Path(config.output_dir)
    for benchmark in benchmarks.values():
        warn_of_repeated(benchmark)
    with AnsweringModel(config) as model, Grader() as grader:
        if config.force_answer and model.tokenizer is None:
            raise DRPError(
                f"force_answer needs the tokenizer of {config.model}: give its name on the Hub as tokenizer."
            )
        if warning := gold_warning(benchmarks.values(), grader):
            warn(warning)
        think_tags = ThinkTags()
        answers = think_tags.watch(model.answer_all(benchmarks.values()))
        total = config.samples * sum(len(benchmark.problems) for benchmark in benchmarks.values())
        results = write_evaluation(
            output_dir,
            config.model,
            config.max_tokens,
            tqdm(scored(answers, grader, model.tokenizer), desc="score", total=total, unit="answer"),
            baseline=baseline,
            budgets=config.budgets,
            n_parameters=_n_parameters(config),
        )
        (output_dir / FORCED).unlink(missing_ok=True)  # of an earlier run with other settings
        if config.force_answer:
            results = _with_forced(results, model, config.budgets, grader)
    if warning := think_tags.warning(config.max_tokens):
        warn(warning)
    write_disagreements(output_dir, grader)
    write_run_info(
        output_dir,
        "evaluate",
        config,
        fingerprints={
            config.model: " ".join(model.identity),
            **{benchmark.source: benchmark.fingerprint for benchmark in benchmarks.values()},
        },
        measured=model.measured,
    )
    Console().print(results_table(results))
    if config.force_answer:
        Console().print(forced_table(results))
    return results


def write_disagreements(output_dir: Path, grader: Grader) -> None:
    """Writes the answers on which the two checkers differ, for people to look at, and says how many there are."""
    if grader.disagreements:
        warn(
            f"The two checkers differ on {len(grader.disagreements)} answers, and the exact check has decided: look "
            f"at {output_dir / DISAGREEMENTS}."
        )
    write_json_lines(
        output_dir / DISAGREEMENTS,
        (
            {"gold": gold, "predicted": predicted} | asdict(verdict)
            for gold, predicted, verdict in grader.disagreements
        ),
    )


def check_figures(budgets: list[int], n_parameters: int | None) -> None:
    """Refuses, with a `DRPError`, what no figures can be made with."""
    if min(budgets, default=1) < 1:
        raise DRPError(f"budgets are {budgets}: each must be at least 1 token.")
    if len(set(budgets)) < len(budgets):
        raise DRPError(f"budgets are {budgets}: give each one once.")
    if n_parameters is not None and n_parameters < 1:
        raise DRPError(f"n_parameters is {n_parameters}: it must be at least 1.")


def gold_warning(benchmarks: Iterable[Benchmark], grader: Grader) -> str | None:
    """Which gold answers no answer can ever equal; None if there are none."""
    unreadable = [
        (benchmark.name, problem.answer)
        for benchmark in benchmarks
        for problem in benchmark.problems
        if not grader.parses(problem.answer)
    ]
    if not unreadable:
        return None
    name, answer = unreadable[0]
    return (
        f"{len(unreadable)} gold answers cannot be compared with anything, so that their questions will count as "
        f"wrong; the first is {answer!r} in {name}."
    )


@dataclass
class ThinkTags:
    """Counts outputs that never close their think tag.

    Args:
        outputs: all of them.
        unclosed: without the closing tag.
        cut: of these, cut at a limit.
    """

    outputs: int = 0
    unclosed: int = 0
    cut: int = 0

    def watch(self, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The rows as they are, counted."""
        for row in rows:
            self.outputs += 1
            if THINK_CLOSE not in row["output"]:
                self.unclosed += 1
                self.cut += not row["finished"]
            yield row

    def warning(self, max_tokens: int) -> str | None:
        """What is likely wrong where most outputs lack the tag; None where most have it."""
        if 2 * self.unclosed <= self.outputs:
            return None
        said = f"{self.unclosed} of {self.outputs} outputs have no {THINK_CLOSE}"
        if 2 * self.cut > self.unclosed:
            return f"{said}, and {self.cut} of these were cut: {max_tokens} tokens are too few, raise max_tokens."
        return (
            f"{said}, and only {self.cut} of these were cut: the model does not reason, or its chat template or the "
            "prompt is not the one it was trained with."
        )


def scored(
    rows: Iterable[dict[str, Any]], grader: Grader, tokenizer: PreTrainedTokenizerBase | None
) -> Iterator[dict[str, Any]]:
    """Adds what is found out about each output (`drp_hf.scoring.SampleScore`) to its row."""
    from drp_hf.scoring import Sample, score_samples

    ahead, behind = tee(rows)
    samples = (Sample(row["output"], row["answer"], row["n_tokens"], row["finished"]) for row in ahead)
    for score, row in zip(score_samples(samples, grader, tokenizer), behind, strict=True):
        yield row | asdict(score)


def forced_table(results: dict[str, Any]) -> Table:
    """What came of ending the reasoning at each budget, for people."""
    table = Table("", "budget", "re-asked", "accuracy", "mean tokens", title="Made to answer after a budget")
    for name, figures in results["benchmarks"].items():
        for budget, forced in figures["forced"].items():
            shares = (f"{forced[key]:.1%}" for key in ("share_forced", "accuracy"))
            table.add_row(escape(name), budget, *shares, f"{forced['mean_tokens']:.1f}")
    return table


def _with_forced(results: dict[str, Any], model: AnsweringModel, budgets: list[int], grader: Grader) -> dict[str, Any]:
    """Writes `forced.jsonl`, and its figures to `results.json`; returns the results with them."""
    from drp_hf.budget_forcing import FORCED_END, FORCED_TOKENS, ForcedFigures, force_answers
    from drp_hf.evaluations import read_evaluation, write_results

    folder = Path(model.config.output_dir)

    def rows() -> Iterator[dict[str, Any]]:
        for name, answers in read_evaluation(folder).benchmarks.items():
            of_benchmark = results["benchmarks"][name]
            of_benchmark["constants"]["forced"] = {"text": FORCED_END, "max_tokens": FORCED_TOKENS}
            of_benchmark["forced"] = {}
            for budget in budgets:
                figures = ForcedFigures(answers.table)
                for index, row in force_answers(model, answers, budget, grader):
                    figures.add(index, row)
                    yield row
                of_benchmark["forced"][str(budget)] = figures.of_all()

    write_json_lines(folder / FORCED, rows())
    write_results(folder, results)
    return results


def _n_parameters(config: EvaluateConfig) -> int | None:
    from drp_hf.engines import SERVERS
    from drp_hf.models import parameter_count

    return config.n_parameters or (None if config.engine in SERVERS else parameter_count(config.model))


def _check(config: EvaluateConfig) -> None:
    check_generation(config)
    check_figures(config.budgets, config.n_parameters)
    if config.baseline and Path(config.baseline).resolve() == Path(config.output_dir).resolve():
        raise DRPError(f"{config.output_dir} is both the baseline and the folder to write: give another output_dir.")
    if config.force_answer and not config.budgets:
        raise DRPError("force_answer is set, but no budgets: say after how many tokens the model shall answer.")
    if config.force_answer and config.engine == "chat":
        raise DRPError("force_answer makes a model go on from a text, which a chat cannot: set another engine.")


def _check_baseline(benchmarks: dict[str, Benchmark], baseline: Evaluation) -> None:
    for name, benchmark in benchmarks.items():
        if name not in baseline.benchmarks:
            raise DRPError(
                f"{baseline.folder} has no answers to {name!r}: evaluate the baseline on it, or leave it out."
            )
        asked = {(problem.question, problem.answer) for problem in benchmark.problems}
        if different := sorted(asked ^ set(baseline.benchmarks[name].problems)):
            raise DRPError(
                f"{benchmark.source} and {baseline.folder} do not have the same questions ({len(different)} differ, "
                f"one is {different[0][0][:60]!r}…): evaluate both on the same ones."
            )


def _sampled_otherwise(config: EvaluateConfig, baseline: Path) -> str | None:
    """How the baseline was sampled, if not in this way; None of one whose `run.json` does not tell."""
    sampled = read_run_info(baseline).get("config", {})
    different = [
        f"{name} {sampled[name]:g} there and {getattr(config, name):g} here"
        for name in ("temperature", "top_p")
        if sampled.get(name, getattr(config, name)) != getattr(config, name)
    ]
    return f"{baseline} was sampled in another way: {', '.join(different)}." if different else None


def cli() -> None:
    """Entry point of `drp evaluate`."""
    parse_and_run(main, EvaluateConfig, "benchmarks")
