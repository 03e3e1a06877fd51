"""How likely a student finds texts, to choose prunings that fit what it can follow.

Training traces that are far from what the student would write itself teach it less, however short they are (the
"learnability gap" of DRP, arXiv 2505.13975). The mean negative log-likelihood per token measures that distance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch.nn.functional import cross_entropy

from drp_hf.engines.base import after_prefill, render_prompt
from drp_hf.models import load_model_and_tokenizer, plain_head

POSITIONS = 512
"""Positions whose logits over the whole vocabulary are held at the same time, in float32."""


class Likelihood:
    """Scores completions under a model, on the GPU when there is one, else on the CPU.

    Args:
        model: a model's name, as in [`~drp_hf.models.adapter_chain`].
        dtype: of the weights. `"auto"` is the model's own on a GPU, and float32 on the CPU.

    Raises:
        DRPError: nothing can be loaded under that name.
    """

    batch_tokens = 8192
    """Tokens in a batch, padding included; a single longer pair makes a batch of its own."""

    def __init__(self, model: str, dtype: str = "auto"):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if dtype == "auto" and self.device.type == "cpu":
            dtype = "float32"
        self.model, self.tokenizer = load_model_and_tokenizer(model, dtype=dtype)
        self.model.to(self.device)
        self.context_length = self.model.config.get_text_config().max_position_embeddings
        self._head = plain_head(self.model)

    def score(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, float]]:
        """Yields the mean negative log-likelihood of completions, pairs and order as in [`~Likelihood.token_losses`].

        Yields:
            The position of the pair and its score in nats per token of the completion, 0 or more. A pair that is
            longer than the model's context is scored on the tokens that fit. A pair without a token to score (an empty
            completion, a question that fills the context), or whose logits overflow, scores infinity; NaN never.
        """
        for index, _, losses in self.token_losses(pairs):
            mean = losses.mean().item() if len(losses) else math.nan
            yield index, math.inf if math.isnan(mean) else mean

    @torch.inference_mode()
    def token_losses(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, list[int], torch.Tensor]]:
        """Yields the negative log-likelihood of every token of completions as batches finish, the longest pairs first.

        The prompt is the question as the chat template renders it; prompt and completion are encoded apart, as when
        the model writes. A think tag at the completion's start that the template has already written is not written
        again and not scored. The stop token is not scored either.

        Args:
            pairs: (question, completion).

        Yields:
            The position of the pair, the ids of the completion's tokens that fit into the model's context, and the
            loss of each in nats, shape `(tokens,)`, float64 on the CPU.

        Raises:
            DRPError: the tokenizer has no chat template.
        """
        encoded = self._encode(pairs)
        order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index][0]))
        scorable = [index for index in order if len(encoded[index][0]) > encoded[index][1]]
        yield from ((index, [], torch.empty(0)) for index in set(order) - set(scorable))
        start = 0
        while start < len(scorable):
            rows = max(self.batch_tokens // len(encoded[scorable[start]][0]), 1)
            batch = scorable[start : start + rows]
            targets = [ids[border:] for ids, border in map(encoded.__getitem__, batch)]
            losses = self._losses([encoded[index] for index in batch]).split([len(ids) for ids in targets])
            yield from zip(batch, targets, losses, strict=True)
            start += rows

    def _encode(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], int]]:
        """Token ids of each pair, cut at the context, and the position of the first one to score."""
        if not pairs:
            return []
        prompts = [render_prompt(self.tokenizer, question) for question, _ in pairs]
        completions = [after_prefill(prompt, text) for prompt, (_, text) in zip(prompts, pairs, strict=True)]
        kwargs = {"add_special_tokens": False, "return_attention_mask": False}
        encoded = []
        for prompt, completion in zip(
            self.tokenizer(prompts, **kwargs)["input_ids"],
            self.tokenizer(completions, **kwargs)["input_ids"],
            strict=True,
        ):
            # The very first token of a text has nothing before it that it could be predicted from.
            encoded.append(((prompt + completion)[: self.context_length], max(len(prompt), 1)))
        return encoded

    def _losses(self, batch: list[tuple[list[int], int]]) -> torch.Tensor:
        """The negative log-likelihoods of all tokens to score, row after row, in float64 on the CPU."""
        width = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch], device=self.device)
        lengths = torch.tensor([len(ids) for ids, _ in batch], device=self.device)
        borders = torch.tensor([border for _, border in batch], device=self.device)
        position = torch.arange(width, device=self.device)
        real = position < lengths[:, None]
        target = real & (position >= borders[:, None])
        inputs = {"input_ids": ids, "attention_mask": real.long(), "use_cache": False}
        # What predicts a token stands one position before it.
        if self._head is None:
            states = self.model(**inputs).logits[:, :-1][target[:, 1:]]
        else:
            states = self.model.base_model(**inputs).last_hidden_state[:, :-1][target[:, 1:]]
        chunks = zip(states.split(POSITIONS), ids[target].split(POSITIONS), strict=True)
        losses = [cross_entropy(self._logits(state).float(), wanted, reduction="none") for state, wanted in chunks]
        return torch.cat(losses).double().cpu()

    def _logits(self, states: torch.Tensor) -> torch.Tensor:
        return states if self._head is None else self._head(states)
