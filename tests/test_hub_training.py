"""What a trainer asks the Hub (on loopback) before it trains, and that checkpoints stay while they are published."""

import time

import pytest
import torch
from huggingface_hub import HfApi, constants
from torch import nn
from transformers import Trainer
from transformers.utils import hub as transformers_hub

from drp_hf.drp_config import DRPConfig
from drp_hf.errors import DRPError
from drp_hf.hub.training import PublishingTrainer
from tests.loopback.plumbing import USER
from tests.loopback_hub import LoopbackHub

SETTINGS = [{"push_to_hub": True}, {"push_to_hub_revision": "pruned"}]


class PlainTrainer(PublishingTrainer, Trainer):
    """Publishes what any model has become."""


@pytest.fixture
def hub(monkeypatch):
    with LoopbackHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(transformers_hub, "_hf_api", HfApi(endpoint=hub.url))
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


@pytest.fixture
def trainer(tmp_path):
    def make(**settings):
        few = {"bf16": False, "gradient_checkpointing": False, "report_to": "none", "use_cpu": True}
        return PlainTrainer(nn.Linear(1, 1), DRPConfig(output_dir=str(tmp_path), **few, **settings))

    return make


def make_public(hub, repo_id):
    HfApi(endpoint=hub.url, token=hub.token).create_repo(repo_id, private=False)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_repository_is_made_with_its_owner(hub, trainer, settings):
    assert trainer(hub_model_id="sums", **settings).hub_model_id == f"{USER}/sums"
    assert hub.repository(f"{USER}/sums", "model").private


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_public_repository_is_refused_by_the_names_of_the_settings(hub, trainer, settings):
    make_public(hub, "me/sums")
    with pytest.raises(DRPError, match="me/sums is public.*: set hub_private_repo to false if all may"):
        trainer(hub_model_id="me/sums", **settings)
    assert trainer(hub_model_id="me/sums", hub_private_repo=False, **settings).hub_model_id == "me/sums"


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_repository_that_cannot_be_written_to_is_refused(hub, trainer, settings, monkeypatch):
    make_public(hub, "me/sums")
    monkeypatch.delenv("HF_TOKEN")
    for repo_id in ("me/sums", "me/new"):
        with pytest.raises(DRPError, match=f"the Hub does not let you write to {repo_id} .*hf auth login"):
            trainer(hub_model_id=repo_id, hub_private_repo=False, **settings)


def test_a_trainer_that_publishes_nothing_asks_nothing(hub, trainer):
    trainer(hub_model_id="me/sums")
    assert not hub.requests


class Distance(nn.Module):
    """A model that trains: the loss is the distance to a target."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(1))

    def forward(self, target):
        return {"loss": (self.at - target).abs().mean()}


class SlowlyPublishing(PublishingTrainer, Trainer):
    """Notes whether a checkpoint is whole when its upload ends, which takes longer than a training step."""

    def __init__(self, *args, **kwargs):
        self.whole = {}
        super().__init__(*args, **kwargs)

    def publish_folder(self, folder, branch, weights, message=None):
        time.sleep(0.5)
        self.whole[folder.name] = (folder / "trainer_state.json").is_file()


@pytest.mark.parametrize(
    "settings",
    [
        {"save_strategy": "best"},
        # Of a loss that falls, the first is the best then: the others are deleted, the last at the end.
        {"save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": True, "greater_is_better": True},
    ],
    ids=["only better ones are saved", "the best is loaded at the end"],
)
def test_no_checkpoint_is_deleted_while_it_is_published(hub, tmp_path, settings):
    few = {"bf16": False, "gradient_checkpointing": False, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    few |= {"max_steps": 3, "learning_rate": 0.1, "remove_unused_columns": False, "label_names": ["target"]}
    few |= {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss", "save_total_limit": 1}
    few |= {"hub_model_id": "me/distance", "push_to_hub_revision": "steps"}
    rows = [{"target": torch.ones(1)}] * 4
    args = DRPConfig(output_dir=str(tmp_path), **few, **settings)
    trainer = SlowlyPublishing(Distance(), args, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    assert trainer.whole == {f"checkpoint-{step}": True for step in (1, 2, 3)}
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1
