"""The chat teacher against a real server on loopback: polite, durable, discreet."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.chat_server import ChatServer, Refusal
from benchmarks.rule_teacher import answer
from benchmarks.teachers import write_traces
from benchmarks.teachers_faults import contents, measure
from drp_hf import servers
from drp_hf.commands import prune
from drp_hf.commands.prune import REPLIES, PruneConfig, main
from drp_hf.errors import DRPError
from drp_hf.problems import generate
from drp_hf.store import RowStore
from drp_hf.teachers import batch as batch_module
from drp_hf.teachers.batch import BatchAsker
from drp_hf.verbose_traces import verbose_trace

KEY = "sk-secret-0123456789abcdef"


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(servers, "FIRST_DELAY", 0.01)


@pytest.fixture
def traces(tmp_path) -> Path:
    path = tmp_path / "traces.jsonl"
    rows = [json.dumps(asdict(verbose_trace(problem))) for problem in generate(12, "train", 3)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def config(traces: Path, server: ChatServer | None, folder: str = "corpus", **settings) -> PruneConfig:
    url = server.url if server else None
    return PruneConfig(
        str(traces), str(traces.parent / folder), teacher="chat", model="rule", base_url=url, **settings
    )


def raw(traces: Path, folder: str = "corpus") -> list[dict]:
    return pq.read_table(traces.parent / folder / "raw" / "train.parquet").to_pylist()


def sound(traces: Path) -> list[dict]:
    """The rows that a sound server gives."""
    with ChatServer(answer) as server:
        main(config(traces, server, "sound"))
    return raw(traces, "sound")


class Stopped(BaseException):
    """As if the process had ended here."""


def stop(seconds: float) -> None:
    raise Stopped


# ------------------------------------------------------------------------------------------------- going on


def test_every_reply_is_on_disk_and_nothing_is_asked_twice(traces):
    with ChatServer(answer) as server:
        main(config(traces, server))
        first = contents(traces.parent / "corpus")
        main(config(traces, server))
    assert server.completed == 12
    assert contents(traces.parent / "corpus") == first
    with RowStore(traces.parent / "corpus" / REPLIES) as store:
        kept = [store.get(key) for key in store]
    assert len(kept) == 12
    assert all(row["request"]["messages"][1]["role"] == "user" and row["reply"]["output_tokens"] for row in kept)


def test_new_code_makes_the_rows_again_without_asking(traces, monkeypatch):
    with ChatServer(answer) as server:
        main(config(traces, server))
        monkeypatch.setattr(prune, "deciding_code", lambda: ["another version"])
        main(config(traces, server))
    assert server.completed == 12


def test_another_strength_is_asked_anew(traces):
    with ChatServer(answer) as server:
        main(config(traces, server))
        main(config(traces, server, strength="hard"))
    assert server.completed == 24
    assert {row["teacher"] for row in raw(traces)} == {"rule (compact-v1, hard)"}


def test_equal_traces_are_asked_once(traces):
    traces.write_text(traces.read_text(encoding="utf-8") * 2, encoding="utf-8")
    with ChatServer(answer) as server:
        main(config(traces, server))
    assert server.attempts == 12
    assert len(raw(traces)) == 24


@pytest.mark.parametrize("faults", [("429", "500", "503", "drop", "cut", "malformed"), ("twice",), ("garbled",)])
def test_faults_change_nothing(traces, faults):
    expected = sound(traces)
    with ChatServer(answer, fault_rate=0.5, faults=faults, seed=1) as server:
        main(config(traces, server, max_attempts=30))
    assert server.outcomes.total() > 12 or faults == ("twice",)
    assert raw(traces) == expected
    assert server.asked_after_completion == 0 or faults == ("garbled",)


def test_a_reply_that_broke_off_is_asked_for_again(traces):
    expected = sound(traces)
    asked = set()

    def overloaded(body: dict) -> str | tuple[str, str]:
        text = answer(body)
        if (key := json.dumps(body)) in asked:
            return text, "eos"
        asked.add(key)
        return text[: len(text) // 2], "insufficient_system_resource"

    with ChatServer(overloaded) as server:
        main(config(traces, server))
        assert server.attempts == 2 * len(expected)
    assert raw(traces) == expected
    with RowStore(traces.parent / "corpus" / REPLIES) as store:
        assert {store.get(key)["reply"]["finish_reason"] for key in store} == {"stop"}


def test_what_is_in_batches_under_way_is_not_asked_in_a_chat_too(traces, monkeypatch):
    with ChatServer(answer, batch_polls=3) as server:
        in_chat = config(traces, server)
        in_batches = replace(in_chat, teacher="batch", poll_seconds=0.001)
        with monkeypatch.context() as patched, pytest.raises(Stopped):
            patched.setattr(batch_module.time, "sleep", stop)
            main(in_batches)
        for asked in (in_chat, replace(in_chat, candidates=2)):
            with pytest.raises(DRPError, match=r"batches under way \(batch_\w+\).*: go on with --teacher batch"):
                main(asked)
        assert server.attempts == 0

        main(replace(in_chat, strength="hard"))
        assert server.attempts == 12, "these are other requests"

        BatchAsker("rule", server.url).client.batches.cancel(*server._batches.batches)
        with pytest.raises(DRPError, match="is cancelled"):
            main(in_batches)
        main(in_chat)
    assert server.attempts == 24 and raw(traces) == sound(traces)


def test_a_reply_that_never_comes_is_asked_again_after_the_timeout(traces):
    expected = sound(traces)
    with ChatServer(answer, fault_rate=0.3, faults=("never",), seed=1) as server:
        main(config(traces, server, timeout=0.5, max_attempts=30))
    assert server.outcomes["never"] > 0
    assert raw(traces) == expected


def test_a_request_given_up_is_asked_again_by_the_next_run_alone(traces):
    expected = sound(traces)
    with ChatServer(answer, fault_rate=0.5, faults=("500",), seed=2) as server:
        main(config(traces, server, max_attempts=1, concurrency=1))
        lacking = [row for row in raw(traces) if "no answer" in row["reason"]]
        assert 0 < len(lacking) < 12
        assert all("the teacher gave no answer (Error code: 500" in row["reason"] for row in lacking)
        answered = server.completed
        server.fault_rate = 0
        main(config(traces, server, max_attempts=1))
    assert server.completed - answered == len(lacking)
    assert raw(traces) == expected


def test_where_nobody_answers_the_slicing_teacher_can_decide(traces):
    with ChatServer(answer, fault_rate=0.5, faults=("500",), seed=2) as server:
        main(config(traces, server, max_attempts=1, concurrency=1, fallback="slicing"))
    rows = raw(traces)
    assert all(row["accepted"] for row in rows)
    kinds = {row["reason"].partition(" (")[0] for row in rows}
    assert kinds == {"", "fall-back: slicing-default: the teacher gave no answer"}


def test_refused_requests_keep_no_other_from_being_answered(tmp_path, monkeypatch):
    """They come back at once, more of them than would end a run in which nobody is answered."""
    traces = write_traces(tmp_path / "traces.jsonl", 40)
    lines = traces.read_text(encoding="utf-8").splitlines()
    refused = [json.loads(line)["question"] for line in lines[::2]]

    def choosy(body: dict) -> str:
        if any(question in body["messages"][1]["content"] for question in refused):
            raise Refusal(400, "This model's maximum context length is 8192 tokens.")
        return answer(body)

    with ChatServer(choosy, latency=0.5) as server:
        main(config(traces, server, concurrency=16))
        rows = raw(traces)
        assert [row["accepted"] for row in rows] == [False, True] * 20
        assert all("maximum context length" in row["reason"] for row in rows[::2])
        assert server.attempts == 40
        main(config(traces, server))
        assert server.attempts == 40, "a refusal is final"

        monkeypatch.setattr(prune, "deciding_code", lambda: ["another version"])
        for attempts in (60, 70, 70):  # where none is answered, only a few refusals are final at a time
            main(config(traces, server, concurrency=2))
            assert server.attempts == attempts and raw(traces) == rows
    assert server.completed == 20


def keys(traces: Path, folder: str) -> set[str]:
    with RowStore(traces.parent / folder / REPLIES) as store:
        return set(store)


def test_a_model_that_takes_neither_max_tokens_nor_a_temperature(traces, capsys):
    expected = sound(traces)
    bodies = []

    def reasoner(body: dict) -> str:
        for name in ("max_tokens", "temperature"):
            if name in body:
                raise Refusal(400, f"Unsupported: '{name}'.", "unsupported_parameter", param=name)
        bodies.append(body)
        return answer(body)

    with ChatServer(reasoner) as server:
        main(config(traces, server, concurrency=1, max_attempts=1))
    assert raw(traces) == expected and keys(traces, "corpus") == keys(traces, "sound")
    assert len(bodies) == 12 and {body["max_completion_tokens"] for body in bodies} == {4096}
    assert 2 <= server.outcomes["refused"] <= 4, "the second conversation's request was made before that was known"
    told = capsys.readouterr().err
    assert told.count("rule does not take this max_tokens, and max_completion_tokens takes its place") == 1
    assert told.count("rule does not take this temperature, and the model's own is taken") == 1


@pytest.mark.slow
def test_killed_again_and_again_the_corpus_is_the_undisturbed_one(tmp_path):
    outcome = measure(tmp_path, rows=120, kills=2, fault_rate=0.3)
    assert outcome.faults > 0 and outcome.kills == 2
    assert (outcome.identical, outcome.asked_again, outcome.lost, outcome.double) == (True, 0, 0, 0)


def start(traces: Path, server: ChatServer, **variables) -> subprocess.Popen:
    command = [sys.executable, "-m", "drp_hf.commands.prune", str(traces), "--teacher", "chat", "--model", "rule"]
    return subprocess.Popen(
        [*command, "--base_url", server.url, "--output_dir", str(traces.parent / "corpus"), "--concurrency", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **variables},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )


def test_interrupted_it_keeps_what_is_done_and_says_so(traces):
    with ChatServer(answer, latency=0.3) as server:
        process = start(traces, server)
        while server.completed < 4:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        messages, _ = process.communicate()
        assert process.returncode == 130
        assert "interrupted: what is done is kept" in messages and "Traceback" not in messages
        with RowStore(traces.parent / "corpus" / REPLIES) as store:
            kept = len(store)
        main(config(traces, server))
    assert kept >= 2
    assert server.completed <= 12 + 2  # two were under way


def test_a_second_run_in_the_same_folder_is_told_who_holds_it(traces):
    with ChatServer(answer, latency=0.5) as server:
        process = start(traces, server)
        while not server.attempts:
            time.sleep(0.01)
        with pytest.raises(DRPError, match=f"process {process.pid} on .* uses it"):
            main(config(traces, server))
        assert process.wait() == 0
    assert server.completed == 12


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(traces, monkeypatch):
    pages = iter([10, 10**6])
    real = RowStore.__init__

    def small(self, path, *arguments, **named):
        real(self, path, *arguments, **named)
        if Path(path).name == REPLIES:
            self._db.execute(f"PRAGMA max_page_count={next(pages)}")

    monkeypatch.setattr(RowStore, "__init__", small)
    with ChatServer(answer) as server:
        with pytest.raises(DRPError, match="replies.sqlite cannot be written .*full.*make room"):
            main(config(traces, server, concurrency=1))
        with RowStore(traces.parent / "corpus" / "rows.sqlite") as store:
            kept = len(store)
        assert 0 < kept < 12
        asked = server.completed
        main(config(traces, server))
    assert server.completed - asked == 12 - kept
    assert len(raw(traces)) == 12


# --------------------------------------------------------------------------------------------------- politeness


def test_no_more_requests_at_a_time_than_allowed(traces):
    with ChatServer(answer, latency=0.05) as server:
        main(config(traces, server, concurrency=3))
    assert server.peak_concurrency == 3


def test_requests_are_spread_over_the_minute(traces):
    with ChatServer(answer) as server:
        main(config(traces, server, requests_per_minute=600))
    received = sorted(attempt.received for attempt in server.history)
    assert received[-1] - received[0] >= 11 * 0.1 - 0.05


def test_tokens_are_spread_over_the_minute(traces):
    with ChatServer(answer) as server:
        main(config(traces, server, tokens_per_minute=600_000))
    received = sorted(attempt.received for attempt in server.history)
    with RowStore(traces.parent / "corpus" / REPLIES) as store:
        kept = [store.get(key)["request"]["messages"] for key in store]
    asked = sorted(sum(len(message["content"]) for message in messages) // 4 for messages in kept)
    assert received[-1] - received[0] >= sum(asked[:-1]) / 10_000 - 0.05


def test_the_server_says_how_long_to_wait(traces):
    with ChatServer(answer, fault_rate=1, faults=("429",), retry_after=0.4) as server:
        with pytest.raises(DRPError, match="given up"):
            main(config(traces, server, max_attempts=2, concurrency=1))
    received = sorted(attempt.received for attempt in server.history)
    gaps = [later - earlier for earlier, later in zip(received, received[1:], strict=False)]
    assert min(gaps) >= 0.39


@pytest.mark.parametrize(
    ("reject", "message"),
    [
        ("key", "refuses the key .*correct OPENAI_API_KEY"),
        ("quota", "no quota left"),
        ("model", "no model 'rule'.*correct --model or --base_url"),
        ("bad", r"1\d requests were refused and none was answered .*400"),
        ("down", "the last 10 requests were given up and none was answered .*503"),
    ],
)
def test_where_everything_fails_it_stops_with_one_sentence(traces, reject, message):
    with ChatServer(answer, reject=reject) as server:
        with pytest.raises(DRPError, match=message):
            main(config(traces, server, max_attempts=2, concurrency=2))
    assert server.attempts <= 24


def test_a_server_that_wants_to_be_paid_stops_it_at_once(traces):
    def unpaid(body: dict) -> str:
        raise Refusal(402, "Insufficient Balance")

    with ChatServer(unpaid) as server:
        with pytest.raises(DRPError, match="no quota left .*Insufficient Balance.*add credit and start again"):
            main(config(traces, server, concurrency=1))
    assert server.attempts <= 2


def test_no_server_at_all(traces):
    with ChatServer(answer) as server:
        pass
    with pytest.raises(DRPError, match="given up and none was answered .*onnection"):
        main(config(traces, server, max_attempts=2))


# ---------------------------------------------------------------------------------------------- money and secrets


def test_a_dry_run_asks_nobody_and_writes_nothing(traces, capsys):
    with ChatServer(answer) as server:
        main(config(traces, server, dry_run=True, price_input=1.0, price_output=2.0))
    printed = capsys.readouterr().out
    assert server.attempts == 0 and not (traces.parent / "corpus").exists()
    assert "numbered units" in printed and "[1] " in printed
    for line in ("calls", "input tokens, estimated", "output tokens, estimated", "cost, estimated"):
        assert line in printed


def test_the_cost_is_that_of_the_tokens(traces, capsys):
    with ChatServer(answer) as server:
        main(config(traces, server, price_input=1e6, price_output=2e6))
    with RowStore(traces.parent / "corpus" / REPLIES) as store:
        replies = [store.get(key)["reply"] for key in store]
    cost = sum(reply["input_tokens"] + 2 * reply["output_tokens"] for reply in replies)
    assert f"{cost:,.2f}" in capsys.readouterr().out


@pytest.mark.parametrize("reject", [None, "key"])
def test_the_key_is_nowhere(traces, reject):
    with ChatServer(answer, api_key=KEY, reject=reject) as server:
        process = start(traces, server, OPENAI_API_KEY=KEY)
        messages, _ = process.communicate()
        assert process.returncode == (2 if reject else 0), messages
        sent = {attempt.outcome for attempt in server.history}
    assert sent == {reject or "good"}
    assert KEY not in messages and "Traceback" not in messages
    if reject:
        assert "the server refuses the key" in messages
    files = [file for file in traces.parent.rglob("*") if file.is_file()]
    assert any(file.name == REPLIES for file in files)
    assert not [file for file in files if KEY.encode() in file.read_bytes()]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": None}, "no key: set the environment variable OPENAI_API_KEY"),
        ({"base_url": "https://me:sk-1@host/v1"}, "base_url must hold no user name"),
        ({"base_url": "https://host/v1?key=sk-1"}, "base_url must hold no user name"),
        ({"model": None}, "needs a language model: give --model"),
        ({"teacher": "slicing"}, "need a language model: give --teacher"),
        ({"candidates": 4}, "there can be 1 to 3"),
        ({"candidates": 2, "vary": "temperature", "temperature": 1.0}, "from a temperature below 1 up"),
        ({"select": "student-nll"}, "student-nll and student go together"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"context_length": 4000}, "no room for replies"),
    ],
)
def test_settings_that_cannot_work(traces, settings, message):
    config = {"teacher": "chat", "model": "rule", "base_url": "http://127.0.0.1:9/v1", **settings}
    with pytest.raises(DRPError, match=message) as error:
        main(PruneConfig(str(traces), str(traces.parent / "corpus"), **config))
    assert "sk-1" not in str(error.value)
