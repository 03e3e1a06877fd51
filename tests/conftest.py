"""Fixtures that several test files use."""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

# Where the clients find Xet's library they upload with it, and it repeats what fails for minutes. The tests upload
# plain LFS objects, except where they start a process without this. The clients read it when first imported.
os.environ["HF_HUB_DISABLE_XET"] = "1"


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


COMMANDS = """
import json, sys
from drp_hf.cli import main
for command in json.loads(sys.argv[1]):
    sys.argv = ["drp", *command]
    main()
"""


@pytest.fixture(scope="session")
def published(student, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A Hub with a corpus, a student that learnt from it and the metric on it, made and put there by the commands.

    It has `hub`, the local folders `corpus`, `student`, `before` and `after` (the evaluations), and the `environment`
    in which clients use the hub.
    """
    from tests.loopback_hub import LoopbackHub

    root = Path(__file__).resolve().parents[1]
    corpus = root / "drp_hf" / "corpus" / "sample"
    run = tmp_path_factory.mktemp("published")
    heldout, trained, before, after = (str(run / name) for name in ("heldout.jsonl", "student", "before", "after"))
    few = {"max_steps": 2, "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"}
    training = [text for name, value in few.items() for text in (f"--{name}", str(value))]
    answering = ["--engine", "transformers", "--max-tokens", "8", "--output-dir"]
    licences = ["--license", "apache-2.0", "--sources", "openai/gsm8k=mit", "--contamination", heldout]
    commands = [
        ["problems", heldout, "--count", "4", "--split", "test"],
        ["sft", str(corpus), "--model_name_or_path", str(student), "--output_dir", trained, *training],
        ["evaluate", heldout, "--model", str(student), *answering, before],
        ["evaluate", heldout, "--model", trained, *answering, after, "--baseline", before],
        ["push", "corpus", str(corpus), "--repo-id", "drp_hf/sample", *licences],
        ["push", "student", trained, "--repo-id", "drp_hf/student", "--before", before, "--after", after],
        ["push", "metric", "--repo-id", "drp_hf/token_efficiency"],
    ]
    with LoopbackHub() as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "PYTHONPATH": str(root)}
        environment["HF_HOME"] = str(run / "hf")
        subprocess.run([sys.executable, "-c", COMMANDS, json.dumps(commands)], check=True, env=environment)
        folders = {"corpus": corpus, "student": Path(trained), "before": Path(before), "after": Path(after)}
        yield SimpleNamespace(hub=hub, environment=environment, **folders)
