import pytest
from transformers import LlamaForCausalLM

from benchmarks.trainer_invariance import BOUND, CUTS, STEPS, distance, train, train_in_processes
from drp_hf.drp_trainer import DRPTrainer

SIZES = {"hidden_size": 32, "layers": 2}


@pytest.fixture(scope="module")
def expected():
    """The losses of eight rows at once."""
    losses = train(*CUTS[0], **SIZES)
    assert len(losses) == STEPS and losses[-1] < losses[0]
    return losses


@pytest.mark.parametrize(("batch", "accumulation"), CUTS[1:])
def test_losses_do_not_depend_on_how_a_batch_is_cut(expected, batch, accumulation):
    assert distance(train(batch, accumulation, **SIZES), expected) <= BOUND


def test_losses_do_not_depend_on_it_where_the_model_takes_no_count_of_tokens(expected, monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "accepts_loss_kwargs", False, raising=False)  # as Qwen3-VL has it
    assert distance(train(*CUTS[-1], **SIZES), expected) <= BOUND


@pytest.mark.slow
def test_losses_do_not_depend_on_the_number_of_processes(expected):
    assert distance(train_in_processes(2, **SIZES), expected) <= BOUND


def test_a_mean_of_means_would_be_noticed(expected, monkeypatch):
    monkeypatch.setattr(DRPTrainer, "_get_num_items_in_batch", lambda *args: None)
    assert distance(train(*CUTS[-1], **SIZES), expected) > 100 * BOUND
