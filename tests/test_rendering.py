import copy
from importlib import resources
from itertools import pairwise

import pytest
from transformers import AutoTokenizer

from drp_hf.embedded import resolve
from drp_hf.errors import DRPError
from drp_hf.records import final_response, render_output
from drp_hf.rendering import Region, RowRenderer, stop_text
from drp_hf.row_encoder import RowEncoder

REASONING = "Tom has 3 apples.\n\nWait, let me check that again. So 3 + 4 = 7."
CHATML = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + CONTENT + '<|im_end|>\n' }}{% endfor %}"
# As QwQ's: the reasoning of a written message is dropped, and the think tag is opened for the model.
QWQ = CHATML.replace("CONTENT", "m.content.split('</think>')[-1].lstrip('\n')") + (
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
R1_TOKENS = ["<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"]
LLAMA_TOKENS = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def shipped(name):
    """A chat template that comes with TRL."""
    return (resources.files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def with_template(tokenizer, template, special=(), think_tokens=False):
    """The tokenizer with another family's template and special tokens (the first begins a text, the last ends it)."""
    tokenizer = copy.deepcopy(tokenizer)
    if special:
        tokenizer.add_special_tokens({"bos_token": special[0], "eos_token": special[-1]})
        tokenizer.add_special_tokens({"additional_special_tokens": list(special[1:-1])})
    if think_tokens:
        tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = template
    return tokenizer


# Family: template, its training variant in TRL (None: TRL ships none), special tokens, whether the think tags are
# tokens of their own, how it stops, and what the training template writes behind the stop token.
FAMILIES = {
    "R1-Distill": ("deepseek_r1_distill", "deepseek_r1_distill_training", R1_TOKENS, True, R1_TOKENS[-1], ""),
    "Qwen3 thinking": ("qwen3", "qwen3_training", (), True, "<|im_end|>", "\n"),
    "Qwen2.5": ("qwen2_5", "qwen2_5_training", (), False, "<|im_end|>", "\n"),
    "QwQ": (QWQ, None, (), True, "<|im_end|>", "\n"),
    "Llama 3": ("llama3", "llama3_training", LLAMA_TOKENS, False, "<|eot_id|>", ""),
    "SmolLM2": (None, None, (), False, "<|im_end|>", "\n"),
}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(resolve("smollm2-embedded"))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tokenizer):
    template, training, special, think_tokens, stop, after = FAMILIES[request.param]
    if template is None:
        template = tokenizer.chat_template
    elif template != QWQ:
        template = shipped(template)
    return with_template(tokenizer, template, special, think_tokens), training, stop, after


def make_row(reasoning=REASONING, **changes):
    content = render_output(reasoning, final_response("7"))
    start = content.index(reasoning)
    border = start + reasoning.index("Wait")
    steps = [
        {"start": start, "end": border, "skill": "reading", "action": "KEEP"},
        {"start": border, "end": start + len(reasoning), "skill": "adding", "action": "MERGE"},
    ]
    row = {
        "prompt": [{"role": "user", "content": "How many apples?"}],
        "completion": [{"role": "assistant", "content": content}],
        "steps": steps,
    }
    return row | changes


def encode(tokenizer, row):
    encoded = RowEncoder(tokenizer)({name: [value] for name, value in row.items()}, [0])
    return encoded["input_ids"][0].tolist(), encoded["labels"][0].tolist()


def test_whole_traces_are_trained(family):
    tokenizer, _, stop, _ = family
    row = make_row()
    ids, labels = encode(tokenizer, row)
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert ids[: len(prompt)] == prompt and labels[: len(prompt)] == [-100] * len(prompt)
    assert labels[len(prompt) :] == ids[len(prompt) :]
    assert ids[-1] == tokenizer.convert_tokens_to_ids(stop)
    text = tokenizer.decode(ids)
    assert text.endswith(f"<think>\n{REASONING}\n</think>\n\nThe answer is 7.{stop}")
    assert text.count("<think>") == text.count("</think>") == 1


def test_it_is_what_the_training_template_of_trl_gives(family):
    tokenizer, training, _, after = family
    if training is None:
        pytest.skip("TRL ships no training template for this family")
    row = make_row()
    messages = row["prompt"] + row["completion"]
    expected = tokenizer.apply_chat_template(messages, chat_template=shipped(training), tokenize=False)
    ids, _ = encode(tokenizer, row)
    assert tokenizer.decode(ids) + after == expected
    if "\n\n<think>" not in expected:  # there this tokenizer, not Llama's own, joins prompt and completion
        assert ids == tokenizer(expected.removesuffix(after), add_special_tokens=False)["input_ids"]


def test_the_template_itself_would_drop_the_reasoning(tokenizer):
    """What the rendering is for: as a conversation these would silently be trained without their reasoning."""
    row = make_row()
    for template, special in ((shipped("deepseek_r1_distill"), R1_TOKENS), (QWQ, ())):
        dropping = with_template(tokenizer, template, special)
        assert "3 + 4" not in dropping.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)


def test_spans_tile_the_text(family):
    tokenizer, _, stop, _ = family
    rendered = RowRenderer(tokenizer)(make_row(), "The row")
    ends = [0, *(span.end for span in rendered.spans)]
    assert [span.start for span in rendered.spans] == ends[:-1] and ends[-1] == len(rendered.text)
    parts = [(str(span.kind), rendered.text[span.start : span.end]) for span in rendered.spans]
    opening = [] if rendered.text[: rendered.border].endswith("<think>\n") else [("other", "<think>\n")]
    assert parts[1:] == [
        *opening,
        ("KEEP", "Tom has 3 apples.\n\n"),
        ("MERGE", "Wait, let me check that again. So 3 + 4 = 7."),
        ("think_close", "\n</think>"),
        ("answer", "\n\nThe answer is 7."),
        ("stop", stop),
    ]


def test_without_think_tags_all_that_is_in_no_step_is_the_answer(tokenizer):
    row = {"prompt": "How many?", "completion": " 3 + 4 = 7. It is 7."}
    step = {"start": 0, "end": 11, "action": "KEEP"}
    rendered = RowRenderer(tokenizer)({**row, "steps": [step]}, "The row")
    assert [(str(s.kind), s.skill, s.category) for s in rendered.spans] == [
        ("prompt", "", ""),
        ("KEEP", "", ""),
        ("answer", "", ""),
        ("stop", "", ""),
    ]
    (prompt, answer, stop) = RowRenderer(tokenizer)(row, "The row").spans
    assert rendered.text[answer.start : answer.end] == row["completion"] and stop.kind is Region.STOP
    gap = {**row, "steps": [step, {"start": 15, "end": 20, "action": "KEEP"}]}
    with pytest.raises(DRPError, match="The row has steps that do not tile its reasoning: 'It' is in none of them"):
        RowRenderer(tokenizer)(gap, "The row")


@pytest.mark.parametrize("reasoning", ["A.\n\nB.\n \nC.", "\nA. B. C.\n\n"])
def test_white_space_between_two_steps_belongs_to_the_first(tokenizer, reasoning):
    content = render_output(reasoning, final_response("7"))
    starts = [content.index(letter) for letter in "ABC"]
    steps = [{"start": at, "end": at + 2, "action": "KEEP"} for at in starts]
    row = make_row(completion=[{"role": "assistant", "content": content}], steps=steps)
    rendered = RowRenderer(tokenizer)(row, "The row")
    parts = [(str(span.kind), rendered.text[span.start : span.end]) for span in rendered.spans[1:-1]]
    assert parts == [
        ("other", content[: starts[0]]),
        *[("KEEP", content[start:end]) for start, end in pairwise([*starts, starts[2] + 2])],
        ("think_close", content[starts[2] + 2 : content.index("</think>")] + "</think>"),
        ("answer", "\n\nThe answer is 7."),
    ]
    plain = {"prompt": "How?", "completion": " A.\n\nB. ", "steps": [{"start": 1, "end": 3, "action": "KEEP"}]}
    plain["steps"].append({"start": 5, "end": 7, "action": "MERGE"})
    rendered = RowRenderer(tokenizer)(plain, "The row")
    parts = [(str(span.kind), rendered.text[span.start : span.end]) for span in rendered.spans[1:-1]]
    assert parts == [("answer", " "), ("KEEP", "A.\n\n"), ("MERGE", "B."), ("answer", " ")]


def test_an_empty_reasoning_needs_no_step(tokenizer):
    row = make_row() | {"completion": [{"role": "assistant", "content": render_output("", "It is 7.")}], "steps": []}
    kinds = [str(span.kind) for span in RowRenderer(tokenizer)(row, "The row").spans]
    assert kinds == ["prompt", "other", "think_close", "answer", "stop"]


def test_the_data_s_category_goes_before_the_taxonomy(tokenizer):
    row = make_row()
    row["steps"][0] |= {"category": "apples"}
    spans = RowRenderer(tokenizer)(row, "The row").spans
    assert [span.category for span in spans if span.skill] == ["apples", "arithmetic"]


def test_a_template_that_drops_the_reasoning_is_refused(tokenizer):
    qwen3 = with_template(tokenizer, shipped("qwen3"))
    with pytest.raises(DRPError, match="the chat template closes the reasoning before the model can write it"):
        RowRenderer(qwen3)(make_row(chat_template_kwargs={"enable_thinking": False}), "Row 1 of the train data")
    short = [{"role": "assistant", "content": "The answer is 7."}]
    row = make_row(chat_template_kwargs={"enable_thinking": False}, completion=short, steps=None)
    assert RowRenderer(qwen3)(row, "The row").text.endswith("<think>\n\n</think>\n\nThe answer is 7.<|im_end|>")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_beside_the_content_is_refused_and_none_is_not(tokenizer, field):
    def render(reasoning):
        message = {"role": "assistant", "content": "It is 7.", field: reasoning}
        return RowRenderer(tokenizer)(make_row(completion=[message], steps=None), "Row 2 of the train data")

    with pytest.raises(DRPError) as error:
        render(REASONING)
    assert str(error.value) == (
        f"Row 2 of the train data has {field} beside its completion's content, which would not be trained: put it "
        "into content between <think> and </think>."
    )
    assert render(None).text == render("").text
    assert render(None).text.endswith("It is 7.<|im_end|>")


def test_tool_calls_are_refused(tokenizer):
    calls = [{"type": "function", "function": {"name": "add", "arguments": {"a": 3, "b": 4}}}]
    message = {"role": "assistant", "content": "", "tool_calls": calls}
    with pytest.raises(DRPError, match="^The row has tool_calls beside .*: write them into content as the student is"):
        RowRenderer(tokenizer)(make_row(completion=[message], steps=None), "The row")
    message |= {"content": "It is 7.", "tool_calls": []}
    assert RowRenderer(tokenizer)(make_row(completion=[message], steps=None), "The row").text.endswith("7.<|im_end|>")


def test_stop_text(tokenizer):
    assert stop_text(with_template(tokenizer, QWQ)) == "<|im_end|>"
    assert stop_text(with_template(tokenizer, shipped("llama3"), LLAMA_TOKENS)) == "<|eot_id|>"
    bare = with_template(tokenizer, "{% for message in messages %}{{ message['content'] + '\n' }}{% endfor %}")
    assert stop_text(bare) == tokenizer.eos_token  # a template without stop tokens
