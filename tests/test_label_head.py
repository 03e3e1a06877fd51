"""The head that scores labels alone gives what TRL's gives, loss, metrics and gradients."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GraniteConfig, GraniteForCausalLM, LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from drp_hf import label_head
from drp_hf.label_head import score_labels_only

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKENS = {"vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def model_with_head(kind=LlamaForCausalLM, config=LlamaConfig, adapter=False, **settings):
    torch.manual_seed(0)
    model = kind(config(**SIZES, **TOKENS, **settings))
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    if adapter:
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    return model


def batch():
    torch.manual_seed(1)
    ids = torch.randint(3, 97, (3, 20))
    labels = ids.clone()
    labels[:, :7] = -100
    labels[1, 12:] = -100
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def outcome(model, **kwargs):
    model.zero_grad()
    outputs = model(**batch(), fused_lm_head=True, **kwargs)
    (outputs.log_probs.exp().sum() + outputs.loss).backward()
    return outputs, [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("weights", ["whole", "autocast"])
def test_bfloat16(weights):
    found = {}
    for ours in (False, True):
        model = model_with_head(adapter=weights == "autocast")
        if weights == "whole":
            model = model.to(torch.bfloat16)
        if ours:
            score_labels_only(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=weights == "autocast"):
            found[ours], gradients = outcome(model)
        assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    assert found[True].log_probs.dtype == found[False].log_probs.dtype == torch.float32
    torch.testing.assert_close(found[True].loss, found[False].loss, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("positions", [1024, 5])
@pytest.mark.parametrize("adapter", [False, True])
def test_the_same_as_trl(positions, adapter, monkeypatch):
    monkeypatch.setattr(label_head, "POSITIONS", positions)
    expected, expected_gradients = outcome(model_with_head(adapter=adapter))
    model = model_with_head(adapter=adapter)
    forward = (model.get_base_model() if adapter else model).forward
    score_labels_only(model)
    assert (model.get_base_model() if adapter else model).forward is not forward
    found, gradients = outcome(model)
    torch.testing.assert_close(found.loss, expected.loss)
    torch.testing.assert_close(found.log_probs, expected.log_probs)
    torch.testing.assert_close(found.entropy.detach(), expected.entropy.detach())
    assert torch.equal(found.is_top1, expected.is_top1.bool())
    assert torch.equal(found.label_mask, expected.label_mask)
    assert len(gradients) == len(expected_gradients) > 0
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_only_positions_with_a_label_are_projected():
    model = model_with_head()
    score_labels_only(model)
    seen = []
    model.lm_head.register_forward_hook(lambda _, inputs, output: seen.append(len(inputs[0])))
    outcome(model)
    assert seen == [int((batch()["labels"][:, 1:] != -100).sum())]


def test_a_batch_without_labels_has_a_loss_of_zero_and_gradients():
    model = model_with_head()
    score_labels_only(model)
    inputs = batch()
    outputs = model(**inputs | {"labels": torch.full_like(inputs["labels"], -100)}, fused_lm_head=True)
    assert outputs.loss == 0
    outputs.loss.backward()


def test_dropout_does_not_hide_that_the_head_is_plain():
    model = model_with_head(attention_dropout=0.5).train()
    forward = model.forward
    score_labels_only(model)
    assert model.forward is not forward and model.training


def test_scaled_logits_are_left_to_trl():
    model = model_with_head(GraniteForCausalLM, GraniteConfig, logits_scaling=8.0)
    forward = model.forward
    score_labels_only(model)
    assert model.forward == forward
