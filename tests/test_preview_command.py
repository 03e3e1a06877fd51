import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trl import ModelConfig

from drp_hf.commands.preview import PreviewArguments, main
from drp_hf.corpus.builder import SAMPLE_DIR
from drp_hf.drp_config import DRPConfig
from drp_hf.embedded import resolve
from drp_hf.errors import DRPError

ROOT = Path(__file__).resolve().parents[1]


def configs(arguments=None, training=None, model="smollm2-embedded"):
    return (
        PreviewArguments(dataset=str(SAMPLE_DIR), **(arguments or {})),
        DRPConfig(report_to="none", **(training or {})),
        ModelConfig(model_name_or_path=model),
    )


def test_a_recipe_of_drp_sft_is_shown_as_it_would_be_trained(tmp_path):
    command = [sys.executable, "-m", "drp_hf.cli", "preview", str(SAMPLE_DIR), "--rows", "1"]
    command += ["--config", "recipes/quickstart/sft.yaml", "--action_weights", '{"KEEP": 0.5}']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "[KEEP ×0.5]" in done.stdout and "[stop ×1]<|im_end|>" in done.stdout
    assert "in the loss" in done.stdout


def test_rows_and_page(tmp_path, capsys):
    page = tmp_path / "pages" / "page.html"
    training = {"loss_scope": "masked-raw", "max_length": 150}
    views = main(*configs({"rows": 20, "first_row": 11, "html": str(page)}, training))
    assert [len(view) for view in views] == [150, 150]  # the sample has 12 rows
    assert page.read_text().count("<h2>") == 2 and "2 rows are in" in capsys.readouterr().out


def test_settings_of_the_tokenizer_count(tmp_path):
    template = tmp_path / "short.jinja"
    template.write_text("{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}")
    (view,) = main(*configs({"rows": 1}, {"chat_template_path": str(template), "eos_token": "<|im_end|>"}))
    assert "".join(token.text for token in view).startswith("A bakery sells") and view[-1].text == "<|im_end|>"


def test_an_adapter_s_own_template_counts(tmp_path):
    """Also one that lies in its folder without a tokenizer."""
    adapter = shutil.copytree(resolve("quickstart-reasoner"), tmp_path / "adapter")
    (adapter / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}")
    (view,) = main(*configs({"rows": 1}, model=str(adapter)))
    assert "".join(token.text for token in view).startswith("A bakery sells")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arguments": {"rows": 0}}, "rows and first_row must be at least 1"),
        ({"arguments": {"first_row": 13}}, "first_row is 13, but"),
        ({"arguments": {"first_row": 2, "dataset_config": "masked-raw"}}, f"Row 2 of {SAMPLE_DIR} has a step with"),
        ({"model": None}, "Give the student as model_name_or_path"),
        ({"model": "./nosuch"}, "No model found under './nosuch'"),
    ],
)
def test_mistakes(changes, message):
    with pytest.raises(DRPError) as error:
        main(*configs(**changes))
    assert message in str(error.value) and "\n" not in str(error.value)
