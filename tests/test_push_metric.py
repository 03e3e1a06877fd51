import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
from evaluate.loading import get_imports

import drp_hf.metrics.token_efficiency as metric
from drp_hf.errors import DRPError
from drp_hf.hub.metric import metric_publication

SCRIPT = "token_efficiency.py"
# Plain numbers, words, what only math-verify can tell, a wrong and a cut output; a baseline.
CASES = {
    "predictions": [
        "<think>2 + 2 = 4. Wait, yes: 4.</think>The answer is 4.",
        r"<think>So.</think>The answer is $\frac{\sqrt{12}}{4}$.",
        "<think>Mary is older.</think>The answer is Mary.",
        [{"output": "<think>7, or is it", "n_tokens": 90, "finished": False}, {"output": "The answer is 8."}],
    ],
    "references": ["4", r"\frac{\sqrt{3}}{2}", "Mary", "7"],
    "tokenizer": None,
    "baseline_predictions": ["<think>2 + 2 = 4.</think>4", "I do not know.", "It is John.", "The answer is 7."],
    "budgets": [10, 50],
    "bootstrap": {"n_resamples": 100},
}
# What a machine does that has never seen this package; it prints the results.
ELSEWHERE = """
import json, sys
sys.modules["drp_hf"] = None
import evaluate
metric = evaluate.load(sys.argv[1])
print(json.dumps(metric.compute(**json.loads(sys.argv[2]))))
"""


def write(publication, folder: Path) -> Path:
    """The publication as a folder."""
    folder.mkdir(parents=True)
    for name, content in publication.files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return folder


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Path:
    return write(metric_publication("alice/token_efficiency"), tmp_path_factory.mktemp("hub") / "token_efficiency")


@pytest.mark.slow
def test_it_works_where_the_package_is_not_installed(space, student, tmp_path):
    cases = CASES | {"tokenizer": str(student)}
    command = [sys.executable, "-I", "-c", ELSEWHERE, str(space), json.dumps(cases)]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "elsewhere")}
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    here = evaluate.load(metric.__path__[0], cache_dir=str(tmp_path / "here")).compute(**cases)
    assert found == json.loads(json.dumps(here))
    assert here["accuracy"] == 0.75


def test_nothing_of_the_package_is_imported(space):
    for path in space.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [name for name in names if name.split(".")[0] == "drp_hf"], path.name


def test_evaluate_downloads_every_module_and_asks_for_what_pip_installs(space):
    imports = get_imports(str(space / SCRIPT))
    internal = {path for kind, name, path, _ in imports if kind == "internal"}
    assert {f"{name}.py" for name in internal} == {path.name for path in space.glob("drp_*.py")}
    assert {kind for kind, *_ in imports} == {"internal", "library"}
    assert "math_verify" in {name for kind, name, *_ in imports if kind == "library"}


def test_no_module_hides_one_of_pythons_own(space):
    assert not {path.stem for path in space.glob("*.py")} & sys.stdlib_module_names


def test_the_examples_load_what_is_published(space):
    for name in (SCRIPT, "README.md"):
        text = (space / name).read_text()
        assert 'evaluate.load("alice/token_efficiency"' in text and "drp_hf/token_efficiency" not in text


@pytest.mark.parametrize("repo_id", ["token_efficiency", "alice/tokens"])
def test_a_name_under_which_evaluate_finds_nothing_is_refused(repo_id):
    with pytest.raises(DRPError, match=f"repo_id is '{repo_id}'.*so call it .*/token_efficiency"):
        metric_publication(repo_id)
