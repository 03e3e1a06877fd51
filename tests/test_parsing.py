"""A mistake in flags or in a YAML file is one sentence."""

import errno
import subprocess
import sys

import pytest

from drp_hf.commands.evaluate import EvaluateConfig
from drp_hf.commands.parsing import parse, parse_and_run, run
from drp_hf.commands.prune import PruneConfig
from drp_hf.drp_config import DRPConfig
from drp_hf.errors import DRPError

GIVEN = ["traces.jsonl", "--output_dir", "corpus"]


def parsed(config, text, tmp_path, *flags):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    return parse(config, [*flags, "--config", str(file)], positional="traces")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("segmentation: skills", "segmentation is 'skills', and must be one of none, plain, skill"),
        ("fallback: none", "fallback is 'none', and must be one of slicing"),
        ("candidates: 2.5", "candidates is 2.5, and must be a whole number"),
        ("candidates: true", "candidates is True, and must be a whole number"),
        ("candidates: two", "candidates is 'two', and must be a whole number"),
        ("candidates: [2]", "candidates is [2], and must be a whole number"),
        ("tokens_per_minute: yes", "tokens_per_minute is True, and must be a number"),
        ("strenght: hard", "has no setting 'strenght': did you mean strength?"),
        ("model: [a", "is not YAML"),
        ("hard", "must contain a YAML mapping"),
    ],
)
def test_what_a_file_says_is_checked(tmp_path, text, said):
    with pytest.raises(DRPError) as error:
        parsed(PruneConfig, text, tmp_path, *GIVEN)
    assert said in str(error.value) and str(tmp_path / "settings.yaml") in str(error.value)


def test_what_a_file_may_say(tmp_path):
    config = parsed(PruneConfig, "fallback: null\ncandidates: '2'\nnll_margin: 1e-2", tmp_path, *GIVEN)
    assert (config.fallback, config.candidates, config.nll_margin) == (None, 2, 0.01)
    config = parsed(PruneConfig, "max_tokens: 1.0e+3\ntimeout: 5\nrequests_per_minute: 0.5", tmp_path, *GIVEN)
    assert (config.max_tokens, config.timeout, config.requests_per_minute) == (1000, 5.0, 0.5)
    assert isinstance(config.max_tokens, int)


def test_settings_of_libraries_are_taken_as_they_take_them(tmp_path):
    text = """
output_dir: o
save_strategy: no
report_to: [none]
eval_steps: 0.1
lr_scheduler_kwargs: {min_lr: 1.0e-6}
learning_rate: 1e-5
save_total_limit: null
max_length: 2048
bf16: false
"""
    config = parsed(DRPConfig, text, tmp_path)
    assert (config.save_strategy, config.report_to, config.eval_steps) == ("no", [], 0.1)
    assert (config.lr_scheduler_kwargs, config.learning_rate) == ({"min_lr": 1e-6}, 1e-5)
    assert (config.save_total_limit, config.max_length) == (None, 2048)
    with pytest.raises(DRPError, match=r"save_total_limit is 2.5, and must be a whole number"):
        parsed(DRPConfig, "output_dir: o\nsave_total_limit: 2.5", tmp_path)
    with pytest.raises(DRPError, match=r"^missing.json cannot be read"):
        parsed(DRPConfig, "output_dir: o\naccelerator_config: missing.json", tmp_path)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "settings.yaml").write_bytes(b"model: \xff")
    with pytest.raises(DRPError, match="settings.yaml is not YAML"):
        parse(PruneConfig, [*GIVEN, "--config", str(tmp_path / "settings.yaml")], positional="traces")


def test_one_value_is_a_list_of_one(tmp_path):
    config = parsed(EvaluateConfig, "model: m\noutput_dir: o\nbenchmarks: gsm8k\nbudgets: 256", tmp_path)
    assert (config.benchmarks, config.budgets) == (["gsm8k"], [256])
    with pytest.raises(DRPError, match="budgets is 'a', and must be a whole number"):
        parsed(EvaluateConfig, "model: m\noutput_dir: o\nbenchmarks: gsm8k\nbudgets: [256, a]", tmp_path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--strenght", "hard"], "There is no setting 'strenght': did you mean strength?"),
        (["--strength", "hrd"], "invalid choice: 'hrd'"),
        (["more.jsonl"], "There is no place for 'more.jsonl'"),
        (["--config"], "--config needs a YAML file after it"),
        (["--config=none.yaml"], "none.yaml cannot be read"),
    ],
)
def test_flags_are_checked(flags, said):
    with pytest.raises(DRPError, match=said.replace("?", r"\?")):
        parse(PruneConfig, [*GIVEN, *flags], positional="traces")


@pytest.mark.parametrize("weights", ["MERGE=0.5", "{MERGE: 0.5}", "[1]"])
def test_weights_are_a_mapping(tmp_path, weights):
    with pytest.raises(DRPError, match="action_weights is .*: give weights by name"):
        DRPConfig(str(tmp_path), action_weights=weights)


def test_weights_may_be_json(tmp_path):
    assert DRPConfig(str(tmp_path), action_weights='{"MERGE": 0.5}').action_weights == {"MERGE": 0.5}


def test_entry_points_tell_a_mistake_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["prune", *GIVEN, "--strenght", "hard"])
    with pytest.raises(SystemExit) as ended:
        parse_and_run(pytest.fail, PruneConfig, "traces")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: There is no setting 'strenght': did you mean strength?\n"


FULL_DISK = """
import resource, sys
from pathlib import Path
from drp_hf.store import write_json_lines
from drp_hf.commands.parsing import run

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
run(write_json_lines, Path(sys.argv[1]), [{"row": number} for number in range(1000)])
"""


def test_a_full_disk_is_told_in_one_sentence_and_gets_its_room_back(tmp_path):
    """A limit on the size of files stands in for it."""
    ended = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path / "rows.jsonl"], capture_output=True, text=True)
    assert ended.returncode == 2
    said = "error: A file cannot be written (File too large): make room, and start the same command again.\n"
    assert ended.stderr == said
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_finds_no_room_is_named(capsys):
    def fail():
        raise OSError(errno.ENOSPC, "No space left on device", "corpus/run.json")

    with pytest.raises(SystemExit):
        run(fail)
    assert "corpus/run.json cannot be written (No space left on device): make room" in capsys.readouterr().err


def test_a_file_that_cannot_be_used_is_a_mistake(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run((tmp_path / "none" / "rows").write_text, "row")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path}/none/rows cannot be used (No such file or directory)")
    with pytest.raises(OSError, match="no file"):
        run(lambda: (_ for _ in ()).throw(OSError("no file at all")))
