"""Answers to those who create, change and delete repositories, branches and tags."""

from __future__ import annotations

import json

from tests.loopback.errors import HubError, not_here
from tests.loopback.plumbing import USER, Plumbing
from tests.loopback.repository import Repository
from tests.loopback.routes import API, REVISION, Route


class Changing(Plumbing):
    """What changes repositories but no files."""

    routes = (
        Route("POST", "/api/repos/create", "create_repository", "write"),
        Route("DELETE", "/api/repos/delete", "delete_repository", "write"),
        Route("PUT", f"{API}/settings", "change_settings", "write"),
        Route("POST", f"{API}/branch/(?P<branch>[^/]+)", "create_branch", "write"),
        Route("DELETE", f"{API}/branch/(?P<branch>[^/]+)", "delete_branch", "write"),
        Route("POST", f"{API}/tag/{REVISION}", "create_tag", "write"),
        Route("DELETE", f"{API}/tag/(?P<tag>[^/]+)", "delete_tag", "write"),
    )

    def create_repository(self) -> None:
        asked = json.loads(self.body)
        name, kind = f"{asked.get('organization') or USER}/{asked['name']}", asked.get("type") or "model"
        there = (kind, name) in self.hub.repositories
        if not there:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.repositories[kind, name] = Repository.created(name, kind, private, asked.get("sdk"))
        answer = {"name": name, "url": self._page(self.hub.repositories[kind, name])}
        if there:
            answer["error"] = f"You already created this {kind} repo"
        self._send_json(answer, 409 if there else 200)

    def delete_repository(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        repository = self._repository(asked.get("type") or "model", name)
        del self.hub.repositories[repository.kind, name]
        self._send_json({})

    def change_settings(self, repository: Repository) -> None:
        asked = json.loads(self.body)
        if "visibility" in asked:
            repository.private = asked["visibility"] == "private"
        repository.private = asked.get("private", repository.private)
        repository.gated = asked.get("gated", repository.gated)
        self._send_json({"private": repository.private, "gated": repository.gated})

    def create_branch(self, repository: Repository, branch: str) -> None:
        start = (json.loads(self.body or b"{}") or {}).get("startingPoint", "main")
        self._create_ref(repository, f"refs/heads/{branch}", start)

    def create_tag(self, repository: Repository, revision: str) -> None:
        self._create_ref(repository, f"refs/tags/{json.loads(self.body)['tag']}", revision)

    def _create_ref(self, repository: Repository, ref: str, start: str) -> None:
        if ref in repository.refs:
            raise HubError(409, f"Reference already exists: {ref}")
        repository.refs[ref] = repository.commit_of(start)
        self._send_json({})

    def delete_branch(self, repository: Repository, branch: str) -> None:
        self._delete_ref(repository, f"refs/heads/{branch}")

    def delete_tag(self, repository: Repository, tag: str) -> None:
        self._delete_ref(repository, f"refs/tags/{tag}")

    def _delete_ref(self, repository: Repository, ref: str) -> None:
        if repository.refs.pop(ref, None) is None:
            raise not_here("Revision", f"{repository.name} has no {ref}")
        self._send_json({})
