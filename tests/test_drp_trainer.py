import copy
from functools import partial

import pytest
import torch
from datasets import Dataset, IterableDataset, concatenate_datasets
from peft import IA3Config, LoHaConfig, LoraConfig, PromptTuningConfig
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, ProcessorMixin, TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from drp_hf.commands.parsing import parse
from drp_hf.drp_config import DRPConfig
from drp_hf.drp_trainer import DRPTrainer
from drp_hf.embedded import resolve
from drp_hf.errors import DRPError
from drp_hf.records import final_response, render_output
from drp_hf.row_encoder import ENCODED_TOGETHER, RowEncoder
from drp_hf.step_weights import WeightRules

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
            "ones": [1.0] * len(steps),
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
        return {**row, "prompt": prompt, "completion": content}

    return Dataset.from_list([render(row) for row in rows])


class Gradients(TrainerCallback):
    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


@pytest.fixture
def train(tokenizer, tmp_path):
    """Trains a two-layer Llama; gives the losses, the gradients of every step, and the trainer."""

    def run(trainer_class, data, model=None, peft_config=None, eval_dataset=None, **settings):
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
            eval_dataset=eval_dataset,
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
        data = rows.remove_columns(["steps", "ones"])
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
    "packed": {"packing": True, "max_length": 128, "per_device_train_batch_size": 1},
    "padding-free": {"padding_free": True, "max_length": None},
    "dft, packed, accumulated": {
        "loss_type": "dft",
        "packing": True,
        "max_length": 128,
        "gradient_accumulation_steps": 2,
    },
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_without_weights_it_is_sft_trainer_to_the_last_bit(train, rows, expected, settings):
    assert_identical(train(DRPTrainer, rows, **settings), expected)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_weights_that_are_all_one_are_sft_trainer_to_the_last_bit(train, rows, expected, settings):
    found = train(DRPTrainer, rows, step_weight_column="ones", **settings)
    assert "loss_weights" in found[2].train_dataset.column_names  # the weighted path was taken
    assert_identical(found, expected)


def test_lora_is_sft_trainer_to_the_last_bit(train, rows):
    lora = partial(LoraConfig, r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    settings = {"gradient_accumulation_steps": 2}
    expected = train(SFTTrainer, rows.remove_columns(["steps", "ones"]), peft_config=lora(), **settings)
    assert_identical(train(DRPTrainer, rows, peft_config=lora(), **settings), expected)
    assert_identical(train(DRPTrainer, rows, peft_config=lora(), step_weight_column="ones", **settings), expected)


def test_virtual_tokens_have_no_weight_and_belong_to_no_action(train, rows):
    prompt = partial(PromptTuningConfig, task_type="CAUSAL_LM", num_virtual_tokens=3)
    expected = train(SFTTrainer, rows.remove_columns(["steps", "ones"]), peft_config=prompt())
    *_, trainer = found = train(DRPTrainer, rows, peft_config=prompt())
    assert_identical(found, expected)
    assert_identical(train(DRPTrainer, rows, peft_config=prompt(), step_weight_column="ones"), expected)

    def shares(trainer):
        entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
        return {name: value for name, value in entry.items() if "_tokens/" in name}

    assert shares(trainer) == shares(train(DRPTrainer, rows)[2])


def test_plain_text_is_sft_trainer_to_the_last_bit(train, plain_rows):
    assert_identical(train(DRPTrainer, plain_rows), train(SFTTrainer, plain_rows.remove_columns(["steps", "ones"])))


@pytest.mark.parametrize("strategy", ["bfd", "bfd_split", "wrapped"])
@pytest.mark.parametrize("max_length", [40, 128])
def test_packed_rows_are_sft_trainers_and_weights_follow_their_tokens(
    rows, plain_rows, tokenizer, tmp_path, strategy, max_length
):
    settings = {"packing": True, "packing_strategy": strategy, "max_length": max_length, "report_to": "none"}
    settings |= {"bf16": False, "output_dir": str(tmp_path), "shuffle_dataset": True}
    data = {"train_dataset": plain_rows.remove_columns(["steps", "ones"]), "processing_class": tokenizer}
    expected = SFTTrainer(make_model(), SFTConfig(use_cpu=True, **settings), **data).train_dataset
    data["train_dataset"] = rows
    # Every weight tells its token: the merged steps' and the answers' are the only ones of theirs.
    found = DRPTrainer(make_model(), DRPConfig(**settings, action_weights={"MERGE": 0.5}), **data).train_dataset
    assert found.select_columns(expected.column_names)[:] == expected[:]
    unpacked = RowEncoder(tokenizer, WeightRules(action_weights={"MERGE": 0.5}), columns=["loss_weights"])
    weight_of_text = {}
    for row in rows:
        encoded = unpacked({name: [value] for name, value in row.items()}, [0])
        for at, weight in enumerate(encoded["loss_weights"][0]):
            weight_of_text[tuple(encoded["input_ids"][0][: at + 1].tolist())] = weight
    if strategy == "bfd":  # whole rows, or their beginnings
        for packed in found:
            position = 0
            for length in packed["seq_lengths"]:
                ids = packed["input_ids"][position : position + length]
                weights = packed["loss_weights"][position : position + length]
                assert weights == [weight_of_text[tuple(ids[: at + 1])] for at in range(length)]
                position += length
    every = [weight for packed in found for weight in packed["loss_weights"]]
    masked = [label == -100 for packed in found for label in packed["labels"]]
    assert set(every) == {0.0, 0.5, 1.0} and masked == [weight == 0 for weight in every]


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


def test_streams_are_packed(train, rows):
    settings = {"action_weights": MIXED, "packing": True, "max_length": 128, "per_device_train_batch_size": 1}
    expected = train(DRPTrainer, rows, train_sampling_strategy="sequential", max_steps=1, **settings)
    found = train(DRPTrainer, IterableDataset.from_generator(make_rows), max_steps=1, **settings)
    assert_identical(found, expected)


def test_packing_does_not_count_what_begins_a_row(train, rows):
    """Nothing predicts a row's first token, also where it stands within a packed sequence."""
    settings = {"action_weights": MIXED, "completion_only_loss": False, "max_steps": 1, "learning_rate": 0.0}
    expected = train(DRPTrainer, rows, per_device_train_batch_size=6, **settings)[0]
    packed = train(DRPTrainer, rows, packing=True, max_length=128, per_device_train_batch_size=6, **settings)[0]
    assert packed == pytest.approx(expected, rel=1e-6)


def test_compiled_models_are_trained_alike(train, rows):
    settings = {"action_weights": MIXED, "max_steps": 1}
    compiled = train(DRPTrainer, rows, torch_compile=True, torch_compile_backend="aot_eager", **settings)
    expected = train(DRPTrainer, rows, **settings)
    assert compiled[0] == pytest.approx(expected[0], rel=1e-6)
    for one, other in zip(compiled[1][0].values(), expected[1][0].values(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)


def test_several_evaluation_sets_are_weighted(train, rows, tokenizer):
    evals = {"few": rows.select([0, 1]), "other": rows.select([2, 3, 4])}
    settings = {"action_weights": MIXED, "max_steps": 1, "learning_rate": 0.0, "per_device_eval_batch_size": 4}
    _, _, trainer = train(DRPTrainer, rows, eval_dataset=evals, eval_strategy="steps", eval_steps=1, **settings)
    entries = trainer.state.log_history
    for name, data in evals.items():
        (loss,) = [entry[f"eval_{name}_loss"] for entry in entries if f"eval_{name}_loss" in entry]
        trainer.train_dataset = trainer.eval_dataset[name]
        assert len(trainer.train_dataset) == len(data)
        assert loss == pytest.approx(reference(trainer)[0], rel=1e-5)


@pytest.mark.parametrize("weights", [None, {"KEEP": 0}, MIXED], ids=["no rules", "labels", "weights"])
@pytest.mark.parametrize("packing", [False, True])
def test_what_the_trainer_has_prepared_is_evaluated_as_it_is(train, rows, weights, packing):
    settings = {"packing": packing, "max_length": 128, "max_steps": 1, "shuffle_dataset": True}
    _, _, trainer = train(DRPTrainer, rows, eval_dataset=rows, action_weights=weights, **settings)
    expected = trainer.evaluate()["eval_loss"]
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] == expected
    assert trainer.evaluate(trainer.eval_dataset)["eval_loss"] == expected
    several = trainer.evaluate({"raw": rows, "prepared": trainer.eval_dataset})
    assert several["eval_raw_loss"] == several["eval_prepared_loss"] == expected
    # Of packed rows as of others there is a loss by action.
    assert "eval_action_loss/MERGE" in trainer.state.log_history[-1]


@pytest.mark.parametrize("weights", [None, {"KEEP": 0}, MIXED], ids=["no rules", "labels", "weights"])
@pytest.mark.parametrize("packing", [False, True])
def test_a_part_of_what_the_trainer_has_prepared_is_evaluated_as_it_is(train, rows, weights, packing):
    settings = {"packing": packing, "max_length": 128, "max_steps": 1, "per_device_eval_batch_size": 1}
    _, _, trainer = train(DRPTrainer, rows, eval_dataset=rows, action_weights=weights, **settings)
    whole = trainer.eval_dataset
    parts = [whole.select([i]) for i in range(len(whole))]
    losses = [trainer.evaluate(part)["eval_loss"] for part in parts]
    assert len(losses) > 1
    mean = pytest.approx(sum(losses) / len(losses), rel=1e-5)
    for data in (whole, whole.shuffle(seed=1), whole.select(range(len(whole))), concatenate_datasets(parts)):
        assert trainer.evaluate(data)["eval_loss"] == mean
    halves = whole.train_test_split(0.5, seed=0)
    several = trainer.evaluate(dict(halves))
    for name, half in halves.items():
        assert several[f"eval_{name}_loss"] == trainer.evaluate(half)["eval_loss"]


def test_a_part_of_a_prepared_stream_is_evaluated_as_it_is(train, rows):
    stream = rows.to_iterable_dataset()
    _, _, trainer = train(DRPTrainer, stream, eval_dataset=stream, action_weights=MIXED, max_steps=1)
    expected = trainer.evaluate(rows.select([0, 1]))["eval_loss"]
    assert trainer.evaluate(trainer.eval_dataset.take(2))["eval_loss"] == expected


def test_tokenized_data_that_another_has_prepared_is_no_part(train, rows):
    _, _, other = train(DRPTrainer, rows, action_weights={"KEEP": 0.5}, max_steps=1)
    _, _, trainer = train(DRPTrainer, rows, action_weights=MIXED, max_steps=1)
    for columns in (["input_ids"], ["input_ids", "labels"], other.train_dataset.column_names):
        tokenized = other.train_dataset.select(range(2)).select_columns(columns)
        mixed = concatenate_datasets([trainer.train_dataset.select_columns(columns), tokenized])
        for data in (tokenized, Dataset.from_list(tokenized.to_list()), mixed):
            with pytest.raises(DRPError, match="The eval data is tokenized already: weights need prompt and completi"):
                trainer.evaluate(data)


def test_a_warm_up_begins_at_equal_weights_and_evaluations_have_the_full_ones(train, rows):
    settings = {"learning_rate": 0.0, "per_device_train_batch_size": 6, "max_steps": 4}
    warm, _, trainer = train(DRPTrainer, rows, action_weights={"MERGE": 0.3}, weight_warmup_steps=0.5, **settings)
    full, _, without = train(DRPTrainer, rows, action_weights={"MERGE": 0.3}, **settings)
    plain, _, _ = train(DRPTrainer, rows, **settings)
    assert warm[0] == plain[0] and warm[2:] == full[2:]
    assert min(plain[0], full[0]) < warm[1] < max(plain[0], full[0])
    trainer.state.global_step = 0
    assert trainer.evaluate(rows)["eval_loss"] == without.evaluate(rows)["eval_loss"]


def metrics(entry):
    """What is said of the tokens in the loss."""
    names = ("entropy", "accuracy", "action_", "skill_")
    return {name: value for name, value in entry.items() if any(part in name for part in names)}


def test_what_a_warm_up_leads_to_0_leaves_the_metrics(train, rows):
    settings = {"learning_rate": 0.0, "per_device_train_batch_size": 6, "max_steps": 3}
    settings["action_weights"] = {"KEEP": 0, "MERGE": 0.3}
    *_, warm = train(DRPTrainer, rows, weight_warmup_steps=2, **settings)
    *_, full = train(DRPTrainer, rows, **settings)
    during, after = warm.state.log_history[:2], warm.state.log_history[2]
    assert all(entry["action_tokens/KEEP"] > 0 for entry in during)
    assert metrics(after) == pytest.approx(metrics(full.state.log_history[2]), rel=1e-5)
    assert "action_tokens/KEEP" not in after
    warm.state.global_step = 0  # an evaluation takes the full weights at any time
    for trainer in (warm, full):
        trainer.evaluate(rows)
    assert metrics(warm.state.log_history[-1]) == pytest.approx(metrics(full.state.log_history[-1]), rel=1e-5)


def test_deleted_steps_come_into_the_loss_with_a_warm_up(train, rows):
    settings = {"learning_rate": 0.0, "per_device_train_batch_size": 6, "max_steps": 3}
    settings |= {"loss_scope": "masked-raw", "deleted_unlikelihood": 0.5}
    losses, _, warm = train(DRPTrainer, as_raw(rows), weight_warmup_steps=2, **settings)
    full, _, without = train(DRPTrainer, as_raw(rows), **settings)
    masked, _, _ = train(DRPTrainer, as_raw(rows), **{**settings, "deleted_unlikelihood": 0.0})
    entries = [trainer.state.log_history[:3] for trainer in (warm, without)]
    assert ["action_loss/DELETE" in entry for entry in entries[0]] == [False, True, True]
    assert losses[0] == pytest.approx(masked[0], rel=1e-6) and losses[2] == pytest.approx(full[2], rel=1e-6)
    assert metrics(entries[0][2]) == pytest.approx(metrics(entries[1][2]), rel=1e-5)


def test_loss_and_tokens_are_logged_by_action_and_by_skill(train, rows):
    _, _, trainer = train(DRPTrainer, rows, per_device_train_batch_size=3, learning_rate=0.0, logging_steps=2)
    (entry,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    shares = {name: value for name, value in entry.items() if name.startswith("action_tokens/")}
    assert {name.partition("/")[2] for name in shares} == {
        *("KEEP", "MERGE", "COMPRESS", "other", "think_close", "answer", "stop")
    }
    assert sum(shares.values()) == pytest.approx(1)
    mean = sum(share * entry[name.replace("_tokens", "_loss")] for name, share in shares.items())
    assert mean == pytest.approx(entry["loss"], rel=1e-5)  # all weights are 1: the parts make the whole
    assert entry["skill_tokens/arithmetic"] == pytest.approx(
        sum(share for name, share in shares.items() if name.partition("/")[2].isupper())
    )
    trained = trainer.evaluate(rows)
    assert {"eval_action_loss/KEEP", "eval_skill_tokens/arithmetic"} <= trainer.state.log_history[-1].keys()
    assert trained["eval_loss"] == pytest.approx(entry["loss"], rel=1e-5)


def as_raw(rows):
    """The merged step of every row deleted."""

    def delete(row):
        steps = [step | ({"action": "DELETE"} if step["action"] == "MERGE" else {}) for step in row["steps"]]
        return {**row, "steps": steps}

    return rows.map(delete)


@pytest.mark.slow
def test_masked_raw_leaves_deleted_steps_and_unlikelihood_unlearns_them(train, rows):
    def deleted_losses(trainer):
        return [e["action_loss/DELETE"] for e in trainer.state.log_history if "action_loss/DELETE" in e]

    settings = {"learning_rate": 2e-2, "per_device_train_batch_size": 6, "weight_decay": 0.0}
    _, _, verbose = train(DRPTrainer, rows, max_steps=30, **settings)  # learns to write what is deleted below
    settings |= {"loss_scope": "masked-raw", "max_steps": 8}
    model = copy.deepcopy(verbose.model)
    assert deleted_losses(train(DRPTrainer, as_raw(rows), model=model, **settings)[2]) == []  # none has a label
    losses = deleted_losses(
        train(DRPTrainer, as_raw(rows), model=verbose.model, deleted_unlikelihood=1.0, **settings)[2]
    )
    assert losses[0] < 4 and losses[-1] > losses[0] + 2


def test_a_collator_of_the_user_s_own_gets_ids_and_labels(tokenizer, rows, tmp_path):
    columns = set()

    def collate(examples):
        columns.update(*(example.keys() for example in examples))
        return DataCollatorForLanguageModeling(pad_token_id=2)(examples)

    settings = {"report_to": "none", "bf16": False, "max_steps": 1, "save_strategy": "no"}
    args = DRPConfig(output_dir=str(tmp_path), action_weights={"MERGE": 0}, **settings)
    DRPTrainer(make_model(), args, rows, processing_class=tokenizer, data_collator=collate).train()
    assert columns == {"input_ids", "labels"}
    with pytest.raises(DRPError, match="cannot be combined with data_collator"):
        args = DRPConfig(output_dir=str(tmp_path), action_weights={"MERGE": 0.5}, **settings)
        DRPTrainer(make_model(), args, rows, processing_class=tokenizer, data_collator=collate)


def test_another_config_is_refused(rows, tmp_path):
    with pytest.raises(DRPError, match="DRPTrainer needs a DRPConfig as args, not SFTConfig"):
        DRPTrainer(make_model(), SFTConfig(output_dir=str(tmp_path), use_cpu=True), rows)


def test_raw_traces_in_the_scope_of_pruned_ones_are_refused(train, rows):
    with pytest.raises(DRPError, match="Row 1 of the train data has a step with the action DELETE, which a pruned"):
        train(DRPTrainer, as_raw(rows))


def test_few_rows_are_in_memory_together_while_they_are_encoded(tokenizer, tmp_path):
    """Whole traces with all their offsets take megabytes each."""
    data = {"train_dataset": Dataset.from_list(list(make_rows(2 * ENCODED_TOGETHER))), "processing_class": tokenizer}
    trainer = DRPTrainer(make_model(), DRPConfig(str(tmp_path), bf16=False, report_to="none"), **data)
    assert [len(chunk) for chunk in trainer.train_dataset.data.column("input_ids").chunks] == 2 * [ENCODED_TOGETHER]


def test_rows_that_are_cut_are_counted(train, rows, caplog):
    with caplog.at_level("WARNING"):
        train(DRPTrainer, rows, max_length=48, max_steps=1)
    assert "of 6 rows of the train data are longer than max_length=48" in caplog.text


def test_rows_of_which_nothing_is_left_are_left_out_and_all_of_them_refused(train, rows, caplog):
    longer = Dataset.from_list([{**row, "prompt": [{"role": "user", "content": "How? " * 60}]} for row in rows])
    with caplog.at_level("WARNING"):
        _, _, trainer = train(DRPTrainer, concatenate_datasets([longer, rows]), max_length=60, max_steps=1)
    assert len(trainer.train_dataset) == 6 and "(6 lost all that is learnt and were left out)" in caplog.text
    with pytest.raises(DRPError, match="No row of the train data has anything to learn within max_length=60"):
        train(DRPTrainer, longer, max_length=60)


def test_a_transform_is_refused(train, rows):
    with pytest.raises(DRPError, match="The train data has a transform"):
        train(DRPTrainer, rows.with_transform(lambda batch: batch))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"FORGET": 1}, "action_weights names 'FORGET': choose among KEEP, COMPRESS, MERGE."),
        ({"KEEP": -1}, "action_weights['KEEP'] is -1: give a number of 0 or more."),
        ({"KEEP": float("nan")}, "action_weights['KEEP'] is nan"),
        ({"KEEP": "much"}, "action_weights['KEEP'] is 'much'"),
    ],
)
def test_weights_that_mean_nothing(tmp_path, weights, message):
    with pytest.raises(DRPError) as error:
        DRPConfig(output_dir=str(tmp_path), action_weights=weights)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"action_weights": {"DELETE": 0}}, "action_weights names DELETE, whose steps are never learnt: remove it"),
        ({"loss_scope": "raw"}, "loss_scope is 'raw': choose among pruned, masked-raw, compressed-only."),
        ({"straddle": "mean"}, "straddle is 'mean': choose among max, min, first, last."),
        ({"step_normalization": "row"}, "step_normalization is 'row': choose among token, step."),
        ({"eos_weight": -1.0}, "eos_weight is -1.0: give a number of 0 or more."),
        ({"skill_weights": {"adding": True}}, "skill_weights['adding'] is True: give a number"),
        ({"deleted_unlikelihood": 0.5}, "deleted_unlikelihood needs the deleted steps: set loss_scope='masked-raw'"),
        ({"weight_warmup_steps": 10}, "weight_warmup_steps has no weight to warm up: set weights, or remove it."),
    ],
)
def test_settings_that_mean_nothing(tmp_path, settings, message):
    with pytest.raises(DRPError) as error:
        DRPConfig(output_dir=str(tmp_path), **settings)
    assert message in str(error.value)


def test_stage_is_another_name_for_the_scope(tmp_path):
    arguments = ["--output_dir", str(tmp_path), "--stage", "masked-raw", "--deleted_unlikelihood", "0.1"]
    config = parse(DRPConfig, arguments)
    assert (config.loss_scope, config.deleted_unlikelihood) == ("masked-raw", 0.1)


def test_skills_that_no_step_has_are_refused(train, rows):
    weights = {"adding": 2.0, "verification": 0.5, "juggling": 3.0}
    with pytest.raises(DRPError, match="skill_weights names 'juggling', which is in no step of the train data"):
        train(DRPTrainer, rows, skill_weights=weights)
    stream = IterableDataset.from_generator(make_rows)
    with pytest.raises(DRPError, match="skill_weights names 'adding', which is no category"):
        train(DRPTrainer, stream, skill_weights={"adding": 2.0})
    del weights["juggling"]
    assert set(train(DRPTrainer, rows, skill_weights=weights, max_steps=1)[2].train_dataset["loss_weights"][0]) == {
        *(0.0, 1.0, 2.0)
    }


def test_weights_can_be_json(tmp_path):
    assert DRPConfig(output_dir=str(tmp_path), action_weights='{"MERGE": 0.5}').action_weights == {"MERGE": 0.5}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"packing": True, "max_length": None}, "packing needs max_length"),
        ({"packing": True, "truncation_mode": "keep_end"}, "packing cuts rows at their end"),
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
        (["prompt", "completion"], "need a column steps, which the train data does not have"),
    ],
)
def test_missing_columns(train, rows, columns, message):
    with pytest.raises(DRPError, match=message):
        train(DRPTrainer, rows.select_columns(columns), action_weights=MIXED)


def test_a_missing_column_of_weights(train, rows):
    with pytest.raises(DRPError, match="The train data has no column own .step_weight_column.: it has prompt"):
        train(DRPTrainer, rows, step_weight_column="own")


def test_empty_and_tokenized_data(train, rows):
    with pytest.raises(DRPError, match="The train data has no rows"):
        train(DRPTrainer, rows.select([]))
    with pytest.raises(DRPError, match="tokenized already"):
        train(DRPTrainer, Dataset.from_dict({"input_ids": [[1, 2, 3]]}), action_weights=MIXED)


def test_a_stop_token_that_generation_ignores_is_refused(train, rows, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", CHATML.replace("<|im_end|>", "<repo_name>"))
    with pytest.raises(DRPError, match="ends a turn with '<repo_name>', at which generation does not stop"):
        train(DRPTrainer, rows)


def test_a_chat_template_that_is_not_used_refuses_nothing(train, plain_rows, tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", CHATML.replace("<|im_end|>", "<repo_name>"))
    _, _, trainer = train(DRPTrainer, plain_rows, max_steps=1)
    tokenized = trainer.train_dataset.select_columns(["input_ids", "labels"])
    assert len(train(DRPTrainer, tokenized, max_steps=1)[0]) == 1


class TextProcessor(ProcessorMixin):
    """A processor of a model that takes more than text, where there is only text."""

    def __init__(self, tokenizer=None, chat_template=None):
        super().__init__(tokenizer, chat_template=chat_template)


def test_a_processor_s_tokenizer_has_the_template_that_is_given(tokenizer, rows, tmp_path):
    (tmp_path / "chat.jinja").write_text(CHATML.replace("assistant\n", "assistant: "))
    args = DRPConfig(str(tmp_path), chat_template_path=str(tmp_path / "chat.jinja"), bf16=False, report_to="none")
    processor = TextProcessor(copy.deepcopy(tokenizer), chat_template=CHATML)
    trainer = DRPTrainer(make_model(), args, rows, processing_class=processor)
    assert "<|im_start|>assistant: " in tokenizer.decode(trainer.train_dataset[0]["input_ids"])


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[]), "IA3"),
        (LoHaConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"]), "LOHA"),
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "PROMPT_TUNING"),
    ],
    ids=["IA3", "LoHa", "prompt tuning"],
)
def test_the_card_of_a_checkpoint_says_which_adapter_it_is(train, rows, tmp_path, config, kind):
    train(DRPTrainer, rows, peft_config=config, save_strategy="steps", save_steps=1, max_steps=1)
    assert (tmp_path / "checkpoint-1" / "adapter_model.safetensors").exists()
    card = (tmp_path / "README.md").read_text()
    assert f"The weights here are an adapter ({kind}); they need the base model" in card
    assert f"| what is trained | an adapter ({kind}) |" in card
    assert "LoRA" not in card and "lora" not in card and "use_peft" not in card


def test_the_card_of_a_checkpoint_has_settings_of_every_type(train, rows, tmp_path):
    settings = {"model_init_kwargs": {"torch_dtype": torch.float32}}
    train(DRPTrainer, rows, save_strategy="steps", save_steps=1, max_steps=1, **settings)
    assert (tmp_path / "checkpoint-1" / "model.safetensors").exists()
    assert "model_init_kwargs:\n  torch_dtype: torch.float32\n" in (tmp_path / "README.md").read_text()
