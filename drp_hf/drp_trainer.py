"""[`~trl.SFTTrainer`] whose loss knows the steps of a reasoning trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.logging import get_logger
from datasets import Dataset, IterableDataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTTrainer
from trl.data_utils import get_dataset_column_names
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling
from trl.trainer.utils import get_config_model_id, global_then_local_main_first, pad

from drp_hf.drp_config import DRPConfig
from drp_hf.errors import DRPError
from drp_hf.step_weights import RowEncoder, stop_text

logger = get_logger(__name__)

WEIGHTS = "loss_weights"


@dataclass
class DataCollatorWithWeights(DataCollatorForLanguageModeling):
    """TRL's collator, which pads `loss_weights` beside the labels (with 0)."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().torch_call(examples)
        weights = [torch.tensor(example[WEIGHTS], dtype=torch.float32) for example in examples]
        batch[WEIGHTS] = pad(
            weights, padding_value=0, padding_side="right", pad_to_multiple_of=self.pad_to_multiple_of
        )
        return batch


class _Recorder:
    """A model that remembers the per-token log-probabilities it gave to `SFTTrainer.compute_loss`."""

    def __init__(self, model: torch.nn.Module):
        self.model = model

    def __call__(self, **inputs: Any) -> Any:
        outputs = self.model(**inputs)
        if inputs.get("fused_lm_head"):
            self.outputs = outputs
        return outputs


class DRPTrainer(SFTTrainer):
    r"""
    Trainer for distillation on pruned reasoning traces (DRP, arXiv 2505.13975): [`~trl.SFTTrainer`] with a weight for
    every token of the completion, taken from the action of the step the token belongs to.

    The loss of an optimiser step is \\( \sum_i w_i \cdot nll_i / \sum_i w_i \\), both sums over the tokens of all
    micro-batches that the step accumulates, on all devices. With all weights 1 it is `SFTTrainer`'s loss to the last
    bit; with weights of 0 and 1 it is `SFTTrainer`'s loss with labels of -100. With `loss_type="dft"` the weight
    multiplies the DFT loss of its token.

    What is trained is what the model must write. A conversational prompt is rendered by the chat template with the
    generation prompt; the completion follows as it is in the row, then the stop token, which is in the loss. Two
    differences from `SFTTrainer` on conversations follow: reasoning that the template would drop stays, and what the
    template writes after the stop token (a line break, in ChatML) is left out. A think tag that the generation prompt
    has already opened is not repeated.

    Args:
        model (`str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            As in `SFTTrainer`.
        args ([`DRPConfig`], *optional*):
            Configuration. If `None`, a basic one is used.
        train_dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]):
            Rows of `prompt` and `completion`, both conversational (`completion` is one assistant message) or both
            plain text, and, for weights, `steps`: a list of `start`, `end` (characters of the completion's text) and
            `action`. Data that has been tokenized already (`input_ids`) is taken as `SFTTrainer` does.
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

    _tag_names = ["trl", "sft", "drp"]
    _name = "DRP"
    _paper = {
        "title": "DRP: Distilled Reasoning Pruning with Skill-aware Step Decomposition for Efficient Large Reasoning "
        "Models",
        "id": "2505.13975",
        "citation": """@inproceedings{jiang2026drp,
    title        = {{DRP: Distilled Reasoning Pruning with Skill-aware Step Decomposition
                    for Efficient Large Reasoning Models}},
    author       = {Jiang and Li and Ferraro},
    booktitle    = {Findings of the Association for Computational Linguistics: ACL 2026},
    year         = 2026,
    eprint       = {2505.13975},
    archivePrefix = {arXiv},
}""",
    }

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
        # Weights of 0 and 1 are expressed by the labels alone, and then everything below is SFTTrainer's.
        self._weighted = any(weight not in (0, 1) for weight in (args.action_weights or {}).values())
        self._refuse_combinations(args, kwargs)
        if train_dataset is not None and next(iter(train_dataset), None) is None:
            raise DRPError("The train data has no rows: nothing was accepted into the corpus, or the split is empty.")
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        self._check_stop_token()
        parallelism = self.accelerator.parallelism_config
        if self._weighted and parallelism is not None and (parallelism.cp_enabled or parallelism.sp_enabled):
            raise DRPError(
                "Weights other than 0 and 1 cannot be combined with context or sequence parallelism, which cut the "
                "sequence: set action_weights to 0 or 1, or the parallel sizes to 1."
            )
        if self._weighted:
            self.data_collator = DataCollatorWithWeights(
                pad_token_id=self._tokenizer.pad_token_id, pad_to_multiple_of=args.pad_to_multiple_of
            )

    def _refuse_combinations(self, args: DRPConfig, kwargs: dict[str, Any]) -> None:
        if args.assistant_only_loss or kwargs.get("formatting_func") is not None:
            raise DRPError(
                "DRPTrainer builds the loss mask from prompt and completion: remove assistant_only_loss and "
                "formatting_func."
            )
        if (args.dataset_kwargs or {}).get("skip_prepare_dataset") and args.action_weights:
            raise DRPError("action_weights are applied while the data is prepared: remove skip_prepare_dataset.")
        if not self._weighted:
            return
        refused = {
            "packing": args.packing or args.eval_packing,
            "padding_free": args.padding_free,
            "label_smoothing_factor": args.label_smoothing_factor > 0,
            "compute_loss_func": kwargs.get("compute_loss_func") is not None,
            "data_collator": kwargs.get("data_collator") is not None,
        }
        for name, is_set in refused.items():
            if is_set:
                raise DRPError(
                    f"Weights other than 0 and 1 cannot be combined with {name}: remove it, or set action_weights to "
                    "0 or 1."
                )

    def _check_stop_token(self) -> None:
        """A student that learns to end its turn with a token that generation does not stop at would run on."""
        if self._tokenizer.chat_template is None:
            return
        stop = stop_text(self._tokenizer)
        halting = self.model.generation_config.eos_token_id
        halting = [halting] if isinstance(halting, int) else halting or []
        if self._tokenizer.convert_tokens_to_ids(stop) not in {self._tokenizer.eos_token_id, *halting}:
            raise DRPError(
                f"The chat template ends a turn with {stop!r}, at which generation does not stop: set eos_token to it."
            )

    def _prepare_dataset(
        self,
        dataset: Dataset | IterableDataset,
        processing_class: PreTrainedTokenizerBase,
        args: DRPConfig,
        packing: bool,
        formatting_func: Callable[[dict], str] | None,
        dataset_name: str,
    ) -> Dataset | IterableDataset:
        columns = get_dataset_column_names(dataset)
        if "input_ids" not in columns:
            dataset = self._encode_dataset(dataset, columns, args, packing, dataset_name)
        elif args.action_weights:
            raise DRPError(f"The {dataset_name} data is tokenized already: action_weights need prompt and completion.")
        return super()._prepare_dataset(dataset, processing_class, args, packing, formatting_func, dataset_name)

    def _encode_dataset(
        self, dataset: Dataset | IterableDataset, columns: list[str], args: DRPConfig, packing: bool, dataset_name: str
    ) -> Dataset | IterableDataset:
        if missing := {"prompt", "completion"} - set(columns):
            raise DRPError(
                f"The {dataset_name} data has no column {' and no column '.join(sorted(missing))} (it has "
                f"{', '.join(columns)}): give a corpus made by `drp prune`, or rows of prompt and completion."
            )
        if args.action_weights and "steps" not in columns:
            raise DRPError(f"action_weights need a column steps, which the {dataset_name} data does not have.")
        encoder = RowEncoder(
            self._tokenizer,
            action_weights=args.action_weights or {},
            max_length=None if packing else args.max_length,
            completion_only=self.completion_only_loss,
            source=dataset_name,
        )
        in_memory = isinstance(dataset, Dataset)
        kwargs = {"desc": f"Encoding {dataset_name} dataset", "num_proc": args.dataset_num_proc} if in_memory else {}
        with global_then_local_main_first():
            dataset = dataset.map(encoder, batched=True, with_indices=True, remove_columns=columns, **kwargs)
        if in_memory and (cut := sum(dataset["cut"])):
            logger.warning(
                f"{cut} of {len(dataset)} rows of the {dataset_name} data are longer than max_length="
                f"{args.max_length} and lost their end, the stop token included: raise max_length to train them whole."
            )
        return dataset.remove_columns(["cut"] if self._weighted else ["cut", WEIGHTS])

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if self._weighted and WEIGHTS not in self._signature_columns:
            self._signature_columns.append(WEIGHTS)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | int | None:
        count = super()._get_num_items_in_batch(batch_samples, device)
        if count is None or not self._weighted:
            return count
        total = sum(batch[WEIGHTS][..., 1:].sum() for batch in batch_samples).to(device)
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            total = self.accelerator.gather(total).sum()
        return total / self.get_tp_size()

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if not self._weighted:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        weights = inputs.pop(WEIGHTS)[..., 1:]
        # SFTTrainer runs the model and logs its metrics. Its own loss, one more sum over tokens, is not used.
        recorder = _Recorder(model)
        result = super().compute_loss(recorder, inputs, return_outputs, num_items_in_batch)
        log_probs = recorder.outputs.log_probs
        per_token_loss = -log_probs
        if self.args.loss_type == "dft":
            per_token_loss = per_token_loss * log_probs.exp().detach()
        total = weights.sum() if num_items_in_batch is None else num_items_in_batch
        # A batch of which nothing is trained has a loss of 0, not 0 / 0.
        loss = (per_token_loss * weights).sum() / total.clamp(min=torch.finfo(torch.float32).tiny)
        # The two corrections below are SFTTrainer's own: DDP averages over devices a sum that counts all of them, and
        # the auxiliary loss of mixture-of-experts models is a mean per micro-batch.
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        if self.aux_loss_enabled:
            steps = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
            loss = loss + self.router_aux_loss_coef * recorder.outputs.aux_loss / steps
        return (loss, result[1]) if return_outputs else loss
