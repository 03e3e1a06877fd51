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
