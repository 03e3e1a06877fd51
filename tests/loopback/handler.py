"""Answers the requests of the Hub's clients."""

from __future__ import annotations

from tests.loopback.changing import Changing
from tests.loopback.proposing import Proposing
from tests.loopback.reading import Reading
from tests.loopback.uploading import Uploading
from tests.loopback.xet import Xet


class Handler(Reading, Changing, Uploading, Xet, Proposing):
    """Answers one connection's requests."""

    routes = Reading.routes + Changing.routes + Uploading.routes + Xet.routes + Proposing.routes
