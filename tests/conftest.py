"""Fixtures that several test files use."""

import gc
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def _libraries_out_of_the_way():
    """Every training collects garbage, which goes through every object of every library, for a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real problems and traces that lies beside the checkout; absent in a user's clone."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        message = f"real data not found at {folder}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def smollm2_tokenizer():
    """The embedded model's real tokenizer."""
    from drp_hf.models import load_tokenizer

    return load_tokenizer("smollm2-embedded")


@pytest.fixture(scope="session")
def student(tmp_path_factory) -> Path:
    """A folder with a two-layer Llama of random weights and the embedded model's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from drp_hf.models import load_tokenizer

    folder = tmp_path_factory.mktemp("student")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"vocab_size": 49152, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    LlamaForCausalLM(LlamaConfig(**sizes, **tokens, tie_word_embeddings=True)).save_pretrained(folder)
    load_tokenizer("smollm2-embedded").save_pretrained(folder)
    return folder
