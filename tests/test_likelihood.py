import math
import shutil

import pytest
import torch
from transformers import GraniteConfig, GraniteForCausalLM, LlamaConfig, LlamaForCausalLM

from drp_hf import likelihood
from drp_hf.embedded import resolve
from drp_hf.engines import render_prompt
from drp_hf.likelihood import Likelihood

QUESTION = "Tom has 3 apples and buys 4 more. How many apples has he got now?"
REAL = "<think>\nTom has 3 + 4 = 7 apples now.\n</think>\n\nThe answer is 7."
GARBLED = "<think>\nnow apples 7 = Tom 4 has + 3.\n</think>\n\n7 answer. is The"
PAIRS = [
    (QUESTION, REAL),
    ("What is 2+3?", "5"),
    (QUESTION, GARBLED),
    ("Hi", "A much longer text, which goes on and on about the sea, the wind and the waves. " * 3),
    ("Name a colour.", "Blue, 漢 or 🙂."),
    (QUESTION, "7 apples."),
]
CONTEXT = 192


def save(folder, model, template=""):
    """A random model with the embedded model's tokenizer; `template` is added to the end of its generation prompt."""
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{resolve('smollm2-embedded')}/{file}", folder)
    with open(f"{resolve('smollm2-embedded')}/chat_template.jinja", encoding="utf-8") as file:
        text = file.read()
    (folder / "chat_template.jinja").write_text(text + template, encoding="utf-8")
    return str(folder)


def tiny(kind, config, **settings):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return kind(config(vocab_size=49152, max_position_embeddings=CONTEXT, initializer_range=0.5, **sizes, **settings))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return Likelihood(save(tmp_path_factory.mktemp("llama"), tiny(LlamaForCausalLM, LlamaConfig)))


@pytest.fixture(scope="module")
def granite(tmp_path_factory):
    model = tiny(GraniteForCausalLM, GraniteConfig, logits_scaling=8.0)
    return Likelihood(save(tmp_path_factory.mktemp("granite"), model))


def plain(scorer, question, completion):
    """The loss of one pair as the library computes it."""
    prompt, text = (
        scorer.tokenizer(part, add_special_tokens=False)["input_ids"]
        for part in (render_prompt(scorer.tokenizer, question), completion)
    )
    ids = torch.tensor([(prompt + text)[: scorer.context_length]])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    with torch.no_grad():
        return scorer.model(input_ids=ids.to(scorer.device), labels=labels.to(scorer.device)).loss.item()


@pytest.mark.parametrize("name", ["llama", "granite", "smollm2-embedded"])
def test_scores_are_the_losses_of_the_pairs_alone(name, request, monkeypatch):
    monkeypatch.setattr(likelihood, "POSITIONS", 50)  # fewer than a batch has, and no divisor
    real = name == "smollm2-embedded"
    scorer = Likelihood(name) if real else request.getfixturevalue(name)
    assert (scorer._head is None) == (name == "granite")
    pairs = PAIRS[:3] if real else PAIRS
    scores = dict(scorer.score(pairs))
    assert sorted(scores) == list(range(len(pairs)))
    for index, pair in enumerate(pairs):
        assert scores[index] == pytest.approx(plain(scorer, *pair), abs=1e-4)
    if real:
        assert scores[0] < scores[2] - 1


def test_scores_do_not_depend_on_the_batch_or_the_order(llama, monkeypatch):
    together = dict(llama.score(PAIRS))
    backward = dict(llama.score(PAIRS[::-1]))
    widths = []
    forward = llama._losses
    monkeypatch.setattr(
        llama, "_losses", lambda batch: widths.append([len(ids) for ids, _ in batch]) or forward(batch)
    )
    monkeypatch.setattr(llama, "batch_tokens", 150)
    batched = list(llama.score(PAIRS))
    assert 1 < len(widths) < len(PAIRS)
    assert all(len(batch) == 1 or len(batch) * max(batch) <= 150 for batch in widths)
    monkeypatch.setattr(llama, "batch_tokens", 1)
    alone = dict(llama.score(PAIRS))
    assert widths[-len(PAIRS) :] == sorted(widths[-len(PAIRS) :], reverse=True)
    for index, score in batched:
        assert score == pytest.approx(together[index], abs=1e-5)
        assert score == pytest.approx(alone[index], abs=1e-5)
        assert score == pytest.approx(backward[len(PAIRS) - 1 - index], abs=1e-5)
    assert list(llama.score([])) == []


def test_scores_come_as_batches_finish(llama, monkeypatch):
    monkeypatch.setattr(llama, "batch_tokens", 1)
    calls = []
    forward = llama._losses
    monkeypatch.setattr(llama, "_losses", lambda batch: calls.append(batch) or forward(batch))
    assert next(llama.score(PAIRS))[0] == 3  # the longest
    assert len(calls) == 1


@pytest.mark.parametrize("prefill", ["<think>\n", "<think>", "<think>\n\n"])
def test_a_prefilled_think_tag_is_neither_doubled_nor_scored(prefill, tmp_path):
    template = "{% if add_generation_prompt %}{{ " + repr(prefill) + " }}{% endif %}"
    scorer = Likelihood(save(tmp_path, tiny(LlamaForCausalLM, LlamaConfig), template))
    assert render_prompt(scorer.tokenizer, QUESTION).endswith("assistant\n" + prefill)
    rest = REAL.removeprefix(prefill if REAL.startswith(prefill) else "<think>")
    scores = dict(scorer.score([(QUESTION, REAL), (QUESTION, rest), (QUESTION, "So <think>\n")]))
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert scores[0] == pytest.approx(plain(scorer, QUESTION, rest), abs=1e-4)
    assert scores[2] == pytest.approx(plain(scorer, QUESTION, "So <think>\n"), abs=1e-4)


def test_what_does_not_fit_the_context_is_not_scored(llama):
    long = "The sea is wide. " * 500
    scores = dict(llama.score([(QUESTION, long), (QUESTION + long, REAL), (QUESTION, ""), (QUESTION, "7")]))
    assert scores[0] == pytest.approx(plain(llama, QUESTION, long), abs=1e-4)
    assert scores[1] == scores[2] == math.inf
    assert scores[3] == pytest.approx(plain(llama, QUESTION, "7"), abs=1e-4)


def test_logits_that_overflow_score_infinity(llama, monkeypatch):
    monkeypatch.setattr(llama, "_logits", lambda states: torch.full((len(states), 49152), math.inf))
    assert dict(llama.score(PAIRS[:2])) == {0: math.inf, 1: math.inf}
