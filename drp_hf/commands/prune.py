"""`drp prune TRACES`: traces in, a verified corpus out."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import drp_hf
from drp_hf.candidates import HOTTEST, STRENGTHS, strengths, temperatures
from drp_hf.commands.parsing import parse_and_run
from drp_hf.corpus import VIEWS, view_file
from drp_hf.corpus.origin import DECIDES_NOTHING, read_origin
from drp_hf.corpus.reading import Readings, read_traces
from drp_hf.embedded import EMBEDDED
from drp_hf.errors import DRPError
from drp_hf.provenance import fingerprint, write_run_info
from drp_hf.store import RowStore, write_parquet

if TYPE_CHECKING:
    from drp_hf.corpus.prunings import Prunings
    from drp_hf.teacher import Teacher
    from drp_hf.teachers.asking import Asker, Tally
    from drp_hf.teachers.imitation import Estimate

STORE = "rows.sqlite"
REPLIES = "replies.sqlite"
SCORES = "scores.sqlite"
DECIDES_A_ROW = (
    "answer_kinds",
    "answer_text",
    "answers",
    "exact_check",
    "expressions",
    "grading",
    "math_pool",
    "math_worker",
    "numerals",
    "plain_numbers",
    "pruning",
    "records",
    "segment",
    "taxonomy",
    "teacher",
    "teachers/*",
    "units",
)
ESTIMATED_FROM = 200
"""Traces that a dry run looks at."""


@dataclass
class PruneConfig:
    """
    Configuration of `drp prune`.

    > Parameters that control what is read and written

    Args:
        traces (`str`):
            Traces to prune: a JSON Lines or Parquet file, a data set folder, or the name of a data set on the Hub,
            with the columns `question`, `answer` (gold) and either `reasoning` and `response` or `output` (with think
            tags).
        output_dir (`str`):
            Folder of the corpus. A run that was interrupted goes on where it stopped.
        split (`str`, *optional*):
            Split of a data set to read. All of them if not given.

    > Parameters that control the pruning

        teacher (`str`, *optional*, defaults to `"slicing"`):
            Who decides the steps: `"slicing"` (offline, no model), `"chat"` (a model behind an OpenAI-compatible
            server), `"vllm"` (a model in this process) or `"batch"` (a provider's batch API). A server's key comes
            from the environment variable `OPENAI_API_KEY`.
        strength (`str`, *optional*, defaults to `"default"`):
            How much goes: `"light"`, `"default"`, `"hard"`, `"goal"`, which says first what is to be found, or
            `"bare"`, which leaves formulas.
        segmentation (`str`, *optional*, defaults to `"skill"`):
            `"skill"` for skill-aware steps, `"plain"` for steps without skills, `"none"` to rewrite the trace as a
            whole.
        tokenizer (`str`, *optional*, defaults to `"smollm2-embedded"`):
            Tokenizer that counts tokens, best the student's: a folder or a name on the Hub.

    > Parameters that control a language model as teacher

        model (`str`, *optional*):
            Name of the model, as the server knows it, or for `"vllm"` a folder or a name on the Hub.
        base_url (`str`, *optional*):
            Address of the server, up to and with `/v1`. OpenAI's if not given.
        protocol (`str`, *optional*, defaults to `"compact"`):
            `"compact"` (one call, unit ranges) or `"paper"` (two calls, the first of which copies the trace).
        fallback (`str`, *optional*):
            `"slicing"` lets the slicing teacher decide where the model's pruning cannot be used. Such traces are
            rejected if not given.
        temperature (`float`, *optional*, defaults to `0.0`):
            0 is greedy.
        max_tokens (`int`, *optional*, defaults to `4096`):
            A reply is cut after so many tokens.
        context_length (`int`, *optional*, defaults to `32768`):
            Tokens the model can read and write in one call; longer traces are cut into windows.
        structured_outputs (`bool`, *optional*, defaults to `True`):
            Whether the server enforces the schema of the reply. Turn off for one that cannot.
        dry_run (`bool`, *optional*, defaults to `False`):
            Only print the first prompt, and how many calls and tokens the run is estimated to take. Asks nobody.

    > Parameters that control speed and cost

        concurrency (`int`, *optional*, defaults to `16`):
            Requests under way at the same time.
        requests_per_minute (`float`, *optional*):
            The server's limit.
        tokens_per_minute (`float`, *optional*):
            The server's limit.
        max_attempts (`int`, *optional*, defaults to `8`):
            Attempts for a request (batches that it may be in), after which its trace goes on without a reply.
        timeout (`float`, *optional*, defaults to `300.0`):
            Seconds that one attempt may take.
        poll_seconds (`float`, *optional*, defaults to `60.0`):
            Seconds between two looks at a batch.
        price_input (`float`, *optional*, defaults to `0.0`):
            Price of a million input tokens, to show the spend.
        price_output (`float`, *optional*, defaults to `0.0`):
            Price of a million output tokens.

    > Parameters that control the choice among several prunings

        candidates (`int`, *optional*, defaults to `1`):
            Prunings of each trace to choose from.
        vary (`str`, *optional*, defaults to `"strength"`):
            In what they differ: `"strength"` (up to 3, light to hard) or `"temperature"` (evenly spaced up to 1).
        select (`str`, *optional*, defaults to `"shortest"`):
            `"shortest"`, or `"student-nll"` for the shortest that the student finds about as likely as its own trace.
        student (`str`, *optional*):
            The student that scores, for `"student-nll"`: as `model` in `drp rollout`.
        nll_margin (`float`, *optional*, defaults to `0.1`):
            How much less likely than the original trace a pruned one may be, in nats per token.
    """

    traces: str = field(metadata={"help": "JSON Lines or Parquet file, data set folder or data set name."})
    output_dir: str = field(metadata={"help": "Folder of the corpus; an interrupted run goes on there."})
    split: str | None = field(default=None, metadata={"help": "Split of a data set to read; all if not given."})
    teacher: Literal["slicing", "chat", "vllm", "batch"] = field(
        default="slicing", metadata={"help": "Who decides the steps."}
    )
    strength: Literal["light", "default", "hard", "goal", "bare"] = field(
        default="default", metadata={"help": "How much goes."}
    )
    segmentation: Literal["none", "plain", "skill"] = field(
        default="skill", metadata={"help": "Skill-aware steps, steps without skills, or no steps."}
    )
    tokenizer: str = field(default=EMBEDDED, metadata={"help": "Tokenizer that counts tokens, best the student's."})
    model: str | None = field(default=None, metadata={"help": "Language model of the teacher."})
    base_url: str | None = field(default=None, metadata={"help": "Address of the server, with /v1; OpenAI's if none."})
    protocol: Literal["compact", "paper"] = field(default="compact", metadata={"help": "How the model is asked."})
    fallback: Literal["slicing"] | None = field(
        default=None, metadata={"help": "Who decides where the model's pruning cannot be used; nobody if not given."}
    )
    temperature: float = field(default=0.0, metadata={"help": "0 is greedy."})
    max_tokens: int = field(default=4096, metadata={"help": "A reply is cut after so many tokens."})
    context_length: int = field(default=32_768, metadata={"help": "Tokens the model reads and writes in one call."})
    structured_outputs: bool = field(default=True, metadata={"help": "The server enforces the schema of the reply."})
    dry_run: bool = field(default=False, metadata={"help": "Only print the first prompt and an estimate."})
    concurrency: int = field(default=16, metadata={"help": "Requests under way at the same time."})
    requests_per_minute: float | None = field(default=None, metadata={"help": "The server's limit."})
    tokens_per_minute: float | None = field(default=None, metadata={"help": "The server's limit."})
    max_attempts: int = field(default=8, metadata={"help": "Attempts for a request before it is given up."})
    timeout: float = field(default=300.0, metadata={"help": "Seconds that one attempt may take."})
    poll_seconds: float = field(default=60.0, metadata={"help": "Seconds between two looks at a batch."})
    price_input: float = field(default=0.0, metadata={"help": "Price of a million input tokens."})
    price_output: float = field(default=0.0, metadata={"help": "Price of a million output tokens."})
    candidates: int = field(default=1, metadata={"help": "Prunings of each trace to choose from."})
    vary: Literal["strength", "temperature"] = field(default="strength", metadata={"help": "In what they differ."})
    select: Literal["shortest", "student-nll"] = field(default="shortest", metadata={"help": "Which one is taken."})
    student: str | None = field(default=None, metadata={"help": "The student that scores, for student-nll."})
    nll_margin: float = field(default=0.1, metadata={"help": "Nats per token above the original that are allowed."})


def main(config: PruneConfig) -> Path:
    """Prunes traces into a corpus folder.

    Returns:
        The folder: `README.md`, one Parquet file per view and split, `run.json`, and the stores of a resumable run.

    Raises:
        DRPError: the traces cannot be read, or none of them was accepted.
    """
    from drp_hf.commands.prune_display import print_estimate, print_summary, print_tally
    from drp_hf.corpus.card import CorpusSummary, write_card
    from drp_hf.corpus.prunings import Prunings
    from drp_hf.teachers.asking import Tally

    check(config)
    splits = read_traces(config.traces, config.split)
    count_tokens = token_counter(config.tokenizer)
    teachers = make_teachers(config, count_tokens)
    output_dir = Path(config.output_dir)
    if config.dry_run:
        print_estimate(estimate_run(config, splits, teachers, count_tokens), config.price_input, config.price_output)
        return output_dir
    check_output_dir(output_dir, Path(config.traces))
    tally = Tally()
    with RowStore(output_dir / STORE, remakeable=True) as store, _scores(config) as scores:
        settings = [config.tokenizer, deciding_code(), model_key(config)]
        prunings = Prunings(splits, teachers, store, count_tokens, settings)
        start = time.monotonic()
        made = make_rows(config, prunings, tally)
        seconds = time.monotonic() - start
        if scores is not None:
            prunings.score(config.student, scores, config.nll_margin)
        summary = CorpusSummary(row for readings in splits.values() for row in prunings.rows(readings))
        counts = write_views(output_dir, splits, prunings)
    measured = {
        "rows": made,
        "input_tokens": tally.input_tokens,
        "output_tokens": tally.output_tokens,
        "unanswered": tally.unanswered,
        "seconds": seconds,
    }
    write_run_info(output_dir, "prune", config, [config.traces], input_fingerprints(config, splits), measured)
    write_card(output_dir, summary, counts, read_origin(output_dir), command_line(config))
    print_summary(summary, output_dir)
    if config.teacher != "slicing":
        print_tally(tally, config.price_input, config.price_output)
    if not summary.funnel.accepted:
        (reason, count), *_ = summary.funnel.rejected.most_common(1)
        raise DRPError(
            f"no trace of {config.traces} was accepted ({count} of {summary.funnel.read}: {reason}): "
            f"see the column 'reason' in {output_dir / 'raw'}."
        )
    return output_dir


def input_fingerprints(config: PruneConfig, splits: Mapping[str, Readings]) -> dict[str, str]:
    """By name the commit of traces on the Hub, and fingerprints of student and tokenizer where they lie here."""
    from drp_hf.models import TOKENIZER_FILES, model_identity

    commit = next(iter(splits.values())).table.commit
    found = {config.traces: commit} if commit else {}
    tokenizer = Path(config.tokenizer)
    if tokenizer.is_dir():
        files = [file for pattern in TOKENIZER_FILES for file in tokenizer.glob(pattern)]
        found[config.tokenizer] = fingerprint(tokenizer, files)
    if config.student and Path(config.student).is_dir():
        found[config.student] = " ".join(model_identity(config.student))
    return found


def check(config: PruneConfig) -> None:
    """Refuses settings that do not go together, with a `DRPError`."""
    asks = config.teacher != "slicing"
    if asks and not config.model:
        raise DRPError(f"the teacher {config.teacher!r} needs a language model: give --model.")
    if not asks and (config.model or config.dry_run or config.fallback):
        raise DRPError("model, fallback and dry_run need a language model: give --teacher chat, vllm or batch.")
    if config.candidates < 1 or (config.candidates > 3 and config.vary == "strength"):
        raise DRPError(f"candidates is {config.candidates}: there can be 1 to 3, or more that vary in temperature.")
    if config.candidates > 1 and config.vary == "temperature" and not (asks and config.temperature < HOTTEST):
        raise DRPError(
            f"candidates vary in temperature only with a language model, from a temperature below {HOTTEST:g} up."
        )
    if config.candidates > 1 and config.vary == "strength" and config.strength not in STRENGTHS:
        raise DRPError(
            f"candidates vary in strength among {', '.join(STRENGTHS)}: leave out strength {config.strength}, or "
            "candidates."
        )
    if (config.select == "student-nll") != bool(config.student):
        raise DRPError("select student-nll and student go together: give both or neither.")
    positive = ("max_tokens", "context_length", "concurrency", "max_attempts", "timeout", "poll_seconds")
    for name in (*positive, "requests_per_minute", "tokens_per_minute"):
        if getattr(config, name) is not None and getattr(config, name) <= 0:
            raise DRPError(f"{name} is {getattr(config, name)}: it must be above 0.")


def check_output_dir(output_dir: Path, traces: Path) -> None:
    """Refuses, with a `DRPError`, to write over what no `drp prune` wrote, or over what is read."""
    written = ["README.md", "run.json", *(f"{view}/*.parquet" for view in VIEWS)]
    if not (output_dir / STORE).exists() and (found := [file for name in written for file in output_dir.glob(name)]):
        raise DRPError(f"{found[0]} is there already, and of no corpus made here: give another output_dir.")
    source = traces.resolve()
    if source.is_dir() and output_dir.resolve().is_relative_to(source):
        raise DRPError(
            f"{output_dir} is inside {traces}, and would be read as traces next time: give another output_dir."
        )
    if {(output_dir / view).resolve() for view in VIEWS} & {source, source.parent}:
        raise DRPError(f"{traces} would be written over: give another output_dir.")


def token_counter(tokenizer: str) -> Callable[[str], int]:
    """Counts the tokens of a text, special tokens that frame it left out."""
    from drp_hf.models import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    return lambda text: len(loaded(text, add_special_tokens=False, verbose=False)["input_ids"])


def deciding_code() -> list[str]:
    """Fingerprints of this package's code that decides a row."""
    package = Path(drp_hf.__file__).parent
    return [fingerprint(file) for name in DECIDES_A_ROW for file in sorted(package.glob(f"{name}.py"))]


def model_key(config: PruneConfig) -> str | None:
    """What tells the teacher's language model from others: its name, or what makes one that vLLM loads."""
    from drp_hf.models import model_identity

    return " ".join(model_identity(config.model)) if config.teacher == "vllm" else config.model


def make_teachers(config: PruneConfig, count_tokens: Callable[[str], int]) -> list[Teacher]:
    """The teachers that make the candidates, one each."""
    from drp_hf.teachers.language_model import LanguageModelTeacher
    from drp_hf.teachers.slicing import SlicingTeacher

    by_temperature = config.vary == "temperature"
    settings = [
        (strength, temperature)
        for strength in strengths(1 if by_temperature else config.candidates, config.strength)
        for temperature in temperatures(config.candidates if by_temperature else 1, config.temperature)
    ]
    if config.teacher == "slicing":
        return [SlicingTeacher(strength, config.segmentation) for strength, _ in settings]
    return [
        LanguageModelTeacher(
            config.model,
            count_tokens,
            protocol=config.protocol,
            strength=strength,
            segmentation=config.segmentation,
            temperature=temperature,
            max_tokens=config.max_tokens,
            context=config.context_length,
            structured_outputs=config.structured_outputs,
            fallback=SlicingTeacher(strength, config.segmentation) if config.fallback else None,
        )
        for strength, temperature in settings
    ]


def estimate_run(
    config: PruneConfig, splits: Mapping[str, Readings], teachers: list[Teacher], count_tokens: Callable[[str], int]
) -> Estimate:
    """What the run will take, from some of its traces; nobody is asked."""
    from drp_hf.pruning import judge
    from drp_hf.teachers.imitation import estimate

    total = sum(map(len, splits.values()))
    readings = (reading for each in splits.values() for reading in each)
    sampled = list(islice(readings, 0, None, max(1, total // ESTIMATED_FROM)))
    usable = [reading.trace for reading in sampled if not reading.problem and not judge(reading.trace)]
    if not usable:
        raise DRPError(f"no trace of {config.traces} is whole and right: there is nothing to ask.")
    return estimate(teachers, usable, round(total * len(usable) / len(sampled)), count_tokens)


def make_asker(config: PruneConfig) -> Asker:
    """What brings the teachers' requests to the language model."""
    if config.teacher == "vllm":
        from drp_hf.teachers.vllm import VLLMAsker

        return VLLMAsker(config.model, config.concurrency, config.context_length)
    if config.teacher == "batch":
        from drp_hf.teachers.batch import BatchAsker

        return BatchAsker(config.model, config.base_url, config.max_attempts, config.poll_seconds)
    from drp_hf.teachers.chat import ChatAsker

    return ChatAsker(
        config.model,
        config.base_url,
        config.concurrency,
        config.requests_per_minute,
        config.tokens_per_minute,
        config.max_attempts,
        config.timeout,
    )


def make_rows(config: PruneConfig, prunings: Prunings, tally: Tally) -> int:
    """Makes the rows that are not there yet, each on disk as soon as it is made; returns how many."""
    from drp_hf.commands.prune_display import pruning_progress
    from drp_hf.teachers.asking import Replies, ask_nobody

    made = 0
    with pruning_progress(prunings.total, tally, config.price_input, config.price_output) as advance:
        missing = prunings.missing(advance)

        def finished(*row: object) -> None:
            nonlocal made
            made += 1
            prunings.put(*row)
            advance()

        if config.teacher == "slicing":
            ask_nobody(missing, finished)
        elif next(iter(prunings.missing()), None):  # a model that nobody asks need not be loaded
            with RowStore(Path(config.output_dir) / REPLIES) as store:
                replies = Replies(store, model_key(config), tally)
                if config.teacher != "batch":
                    from drp_hf.teachers.batch import refuse_what_is_under_way

                    refuse_what_is_under_way(prunings.missing(), replies)
                make_asker(config).run(missing, replies, finished)
    return made


def _scores(config: PruneConfig):
    return RowStore(Path(config.output_dir) / SCORES, remakeable=True) if config.student else nullcontext()


def write_views(output_dir: Path, splits: Mapping[str, Readings], prunings: Prunings) -> dict[str, dict[str, int]]:
    """Writes every view of every split, and removes what an earlier run left there; returns the rows written.

    A view without rows in a split gets no file: `load_dataset` takes none without rows.
    """
    from drp_hf.corpus.views import VIEW_FEATURES, view_rows

    counts: dict[str, dict[str, int]] = {view: {} for view in VIEWS}
    for view in VIEWS:
        for split, readings in splits.items():
            rows = view_rows(view, prunings.rows(readings))
            count = write_parquet(output_dir / view_file(view, split), rows, VIEW_FEATURES[view])
            if count:
                counts[view][split] = count
        for file in (output_dir / view).glob("*.parquet"):
            if file.stem not in counts[view]:
                file.unlink()
    return counts


def command_line(config: PruneConfig) -> str:
    """The command that makes the same corpus again: everything that decides it, where it is not the default."""
    words = ["drp", "prune", str(config.traces)]
    for each in fields(config):
        value = getattr(config, each.name)
        if each.name != "traces" and each.name not in DECIDES_NOTHING and value != each.default:
            words += [f"--{each.name}", str(value)]
    return shlex.join(words)


def cli() -> None:
    """Entry point of `drp prune`."""
    parse_and_run(main, PruneConfig, "traces")


if __name__ == "__main__":
    cli()
