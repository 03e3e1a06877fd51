"""Tokens per answer as a curve: the student in training answers held-out problems, and the figures are logged."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTTrainer

from drp_hf.engines.base import Sampling
from drp_hf.engines.student import StudentEngine
from drp_hf.errors import DRPError
from drp_hf.records import Problem
from drp_hf.scoring import is_correct

ACCURACY = "eval_answers_accuracy"
TOKENS = "eval_answers_tokens"
FINISHED = "eval_answers_finished"


class AnswersCallback(TrainerCallback):
    r"""
    Lets the model in training answer held-out problems before the first step, every so many steps and at the end, and
    logs `eval_answers_accuracy` (share of right answers), `eval_answers_tokens` (mean tokens of an answer, those cut
    off counted at the limit) and `eval_answers_finished` (share that ended by themselves).

    The answers are greedy and know no penalties or banned tokens of the model's generation config, as with the
    engines. The training is the same to the last bit as without this callback. Several processes share the problems;
    the figures are of all problems, and the same on all processes.

    Args:
        trainer ([`~trl.SFTTrainer`]):
            The trainer this callback is added to.
        problems (`list[Problem]`):
            Problems that are not trained on.
        every (`int`):
            Optimiser steps between two evaluations.
        max_tokens (`int`):
            An answer is cut after so many tokens, or where the model's context ends.
        batch_size (`int`, *optional*, defaults to `16`):
            Answers written at the same time on each process.

    Raises:
        DRPError: nothing to answer, a number below 1, a problem that leaves no room in the model's context, a
            tokenizer without chat template, or processes that share a sequence or a layer.

    Example:
    ```python
    >>> trainer.add_callback(AnswersCallback(trainer, problems, every=50, max_tokens=1024))
    >>> trainer.train()
    >>> curve = [row for row in trainer.state.log_history if "eval_answers_tokens" in row]
    ```
    """

    def __init__(
        self, trainer: SFTTrainer, problems: Sequence[Problem], every: int, max_tokens: int, batch_size: int = 16
    ):
        if not problems:
            raise DRPError("There are no held-out problems to answer: give at least one, or leave the callback out.")
        for name, value in (("every", every), ("max_tokens", max_tokens), ("batch_size", batch_size)):
            if value < 1:
                raise DRPError(f"{name} is {value} for the held-out answers: give 1 or more.")
        self.trainer = trainer
        self.problems = list(problems)
        self.every = every
        self.sampling = Sampling(max_tokens)
        self.student = StudentEngine(trainer, batch_size)
        self.openings, self.prompts = self.student.encode([problem.question for problem in self.problems])

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if state.global_step == 0:
            self._answer_once(state, control)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if state.global_step % self.every == 0 or control.should_training_stop:
            self._answer_once(state, control)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if control.should_training_stop:  # early stopping
            self._answer_once(state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        # With load_best_model_at_end the model may by now be that of an earlier step, and is left out.
        if not args.load_best_model_at_end:
            self._answer_once(state, control)

    def _answer_once(self, state: TrainerState, control: TrainerControl) -> None:
        """Answers and logs, unless this step's figures are there; the history is kept in checkpoints."""
        if any(entry["step"] == state.global_step and ACCURACY in entry for entry in state.log_history):
            return
        should_log = control.should_log
        # In training mode, SFTTrainer's log would also write, and forget, the training metrics gathered so far.
        with _random_state_kept(self.trainer.accelerator.device), _evaluation_mode(self.trainer.model):
            self.trainer.log(self._figures())
        control.should_log = should_log  # any log clears it, and the training's own is still to come

    def _figures(self) -> dict[str, float]:
        """The figures over all problems, the same on every process."""
        sums = [0, 0, 0]
        written = list(self.student.complete(self.openings, self.prompts, self.sampling))
        for index, completion in written:
            right = is_correct(completion.text, self.problems[index].answer, completion.finished)
            for place, value in enumerate((right, completion.n_tokens, completion.finished)):
                sums[place] += value
        accelerator = self.trainer.accelerator
        totals = accelerator.reduce(torch.tensor(sums, device=accelerator.device), reduction="sum").tolist()
        accuracy, tokens, finished = (total / len(self.problems) for total in totals)
        return {ACCURACY: accuracy, TOKENS: tokens, FINISHED: finished}


@contextmanager
def _random_state_kept(device: torch.device) -> Iterator[None]:
    """Leaves the random numbers that the training will draw as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def _evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, and then each module's own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
