"""A teacher in a few lines, for `chat_server.py`: deletes units that doubt and check, keeps the others.

It answers the compact protocol as a good language model would, at once and always in the same way.
"""

from __future__ import annotations

import json
import re
from typing import Any

LINE = re.compile(r"^\[\d+\] (.*)$", re.MULTILINE)
DOUBT = re.compile(r"\b(?:wait|hmm|check|verify|another way|alternatively|misread|go over)\b", re.IGNORECASE)


def answer(body: dict[str, Any]) -> str:
    """The reply to a request: every unit of its first user message in a step, like neighbours together."""
    asked = next(message["content"] for message in body["messages"] if message["role"] == "user")
    units = LINE.findall(asked.rpartition("\nReasoning:\n")[2])
    steps: list[str] = []
    first = 1
    for number, unit in enumerate(units, 1):
        doubted = bool(DOUBT.search(unit))
        if number == len(units) or bool(DOUBT.search(units[number])) != doubted:
            span = f"{first}-{number}" if number > first else str(number)
            steps.append(f"{span} {'D checking a result' if doubted else 'K combined arithmetic'}")
            first = number + 1
    return json.dumps({"steps": steps})
