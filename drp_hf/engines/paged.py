"""Greedy generation with transformers' own continuous batching: a paged cache and, on a GPU, CUDA graphs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from copy import copy

from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel

from drp_hf.errors import DRPError

NO_TOKEN = -1
"""Stands for a stop token where there is none."""


def generate_paged(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    limits: Sequence[int],
    stop_ids: Collection[int],
    config: ContinuousBatchingConfig,
) -> Iterator[tuple[int, list[int]]]:
    """Yields position and generated token ids of each prompt as it finishes; greedy.

    The model's own generation config, with its penalties and banned tokens, plays no part.

    Args:
        model: who writes.
        prompts: token ids.
        limits: tokens to generate at most, for each prompt.
        stop_ids: tokens that end a completion; they are part of what is yielded.
        config: sizes of cache and batch.

    Raises:
        DRPError: the batching has failed, mostly for want of memory.
    """
    generation = GenerationConfig(
        do_sample=False, max_new_tokens=max(limits, default=1), eos_token_id=sorted(stop_ids) or NO_TOKEN
    )
    # A copy, as the sizes that were worked out for these prompts are written into it.
    settings = {"generation_config": generation, "continuous_batching_config": copy(config)}
    with model.continuous_batching_context_manager(**settings) as manager:
        for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
            manager.add_request(prompt, request_id=str(index), max_new_tokens=limit)
        left = len(prompts)
        while left:
            result = manager.get_result(timeout=1)
            error = result.error if result else None if manager.is_running() else "it has ended"
            if error:
                raise DRPError(f"The batched generation has failed ({error}): give a smaller batch size, or use vLLM.")
            if result and result.is_finished():
                left -= 1
                yield int(result.request_id), list(result.generated_tokens)
