"""What a chat template does to the think tags at inference: real templates' shapes on a real tokenizer."""

import pytest
from transformers import AddedToken, GenerationConfig

from drp_hf.errors import DRPError
from drp_hf.hub.chat_template import check_template, opens_think
from drp_hf.models import load_tokenizer

PLAIN = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
START = "{% if add_generation_prompt %}<|im_start|>assistant\nPREFILL{% endif %}"
HALTS = GenerationConfig(eos_token_id=2)


@pytest.fixture
def tokenizer():
    return load_tokenizer("smollm2-embedded")


def with_prefill(tokenizer, prefill):
    tokenizer.chat_template = PLAIN + START.replace("PREFILL", prefill)
    return tokenizer


@pytest.mark.parametrize(("prefill", "opens"), [("", False), ("<think>\n", True), ("<think>", True)])
def test_the_model_or_the_prompt_opens_the_tag(tokenizer, prefill, opens):
    assert check_template(with_prefill(tokenizer, prefill), HALTS, "student") is opens


def test_reasoning_of_earlier_turns_may_be_dropped(tokenizer):
    drops = PLAIN.replace("m['content']", "m['content'].split('</think>')[-1]")
    tokenizer.chat_template = drops + START.replace("PREFILL", "<think>\n")
    assert check_template(tokenizer, HALTS, "student") is True


def test_a_prompt_that_closes_the_reasoning(tokenizer):
    with pytest.raises(DRPError, match="closes the reasoning before the model can write it") as error:
        check_template(with_prefill(tokenizer, "<think>\n\n</think>\n\n"), HALTS, "runs/student")
    assert str(error.value).startswith("runs/student (its chat template")


def test_no_template(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(DRPError, match="without a chat template"):
        check_template(tokenizer, HALTS, "student")
    assert opens_think(tokenizer) is False


@pytest.mark.parametrize("special", [True, False])
def test_tags_that_readers_would_not_see(tokenizer, special):
    tokenizer.add_tokens([AddedToken(tag, special=special) for tag in ("<think>", "</think>")], special_tokens=special)
    if not special:
        assert check_template(tokenizer, HALTS, "student") is False
        return
    with pytest.raises(DRPError, match="counts <think> among its special tokens"):
        check_template(tokenizer, HALTS, "student")


def test_generation_that_would_not_stop(tokenizer):
    tokenizer.eos_token = "<|endoftext|>"
    with pytest.raises(DRPError, match="at which generation does not stop"):
        check_template(tokenizer, GenerationConfig(eos_token_id=0), "student")
