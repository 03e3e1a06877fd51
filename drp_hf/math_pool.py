"""Worker processes in which math-verify compares answers: it can hang, or ask for all the memory there is."""

from __future__ import annotations

import atexit
import json
import os
import queue
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from drp_hf.math_worker import __file__ as WORKER

START_LIMIT = 120.0
"""Seconds a process gets to start."""
GRACE = 5.0
"""Seconds after the limit in which a process must have said that the limit was reached."""


@dataclass(frozen=True)
class Reply:
    """What a process says of a request.

    Args:
        equal: whether math-verify finds the two sides equal; None where it cannot parse one of them, or gave no reply.
        parsed: whether it can parse gold.
        failure: why there is no reply ("ran out of time"), else empty.
        seconds: how long the process had the request.
    """

    equal: bool | None = None
    parsed: bool = False
    failure: str = ""
    seconds: float = 0.0


class _Process:
    """One running `math_worker.py`. It is asked by one thread at a time."""

    def __init__(self) -> None:
        # A plain subprocess: it needs no importable __main__, and nothing of a parent full of threads is forked. -P
        # keeps the modules beside the file from hiding those of the same name elsewhere. Unbuffered pipes leave
        # nothing behind in a forked child, and a request is shorter than what a pipe holds.
        command = [sys.executable, "-P", WORKER]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.popen = subprocess.Popen(command, bufsize=0, **pipes)
        if not self._line(START_LIMIT):
            self.stop()
            raise RuntimeError("The process for math-verify did not start; is math-verify installed?")

    def ask(self, request: dict, limit: float) -> Reply | None:
        """The reply; None when this process itself no longer answers and must be replaced."""
        began = time.monotonic()
        try:
            self.popen.stdin.write(json.dumps({**request, "limit": limit}).encode("ascii") + b"\n")
            # The process keeps the limit itself. Only one that is stopped, or gone, does not answer soon after it.
            line = self._line(limit + GRACE)
        except OSError:
            line = b""
        if not line:
            return None
        reply = json.loads(line)
        seconds = time.monotonic() - began
        if failure := reply.get("failure"):
            return Reply(failure=failure, seconds=seconds)
        return Reply(reply["equal"], reply["parsed"], seconds=seconds)

    def _line(self, limit: float) -> bytes | None:
        """One line of its output; empty when it has ended, None after `limit` seconds."""
        ends = time.monotonic() + limit
        poll = select.poll()
        poll.register(self.popen.stdout, select.POLLIN)
        line = b""
        while not line.endswith(b"\n"):
            if not poll.poll(max(0.0, ends - time.monotonic()) * 1000):
                return None
            part = self.popen.stdout.read(65_536)
            if not part:
                return b""
            line += part
        return line

    def stop(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self.close_pipes()

    def close_pipes(self) -> None:
        self.popen.stdin.close()
        self.popen.stdout.close()


class MathPool:
    """Processes that are started when first needed, and replaced when they hang or die. Safe with threads and forks.

    Args:
        size: processes at most.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._start_anew()
        _POOLS.add(self)

    def _start_anew(self) -> None:
        self._running: set[_Process] = set()
        # The last one used comes first, so that one asker needs one process; None stands for one not started.
        self._free: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(self.size):
            self._free.put(None)

    def ask(self, request: dict, limit: float) -> Reply:
        """Asks one request, which gets `limit` seconds from when a process has it."""
        process = self._free.get()
        try:
            if process is not None and process.popen.poll() is not None:
                self._end(process)
                process = None
            if process is None:
                process = _Process()
                self._running.add(process)
            reply = process.ask(request, limit)
        except BaseException:
            if process is not None:
                self._end(process)
            process = None
            raise
        else:
            if reply is None:
                self._end(process)
                process = None
                return Reply(failure="gave no answer")
            return reply
        finally:
            self._free.put(process)

    def ask_all(self, requests: Sequence[dict], limit: float) -> Iterator[Reply]:
        """Asks many requests at once; replies come in order, each as soon as those before it are there."""
        if len(requests) < 2:
            yield from (self.ask(request, limit) for request in requests)
            return
        executor = ThreadPoolExecutor(min(self.size, len(requests)), thread_name_prefix="math-verify")
        try:
            yield from executor.map(self.ask, requests, [limit] * len(requests))
        finally:
            executor.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Ends the processes that are not busy; asking again starts them anew."""
        free = []
        while not self._free.empty():
            try:
                free.append(self._free.get_nowait())
            except queue.Empty:  # Another thread was faster.
                break
        for process in free:
            if process is not None:
                self._end(process)
            self._free.put(None)

    def _end(self, process: _Process) -> None:
        self._running.discard(process)
        process.stop()

    def forget(self) -> None:
        """After a fork: processes and locks belong to the parent, and its pipes must not stay open here."""
        for process in self._running:
            process.close_pipes()
        self._start_anew()


_POOLS: weakref.WeakSet[MathPool] = weakref.WeakSet()


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@atexit.register
def _close_all() -> None:
    for pool in list(_POOLS):
        pool.close()


def _forget_all() -> None:
    for pool in list(_POOLS):
        pool.forget()


os.register_at_fork(after_in_child=_forget_all)
