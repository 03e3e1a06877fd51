from functools import partial

import pytest
import torch
from datasets import Dataset, IterableDataset
from peft import LoraConfig
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer

from drp_hf.drp_config import DRPConfig
from drp_hf.drp_trainer import DRPTrainer
from drp_hf.embedded import resolve
from drp_hf.errors import DRPError
from drp_hf.records import final_response, render_output

# ChatML without the line break behind the stop token, which SFTTrainer trains although no model gets to write it; and
# without SmolLM2's system prompt, to be fast.
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MIXED = {"KEEP": 0, "MERGE": 0.3, "COMPRESS": 2.5}


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(resolve("smollm2-embedded"))
    tokenizer.chat_template = CHATML
    return tokenizer


def make_model(dtype=torch.float32):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    return LlamaForCausalLM(config).to(dtype)


def make_rows(count=6):
    """Rows of very different length, so that a mean of means would differ from a mean over tokens."""
    for i in range(count):
        sentences = [f"Tom has {i} apples." * (1 + i % 3), " Wait, let me check.", f" So {i} + 1 = {i + 1}."]
        content = render_output("".join(sentences), final_response(str(i + 1)))
        steps, start = [], content.index(sentences[0])
        for sentence, action in zip(sentences, ("KEEP", "MERGE", "COMPRESS"), strict=True):
            steps.append({"start": start, "end": start + len(sentence), "skill": "adding", "action": action})
            start += len(sentence)
        yield {
            "prompt": [{"role": "user", "content": f"What is {i} + 1?"}],
            "completion": [{"role": "assistant", "content": content}],
            "steps": steps,
        }


@pytest.fixture(scope="module")
def rows():
    return Dataset.from_list(list(make_rows()))


@pytest.fixture(scope="module")
def plain_rows(rows, tokenizer):
    """What the chat template makes of `rows`, as text."""

    def render(row):
        prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        content = row["completion"][0]["content"]
        return {"prompt": prompt, "completion": content, "steps": row["steps"]}

    return Dataset.from_list([render(row) for row in rows])


class Gradients(TrainerCallback):
    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


@pytest.fixture
def train(tokenizer, tmp_path):
    """Trains a two-layer Llama; gives the losses, the gradients of every step, and the trainer."""

    def run(trainer_class, data, model=None, peft_config=None, **settings):
        config_class = DRPConfig if trainer_class is DRPTrainer else partial(SFTConfig, use_cpu=True)
        defaults = {
            "per_device_train_batch_size": 2,
            "max_steps": 2,
            "learning_rate": 1e-2,
            "bf16": False,
            "gradient_checkpointing": False,
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
        }
        gradients = Gradients()
        trainer = trainer_class(
            model=make_model() if model is None else model,
            args=config_class(output_dir=str(tmp_path), **{**defaults, **settings}),
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=peft_config,
            callbacks=[gradients],
        )
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return losses, gradients.steps, trainer

    return run


@pytest.fixture(scope="module")
def expectations():
    return {}


@pytest.fixture
def expected(request, train, rows, expectations):
    """What SFTTrainer makes of the settings the test is called with."""
    name = request.node.callspec.id
    if name not in expectations:
        data = rows.remove_columns("steps")
        expectations[name] = train(SFTTrainer, data, **request.node.callspec.params["settings"])
    return expectations[name]


def assert_identical(one, other):
    assert one[0] == other[0]
    assert len(one[1]) == len(other[1]) > 0
    for first, second in zip(one[1], other[1], strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


SETTINGS = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 3},
    "dft": {"loss_type": "dft"},
    "truncated": {"max_length": 48},
    "bf16": {"bf16": True},
    "checkpointed": {"gradient_checkpointing": True, "gradient_accumulation_steps": 2},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_without_weights_it_is_sft_trainer_to_the_last_bit(train, rows, expected, settings):
    assert_identical(train(DRPTrainer, rows, **settings), expected)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_weights_that_are_all_one_are_sft_trainer_to_the_last_bit(train, rows, expected, settings):
    found = train(DRPTrainer, rows, action_weights={"DELETE": 0.5}, **settings)  # no step has that action
    assert "loss_weights" in found[2].train_dataset.column_names  # the weighted path was taken
    assert_identical(found, expected)


def test_lora_is_sft_trainer_to_the_last_bit(train, rows):
    lora = partial(LoraConfig, r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    settings = {"gradient_accumulation_steps": 2}
    expected = train(SFTTrainer, rows.remove_columns("steps"), peft_config=lora(), **settings)
    assert_identical(train(DRPTrainer, rows, peft_config=lora(), **settings), expected)
    weights = {"DELETE": 0.5}
    assert_identical(train(DRPTrainer, rows, peft_config=lora(), action_weights=weights, **settings), expected)


def test_plain_text_is_sft_trainer_to_the_last_bit(train, plain_rows):
    assert_identical(train(DRPTrainer, plain_rows), train(SFTTrainer, plain_rows.remove_columns("steps")))


def test_packed_rows_are_sft_trainers(rows, plain_rows, tokenizer, tmp_path):
    settings = {"packing": True, "max_length": 128, "report_to": "none", "bf16": False, "output_dir": str(tmp_path)}
    data = {"train_dataset": plain_rows.remove_columns("steps"), "processing_class": tokenizer}
    expected = SFTTrainer(make_model(), SFTConfig(use_cpu=True, **settings), **data).train_dataset
    data["train_dataset"] = rows
    assert DRPTrainer(make_model(), DRPConfig(**settings), **data).train_dataset[:] == expected[:]


def test_weight_0_is_a_label_of_minus_100(train, rows, plain_rows, tokenizer):
    masked = {"input_ids": [], "labels": []}
    for row in plain_rows:
        text = row["prompt"] + row["completion"] + tokenizer.eos_token
        encoded = tokenizer(text, return_offsets_mapping=True)
        border = len(row["prompt"])
        step = row["steps"][0]  # KEEP, up to the space before the next step
        kept = range(border + step["start"], border + step["end"])
        masked["input_ids"].append(encoded["input_ids"])
        masked["labels"].append(
            [
                -100 if start < border or (start in kept) else token
                for token, (start, _) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            ]
        )
    settings = {"gradient_accumulation_steps": 3}
    expected = train(SFTTrainer, Dataset.from_dict(masked), **settings)
    found = train(DRPTrainer, rows, action_weights={"KEEP": 0}, **settings)
    assert found[2].train_dataset["labels"][:] == masked["labels"]
    assert_identical(found, expected)


def reference(trainer, dft=False):
    """The loss and the gradients of one step over all rows, from the formula, in float64 and one row at a time."""
    model = make_model(torch.float64)
    total, weight_sum = torch.zeros((), dtype=torch.float64), 0.0
    for row in trainer.train_dataset:
        ids = torch.tensor([row["input_ids"]])
        log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        log_probs = log_probs[torch.arange(ids.shape[1] - 1), ids[0, 1:]]
        weights = torch.tensor(row["loss_weights"], dtype=torch.float64)[1:]
        nll = -log_probs * (log_probs.exp().detach() if dft else 1)
        total = total + (weights * nll).sum()
        weight_sum += weights.sum()
    loss = total / weight_sum
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    ("batch", "accumulation", "loss_type"), [(6, 1, "nll"), (3, 2, "nll"), (1, 6, "nll"), (2, 3, "dft")]
)
def test_weighted_loss_follows_the_formula_however_the_batch_is_cut(train, rows, batch, accumulation, loss_type):
    settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    found = train(DRPTrainer, rows, action_weights=MIXED, loss_type=loss_type, max_length=56, **settings)
    assert {round(w, 3) for row in found[2].train_dataset for w in row["loss_weights"]} == {0, 0.3, 1, 2.5}
    loss, gradients = reference(found[2], dft=loss_type == "dft")
    assert found[0][0] == pytest.approx(loss, rel=1e-5)
    for name, expected in gradients.items():
        error = (found[1][0][name].double() - expected).norm() / expected.norm()
        assert error < 1e-5, name


def test_evaluation_is_weighted_too(train, rows):
    _, _, trainer = train(DRPTrainer, rows, action_weights=MIXED, max_steps=1, learning_rate=0.0)
    trainer.args.per_device_eval_batch_size = 6
    assert trainer.evaluate(rows)["eval_loss"] == pytest.approx(reference(trainer)[0], rel=1e-5)


def test_a_batch_in_which_nothing_weighs_anything_has_a_loss_of_0(train, rows):
    _, _, trainer = train(DRPTrainer, rows, action_weights=MIXED, max_steps=1)
    inputs = trainer.data_collator([trainer.train_dataset[0]])
    inputs["loss_weights"].zero_()
    loss = trainer.compute_loss(trainer.model, inputs, num_items_in_batch=torch.tensor(0.0))
    assert loss.item() == 0


def test_streams_are_trained_alike(train, rows):
    stream = IterableDataset.from_generator(make_rows)
    expected = train(DRPTrainer, rows, action_weights=MIXED, train_sampling_strategy="sequential")
    found = train(DRPTrainer, stream, action_weights=MIXED)
    assert_identical(found, expected)


def test_rows_that_are_cut_are_counted(train, rows, caplog):
    with caplog.at_level("WARNING"):
        train(DRPTrainer, rows, max_length=48, max_steps=1)
    assert "of 6 rows of the train data are longer than max_length=48" in caplog.text


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"FORGET": 1}, "action_weights names 'FORGET': choose among KEEP, DELETE, COMPRESS, MERGE."),
        ({"KEEP": -1}, "gives KEEP the weight -1: give a number of 0 or more."),
        ({"KEEP": float("nan")}, "gives KEEP the weight nan"),
        ({"KEEP": "much"}, "gives KEEP the weight 'much'"),
    ],
)
def test_weights_that_mean_nothing(tmp_path, weights, message):
    with pytest.raises(DRPError) as error:
        DRPConfig(output_dir=str(tmp_path), action_weights=weights)
    assert message in str(error.value)


def test_weights_can_be_json(tmp_path):
    assert DRPConfig(output_dir=str(tmp_path), action_weights='{"MERGE": 0.5}').action_weights == {"MERGE": 0.5}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"packing": True}, "cannot be combined with packing"),
        ({"padding_free": True, "max_length": None}, "cannot be combined with padding_free"),
        ({"label_smoothing_factor": 0.1}, "cannot be combined with label_smoothing_factor"),
        ({"assistant_only_loss": True}, "remove assistant_only_loss"),
        ({"dataset_kwargs": {"skip_prepare_dataset": True}}, "remove skip_prepare_dataset"),
    ],
)
def test_what_cannot_be_combined_is_refused(train, rows, settings, message):
    with pytest.raises(DRPError, match=message):
        train(DRPTrainer, rows, action_weights=MIXED, **settings)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["prompt", "steps"], "no column completion"),
        (["prompt", "completion"], "action_weights need a column steps"),
    ],
)
def test_missing_columns(train, rows, columns, message):
    with pytest.raises(DRPError, match=message):
        train(DRPTrainer, rows.select_columns(columns), action_weights=MIXED)


def test_empty_and_tokenized_data(train, rows):
    with pytest.raises(DRPError, match="The train data has no rows"):
        train(DRPTrainer, rows.select([]))
    with pytest.raises(DRPError, match="tokenized already"):
        train(DRPTrainer, Dataset.from_dict({"input_ids": [[1, 2, 3]]}), action_weights=MIXED)


def test_a_stop_token_that_generation_ignores_is_refused(train, rows, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", CHATML.replace("<|im_end|>", "<repo_name>"))
    with pytest.raises(DRPError, match="ends a turn with '<repo_name>', at which generation does not stop"):
        train(DRPTrainer, rows)
