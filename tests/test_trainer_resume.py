import json
from pathlib import Path

import pytest
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from torch.utils.data import DataLoader

from benchmarks.trainer_corpus import small_llama, small_tokenizer, uneven_rows
from benchmarks.trainer_resume import TRAININGS, Training, results, run_apart, survives
from drp_hf.commands.training import checkpoint_to_resume, last_complete_checkpoint
from drp_hf.drp_config import DRPConfig
from drp_hf.drp_trainer import DRPTrainer
from drp_hf.errors import DRPError


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run_apart(Training(), folder)
    return folder


# Checkpoints are made every 3 steps, an epoch has 10.
@pytest.mark.parametrize(
    "kills",
    [
        [(2, None), (5, None), (13, None)],
        [(9, None), (10, None), (20, None)],
        [(6, "model"), (7, None), (12, "optimizer")],
    ],
    ids=["between checkpoints", "at a checkpoint and at an epoch's end", "while saving"],
)
def test_a_killed_training_ends_with_the_same_weights(undisturbed, tmp_path, kills):
    for step, stage in kills:
        run_apart(Training(), tmp_path, step, stage)
    run_apart(Training(), tmp_path)
    weights, losses = results(tmp_path)
    expected_weights, expected_losses = results(undisturbed)
    assert weights == expected_weights
    assert losses == expected_losses and len(losses) == Training.STEPS


def test_a_kill_while_saving_leaves_an_incomplete_checkpoint(tmp_path):
    run_apart(Training(), tmp_path, 6, "optimizer")
    assert (tmp_path / "checkpoint-6" / "optimizer.pt").exists()
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-3"


def test_other_training_has_other_weights(undisturbed, tmp_path):
    run_apart(Training({"seed": 1}), tmp_path)
    assert results(tmp_path)[0] != results(undisturbed)[0]


@pytest.mark.parametrize(
    "name",
    [
        "LoRA, grouped by length",
        "LoRA, packing",
        pytest.param("LoRA, a stream of rows", marks=pytest.mark.slow),
        pytest.param("all weights", marks=pytest.mark.slow),
    ],
)
def test_a_killed_training_of_another_kind(name, tmp_path):
    assert survives(Training(**TRAININGS[name]), tmp_path, [(14, None)])


class OneOfTwo(DRPTrainer):
    """Takes of the rows what one of two processes takes, in the wrappers in which accelerate puts the loader."""

    process = 0

    def get_train_dataloader(self):
        loader = DataLoader(
            self.train_dataset,
            batch_size=self.args.train_batch_size,
            sampler=self._get_train_sampler(),
            collate_fn=self.data_collator,
        )
        return prepare_data_loader(loader, num_processes=2, process_index=self.process)

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.taken.append(inputs["input_ids"].tolist())
        return super().training_step(model, inputs, num_items_in_batch)


@pytest.mark.parametrize("process", [0, 1])
def test_one_of_several_processes_takes_the_rows_that_are_left(tmp_path, process):
    """An epoch has 4 steps; the training goes on in the middle of the second, and the third is like before."""
    tokenizer = small_tokenizer()

    def taken(checkpoint=None, **settings):
        args = DRPConfig(
            output_dir=str(tmp_path),
            train_sampling_strategy="group_by_length",
            per_device_train_batch_size=2,
            max_steps=10,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
            report_to="none",
            **settings,
        )
        rows = Dataset.from_list(uneven_rows(16, longest=4))
        trainer = OneOfTwo(small_llama(tokenizer, 32, 1), args, rows, processing_class=tokenizer)
        trainer.process, trainer.taken = process, []
        trainer.train(resume_from_checkpoint=checkpoint)
        return trainer.taken

    whole = taken(save_steps=6)
    assert len(whole) == 10
    assert taken(str(tmp_path / "checkpoint-6"), save_strategy="no") == whole[6:]


@pytest.fixture
def checkpoints(tmp_path):
    for step in (3, 12, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").touch()
    return tmp_path


def test_the_last_complete_checkpoint(checkpoints):
    assert last_complete_checkpoint(checkpoints).name == "checkpoint-12"
    state = checkpoints / "checkpoint-12" / "trainer_state.json"
    state.write_text(state.read_text()[:-5])
    assert last_complete_checkpoint(checkpoints).name == "checkpoint-6"
    (checkpoints / "checkpoint-6" / "optimizer.pt").unlink()  # as with save_only_model
    assert last_complete_checkpoint(checkpoints).name == "checkpoint-3"


def test_a_checkpoint_may_lie_elsewhere(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "trainer_state.json").write_text("{}")
    (tmp_path / "scratch" / "optimizer.pt").write_bytes(b"")
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "checkpoint-50").symlink_to(tmp_path / "scratch")
    assert last_complete_checkpoint(tmp_path / "student") == tmp_path / "student" / "checkpoint-50"


@pytest.mark.parametrize("name", ["checkpoint-50-v2", "checkpoint-50-20", "checkpoint-best"])
def test_a_folder_with_another_name_is_no_checkpoint(checkpoints, name):
    (checkpoints / "checkpoint-12").rename(checkpoints / name)
    assert last_complete_checkpoint(checkpoints).name == "checkpoint-6"


def test_no_checkpoint(tmp_path):
    assert last_complete_checkpoint(tmp_path) is None
    assert last_complete_checkpoint(Path("nowhere")) is None


def test_what_resume_from_checkpoint_means(checkpoints, tmp_path_factory):
    def resumed(value, folder=checkpoints):
        return checkpoint_to_resume(DRPConfig(output_dir=str(folder), resume_from_checkpoint=value, report_to="none"))

    assert resumed(None) is None and resumed("false") is None
    assert resumed("true") == str(checkpoints / "checkpoint-12")
    assert resumed("true", tmp_path_factory.mktemp("empty")) is None  # the first start of a job that may be stopped
    assert resumed(str(checkpoints / "checkpoint-3")) == str(checkpoints / "checkpoint-3")
    with pytest.raises(DRPError, match="checkpoint-4 is no complete checkpoint .trainer_state.json or the optimi"):
        resumed(str(checkpoints / "checkpoint-4"))
