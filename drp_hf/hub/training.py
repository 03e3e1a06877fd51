"""Publishing out of a training: what `push_to_hub` and `push_to_hub_revision` do in the trainers of this package.

transformers would upload the output folder as it is: with `training_args.bin` and, by some strategies, the optimiser's
state, which are pickles, and into a public repository. Here a student is published as `drp push student` does it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import is_peft_model
from huggingface_hub import HfApi
from peft import PeftConfig
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, TrainOutput

from drp_hf.errors import DRPError
from drp_hf.hub.chat_template import opens_think
from drp_hf.hub.publication import Published, PushOptions, check_target, publish
from drp_hf.hub.remote import Remote, in_one_sentence
from drp_hf.hub.student import Weights, student_publication
from drp_hf.hub.student_run import is_local, student_of
from drp_hf.models import ADAPTER_CONFIG, DEFAULT_BRANCH, stop_ids
from drp_hf.provenance import RUN, versions
from drp_hf.tables import hub_commit

if TYPE_CHECKING:
    from drp_hf.hub.checkpoints import CheckpointPublisher


@dataclass
class PublishingConfig:
    """
    What the configurations of the trainers have in common; it comes before TRL's own among the base classes.

    Parameters:
        > Parameters that control what is published

        push_to_hub_revision (`str`, *optional*):
            A branch of the repository `hub_model_id`, where `save_model` publishes the student (a command does so at
            the end). Every checkpoint that is saved is published on a branch of its own,
            `<push_to_hub_revision>-step-<step with nine digits>`, while the training goes on; one that fails is warned
            of, and the training goes on.

    > [!NOTE]
    > - A repository that is made is private unless `hub_private_repo` is `False`. One that is public already takes
    >   nothing without that, which is told, as is one that cannot be written to, before the training starts.
    > - Nothing of the trainer's state is published: `hub_strategy` is `"end"` or `"every_save"`.
    > - The token is that of `hf auth login` or `HF_TOKEN`: `hub_token` must not be set.
    """

    push_to_hub_revision: str | None = field(
        default=None,
        metadata={
            "help": "A branch of hub_model_id for the student; every checkpoint goes to a branch of its own, "
            "<push_to_hub_revision>-step-<step>."
        },
    )

    def __post_init__(self):
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()  # else bf16 is refused there
        super().__post_init__()
        if self.hub_token is not None:
            raise DRPError("hub_token is set, and settings are no place for a token: use `hf auth login` or HF_TOKEN.")
        if self.push_to_hub and self.hub_strategy not in (HubStrategy.END, HubStrategy.EVERY_SAVE):
            raise DRPError(
                f"hub_strategy is {self.hub_strategy.value}, which uploads the optimiser's pickles: choose end or "
                "every_save; push_to_hub_revision keeps the student of every checkpoint."
            )
        if self.push_to_hub_revision and not self.hub_model_id:
            raise DRPError("push_to_hub_revision needs the repository, as hub_model_id (owner/name).")
        if self.hub_private_repo is None:
            self.hub_private_repo = True

    def to_dict(self) -> dict[str, Any]:
        """As transformers gives it, with the tokens of the vocabulary, which it would hide as if they were secrets."""
        settings = super().to_dict()
        return settings | {name: getattr(self, name) for name in ("eos_token", "pad_token") if name in settings}

    @property
    def publishes(self) -> bool:
        """Whether anything goes to the Hub."""
        return self.push_to_hub or self.push_to_hub_revision is not None


class StudentPushOptions(PushOptions):
    """How a student gets to the Hub out of a training, where the settings have names of their own."""

    make_public = "set hub_private_repo to false"


class PublishingTrainer:
    """A trainer that publishes students; it comes before TRL's own among the base classes.

    Attributes:
        stage: `sft` or `dpo`.
        run: what makes the student, as `run.json` tells it; of a trainer in a script what the trainer knows.
        base: what the user calls the model that is trained. A saved adapter names it; without it, what PEFT finds: the
            folder it was loaded from, below which adapters that were merged into it are lost.
        base_revision: the revision of `base` on the Hub, which a saved adapter names, too.
    """

    stage: str
    run: Mapping[str, Any] | None = None
    base: str | None = None
    base_revision: str | None = None
    _dataset_name: str | None = None
    _tags: Sequence[str] = ()
    _checkpoints: CheckpointPublisher | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.args.publishes:
            from drp_hf.hub.checkpoints import CheckpointPublisher

            self._checkpoints = CheckpointPublisher(self)
            self.add_callback(self._checkpoints)
            if not self.args.push_to_hub:  # with it, transformers has done so
                self.init_hf_repo()

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Makes the repository if there is none, so that before the training it is known whether it takes students.

        Args:
            token: for this alone; that of this machine if not given.
            private: whether one that is made is private; `args.hub_private_repo` if not given.

        Raises:
            DRPError: it cannot be written to, or it is public and `args.hub_private_repo` is not `False`.
        """
        with in_one_sentence(self.args.hub_model_id or Path(self.args.output_dir).name):
            kept = self.args.hub_private_repo
            if private is not None:  # which transformers takes as an argument from 5.23 on
                self.args.hub_private_repo = private
            try:
                super().init_hf_repo(token)
            finally:
                self.args.hub_private_repo = kept
            if self.is_world_process_zero():
                check_target(self._push_options(None), Remote(HfApi(token=token), self._repo_id, "model"))

    def create_model_card(
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        """Writes the student's card, without results, into the output folder.

        Args:
            model_name: what the student is called, if not by its repository.
            dataset_name: name of the data set, where `run` does not say; remembered.
            tags: further ones; remembered.
        """
        from drp_hf.hub.student_card import student_card

        self._dataset_name = dataset_name or self._dataset_name
        if tags:
            self._tags = [tags] if isinstance(tags, str) else list(tags)
        if not self.is_world_process_zero():
            return
        card = student_card(
            self._repo_id or model_name or Path(self.args.output_dir).name,
            student_of(self.known_run(), self._base),
            adapter=self._adapter,
            stops=stop_ids(self._tokenizer, self.model.generation_config.eos_token_id),
            opens_think=opens_think(self._tokenizer),
            tags=self._tags,
        )
        card.save(Path(self.args.output_dir) / "README.md")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model and, if settings say so and a user calls it, publishes it."""
        super().save_model(output_dir, _internal_call=True)
        if self.args.publishes and not _internal_call:
            self.create_model_card()
            self._publish(self._branches, folder=output_dir)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.base is not None and is_peft_model(self.model) and self.args.should_save:
            # Only now: PEFT reads the base's configuration, which it would look for on the Hub by any other name.
            config = Path(output_dir or self.args.output_dir) / ADAPTER_CONFIG
            names = {"base_model_name_or_path": self.base, "revision": self.base_revision}
            named = {**json.loads(config.read_bytes()), **names}
            config.write_text(json.dumps(named, indent=2), encoding="utf-8")

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> list[Published]:
        """Saves the student and publishes it.

        Args:
            commit_message: of the commit.
            blocking: not used: it returns when the student is there.
            token: must not be given: see [`PublishingConfig`].
            revision: a branch; `args.hub_revision` if not given.
            private: whether a repository that is made is private; `args.hub_private_repo` if not given.
            **kwargs: of [`create_model_card`]; the student is called as its repository.

        Raises:
            DRPError: it cannot be published. It stays in the folder.
        """
        if token is not None:
            raise DRPError("token is given, and scripts are no place for a token: use `hf auth login` or HF_TOKEN.")
        if private is not None:
            self.args.hub_private_repo = private
        self.save_model(_internal_call=True)
        self.create_model_card(**kwargs)
        return self._publish([revision or self.args.hub_revision], message=commit_message)

    def publish_student(self, weights: Weights | None = None) -> list[Published]:
        """Publishes what the output folder holds, where the settings say; on the main process only.

        Args:
            weights: as in [`student_publication`]; if not given, an adapter is published as one.

        Raises:
            DRPError: it cannot be published. It stays in the folder.
        """
        return self._publish(self._branches, weights)

    def publish_folder(
        self, folder: Path, branch: str | None, weights: Weights | None, message: str | None = None
    ) -> Published:
        """Publishes a student that the trainer has saved.

        Args:
            folder: where it is.
            branch: where it goes; `main` if not given.
            weights: as in [`student_publication`].
            message: of the commit.
        """
        told = {"revision": branch, "run": self.known_run(), "tags": self._tags}
        with TemporaryDirectory() as work_dir:
            student = student_publication(folder, self._repo_id, work_dir, weights, **told)
            return publish(replace(student, message=message or student.message), self._push_options(branch))

    def known_run(self) -> Mapping[str, Any]:
        """What makes the student: `run`, or else what the trainer knows."""
        if self.run is not None:
            return self.run
        adapter, model = self._adapter, {"model_name_or_path": self._base}
        if adapter is not None:
            model |= {"model_revision": adapter.revision or DEFAULT_BRANCH, **_adapter_settings(adapter)}
        config = {"arguments": {"dataset": self._dataset_name}, "training": self.args.to_dict(), "model": model}
        inputs = {self._dataset_name: hub_commit(self.train_dataset)} if self._dataset_name else {}
        return {"stage": self.stage, "config": config, "versions": versions(), "inputs": inputs}

    @property
    def _repo_id(self) -> str | None:
        return self.hub_model_id or self.args.hub_model_id

    def _push_options(self, branch: str | None) -> PushOptions:
        return StudentPushOptions(self._repo_id, public=self.args.hub_private_repo is False, revision=branch)

    @property
    def _adapter(self) -> PeftConfig | None:
        return self.model.peft_config[self.model.active_adapter] if is_peft_model(self.model) else None

    @property
    def _base(self) -> str | None:
        if self.base is not None:
            return self.base
        if self._adapter is not None:
            return self._adapter.base_model_name_or_path
        return self.model.config._name_or_path or None

    @property
    def _branches(self) -> list[str | None]:
        """Where the settings say that the student goes; None is `main`."""
        branches = [self.args.hub_revision] if self.args.push_to_hub else []
        return branches + ([self.args.push_to_hub_revision] if self.args.push_to_hub_revision else [])

    def _publish(
        self,
        branches: Sequence[str | None],
        weights: Weights | None = None,
        folder: str | None = None,
        message: str | None = None,
    ) -> list[Published]:
        if not self.is_world_process_zero():
            return []
        if branches and self.hub_model_id is None:
            self.init_hf_repo(private=True)  # the first commit makes it public, if all may see it
        if is_peft_model(self.model):
            weights = weights or "adapter"
        folder = Path(folder or self.args.output_dir)
        return [self.publish_folder(folder, branch, weights, message) for branch in branches]

    # Both of these delete old checkpoints, which may still be read.
    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        if self._checkpoints is not None:
            self._checkpoints.wait()
        super()._save_checkpoint(*args, **kwargs)
        checkpoint = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        # It may still be there when the folder holds the `run.json` of another training; or be gone as one too many.
        if self.run is not None and self.is_world_process_zero() and checkpoint.is_dir():
            (checkpoint / RUN).write_text(json.dumps(self.run, indent=2) + "\n", encoding="utf-8")

    def _finalize_training(self, *args: Any, **kwargs: Any) -> TrainOutput:
        if self._checkpoints is not None:
            self._checkpoints.wait()
        return super()._finalize_training(*args, **kwargs)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing: [`~drp_hf.hub.checkpoints.CheckpointPublisher`] does it, when the checkpoint is complete."""


def _adapter_settings(adapter: PeftConfig) -> dict[str, Any]:
    """An adapter by the names of `ModelConfig`, or, where it is no LoRA, of which that knows nothing, by its type."""
    if adapter.peft_type != "LORA":
        return {"peft_type": adapter.peft_type.value}
    targets = adapter.target_modules
    targets = targets if isinstance(targets, str) else sorted(targets or [])
    return {"use_peft": True, "lora_r": adapter.r, "lora_alpha": adapter.lora_alpha, "lora_target_modules": targets}


def check_base(training: PublishingConfig, base: str, use_peft: bool, merge: bool) -> None:
    """Refuses a training whose adapter nobody could load from the Hub.

    Args:
        training: the trainer's settings.
        base: what is trained, as the user names it.
        use_peft: whether an adapter is trained.
        merge: whether it is merged at the end.
    """
    if not (training.publishes and use_peft and is_local(base)):
        return
    while_training = training.push_to_hub_revision or training.hub_strategy == HubStrategy.EVERY_SAVE
    if while_training and training.save_strategy != "no":
        raise DRPError(
            f"the adapters of the checkpoints would name {base} as their base, which nobody can load from the Hub: "
            "give the base by its name on the Hub, or publish only the end (hub_strategy end, merge)."
        )
    if not merge:
        raise DRPError(
            f"the adapter would name {base} as its base, which nobody can load from the Hub: set merge, or give the "
            "base by its name on the Hub."
        )
