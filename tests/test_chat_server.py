"""Tests of the faulty OpenAI-compatible server, with the real client."""

import asyncio
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import openai
import pytest

from benchmarks.chat_server import CONTENT_FAULTS, FAULTS, ChatServer, body_hash

ROOT = Path(__file__).parents[1]


def answer(body):
    return json.dumps({"asked": body["messages"][-1]["content"]})


def client_of(server, key="sk-test", timeout=5.0):
    return openai.OpenAI(base_url=server.url, api_key=key, max_retries=0, timeout=timeout)


def messages_of(text, correction=False):
    first = [{"role": "user", "content": "first"}, {"role": "assistant", "content": "no"}] if correction else []
    return [{"role": "system", "content": "be brief"}, *first, {"role": "user", "content": text}]


def ask(client, text="hello", correction=False):
    return client.chat.completions.create(model="teacher", messages=messages_of(text, correction), temperature=0)


def exchange(server, request, count=1 << 20):
    """What the server sends to some bytes until it closes or falls silent."""
    data = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.3) as connection:
        connection.sendall(request)
        try:
            while len(data) < count and (part := connection.recv(1 << 16)):
                data += part
        except TimeoutError:
            pass
    return data


def chat_request(text="hello"):
    body = json.dumps({"model": "teacher", "messages": messages_of(text)}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def test_good_answer():
    with ChatServer(answer) as server, client_of(server) as client:
        reply = ask(client)
        assert json.loads(reply.choices[0].message.content) == {"asked": "hello"}
        assert (reply.choices[0].finish_reason, reply.model, reply.object) == ("stop", "teacher", "chat.completion")
        usage = reply.usage
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (14 // 4, 18 // 4, 3 + 4)
        again = ask(client)
        assert again == reply and again._request_id != reply._request_id
        assert [model.id for model in client.models.list()] == ["teacher"]
    assert (server.attempts, server.completed, server.asked_after_completion) == (2, 2, 1)


def test_finish_reason_and_default_answer():
    with ChatServer(lambda body: ("cut off", "length")) as server, client_of(server) as client:
        assert ask(client).choices[0].finish_reason == "length"
    with ChatServer() as server, client_of(server) as client:
        assert ask(client, "é 😀").choices[0].message.content == "é 😀"


def test_failing_answer():
    with ChatServer(lambda body: 1 / 0) as server, client_of(server) as client:
        with pytest.raises(openai.InternalServerError, match="ZeroDivisionError"):
            ask(client)
    assert (dict(+server.outcomes), server.completed) == ({"failed": 1}, 0)


def test_many_at_once_with_exact_latency():
    async def main(server):
        async with openai.AsyncOpenAI(base_url=server.url, api_key="sk-test", max_retries=0) as client:
            replies = await asyncio.gather(*(ask(client, f"number {i}") for i in range(40)))
        return [json.loads(reply.choices[0].message.content)["asked"] for reply in replies]

    with ChatServer(answer, latency=0.4, max_requests_per_minute=35) as server:
        assert asyncio.run(main(server)) == [f"number {i}" for i in range(40)]
    waits = [record.answered - record.received for record in server.history]
    assert min(waits) >= 0.399 and sorted(waits)[20] < 0.5
    assert 20 < server.peak_concurrency <= 40
    assert (server.peak_requests_per_minute, server.violations) == (40, 5)


def test_log(tmp_path):
    path = tmp_path / "log.jsonl"
    with ChatServer(answer, faults=["500"], log=path) as server, client_of(server) as client:
        ask(client)
        server.fault_rate = 1
        with pytest.raises(openai.InternalServerError):
            ask(client)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    key = body_hash({"temperature": 0, "model": "teacher", "messages": messages_of("hello")})
    assert [(line["event"], line["hash"], line["attempt"], line["outcome"]) for line in lines] == [
        ("received", key, 1, "good"),
        ("answered", key, 1, "good"),
        ("received", key, 2, "500"),
    ]
    assert lines[0]["time"] <= lines[1]["time"] <= lines[2]["time"] <= time.monotonic()


# ----------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("503", openai.InternalServerError),
        ("never", openai.APITimeoutError),
        ("cut", openai.APIConnectionError),
        ("drop", openai.APIConnectionError),
    ],
)
def test_fault_that_raises(fault, error):
    with ChatServer(answer, fault_rate=1, faults=[fault]) as server, client_of(server, timeout=0.5) as client:
        with pytest.raises(error) as caught:
            ask(client)
        if fault in ("429", "500", "503"):
            assert caught.value.status_code == int(fault) and caught.value.body["message"]
        if fault == "429":
            assert caught.value.response.headers["retry-after"] == "0.05"
            assert caught.value.code == "rate_limit_exceeded"
        with urllib.request.urlopen(server.url.replace("/v1", "/stats")) as response:
            stats = json.load(response)
        assert (stats["faults"], stats["attempts"], stats["completed"]) == ({fault: 1}, 1, 0)


def test_slow():
    with ChatServer(answer, fault_rate=1, faults=["slow"], slow_seconds=0.3) as server, client_of(server) as client:
        start = time.monotonic()
        ask(client)
        assert 0.3 <= time.monotonic() - start < 1
    assert server.completed == 1


def test_abandoned_answer_is_not_completed():
    with ChatServer(answer, latency=0.4) as server:
        with client_of(server, timeout=0.1) as client, pytest.raises(openai.APITimeoutError):
            ask(client)
        time.sleep(0.5)
    assert (server.attempts, server.completed, server.history[0].answered) == (1, 0, None)


def test_malformed():
    with ChatServer(answer, fault_rate=1, faults=["malformed"]) as server, client_of(server) as client:
        response = client.chat.completions.with_raw_response.create(model="teacher", messages=messages_of("hello"))
        assert response.http_response.status_code == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(response.http_response.text)
    assert server.completed == 0


def test_twice_and_cut_on_the_wire():
    with ChatServer(answer) as server:
        good = exchange(server, chat_request())
        server.fault_rate, server.faults = 1, ("twice",)
        twice = exchange(server, chat_request())
        half = len(twice) // 2
        assert twice[:half] == twice[half:]
        body = good.partition(b"\r\n\r\n")[2]
        assert twice[:half].endswith(body)
        server.faults = ("cut",)
        head, _, part = exchange(server, chat_request()).partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % len(body) in head
        assert len(part) == (len(body) + 1) // 2 and body.startswith(part)
        server.faults = ("drop",)
        assert exchange(server, chat_request()) == b""
    assert server.completed == 2


def test_content_faults_spare_corrections():
    with ChatServer(answer, fault_rate=1, faults=["truncated"]) as server, client_of(server) as client:
        good = ask(client, correction=True).choices[0]
        assert json.loads(good.message.content) and good.finish_reason == "stop"
        short = ask(client).choices[0]
        text = answer({"messages": messages_of("hello")})
        assert (short.finish_reason, short.message.content) == ("length", text[: len(text) // 2])
        server.faults = ("garbled",)
        garbled = ask(client).choices[0]
        assert garbled.finish_reason == "stop"
        with pytest.raises(json.JSONDecodeError):
            json.loads(garbled.message.content)
    assert server.completed == 1


def test_faults_are_drawn_by_seed_body_and_attempt():
    def outcomes(seed):
        with ChatServer(answer, fault_rate=0.5, faults=["500", "503", "truncated"], seed=seed) as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port)
            with closing(connection):
                for number in range(200):
                    body = {"messages": messages_of(f"number {number % 50}")}
                    connection.request("POST", "/v1/chat/completions", json.dumps(body))
                    connection.getresponse().read()
        return [record.outcome for record in server.history]

    first = outcomes(1)
    assert first == outcomes(1) != outcomes(2)
    assert 60 < first.count("good") < 140 and set(first) == {"good", "500", "503", "truncated"}
    assert first[:50] != first[50:100]


@pytest.mark.parametrize(
    ("reject", "error", "code"),
    [
        ("key", openai.AuthenticationError, "invalid_api_key"),
        ("quota", openai.RateLimitError, "insufficient_quota"),
        ("model", openai.NotFoundError, "model_not_found"),
        ("bad", openai.BadRequestError, "unsupported_value"),
        ("down", openai.InternalServerError, None),
    ],
)
def test_reject(reject, error, code):
    with ChatServer(answer, reject=reject) as server, client_of(server, "sk-secret") as client:
        with pytest.raises(error) as caught:
            ask(client)
        assert caught.value.code == code
        assert ("sk-secret" in str(caught.value)) == (reject == "key")
        server.reject = None
        ask(client)
    assert server.outcomes == {reject: 1, "good": 1}


def test_api_key_and_unknown_paths():
    with ChatServer(answer, api_key="sk-right") as server:
        with client_of(server, "sk-wrong") as client:
            for call in (lambda: ask(client), client.models.list, client.batches.list):
                with pytest.raises(openai.AuthenticationError, match="Incorrect API key provided: sk-wrong"):
                    call()
        with client_of(server, "sk-right") as client:
            ask(client)
            for call in (
                lambda: client.files.retrieve("file-none"),
                lambda: client.files.content("file-none"),
                lambda: client.batches.retrieve("batch_none"),
                lambda: client.embeddings.create(model="m", input="x"),
            ):
                with pytest.raises(openai.NotFoundError):
                    call()
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(model="teacher", messages=[])


def test_unknown_settings():
    for settings in ({"faults": ["flood"]}, {"reject": "all"}, {"batch_ends": ["lost"]}):
        with pytest.raises(ValueError, match="not among"):
            ChatServer(answer, **settings)


# ------------------------------------------------------------------------------------------------------------- HTTP


def test_chunked_split_and_pipelined_requests():
    body = json.dumps({"messages": messages_of("in chunks")}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked = head + chunks + b"0\r\n\r\n"
    with ChatServer(answer, latency=0.05) as server:
        replies = exchange(server, chunked + chat_request() + chunked)
        assert replies.count(b"HTTP/1.1 200 OK") == 3 and replies.count(b"in chunks") == 2
        with socket.create_connection(("127.0.0.1", server.port), timeout=2) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in chunked:
                connection.sendall(bytes([byte]))
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
        assert exchange(server, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_large_answer_completes_when_it_is_taken():
    with ChatServer(lambda body: "x" * 20_000_000) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(chat_request())
            connection.recv(100)
            time.sleep(0.1)
            assert server.completed == 0
            received = 0
            while received < 20_000_000:
                received += len(connection.recv(1 << 20))
    assert server.completed == 1


def test_stops_with_clients_connected_and_starts_again():
    with ChatServer(answer, fault_rate=1, faults=["never"]) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for connection in held:
            connection.sendall(chat_request())
        time.sleep(0.1)
        start = time.monotonic()
        server.stop()
        assert time.monotonic() - start < 1
        for connection in held:
            connection.close()
        url = server.url
        server.fault_rate = 0
        server.start()
        assert server.url == url
        with client_of(server) as client:
            ask(client)
    assert (server.attempts, server.completed, server.peak_concurrency) == (21, 1, 20)


# ---------------------------------------------------------------------------------------------------------- batches


def submit(client, count=20, lines=None):
    if lines is None:
        lines = [
            {
                "custom_id": f"id-{i}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "teacher", "messages": messages_of(f"number {i}")},
            }
            for i in range(count)
        ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    assert (file.bytes, file.filename, file.purpose) == (len(content), "requests.jsonl", "batch")
    assert client.files.content(file.id).content == content and client.files.retrieve(file.id) == file
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"run": "a"}
    )


def finish(client, batch):
    statuses = [batch.status]
    while statuses[-1] in ("validating", "in_progress", "cancelling"):
        batch = client.batches.retrieve(batch.id)
        statuses.append(batch.status)
    return batch, statuses


def lines_of(client, file_id):
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()] if file_id else []


def test_batch():
    with ChatServer(answer) as server, client_of(server) as client:
        batch, statuses = finish(client, submit(client))
        assert statuses == ["validating", "validating", "in_progress", "completed"]
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (20, 20, 0)
        assert batch.metadata == {"run": "a"} and batch.error_file_id is None and batch.completed_at
        lines = lines_of(client, batch.output_file_id)
        names = [line["custom_id"] for line in lines]
        assert names != sorted(names, key=lambda name: int(name[3:])) and len(set(names)) == 20
        for line in lines:
            assert set(line) == {"id", "custom_id", "response", "error"} and line["error"] is None
            assert line["response"]["status_code"] == 200 and line["response"]["request_id"]
            content = line["response"]["body"]["choices"][0]["message"]["content"]
            assert json.loads(content) == {"asked": f"number {line['custom_id'][3:]}"}
        with pytest.raises(openai.ConflictError):
            client.batches.cancel(batch.id)
    assert (server.attempts, server.completed) == (20, 20)


def test_batch_with_errors():
    with ChatServer(answer, batch_error_rate=0.4, batch_polls=1) as server, client_of(server) as client:
        batch, statuses = finish(client, submit(client, 40))
        assert statuses == ["validating", "completed"]
        good, bad = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
        assert len(good) + len(bad) == 40 and 5 < len(bad) < 30
        assert {line["response"]["status_code"] for line in good} == {200}
        expired = [line for line in bad if line["response"] is None]
        failed = [line for line in bad if line["response"]]
        assert expired and {line["error"]["code"] for line in expired} == {"batch_expired"}
        assert failed and {line["response"]["status_code"] for line in failed} == {500}
        assert {line["error"] for line in failed} == {None}
        assert batch.request_counts.failed == len(bad)
        # The same requests in another batch are other attempts.
        other, _ = finish(client, submit(client, 40))
        names = [line["custom_id"] for line in lines_of(client, other.error_file_id)]
        assert sorted(names) != sorted(line["custom_id"] for line in bad)
    assert server.asked_after_completion == len(good)


def test_batch_as_a_whole():
    with ChatServer(answer, batch_ends=["failed", "expired"]) as server, client_of(server) as client:
        failed, statuses = finish(client, submit(client, 5))
        assert statuses == ["validating", "failed"] and failed.errors.data[0].code == "token_limit_exceeded"
        assert failed.output_file_id is None
        expired, statuses = finish(client, submit(client, 5))
        assert statuses == ["validating", "validating", "in_progress", "expired"] and expired.expired_at
        assert len(lines_of(client, expired.output_file_id)) == 3
        assert [line["error"]["code"] for line in lines_of(client, expired.error_file_id)] == ["batch_expired"] * 2
        completed, _ = finish(client, submit(client, 5))
        assert completed.status == "completed"

        page = client.batches.list(limit=2)
        assert [batch.id for batch in page.data] == [completed.id, expired.id] and page.has_more
        assert [batch.id for batch in client.batches.list(limit=2)] == [completed.id, expired.id, failed.id]


def test_batch_of_wrong_lines():
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": messages_of("x")}}
    lines = [line, line, line | {"custom_id": "b", "url": "/v1/embeddings"}, {"custom_id": "c"}, 5]
    with ChatServer(answer) as server, client_of(server) as client:
        batch, _ = finish(client, submit(client, lines=lines))
        assert [(error.line, error.code) for error in batch.errors.data] == [
            (2, "duplicate_custom_id"),
            (3, "mismatched_url"),
            (4, "invalid_json_line"),
            (5, "invalid_json_line"),
        ]
        empty, _ = finish(client, submit(client, lines=[]))
        assert empty.errors.data[0].code == "empty_file"


def test_cancelled_batch():
    with ChatServer(answer) as server, client_of(server) as client:
        batch = client.batches.cancel(submit(client).id)
        assert finish(client, batch)[1] == ["cancelling", "cancelled"]


def test_batches_outlive_the_server(tmp_path):
    with ChatServer(answer, folder=tmp_path) as server, client_of(server) as client:
        batch = submit(client)
        assert client.batches.retrieve(batch.id).status == "validating"
    with ChatServer(answer, folder=tmp_path) as server, client_of(server) as client:
        assert [found.metadata for found in client.batches.list()] == [{"run": "a"}]
        batch, statuses = finish(client, batch)
        assert statuses == ["validating", "in_progress", "completed"]
    with ChatServer(answer, folder=tmp_path) as server, client_of(server) as client:
        assert client.batches.retrieve(batch.id) == batch
        assert len(lines_of(client, batch.output_file_id)) == 20


# ----------------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_line(tmp_path, number):
    log = tmp_path / "log.jsonl"
    faults = ["--fault-rate", "1", "--faults", *(fault for fault in FAULTS if fault in CONTENT_FAULTS)]
    command = [sys.executable, "benchmarks/chat_server.py", "--answer", "benchmarks.chat_server:echo", "--log", log]
    with subprocess.Popen([*command, *faults], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        url = process.stdout.readline().strip()
        with openai.OpenAI(base_url=url, api_key="sk-test", max_retries=0, timeout=5) as client:
            assert ask(client, correction=True).choices[0].message.content == "hello"
            assert ask(client).choices[0].message.content != "hello"
            process.send_signal(number)
            assert process.wait(5) == 0
    assert len(log.read_text().splitlines()) == 3
