"""Generation with the model that is being trained, as it is at that time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby

import torch
from peft import PeftModel
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel, register_fsdp_forward_method
from transformers import GenerationConfig, PreTrainedModel
from trl import SFTTrainer
from trl.distributed import DistributedBackend
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import pad

from drp_hf.engines.base import Completion, LocalEngine, Sampling
from drp_hf.errors import DRPError
from drp_hf.models import stop_ids


class StudentEngine(LocalEngine):
    """The model in training as an engine: greedy batches of `generate`, shared by the processes of the training.

    Args:
        trainer: whose model writes, as it is at that time.
        batch_size: rows written at the same time on each process.

    Raises:
        DRPError: processes share a sequence or a layer, so that each cannot have prompts of its own.
    """

    def __init__(self, trainer: SFTTrainer, batch_size: int):
        parallelism = trainer.accelerator.parallelism_config
        if trainer.get_tp_size() > 1 or (parallelism and (parallelism.cp_enabled or parallelism.sp_enabled)):
            raise DRPError(
                "Held-out answers cannot be written with tensor, context or sequence parallelism: set the parallel "
                "sizes to 1, or leave the callback out."
            )
        tokenizer, model = trainer._tokenizer, trainer.model  # the processing class may be a processor
        eos = stop_ids(tokenizer, model.generation_config.eos_token_id)
        super().__init__(tokenizer.name_or_path, tokenizer, model.config, eos)
        self.trainer = trainer
        self.batch_size = batch_size

    def complete(
        self, openings: Sequence[str], prompts: list[list[int]], sampling: Sampling
    ) -> Iterator[tuple[int, Completion]]:
        """Yields position and completion of the prompts that fall to this process.

        Args:
            openings, prompts: from `encode`.
            sampling: how tokens are chosen; greedy, whatever its temperature.
        """
        for index, ids in self._generate_ids(prompts, sampling, seeds=()):
            yield index, self._completion(openings[index], ids)

    def _generate_ids(
        self, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[int]]]:
        accelerator = self.trainer.accelerator
        rank, world = accelerator.process_index, accelerator.num_processes
        limits = [min(sampling.max_tokens, self.context_length - len(prompt)) for prompt in prompts]
        batches = _batches(prompts, limits, min(self.batch_size, -(-len(prompts) // world)))
        with self._generating() as generate:
            for turn in range(0, len(batches), world):
                # Sharded weights are gathered by all processes together: who has no batch left writes one for nothing.
                idle = turn + rank >= len(batches)
                batch = batches[-1 if idle else turn + rank]
                rows = generate([prompts[index] for index in batch], limits[batch[0]])
                if not idle:
                    yield from zip(batch, map(self._until_stop, rows), strict=True)

    def _until_stop(self, ids: list[int]) -> list[int]:
        """Without what pads a row that stopped before the others."""
        stop = next((place for place, token in enumerate(ids) if token in self.stop_ids), len(ids))
        return ids[: stop + 1]

    @contextmanager
    def _generating(self) -> Iterator[Callable[[list[list[int]], int], list[list[int]]]]:
        """Prepares the model for `generate`; gives a function from prompts and a limit to padded rows of new ids."""
        accelerator, wrapped = self.trainer.accelerator, self.trainer.model_wrapped
        backend = DistributedBackend(accelerator)
        sharded = backend.is_zero3 or isinstance(wrapped, (FSDPModule, FullyShardedDataParallel))
        synced = sharded and accelerator.num_processes > 1  # `generate` does not recognise every kind of sharding
        pad_id = self.tokenizer.pad_token_id

        def generate(prompts: list[list[int]], limit: int) -> list[list[int]]:
            rows = [torch.tensor(prompt, device=accelerator.device) for prompt in prompts]
            ids = pad(rows, padding_value=pad_id, padding_side="left")
            mask = pad([torch.ones_like(row) for row in rows], padding_value=0, padding_side="left")
            config = GenerationConfig(
                do_sample=False,
                max_new_tokens=limit,
                eos_token_id=sorted(self.stop_ids) or None,
                pad_token_id=pad_id,
                use_cache=True,
            )
            inputs = {"input_ids": ids, "attention_mask": mask}
            written = model.generate(**inputs, generation_config=config, synced_gpus=synced)
            return written[:, ids.shape[1] :].tolist()

        with ExitStack() as stack:
            stack.enter_context(_no_gradient_checkpointing(self.trainer.model))
            with warnings.catch_warnings():
                # unwrap_model_for_generation reads a property that transformers has renamed.
                warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
                model = stack.enter_context(unwrap_model_for_generation(wrapped, accelerator))
            stack.enter_context(backend.summon_full_params(wrapped, recurse=False))
            stack.enter_context(_plain_generation_config(model))
            stack.enter_context(_generate_gathers(model))
            yield generate


def _batches(prompts: list[list[int]], limits: list[int], size: int) -> list[list[int]]:
    """Positions of prompts of like length, at most `size` in a batch and all with the same limit."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    groups = (list(group) for _, group in groupby(order, key=limits.__getitem__))
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


@contextmanager
def _no_gradient_checkpointing(model: torch.nn.Module) -> Iterator[None]:
    """Lifts gradient checkpointing by its flags alone, so that its settings are afterwards what they were."""
    checkpointed = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    for module in checkpointed:
        module.gradient_checkpointing = False
    try:
        yield
    finally:
        for module in checkpointed:
            module.gradient_checkpointing = True


@contextmanager
def _plain_generation_config(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Takes the model's generation config away, from which `generate` would fill in penalties and banned tokens."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    former = base.generation_config
    base.generation_config = GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = former


@contextmanager
def _generate_gathers(model: PreTrainedModel | PeftModel) -> Iterator[None]:
    """Lets `generate` gather FSDP2 shards as `forward` does, which an adapter's `generate` goes past."""
    if not isinstance(model, FSDPModule):
        yield
        return
    register_fsdp_forward_method(model, "generate")
    try:
        yield
    finally:
        del model.generate
