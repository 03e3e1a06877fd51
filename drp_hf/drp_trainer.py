"""[`~trl.SFTTrainer`] whose loss knows the steps of a reasoning trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from accelerate.logging import get_logger
from datasets import Dataset, IterableDataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_pt_utils import LengthGroupedSampler
from trl import SFTTrainer, pack_dataset
from trl.data_utils import get_dataset_column_names
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import get_config_model_id, global_then_local_main_first, pad

from drp_hf.drp_config import DRPConfig
from drp_hf.errors import DRPError
from drp_hf.hub.training import PublishingTrainer
from drp_hf.rendering import check_stop
from drp_hf.row_encoder import ENCODED_TOGETHER, GROUPS, IGNORED, WARMUP_WEIGHTS, WEIGHTS, encoder_for
from drp_hf.step_metrics import StepMetrics
from drp_hf.taxonomy import CATEGORIES

logger = get_logger(__name__)

TOKEN_COLUMNS = {WEIGHTS: torch.float32, WARMUP_WEIGHTS: torch.float32, GROUPS: torch.int8}
"""Columns of the prepared data beside ids and labels, all with one number a token."""
EPSILON = 1e-5
"""Bounds the unlikelihood of a token that is certain."""


@dataclass
class DataCollatorWithWeights(DataCollatorForLanguageModeling):
    """TRL's collator, which puts the columns of `TOKEN_COLUMNS` beside the labels (0 where the label is -100)."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        for name in TOKEN_COLUMNS.keys() & examples[0].keys():
            rows = [torch.as_tensor(example[name], dtype=TOKEN_COLUMNS[name]) for example in examples]
            rows = [torch.cat(rows)] if self.padding_free else rows
            padded = pad(rows, padding_value=0, padding_side="right", pad_to_multiple_of=self.pad_to_multiple_of)
            batch[name] = padded.masked_fill(batch["labels"] == IGNORED, 0)
        return batch


class SeededLengthGroupedSampler(LengthGroupedSampler):
    """
    The sampler of `train_sampling_strategy="group_by_length"`, whose order is decided by seed and epoch alone.

    transformers draws it from the global random state, which after a resumption is another one, and may differ between
    processes.

    Args:
        batch_size (`int`):
            Rows that should be of like length.
        lengths (`list[int]`):
            Length of every row.
        seed (`int`):
            Decides the order, with the epoch.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self.generator.manual_seed(self.seed + epoch)


class _Recorder:
    """A model that remembers the per-token log-probabilities it gave to `SFTTrainer.compute_loss`."""

    def __init__(self, model: torch.nn.Module):
        self.model = model

    def __call__(self, **inputs: Any) -> Any:
        outputs = self.model(**inputs)
        if inputs.get("fused_lm_head"):
            self.outputs = outputs
        return outputs


class DRPTrainer(PublishingTrainer, SFTTrainer):
    r"""
    Trainer for distillation on pruned reasoning traces (DRP, arXiv 2505.13975): [`~trl.SFTTrainer`] with a weight for
    every token of the completion, taken from the step the token belongs to.

    The loss of an optimiser step is \\( \sum_i |w_i| \cdot \ell_i / \sum_i |w_i| \\), both sums over the tokens of
    all micro-batches that the step accumulates, on all devices: the mean over tokens, weighted, however the batch is
    cut. \\( \ell_i \\) is the negative log-likelihood, with `loss_type="dft"` times the detached probability, and
    where \\( w_i < 0 \\) (`deleted_unlikelihood`) the unlikelihood, which `loss_type` leaves as it is. With all
    weights 1 it is `SFTTrainer`'s loss to the last bit; with weights of 0 and 1 it is `SFTTrainer`'s loss with labels
    of -100. (As there, `average_tokens_across_devices=False` makes the sums those of each device, and an evaluation's
    loss is the mean of its batches' losses. Of models with `accepts_loss_kwargs = False`, such as Qwen3-VL's,
    `SFTTrainer` takes the mean of the micro-batches' means, and so does this with no weights but 0 and 1.)

    What is trained is what the model must write. A conversational prompt is rendered by the chat template with the
    generation prompt; the completion follows as it is in the row, then the stop token, which is in the loss. Two
    differences from `SFTTrainer` on conversations follow: reasoning that the template would drop stays, and what the
    template writes after the stop token (a line break, in ChatML) is left out. A think tag that the generation prompt
    has already opened is not repeated. For R1-Distill this is, token by token, what TRL's training template gives.

    Data with steps is logged with `action_loss/…` and `skill_loss/…`, the mean negative log-likelihood (nats a token,
    without weights) by action and by category of skill, and `action_tokens/…` and `skill_tokens/…`, their share of the
    tokens in the loss. What lies outside of the steps counts as `think_close`, `answer`, `stop` and `other`.

    The card that it writes is the student's, and `push_to_hub` publishes the student without the trainer's state, into
    a private repository unless told otherwise: see [`~drp_hf.hub.training.PublishingConfig`].

    Args:
        model (`str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            As in `SFTTrainer`.
        args ([`DRPConfig`], *optional*):
            Configuration. If `None`, a basic one is used.
        train_dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]):
            Rows of `prompt` and `completion`, both conversational (`completion` is one assistant message) or both
            plain text, and, for weights by step, `steps`: a list of `start`, `end` (characters of the completion's
            text), `action`, and optionally `skill` and `category`. Steps tile the reasoning; white space between two
            belongs to the first. Data that has been tokenized already (`input_ids`) is taken as `SFTTrainer` does.
        eval_dataset ([`~datasets.Dataset`], [`~datasets.IterableDataset`] or `dict` of them, *optional*):
            Evaluation data with the same columns.
        processing_class ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            A fast tokenizer. If `None`, it is loaded by the model's name.
        **kwargs:
            The other arguments of `SFTTrainer`, such as `peft_config` and `callbacks`.

    Raises:
        DRPError: data that cannot be trained as it is, or settings that cannot be combined.

    Example:
    ```python
    >>> from datasets import load_dataset
    >>> from drp_hf.drp_config import DRPConfig
    >>> from drp_hf.drp_trainer import DRPTrainer

    >>> trainer = DRPTrainer(
    ...     model="Qwen/Qwen3-0.6B",
    ...     args=DRPConfig(output_dir="student", action_weights={"MERGE": 0.5}),
    ...     train_dataset=load_dataset("path/to/corpus", "sft", split="train"),
    ... )
    >>> trainer.train()
    ```
    """

    stage = "sft"
    _tag_names = ["trl", "sft", "drp"]
    _name = "DRP"
    _sampler: SeededLengthGroupedSampler | None = None

    def __init__(
        self,
        model: str | PreTrainedModel,
        args: DRPConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | IterableDataset | dict[str, Dataset | IterableDataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,
    ):
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = DRPConfig(f"{name.split('/')[-1]}-DRP")
        if not isinstance(args, DRPConfig):
            raise DRPError(
                f"DRPTrainer needs a DRPConfig as args, not {type(args).__name__}: it takes the same fields."
            )
        # Weights of 0 and 1 are expressed by the labels alone, and then the loss below is SFTTrainer's.
        self._weighted = args.needs_weights
        # A collator of the user's own knows nothing of further columns.
        self._own_collator = kwargs.get("data_collator") is not None
        self._refuse_combinations(args, kwargs)
        if kwargs.get("peft_config") is not None or isinstance(model, PeftModel):
            _check_template(args.chat_template_path)
        first_row = {} if train_dataset is None else next(iter(train_dataset), None)
        if first_row is None:
            raise DRPError("The train data has no rows: nothing was accepted into the corpus, or the split is empty.")
        # Names this trainer in what it prepares, as `datasets` names what made a data set, in every part of it, too.
        self._preparer = f"DRPTrainer-{uuid4()}"
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        if "input_ids" not in first_row and isinstance(first_row.get("prompt"), list):
            check_stop(self._tokenizer, self.model.generation_config)
        if self._weighted:
            # transformers then counts the tokens of an optimiser step whatever the model is. The model is not given
            # the count: SFTTrainer asks it for log-probabilities alone.
            self.model_accepts_loss_kwargs = True
        self._step_metrics = {"train": StepMetrics(), "eval": StepMetrics()}
        parallelism = self.accelerator.parallelism_config
        sequences_are_cut = parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled)
        if self._weighted and sequences_are_cut:
            raise DRPError(
                "Weights other than 0 and 1 cannot be combined with context or sequence parallelism, which cut the "
                "sequence: set the weights to 0 or 1, or the parallel sizes to 1."
            )
        if not self._own_collator and not sequences_are_cut:
            self.data_collator = DataCollatorWithWeights(
                pad_token_id=self._tokenizer.pad_token_id,
                padding_free=self.padding_free,
                pad_to_multiple_of=args.pad_to_multiple_of,
            )

    def _refuse_combinations(self, args: DRPConfig, kwargs: dict[str, Any]) -> None:
        if args.assistant_only_loss or kwargs.get("formatting_func") is not None:
            raise DRPError(
                "DRPTrainer builds the loss mask from prompt and completion: remove assistant_only_loss and "
                "formatting_func."
            )
        if args.packing and args.truncation_mode == "keep_end":
            raise DRPError("packing cuts rows at their end: remove packing, or truncation_mode='keep_end'.")
        if (args.dataset_kwargs or {}).get("skip_prepare_dataset") and args.has_rules:
            raise DRPError("Weights are applied while the data is prepared: remove skip_prepare_dataset.")
        if not self._weighted:
            return
        refused = {
            "label_smoothing_factor": args.label_smoothing_factor > 0,
            "compute_loss_func": kwargs.get("compute_loss_func") is not None,
            "data_collator": self._own_collator,
        }
        for name, is_set in refused.items():
            if is_set:
                raise DRPError(
                    f"Weights other than 0 and 1 cannot be combined with {name}: remove it, or set the weights to "
                    "0 or 1."
                )

    def _prepare_dataset(
        self,
        dataset: Dataset | IterableDataset,
        processing_class: PreTrainedTokenizerBase,
        args: DRPConfig,
        *further: Any,
    ) -> Dataset | IterableDataset:
        """Like `SFTTrainer`'s, but what has been prepared here comes back as it is.

        Evaluations of several sets have them prepared twice, and a user may give one that the trainer holds, or a part
        of it.
        """
        if dataset.info.builder_name == self._preparer:
            return dataset
        if args.chat_template_path is not None:  # a processor keeps it from its tokenizer
            self._tokenizer.chat_template = processing_class.chat_template
        prepared = self._prepare(dataset, processing_class, args, *further)
        if prepared is not dataset:
            prepared.info.builder_name = self._preparer
        return prepared

    def _prepare(
        self,
        dataset: Dataset | IterableDataset,
        processing_class: PreTrainedTokenizerBase,
        args: DRPConfig,
        packing: bool,
        formatting_func: Callable[[dict], str] | None,
        dataset_name: str,
    ) -> Dataset | IterableDataset:
        columns = get_dataset_column_names(dataset)
        if "input_ids" in columns:
            if args.has_rules:
                raise DRPError(f"The {dataset_name} data is tokenized already: weights need prompt and completion.")
            return super()._prepare_dataset(dataset, processing_class, args, packing, formatting_func, dataset_name)
        if packing and args.max_length is None:
            raise DRPError("packing needs max_length, the length of a packed sequence: set it.")
        dataset = self._encode_dataset(dataset, columns, args, packing, dataset_name)
        if packing:
            if args.shuffle_dataset:
                dataset = dataset.shuffle(seed=args.seed)
            with global_then_local_main_first():
                dataset = pack_dataset(
                    dataset, args.max_length, args.packing_strategy, _progress(dataset, args, "Packing")
                )
        return dataset.shuffle(seed=args.seed) if args.shuffle_dataset else dataset

    def _encode_dataset(
        self, dataset: Dataset | IterableDataset, columns: list[str], args: DRPConfig, packing: bool, dataset_name: str
    ) -> Dataset | IterableDataset:
        self._check_columns(dataset, columns, args, dataset_name)
        wanted = {
            WEIGHTS: args.needs_weights,
            WARMUP_WEIGHTS: args.weight_warmup_steps > 0,
            GROUPS: "steps" in columns and not self._own_collator,
        }
        encoder = encoder_for(
            args,
            self._tokenizer,
            completion_only=self.completion_only_loss,
            packing=packing,
            columns=[name for name, is_wanted in wanted.items() if is_wanted],
            source=dataset_name,
        )
        kwargs = _progress(dataset, args, f"Encoding {dataset_name} dataset")
        with global_then_local_main_first():
            encoded = dataset.map(
                encoder,
                batched=True,
                batch_size=ENCODED_TOGETHER,
                with_indices=True,
                remove_columns=columns,
                **kwargs,
            )
        if isinstance(encoded, Dataset) and not len(encoded):
            raise DRPError(
                f"No row of the {dataset_name} data has anything to learn within max_length={args.max_length}: raise "
                "max_length."
            )
        if isinstance(encoded, Dataset) and (cut := len(dataset) - len(encoded) + sum(encoded["cut"])):
            end = "start, the prompt" if encoder.keep_end else "end, the stop token"
            logger.warning(
                f"{cut} of {len(dataset)} rows of the {dataset_name} data are longer than max_length="
                f"{args.max_length} and lost their {end} included ({len(dataset) - len(encoded)} lost all that is "
                "learnt and were left out): raise max_length to train them whole."
            )
        return encoded.remove_columns("cut")

    def _check_columns(
        self, dataset: Dataset | IterableDataset, columns: list[str], args: DRPConfig, dataset_name: str
    ) -> None:
        if missing := {"prompt", "completion"} - set(columns):
            raise DRPError(
                f"The {dataset_name} data has no column {' and no column '.join(sorted(missing))} (it has "
                f"{', '.join(columns)}): give a corpus made by `drp prune`, or rows of prompt and completion."
            )
        if args.needs_steps and "steps" not in columns:
            raise DRPError(
                f"Weights by step, loss_scope and step_normalization need a column steps, which the {dataset_name} "
                "data does not have."
            )
        if args.step_weight_column is not None and args.step_weight_column not in columns:
            raise DRPError(
                f"The {dataset_name} data has no column {args.step_weight_column} (step_weight_column): it has "
                f"{', '.join(columns)}."
            )
        if isinstance(dataset, Dataset) and dataset.format["type"] == "custom":
            raise DRPError(
                f"The {dataset_name} data has a transform (with_transform), which would be baked in: apply it with "
                "map."
            )
        unknown = set(args.skill_weights or {}) - set(CATEGORIES) if dataset_name == "train" else set()
        if unknown and isinstance(dataset, Dataset):
            steps = (step for row in dataset.select_columns("steps") for step in row["steps"] or [])
            unknown -= {name for step in steps for name in (step.get("skill"), step.get("category"))}
        if unknown:
            where = f"is in no step of the {dataset_name} data" if isinstance(dataset, Dataset) else "is no category"
            raise DRPError(
                f"skill_weights names {sorted(unknown)[0]!r}, which {where}: choose among the data's skills and the "
                f"categories {', '.join(CATEGORIES)} (of a stream, only categories)."
            )

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> torch.utils.data.Sampler | None:
        sampler = super()._get_train_sampler(train_dataset)
        if not isinstance(sampler, LengthGroupedSampler):
            return sampler
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self._sampler = SeededLengthGroupedSampler(sampler.batch_size, sampler.lengths, seed)
        return self._sampler

    def _run_epoch(self, *, epoch: int, **kwargs: Any) -> None:
        # A resumption skips batches with a wrapper through which accelerate does not reach the sampler of one process
        # among several.
        if self._sampler is not None:
            self._sampler.set_epoch(epoch)
        super()._run_epoch(epoch=epoch, **kwargs)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns += [name for name in TOKEN_COLUMNS if name not in self._signature_columns]

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | int | None:
        count = super()._get_num_items_in_batch(batch_samples, device)
        if count is None or not self._weighted:
            return count
        total = sum(self._weights(batch, warming_up=True).abs().sum() for batch in batch_samples).to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total / self.get_tp_size()

    def _weights(self, batch: dict[str, torch.Tensor], warming_up: bool) -> torch.Tensor:
        """The weight of every token that is predicted, shape `(batch, tokens - 1)`.

        `warming_up`: whether the warm-up counts; not in an evaluation.
        """
        weights = batch[WEIGHTS][..., 1:]
        warmup = self.args.weight_warmup_steps
        if not warmup or not warming_up:
            return weights
        if warmup < 1:
            warmup = max(1, math.ceil(warmup * self.state.max_steps))
        done = min(1.0, self.state.global_step / warmup)
        return torch.lerp(batch[WARMUP_WEIGHTS][..., 1:], weights, done)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not self._weighted and GROUPS not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        weights = self._weights(inputs, warming_up=self.model.training) if self._weighted else None
        columns = {name: inputs.pop(name) for name in TOKEN_COLUMNS if name in inputs}
        if WARMUP_WEIGHTS in columns:
            # The data has a label for whatever weighs something at some time of the warm-up.
            inputs["labels"] = inputs["labels"].clone()
            inputs["labels"][..., 1:].masked_fill_(weights == 0, IGNORED)
        # SFTTrainer runs the model and logs its metrics. Its own loss is one more sum over tokens.
        recorder = _Recorder(model)
        result = super().compute_loss(recorder, inputs, return_outputs, num_items_in_batch)
        outputs = recorder.outputs
        # Prompt learning (PEFT) puts virtual tokens, without labels, in front of those that the columns tell of.
        virtual = outputs.log_probs.shape[-1] - (next(iter(columns.values())).shape[-1] - 1)
        if GROUPS in columns:
            mode = "train" if self.model.training else "eval"
            self._step_metrics[mode].add(
                outputs.log_probs[..., virtual:], columns[GROUPS][..., 1:], outputs.label_mask[..., virtual:]
            )
        if weights is None:
            return result
        total = weights.abs().sum() if num_items_in_batch is None else num_items_in_batch
        weights = torch.nn.functional.pad(weights, (virtual, 0))
        # A batch of which nothing is trained has a loss of 0, not 0 / 0.
        loss = self._weighted_sum(outputs.log_probs, weights) / total.clamp(min=torch.finfo(torch.float32).tiny)
        # The two corrections below are SFTTrainer's own: DDP averages over devices a sum that counts all of them, and
        # the auxiliary loss of mixture-of-experts models is a mean per micro-batch.
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        if self.aux_loss_enabled:
            steps = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss / steps
        return (loss, result[1]) if return_outputs else loss

    def _weighted_sum(self, log_probs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The sum over tokens of weight times loss; log-probabilities and weights are of the same shape."""
        losses = -log_probs
        if self.args.loss_type == "dft":
            losses = losses * log_probs.exp().detach()
        if self.args.deleted_unlikelihood:
            complement = -torch.expm1(log_probs)
            losses = torch.where(weights < 0, -torch.log(complement * (1 - EPSILON) + EPSILON), losses)
        return (losses * weights.abs()).sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = "train" if self.model.training else "eval"
        for name, value in self._step_metrics[mode].report(partial(self.accelerator.reduce, reduction="sum")).items():
            self._metrics[mode][name].append(value)
        super().log(logs, start_time)


def _check_template(path: str | None) -> None:
    """Refuses a chat template that is not a file of its own, for an adapter.

    With another model's template TRL adds its tokens and resizes the embeddings, so that the adapter fits no base that
    anybody has.
    """
    if path is not None and not (Path(path).is_file() and path.endswith((".jinja", ".j2"))):
        raise DRPError(
            f"chat_template_path is {path}, which is no .jinja file: an adapter takes its template from one, as the "
            "tokens of another model cannot be added to its base."
        )


def _progress(dataset: Dataset | IterableDataset, args: DRPConfig, title: str) -> dict[str, Any]:
    """What `map` is told of processes and progress; a stream knows neither."""
    return {"desc": title, "num_proc": args.dataset_num_proc} if isinstance(dataset, Dataset) else {}
