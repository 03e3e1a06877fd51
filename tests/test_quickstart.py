import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from drp_hf.commands import quickstart
from drp_hf.commands.quickstart import QuickstartConfig, train_student

ROOT = Path(__file__).resolve().parents[1]


class Steps(TrainerCallback):
    """Notes the steps that are trained, and stops after one of them as Ctrl-C does."""

    def __init__(self):
        self.done, self.stop_at = [], None

    def on_step_end(self, args, state, control, **kwargs):
        self.done.append(state.global_step)
        if state.global_step == self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture
def train(student, tmp_path, monkeypatch):
    """Trains the quickstart's student, of a tiny reasoner that wrote the sample traces; returns the steps taken."""
    make_trainer, settings, steps = quickstart.sft.make_trainer, quickstart.settings, Steps()

    def noted(*arguments):
        trainer = make_trainer(*arguments)
        trainer.add_callback(steps)
        return trainer

    def of_few_steps(types, stage, **overrides):
        return settings(types, stage, **overrides, **({"save_steps": 2} if stage == "sft" else {}))

    def run(folder, stop_at=None, seed=0):
        steps.done, steps.stop_at = [], stop_at
        try:
            train_student(QuickstartConfig(str(folder), seed), folder / "train.jsonl")
        except KeyboardInterrupt:
            assert stop_at is not None
        return steps.done

    monkeypatch.setattr(quickstart, "REASONER", str(student))
    monkeypatch.setattr(quickstart, "settings", of_few_steps)
    monkeypatch.setattr(quickstart.sft, "make_trainer", noted)
    traces = ROOT / "recipes" / "quickstart" / "sample_traces.jsonl"
    monkeypatch.setattr(quickstart.rollout, "main", lambda config: traces)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return run


def weights(folder):
    return load_file(folder / "student" / "adapter_model.safetensors")


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_training_is_kept_and_a_stopped_one_goes_on(train, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    every_step = train(whole)
    assert every_step[:5] == [1, 2, 3, 4, 5] and len(every_step) > 5
    assert train(parts, stop_at=5) == [1, 2, 3, 4, 5]
    assert train(parts) == every_step[4:]  # from the last checkpoint
    assert equal(weights(parts), weights(whole))
    capsys.readouterr()
    assert train(parts) == []
    assert f"{parts / 'student'}: the student is there already, trained with the same" in capsys.readouterr().err


def test_another_training_begins_anew(train, tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    every_step = train(whole, seed=1)
    train(again)
    assert train(again, stop_at=1, seed=1) == [1]  # before its first checkpoint
    assert train(again, seed=1) == every_step
    assert equal(weights(again), weights(whole))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_pipeline_runs_and_goes_on_where_it_stopped(tmp_path):
    command = [sys.executable, "-m", "drp_hf.cli", "quickstart", "--output_dir", str(tmp_path / "run")]
    command += ["--train_problems", "16", "--test_problems", "8"]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr[-2000:]
    results = json.loads((tmp_path / "run" / "after" / "results.json").read_text())
    figures = results["benchmarks"]["test"]
    assert figures["n_questions"] == 8 and figures["token_reduction"] is not None
    assert set(figures["hca"]) == {"64", "128", "256"}
    assert "tokens saved" in first.stdout
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000

    traces = (tmp_path / "run" / "rollout" / "traces.jsonl").read_bytes()
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr[-2000:]
    assert "16 of 16 answers are there already" in second.stderr
    assert "the student is there already" in second.stderr
    assert second.stderr.count("8 of 8 answers are there already") == 2  # the reasoner's and the student's
    assert (tmp_path / "run" / "rollout" / "traces.jsonl").read_bytes() == traces

    released = subprocess.run([*command, "--student", "released"], capture_output=True, text=True)
    assert released.returncode == 0, released.stderr[-2000:]
    assert "8 of 8 answers are there already" in released.stderr  # the reasoner's
    assert "trained with the prompt" not in released.stderr  # it is asked as it was trained
    figures = json.loads((tmp_path / "run" / "released" / "results.json").read_text())["benchmarks"]["test"]
    assert figures["token_reduction"] > 0.5
    assert (tmp_path / "run" / "released.html").stat().st_size > 10_000
