"""A repository on the Hub: what it holds, what would have to change, and the one commit that changes it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from json import JSONDecodeError
from typing import TYPE_CHECKING

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash
from tqdm import tqdm

from drp_hf.errors import DRPError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo, SpaceInfo

Operation = CommitOperationAdd | CommitOperationDelete
KEPT = ".gitattributes"
"""The Hub's own file: which files it keeps apart from git."""
NO_ANSWER = (HTTPError, OSError, RuntimeError, ValueError)
"""What the client raises when the Hub, or the way to it, fails: about uploads, the last two."""


@dataclass(frozen=True)
class Remote:
    """A repository on the Hub.

    Args:
        api: the client.
        repo_id: its name.
        repo_type: `dataset`, `model` or `space`.
    """

    api: HfApi
    repo_id: str
    repo_type: str

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self.api.endpoint}/{constants.REPO_TYPES_URL_PREFIXES.get(self.repo_type, '')}{self.repo_id}"

    def info(self, revision: str) -> ModelInfo | DatasetInfo | SpaceInfo | None:
        """What the Hub says about a revision; None if there is none, or no such repository."""
        try:
            return self.api.repo_info(self.repo_id, repo_type=self.repo_type, revision=revision)
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None

    def create(self, space_sdk: str | None) -> None:
        """Makes it: private and empty."""
        self.api.create_repo(self.repo_id, repo_type=self.repo_type, private=True, space_sdk=space_sdk, exist_ok=True)

    def check_write(self) -> None:
        """Raises the error of the client where one may not write to it; `create` tells nothing if it is there."""
        self.api.auth_check(self.repo_id, repo_type=self.repo_type, write=True)

    def open_to_all(self) -> None:
        """Makes it public."""
        self.api.update_repo_settings(self.repo_id, repo_type=self.repo_type, private=False)

    def create_branch(self, branch: str) -> None:
        """Makes a branch of what `main` holds."""
        self.api.create_branch(self.repo_id, branch=branch, repo_type=self.repo_type, exist_ok=True)

    def tagged(self, tag: str) -> str | None:
        """The commit that has a tag; None if there is no such tag."""
        tags = self.api.list_repo_refs(self.repo_id, repo_type=self.repo_type).tags
        return next((ref.target_commit for ref in tags if ref.name == tag), None)

    def tag(self, tag: str, commit: str) -> None:
        """Gives a tag to a commit."""
        self.api.create_tag(self.repo_id, tag=tag, revision=commit, repo_type=self.repo_type)

    def differences(self, files: list[CommitOperationAdd], revision: str) -> list[Operation]:
        """What has to change until a revision holds these files and no others."""
        there = self._files(revision)
        compared = tqdm(files, desc="compare with the Hub", unit="file", delay=2)
        additions = [file for file in compared if not _same(file, there.get(file.path_in_repo))]
        gone = _others(there, (file.path_in_repo for file in files))
        return [*additions, *map(CommitOperationDelete, gone)]

    def others(self, files: Iterable[str], revision: str) -> list[str]:
        """What a revision holds besides these files, and would no longer hold with them alone."""
        return _others(self._files(revision), files)

    def _files(self, revision: str) -> dict[str, RepoFile]:
        tree = self.api.list_repo_tree(self.repo_id, recursive=True, revision=revision, repo_type=self.repo_type)
        return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}

    def pull_request(self, files: list[CommitOperationAdd], message: str) -> tuple[str, str] | None:
        """Address and commit of an open pull request of that title that brings just these files; None if none does."""
        found = self.api.get_repo_discussions(
            self.repo_id, repo_type=self.repo_type, discussion_type="pull_request", discussion_status="open"
        )
        for discussion in found:
            if discussion.title == message and not self.differences(files, discussion.git_reference):
                return discussion.url, self.info(discussion.git_reference).sha
        return None

    def upload(self, operations: list[Operation], branch: str, create_pr: bool) -> None:
        """Sends the contents of big files, as far as the Hub does not have them: nobody sees them yet."""
        self.api.preupload_lfs_files(
            self.repo_id,
            [operation for operation in operations if isinstance(operation, CommitOperationAdd)],
            repo_type=self.repo_type,
            revision=branch,
            create_pr=create_pr,
            free_memory=False,
            gitignore_content="",  # what is published is decided here, and not by a file that lies there
        )

    def commit(
        self, operations: list[Operation], message: str, branch: str, parent: str, create_pr: bool
    ) -> tuple[str, str]:
        """Makes the commit, unless the branch has moved on from its parent.

        Returns:
            Where it is to be seen, and its name.
        """
        made = self.api.create_commit(
            self.repo_id,
            operations,
            commit_message=message,
            repo_type=self.repo_type,
            revision=branch,
            parent_commit=parent,
            create_pr=create_pr,
        )
        return made.pr_url or self.url, made.oid


def _others(there: Iterable[str], files: Iterable[str]) -> list[str]:
    return sorted({*there} - {*files} - {KEPT})


def _same(new: CommitOperationAdd, old: RepoFile | None) -> bool:
    if old is None or old.size != new.upload_info.size:
        return False
    if old.lfs:
        return old.lfs.sha256 == new.upload_info.sha256.hex()
    with new.as_file() as file:  # a small one: the Hub keeps big ones apart
        return old.blob_id == git_hash(file.read())


@contextmanager
def in_one_sentence(repo_id: str) -> Iterator[None]:
    """Turns what the Hub answers, or fails to, into one sentence for the user.

    Raises:
        DRPError: instead of the client's errors.
    """
    try:
        yield
    except DRPError:
        raise
    except NO_ANSWER as error:
        raise DRPError(_sentence(repo_id, error)) from error


def _sentence(repo_id: str, error: BaseException) -> str:
    while error.__cause__ and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    log_in = "log in with `hf auth login`, with a token that may."
    again = f"{repo_id} is as it was or complete: push again, and what was sent already is not sent again."
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return f"the Hub does not let you write to {repo_id} (HTTP {status}): {log_in}"
        if status in (409, 412):
            return f"{repo_id} was changed by somebody else meanwhile (HTTP {status}): look at it, then push again."
        if status == 429 or status >= 500:
            return f"the Hub is busy or broken (HTTP {status}), and {again}"
        return f"the Hub refuses what was to be pushed to {repo_id} (HTTP {status}: {_short(error.server_message)})."
    if isinstance(error, PermissionError) and not error.filename:  # so says Xet
        return f"the Hub does not let you write to {repo_id} ({_short(error)}): {log_in}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be read ({error.strerror}): make it again, then push again."
    if isinstance(error, ValueError) and not isinstance(error, JSONDecodeError):
        return f"what was to be pushed to {repo_id} is refused ({_short(error)})."
    return f"the Hub could not be reached ({_short(error)}), and {again}"


def _short(said: object) -> str:
    """What somebody said, in one line."""
    return textwrap.shorten(str(said) or type(said).__name__, 200)
