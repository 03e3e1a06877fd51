"""Publications on the Hub on loopback: all or nothing, once, and whatever fails."""

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count, product
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from drp_hf.errors import DRPError
from drp_hf.hub.publication import Publication, Published, PushOptions, publish
from tests.loopback.faults import KINDS
from tests.loopback_hub import LoopbackHub

REPO = "drp_hf/things"
CARD = b"---\nlicense: mit\nsdk: gradio\n---\n\n# Things\n\nA **card**.\n"


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path | bytes]:
    """30 files, a third of which the Hub keeps apart from git; some lie on disk."""
    folder = tmp_path_factory.mktemp("files")
    pq.write_table(pa.table({"text": ["a", "b"]}), folder / "rows.parquet")
    (folder / "notes.txt").write_text("notes\n")
    made = {"README.md": CARD, "steps/rows.parquet": folder / "rows.parquet", "notes.txt": folder / "notes.txt"}
    made |= {f"small/{number:02}.json": f'{{"n": {number}}}\n'.encode() for number in range(18)}
    made |= {f"large/{number}.model": b"\0" + hashlib.sha256(bytes([number])).digest() for number in range(9)}
    assert len(made) == 30
    return made


def push(hub, files, repo_type="dataset", message="Things", **options) -> Published:
    api = HfApi(endpoint=hub.url, token=hub.token)
    return publish(Publication(repo_type, files, message), PushOptions(REPO, **options), api)


def contents(files) -> dict[str, bytes]:
    return {path: file.read_bytes() if isinstance(file, Path) else file for path, file in files.items()}


def holds(repository, files, revision="main") -> bool:
    """Whether a revision has just these files, besides the Hub's own."""
    there = repository.files(revision)
    there.pop(".gitattributes")
    return there == contents(files)


# ------------------------------------------------------------------------------------------------------- one commit


@pytest.mark.parametrize("repo_type", ["dataset", "model", "space"])
def test_a_publication_is_one_private_commit(hub, files, repo_type):
    published = push(hub, files, repo_type)
    repository = hub.repository(REPO, repo_type)
    prefix = "" if repo_type == "model" else f"{repo_type}s/"
    assert published == Published(f"{hub.url}/{prefix}{REPO}", repository.commits[0].oid, changed=True)
    assert [commit.title for commit in repository.commits] == ["Things", "initial commit"]
    assert (
        repository.private
        and holds(repository, files)
        and repository.sdk == ("gradio" if repo_type == "space" else None)
    )


def test_the_same_push_again_makes_no_commit(hub, files):
    first = push(hub, files, tag="v1", public=True)
    hub.reset()
    assert push(hub, files, tag="v1", public=True) == Published(first.url, first.commit, changed=False)
    assert len(hub.repository(REPO).commits) == 2
    assert all(request.startswith("GET") for request in hub.requests), hub.requests


def test_what_differs_is_sent_and_what_is_gone_is_deleted(hub, files, capsys):
    push(hub, files)
    hub.reset()
    assert "delete" not in capsys.readouterr().out
    less = {path: file for path, file in files.items() if not path.startswith("small/1")}
    changed = {**less, "large/0.model": b"\0new", "README.md": CARD + b"More.\n"}
    gone = f"8 files of the repository: {', '.join(f'small/1{number}.json' for number in range(8))}\n"
    push(hub, changed, dry_run=True)
    assert f"this would delete {gone}" in capsys.readouterr().out and holds(hub.repository(REPO), files)
    push(hub, changed)
    assert capsys.readouterr().out == f"this deletes {gone}"
    assert holds(hub.repository(REPO), changed) and len(hub.repository(REPO).commits) == 3
    assert sum(request.startswith("PUT /uploads") for request in hub.requests) == 1


def test_files_that_only_change_places_are_not_sent_again(hub, files):
    push(hub, files)
    hub.reset()
    push(hub, {f"moved/{path}" if path.endswith(".model") else path: file for path, file in files.items()})
    assert not [request for request in hub.requests if request.startswith("PUT /uploads")]
    assert "moved/large/0.model" in hub.repository(REPO).files()


def test_a_gitignore_hides_nothing(hub, files):
    push(hub, {**files, ".gitignore": b"*.model\n*.json\n"})
    push(hub, {**files, "large/new.model": b"\0new"})
    assert holds(hub.repository(REPO), {**files, "large/new.model": b"\0new"})


def test_a_branch_is_made_and_main_is_left_alone(hub, files):
    push(hub, {"README.md": CARD})
    published = push(hub, files, revision="step-100")
    repository = hub.repository(REPO)
    assert holds(repository, files, "step-100") and holds(repository, {"README.md": CARD})
    assert repository.history("step-100")[0].oid == published.commit
    assert push(hub, files, revision="step-100").changed is False


def test_a_branch_of_a_new_repository_leaves_main_empty(hub, files):
    push(hub, files, revision="step-100")
    assert holds(hub.repository(REPO), {}) and holds(hub.repository(REPO), files, "step-100")


def test_a_pull_request_is_opened_once(hub, files):
    push(hub, {"README.md": CARD})
    first = push(hub, files, create_pr=True)
    repository = hub.repository(REPO)
    assert first.url == f"{hub.url}/datasets/{REPO}/discussions/1" and first.changed
    assert holds(repository, files, "refs/pr/1") and holds(repository, {"README.md": CARD})
    assert push(hub, files, create_pr=True) == Published(first.url, first.commit, changed=False)
    assert len(repository.pull_requests) == 1
    assert push(hub, {**files, "more.txt": b"more"}, create_pr=True).url.endswith("/2")


def test_a_pull_request_whose_answer_is_lost_is_found(hub, files):
    push(hub, {"README.md": CARD})
    hub.fail("cut-after", at=lambda request: "/commit/" in request)
    published = push(hub, files, create_pr=True)
    assert published.url.endswith("/discussions/1") and len(hub.repository(REPO).pull_requests) == 1


# ------------------------------------------------------------------------------------------------ tags, who may read


def test_a_tag_stays_where_it_is(hub, files):
    first = push(hub, files)
    assert push(hub, files, tag="v1") == Published(first.url, first.commit, changed=False)
    hub.reset()
    with pytest.raises(DRPError, match="tag v1 of drp_hf/things names another commit"):
        push(hub, {"README.md": CARD}, tag="v1")
    assert all(request.startswith("GET") for request in hub.requests) and holds(hub.repository(REPO), files)
    second = push(hub, {"README.md": CARD}, tag="v2")
    tags = hub.repository(REPO).refs
    assert (tags["refs/tags/v1"].oid, tags["refs/tags/v2"].oid) == (first.commit, second.commit)


def test_it_is_public_only_when_asked_and_only_after_the_commit(hub, files):
    push(hub, files, public=True)
    assert not hub.repository(REPO).private
    done = [request.split("/")[-1] if "settings" in request else request for request in hub.requests]
    assert done[-1] == "settings" and "/commit/main" in done[-2]


def test_a_private_repository_is_made_public_without_a_commit(hub, files):
    push(hub, files)
    assert push(hub, files, public=True).changed is False and not hub.repository(REPO).private


def test_a_public_repository_takes_nothing_by_mistake(hub, files):
    push(hub, files, public=True)
    for options in ({}, {"create_pr": True}, {"revision": "b"}):
        with pytest.raises(DRPError, match="drp_hf/things is public.*set public .--public"):
            push(hub, {"README.md": CARD}, **options)
    assert holds(hub.repository(REPO), files)


def test_a_pull_request_makes_nothing_public(hub, files):
    push(hub, files, create_pr=True, public=True)
    assert hub.repository(REPO).private


# ------------------------------------------------------------------------------------- what is not sent, and dry run


@pytest.mark.parametrize("name", ["model.bin", "optimizer.pt", "a/b.PKL", "x.ckpt", "x.joblib", "training_args.bin"])
def test_pickles_are_refused(hub, files, name):
    with pytest.raises(DRPError, match=f"{name} may hold a pickle"):
        push(hub, {**files, name: b"x"})
    assert not hub.requests


TOKEN = "hf_" + hashlib.sha256(b"token").hexdigest()[:34]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("README.md", CARD + b"my token: " + TOKEN.encode()),
        ("traces.jsonl", b'{"reasoning": "so"}\n{"reasoning": "see /home/' + b'ada/x"}\n'),
        ("config.json", b'{"api_key": "' + hashlib.sha256(b"key").hexdigest().encode() + b'"}'),
        (f"runs/{TOKEN}/x.json", b"{}"),
    ],
    ids=["card", "trace", "config", "file name"],
)
def test_secrets_are_found_and_nothing_is_sent(hub, files, name, content):
    with pytest.raises(DRPError, match="nothing was sent") as error:
        push(hub, {**files, name: content})
    assert not hub.requests and TOKEN not in str(error.value)
    if TOKEN not in name:
        assert name in str(error.value)


def test_a_secret_in_the_message_is_found(hub, files):
    with pytest.raises(DRPError, match=re.escape("(commit message) line 1: Hugging Face token")):
        push(hub, files, message=f"With {TOKEN}")
    assert not hub.requests


def test_a_dry_run_shows_files_sizes_and_card_without_a_network(files, capsys):
    api = HfApi(endpoint="http://127.0.0.1:9", token="hf_none")
    published = publish(Publication("dataset", files, "Things"), PushOptions(REPO, dry_run=True), api)
    assert published == Published(f"http://127.0.0.1:9/datasets/{REPO}", None, changed=False)
    shown = capsys.readouterr().out
    assert all(name in shown for name in files) and "30 files" in shown
    assert f"{len(CARD)} bytes" in shown and "A card." in shown and "license: mit" in shown


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"create_pr": True, "revision": "b"}, "a pull request goes to main only"),
        ({"create_pr": True, "tag": "v1"}, "set the tag once the pull request is merged"),
        ({"repo_id": "a/b/c"}, "repo_id is 'a/b/c'"),
        ({"repo_id": "a b"}, "repo_id is 'a b'"),
        ({"repo_id": "things"}, "repo_id is 'things': say whose it is, as in you/things"),
    ],
)
def test_settings_that_cannot_be_used(files, options, complaint):
    with pytest.raises(DRPError, match=complaint):
        publish(Publication("dataset", files, "Things"), PushOptions(**{"repo_id": REPO, **options}))


@pytest.mark.parametrize(
    ("repo_type", "changed", "complaint"),
    [
        ("space", {"README.md": b"# No metadata"}, "of a Space must say what it runs"),
        ("dataset", {"README.md": b"---\na: [\n---\n"}, "metadata of README.md is no YAML"),
        ("dataset", {"x.json": Path("/nowhere/x.json")}, "/nowhere/x.json is no file"),
    ],
)
def test_files_that_cannot_be_used(files, repo_type, changed, complaint):
    with pytest.raises(DRPError, match=complaint):
        publish(Publication(repo_type, {**files, **changed}, "Things"), PushOptions(REPO))


def test_what_the_client_refuses_is_one_sentence(hub, files):
    with pytest.raises(DRPError, match="to drp_hf/things is refused .Invalid `path_in_repo`"):
        push(hub, {**files, "../x.json": b"{}"})
    assert not hub.requests


# ------------------------------------------------------------------------------------------------------------ faults


def test_who_is_not_logged_in_is_told_so(hub, files):
    for token in (False, "hf_wrong"):
        with pytest.raises(DRPError, match="hf auth login"):
            publish(Publication("dataset", files, "Things"), PushOptions(REPO), HfApi(endpoint=hub.url, token=token))
    push(hub, files)
    with pytest.raises(DRPError, match="hf auth login"):
        publish(Publication("dataset", files, "Things"), PushOptions(REPO), HfApi(endpoint=hub.url, token=False))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (PermissionError("401 from the store"), "does not let you write .*hf auth login"),
        (FileNotFoundError(2, "No such file", "/runs/x.parquet"), "/runs/x.parquet cannot be read .No such file"),
        (RuntimeError("the store\nis away"), "could not be reached .the store is away.*push again"),
        (json.JSONDecodeError("no JSON", "<html>", 0), "could not be reached .no JSON.*push again"),
        (ValueError("LFS batch API returned errors:\nquota"), "is refused .LFS batch API returned errors: quota"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_else_uploads_raise_is_one_sentence(hub, files, error, sentence):
    """Xet's library, which the Hub on loopback does not speak to, raises Python's own errors."""

    class Failing(HfApi):
        def preupload_lfs_files(self, *args, **kwargs):
            raise error

    with pytest.raises(DRPError, match=sentence):
        publish(Publication("dataset", files, "Things"), PushOptions(REPO), Failing(endpoint=hub.url, token=hub.token))


def test_a_hub_that_is_not_there_is_one_sentence(files):
    api = HfApi(endpoint="http://127.0.0.1:9", token="hf_none")
    with pytest.raises(DRPError, match="the Hub could not be reached .*: push again"):
        publish(Publication("dataset", files, "Things"), PushOptions(REPO), api)


def test_somebody_else_was_faster(hub, files):
    push(hub, {"README.md": CARD})
    api = HfApi(endpoint=hub.url, token=hub.token)

    class Slow(HfApi):
        def preupload_lfs_files(self, *args, **kwargs):
            super().preupload_lfs_files(*args, **kwargs)
            api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id=REPO, repo_type="dataset")

    with pytest.raises(DRPError, match="changed by somebody else meanwhile"):
        publish(Publication("dataset", files, "Things"), PushOptions(REPO), Slow(endpoint=hub.url, token=hub.token))
    assert holds(hub.repository(REPO), {"README.md": CARD, "x.txt": b"x"})


def test_an_interrupted_push_sends_nothing_twice(hub, files):
    hub.fail("500", at=lambda request: "/commit/" in request)
    with pytest.raises(DRPError, match="busy or broken .HTTP 500.*push again"):
        push(hub, files)
    assert holds(hub.repository(REPO), {}) and hub.repository(REPO).private
    sent = [request for request in hub.requests if request.startswith("PUT /uploads")]
    assert len(sent) == 10
    hub.reset()
    assert push(hub, files).changed
    assert not [request for request in hub.requests if request.startswith("PUT /uploads")]


def test_a_commit_whose_answer_is_lost_is_no_failure(hub, files):
    hub.fail("cut-after", at=lambda request: "/commit/" in request)
    assert push(hub, files).changed and len(hub.repository(REPO).commits) == 2


def test_a_lost_commit_is_noticed_by_the_next_push(hub, files):
    """The commit was made, and then nothing could be asked any more."""
    made = []
    hub.fail("cut-after", at=lambda request: "/commit/" in request and not made.append(request))
    hub.fail("cut", at=lambda request: bool(made) and "/commit/" not in request)
    with pytest.raises(DRPError, match="is as it was or complete: push again"):
        push(hub, files)
    hub.reset()
    assert push(hub, files) == Published(f"{hub.url}/datasets/{REPO}", hub.repository(REPO).commits[0].oid, False)
    assert len(hub.repository(REPO).commits) == 2


THROUGH_XET = f"""
from drp_hf.errors import DRPError
from drp_hf.hub.publication import Publication, PushOptions, publish

files = {{"README.md": {CARD!r}, "a.model": b"\\0" * 300_000, "b.model": b"\\0b" * 90_000, "c.json": b"{{}}"}}
for attempt in range(3):
    try:
        print(publish(Publication("dataset", files, "Things"), PushOptions({REPO!r})).changed)
    except DRPError as error:
        print(error)
"""


def test_a_push_through_xet_continues_too(hub, tmp_path):
    """As the client uploads where Xet's library is installed; the first commit fails."""
    failed = []
    hub.fail("500", at=lambda request: "/commit/" in request and not failed and not failed.append(request))
    root = str(Path(__file__).resolve().parents[1])
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path), "PYTHONPATH": root}
    environment = {**os.environ, **settings}
    environment.pop("HF_HUB_DISABLE_XET")
    done = subprocess.run([sys.executable, "-c", THROUGH_XET], env=environment, capture_output=True, text=True)
    first, second, third = done.stdout.splitlines()
    assert "the Hub is busy or broken" in first and (second, third) == ("True", "False"), done.stderr
    assert len(hub.repository(REPO).commits) == 2 and hub.repository(REPO).files()["b.model"] == b"\0b" * 90_000
    assert any("xet" in request for request in hub.requests)


NEW = {"tag": "v1", "public": True}
OVER = {"revision": "b", "public": True}
PROPOSED = {"create_pr": True}
"""How a new repository is pushed to, and a branch and a pull request of one that holds something."""


def requests_of(files, old, options) -> list[str]:
    """What a push without faults asks for."""
    with LoopbackHub() as hub:
        if old:
            push(hub, old)
        hub.reset()
        push(hub, files, **options)
        return list(hub.requests)


def strike(files, old, options, kind, at) -> str:
    """Pushes with a fault, then again; says what is not as it should be."""
    with LoopbackHub() as hub:
        if old:
            push(hub, old)
        hub.fail(kind, at)
        said = ""
        try:
            push(hub, files, **options)
        except DRPError as error:
            said = str(error)
        proposed = options.get("create_pr", False)
        branch = "refs/pr/1" if proposed else options.get("revision", "main")
        repository = hub.repositories.get(("dataset", REPO))
        if repository and {branch, f"refs/heads/{branch}"} & repository.refs.keys():
            complete = holds(repository, files, branch)
            assert complete or holds(repository, old, branch), f"{kind} at {at}: half a publication"
            assert complete or repository.private, f"{kind} at {at}: public before it is complete"
        else:
            complete = False
        assert complete or said, f"{kind} at {at}: nothing is there, and nothing was said"
        assert "\n" not in said and said.count("push again") <= 1
        hub.reset()
        push(hub, files, **options)
        repository = hub.repository(REPO)
        assert holds(repository, files, branch) and repository.private is proposed, f"{kind} at {at}: not finished"
        assert len(repository.pull_requests) == proposed, f"{kind} at {at}: a pull request too many"
        expected = 2 + bool(old)
        assert len(repository.history(branch)) == expected, f"{kind} at {at}: a commit too many"
        if "tag" in options:
            assert repository.refs["refs/tags/v1"].oid == repository.history(branch)[0].oid
        return said


def kind_of(request: str) -> str:
    """A request without what differs from file to file."""
    return re.sub(r"/uploads/.*", "/uploads", re.sub(r"[0-9a-f]{40}", "COMMIT", request))


def strike_all(cases) -> list[str]:
    """Many at a time: the client waits a second and longer before it tries again."""
    with ThreadPoolExecutor(24) as threads:
        return list(threads.map(lambda case: strike(*case), cases))


@pytest.mark.parametrize("options", [NEW, OVER, PROPOSED], ids=["new", "branch", "pull request"])
def test_a_fault_at_any_kind_of_request_leaves_all_or_nothing(files, options):
    old = {"README.md": CARD, "old.txt": b"old", "large/0.model": b"\0old"} if options != NEW else {}
    kinds = [kind_of(request) for request in requests_of(files, old, options)]
    first = sorted({kind: number for number, kind in reversed(list(enumerate(kinds)))}.values())
    assert len(first) >= 8
    faults = KINDS if options == NEW else ("cut", "cut-after")
    said = strike_all((files, old, options, kind, at) for kind, at in product(faults, first))
    assert any(said) and not all(said)


@pytest.mark.slow
@pytest.mark.parametrize("options", [NEW, OVER, PROPOSED], ids=["new", "branch", "pull request"])
def test_a_fault_at_every_request_leaves_all_or_nothing(files, options):
    old = {"README.md": CARD, "old.txt": b"old", "large/0.model": b"\0old"} if options != NEW else {}
    number = len(requests_of(files, old, options))
    strike_all((files, old, options, kind, at) for kind, at in product(KINDS, range(number)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cut", "500"])
def test_a_hub_that_stays_away_from_any_request_on_leaves_all_or_nothing(files, kind):
    def away_from(first):
        numbers = count()
        return lambda request: next(numbers) >= first

    number = len(requests_of(files, {}, NEW))
    said = strike_all((files, {}, NEW, kind, away_from(first)) for first in range(number))
    assert all(said)
