"""A published student, served by vLLM by its name on the Hub: run with `pytest -m vllm`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import drp_hf.corpus
from benchmarks.teachers_vllm import served
from drp_hf.engines import Sampling, make_engine
from drp_hf.problems import generate
from tests.conftest import COMMANDS
from tests.loopback_hub import LoopbackHub

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

SAMPLE = Path(drp_hf.corpus.__path__[0]) / "sample"
REPOSITORY = "drp_hf/student"


def test_vllm_serves_a_published_student_by_its_name(tmp_path):
    student = str(tmp_path / "student")
    settings = {
        "model_name_or_path": "quickstart-reasoner",
        "output_dir": student,
        "use_peft": True,
        "lora_target_modules": "all-linear",
        "max_steps": 2,
        "learning_rate": 1e-3,
        "bf16": False,
        "report_to": "none",
    }
    flags = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    commands = [["sft", str(SAMPLE), *flags], ["push", "student", student, "--repo-id", REPOSITORY]]
    questions = [problem.question for problem in generate(4, "test")]
    with LoopbackHub() as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "hf")}
        subprocess.run([sys.executable, "-c", COMMANDS, json.dumps(commands)], check=True, env=environment)
        as_published = ["--model", REPOSITORY, "--served-model-name", REPOSITORY, "--max-model-len", "1024"]
        with served(*as_published, "--dtype", "float32", environment=environment) as url:
            server = make_engine("server", REPOSITORY, base_url=url, tokenizer=student, context_length=1024)
            answers = dict(server.generate(questions, Sampling(64)))
    local = make_engine("transformers", student, dtype="float32")
    assert answers == dict(local.generate(questions, Sampling(64)))
    assert all("<think>" in answer.text for answer in answers.values())
