"""Faults that the Hub on loopback makes on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

KINDS = ("cut", "cut-after", "500", "429")


@dataclass
class Fault:
    """A planned fault.

    Args:
        kind: `cut` (the connection is closed without an answer), `cut-after` (the request is carried out, then the
            connection is closed), `500`, or `429` (with `Retry-After: 0`).
        at: number of the request, from 0, since the fault was planned: that one request fails. Or a predicate on
            `METHOD path`: all requests that it is true of fail.
    """

    kind: str
    at: int | Callable[[str], bool]
    seen: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault {self.kind!r}: there are {', '.join(KINDS)}")

    def strikes(self, request: str) -> bool:
        """Counts a request and says whether it fails."""
        number, self.seen = self.seen, self.seen + 1
        return self.at(request) if callable(self.at) else self.at == number
