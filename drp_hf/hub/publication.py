"""A publication: files that appear on the Hub together, in one commit, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar

import yaml
from huggingface_hub import CardData, CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from rich.console import Console
from rich.filesize import decimal
from rich.markdown import Markdown
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from drp_hf.errors import DRPError
from drp_hf.hub.remote import NO_ANSWER, Remote, in_one_sentence
from drp_hf.hub.secrets import check_secrets

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo, SpaceInfo

CARD = "README.md"
MESSAGE = "(commit message)"
PICKLES = frozenset((".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"))
"""Suffixes of files that run code when they are loaded, or may."""


@dataclass(frozen=True)
class Publication:
    """What a repository shall hold, no more and no less.

    Args:
        repo_type: `dataset`, `model` or `space`.
        files: the local file, or the content itself, by path in the repository.
        message: of the commit.
    """

    repo_type: str
    files: Mapping[str, Path | bytes]
    message: str

    @property
    def card(self) -> str | None:
        """The text of its `README.md`."""
        card = self.files.get(CARD)
        if isinstance(card, Path):
            return card.read_text(encoding="utf-8")
        return None if card is None else card.decode()


@dataclass
class PushOptions:
    """
    How a publication gets to the Hub: what all of `drp push` have in common.

    Parameters:
        > Parameters that control where it goes

        repo_id (`str`):
            The repository (`owner/name`), which then holds what is published and nothing else; a private one is made
            where there is none.
        revision (`str`, *optional*):
            A branch to publish on, made from `main` where there is none. If not given, `main`.
        create_pr (`bool`, *optional*, defaults to `False`):
            Open a pull request with the commit, for people to look at and merge.
        tag (`str`, *optional*):
            Names the published commit, once it is there, for good.

        > Parameters that control who sees it

        public (`bool`, *optional*, defaults to `False`):
            Let everybody read the repository: all of it, with all its branches, once the commit is there. A pull
            request makes no repository public. A repository that is public already takes nothing without this.
        allow (`list[str]`, *optional*):
            Texts that are no secrets and no names of private persons, though they look so.
        dry_run (`bool`, *optional*, defaults to `False`):
            Show the files, their sizes, the card, and what would be deleted, and send nothing.
    """

    make_public: ClassVar[str] = "set public (--public)"
    """How users say that everybody may read it."""

    repo_id: str = field(
        metadata={
            "help": "The repository (owner/name), which then holds what is published and nothing else; a private one "
            "is made if there is none."
        }
    )
    public: bool = field(default=False, metadata={"help": "Let everybody read it, once the commit is there."})
    create_pr: bool = field(default=False, metadata={"help": "Open a pull request with the commit."})
    revision: str | None = field(default=None, metadata={"help": "A branch to publish on, made if there is none."})
    tag: str | None = field(default=None, metadata={"help": "Name the published commit, for good."})
    dry_run: bool = field(default=False, metadata={"help": "Show files, sizes and the card, and send nothing."})
    allow: list[str] = field(default_factory=list, metadata={"help": "Texts that only look like secrets."})


@dataclass(frozen=True)
class Published:
    """Where a publication is.

    Args:
        url: of the repository, or of the pull request.
        commit: that holds it; None after a dry run.
        changed: whether this push has made the commit.
    """

    url: str
    commit: str | None
    changed: bool


def publish(publication: Publication, options: PushOptions, api: HfApi | None = None) -> Published:
    """Makes the repository hold what the publication says, in one commit; none if it does so already.

    Args:
        publication: the files.
        options: where they go.
        api: the client; one with the endpoint and the token of this machine if not given.

    Raises:
        DRPError: something that must not be published, or the Hub did not take it.
    """
    check(publication, options)
    check_secrets({MESSAGE: publication.message.encode(), **publication.files}, options.allow)
    remote = Remote(api or HfApi(), options.repo_id, publication.repo_type)
    if options.dry_run:
        show(publication, remote.url)
        with suppress(*NO_ANSWER):  # no such repository, or none that one may see from here
            branch = options.revision or "main"
            _show_deleted(remote.others(publication.files, branch if remote.info(branch) else "main"), "would delete")
        return Published(remote.url, None, changed=False)
    with in_one_sentence(options.repo_id):
        return _push(publication, options, remote)


def check(publication: Publication, options: PushOptions) -> None:
    """Finds what is wrong before anything is sent.

    Raises:
        DRPError: a setting that cannot be used, or a file that must not be published.
    """
    try:
        validate_repo_id(options.repo_id)
    except HFValidationError as error:
        raise DRPError(f"repo_id is {options.repo_id!r}: {error}") from error
    if "/" not in options.repo_id:
        raise DRPError(f"repo_id is {options.repo_id!r}: say whose it is, as in you/{options.repo_id}.")
    if options.create_pr and options.revision not in (None, "main"):
        raise DRPError(f"create_pr is set, and revision is {options.revision!r}: a pull request goes to main only.")
    if options.create_pr and options.tag:
        raise DRPError("create_pr and tag are both set: set the tag once the pull request is merged.")
    if not publication.files:
        raise DRPError("there is no file to publish.")
    for name, content in publication.files.items():
        if PurePosixPath(name).suffix.lower() in PICKLES:
            raise DRPError(
                f"{name} may hold a pickle, which runs code when it is loaded: publish safetensors instead."
            )
        if isinstance(content, Path) and not content.is_file():
            raise DRPError(f"{content} is no file, and shall be published as {name}: make it first.")
    metadata = _card_data(publication)
    if publication.repo_type == "space" and metadata.get("sdk") is None:
        raise DRPError(f"{CARD} of a Space must say what it runs (sdk: gradio, for one): add it.")


def check_target(options: PushOptions, remote: Remote) -> None:
    """Finds out, before there is anything to publish, whether a repository would take it.

    Raises:
        DRPError: you may not see it, or everybody may, which was not asked for.
        HfHubHTTPError: you may not write to it.
    """
    _check_visibility(remote.info("main"), options)
    remote.check_write()


def show(publication: Publication, url: str) -> None:
    """Prints what would be published: the files with their sizes, and the card as it will look."""
    table = Table("file", "size")
    sizes = {name: _size(content) for name, content in sorted(publication.files.items())}
    for name, size in sizes.items():
        table.add_row(escape(name), decimal(size))
    table.add_section()
    table.add_row(f"{len(sizes)} files", decimal(sum(sizes.values())))
    console = Console()
    console.print(f"{url} would hold", soft_wrap=True, markup=False, highlight=False)
    console.print(table)
    if publication.card is not None:
        card = RepoCard(publication.card)
        console.print(Syntax(card.data.to_yaml(), "yaml", word_wrap=True))
        console.print(Markdown(card.text))


def _push(publication: Publication, options: PushOptions, remote: Remote) -> Published:
    files = [CommitOperationAdd(path, content) for path, content in sorted(publication.files.items())]
    private = _open(publication, options, remote)
    branch, head = _branch(options, remote)
    operations = remote.differences(files, head)
    if operations and options.create_pr and (known := remote.pull_request(files, publication.message)):
        return Published(*known, changed=False)
    tagged = remote.tagged(options.tag) if options.tag else None
    if tagged and (operations or tagged != head):
        raise DRPError(f"the tag {options.tag} of {options.repo_id} names another commit already: choose another tag.")
    url = remote.url
    if operations:
        gone = [operation.path_in_repo for operation in operations if isinstance(operation, CommitOperationDelete)]
        _show_deleted(gone, "deletes")
        remote.upload(operations, branch, options.create_pr)
        try:
            url, head = remote.commit(operations, publication.message, branch, head, options.create_pr)
        except NO_ANSWER:
            # The answer may be lost, and the commit made.
            known = _known(files, publication.message, branch, options.create_pr, remote)
            if known is None:
                raise
            url, head = known
    if options.tag and not tagged:
        remote.tag(options.tag, head)
    if options.public and private and not options.create_pr:
        remote.open_to_all()
    return Published(url, head, changed=bool(operations))


def _show_deleted(files: Sequence[str], what: str) -> None:
    if files:
        said = (
            f"this {what} {len(files)} {'file' if len(files) == 1 else 'files'} of the repository: {', '.join(files)}"
        )
        Console().print(said, soft_wrap=True, markup=False, highlight=False)


def _open(publication: Publication, options: PushOptions, remote: Remote) -> bool:
    """Makes the repository if there is none; whether it is private."""
    info = remote.info("main")
    if info is None:
        remote.create(_card_data(publication).get("sdk") if publication.repo_type == "space" else None)
        info = remote.info("main")
    _check_visibility(info, options)
    return info.private


def _check_visibility(info: ModelInfo | DatasetInfo | SpaceInfo | None, options: PushOptions) -> None:
    if info is None:
        raise DRPError(f"{options.repo_id} is there, and you may not see it: log in with `hf auth login`.")
    if not info.private and not options.public:
        raise DRPError(
            f"{options.repo_id} is public, so that everybody would see what is pushed: {options.make_public} if all "
            "may, or choose another repository."
        )


def _branch(options: PushOptions, remote: Remote) -> tuple[str, str]:
    """The branch to publish on, made if there is none, and its last commit."""
    branch = options.revision or "main"
    info = remote.info(branch)
    if info is None:
        remote.create_branch(branch)
        info = remote.info(branch)
    return branch, info.sha


def _known(
    files: list[CommitOperationAdd], message: str, branch: str, create_pr: bool, remote: Remote
) -> tuple[str, str] | None:
    """Where the files are after all, and in which commit; None if they are not there."""
    if create_pr:
        return remote.pull_request(files, message)
    head = remote.info(branch).sha
    return None if remote.differences(files, head) else (remote.url, head)


def _card_data(publication: Publication) -> CardData:
    if publication.card is None:
        return CardData()
    try:
        return RepoCard(publication.card).data
    except (yaml.YAMLError, ValueError) as error:
        raise DRPError(f"the metadata of {CARD} is no YAML ({' '.join(str(error).split())}): correct it.") from error


def _size(content: Path | bytes) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)
