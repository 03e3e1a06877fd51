"""The card of a student: what it was made from and how, what was measured, and how to run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources

from huggingface_hub import ModelCard, ModelCardData
from peft import PeftConfig, PeftType

from drp_hf.engines.vllm import rank_limit
from drp_hf.hub.eval_results import PLOTS, Result, model_index, plot_path
from drp_hf.hub.student_run import Student

TAGS = ["reasoning", "distilled-reasoning-pruning", "drp_hf", "trl"]


def student_card(
    repo_id: str,
    student: Student,
    *,
    opens_think: bool,
    adapter: PeftConfig | None = None,
    stops: Sequence[int] = (),
    step: int | None = None,
    revision: str | None = None,
    results: Sequence[Result] = (),
    license: Mapping[str, str] | None = None,
    tags: Sequence[str] = (),
) -> ModelCard:
    """The card.

    Args:
        repo_id: the repository, or what the student is called.
        student: what made it.
        opens_think: whether the prompt already opens the think tag.
        adapter: its config, where the weights are an adapter's.
        stops: ids of all tokens that end an answer, of which a whole model knows and an adapter's base may not.
        step: the optimiser step of a checkpoint; None for the end of the training.
        revision: the branch where it is; None for `main`.
        results: what was measured.
        license: `license` and, where the Hub wants them, `license_name` and `license_link`.
        tags: further ones.
    """
    from drp_hf import __version__

    title = repo_id.rpartition("/")[2]
    data = ModelCardData(
        model_name=title if results else None,  # it heads the results
        base_model=student.base,
        base_model_relation=("adapter" if adapter else "finetune") if student.base else None,
        datasets=[student.corpus] if student.corpus_on_hub else None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=list(dict.fromkeys([*TAGS, *([student.stage] if student.stage else []), *tags])),
        metrics=["accuracy"] if results else None,
        eval_results=model_index(results) or None,
        **(license or {}),
    )
    return ModelCard.from_template(
        data,
        template_str=resources.files("drp_hf.model_cards").joinpath("student.md").read_text(encoding="utf-8"),
        repo_id=repo_id,
        title=title,
        student=student,
        is_adapter=adapter is not None,
        kind=_kind(adapter) if adapter else None,
        base=student.base if student.is_direct else student.trained_from,
        stops=list(stops),
        rank_limit=rank_limit(adapter) if adapter else None,
        opens_think=opens_think,
        step=step,
        revision=revision,
        results=results,
        plots=PLOTS,
        plot_path=plot_path,
        version=student.versions.get("drp_hf", __version__),
    )


def _kind(adapter: PeftConfig) -> str:
    """What an adapter is called."""
    if adapter.peft_type != PeftType.LORA:
        return f"an adapter ({adapter.peft_type.value})"
    ranks = {adapter.r, *adapter.rank_pattern.values()}
    return "a LoRA adapter of rank " + " to ".join(map(str, sorted({min(ranks), max(ranks)})))
