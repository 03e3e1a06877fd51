"""A trained student as a publication: its weights, tokenizer and card, and nothing of the trainer's state."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from drp_hf.errors import DRPError
from drp_hf.hub.publication import CARD, Publication
from drp_hf.hub.student_run import checkpoint_step, is_local, license_of, read_run, student_of
from drp_hf.models import (
    ADAPTER_CONFIG,
    DEFAULT_BRANCH,
    adapter_chain,
    check_tokens,
    load_generation_config,
    load_tokenizer,
    local_model_dir,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Weights = Literal["merged", "adapter"]
MERGED = "merged"
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
MODEL, MODEL_INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_model.safetensors"


def student_publication(
    folder: str | Path,
    repo_id: str,
    work_dir: str | Path,
    weights: Weights | None = None,
    *,
    before: str | Path | None = None,
    after: str | Path | None = None,
    corpus: str | None = None,
    license: Mapping[str, str] | None = None,
    revision: str | None = None,
    run: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
) -> Publication:
    """What the repository of a student holds.

    Args:
        folder: that `drp sft` or `drp dpo` wrote, or one of its checkpoints.
        repo_id: the repository.
        work_dir: an empty folder for files that are made on the way; it must live until all is published.
        weights: of an adapter, `"adapter"` publishes the adapter alone and `"merged"`, the default, the whole model,
            which every program can load.
        before: run folder of the evaluation of what was trained.
        after: run folder of the student's evaluation.
        corpus: the corpus's name on the Hub, where the training read it from a folder.
        license: `license` and, where the Hub wants them, `license_name` and `license_link`; those of the base, as the
            Hub has them, if not given.
        revision: the branch where it goes, which the card names; `main` if not given.
        run: what made the student; `run.json` of the folder if not given.
        tags: further ones.

    Raises:
        DRPError: the folder holds no student, it cannot be loaded as published, its chat template loses the think
            tags, or the evaluations cannot be compared.
    """
    from peft import PeftConfig

    from drp_hf.hub.chat_template import check_template
    from drp_hf.hub.eval_results import leaderboard_files, plot_files, read_results
    from drp_hf.hub.student_card import student_card

    folder = Path(folder)
    is_adapter = _is_adapter(folder)
    if weights == "adapter" and not is_adapter:
        raise DRPError(f"{folder} holds a whole model and no adapter: remove adapter.")
    as_adapter = is_adapter and weights == "adapter"
    model = folder if as_adapter or not is_adapter else _merged(folder)
    files = _adapter_files(folder) if as_adapter else _model_files(model)
    tokenizer = load_tokenizer(str(folder))
    files |= _tokenizer_files(tokenizer, Path(work_dir))
    base, base_revision, _ = adapter_chain(str(model))
    generation = load_generation_config(base, tokenizer, base_revision)
    if not as_adapter:  # with an adapter nobody would read it
        files[GENERATION_CONFIG] = generation.to_json_string().encode()

    opens_think = check_template(tokenizer, generation, str(folder))
    stands_on = _base(folder) if is_adapter else (None, None)
    student = student_of(read_run(folder) if run is None else run, *stands_on, corpus)
    results = read_results(before, after, ("before", repo_id.rpartition("/")[2]))
    if results and not _is_own(results[0].model, folder, repo_id):
        logger.warning(
            f"{after} has the answers of {results[0].model}, and the student is {folder}: see that they are the same."
        )
    card = student_card(
        repo_id,
        student,
        adapter=PeftConfig.from_pretrained(folder) if as_adapter else None,
        stops=generation.eos_token_id or (),
        opens_think=opens_think,
        step=checkpoint_step(folder),
        revision=None if revision == "main" else revision,
        results=results,
        license=license or license_of(student.base),
        tags=tags,
    )
    files |= {CARD: str(card).encode(), **plot_files(results), **leaderboard_files(results, repo_id)}
    return Publication("model", files, f"Student {repo_id}")


def _is_adapter(folder: Path) -> bool:
    if (folder / ADAPTER_CONFIG).is_file():
        return True
    if (folder / CONFIG).is_file():
        return False
    raise DRPError(
        f"{folder} holds neither a model ({CONFIG}) nor an adapter ({ADAPTER_CONFIG}): give the output folder of "
        "drp sft or drp dpo."
    )


def _is_own(model: str, folder: Path, repo_id: str) -> bool:
    """Whether the model of an evaluation is the student."""
    return model == repo_id or Path(model).resolve() in (folder.resolve(), (folder / MERGED).resolve())


def _base(folder: Path) -> tuple[str | None, str | None]:
    """What an adapter names as its base, and that one's revision."""
    config = json.loads((folder / ADAPTER_CONFIG).read_bytes())
    return config.get("base_model_name_or_path"), config.get("revision")


def _merged(folder: Path) -> Path:
    """The adapter merged into its base: what the training has merged, unless the adapter is newer; else merged now."""
    merged = folder / MERGED
    made = [file.stat().st_mtime for file in merged.glob("*.safetensors")]
    if made and (folder / ADAPTER).is_file() and min(made) >= (folder / ADAPTER).stat().st_mtime:
        return merged
    return Path(local_model_dir(str(folder)))


def _adapter_files(folder: Path) -> dict[str, Path | bytes]:
    """The adapter's weights and settings.

    Raises:
        DRPError: the weights are missing, or others could not load the base, or the adapter on it.
    """
    base, revision = _base(folder)
    instead = "publish the whole model instead (merged)"
    if not base or is_local(base):
        raise DRPError(f"{folder} is an adapter for {base}, which nobody can load from the Hub: {instead}.")
    if len(adapter_chain(str(folder)).adapters) > 1:
        raise DRPError(f"{folder} is an adapter for {base}, an adapter itself, which no program follows: {instead}.")
    check_tokens(str(folder), base, revision or DEFAULT_BRANCH)
    if not (folder / ADAPTER).is_file():
        raise DRPError(f"{folder} has no {ADAPTER}: train again, or save the adapter as safetensors.")
    return {name: folder / name for name in (ADAPTER, ADAPTER_CONFIG)}


def _model_files(folder: Path) -> dict[str, Path | bytes]:
    """The model's weights, in the shards in which they were saved, and its config.

    Raises:
        DRPError: weights are missing, or not saved as safetensors.
    """
    names = [CONFIG]
    if (folder / MODEL_INDEX).is_file():
        index = json.loads((folder / MODEL_INDEX).read_bytes())
        names += [MODEL_INDEX, *sorted(set(index["weight_map"].values()))]
    else:
        names.append(MODEL)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise DRPError(f"{folder} has no {missing[0]}: save the model with save_pretrained, which writes safetensors.")
    return {name: folder / name for name in names}


def _tokenizer_files(tokenizer: PreTrainedTokenizerBase, work_dir: Path) -> dict[str, Path]:
    """The tokenizer's files, as it saves them itself, with its chat template."""
    target = work_dir / "tokenizer"
    tokenizer.save_pretrained(target)
    return {path.relative_to(target).as_posix(): path for path in sorted(target.rglob("*")) if path.is_file()}
