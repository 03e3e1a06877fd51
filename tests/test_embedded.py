"""The model that comes in a package is the same wherever it is converted, and whole where several convert it."""

import huggingface_hub.constants
import pytest
from transformers import AutoTokenizer

from drp_hf.embedded import EMBEDDED, making, resolve
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


def write(folder, text):
    folder.mkdir()
    (folder / "config.json").write_text(text)


def test_a_model_that_several_make_at_once_is_that_of_one_of_them(tmp_path):
    """In one process, as those on several machines that share a cache may have the same id."""
    target = tmp_path / "cache" / "model"
    with making(target) as later:
        with making(target) as first:
            write(later, "later")
            write(first, "first")
            assert not target.exists()
        assert (target / "config.json").read_text() == "first"
    assert (target / "config.json").read_text() == "first"
    assert list(target.parent.iterdir()) == [target]
    (tmp_path / "any").mkdir()
    assert target.stat().st_mode == (tmp_path / "any").stat().st_mode, "others that share the cache can read it"


def test_a_model_that_is_not_finished_leaves_nothing(tmp_path):
    target = tmp_path / "cache" / "model"
    with pytest.raises(KeyboardInterrupt), making(target) as folder:
        write(folder, "half")
        raise KeyboardInterrupt
    assert list(target.parent.iterdir()) == []
    target.mkdir()
    (target / "other.txt").write_text("no model")
    with pytest.raises(OSError, match="not empty"), making(target) as folder:
        write(folder, "whole")
