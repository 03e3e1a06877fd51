import importlib.util

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftConfig
from test_rendering import FAMILIES, QWQ, shipped, with_template
from transformers import (
    AutoConfig,
    AutoTokenizer,
    MistralConfig,
    MistralForCausalLM,
    TopPLogitsWarper,
)

from drp_hf.embedded import resolve
from drp_hf.engines import Completion, Sampling, make_engine, render_prompt
from drp_hf.engines.base import usable_context
from drp_hf.engines.transformers import TransformersEngine, _choose, _nucleus, _Row
from drp_hf.engines.vllm import rank_limit, why_merged
from drp_hf.errors import DRPError
from drp_hf.models import stop_ids

QUESTIONS = [
    "What is 2+3?",
    "Tom has 3 apples and buys 4 more, then gives 2 to his sister Ann. How many apples has he got now?",
    "Hi",
    "Name a colour.",
    "Write one sentence about the sea.",
]


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    # Two slots for five questions: slots are refilled, and at the end moved.
    return make_engine("transformers", "smollm2-embedded", batch_size=2, dtype="float32")


@pytest.fixture(scope="module")
def greedy(engine):
    return dict(engine.generate(QUESTIONS, Sampling(24)))


def test_greedy_equals_generate(engine, greedy):
    assert sorted(greedy) == list(range(len(QUESTIONS)))
    for index, question in enumerate(QUESTIONS):
        prompt = engine.tokenizer(
            render_prompt(engine.tokenizer, question), add_special_tokens=False, return_tensors="pt"
        )
        ids = engine.model.generate(**prompt, max_new_tokens=24, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        stopped = ids[-1].item() in engine.stop_ids
        assert greedy[index].text == engine.tokenizer.decode(ids[: len(ids) - stopped])
        assert greedy[index].n_tokens == len(ids)
        assert greedy[index].finished == stopped


def test_short_answers_finish_and_long_ones_are_cut(greedy):
    assert greedy[2].finished and greedy[2].n_tokens < 24
    assert not greedy[1].finished and greedy[1].n_tokens == 24


def test_finished_answers_come_before_the_others_are_done(engine):
    answers = engine.generate(["Hi", QUESTIONS[1]], Sampling(200))
    index, first = next(answers)
    answers.close()
    assert (index, first.finished) == (0, True)


@pytest.mark.filterwarnings("error:.past_key_values:FutureWarning")
def test_what_is_sampled_depends_on_the_seed_and_not_on_the_neighbours(engine):
    sampling = Sampling(16, temperature=1.0, top_p=0.9)
    together = dict(engine.generate(QUESTIONS[:3], sampling, seeds=[7, 8, 9]))
    alone = dict(engine.generate(QUESTIONS[1:2], sampling, seeds=[8]))
    other = dict(engine.generate(QUESTIONS[1:2], sampling, seeds=[10]))
    assert together[1] == alone[0]
    assert other[0].text != alone[0].text


def test_a_tiny_nucleus_is_greedy(engine, greedy):
    sampled = dict(engine.generate(QUESTIONS, Sampling(24, temperature=1.0, top_p=1e-6)))
    assert sampled == greedy


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
def test_nucleus_keeps_the_tokens_that_the_library_keeps(top_p):
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)) * 2
    values, order = _nucleus(logits.softmax(-1), top_p)
    kept = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, values > 0)
    expected = TopPLogitsWarper(top_p)(None, logits).isfinite()
    assert torch.equal(kept, expected)


def test_choices_follow_the_probabilities():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(3000, 3)
    draws = torch.rand(3000, generator=torch.Generator().manual_seed(0)).tolist()
    chosen = torch.tensor(_choose(logits, [_Row(0, [], 1, [draw]) for draw in draws], Sampling(1, 1.0)))
    shares = torch.bincount(chosen, minlength=3) / 3000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.03)
    sharper = torch.tensor(_choose(logits, [_Row(0, [], 1, [draw]) for draw in draws], Sampling(1, 0.5)))
    assert torch.allclose(
        torch.bincount(sharper, minlength=3) / 3000, torch.tensor([0.25, 0.09, 0.04]) / 0.38, atol=0.03
    )


def test_a_draw_that_rounds_to_one_stays_in_the_nucleus():
    logits = torch.tensor([[0.0, 3.0, 2.9, 0.0, 0.0]])
    assert _choose(logits, [_Row(0, [], 1, [1 - 1e-12])], Sampling(1, 1.0, top_p=0.6)) == [2]
    assert _choose(logits, [_Row(0, [], 1, [1 - 1e-12])], Sampling(1, 1.0)) == [4]


def test_a_prefilled_think_tag_belongs_to_the_output(engine, monkeypatch):
    template = engine.tokenizer.chat_template
    plain = dict(engine.generate(["Hi"], Sampling(3)))[0]
    monkeypatch.setattr(
        engine.tokenizer, "chat_template", template + "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
    )
    assert render_prompt(engine.tokenizer, "Hi").endswith("assistant\n<think>\n")
    prefilled = dict(engine.generate(["Hi"], Sampling(3)))[0]
    assert prefilled.text.startswith("<think>\n")
    assert not plain.text.startswith("<think>")
    assert prefilled.n_tokens <= 3


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_s_outputs_have_both_think_tags(engine, monkeypatch, family, special):
    template, _, tokens, think_tokens, stop, _ = FAMILIES[family]
    template = template if template == QWQ else shipped(template) if template else engine.tokenizer.chat_template
    tokenizer = with_template(engine.tokenizer, template, tokens, think_tokens)
    if special:
        tokenizer.add_special_tokens({"extra_special_tokens": ["<think>", "</think>"]})
    monkeypatch.setattr(engine, "tokenizer", tokenizer)
    monkeypatch.setattr(engine, "stop_ids", frozenset(stop_ids(tokenizer, None)))
    (opening,), (prompt,) = engine.encode(["How many?"])
    assert opening == ("<think>\n" if family in {"R1-Distill", "QwQ"} else "")
    assert tokenizer.decode(prompt).count("<think>") == bool(opening)
    output = "<think>\n3 + 4 = 7\n</think>\n\nThe answer is 7."
    written = output.removeprefix(opening) + stop
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    assert engine._completion(opening, ids) == Completion(output, len(ids), True)
    assert engine._completion(opening, ids[:-1]) == Completion(output, len(ids) - 1, False)
    _, (longer,) = engine.encode(["How many?"], [output])
    assert longer == prompt + ids[:-1]


def test_every_stop_token_counts(engine):
    assert stop_ids(engine.tokenizer, [5, 6]) == sorted({5, 6, engine.tokenizer.eos_token_id})
    assert stop_ids(engine.tokenizer, None) == [engine.tokenizer.eos_token_id]


def test_the_context_limits_what_is_written(engine, monkeypatch):
    prompt = len(
        engine.tokenizer(render_prompt(engine.tokenizer, QUESTIONS[1]), add_special_tokens=False)["input_ids"]
    )
    monkeypatch.setattr(engine, "context_length", prompt + 5)
    answer = dict(engine.generate([QUESTIONS[1]], Sampling(50)))[0]
    assert (answer.n_tokens, answer.finished) == (5, False)
    monkeypatch.setattr(engine, "context_length", prompt)
    with pytest.raises(DRPError, match="leaving no room"):
        next(engine.generate([QUESTIONS[1]], Sampling(50)))


@pytest.mark.parametrize(("free", "rows"), [(10**6, 1), (2 * 7 * 300 * 46_080, 7), (10**12, 512)])
def test_a_gpu_writes_as_many_rows_as_its_memory_holds(engine, monkeypatch, free, rows):
    monkeypatch.setattr(engine, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**12))
    # 30 layers with keys and values of 3 heads, 64 numbers of 4 bytes each: 46,080 bytes a token.
    assert engine._room([[1] * 100, [1] * 20], Sampling(200)) == rows


def test_nothing_to_do(engine):
    assert list(engine.generate([], Sampling(5))) == []


def test_a_tokenizer_without_chat_template_is_refused(engine, monkeypatch):
    monkeypatch.setattr(engine.tokenizer, "chat_template", None)
    with pytest.raises(DRPError, match="no chat template"):
        render_prompt(engine.tokenizer, "Hi")


def test_a_model_with_sliding_windows_is_refused(tmp_path):
    config = MistralConfig(
        vocab_size=49152,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=8,
    )
    MistralForCausalLM(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(resolve("smollm2-embedded")).save_pretrained(tmp_path)
    with pytest.raises(DRPError, match="sliding-window"):
        make_engine("transformers", str(tmp_path))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (LoraConfig(r=24, lora_alpha=7, target_modules=["q_proj"], use_rslora=True, lora_dropout=0.1), ""),
        (LoraConfig(rank_pattern={"v_proj": 1000}, target_modules=["q_proj", "v_proj"]), "a rank above 512"),
        (LoraConfig(target_modules=["q_proj"], modules_to_save=["embed_tokens"]), "modules_to_save=['embed_tokens']"),
        (LoraConfig(target_modules=["q_proj"], use_dora=True), "use_dora=True"),
        (LoraConfig(target_modules=["q_proj"], bias="all"), "bias='all'"),
        (LoraConfig(target_modules=["q_proj"], init_lora_weights="pissa"), "init_lora_weights='pissa'"),
        (LoraConfig(target_modules=["q_proj", "lm_head"]), "an adapter of lm_head"),
        (LoraConfig(target_modules=["q_proj"], trainable_token_indices=[5]), "trainable_token_indices=[5]"),
        (IA3Config(target_modules=["k_proj"], feedforward_modules=[]), "adapters of the kind IA3"),
    ],
)
def test_which_adapters_vllm_cannot_serve(tmp_path, config, reason):
    config.save_pretrained(tmp_path)
    saved = PeftConfig.from_pretrained(tmp_path)
    assert why_merged(saved) == reason
    assert rank_limit(saved) == (None if reason else 32)


def test_unknown_and_missing_engines(monkeypatch):
    with pytest.raises(DRPError, match="no engine 'tgi'"):
        make_engine("tgi", "smollm2-embedded")
    found = importlib.util.find_spec
    monkeypatch.setattr("drp_hf.engines.find_spec", lambda name: None if name == "vllm" else found(name))
    with pytest.raises(DRPError, match="vLLM is not installed"):
        make_engine("vllm", "smollm2-embedded")


def test_a_completion_goes_on_from_its_prefix(engine, greedy):
    head = engine.tokenizer.decode(engine.tokenizer(greedy[1].text)["input_ids"][:10])
    rest = dict(engine.generate(QUESTIONS[:2], Sampling(14), prefixes=[None, head]))
    assert head + rest[1].text == greedy[1].text
    assert (rest[1].n_tokens, rest[1].finished) == (14, False)
    assert rest[0].text == greedy[0].text[: len(rest[0].text)], "no prefix, and nothing else changes"


def test_a_prefix_may_repeat_the_prefilled_think_tag(engine, monkeypatch):
    template = engine.tokenizer.chat_template
    monkeypatch.setattr(
        engine.tokenizer, "chat_template", template + "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
    )
    _, (plain, repeated, bare) = engine.encode(["Hi"] * 3, ["So", "<think>\nSo", "<think>So"])
    assert plain == repeated == bare
    assert engine.tokenizer.decode(plain).endswith("assistant\n<think>\nSo")
    answers = dict(engine.generate(["Hi"] * 2, Sampling(3), prefixes=["So", None]))
    assert not answers[0].text.startswith("<think>") and answers[1].text.startswith("<think>\n")


def test_a_prefix_that_fills_the_context_leaves_nothing_to_write(engine, monkeypatch):
    monkeypatch.setattr(engine, "context_length", 40)
    answers = dict(engine.generate(["Hi", "Hi"], Sampling(3), prefixes=["one two " * 50, None]))
    assert (answers[0].text, answers[0].n_tokens, answers[0].finished) == ("", 0, False)
    assert answers[1].n_tokens == 3


def test_the_prompt_frames_the_question(engine):
    rendered = render_prompt(engine.tokenizer, "What is {x}?", r"{question} Put it in \boxed{}.", "Be brief.")
    assert (
        "user\nWhat is {x}? Put it in \\boxed{}.<|im_end|>" in rendered and "system\nBe brief.<|im_end|>" in rendered
    )
    with pytest.raises(DRPError, match="no place for the question: write {question}"):
        render_prompt(engine.tokenizer, "Hi", "Think.")
    plain = render_prompt(engine.tokenizer, "Hi")
    assert render_prompt(engine.tokenizer, "Hi", "Please: {question}") == plain.replace("user\nHi", "user\nPlease: Hi")


def test_the_context_is_no_longer_than_the_model_s():
    config = AutoConfig.from_pretrained(resolve("smollm2-embedded"))
    assert usable_context(config) == usable_context(config, 10**6) == config.max_position_embeddings == 8192
    assert usable_context(config, 100) == 100
    config.max_position_embeddings = 10**6
    assert usable_context(config) == 131_072
