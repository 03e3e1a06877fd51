"""Generation with plain transformers: continuous batching over a key-value cache that is written in place.

`generate` keeps a batch until its longest row is done and copies the whole cache at every token. Here a finished row's
slot goes to the next prompt at once, and new keys and values are written where they belong, so that a step costs what
the model's own arithmetic costs. What all prompts begin with (the system message) is read once.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from drp_hf.engines.base import LocalEngine, Sampling
from drp_hf.errors import DRPError
from drp_hf.models import cpu_dtype, load_model_and_tokenizer, stop_ids

ROWS = {"cpu": 128, "cuda": 512}
"""Written at the same time, if nothing else is said and memory allows."""
CACHE = 0.5
"""Share of a GPU's free memory that keys and values may take; while they grow, old and new ones are there."""
REFILL = 1 / 8
"""Share of the rows that must be done before new prompts are read: a few at a time would hold up all others."""
PREFILL_TOKENS = 8192
"""Prompt tokens (padding included) read in one forward pass; bounds its memory."""
SORTED_FIRST = 256
"""Tokens looked at first for a nucleus; a wider one takes a full sort."""


class TransformersEngine(LocalEngine):
    """Runs a model of the transformers library on the GPU when there is one, else on the CPU.

    Args:
        model: a model's name, as in [`~drp_hf.models.adapter_chain`].
        batch_size: rows written at the same time; by default 128 on the CPU, and on a GPU up to 512, as memory
            allows.
        dtype: of the weights. `"auto"` is the model's own on a GPU, and what is fastest on the CPU
            ([`~drp_hf.models.cpu_dtype`]).
        **kwargs: context length and prompt, as in [`~drp_hf.engines.base.TokenEngine`].

    Raises:
        DRPError: the model's layers do not all attend to the whole context.
    """

    def __init__(self, model: str, batch_size: int | None = None, dtype: str | torch.dtype = "auto", **kwargs: Any):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if dtype == "auto" and self.device.type == "cpu":
            dtype = cpu_dtype()
        self.model, tokenizer = load_model_and_tokenizer(model, dtype=dtype)
        self.model.to(self.device)
        config = self.model.config
        if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=config).layers):
            raise DRPError(
                f"{model} has layers with sliding-window or linear attention, which this engine cannot run: "
                "install vLLM and use --engine vllm."
            )
        # Newer versions of transformers call it `cache`, and will take the old name no more.
        taken = inspect.signature(self.model.forward).parameters
        self.cache_name = "cache" if "cache" in taken else "past_key_values"
        stops = stop_ids(tokenizer, self.model.generation_config.eos_token_id)
        super().__init__(model, tokenizer, config, stops, **kwargs)
        self.batch_size = batch_size

    def _limit(self, prompt: list[int], sampling: Sampling) -> int:
        return min(sampling.max_tokens, self.context_length - len(prompt))

    @torch.inference_mode()
    def _generate_ids(
        self, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> Iterator[tuple[int, list[int]]]:
        # Longest first: prompts of like length share a prefill, and long problems, which take longest, start early.
        waiting = deque(sorted(range(len(prompts)), key=lambda i: -len(prompts[i])))
        size = self.batch_size or self._room(prompts, sampling)
        slots = _Slots(self.model.config.get_text_config().num_hidden_layers, min(size, len(prompts)))
        rows: list[_Row] = []
        together = max(1, int(REFILL * size))
        shared = self._read(_shared(prompts))
        while waiting or rows:
            room = size - len(rows)
            if waiting and room >= min(together, len(waiting)):
                fitting = min(room, max(1, PREFILL_TOKENS // len(prompts[waiting[0]])), len(waiting))
                new = [self._row(index, prompts[index], sampling, seeds[index]) for index in _take(waiting, fitting)]
                logits = self._prefill([row.prompt for row in new], shared, slots, len(rows))
                _append_tokens(new, _choose(logits, new, sampling))
                rows += new
            else:
                _append_tokens(rows, _choose(self._step(rows, slots), rows, sampling))
            for slot in reversed(range(len(rows))):
                row = rows[slot]
                if row.ids[-1] in self.stop_ids or len(row.ids) == row.limit:
                    # The last row moves into the free slot, so that the rows being written stay the first ones.
                    slots.move(len(rows) - 1, slot, rows[-1].length)
                    rows[slot] = rows[-1]
                    rows.pop()
                    yield row.index, row.ids

    def _room(self, prompts: list[list[int]], sampling: Sampling) -> int:
        """How many rows may be written at the same time."""
        rows = ROWS[self.device.type]
        if self.device.type == "cuda":
            config = self.model.config.get_text_config()
            width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
            heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
            of_token = 2 * config.num_hidden_layers * heads * width * self.model.dtype.itemsize
            longest = max((len(prompt) + self._limit(prompt, sampling) for prompt in prompts), default=1)
            free, _ = torch.cuda.mem_get_info(self.device)
            rows = min(rows, int(CACHE * free / (longest * of_token)))
        return max(rows, 1)

    def _row(self, index: int, prompt: list[int], sampling: Sampling, seed: int) -> _Row:
        limit = self._limit(prompt, sampling)
        draws: list[float] = []
        if sampling.temperature > 0:
            # A row's random numbers are its own: what it samples does not depend on its neighbours.
            draws = torch.rand(limit, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist()
        return _Row(index, prompt, limit, draws)

    def _read(self, shared: list[int]) -> DynamicCache:
        """Keys and values of what all prompts begin with, in one row."""
        cache = DynamicCache(config=self.model.config)
        if shared:
            ids = torch.tensor([shared], device=self.device)
            self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **{self.cache_name: cache})
        return cache

    def _prefill(self, prompts: list[list[int]], shared: DynamicCache, slots: _Slots, first_slot: int) -> torch.Tensor:
        """Reads prompts into the slots from `first_slot` on; returns the logits of the first new tokens."""
        known = shared.get_seq_length()
        width = max(map(len, prompts)) - known
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros(len(prompts), known + width, dtype=torch.long)
        mask[:, :known] = 1
        for row, prompt in enumerate(prompts):
            own = len(prompt) - known
            ids[row, width - own :] = torch.tensor(prompt[known:])
            mask[row, known + width - own :] = 1
        ids, mask = ids.to(self.device), mask.to(self.device)
        cache = DynamicCache(config=self.model.config)
        if known:
            for number, layer in enumerate(shared.layers):
                keys, values = (part.expand(len(prompts), -1, -1, -1) for part in (layer.keys, layer.values))
                cache.update(keys, values, number)
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, known:],
            use_cache=True,
            logits_to_keep=1,
            **{self.cache_name: cache},
        )
        slots.fill(first_slot, cache, known, [len(prompt) for prompt in prompts])
        return output.logits[:, -1]

    def _step(self, rows: list[_Row], slots: _Slots) -> torch.Tensor:
        """Reads the last token of every row; returns the logits of the next ones."""
        positions = torch.tensor([row.length - 1 for row in rows], device=self.device)
        slots.begin_step(positions)
        window = torch.arange(slots.window, device=self.device)
        output = self.model(
            input_ids=torch.tensor([[row.ids[-1]] for row in rows], device=self.device),
            attention_mask=(window <= positions[:, None]).long(),
            position_ids=positions[:, None],
            use_cache=True,
            **{self.cache_name: slots},
        )
        return output.logits[:, -1]


@dataclass
class _Row:
    """A completion being written: `limit` tokens at most, and one uniform random number for each if it is sampled."""

    index: int
    prompt: list[int]
    limit: int
    draws: list[float]
    ids: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.ids)


def _shared(prompts: Sequence[list[int]]) -> list[int]:
    """What all prompts begin with; of each prompt at least the last token is its own."""
    if not prompts:
        return []
    first, last = min(prompts), max(prompts)  # whatever these two begin with, all between them do
    most = min(map(len, prompts)) - 1
    return first[: next((place for place in range(most) if first[place] != last[place]), most)]


def _take(waiting: deque[int], count: int) -> list[int]:
    return [waiting.popleft() for _ in range(count)]


def _append_tokens(rows: list[_Row], tokens: list[int]) -> None:
    for row, token in zip(rows, tokens, strict=True):
        row.ids.append(token)


def _choose(logits: torch.Tensor, rows: list[_Row], sampling: Sampling) -> list[int]:
    """The next token of every row: the likeliest, or where its random number falls in the nucleus."""
    if sampling.temperature == 0:
        return logits.argmax(-1).tolist()
    probabilities = (logits.float() / sampling.temperature).softmax(-1)
    order = None
    if sampling.top_p < 1:
        probabilities, order = _nucleus(probabilities, sampling.top_p)
    cumulative = probabilities.cumsum(-1)
    draws = torch.tensor([row.draws[len(row.ids)] for row in rows], device=logits.device, dtype=cumulative.dtype)
    # The first token at which the mass reaches the draw: never one without mass, also where a draw rounds to 1.
    chosen = torch.searchsorted(cumulative, draws[:, None] * cumulative[:, -1:])
    return (chosen if order is None else order.gather(-1, chosen))[:, 0].tolist()


def _nucleus(probabilities: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest tokens, sorted, whose mass reaches `top_p` (1904.09751); what lies outside has probability 0."""
    values, order = probabilities.topk(min(SORTED_FIRST, probabilities.shape[-1]))
    if (values.sum(-1) < top_p).any():
        values, order = probabilities.sort(-1, descending=True)
    before = values.cumsum(-1) - values
    return values.masked_fill(before >= top_p, 0), order


class _Slots(Cache):
    """Keys and values of the rows being written, each in a slot of its own that it fills from the left."""

    def __init__(self, n_layers: int, size: int):
        super().__init__(layers=[_SlotLayer(self) for _ in range(n_layers)])
        self.size = size
        self.window = 0

    def begin_step(self, positions: torch.Tensor) -> None:
        """The next forward pass writes one token for each of the first slots, at these positions."""
        self.positions = positions
        self.slots = torch.arange(len(positions), device=positions.device)
        self.window = int(positions.max()) + 1

    def fill(self, first_slot: int, prefilled: Cache, known: int, lengths: list[int]) -> None:
        """Copies prompts into slots: what they share, and their own tokens, which are padded on the left."""
        for layer, source in zip(self.layers, prefilled.layers, strict=True):
            layer.reserve(source.keys, max(lengths))
            for row, length in enumerate(lengths):
                for target, part in ((layer.keys, source.keys), (layer.values, source.values)):
                    target[first_slot + row, :, :known] = part[row, :, :known]
                    target[first_slot + row, :, known:length] = part[row, :, known - length :]

    def move(self, source: int, target: int, length: int) -> None:
        if source == target:
            return
        for layer in self.layers:
            layer.keys[target, :, :length] = layer.keys[source, :, :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]


class _SlotLayer(DynamicLayer):
    def __init__(self, slots: _Slots):
        super().__init__()
        self.parent = slots

    def reserve(self, like: torch.Tensor, length: int) -> None:
        """Makes room for `length` tokens in every slot."""
        if self.is_initialized and self.keys.shape[2] >= length:
            return
        room = length + max(256, length // 2)
        # Zeros, because what is masked still takes part in the product: 0 times an uninitialised NaN is NaN.
        keys, values = (like.new_zeros(self.parent.size, like.shape[1], room, like.shape[3]) for _ in range(2))
        if self.is_initialized:
            keys[:, :, : self.keys.shape[2]] = self.keys
            values[:, :, : self.values.shape[2]] = self.values
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        self.reserve(key_states, self.parent.window)
        slots, positions, window = self.parent.slots, self.parent.positions, self.parent.window
        self.keys[slots, :, positions] = key_states[:, :, 0]
        self.values[slots, :, positions] = value_states[:, :, 0]
        return self.keys[: len(slots), :, :window], self.values[: len(slots), :, :window]

    def get_seq_length(self) -> int:
        return self.parent.window - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.parent.window, 0
