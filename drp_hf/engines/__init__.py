"""Engines: whatever generates text for rollout and evaluation."""

from __future__ import annotations

from importlib.util import find_spec

from drp_hf.engines.base import QUESTION, Completion, Engine, Sampling, render_prompt
from drp_hf.errors import DRPError

ENGINES = ("auto", "transformers", "vllm", "server", "chat")
SERVERS = ("server", "chat")
"""The engines that ask a server. Which of them it is stands in an answer's key, and must be known without asking, as
answers that are there already are read without a server."""


def resolve_engine(name: str) -> str:
    """The engine that a name stands for: `"auto"` is vLLM when it is installed, else transformers.

    Raises:
        DRPError: no such engine, or vLLM is not installed.
    """
    if name not in ENGINES:
        raise DRPError(f"There is no engine {name!r}: choose one of {', '.join(ENGINES)}.")
    has_vllm = find_spec("vllm") is not None
    if name == "vllm" and not has_vllm:
        raise DRPError("vLLM is not installed: pip install 'drp_hf[vllm]', or use --engine transformers.")
    if name == "auto":
        return "vllm" if has_vllm else "transformers"
    return name


def make_engine(
    name: str,
    model: str,
    batch_size: int | None = None,
    dtype: str = "auto",
    seed: int = 0,
    context_length: int | None = None,
    prompt: str = QUESTION,
    system: str | None = None,
    base_url: str | None = None,
    tokenizer: str | None = None,
) -> Engine:
    """Loads a model into an engine.

    Args:
        name: as in [`resolve_engine`].
        model: a model's name, as in [`~drp_hf.models.adapter_chain`]; with a server, the name under which it serves.
        batch_size: rows written at the same time; the engine's own default if None.
        dtype: of the weights; `"auto"` leaves the choice to the engine. A server has its own.
        seed: of the engine's own random numbers, where it has any; what `generate` samples has its own seeds.
        context_length: tokens of prompt and completion together; 131,072 if None, and never more than the model takes.
        prompt: the user's message, with `{question}` for the question.
        system: the system message; None leaves it to the chat template.
        base_url: address of the server, for the engines `server` and `chat` only; OpenAI's if None.
        tokenizer: name of the model whose tokenizer it is that a server serves under another name.

    Raises:
        DRPError: as `resolve_engine`, or the model cannot be loaded.
    """
    size = {} if batch_size is None else {"batch_size": batch_size}
    asking = {"context_length": context_length, "prompt": prompt, "system": system}
    match resolve_engine(name):
        case "vllm":
            from drp_hf.engines.vllm import VLLMEngine

            return VLLMEngine(model, dtype=dtype, seed=seed, **size, **asking)
        case "server" | "chat":
            from drp_hf.engines.server import make_server_engine

            return make_server_engine(model, base_url, tokenizer=tokenizer, chat=name == "chat", **size, **asking)
    from drp_hf.engines.transformers import TransformersEngine

    return TransformersEngine(model, dtype=dtype, **size, **asking)


__all__ = ["ENGINES", "SERVERS", "Completion", "Engine", "Sampling", "make_engine", "render_prompt", "resolve_engine"]
