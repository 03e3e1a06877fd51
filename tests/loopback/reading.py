"""Answers about users, repositories and their files."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, quote

from tests.loopback.cards import card_data
from tests.loopback.errors import HubError
from tests.loopback.plumbing import USER, Plumbing
from tests.loopback.repository import Repository
from tests.loopback.routes import API, KINDS, PAGE, REVISION, Route

PER_PAGE = 1000


class Reading(Plumbing):
    """What changes nothing."""

    routes = (
        Route("GET", "/api/whoami-v2", "describe_user"),
        Route("GET", f"/api/{KINDS}", "list_repositories"),
        Route("GET", f"{API}(?:/revision/{REVISION})?", "describe"),
        Route("GET", f"{API}/auth-check", "allow"),
        Route("GET", f"{API}/auth-check/write", "allow", "write"),
        Route("GET", f"{API}/tree/{REVISION}(?:/(?P<path>.*))?", "list_tree"),
        Route("POST", f"{API}/paths-info/{REVISION}", "describe_paths"),
        Route("GET", f"{API}/refs", "list_refs"),
        Route("GET", f"{API}/commits/{REVISION}", "list_commits"),
        Route("HEAD", f"{PAGE}/resolve/{REVISION}/(?P<path>.+)", "send_file", alone=True),
        Route("GET", f"{PAGE}/resolve/{REVISION}/(?P<path>.+)", "send_file", alone=True),
    )

    def describe_user(self) -> None:
        if not self.known:
            raise HubError(401, "Invalid username or password.")
        access = {"type": "access_token", "accessToken": {"displayName": "tests", "role": "write"}}
        self._send_json({"type": "user", "id": "1", "name": USER, "fullname": USER, "orgs": [], "auth": access})

    def list_repositories(self, kinds: str) -> None:
        found = [repository for (kind, _), repository in self.hub.repositories.items() if f"{kind}s" == kinds]
        found = [repository for repository in found if self.known or not repository.private]
        if "author" in self.query:
            found = [repository for repository in found if repository.name.startswith(f"{self.query['author']}/")]
        described = [self._description(repository, "main") for repository in found]
        asked = parse_qs(self.url.query).get("filter", [])
        self._send_json([one for one in described if set(asked) <= set(one["tags"])])

    def describe(self, repository: Repository, revision: str) -> None:
        self._send_json(self._description(repository, revision))

    def _description(self, repository: Repository, revision: str) -> dict[str, Any]:
        commit = repository.commit_of(revision)
        siblings = [{"rfilename": path} for path in commit.files]
        if self.query.get("blobs", "").lower() in ("1", "true"):
            for sibling in siblings:
                described = commit.files[sibling["rfilename"]].describe()
                sibling |= {"size": described["size"], "blobId": described["oid"]}
                if "lfs" in described:
                    sibling["lfs"] = {**described["lfs"], "sha256": described["lfs"]["oid"]}
        card = card_data(commit.files["README.md"].read().decode()) if "README.md" in commit.files else {}
        tags = card.get("tags") or []
        described = {
            "id": repository.name,
            "author": repository.name.split("/")[0],
            "sha": commit.oid,
            "lastModified": commit.date,
            "createdAt": commit.history()[-1].date,
            "private": repository.private,
            "gated": repository.gated,
            "disabled": False,
            "tags": [tags] if isinstance(tags, str) else tags,
            "cardData": card,
            "siblings": siblings,
        }
        if repository.kind == "model":
            described |= {key: card[key] for key in ("pipeline_tag", "library_name", "model-index") if key in card}
        if repository.kind == "space":
            described["sdk"] = card.get("sdk", repository.sdk)
        return described

    def allow(self, repository: Repository) -> None:
        self._send_json({})

    def list_tree(self, repository: Repository, revision: str, path: str) -> None:
        commit, expand = repository.commit_of(revision), self._flag("expand")
        paths = repository.tree(commit, path, self._flag("recursive"))
        start = int(self.query.get("cursor", 0))
        page = [repository.entry(commit, name, expand) for name in paths[start : start + PER_PAGE]]
        headers = {}
        if start + PER_PAGE < len(paths):
            query = "&".join(f"{name}={quote(value)}" for name, value in self.query.items() if name != "cursor")
            following = f"{self.hub.url}{self.url.path}?{query}&cursor={start + PER_PAGE}"
            headers["Link"] = f'<{following}>; rel="next"'
        self._send_json(page, headers=headers)

    def describe_paths(self, repository: Repository, revision: str) -> None:
        if self.headers.get("Content-Type", "").startswith("application/json"):
            asked = json.loads(self.body)
        else:
            form = parse_qs(self.body.decode())
            asked = {"paths": form.get("paths", []), "expand": form.get("expand", ["false"])[0].lower() == "true"}
        commit = repository.commit_of(revision)
        entries = [repository.entry(commit, path.rstrip("/"), asked.get("expand", False)) for path in asked["paths"]]
        self._send_json([entry for entry in entries if entry])

    def list_refs(self, repository: Repository) -> None:
        def refs(prefix: str) -> list[dict[str, str]]:
            found = {ref: commit for ref, commit in repository.refs.items() if ref.startswith(prefix)}
            return [{"name": r.removeprefix(prefix), "ref": r, "targetCommit": c.oid} for r, c in found.items()]

        listed = {"branches": refs("refs/heads/"), "converts": [], "tags": refs("refs/tags/")}
        if "include_prs" in self.query:
            listed["pullRequests"] = refs("refs/pr/")
        self._send_json(listed)

    def list_commits(self, repository: Repository, revision: str) -> None:
        self._send_json(
            [
                {"id": c.oid, "authors": [{"user": USER}], "date": c.date, "title": c.title, "message": c.message}
                for c in repository.history(revision)
            ]
        )

    def send_file(self, kinds: str, name: str, revision: str, path: str) -> None:
        with self.hub.lock:
            repository = self._repository(kinds, name)
            if repository.gated:
                raise HubError(403, "Your request to access it is awaiting a review.", "GatedRepo")
            commit, content = repository.commit_of(revision), repository.file(revision, path)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{content.etag}"', "Accept-Ranges": "bytes"}
        if content.sha256:
            headers |= {"X-Linked-ETag": f'"{content.sha256}"', "X-Linked-Size": str(content.size)}
        kind, asked = "application/octet-stream", re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            return self._send(200, content.pieces(), headers, kind, content.size)
        first, last = asked.groups()
        start = int(first) if first else max(0, content.size - int(last))
        end = min(int(last), content.size - 1) if first and last else content.size - 1
        if start > end:
            return self._send(416, b"", {"Content-Range": f"bytes */{content.size}"})
        headers["Content-Range"] = f"bytes {start}-{end}/{content.size}"
        self._send(206, content.pieces(start, end + 1), headers, kind, end + 1 - start)
