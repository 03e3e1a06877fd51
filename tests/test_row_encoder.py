import copy

import pytest
from transformers import AutoTokenizer

from drp_hf.embedded import resolve
from drp_hf.errors import DRPError
from drp_hf.records import final_response, render_output
from drp_hf.row_encoder import GROUPS as LOSS_GROUPS
from drp_hf.row_encoder import WARMUP_WEIGHTS, WEIGHTS, RowEncoder
from drp_hf.step_metrics import GROUPS
from drp_hf.step_weights import WeightRules

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


def rules(**weights):
    return WeightRules(action_weights=weights)


def test_preview_shows_every_token_with_its_span_and_weight(tokenizer):
    view = RowEncoder(tokenizer, rules(KEEP=0, MERGE=0.5, COMPRESS=2)).preview(make_row())
    border = next(i for i, token in enumerate(view) if token.weight)
    assert "".join(token.text for token in view[:border]).endswith("<|im_start|>assistant\n")
    assert {token.span.kind for token in view[:border]} == {"prompt"}
    assert [(token.text, token.span.kind, token.weight) for token in view[border:]] == [
        *[(token, "other", 1.0) for token in ("<", "think", ">", "\n")],
        *[(token, "KEEP", 0.0) for token in ("Tom", " has", " ", "3", " apples", ".")],
        *[(token, "MERGE", 0.5) for token in (" Wait", ",", " let", " me", " check", " that", " again", ".")],
        *[(token, "COMPRESS", 2.0) for token in (" So", " ", "3", " +", " ", "4", " =", " ", "7", ".")],
        *[(token, "think_close", 1.0) for token in ("\n", "</", "think", ">")],
        *[(token, "answer", 1.0) for token in ("\n", "\n", "The", " answer", " is", " ", "7", ".")],
        ("<|im_end|>", "stop", 1.0),
    ]
    assert {token.span.category for token in view if token.span.kind == "MERGE"} == {"arithmetic"}


def test_preview_shows_what_a_cut_leaves(tokenizer):
    whole = RowEncoder(tokenizer).preview(make_row())
    assert RowEncoder(tokenizer, max_length=50).preview(make_row()) == whole[:50]
    assert RowEncoder(tokenizer, max_length=20, keep_end=True).preview(make_row()) == whole[-20:]


def test_preview_shows_the_text_once(tokenizer):
    row = {"prompt": "How?", "completion": " Ünïcödé 🤔 🧮 done", "steps": []}
    view = RowEncoder(tokenizer).preview(row)
    assert "".join(token.text for token in view) == "How? Ünïcödé 🤔 🧮 done<|im_end|>"


def test_labels_are_the_tokens_that_weigh_something(tokenizer):
    encoded = encode(RowEncoder(tokenizer, rules(KEEP=0, MERGE=0.5), columns=[WEIGHTS]), make_row())
    (ids,), (labels,), (weights,) = encoded["input_ids"], encoded["labels"], encoded["loss_weights"]
    assert len(ids) == len(labels) == len(weights)
    assert [label != -100 for label in labels] == [weight != 0 for weight in weights]
    assert all(label in (-100, token) for label, token in zip(labels, ids, strict=True))
    trained = tokenizer.decode([label for label in labels if label != -100])
    assert trained == "<think>\n Wait, let me check that again. So 3 + 4 = 7.\n</think>\n\nThe answer is 7.<|im_end|>"


def test_groups_are_the_spans_of_the_tokens(tokenizer):
    encoded = encode(RowEncoder(tokenizer, columns=[LOSS_GROUPS]), make_row())
    groups = [GROUPS[code] for code in encoded["loss_groups"][0]]
    assert list(dict.fromkeys(groups)) == [
        ("prompt", ""),
        ("other", ""),
        *[(action, "arithmetic") for action in ACTIONS],
        ("think_close", ""),
        ("answer", ""),
        ("stop", ""),
    ]


def test_every_rule_reaches_its_tokens_and_they_multiply(tokenizer):
    row = make_row() | {"own": [1.0, 3.0, 1.0]}
    every = WeightRules(
        action_weights={"MERGE": 0.5},
        skill_weights={"adding": 2, "arithmetic": 100},
        answer_weight=5,
        think_close_weight=6,
        eos_weight=7,
    )
    view = RowEncoder(tokenizer, every, weight_column="own").preview(row)
    found = {token.span.kind: token.weight for token in view}
    assert found == {
        "prompt": 0,
        "other": 1,
        "KEEP": 2,
        "MERGE": 0.5 * 2 * 3,
        "COMPRESS": 2,
        "think_close": 6,
        "answer": 5,
        "stop": 7,
    }
    by_category = RowEncoder(tokenizer, WeightRules(skill_weights={"arithmetic": 4})).preview(row)
    assert {token.weight for token in by_category if token.span.kind == "KEEP"} == {4}


def deleted_row():
    return make_row(actions=["KEEP", "DELETE", "COMPRESS"])


@pytest.mark.parametrize("unlikelihood", [0.0, 0.25])
def test_masked_raw_reads_deleted_steps_and_does_not_learn_them(tokenizer, unlikelihood):
    masked = WeightRules(loss_scope="masked-raw", deleted_unlikelihood=unlikelihood)
    encoder = RowEncoder(tokenizer, masked, columns=[WEIGHTS, WARMUP_WEIGHTS])
    view = encoder.preview(deleted_row())
    assert {token.weight for token in view if token.span.kind == "DELETE"} == {-unlikelihood}
    assert {token.weight for token in view if token.span.kind not in ("DELETE", "prompt")} == {1}
    encoded = encode(encoder, deleted_row())
    deleted = [token.span.kind == "DELETE" for token in view]
    assert any(deleted)
    for is_deleted, label, warm in zip(deleted, encoded["labels"][0], encoded["warmup_weights"][0], strict=True):
        if is_deleted:
            assert (label == -100) == (unlikelihood == 0) and warm == 0
    assert tokenizer.decode(encoded["input_ids"][0]).count("let me check that again") == 1


def test_a_raw_trace_in_another_scope_is_refused(tokenizer):
    for scope in ("pruned", "compressed-only"):
        with pytest.raises(DRPError, match="Row 1 of the train data has a step with the action DELETE, which"):
            encode(RowEncoder(tokenizer, WeightRules(loss_scope=scope)), deleted_row())


def test_compressed_only_learns_what_was_rewritten_and_the_end(tokenizer):
    view = RowEncoder(tokenizer, WeightRules(loss_scope="compressed-only")).preview(make_row())
    assert {token.span.kind: token.weight for token in view} == {
        "prompt": 0,
        "other": 1,
        "KEEP": 0,
        "MERGE": 1,
        "COMPRESS": 1,
        "think_close": 1,
        "answer": 1,
        "stop": 1,
    }


def test_step_normalization_gives_every_step_its_weight(tokenizer):
    by_step = WeightRules(action_weights={"MERGE": 0.5, "KEEP": 0}, step_normalization="step")
    for max_length in (None, 56):
        view = RowEncoder(tokenizer, by_step, max_length=max_length).preview(make_row())
        sums = {kind: sum(t.weight for t in view if t.span.kind == kind) for kind in {t.span.kind for t in view}}
        expected = {"prompt": 0, "other": 1, "KEEP": 0, "MERGE": 0.5, "COMPRESS": 1}
        rest = {"think_close": 1, "answer": 1, "stop": 1} if max_length is None else {}
        assert sums == pytest.approx(expected | rest)


def test_what_separates_two_steps_weighs_what_the_first_one_does(tokenizer):
    whole = make_row(["2 + 3 = 5\n\n", "5 * 4 = 20\n\n", "20 - 1 = 19"])
    apart = copy.deepcopy(whole)
    for step in apart["steps"][:2]:
        step["end"] -= 2  # a user's own steps, split at the blank lines
    for every in (rules(KEEP=0, MERGE=0), WeightRules(step_normalization="step")):
        encoder = RowEncoder(tokenizer, every)
        weights = [[token.weight for token in encoder.preview(row)] for row in (apart, whole)]
        assert weights[0] == weights[1]


def test_a_row_that_weighs_nothing_is_refused(tokenizer):
    nothing = WeightRules(
        action_weights=dict.fromkeys(ACTIONS, 0), answer_weight=0, think_close_weight=0, eos_weight=0
    )
    row = {"prompt": "How?", "completion": " 7", "steps": []}
    with pytest.raises(DRPError, match="Row 2 of the train data has no token with a weight"):
        encode(
            RowEncoder(tokenizer, nothing), {"prompt": "How?", "completion": "<think>7</think>", "steps": None}, row
        )


def test_a_row_of_which_nothing_learnt_is_left_is_left_out(tokenizer):
    long = make_row() | {"prompt": [{"role": "user", "content": "How many? " * 40}]}
    encoded = encode(RowEncoder(tokenizer, max_length=60), long, make_row())
    assert len(encoded["input_ids"]) == 1 and encoded["cut"] == [True]
    assert tokenizer.decode(encoded["input_ids"][0]).count("How many?") == 1


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "has 3 steps but 1 weights in the column own: give one a step"),
        (None, "has 3 steps but 0 weights"),
        ([1.0, -1.0, 1.0], "gives a step the weight -1.0: give a number of 0 or more"),
        ([1.0, float("inf"), 1.0], "gives a step the weight inf"),
        ([1.0, None, 1.0], "gives a step the weight None"),
    ],
)
def test_weights_of_steps_that_mean_nothing(tokenizer, weights, message):
    with pytest.raises(DRPError) as error:
        encode(RowEncoder(tokenizer, weight_column="own"), make_row() | {"own": weights})
    assert f"Row 1 of the train data {message}" in str(error.value)


def test_the_whole_trace_and_the_stop_token_are_trained(tokenizer):
    row = make_row()
    encoded = encode(RowEncoder(tokenizer), row)
    labels = encoded["labels"][0]
    assert tokenizer.decode([label for label in labels if label != -100]) == (
        row["completion"][0]["content"] + "<|im_end|>"
    )
    prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    assert encoded["input_ids"][0][: len(prompt)].tolist() == prompt
    assert labels[: len(prompt)].tolist() == [-100] * len(prompt)


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
    view = RowEncoder(r1_tokenizer, rules(MERGE=0.5)).preview(make_row())
    merged = [token for token in view if token.span.kind == "MERGE"]
    assert "".join(token.text for token in merged) == SENTENCES[1]
    assert {token.weight for token in merged} == {0.5}


def test_plain_text_gets_one_eos(tokenizer):
    for completion in (" The answer is 7.", " The answer is 7.<|im_end|>"):
        encoded = encode(RowEncoder(tokenizer), {"prompt": "How many?", "completion": completion})
        assert tokenizer.decode(encoded["input_ids"][0]) == "How many? The answer is 7.<|im_end|>"


def test_truncation_cuts_ids_labels_and_weights_alike(tokenizer):
    columns = [WEIGHTS, WARMUP_WEIGHTS, LOSS_GROUPS]
    whole = encode(RowEncoder(tokenizer, rules(MERGE=0.5), columns=columns), make_row())
    start = encode(RowEncoder(tokenizer, rules(MERGE=0.5), 50, columns=columns), make_row())
    end = encode(RowEncoder(tokenizer, rules(MERGE=0.5), 40, keep_end=True, columns=columns), make_row())
    assert (whole["cut"], start["cut"], end["cut"]) == ([False], [True], [True])
    for column in ("input_ids", "labels", *columns):
        assert start[column][0].tolist() == whole[column][0][:50].tolist()
        assert end[column][0].tolist() == whole[column][0][-40:].tolist()
    assert 0.5 in start["loss_weights"][0]


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
        (with_step(end=50), "steps that do not tile its reasoning: 'again.' is in none of them; make the steps again"),
        (change(make_row(), steps=make_row()["steps"][1:]), "do not tile its reasoning: 'Tom has 3 apples.' is in"),
        (
            change(make_row(), steps=[]),
            "do not tile its reasoning: 'Tom has 3 apples. Wait, let me check th",
        ),
        (with_step(action="FORGET"), "action 'FORGET': choose among COMPRESS, DELETE, KEEP, MERGE"),
        (with_content("<think>\nopen, never closed"), "1 opening and 0 closing"),
        (with_content("</think> <think>"), "one <think> … </think>"),
        (with_content(""), "has an empty completion"),
        (with_content(None), "has an empty completion"),
        (with_content([{"type": "text", "text": "It is 7."}]), "a list as its completion's content: join its parts"),
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


@pytest.mark.parametrize("ending", ["\n\n", "  "])
def test_the_prompt_has_the_tokens_it_has_at_inference(r1_tokenizer, ending):
    r1_tokenizer.chat_template = R1_TEMPLATE.replace("<think>\n", ending)
    row = make_row()
    prompt = r1_tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    view = RowEncoder(r1_tokenizer, rules(MERGE=0.5)).preview(row)
    ids = encode(RowEncoder(r1_tokenizer, rules(MERGE=0.5)), row)["input_ids"][0].tolist()
    assert ids[: len(prompt)] == prompt
    assert r1_tokenizer.decode(ids[len(prompt) :]) == row["completion"][0]["content"] + "<|im_end|>"
    assert "".join(token.text for token in view if token.span.kind == "MERGE") == SENTENCES[1]
    assert [token.weight for token in view[: len(prompt)]] == [0.0] * len(prompt)


def test_words_that_would_join_across_the_border_stay_apart(tokenizer):
    joint = tokenizer("Three apples<|im_end|>")["input_ids"]
    ids = encode(RowEncoder(tokenizer), {"prompt": "Three appl", "completion": "es"})["input_ids"][0].tolist()
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
