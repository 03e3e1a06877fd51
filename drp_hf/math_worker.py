"""The process in which math-verify runs: `answers.py` starts this file, and ends it when it takes too long.

It reads one JSON object a line (`gold`, and `predicted` unless only parsing is asked) and answers each with one line:
`parsed` (gold is a mathematical expression) and `equal` (true, false, or null where one side cannot be parsed).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys

# Seconds after which the process ends by itself, should the parent no longer be there to end it.
ORPHAN_LIMIT = 60
MEMORY_LIMIT = 4 << 30


def _limit_memory() -> None:
    # A tower of powers asks for all the memory there is; sympy shall get a MemoryError instead.
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))


def main() -> None:
    """Serves requests until standard input ends."""
    _limit_memory()
    # Replies have a channel of their own: whatever the libraries print must not get between them.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.disable(logging.CRITICAL)

    from math_verify import parse, verify
    from math_verify.parser import LatexExtractionConfig

    def expression(text: str) -> list:
        return parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)

    def reply(message: dict) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    # The first parse builds the parser's tables: part of starting, not of the first comparison.
    verify(expression("\\frac{1}{2}"), expression("0.5"), timeout_seconds=None)
    reply({"ready": True})
    for line in sys.stdin:
        if hasattr(signal, "alarm"):
            signal.alarm(ORPHAN_LIMIT)
        request = json.loads(line)
        gold = expression(request["gold"])
        equal = None
        if gold and "predicted" in request:
            predicted = expression(request["predicted"])
            if predicted:
                equal = bool(verify(gold, predicted, timeout_seconds=None))
        reply({"parsed": bool(gold), "equal": equal})
        if hasattr(signal, "alarm"):
            signal.alarm(0)


if __name__ == "__main__":
    main()
