"""Engines: whatever generates text for rollout and evaluation."""

from __future__ import annotations

from importlib.util import find_spec

from drp_hf.engines.base import Completion, Engine, Sampling, render_prompt
from drp_hf.errors import DRPError

ENGINES = ("auto", "transformers", "vllm")


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


def make_engine(name: str, model: str, batch_size: int | None = None, dtype: str = "auto", seed: int = 0) -> Engine:
    """Loads a model into an engine.

    Args:
        name: as in [`resolve_engine`].
        model: a model's name, as in [`~drp_hf.models.adapter_chain`].
        batch_size: rows written at the same time; the engine's own default if None.
        dtype: of the weights; `"auto"` leaves the choice to the engine.
        seed: for engines that cannot seed single requests.

    Raises:
        DRPError: as `resolve_engine`, or the model cannot be loaded.
    """
    size = {} if batch_size is None else {"batch_size": batch_size}
    if resolve_engine(name) == "vllm":
        from drp_hf.engines.vllm import VLLMEngine

        return VLLMEngine(model, dtype=dtype, seed=seed, **size)
    from drp_hf.engines.transformers import TransformersEngine

    return TransformersEngine(model, dtype=dtype, **size)


__all__ = ["ENGINES", "Completion", "Engine", "Sampling", "make_engine", "render_prompt", "resolve_engine"]
