import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


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
    assert (tmp_path / "run" / "rollout" / "traces.jsonl").read_bytes() == traces

    released = subprocess.run([*command, "--student", "released"], capture_output=True, text=True)
    assert released.returncode == 0, released.stderr[-2000:]
    assert "8 of 8 answers are there already" in released.stderr  # the reasoner's
    assert "trained with the prompt" not in released.stderr  # it is asked as it was trained
    figures = json.loads((tmp_path / "run" / "released" / "results.json").read_text())["benchmarks"]["test"]
    assert figures["token_reduction"] > 0.5
    assert (tmp_path / "run" / "released.html").stat().st_size > 10_000
