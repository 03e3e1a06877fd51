"""Answers about pull requests."""

from __future__ import annotations

import json
from typing import Any

from tests.loopback.errors import HubError, not_here
from tests.loopback.plumbing import USER, Plumbing
from tests.loopback.repository import PullRequest, Repository
from tests.loopback.routes import API, Route

PER_PAGE = 50


class Proposing(Plumbing):
    """Pull requests; this Hub has no other discussions."""

    routes = (
        Route("GET", f"{API}/discussions", "list_pull_requests"),
        Route("POST", f"{API}/discussions", "open_pull_request", "write"),
        Route("GET", rf"{API}/discussions/(?P<num>\d+)", "describe_pull_request"),
        Route("POST", rf"{API}/discussions/(?P<num>\d+)/merge", "merge_pull_request", "write"),
    )

    def list_pull_requests(self, repository: Repository) -> None:
        wanted = self.query.get("type", "all") in ("all", "pull_request")
        found = [p for p in reversed(repository.pull_requests) if self.query.get("status", p.status) == p.status]
        described = [self._proposal(repository, proposal) for proposal in found] if wanted else []
        start = int(self.query.get("p", 0)) * PER_PAGE
        page = described[start : start + PER_PAGE]
        self._send_json({"count": len(described), "start": start, "discussions": page})

    def open_pull_request(self, repository: Repository) -> None:
        asked = json.loads(self.body)
        if not asked.get("pullRequest"):
            raise HubError(400, "this Hub has no discussions but pull requests")
        proposal = repository.propose(asked["title"], asked["description"])
        proposal.status = "draft"
        self._send_json(self._proposal(repository, proposal))

    def describe_pull_request(self, repository: Repository, num: str) -> None:
        proposal = self._proposal_of(repository, num)
        base = repository.refs[proposal.base]
        commits = [c for c in repository.history(proposal.ref) if c not in base.history()]
        event = {"author": {"name": USER}}
        events = [
            {"id": c.oid, "type": "commit", "createdAt": c.date, "data": {"subject": c.title, "oid": c.oid}, **event}
            for c in reversed(commits)
        ]
        changes = {"base": proposal.base, "mergeCommitId": proposal.merge_commit}
        details = {"events": events, "changes": changes, "filesWithConflicts": [], "diff": ""}
        self._send_json({**self._proposal(repository, proposal), **details})

    def merge_pull_request(self, repository: Repository, num: str) -> None:
        repository.merge(self._proposal_of(repository, num))
        self._send_json({})

    def _proposal_of(self, repository: Repository, num: str) -> PullRequest:
        for proposal in repository.pull_requests:
            if proposal.num == int(num):
                return proposal
        raise not_here("Entry", f"{repository.name} has no pull request {num}")

    def _proposal(self, repository: Repository, proposal: PullRequest) -> dict[str, Any]:
        return {
            "num": proposal.num,
            "title": proposal.title,
            "author": {"name": USER},
            "createdAt": proposal.date,
            "status": proposal.status,
            "repo": {"name": repository.name, "type": repository.kind},
            "isPullRequest": True,
        }
