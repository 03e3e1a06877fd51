"""Loss and gradients against a slow float64 reference, written from the formula, on random corpora."""

import functools

import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from drp_hf.drp_config import DRPConfig
from drp_hf.drp_trainer import DRPTrainer
from drp_hf.row_encoder import RowEncoder
from drp_hf.taxonomy import categorise

STOP = "<|im_end|>"
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WORDS = ["multiplication", "Wait", "so", "42", "=", "x²", "…", "apples", "\n\n", "répète", "🤔", "therefore."]
SKILLS = {"adding": "arithmetic", "checking the sum": "verification", "hesitation": "self-talk"}
WEIGHTS = st.sampled_from([0.0, 0.25, 1.0, 2.5])
WARMUP = 4


@functools.cache
def tokenizer():
    """A small byte-level tokenizer, whose tokens are whole words: quick to run, and full of borders inside tokens."""
    model = Tokenizer(BPE())
    model.pre_tokenizer, model.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=700,
        special_tokens=[STOP, "<|im_start|>"],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(
        [" ".join(WORDS), "".join(WORDS), "How many? <think> </think> The answer is"] * 9, trainer
    )
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token=STOP, pad_token=STOP, chat_template=TEMPLATE)


@functools.cache
def state_dict():
    torch.manual_seed(0)
    model = LlamaForCausalLM(config())
    for parameter in model.parameters():  # large enough for probabilities that differ
        parameter.data.mul_(2)
    return model.state_dict()


def config():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"bos_token_id": 1, "eos_token_id": 0, "pad_token_id": 0}
    return LlamaConfig(vocab_size=len(tokenizer()), **tokens, **sizes)


def make_model(dtype):
    model = LlamaForCausalLM(config())
    model.load_state_dict(state_dict())
    return model.to(dtype)


@st.composite
def rows(draw, actions):
    """A row whose steps begin and end anywhere, also inside words, tokens and white space."""
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12))
    reasoning = draw(st.sampled_from([" ", ""])).join(words).strip() or "x"
    edges = draw(st.sets(st.integers(1, len(reasoning) - 1), max_size=4)) if len(reasoning) > 1 else set()
    edges = sorted({0, len(reasoning), *edges})
    opening = "<think>\n"
    steps = [
        {
            "start": start + len(opening),
            "end": end + len(opening),
            "action": draw(st.sampled_from(actions)),
            "skill": draw(st.sampled_from(list(SKILLS))),
        }
        for start, end in zip(edges, edges[1:], strict=False)
    ]
    answer = draw(st.sampled_from(["The answer is 42.", "42"]))
    return {
        "prompt": [{"role": "user", "content": "How many" + " many" * draw(st.integers(0, 30)) + "?"}],
        "completion": [{"role": "assistant", "content": f"{opening}{reasoning}\n</think>\n\n{answer}"}],
        "steps": steps,
        "own": [draw(WEIGHTS) for _ in steps],
    }


@st.composite
def cases(draw):
    scope = draw(st.sampled_from(["pruned", "masked-raw", "compressed-only"]))
    actions = ["KEEP", "COMPRESS", "MERGE"] + ["DELETE"] * (2 * (scope == "masked-raw"))
    arguments = {
        "loss_scope": scope,
        "deleted_unlikelihood": draw(st.sampled_from([0.0, 0.5])) if scope == "masked-raw" else 0.0,
        "action_weights": draw(st.dictionaries(st.sampled_from(["KEEP", "COMPRESS", "MERGE"]), WEIGHTS)),
        "answer_weight": draw(WEIGHTS),
        "think_close_weight": draw(WEIGHTS),
        "eos_weight": draw(WEIGHTS),
        "straddle": draw(st.sampled_from(["max", "min", "first", "last"])),
        "step_normalization": draw(st.sampled_from(["token", "step"])),
        "step_weight_column": draw(st.sampled_from([None, "own"])),
        "loss_type": draw(st.sampled_from(["nll", "dft"])),
        "max_length": draw(st.sampled_from([None, 70, 45])),
        "truncation_mode": draw(st.sampled_from(["keep_start", "keep_end"])),
        "packing": draw(st.booleans()),
    }
    data = draw(st.lists(rows(actions), min_size=1, max_size=4))
    names = {step["skill"] for row in data for step in row["steps"]}
    names |= {SKILLS[name] for name in names}
    arguments["skill_weights"] = draw(st.dictionaries(st.sampled_from(sorted(names)), WEIGHTS))
    if arguments["packing"]:
        arguments |= {"max_length": 200, "truncation_mode": "keep_start"}
    return data, arguments, draw(st.booleans())


def weighed(row, arguments):
    """Token ids with the weight of each, at the start of the warm-up and after it, from the definitions."""
    prompt = f"<|im_start|>user\n{row['prompt'][0]['content']}{STOP}<|im_start|>assistant\n"
    completion = row["completion"][0]["content"]
    text = prompt + completion + STOP
    close = completion.index("</think>")
    last_of_reasoning = row["steps"][-1]["end"]

    def part_of(character):
        """Which part a character is of (anything that tells parts apart), and what it weighs."""
        at = character - len(prompt)
        if at < 0:
            return "prompt", 0.0, 0.0
        if at >= len(completion):
            return "stop", 1.0, arguments["eos_weight"]
        for number, (step, own) in enumerate(zip(row["steps"], row["own"], strict=True)):
            if step["start"] <= at < step["end"]:
                by_name, by_category = (
                    arguments["skill_weights"].get(name) for name in (step["skill"], SKILLS[step["skill"]])
                )
                weight = by_name if by_name is not None else by_category if by_category is not None else 1.0
                if arguments["step_weight_column"]:
                    weight *= own
                if step["action"] == "DELETE":
                    return number, 0.0, -arguments["deleted_unlikelihood"] * weight
                if step["action"] == "KEEP" and arguments["loss_scope"] == "compressed-only":
                    return number, 0.0, 0.0
                return number, 1.0, weight * arguments["action_weights"].get(step["action"], 1.0)
        if at < last_of_reasoning:
            return "opening", 1.0, 1.0
        if at < close + len("</think>"):
            return "closing", 1.0, arguments["think_close_weight"]
        return "answer", 1.0, arguments["answer_weight"]

    encoded = tokenizer()(text, return_offsets_mapping=True, add_special_tokens=False)
    parts = []
    for start, end in encoded["offset_mapping"]:
        characters = [i for i in range(start, end) if not text[i].isspace()] or list(range(start, end))
        touched = [part_of(i) for i in characters]
        if arguments["straddle"] in ("first", "last"):
            parts.append(touched[0 if arguments["straddle"] == "first" else -1])
        else:
            choose = max if arguments["straddle"] == "max" else min
            parts.append(choose(touched, key=lambda part: part[2]))
    return encoded["input_ids"], parts


def reference(data, arguments, done, warming):
    """Loss and gradients in float64; None if nothing can be learnt from a row."""
    model = make_model(torch.float64)
    total, norm = torch.zeros((), dtype=torch.float64), 0.0
    for row in data:
        ids, parts = weighed(row, arguments)
        if not any(weight for _, _, weight in parts):
            return None
        limit = arguments["max_length"]
        if limit is not None:
            kept = slice(-limit, None) if arguments["truncation_mode"] == "keep_end" else slice(limit)
            ids, parts = ids[kept], parts[kept]
        learnt = [weight != 0 or (warming and warm != 0) for _, warm, weight in parts]
        if not any(learnt[1:]):
            continue
        log_probs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        for position in range(1, len(ids)):
            name, warm, weight = parts[position]
            if not learnt[position]:
                continue
            factor = warm + (weight - warm) * done
            if arguments["step_normalization"] == "step":
                same = [at for at in range(1, len(ids)) if learnt[at] and parts[at][0] == name]
                factor /= len(same)
            log_p = log_probs[position - 1, ids[position]]
            if weight < 0:
                loss = -torch.log(1 - (1 - 1e-5) * log_p.exp())
            elif arguments["loss_type"] == "dft":
                loss = -log_p * log_p.exp().detach()
            else:
                loss = -log_p
            total = total + abs(factor) * loss
            norm += abs(factor)
    if norm == 0:
        return None
    (total / norm).backward()
    return (total / norm).item(), {name: p.grad for name, p in model.named_parameters()}


class Gradients(TrainerCallback):
    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters()})


CORPORA = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # to make a failing corpus smaller would take many minutes
    suppress_health_check=list(HealthCheck),
)


@settings(CORPORA, max_examples=50)
@given(case=cases(), warming=st.booleans())
def test_weights_are_what_was_meant(tmp_path_factory, case, warming):
    check(tmp_path_factory.getbasetemp() / "reference", case, warming)


@pytest.mark.slow
@settings(CORPORA, max_examples=200)
@given(case=cases(), warming=st.booleans())
def test_weights_are_what_was_meant_on_many_more_corpora(tmp_path_factory, case, warming):
    check(tmp_path_factory.getbasetemp() / "reference", case, warming)


def check(output_dir, case, warming):
    """Trains a step on a corpus (two while the weights warm up) and compares loss and gradients."""
    data, arguments, accumulate = case
    steps = [0.0, 1 / WARMUP] if warming else [1.0]
    expected = [reference(data, arguments, done, warming) for done in steps]
    assume(all(one is not None for one in expected))
    if warming:
        plain = DRPConfig(output_dir="unused", report_to="none", **arguments)
        assume(plain._has_weights())
        arguments = arguments | {"weight_warmup_steps": WARMUP}
    batch = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": len(data)}
    if not accumulate or arguments["packing"]:
        batch = {"per_device_train_batch_size": len(data), "gradient_accumulation_steps": 1}
    gradients = Gradients()
    trainer = DRPTrainer(
        model=make_model(torch.float32),
        args=DRPConfig(
            output_dir=str(output_dir),
            max_steps=len(steps),
            learning_rate=0.0,
            bf16=False,
            gradient_checkpointing=False,
            max_grad_norm=0.0,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **batch,
            **arguments,
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer(),
        callbacks=[gradients],
    )
    assume(len(trainer.train_dataset) == len(data) or not accumulate or arguments["packing"])
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == len(gradients.steps) == len(expected)
    for loss, found, (right_loss, right) in zip(losses, gradients.steps, expected, strict=True):
        assert loss == pytest.approx(right_loss, rel=1e-5)
        errors = [(found[name].double() - grad).norm() for name, grad in right.items()]
        whole = torch.stack([grad.norm() for grad in right.values()]).norm()
        assert torch.stack(errors).norm() <= 1e-5 * whole


def test_the_corpora_are_what_they_should_be():
    """A step may end inside a word that is one token, and the skills are of these categories."""
    assert {skill: categorise(skill) for skill in SKILLS} == SKILLS
    text = "multiplication"
    row = {
        "prompt": "How?",
        "completion": f"<think>\n{text}\n</think>\n\n42",
        "steps": [
            {"start": 8, "end": 13, "skill": "adding", "action": "KEEP"},
            {"start": 13, "end": 22, "skill": "adding", "action": "MERGE"},
        ],
    }
    words = [token for token in RowEncoder(tokenizer()).preview(row) if token.text and token.text in text]
    assert [token.text for token in words] == [text]
