"""The model that comes in a package is the same wherever it is converted."""

import huggingface_hub.constants

from drp_hf.embedded import EMBEDDED
from drp_hf.models import model_identity


def test_the_embedded_model_is_the_same_without_the_hub(tmp_path, monkeypatch):
    converted = {}
    for offline in (False, True):
        monkeypatch.setenv("DRP_CACHE", str(tmp_path / str(offline)))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
        converted[offline] = model_identity(EMBEDDED)
    assert converted[True] == converted[False]
