"""Checkpoints on the Hub while the training goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate.logging import get_logger
from accelerate.utils import is_peft_model
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy

from drp_hf.hub.publication import Published

if TYPE_CHECKING:
    from drp_hf.hub.training import PublishingTrainer

logger = get_logger(__name__)


def checkpoint_branch(revision: str, step: int) -> str:
    """The branch of a checkpoint; in the order of their names they are in that of their steps."""
    return f"{revision}-step-{step:09d}"


class CheckpointPublisher(TrainerCallback):
    """
    Publishes every checkpoint that is saved, from a thread of its own.

    With `push_to_hub_revision` on a branch of its own, with `push_to_hub` and `hub_strategy="every_save"` on that of
    the student. Of an adapter the adapter alone is published. The trainer calls `wait` before it saves the next one
    and before it ends, so that no old one is removed while it is read.

    Args:
        trainer ([`~drp_hf.hub.training.PublishingTrainer`]):
            Whose checkpoints.
    """

    def __init__(self, trainer: PublishingTrainer):
        self.trainer = trainer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._running: list[tuple[Path, str, Future[Published]]] = []

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        branches = []
        if args.push_to_hub_revision:
            branches.append(checkpoint_branch(args.push_to_hub_revision, state.global_step))
        if args.push_to_hub and args.hub_strategy == HubStrategy.EVERY_SAVE:
            branches.append(args.hub_revision or "main")
        weights = "adapter" if is_peft_model(self.trainer.model) else None
        for branch in branches:
            sent = self._thread.submit(self.trainer.publish_folder, folder, branch, weights)
            self._running.append((folder, branch, sent))

    def wait(self) -> None:
        """Returns when all that were saved are published; what failed is warned of."""
        for folder, branch, sent in self._running:
            error = sent.exception()
            if error is not None:
                where = f"--repo-id {self.trainer.hub_model_id} --revision {branch}"
                logger.warning(
                    f"{folder} is not on the branch {branch} of the Hub ({type(error).__name__}: {error}). The "
                    f"training goes on; publish it with `drp push student {folder} {where}`."
                )
        self._running.clear()
