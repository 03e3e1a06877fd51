"""The process in which math-verify runs: `math_pool.py` starts this file.

It reads one JSON object a line (`gold`, `limit` in seconds, and `predicted` unless only parsing is asked) and answers
each with one line: `parsed` (gold is a mathematical expression) and `equal` (true, false, or null where one side
cannot be parsed), or `failure` (why there is no reply).

The work is done by a fork of this process, which loaded the libraries once: a fork that hangs or dies is replaced in
milliseconds.
"""

from __future__ import annotations

import json
import logging
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable

ORPHAN_GRACE = 5
"""Seconds after the limit at which a fork ends by itself, should nobody be left to end it."""
MEMORY_LIMIT = 2 << 30


def _limit_memory() -> None:
    # A tower of powers asks for all the memory there is; sympy shall get a MemoryError instead.
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))


def _load() -> Callable[[dict], dict]:
    """Imports math-verify; returns what answers a request."""
    from math_verify import parse, verify
    from math_verify.parser import LatexExtractionConfig

    def expression(text: str) -> list:
        text = text.replace("\n", " ")  # It reads no formula over several lines.
        return parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)

    def compare(request: dict) -> dict:
        gold = expression(request["gold"])
        equal = None
        if gold and "predicted" in request:
            predicted = expression(request["predicted"])
            if predicted:
                equal = bool(verify(gold, predicted, timeout_seconds=None))
        return {"parsed": bool(gold), "equal": equal}

    # The first parse builds the parser's tables: part of starting, not of the first comparison.
    compare({"gold": "\\frac{1}{2}", "predicted": "0.5"})
    return compare


class _Fork:
    """A fork of this process that answers requests until it hangs or dies."""

    def __init__(self, compare: Callable[[dict], dict], not_for_it: int) -> None:
        its_requests, self.requests = os.pipe()
        self.replies, its_replies = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                # It must not keep open what tells others that this process has ended.
                for descriptor in (self.requests, self.replies, not_for_it, 0):
                    os.close(descriptor)
                _serve(its_requests, its_replies, compare)
            finally:
                os._exit(1)
        os.close(its_requests)
        os.close(its_replies)

    def ask(self, request: bytes, limit: float) -> bytes | None:
        """The reply; empty when the fork has died, None after `limit` seconds."""
        os.write(self.requests, request)
        ends = time.monotonic() + limit
        poll = select.poll()
        poll.register(self.replies, select.POLLIN)
        reply = b""
        while not reply.endswith(b"\n"):
            if not poll.poll(max(0.0, ends - time.monotonic()) * 1000):
                return None
            part = os.read(self.replies, 65_536)
            if not part:
                return b""
            reply += part
        return reply

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.requests)
        os.close(self.replies)


def _serve(requests: int, replies: int, compare: Callable[[dict], dict]) -> None:
    for line in os.fdopen(requests, encoding="ascii"):
        request = json.loads(line)
        signal.alarm(math.ceil(request["limit"]) + ORPHAN_GRACE)
        try:
            answer = compare(request)
        except MemoryError:
            return  # What is left of such a process is not to be trusted.
        except Exception:  # The libraries raise anything on what is no mathematics.
            answer = {"parsed": False, "equal": None}
        os.write(replies, json.dumps(answer).encode("ascii") + b"\n")
        signal.alarm(0)


def main() -> None:
    """Serves requests until standard input ends."""
    _limit_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process.
    # Replies have a channel of their own: whatever the libraries print must not get between them.
    replies = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable(logging.CRITICAL)
    compare = _load()
    os.write(replies, b'{"ready": true}\n')
    fork = None
    for line in sys.stdin.buffer:
        fork = fork or _Fork(compare, replies)
        reply = fork.ask(line, json.loads(line)["limit"])
        if reply:
            os.write(replies, reply)
            continue
        failure = "ran out of time" if reply is None else "ran out of memory or crashed"
        os.write(replies, json.dumps({"failure": failure}).encode("ascii") + b"\n")
        fork.end()
        fork = None
    if fork:
        fork.end()


if __name__ == "__main__":
    main()
