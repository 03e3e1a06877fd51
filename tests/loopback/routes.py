"""Which request is answered by what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

KINDS = r"(?P<kinds>models|datasets|spaces)"
NAME = r"(?P<name>[^/]+/[^/]+)"
API = f"/api/{KINDS}/{NAME}"
PAGE = rf"/(?:(?P<kinds>datasets|spaces)/)?{NAME}"
REVISION = r"(?P<revision>[^/]+)"


@dataclass(frozen=True)
class Route:
    """A kind of request.

    Args:
        method: of HTTP.
        path: a regular expression for all of it.
        answer: name of the handler's method that answers.
        access: `read` (a token only for what is private), `write` (only with the token) or `signed` (the address,
            which only the Hub gives out, has its signature).
        alone: others do not wait for it; it reads the body and finds its repository itself.
    """

    method: str
    path: str
    answer: str
    access: str = "read"
    alone: bool = False

    def parts(self, method: str, path: str) -> dict[str, str] | None:
        """What the path's groups have, None if the request is of another kind."""
        match = re.fullmatch(self.path, path) if method == self.method else None
        return {name: unquote(value) for name, value in match.groupdict("").items()} if match else None
