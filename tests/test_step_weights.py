import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from drp_hf.embedded import resolve
from drp_hf.errors import DRPError
from drp_hf.records import final_response, render_output
from drp_hf.step_weights import RowEncoder, stop_text, token_weights

# What R1-Distill's template does: opens the think tag for the model, and drops the reasoning of written messages.
R1_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|im_start|>' + message['content'].split('</think>')[-1] + '<|im_end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|><think>\n' }}{% endif %}"
)
SENTENCES = ["Tom has 3 apples.", " Wait, let me check that again.", " So 3 + 4 = 7."]
ACTIONS = ["KEEP", "MERGE", "COMPRESS"]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(resolve("smollm2-embedded"))


def make_row(sentences=SENTENCES, actions=ACTIONS, answer="7"):
    content = render_output("".join(sentences), final_response(answer))
    steps, start = [], content.index(sentences[0])
    for sentence, action in zip(sentences, actions, strict=True):
        steps.append({"start": start, "end": start + len(sentence), "skill": "adding", "action": action})
        start += len(sentence)
    return {
        "prompt": [{"role": "user", "content": "How many?"}],
        "completion": [{"role": "assistant", "content": content}],
        "steps": steps,
    }


def encode(encoder, *rows):
    return encoder({name: [row[name] for row in rows] for name in rows[0]}, list(range(len(rows))))


def test_preview_shows_every_token_with_its_action_and_weight(tokenizer):
    weights = {"KEEP": 0, "MERGE": 0.5, "COMPRESS": 2}
    view = RowEncoder(tokenizer, weights).preview(make_row())
    border = next(i for i, token in enumerate(view) if token.weight)
    assert "".join(token.token for token in view[:border]).endswith("<|im_start|>assistant\n")
    assert [tuple(token) for token in view[border:]] == [
        *[(token, "", 1.0) for token in ("<", "think", ">", "\n")],
        *[(token, "KEEP", 0.0) for token in ("Tom", " has", " ", "3", " apples", ".")],
        *[(token, "MERGE", 0.5) for token in (" Wait", ",", " let", " me", " check", " that", " again", ".")],
        *[(token, "COMPRESS", 2.0) for token in (" So", " ", "3", " +", " ", "4", " =", " ", "7", ".")],
        *[(token, "", 1.0) for token in ("\n", "</", "think", ">", "\n", "\n")],
        *[(token, "", 1.0) for token in ("The", " answer", " is", " ", "7", ".", "<|im_end|>")],
    ]


def test_labels_are_the_tokens_that_weigh_something(tokenizer):
    encoded = encode(RowEncoder(tokenizer, {"KEEP": 0, "MERGE": 0.5}), make_row())
    (ids,), (labels,), (weights,) = encoded["input_ids"], encoded["labels"], encoded["loss_weights"]
    assert len(ids) == len(labels) == len(weights)
    assert [label != -100 for label in labels] == [weight != 0 for weight in weights]
    assert all(label in (-100, token) for label, token in zip(labels, ids, strict=True))
    trained = tokenizer.decode([label for label in labels if label != -100])
    assert trained == "<think>\n Wait, let me check that again. So 3 + 4 = 7.\n</think>\n\nThe answer is 7.<|im_end|>"


def test_a_token_across_a_border_takes_the_larger_weight(tokenizer):
    text = "The multiplication is done."
    border = text.index("plication")
    assert any(s < border < e for s, e in offsets_of(tokenizer, text))
    for left, right in ((0.25, 0.75), (0.75, 0.25)):
        weights = token_weights(
            np.array(offsets_of(tokenizer, text)), text, [(0, border, left), (border, len(text), right)]
        )
        assert weights.tolist() == slow_weights(tokenizer, text, [(0, border, left), (border, len(text), right)])
        assert weights[[s < border < e for s, e in offsets_of(tokenizer, text)]].tolist() == [0.75]


def test_the_space_before_a_word_belongs_to_the_word(tokenizer):
    text = "One. Two."
    weights = token_weights(np.array(offsets_of(tokenizer, text)), text, [(0, 5, 1.0), (5, 9, 0.0)])
    assert dict(zip(tokenizer.tokenize(text), weights.tolist(), strict=True))["ĠTwo"] == 0.0


def offsets_of(tokenizer, text):
    return tokenizer(text, return_offsets_mapping=True)["offset_mapping"]


def slow_weights(tokenizer, text, spans):
    """The definition, token by token and character by character."""
    result = []
    for start, end in offsets_of(tokenizer, text):
        characters = [i for i in range(start, end) if not text[i].isspace()] or list(range(start, end))
        result.append(max(next((w for s, e, w in spans if s <= i < e), 1.0) for i in characters))
    return result


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=80), data=st.data())
def test_token_weights_follow_the_definition_on_any_text(tokenizer, text, data):
    borders = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    weights = st.sampled_from([0.0, 0.25, 1.0, 3.0])
    spans = [(s, e, data.draw(weights)) for s, e in zip(borders, borders[1:], strict=False)]
    offsets = np.array(offsets_of(tokenizer, text)).reshape(-1, 2)
    assert token_weights(offsets, text, spans).tolist() == slow_weights(tokenizer, text, spans)


def test_the_whole_trace_and_the_stop_token_are_trained(tokenizer):
    row = make_row()
    encoded = encode(RowEncoder(tokenizer), row)
    labels = encoded["labels"][0]
    assert tokenizer.decode([label for label in labels if label != -100]) == (
        row["completion"][0]["content"] + "<|im_end|>"
    )
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert encoded["input_ids"][0][: len(prompt)] == prompt
    assert labels[: len(prompt)] == [-100] * len(prompt)


@pytest.fixture
def r1_tokenizer(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", R1_TEMPLATE)
    return tokenizer


def test_a_template_that_drops_the_reasoning_still_trains_it_whole(r1_tokenizer):
    row = make_row()
    dropped = r1_tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
    assert "3 + 4" not in dropped  # the template is as bad as the real one
    encoded = encode(RowEncoder(r1_tokenizer), row)
    text = r1_tokenizer.decode(encoded["input_ids"][0])
    assert text == "User: How many?<|im_start|>" + row["completion"][0]["content"] + "<|im_end|>"
    trained = r1_tokenizer.decode([label for label in encoded["labels"][0] if label != -100])
    assert trained == row["completion"][0]["content"].removeprefix("<think>\n") + "<|im_end|>"


def test_steps_stay_on_their_text_behind_a_prefilled_think_tag(r1_tokenizer):
    view = RowEncoder(r1_tokenizer, {"MERGE": 0.5}).preview(make_row())
    assert "".join(token for token, action, _ in view if action == "MERGE") == SENTENCES[1]
    assert {weight for _, action, weight in view if action == "MERGE"} == {0.5}


def test_stop_text(r1_tokenizer):
    assert stop_text(r1_tokenizer) == "<|im_end|>"
    r1_tokenizer.chat_template = "{% for message in messages %}{{ message['content'] + '\n' }}{% endfor %}"
    assert stop_text(r1_tokenizer) == r1_tokenizer.eos_token  # a template without stop tokens


def test_plain_text_gets_one_eos(tokenizer):
    for completion in (" The answer is 7.", " The answer is 7.<|im_end|>"):
        encoded = encode(RowEncoder(tokenizer), {"prompt": "How many?", "completion": completion})
        assert tokenizer.decode(encoded["input_ids"][0]) == "How many? The answer is 7.<|im_end|>"


def test_truncation_cuts_ids_labels_and_weights_alike(tokenizer):
    weights = {"MERGE": 0.5}
    whole = encode(RowEncoder(tokenizer, weights), make_row())
    cut = encode(RowEncoder(tokenizer, weights, max_length=50), make_row())
    assert (whole["cut"], cut["cut"]) == ([False], [True])
    for column in ("input_ids", "labels", "loss_weights"):
        assert cut[column][0] == whole[column][0][:50]
    assert 0.5 in cut["loss_weights"][0]


def change(row, **changes):
    return {**row, **changes}


def with_step(**changes):
    row = make_row()
    row["steps"][1] |= changes
    return row


def with_content(content):
    return change(make_row(), completion=[{"role": "assistant", "content": content}], steps=[])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (with_step(end=9999), "Row 1 of the train data has a step from character 25 to 9999, but its completion has"),
        (with_step(start=-1), "has a step from character -1"),
        (with_step(start=60, end=50), "has a step from character 60 to 50"),
        (with_step(start=20), "two steps that overlap at character 20"),
        (with_step(action="FORGET"), "action 'FORGET': choose among COMPRESS, DELETE, KEEP, MERGE"),
        (with_content("<think>\nopen, never closed"), "1 opening and 0 closing"),
        (with_content("</think> <think>"), "one <think> … </think>"),
        (with_content(""), "has an empty completion"),
        (change(make_row(), completion=make_row()["completion"] * 2), "must have one assistant message"),
        (change(make_row(), completion="text"), "both text or both lists of messages"),
    ],
)
def test_rows_that_cannot_be_trained_as_they_are(tokenizer, row, message):
    with pytest.raises(DRPError, match="Row 1 of the train data") as error:
        encode(RowEncoder(tokenizer), row)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_think_tag_that_the_template_opens_must_be_closed(r1_tokenizer):
    with pytest.raises(DRPError, match="1 opening and 0 closing"):
        encode(RowEncoder(r1_tokenizer), with_content("The answer is 7."))


@pytest.mark.parametrize("ending", ["\n\n", "  ", "<think>\n\n</think>\n\n"])
def test_the_prompt_has_the_tokens_it_has_at_inference(r1_tokenizer, ending):
    r1_tokenizer.chat_template = R1_TEMPLATE.replace("<think>\n", ending)
    row = make_row()
    prompt = r1_tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    view = RowEncoder(r1_tokenizer, {"MERGE": 0.5}).preview(row)
    ids = encode(RowEncoder(r1_tokenizer, {"MERGE": 0.5}), row)["input_ids"][0]
    assert ids[: len(prompt)] == prompt
    assert r1_tokenizer.decode(ids[len(prompt) :]) == row["completion"][0]["content"] + "<|im_end|>"
    assert "".join(token for token, action, _ in view if action == "MERGE") == SENTENCES[1]
    assert [weight for _, _, weight in view[: len(prompt)]] == [0.0] * len(prompt)


def test_words_that_would_join_across_the_border_stay_apart(tokenizer):
    joint = tokenizer("Three apples<|im_end|>")["input_ids"]
    ids = encode(RowEncoder(tokenizer), {"prompt": "Three appl", "completion": "es"})["input_ids"][0]
    assert ids != joint and tokenizer.decode(ids) == tokenizer.decode(joint)
    prompt = tokenizer("Three appl")["input_ids"]
    assert ids[: len(prompt)] == prompt


def test_tokenizers_that_cannot_be_used(tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(DRPError, match="no chat template"):
        encode(RowEncoder(bare), make_row())
    bare.eos_token = None
    with pytest.raises(DRPError, match="no eos token"):
        RowEncoder(bare)
