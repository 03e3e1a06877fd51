"""The model that comes in a package is the same wherever it is converted."""

import huggingface_hub.constants
from transformers import AutoTokenizer

from drp_hf.embedded import EMBEDDED, resolve
from drp_hf.models import load_tokenizer, model_identity


def test_the_embedded_model_is_the_same_without_the_hub(tmp_path, monkeypatch):
    converted = {}
    for offline in (False, True):
        monkeypatch.setenv("DRP_CACHE", str(tmp_path / str(offline)))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        converted[offline] = model_identity(EMBEDDED)
    assert converted[True] == converted[False]


def test_the_tokenizer_in_this_package_is_the_models_own(tmp_path):
    tokenizers = {"here": load_tokenizer(EMBEDDED), "there": AutoTokenizer.from_pretrained(resolve(EMBEDDED))}
    saved = {}
    for place, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(tmp_path / place)
        saved[place] = {file.name: file.read_bytes() for file in (tmp_path / place).iterdir()}
    assert saved["here"] == saved["there"] and "chat_template.jinja" in saved["here"]
