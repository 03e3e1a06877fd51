"""Answers to those who upload and commit files."""

from __future__ import annotations

import base64
import json

import yaml

from tests.loopback.cards import card_data
from tests.loopback.errors import HubError
from tests.loopback.plumbing import Plumbing
from tests.loopback.repository import Repository
from tests.loopback.routes import API, KINDS, NAME, PAGE, REVISION, Route


class Uploading(Plumbing):
    """What brings files: they are seen when a commit has them."""

    routes = (
        Route("POST", "/api/validate-yaml", "validate_card"),
        Route("POST", f"{API}/preupload/{REVISION}", "choose_upload_modes", "write"),
        Route("POST", rf"{PAGE}\.git/info/lfs/objects/batch", "plan_uploads", "write"),
        Route("PUT", rf"/uploads/(?P<signature>\w+)/{KINDS}/{NAME}/(?P<oid>\w+)", "upload", "signed", alone=True),
        Route("POST", rf"{PAGE}\.git/info/lfs/verify", "verify_upload", "write"),
        Route("POST", f"{API}/commit/{REVISION}", "commit", "write"),
    )

    def validate_card(self) -> None:
        warnings, errors = [], []
        try:
            if not card_data(json.loads(self.body)["content"]):
                warnings = [{"message": "empty or missing yaml metadata in repo card"}]
        except yaml.YAMLError as error:
            errors = [{"message": str(error)}]
        self._send_json({"warnings": warnings, "errors": errors}, 400 if errors else 200)

    def choose_upload_modes(self, repository: Repository, revision: str) -> None:
        commit, asked, modes = repository.commit_of(revision), json.loads(self.body), []
        for file in asked["files"]:
            path, sample = file["path"], base64.b64decode(file["sample"])
            mode = {"path": path, "uploadMode": repository.upload_mode(commit, path, file["size"], sample)}
            mode["shouldIgnore"] = repository.ignores(commit, path, asked.get("gitIgnore"))
            if path in commit.files:
                mode["oid"] = commit.files[path].etag
            modes.append(mode)
        self._send_json({"files": modes})

    def plan_uploads(self, repository: Repository) -> None:
        objects = []
        for asked in json.loads(self.body)["objects"]:
            plan = {"oid": asked["oid"], "size": asked["size"]}
            if asked["oid"] not in repository.objects:
                where = f"{repository.kind}s/{repository.name}"
                upload = {"href": f"{self.hub.url}/uploads/{self.hub.signature}/{where}/{asked['oid']}", "header": {}}
                verify = {"href": f"{self._page(repository)}.git/info/lfs/verify", "header": {}}
                plan["actions"] = {"upload": upload, "verify": verify}
            objects.append(plan)
        self._send_json({"transfer": "basic", "objects": objects})

    def upload(self, kinds: str, name: str, oid: str) -> None:
        """Takes an LFS object to disk, a piece at a time."""
        self.store_object(self._repository(kinds, name), oid, self.unread)
        self._send(200, b"", {})

    def verify_upload(self, repository: Repository) -> None:
        asked = json.loads(self.body)
        stored = repository.objects.get(asked["oid"])
        if stored is None or stored.size != asked["size"]:
            raise HubError(404, f"{asked['oid']} was not uploaded")
        self._send_json({"success": True})

    def commit(self, repository: Repository, revision: str) -> None:
        made, proposal = repository.commit(revision, self.body.splitlines(), "create_pr" in self.query)
        page = self._page(repository)
        answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{page}/commit/{made.oid}", "hookOutput": ""}
        if proposal:
            answer["pullRequestUrl"] = f"{page}/discussions/{proposal.num}"
        self._send_json(answer)
