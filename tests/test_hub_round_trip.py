"""What the real commands publish, the real clients load elsewhere: same rows, same answers, same figures."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import drp_hf.corpus
from drp_hf.problems import generate

pytestmark = pytest.mark.slow

SAMPLE = Path(drp_hf.corpus.__path__[0]) / "sample"
VIEWS = ["sft", "steps", "pairs", "raw", "masked-raw"]
# A machine that has never seen this package: it writes what it has loaded to a file.
ELSEWHERE = """
import json, sys
from pathlib import Path

sys.modules["drp_hf"] = None
import evaluate
from datasets import get_dataset_config_names, load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer

questions, views, rows = json.loads(Path(sys.argv[1]).read_text()), get_dataset_config_names("drp_hf/sample"), {}
for view in views:
    rows[view] = load_dataset("drp_hf/sample", view, split="train").to_list()
    rows[view, "streamed"] = list(load_dataset("drp_hf/sample", view, split="train", streaming=True))
default = load_dataset("drp_hf/sample", split="train").to_list()

model = AutoModelForCausalLM.from_pretrained("drp_hf/student")
tokenizer = AutoTokenizer.from_pretrained("drp_hf/student")
answers = []
for question in questions:
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answers.append(model.generate(**prompt, do_sample=False, max_new_tokens=24)[0].tolist())

figures = evaluate.load("drp_hf/token_efficiency").compute(
    predictions=["<think>3 + 4 = 7</think>The answer is 7."], references=["7"], n_tokens=[12]
)
found = {
    "views": views,
    "rows": {view: rows[view] for view in views},
    "streamed": {view: rows[view, "streamed"] for view in views},
    "default": default,
    "answers": answers,
    "accuracy": figures["accuracy"],
}
Path(sys.argv[2]).write_text(json.dumps(found))
"""


def sample_rows(view: str) -> list[dict]:
    return pyarrow.parquet.read_table(SAMPLE / view / "train.parquet").to_pylist()


@pytest.fixture(scope="module")
def questions() -> list[str]:
    return [problem.question for problem in generate(20, "test")]


@pytest.fixture(scope="module")
def elsewhere(published, questions, tmp_path_factory) -> dict:
    """What another machine finds, with caches of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "questions.json").write_text(json.dumps(questions))
    files = [str(folder / "questions.json"), str(folder / "found.json")]
    environment = published.environment | {"HF_HOME": str(folder / "hf")}
    subprocess.run([sys.executable, "-I", "-c", ELSEWHERE, *files], check=True, env=environment, cwd=folder)
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("view", VIEWS)
def test_rows_are_equal(elsewhere, view):
    rows = sample_rows(view)
    assert elsewhere["rows"][view] == rows
    assert elsewhere["streamed"][view] == rows
    assert rows


def test_every_view_is_there_and_sft_is_the_default(elsewhere):
    assert sorted(elsewhere["views"]) == sorted(VIEWS)
    assert elsewhere["default"] == sample_rows("sft")


def test_answers_are_equal(elsewhere, published, questions):
    model = AutoModelForCausalLM.from_pretrained(published.student)
    tokenizer = AutoTokenizer.from_pretrained(published.student)
    answers = []
    for question in questions:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        answers.append(model.generate(**prompt, do_sample=False, max_new_tokens=24)[0].tolist())
    assert len(answers) == 20
    assert elsewhere["answers"] == answers


def test_the_metric_measures(elsewhere):
    assert elsewhere["accuracy"] == 1
