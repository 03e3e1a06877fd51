"""Whether a student's chat template lets it think at inference as it did in training."""

from __future__ import annotations

from transformers import GenerationConfig, PreTrainedTokenizerBase

from drp_hf.errors import DRPError
from drp_hf.records import THINK_CLOSE, THINK_OPEN, final_response, render_output
from drp_hf.rendering import RowRenderer, check_stop

PROBE = {
    "prompt": [{"role": "user", "content": "What is 2 + 2?"}],
    "completion": [{"role": "assistant", "content": render_output("2 + 2 = 4.", final_response("4"))}],
}
"""A row as the corpus has them."""


def check_template(tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig, where: str) -> bool:
    """Refuses a tokenizer with which the think tags would be lost between prompt, model and reader.

    Args:
        tokenizer: the student's.
        generation_config: says at which tokens generation stops.
        where: begins the message of an error.

    Returns:
        Whether the prompt already opens the think tag, so that the model's output begins inside of it.

    Raises:
        DRPError: there is no template, it closes the reasoning before the model can write it or opens it twice, the
            reader would not see the tags, or generation would not stop.
    """
    if not tokenizer.chat_template:
        raise DRPError(
            f"{where} has a tokenizer without a chat template, so that nobody could ask the student as it was "
            "trained: train with a .jinja file as chat_template_path, or save the tokenizer with its template."
        )
    rendered = RowRenderer(tokenizer)(PROBE, f"{where} (its chat template, on a question with reasoning)")
    completion = rendered.text[rendered.border :]
    ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
    shown = tokenizer.decode(ids, skip_special_tokens=True)
    for tag in (THINK_OPEN, THINK_CLOSE):
        if tag in completion and tag not in shown:
            raise DRPError(
                f"{where} has a tokenizer that counts {tag} among its special tokens, which pipelines and servers "
                "leave out of the text: add it as an ordinary token (special=False) and save the tokenizer again."
            )
    check_stop(tokenizer, generation_config)
    return opens_think(tokenizer)


def opens_think(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the prompt opens the think tag; a tokenizer without a chat template has no prompt of its own."""
    if not tokenizer.chat_template:
        return False
    prompt = tokenizer.apply_chat_template(PROBE["prompt"], tokenize=False, add_generation_prompt=True)
    return prompt.rstrip().endswith(THINK_OPEN)
