"""Loading language models by name: plain models, the embedded one, and LoRA adapters on top of either.

An adapter's base may itself be an adapter (a student trained on top of the reasoner): names are followed down to a
plain model and the adapters merged from there up.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from drp_hf.embedded import EMBEDDED, EMBEDDED_TOKENIZER, NAMES, cache_dir, making, resolve
from drp_hf.errors import DRPError
from drp_hf.provenance import fingerprint

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_CONFIG = "adapter_config.json"
RUN_FILES = ("run.json", "trainer_state.json", "training_args.bin")
"""What a training writes beside the model: when it ran, and how it went."""
CHAT_TEMPLATE = "chat_template.jinja"
TOKENIZER_FILES = ("*token*", "*.jinja")
ADAPTER_FILES = ("adapter_*", *TOKENIZER_FILES)
"""What decides an adapter: a run folder, or a repository of the Hub, also holds logs, checkpoints and cards."""
DEFAULT_BRANCH = "main"


class Chain(NamedTuple):
    """A plain model and the adapters on it.

    Args:
        base: the plain model's folder or Hub name.
        revision: of the plain model on the Hub: its commit, or what it was asked for by where nobody knows that.
        adapters: folders from the lowest to the highest; empty for a plain model.
    """

    base: str
    revision: str
    adapters: list[str]

    @property
    def pinned_base(self) -> str:
        """The base with its commit, where that is known; the default branch's name tells nothing, and stays out."""
        return self.base if self.revision == DEFAULT_BRANCH else f"{self.base}@{self.revision}"


def adapter_chain(name: str, revision: str | None = None) -> Chain:
    """Follows adapters down to the plain model they stand on, at the revision that they were trained on.

    Adapters on the Hub are downloaded: their folders are snapshots in the cache. A plain model there is pinned to the
    commit that the revision now stands for, or, where the Hub cannot be reached, stood for when it was last looked up.

    Args:
        name: `smollm2-embedded`, `quickstart-reasoner`, `quickstart-student`, a local folder (model or LoRA adapter)
            or a model's name on the Hub.
        revision: branch, tag or commit of a model on the Hub; the default branch if not given.

    Raises:
        DRPError: the folder holds neither a model nor an adapter, an adapter names no base, or one on the Hub cannot
            be downloaded.
    """
    adapters: list[str] = []
    name, revision = resolve(name), revision or DEFAULT_BRANCH
    while config := _adapter_config(name, revision):
        folder = name if Path(name).is_dir() else _downloaded_adapter(name, config)
        if folder in adapters:
            raise DRPError(f"The adapter {name} stands on itself: correct base_model_name_or_path in {config}.")
        adapters.insert(0, folder)
        settings = json.loads(config.read_text(encoding="utf-8"))
        if not settings.get("base_model_name_or_path"):
            raise DRPError(f"{config} names no base_model_name_or_path: add the model the adapter was trained on.")
        name, revision = resolve(settings["base_model_name_or_path"]), settings.get("revision") or DEFAULT_BRANCH
    if not Path(name).is_dir():
        return Chain(name, _commit(name, revision), adapters)
    if not (Path(name) / "config.json").is_file():
        raise DRPError(f"The folder {name} holds neither a model (config.json) nor an adapter ({ADAPTER_CONFIG}).")
    return Chain(name, DEFAULT_BRANCH, adapters)


def load_tokenizer(name: str, revision: str | None = None, **kwargs: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a model or adapter: the highest one in the chain of adapters that was saved with its folder.

    A chat template that lies alone in the folder of an adapter above goes before the tokenizer's own.

    Args:
        name, revision: as in [`adapter_chain`].
        **kwargs: passed on to `AutoTokenizer.from_pretrained`.
    """
    if name == EMBEDDED:
        return _tokenizer(Chain(str(EMBEDDED_TOKENIZER), DEFAULT_BRANCH, []), **kwargs)
    return _tokenizer(adapter_chain(name, revision), **kwargs)


def _tokenizer(chain: Chain, **kwargs: Any) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    source, revision, template = chain.base, chain.revision, None
    for folder in map(Path, chain.adapters):
        if (folder / "tokenizer_config.json").is_file():
            source, revision, template = str(folder), DEFAULT_BRANCH, None
        elif (folder / CHAT_TEMPLATE).is_file():
            template = (folder / CHAT_TEMPLATE).read_text(encoding="utf-8")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, **kwargs)
    except OSError as error:
        raise _not_found(source, error, revision) from error
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def load_model_and_tokenizer(
    name: str, dtype: Any = "auto", revision: str | None = None, **kwargs: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a causal language model with its tokenizer; adapters are merged into their base.

    Merging is done in float32 and rounded once, whatever `dtype` is: a bfloat16 sum would lose most of a small update.
    What is merged stops at the tokenizer's stop token, too, which an adapter's folder tells nowhere else.

    Args:
        name, revision: as in [`adapter_chain`].
        dtype: `torch.dtype` or its name for the returned weights; `"auto"` takes the plain model's own.
        **kwargs: passed on to `AutoModelForCausalLM.from_pretrained`.

    Returns:
        The model in evaluation mode (no adapter left on it) and the tokenizer.

    Raises:
        DRPError: nothing can be loaded under that name, or an adapter was trained on more tokens than its base has.
    """
    return _model_and_tokenizer(adapter_chain(name, revision), dtype, **kwargs)


def _model_and_tokenizer(chain: Chain, dtype: Any, **kwargs: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    base, revision, adapters = chain
    shared = {key: kwargs[key] for key in ("trust_remote_code",) if key in kwargs}
    try:
        if not adapters:
            model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, revision=revision, **kwargs)
        else:
            from peft import PeftModel

            if dtype == "auto":
                dtype = AutoConfig.from_pretrained(base, revision=revision, **shared).dtype
            dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32
            model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, revision=revision, **kwargs)
            for folder in adapters:
                check_tokens(folder, base, revision)
                adapted = PeftModel.from_pretrained(model, folder)
                _untie_adapted(adapted.get_base_model())
                model = adapted.merge_and_unload()
            for weight in model.parameters():  # not `model.to`, which would round the rotary frequencies too
                weight.data = weight.data.to(dtype)
            model.config.dtype = dtype
    except OSError as error:
        raise _not_found(base, error, revision) from error
    tokenizer = _tokenizer(chain, **shared)
    if adapters:
        model.generation_config.eos_token_id = stop_ids(tokenizer, model.generation_config.eos_token_id) or None
    return model.eval(), tokenizer


def _untie_adapted(model: PreTrainedModel) -> None:
    """Parts embeddings and head that are one weight where an adapter is on either: merging would change both."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    adapted = [layer.get_base_layer() for layer in (embeddings, head) if isinstance(layer, BaseTunerLayer)]
    if adapted and head is not None and embeddings.weight is head.weight:
        adapted[0].weight = torch.nn.Parameter(adapted[0].weight.detach().clone(), requires_grad=False)


def load_generation_config(
    name: str, tokenizer: PreTrainedTokenizerBase, revision: str = DEFAULT_BRANCH
) -> GenerationConfig:
    """How a plain model generates, with every token that ends a completion; where it does not say, its config does.

    Args:
        name: the plain model's folder or Hub name.
        tokenizer: of the model or of an adapter on it.
        revision: of the model on the Hub.

    Raises:
        DRPError: nothing is found under that name.
    """
    from transformers import AutoConfig, GenerationConfig

    try:
        config = GenerationConfig.from_pretrained(name, revision=revision)
    except OSError:  # not every model has one
        try:
            config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(name, revision=revision))
        except OSError as error:
            raise _not_found(name, error, revision) from error
    config.eos_token_id = stop_ids(tokenizer, config.eos_token_id) or None
    return config


def stop_ids(tokenizer: PreTrainedTokenizerBase, generation_config_eos: int | list[int] | None) -> list[int]:
    """Every token that ends a completion: those of the generation config and the tokenizer's own."""
    eos = generation_config_eos if isinstance(generation_config_eos, list) else [generation_config_eos]
    return sorted({token for token in [*eos, tokenizer.eos_token_id] if token is not None})


def check_tokens(adapter: str, base: str, revision: str = DEFAULT_BRANCH) -> None:
    """Refuses an adapter that trains tokens which its base has not: TRL adds them with another model's chat template.

    Args:
        adapter: its folder.
        base: folder or Hub name of the plain model.
        revision: of the plain model on the Hub.

    Raises:
        DRPError: there are such tokens.
    """
    from transformers import AutoConfig

    indices = json.loads((Path(adapter) / ADAPTER_CONFIG).read_bytes()).get("trainable_token_indices")
    if not indices:
        return
    of_layers = indices.values() if isinstance(indices, dict) else [indices]
    size = AutoConfig.from_pretrained(base, revision=revision).get_text_config().vocab_size
    if any(index >= size for layer in of_layers for index in layer):
        raise DRPError(
            f"The adapter {adapter} was trained with tokens added to the {size:,} of its base, so that it cannot be "
            "loaded: train it again with a .jinja file as chat_template_path, which adds none."
        )


def model_identity(name: str) -> list[str]:
    """What makes a model that model: the content of adapters and local folders, name and commit of a base on the Hub.

    What a training leaves beside a model is no part of it, nor is what lies in folders below it, as checkpoints do.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    chain, cache = adapter_chain(name), Path(HF_HUB_CACHE).expanduser().resolve()

    def identity(part: str) -> str:
        # Of a repository of the Hub other programs may have downloaded more.
        if part in chain.adapters and Path(part).is_relative_to(cache):
            return fingerprint(part, _decisive_files(part))
        return fingerprint(part, (file for file in Path(part).iterdir() if file.name not in RUN_FILES))

    base = identity(chain.base) if Path(chain.base).is_dir() else chain.pinned_base
    return [base, *map(identity, chain.adapters)]


def parameter_count(name: str) -> int | None:
    """The number of a model's parameters, from the headers of its weight files; adapters, once merged, add none.

    Args:
        name: as in [`adapter_chain`].

    Returns:
        The number; None where no safetensors files of it lie on this machine, or its weights are quantised.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from safetensors import safe_open

    base, revision, _ = adapter_chain(name)
    try:
        is_local = Path(base).is_dir()
        folder = Path(base if is_local else snapshot_download(base, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    config, files = folder / "config.json", sorted(folder.glob("model*.safetensors"))
    settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    if not files or not settings or "quantization_config" in settings:
        return None
    counts = {}
    for file in files:
        with safe_open(file, "numpy") as weights:
            counts |= {key: math.prod(weights.get_slice(key).get_shape()) for key in weights.keys()}
    if settings.get("tie_word_embeddings"):
        counts.pop("lm_head.weight", None)  # the embedding once more, which some files hold (Qwen3's do)
    return sum(counts.values())


def cpu_dtype() -> str:
    """The kind of weights that is fastest on this CPU: bfloat16 where it has matrix units for it (AMX), else float32.

    Without such units a product of bfloat16 matrices can take fifty times as long as one of float32.
    """
    import torch

    return "bfloat16" if torch.cpu._is_amx_tile_supported() else "float32"


def plain_head(model: PreTrainedModel) -> torch.nn.Module | None:
    """The output projection, if a model's logits are nothing but that of its last hidden states.

    Some models scale or cap their logits (Granite, Gemma); to score them takes the logits that they make themselves.
    """
    import torch

    ids = torch.arange(4, device=model.device)[None]
    head, training = model.get_output_embeddings(), model.training
    model.eval()  # with dropout nothing comes out twice
    with torch.inference_mode():
        states = getattr(model.base_model(input_ids=ids, use_cache=False), "last_hidden_state", None)
        logits = model(input_ids=ids, use_cache=False).logits
        plain = None if head is None or states is None else head(states)
    model.train(training)
    if plain is None or plain.shape != logits.shape:
        return None
    return head if torch.allclose(plain.float(), logits.float(), rtol=1e-4, atol=1e-6) else None


def local_model_dir(name: str, dtype: str = "auto", revision: str | None = None) -> str:
    """A name that any other program can load: adapters are merged once into a plain model in the cache.

    Args:
        name, revision: as in [`adapter_chain`].
        dtype: of a merged model's weights; `"auto"` takes the plain model's own.

    Returns:
        The folder or Hub name of a plain model with its tokenizer. For an adapter, a folder below
        [`~drp_hf.embedded.cache_dir`] that is keyed by the content of the adapters, the base with its commit, and
        `dtype`.
    """
    chain = adapter_chain(name, revision)
    if not chain.adapters:
        return chain.base
    decisive = [file for folder in chain.adapters for file in _decisive_files(folder)]
    key = hashlib.sha256("\n".join([chain.pinned_base, dtype, *map(fingerprint, decisive)]).encode()).hexdigest()[:16]
    target = cache_dir() / f"merged-{key}"
    if not (target / "config.json").exists():
        model, tokenizer = _model_and_tokenizer(chain, dtype)  # of the commit that the folder is named after
        with making(target) as partial:
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
    return str(target)


def served_parts(name: str, dtype: str = "auto") -> tuple[str, str, str | None]:
    """A model for a program that can put one adapter on a plain model by itself.

    Args:
        name: as in [`adapter_chain`].
        dtype: as in [`local_model_dir`].

    Returns:
        The plain model, into which all adapters but the topmost are merged, its commit, and the topmost one's
        folder; None where there is none.
    """
    base, revision, adapters = adapter_chain(name)
    if len(adapters) < 2:
        return base, revision, adapters[0] if adapters else None
    return local_model_dir(adapters[-2], dtype), DEFAULT_BRANCH, adapters[-1]


def _decisive_files(adapter: str) -> list[Path]:
    return [file for pattern in ADAPTER_FILES for file in sorted(Path(adapter).glob(pattern))]


def _adapter_config(name: str, revision: str) -> Path | None:
    from transformers.utils.peft_utils import find_adapter_config_file

    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_path and not Path(name).is_dir():
        raise _not_found(name)
    try:
        config = find_adapter_config_file(name, revision=revision)
    except OSError as error:
        raise _not_found(name, error, revision) from error
    return Path(config) if config else None


def _downloaded_adapter(name: str, config: Path) -> str:
    """The folder of an adapter on the Hub, of the commit that its config in the cache is of."""
    from huggingface_hub import snapshot_download

    wanted = [*ADAPTER_FILES, "vocab*", "merges*", "*.model"]  # the last are those of older tokenizers
    try:
        return snapshot_download(name, revision=config.parent.name, allow_patterns=wanted)
    except OSError as error:
        raise _not_found(name, error) from error


def _commit(name: str, revision: str) -> str:
    """The commit of a plain model on the Hub: that of its config, as the cache has it; else the revision as it is."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "config.json", revision=revision)).parent.name
    except OSError:  # there is none, or no Hub: what it is wanted for says so
        return revision


def _not_found(name: str, error: OSError | None = None, revision: str = DEFAULT_BRANCH) -> DRPError:
    from huggingface_hub.errors import GatedRepoError

    if isinstance(error, GatedRepoError) or (error and isinstance(error.__cause__, GatedRepoError)):
        return DRPError(
            f"The model {name!r} is gated: accept its terms on its page on the Hub, and log in (hf auth login)."
        )
    if error and error.errno:  # the system's own, as where the disk is full
        return DRPError(f"The model {name!r} cannot be loaded: {error}.")
    at = "" if revision == DEFAULT_BRANCH else f" at the revision {revision!r}"
    said = next((line.strip() for line in str(error or "").splitlines() if line.strip()), "")
    cause = f" ({said.rstrip('.')})" if said else ""
    return DRPError(
        f"No model found under {name!r}{at}{cause}: give {', '.join(NAMES)}, a folder with a model or an "
        "adapter, or the name of a model on the Hub that can be reached from here."
    )
