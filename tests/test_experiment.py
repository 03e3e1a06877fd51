"""Experiments: their stages fit together and run, and a plan is what was measured times what there is to do."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import HfApi, constants
from trl import ModelConfig

from benchmarks.chat_server import ChatServer
from benchmarks.rule_teacher import answer
from drp_hf.commands import prune, sft
from drp_hf.commands.parsing import parse
from drp_hf.drp_config import DRPConfig
from drp_hf.errors import DRPError
from drp_hf.problems import generate
from drp_hf.provenance import write_run_info
from drp_hf.store import RowStore
from drp_hf.teacher import Reply, Request
from drp_hf.teachers.asking import Replies, Tally
from recipes.experiment.__main__ import (
    ExperimentConfig,
    check,
    check_answered,
    main,
    share,
    training_launcher,
)
from recipes.experiment.plan import plan
from recipes.experiment.stages import read_settings, training_figures
from tests.loopback_hub import LoopbackHub

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("rollout", "prune", "sft", "evaluate")
FOLDERS = sorted(
    file.parent for file in (ROOT / "recipes").glob("gsm8k_*/rollout.yaml") if (file.parent / "evaluate.yaml").exists()
)


def settings_of(folder: Path) -> dict[str, dict]:
    return {stage: read_settings(folder / f"{stage}.yaml") for stage in STAGES}


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("gpus", [1, 8])
def test_the_stages_of_every_experiment_fit_together(folder, gpus):
    settings = settings_of(folder)
    check(ExperimentConfig(str(folder), gpus=gpus), settings)
    one = settings["sft"]
    each = share(one, gpus)
    rows = one["per_device_train_batch_size"] * one["gradient_accumulation_steps"]
    assert gpus * each["per_device_train_batch_size"] * each["gradient_accumulation_steps"] == rows


def test_what_does_not_fit_is_refused(tmp_path):
    settings = settings_of(FOLDERS[0])
    with pytest.raises(DRPError, match="A step of 8 rows cannot be divided among 3 GPUs"):
        check(ExperimentConfig("it", gpus=3), settings)
    with pytest.raises(DRPError, match="pilot is 0"):
        check(ExperimentConfig("it", pilot=0), settings)
    settings["sft"]["dataset"] = "elsewhere"
    with pytest.raises(DRPError, match=r"it/sft.yaml has dataset 'elsewhere', but prune.yaml makes 'runs/"):
        check(ExperimentConfig("it"), settings)
    with pytest.raises(DRPError, match=r"There is no .*rollout.yaml"):
        read_settings(tmp_path / "rollout.yaml")
    for text, message in (("# none yet", "holds no settings"), ("model: [", "is not YAML")):
        (tmp_path / "rollout.yaml").write_text(text)
        with pytest.raises(DRPError, match=f"rollout.yaml {message}"):
            read_settings(tmp_path / "rollout.yaml")


CHILD = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("ended", flush=True)))
print("begun", flush=True)
time.sleep(600)
"""
PARENT = f"""
import sys
from pathlib import Path
from drp_hf.commands.parsing import run
from recipes.experiment.stages import run_stage
run(run_stage, "sft", {{}}, Path(sys.argv[1]), (sys.executable, "-c", {CHILD!r}))
"""


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_an_experiment_alone_ends_its_stage_too(sent, status, tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "sft.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    try:
        assert parent.stdout.readline() == "begun\n"
        parent.send_signal(sent)
        assert parent.wait() == status
        assert parent.stdout.readline() == "ended\n", "the stage was waited for"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)  # whatever is left of both
        parent.stdout.close()


@pytest.mark.parametrize(("stage", "name"), [("rollout", "output_dir"), ("prune", "traces"), ("evaluate", "model")])
def test_what_a_file_lacks_is_named(stage, name):
    settings = settings_of(FOLDERS[0])
    del settings[stage][name]
    with pytest.raises(DRPError, match=f"it/{stage}.yaml has no {name}: an experiment needs it there"):
        check(ExperimentConfig("it"), settings)


def test_a_key_that_is_lacking_is_missed_at_once(monkeypatch):
    settings = settings_of(ROOT / "recipes" / "gsm8k_r1_distill_qwen_7b")
    check(ExperimentConfig("it"), settings)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(DRPError, match="there is no key"):
        check(ExperimentConfig("it"), settings)


@pytest.fixture
def hub(monkeypatch):
    with LoopbackHub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


def test_a_hub_that_would_take_nothing_is_noticed_before_anything_is_made(hub, tmp_path, monkeypatch):
    folder = shutil.copytree(FOLDERS[0], tmp_path / "sums")
    settings = settings_of(folder)
    config = ExperimentConfig(str(folder), push_to="me")
    check(config, settings)
    assert hub.repository("me/sums_pruned", "dataset").private
    assert hub.repository("me/sums", "model").private

    HfApi(endpoint=hub.url, token=hub.token).create_repo("me/all", private=False)
    (folder / "push_student.yaml").write_text("repo_id: me/all")
    with pytest.raises(DRPError, match="me/all is public, so that everybody would see"):
        check(config, settings)
    (folder / "push_student.yaml").write_text("repo_id: me/all\npublic: true")
    check(config, settings)

    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(DRPError, match="the Hub does not let you write to me/sums_pruned"):
        check(config, settings)
    check(ExperimentConfig(str(folder), push_to="me", plan=True), settings)  # which publishes nothing


def test_the_training_gets_the_devices_that_are_asked_for(monkeypatch):
    def seen(gpus: int) -> str:
        code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
        command = [word for word in training_launcher(gpus) if word != "-m"]
        return subprocess.run([*command, "-c", code], capture_output=True, text=True).stdout.strip()

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert seen(1) == "0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert seen(1) == "3"
    launcher = training_launcher(8)
    assert launcher[launcher.index("--num_processes") + 1] == "8"
    assert yaml.safe_load(Path(launcher[launcher.index("--config_file") + 1]).read_text())["num_machines"] == 1


def test_given_up_requests_are_asked_again_as_long_as_any_is_answered(tmp_path):
    def check_made(**measured: float) -> None:
        made = {"config": {"model": "rule"}, "measured": measured}
        (tmp_path / "run.json").write_text(json.dumps(made))
        check_answered(tmp_path)

    def answer_by(model: str) -> None:
        with RowStore(tmp_path / prune.REPLIES) as store:
            Replies(store, model, Tally()).put((Request(["Hi"], None, 9), Reply("Hello", "stop", 1, 1)))

    check_made(unanswered=0, output_tokens=0)
    answer_by("another")
    with pytest.raises(DRPError, match="the teacher has answered nothing"):
        check_made(unanswered=3, output_tokens=0)
    answer_by("rule")
    with pytest.raises(DRPError, match="3 requests to the teacher were given up"):
        check_made(unanswered=3, output_tokens=900)
    check_made(unanswered=0, output_tokens=900)
    check_made(unanswered=3, output_tokens=0)


def test_the_quickstarts_folder_is_no_experiment():
    message = "recipes/quickstart/rollout.yaml has no problems and no model and no output_dir"
    with pytest.raises(DRPError, match=message):
        main(ExperimentConfig(str(ROOT / "recipes" / "quickstart"), plan=True))


# ------------------------------------------------------------------------------------------------ what is trained


@pytest.fixture
def experiment(student, tmp_path, monkeypatch):
    """A tiny experiment, whose prune and sft run as they are, in this process; `stages` are those that were run."""
    run = tmp_path / "runs"
    traces, corpus, trained = run / "rollout" / "traces.jsonl", run / "corpus", run / "student"
    small = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "max_length": 2048}
    settings = {
        "rollout": {"problems": "p", "model": str(student), "output_dir": str(traces.parent)},
        "prune": {"traces": str(traces), "output_dir": str(corpus)},
        "sft": {"dataset": str(corpus), "model_name_or_path": str(student), "output_dir": str(trained), **small},
        "evaluate": {"benchmarks": ["b"], "model": str(trained), "output_dir": str(run / "after")},
    }
    settings["sft"] |= {"max_steps": 2, "save_steps": 1, "learning_rate": 1e-3}
    commands = {
        "prune": (prune.main, prune.PruneConfig),
        "sft": (sft.main, (sft.SFTArguments, DRPConfig, ModelConfig)),
    }
    stages = []

    def run_stage(stage, values, config, launcher=None):
        stages.append(stage)
        if stage == "rollout":
            traces.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "recipes" / "quickstart" / "sample_traces.jsonl", traces)
        elif stage in commands:
            command, types = commands[stage]
            config.parent.mkdir(exist_ok=True)
            config.write_text(yaml.safe_dump(values))
            parsed = parse(types, ["--config", str(config)])
            command(*parsed) if isinstance(parsed, tuple) else command(parsed)

    def again(**changes):
        stages.clear()
        for stage, values in settings.items():
            (tmp_path / f"{stage}.yaml").write_text(yaml.safe_dump(values | changes.get(stage, {})))
        main(ExperimentConfig(str(tmp_path)))
        return stages

    monkeypatch.setattr("recipes.experiment.__main__.run_stage", run_stage)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return SimpleNamespace(again=again, stages=stages, student=trained)


def test_a_finished_student_is_kept_where_it_would_be_trained_alike(experiment, capsys):
    assert experiment.again() == ["rollout", "prune", "sft", "evaluate", "evaluate"]
    capsys.readouterr()
    assert experiment.again() == ["rollout", "prune", "evaluate", "evaluate"]
    kept = f"{experiment.student}: the student is there already, trained with the same settings on the same corpus"
    assert kept in capsys.readouterr().err
    # What is logged and saved is not what is learnt; and the rows of a step may be divided otherwise.
    alike = {"logging_steps": 3, "save_steps": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    assert "sft" not in experiment.again(sft=alike)
    run = json.loads((experiment.student / "run.json").read_text())
    run["config"]["devices"], run["config"]["training"]["per_device_train_batch_size"] = 2, 4
    (experiment.student / "run.json").write_text(json.dumps(run))
    assert "sft" not in experiment.again()


OTHERWISE = [
    {"sft": {"learning_rate": 1e-4}},
    {"sft": {"seed": 1}},  # of which the file says nothing
    {"sft": {"per_device_train_batch_size": 4}},
    {"prune": {"strength": "hard"}},
]


def test_a_student_that_was_trained_otherwise_is_no_result(experiment):
    message = f"^{experiment.student} was trained with other settings or on another corpus: delete it or give another"
    experiment.again()
    for changes in OTHERWISE:
        with pytest.raises(DRPError, match=message):
            experiment.again(**changes)
        assert experiment.stages == ["rollout", "prune"]
    assert "sft" not in experiment.again()

    (experiment.student / "trainer_state.json").unlink()  # it was stopped, and has a checkpoint
    with pytest.raises(DRPError, match=message):
        experiment.again(**OTHERWISE[0])
    assert "sft" in experiment.again()
    shutil.rmtree(experiment.student)
    assert "sft" in experiment.again(**OTHERWISE[0])


# ---------------------------------------------------------------------------------------------------------- plan


def write_problems(path: Path, count: int, split: str = "test") -> str:
    rows = [{"question": problem.question, "answer": problem.answer} for problem in generate(count, split)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_plan_is_what_was_measured_times_what_there_is_to_do(tmp_path):
    def run(name: str, measured: dict) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"measured": measured}))
        return str(tmp_path / name)

    settings = {
        "rollout": {
            "problems": write_problems(tmp_path / "train.jsonl", 100, "train"),
            "samples": 2,
            "output_dir": run("rollout", {"answers": 10, "tokens": 3000, "seconds": 6}),
        },
        "prune": {
            "output_dir": run("corpus", {"rows": 10, "input_tokens": 9000, "output_tokens": 1000, "seconds": 5}),
            "price_input": 2.0,
            "price_output": 10.0,
        },
        "evaluate": {"benchmarks": [write_problems(tmp_path / "heldout.jsonl", 50)], "samples": 4},
    }
    student, before = tmp_path / "student", tmp_path / "before"
    student.mkdir()
    log = [{"loss": 1.0, "num_tokens": 4000}, {"train_runtime": 8.0}]
    (student / "trainer_state.json").write_text(json.dumps({"global_step": 5, "log_history": log}))
    run("before", {"answers": 8, "tokens": 1600, "seconds": 2})
    scores = {
        "correct": True,
        "extracted": "1",
        "think_tokens": 9,
        "finished": True,
        "new_tokens": 1,
        "reflections": 0,
    }
    scores |= {"new_tokens": 1, "reflections": 0, "answer_at": None, "first_correct": None}
    row = {"benchmark": "heldout", "question": "?", "answer": "1", "output": "1", "n_tokens": 200, **scores}
    rows = [row | {"sample": sample} for sample in range(4)]
    (before / "answers.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    (before / "results.json").write_text(json.dumps({"model": "m", "max_tokens": 640, "benchmarks": {}}))

    rollout, prune, sft, evaluate = plan(settings, 5, before, student)
    # 100 questions, 2 samples, 300 tokens each, 500 tokens a second.
    assert (rollout.tokens, rollout.rate, rollout.seconds) == (60_000, 500, 120)
    # 200 traces, each 900 tokens to read and 100 to write, half a second.
    assert (prune.tokens, prune.seconds) == (20_000, 100)
    assert prune.cost == pytest.approx((180_000 * 2 + 20_000 * 10) / 1e6)
    assert (sft.tokens, sft.rate, sft.seconds) == (80_000, 500, 160)
    # 50 questions, 4 samples, before and after, 200 tokens each, 800 tokens a second.
    assert (evaluate.tokens, evaluate.rate, evaluate.seconds) == (80_000, 800, 100)

    run_json = before / "run.json"
    run_json.write_text(json.dumps({"measured": {"answers": 0, "tokens": 0, "seconds": 0.0}}))
    with pytest.raises(DRPError, match="before was there already"):
        plan(settings, 5, before, student)


def test_a_run_that_found_everything_there_keeps_what_was_measured(tmp_path):
    def measured(answers: int, model: str = "m") -> dict:
        made = {"answers": answers, "tokens": 9 * answers, "seconds": 1.5 if answers else 0.1}
        write_run_info(tmp_path, "rollout", ExperimentConfig(model), measured=made)
        return json.loads((tmp_path / "run.json").read_text())["measured"]

    assert measured(0) == {"answers": 0, "tokens": 0, "seconds": 0.1}
    assert measured(7) == measured(0) == measured(0) == {"answers": 7, "tokens": 63, "seconds": 1.5}
    assert measured(2)["answers"] == 2
    assert measured(0, "another model")["answers"] == 0
    (tmp_path / "run.json").write_text('{"stage": "roll')
    assert measured(0)["answers"] == 0


def test_the_figures_of_a_resumed_training_are_those_of_all_its_runs(tmp_path):
    # 500 tokens before the first stop, 300 of a second run, 200 in the last, which took 4 seconds.
    counts = [250, 500, 300, 100, 200]
    log = [{"num_tokens": count} for count in counts] + [{"num_tokens": 200, "train_runtime": 4.0}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"global_step": 10, "log_history": log}))
    assert training_figures(tmp_path) == {"steps": 10, "tokens": 1000, "seconds": 20.0}


# ---------------------------------------------------------------------------------------------------- everything

SMALL = {
    "rollout": {
        "split": None,
        "model": "quickstart-reasoner",
        "max_tokens": 400,
        "temperature": 0.0,
        "engine": "transformers",
    },
    "prune": {"model": "rule", "tokenizer": "smollm2-embedded"},
    "sft": {
        "model_name_or_path": "quickstart-reasoner",
        "dtype": "float32",
        "bf16": False,
        "num_train_epochs": 1,
        "logging_steps": 1,
    },
    "evaluate": {"max_tokens": 400, "samples": 2, "engine": "transformers"},
}
"""What a CPU without a Hub needs; everything else is as in the recipe."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["gsm8k_r1_distill_qwen_7b", "gsm8k_r1_distill_qwen_1_5b"])
def test_every_stage_of_the_papers_experiment_runs(name, tmp_path):
    settings = settings_of(ROOT / "recipes" / name)
    with ChatServer(answer) as server:
        small = {stage: {**settings[stage], **SMALL[stage]} for stage in STAGES}
        small["rollout"]["problems"] = write_problems(tmp_path / "train.jsonl", 40, "train")
        small["prune"]["base_url"] = server.url
        small["evaluate"]["benchmarks"] = [write_problems(tmp_path / f"{test}.jsonl", 3) for test in ("one", "two")]
        folder = tmp_path / name
        folder.mkdir()
        for stage, values in small.items():
            (folder / f"{stage}.yaml").write_text(yaml.safe_dump(values))
        command = [sys.executable, "-m", "recipes.experiment", str(folder), "--plan", "--pilot", "6"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "The whole experiment" in done.stdout
    assert server.completed > 0
    run = tmp_path / "runs" / name
    assert (run / "student-pilot-6" / "adapter_model.safetensors").exists()
    assert set(json.loads((run / "after-pilot-6" / "results.json").read_text())["benchmarks"]) == {"one", "two"}
