"""Answers that are not what was asked for."""

from __future__ import annotations


class HubError(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        message: what the client shows.
        code: how the Hub names it, if it has a name: `RepoNotFound`, `RevisionNotFound`,
            `EntryNotFound` or `GatedRepo`.
    """

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def not_here(what: str, message: str) -> HubError:
    """A repository (`Repo`), revision (`Revision`) or path (`Entry`) that does not exist."""
    return HubError(404, message, f"{what}NotFound")
