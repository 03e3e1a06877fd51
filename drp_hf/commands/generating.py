"""What the commands share that let a model answer questions: their settings, and what they warn of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from drp_hf.embedded import NAMES
from drp_hf.errors import DRPError

if TYPE_CHECKING:
    from drp_hf.benchmarks import Benchmark

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass
class GenerationArguments:
    """
    Arguments of the commands that let a model answer questions.

    Parameters:
        > Parameters that control what is asked

        model (`str`):
            Who answers: `smollm2-embedded`, `quickstart-reasoner`, `quickstart-student`, a local folder (model or LoRA
            adapter), a model's name on the Hub, or with `engine: server` the name under which the server has it.
        output_dir (`str`):
            Folder of the run. A run that was interrupted goes on where it stopped.
        split (`str`, *optional*):
            Split to read of data sets that have several; a benchmark of the registry has one of its own.
        limit (`int`, *optional*):
            Only so many rows (of each benchmark), from the first on; one that repeats an earlier one counts.
        prompt (`str`, *optional*, defaults to `"{question}"`):
            The user's message, with `{question}` for the question.
        system (`str`, *optional*):
            The system message; left to the chat template if not given.

        > Parameters that control generation

        samples (`int`, *optional*, defaults to `1`):
            Answers to each question, each with a seed of its own.
        max_tokens (`int`, *optional*, defaults to `12000`):
            An output is cut after so many tokens.
        context_length (`int`, *optional*, defaults to `131072`):
            Tokens of prompt and output together; never more than the model takes.
        temperature (`float`, *optional*, defaults to `0.0`):
            0 is greedy; models that reason at length then often run in circles.
        top_p (`float`, *optional*, defaults to `1.0`):
            Smallest probability mass that is sampled from.
        seed (`int`, *optional*, defaults to `0`):
            Makes sampling repeatable.
        engine (`str`, *optional*, defaults to `"auto"`):
            `transformers`, `vllm`, `server` (any that speaks OpenAI's protocol), `chat` (one that has nothing but chat
            completions), or `auto` for vLLM when it is installed, else transformers.
        base_url (`str`, *optional*):
            Address of the server (`http://localhost:8000/v1`).
        tokenizer (`str`, *optional*):
            Finds the places of tokens in outputs; the model's own if not given. For servers whose model has another
            name on the Hub.
        batch_size (`int`, *optional*):
            Outputs written at the same time; the engine's own default if not given.
        dtype (`str`, *optional*, defaults to `"auto"`):
            Of the weights: `float32`, `bfloat16`, `float16`, or `auto` for the model's own on a GPU, and what is
            fastest on the CPU. A server has its own.
    """

    model: str = field(metadata={"help": f"Who answers: {', '.join(NAMES)}, a local folder or a name on the Hub."})
    output_dir: str = field(metadata={"help": "Folder of the run; an interrupted run goes on where it stopped."})
    split: str | None = field(default=None, metadata={"help": "Split to read of data sets that have several."})
    limit: int | None = field(default=None, metadata={"help": "Only so many rows of the problems, from the first on."})
    prompt: str = field(default="{question}", metadata={"help": "The user's message, with {question} in it."})
    system: str | None = field(default=None, metadata={"help": "The system message; else the chat template's."})
    samples: int = field(default=1, metadata={"help": "Answers to each question."})
    max_tokens: int = field(default=12_000, metadata={"help": "An output is cut after so many tokens."})
    context_length: int = field(default=131_072, metadata={"help": "Tokens of prompt and output together."})
    temperature: float = field(default=0.0, metadata={"help": "0 is greedy."})
    top_p: float = field(default=1.0, metadata={"help": "Smallest probability mass that is sampled from."})
    seed: int = field(default=0, metadata={"help": "Makes sampling repeatable."})
    engine: str = field(default="auto", metadata={"help": "transformers, vllm, server, chat, or auto."})
    base_url: str | None = field(default=None, metadata={"help": "Address of the server."})
    tokenizer: str | None = field(default=None, metadata={"help": "Finds places of tokens; the model's if not given."})
    batch_size: int | None = field(default=None, metadata={"help": "Outputs written at the same time."})
    dtype: str = field(default="auto", metadata={"help": "Of the weights: auto, float32, bfloat16 or float16."})


def warn(warning: str) -> None:
    """Says what people should look at."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[yellow]warning:[/yellow] {escape(warning)}")


def warn_of_repeated(benchmark: Benchmark) -> None:
    """Says how many of the rows that were read are not asked, as others have their question and answer."""
    if benchmark.repeated:
        warn(
            f"{benchmark.repeated} rows of {benchmark.source} repeat an earlier one, and are left out: for several "
            "answers to a question, set samples."
        )


def check_generation(config: GenerationArguments) -> None:
    """Checks the settings that no library checks.

    Raises:
        DRPError: a setting that cannot be used.
    """
    from drp_hf.engines import SERVERS
    from drp_hf.engines.base import chat_messages

    for name in ("samples", "max_tokens", "context_length", "limit", "batch_size"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise DRPError(f"{name} is {value}: it must be at least 1.")
    if config.temperature < 0:
        raise DRPError(f"temperature is {config.temperature}: it must not be negative.")
    if not 0 < config.top_p <= 1:
        raise DRPError(f"top_p is {config.top_p}: it must be above 0 and at most 1.")
    if config.samples > 1 and config.temperature == 0:
        raise DRPError("At temperature 0 all samples are the same: raise the temperature, or set samples to 1.")
    if config.dtype not in DTYPES:
        raise DRPError(f"There is no dtype {config.dtype!r} here: choose one of {', '.join(DTYPES)}.")
    chat_messages("", config.prompt, config.system)
    if config.base_url and config.engine not in SERVERS:
        raise DRPError(
            f"base_url is given, but the engine is {config.engine}: set the engine to server or chat, or leave it out."
        )
