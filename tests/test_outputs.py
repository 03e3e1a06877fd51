"""Outputs of other programs: what they wrote is read as they meant it, and what is broken is named with its row."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drp_hf.errors import DRPError
from drp_hf.outputs import bare_golds, read_outputs

FIXTURES = Path(__file__).parent / "fixtures"
LM_EVAL = FIXTURES / "lm_eval" / "quickstart-reasoner"
LIGHTEVAL = FIXTURES / "lighteval"
SAMPLES = next(LM_EVAL.glob("samples_word_problems_2*.jsonl"))
REPEATED = next(LM_EVAL.glob("samples_word_problems_sampled_*.jsonl"))
ROW = {"question": "2 + 3?", "answer": "5", "output": "<think>\n2 + 3 = 5.\n</think>\n\nThe answer is 5."}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def write(path: Path, *rows: dict | str) -> str:
    """A JSON Lines file of rows; strings are written as they are."""
    lines = (json.dumps(row) if isinstance(row, dict) else row for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read(source: str | Path) -> list:
    return list(read_outputs(str(source)).read())


# ------------------------------------------------------------------------------------------ lm-evaluation-harness


def test_samples_of_lm_eval_are_read_once_though_every_filter_repeats_them():
    outputs = read_outputs(str(SAMPLES))
    first, *others = list(outputs.read())
    assert [row["filter"] for row in rows_of(SAMPLES)] == ["strict-match"] * 3 + ["flexible-extract"] * 3
    assert len(others) == 2
    assert first.question.startswith("A hat costs $40.") and first.question.endswith("in dollars?")
    assert first.golds == ("80",)  # of "First work out each step of the story.\n#### 80"
    assert first.output.startswith("<think>\nOkay") and first.output.endswith("The answer is 80.")
    assert (first.benchmark, first.sample, first.limit) == ("word_problems", 0, 400)
    assert first.n_tokens is None and first.finished is None
    assert (outputs.model, outputs.limit, outputs.n_parameters) == ("quickstart-reasoner", 400, 134515008)


def test_repeats_are_samples_of_one_question():
    outputs = read(REPEATED)
    assert [(output.question[:5], output.sample) for output in outputs] == [
        (question, sample) for question in (outputs[0].question[:5], outputs[3].question[:5]) for sample in range(3)
    ]
    assert len({output.output for output in outputs}) == 6
    assert outputs[0].limit == 256 and outputs[0].benchmark == "word_problems_sampled"


@pytest.mark.parametrize("folder", [LM_EVAL, LM_EVAL.parent])
def test_an_output_folder_of_lm_eval_holds_all_its_tasks(folder):
    outputs = read_outputs(str(folder))
    assert {output.benchmark for output in outputs.read()} == {"word_problems", "word_problems_sampled"}
    assert outputs.model == "quickstart-reasoner"
    assert outputs.limit is None  # 400 for one task and 256 for the other


def test_without_the_results_beside_them_samples_are_named_by_their_file(tmp_path):
    path = shutil.copy(SAMPLES, tmp_path / "model-1.5b.jsonl")
    outputs = read_outputs(path)
    assert outputs.model == "model-1.5b" and next(outputs.read()).benchmark is None


@pytest.mark.parametrize(
    "target, golds",
    [
        ("18", ("18",)),
        ("She has 9 + 9 = <<9+9=18>>18.\n#### 18", ("18",)),
        ("We find that $x = 3$, so the product is $\\boxed{\\frac{1}{2}}$.", ("\\frac{1}{2}",)),
        ("['5', '7']", ("5", "7")),
        ("['5', '5']", ("5",)),
        ("[0, 1]", ("[0, 1]",)),
        ("['a'", ("['a'",)),
    ],
)
def test_targets_of_lm_eval(tmp_path, target, golds):
    row = rows_of(SAMPLES)[0] | {"target": target}
    assert read(write(tmp_path / "s.jsonl", row))[0].golds == golds


def test_a_document_without_a_question_is_asked_by_its_prompt(tmp_path):
    row = rows_of(SAMPLES)[0] | {"doc": {"Body": "A hat costs $40."}}
    assert read(write(tmp_path / "s.jsonl", row))[0].question.startswith("<|im_start|>system")


def test_samples_without_text_or_reasoning_are_refused(tmp_path):
    row = rows_of(SAMPLES)[0]
    choice = row | {"arguments": {"gen_args_0": {"arg_0": "2 + 3?", "arg_1": " 5"}}, "resps": [["-1.25", "False"]]}
    with pytest.raises(DRPError, match=r"s\.jsonl row 1 is not of a task that generates text"):
        read(write(tmp_path / "s.jsonl", choice))
    with pytest.raises(DRPError, match=r"row 2: the field 'resps' holds \[\[\]\]"):
        read(write(tmp_path / "s.jsonl", row, row | {"resps": [[]]}))

    shutil.copytree(LM_EVAL, tmp_path / "run")
    results = next((tmp_path / "run").glob("results_*.json"))
    of_run = json.loads(results.read_text(encoding="utf-8"))
    of_run["config"]["model_args"] = "pretrained=m,enable_thinking=True,think_end_token=</think>"
    results.write_text(json.dumps(of_run), encoding="utf-8")
    with pytest.raises(DRPError, match="without its reasoning.*think_end_token"):
        read_outputs(str(tmp_path / "run"))


def test_several_runs_in_a_folder_are_refused(tmp_path):
    for date in ("2026-01-01T00-00-00.0", "2026-01-02T00-00-00.0"):
        shutil.copy(SAMPLES, tmp_path / f"samples_gsm8k_{date}.jsonl")
    with pytest.raises(DRPError, match="holds the task gsm8k twice"):
        read_outputs(str(tmp_path))


# ------------------------------------------------------------------------------------------------------- lighteval

DATE = "2026-11-25T20-17-42.158922"
TASKS = ("word_problems_sampled", "word_problems")


@pytest.fixture
def lighteval_run(tmp_path) -> Path:
    """An output folder of lighteval, with the bars in its names, which not every system can check out."""
    results, details = (tmp_path / "out" / name / "quickstart-reasoner" for name in ("results", "details"))
    results.mkdir(parents=True)
    (details / DATE).mkdir(parents=True)
    shutil.copy(LIGHTEVAL / f"results_{DATE}.json", results)
    for task in TASKS:
        shutil.copy(LIGHTEVAL / f"{task}.parquet", details / DATE / f"details_{task}|0_{DATE}.parquet")
    return tmp_path / "out"


def test_details_of_lighteval(lighteval_run):
    outputs = read_outputs(str(lighteval_run))
    assert (outputs.model, outputs.limit) == ("quickstart-reasoner", 290)
    read = list(outputs.read())
    assert [output.benchmark for output in read] == ["word_problems_sampled"] * 4 + ["word_problems"] * 4
    assert [output.sample for output in read] == [0, 1, 0, 1, 0, 0, 0, 0]
    assert [output.golds for output in read[4:]] == [("26",), ("45",), ("26",), ("80",)]
    assert read[4].question.startswith("A recipe for 4 people") and read[4].output.endswith("The answer is 26.")


def test_what_lighteval_fills_its_batches_up_with_is_not_counted(lighteval_run, smollm2_tokenizer):
    read = list(read_outputs(str(lighteval_run)).read())
    generated = [
        tokens
        for task in TASKS
        for row in pq.read_table(LIGHTEVAL / f"{task}.parquet").to_pylist()
        for tokens in row["model_response"]["output_tokens"]
    ]
    assert {len(tokens) for tokens in generated} == {290}
    for output, tokens in zip(read, generated, strict=True):
        finished = smollm2_tokenizer.eos_token_id in tokens
        assert output.finished is finished
        text = smollm2_tokenizer(output.output, add_special_tokens=False)["input_ids"]
        assert output.n_tokens == len(text) + finished  # with the token that ended it
    assert [output.n_tokens for output in read[4:]] == [278, 288, 290, 290]
    assert [output.finished for output in read[4:]] == [True, True, True, False]  # one ended with its last token


def test_details_of_an_older_lighteval(tmp_path):
    path = tmp_path / f"details_custom|word_problems_sampled|0_{DATE}.parquet"
    shutil.copy(LIGHTEVAL / "word_problems_sampled_0.9.parquet", path)
    outputs = read(path)
    assert {output.benchmark for output in outputs} == {"word_problems_sampled"}
    assert [output.sample for output in outputs] == [0, 1, 2, 3] * 2
    assert [output.golds for output in outputs] == [("45",)] * 4 + [("80",)] * 4
    assert outputs[0].question.startswith("Ivy works 3 hours") and outputs[0].output.endswith("The answer is 45.")
    assert [output.n_tokens for output in outputs] == [282, 290, 290, 283, 281, 279, 269, 287]
    # It does not say where it cut, but the token that ends an output is known.
    assert [output.finished for output in outputs] == [True, None, *[True] * 6]


@pytest.mark.parametrize(
    "generated, lengths, finished",
    [
        # 9 ends outputs and fills them up.
        ([[5, 6, 9, 9, 9], [5, 7, 6, 9, 9], [5, 6, 7, 8, 6]], [3, 4, 5], [True, True, False]),
        # 9 ends outputs, 0 fills them up.
        ([[5, 6, 9, 0, 0], [7, 5, 6, 9, 0], [5, 6, 7, 8, 6]], [3, 4, 5], [True, True, False]),
        # Nothing is filled up.
        ([[5, 6, 9], [5, 6, 7, 8, 9], [5, 6, 7, 8, 6]], [3, 5, 5], [True, False, False]),
    ],
)
def test_outputs_that_are_filled_up(tmp_path, generated, lengths, finished):
    (row,) = pq.read_table(LIGHTEVAL / "word_problems.parquet").slice(0, 1).to_pylist()
    rows = []
    for tokens in generated:
        response = row["model_response"] | {"output_tokens": [tokens]}
        rows.append(row | {"model_response": response, "doc": row["doc"] | {"generation_size": 5}})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "details.parquet")
    read = list(read_outputs(str(tmp_path / "details.parquet")).read())
    assert [output.n_tokens for output in read] == lengths
    assert [output.finished for output in read] == finished


def test_a_text_that_repeats_itself_was_not_filled_up(tmp_path):
    (row,) = pq.read_table(LIGHTEVAL / "word_problems.parquet").slice(0, 1).to_pylist()
    response = row["model_response"] | {"text": ["It is 0.333"], "output_tokens": [[5, 6, 7, 3, 3, 3]]}
    pq.write_table(pa.Table.from_pylist([row | {"model_response": response}]), tmp_path / "details.parquet")
    (output,) = read(tmp_path / "details.parquet")
    assert output.n_tokens == 6


def test_reasoning_that_a_server_kept_apart_is_part_of_the_output(tmp_path):
    (row,) = pq.read_table(LIGHTEVAL / "word_problems.parquet").slice(0, 1).to_pylist()
    apart = {"text": ["The answer is 5."], "reasonings": ["2 + 3 = 5."], "output_tokens": []}
    pq.write_table(
        pa.Table.from_pylist([row | {"model_response": row["model_response"] | apart}]), tmp_path / "details.parquet"
    )
    (output,) = read(tmp_path / "details.parquet")
    assert output.output == ROW["output"] and output.n_tokens is None and output.limit == 290


def test_details_without_generated_text_are_refused(tmp_path):
    (row,) = pq.read_table(LIGHTEVAL / "word_problems.parquet").slice(0, 1).to_pylist()
    silent = row | {"model_response": row["model_response"] | {"text": []}}
    pq.write_table(pa.Table.from_pylist([silent]), tmp_path / "details.parquet")
    with pytest.raises(DRPError, match="row 1 has no generated text"):
        read(tmp_path / "details.parquet")
    unknown = row | {"doc": row["doc"] | {"gold_index": 3}}
    pq.write_table(pa.Table.from_pylist([unknown]), tmp_path / "details.parquet")
    with pytest.raises(DRPError, match="row 1 has no gold answer"):
        read(tmp_path / "details.parquet")


# ------------------------------------------------------------------------------------------------------ plain rows


def test_plain_rows(tmp_path):
    known = {"n_tokens": 9, "finished": True, "sample": 2, "benchmark": "sums", "model": "m"}
    outputs = read_outputs(write(tmp_path / "t.jsonl", ROW | known, ROW | {"model": "m", "answer": 5}))
    first, second = outputs.read()
    assert outputs.model == "m"
    assert (first.benchmark, first.sample, first.n_tokens, first.finished) == ("sums", 2, 9, True)
    assert (second.benchmark, second.sample, second.n_tokens, second.finished) == (None, None, None, None)
    assert first.golds == second.golds == ("5",)
    assert second.where == f"{tmp_path / 't.jsonl'} row 2"


def test_reasoning_and_response_make_an_output(tmp_path):
    row = {"question": "2 + 3?", "answer": "5", "reasoning": "2 + 3 = 5.", "response": "The answer is 5."}
    (output,) = read(write(tmp_path / "t.jsonl", row))
    assert output.output == ROW["output"]


def test_parquet_and_data_set_folders_hold_the_same(tmp_path):
    rows = [ROW | {"n_tokens": 9, "extra": [1]}, ROW | {"n_tokens": None, "extra": []}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    for split in ("gsm8k", "svamp"):
        write(folder / f"{split}.jsonl", *rows)
    files = "".join(f"\n  - split: {split}\n    path: {split}.jsonl" for split in ("gsm8k", "svamp"))
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:{files}\n---\n")
    of_parquet, of_folder = read(tmp_path / "t.parquet"), read(folder)
    assert [output.n_tokens for output in of_parquet] == [9, None]
    assert [output.benchmark for output in of_folder] == ["gsm8k", "gsm8k", "svamp", "svamp"]
    assert {output.output for output in of_parquet + of_folder} == {ROW["output"]}


def test_whole_numbers_may_be_written_with_a_point_and_half_a_surrogate_pair_is_replaced(tmp_path):
    (output,) = read(write(tmp_path / "t.jsonl", ROW | {"n_tokens": 9.0, "output": "half \ud83d of one"}))
    assert output.n_tokens == 9 and output.output == "half ? of one"


@pytest.mark.parametrize(
    "broken, message",
    [
        ("{not JSON", r"t\.jsonl row 2 is not JSON"),
        ("[1, 2]", r"t\.jsonl row 2 is not a JSON object but a list"),
        ({"question": "2 + 3?", "answer": "5"}, r"row 2 has no field 'output', only question, answer"),
        ({"question": "2 + 3?", "output": "5"}, r"row 2 has no field 'answer'"),
        (ROW | {"question": "  "}, r"row 2: the field 'question' is empty"),
        (ROW | {"answer": []}, r"row 2: the field 'answer' is empty"),
        *((ROW | {"answer": none}, r"row 2: the field 'answer' is empty") for none in ("", None, float("nan"))),
        (
            ROW | {"answer": {"value": 5}},
            r"row 2: the field 'answer' holds \{'value': 5\}, it must be a text or a num",
        ),
        (ROW | {"output": None}, r"row 2: the field 'output' holds None, it must be text"),
        (ROW | {"n_tokens": "9"}, r"row 2: the field 'n_tokens' holds '9', it must be a whole number"),
        (ROW | {"n_tokens": -1}, r"row 2: the field 'n_tokens' holds -1, it must not be negative"),
        (ROW | {"n_tokens": True}, r"row 2: the field 'n_tokens' holds True, it must be a whole number"),
        (ROW | {"finished": "yes"}, r"row 2: the field 'finished' holds 'yes', it must be true or false"),
        (ROW | {"model": "other"}, r"row 2 is of the model 'other' and row 1 of 'm'"),
    ],
)
def test_a_broken_row_is_named(tmp_path, broken, message):
    with pytest.raises(DRPError, match=message):
        read(write(tmp_path / "t.jsonl", ROW | {"model": "m"}, broken))


def test_what_holds_no_outputs_is_named(tmp_path):
    with pytest.raises(DRPError, match="has no column 'answer' and no column 'output'; it has question"):
        read_outputs(write(tmp_path / "t.jsonl", {"question": "2 + 3?", "reasoning": "5"}))
    with pytest.raises(DRPError, match="is empty"):
        read_outputs(write(tmp_path / "t.jsonl"))
    with pytest.raises(DRPError, match="does not exist"):
        read_outputs(str(tmp_path / "none.jsonl"))


def test_golds_are_bare():
    assert bare_golds(["18", 18, 18.0, "18.0", 18.5], "f row 1", "answer") == ("18", "18.5")
    assert bare_golds(["57,500", r"\boxed{57,500}", "So 57,500\n#### 57,500"], "f row 1", "answer") == ("57500",)
    assert bare_golds("The total is 3.\nTwice that is 6.", "f row 1", "answer") == ("6",)
    assert bare_golds(" Evelyn ", "f row 1", "answer") == ("Evelyn",)
    assert bare_golds("The answer is 48 for six.\nSo 66 in all.\n#### 66", "f row 1", "answer") == ("66",)
    assert bare_golds("The answer is 66.\n#### Step 2", "f row 1", "answer") == ("66",)


@pytest.mark.parametrize(
    "formula",
    [
        "\\begin{pmatrix}\n1 \\\\\n2\n\\end{pmatrix}",
        "A = \\left[\n\\begin{array}{cc}\n1 & 2 \\\\[2pt]\n3 & 4\n\\end{array}\n\\right]",
        "f(x) = \\begin{cases}\nx, & \\text{if } x > 0 \\\\\n-x, & \\text{otherwise}\n\\end{cases}",
        "\\left\\{ \\begin{array}{c}\n1 \\\\\n2\n\\end{array} \\right.",
        "$$\n\\begin{pmatrix} 1 \\\\\n2 \\end{pmatrix}\n$$",
        "\\[\nx + 1\n\\]",
        "[1,\n 2]",
        "[0,\n1)",
        "\\{1,\n2\\}",
        f"\\begin{{bmatrix}} {' & '.join(map(str, range(100)))} \\end{{bmatrix}}",
    ],
)
def test_a_formula_over_several_lines_is_no_solution(formula):
    assert bare_golds(formula, "f row 1", "answer") == (formula,)


@pytest.mark.parametrize(
    "solution",
    [
        "3 * 4 = 12\n12 + 5 = 17",
        "First (3 * 4)\nis [12]: 12 and then\n(as 12 + 5 = 17) it is 17",
        "She has 12 (that is 3 * 4,\nand 5 more: 17",
        "a) 12\nb) 17",
        "\\begin{align*}\nx &= 12 + 5 \\\\\n&= 17\n\\end{align*}",
        "\\[\n12\n\\]\nand 5 more are\n\\[\n17\n\\]",
        "\\[\n3 * 4 = 12 \\\\\n12 + 5 = 17\n\\]",
        "Janet earns $$12\nand $$5, in all 17",
        "She does it again (and again). " * 10 + "So 17",
    ],
)
def test_of_a_solution_that_states_nothing_the_last_number_is_the_answer(solution):
    assert bare_golds(solution, "f row 1", "answer") == ("17",)
