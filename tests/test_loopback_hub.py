"""The Hub on loopback, asked by the real clients."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.loopback_hub import LoopbackHub

REPO = "drp_hf/things"
DATA = {"repo_id": REPO, "repo_type": "dataset"}


@pytest.fixture
def hub():
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def stranger(hub):
    return HfApi(endpoint=hub.url, token=False)


def push(api: HfApi, files: dict[str, bytes | Path], repo_type: str = "dataset", **settings):
    """One commit of files."""
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(REPO, operations, commit_message="Push", repo_type=repo_type, **settings)


# ------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.filterwarnings("ignore:It seems that you are about to commit a data file")
@pytest.mark.parametrize("kind", ["dataset", "model", "space"])
def test_a_commit_puts_files_and_takes_them_away(hub, api, tmp_path, kind):
    url = api.create_repo(REPO, repo_type=kind, private=True, space_sdk="gradio" if kind == "space" else None)
    assert (url.repo_id, url.repo_type) == (REPO, kind)
    (tmp_path / "big.parquet").write_bytes(b"PAR1" * 300_000)
    contents = {"README.md": b"---\nlicense: mit\n---\n", "a/数据.json": b"{}", "x.parquet": tmp_path / "big.parquet"}
    made = push(api, contents, kind)
    repository = hub.repository(REPO, kind)
    assert [commit.title for commit in repository.commits] == ["Push", "initial commit"]
    assert repository.commits[0].oid == made.oid and repository.private
    files = repository.files()
    assert files.keys() == {".gitattributes", *contents} and files["x.parquet"] == b"PAR1" * 300_000
    assert files["a/数据.json"] == b"{}"
    assert repository.commits[0].files["x.parquet"].source.parent == hub.folder, "large files lie on disk"
    gone = [CommitOperationDelete("a/"), CommitOperationDelete("x.parquet")]
    api.create_commit(REPO, gone, commit_message="Less", repo_type=kind)
    assert repository.files().keys() == {".gitattributes", "README.md"}
    with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
        api.delete_file("没有.txt", REPO, repo_type=kind)


def test_the_same_push_again_uploads_nothing_and_makes_no_commit(hub, api):
    api.create_repo(**DATA)
    files = {"README.md": b"---\nlicense: mit\n---\n", "x.parquet": b"PAR1" * 1000}
    first = push(api, files)
    hub.reset()
    assert push(api, files).oid == first.oid and len(hub.repository(REPO).commits) == 2
    assert not any(request.startswith("PUT") or "/commit/" in request for request in hub.requests)


def test_an_uploaded_object_is_not_sent_twice(hub, api):
    api.create_repo(**DATA)
    api.preupload_lfs_files(REPO, [CommitOperationAdd("x.parquet", b"PAR1" * 1000)], repo_type="dataset")
    assert hub.repository(REPO).files().keys() == {".gitattributes"}, "nothing is visible before the commit"
    hub.reset()
    push(api, {"x.parquet": b"PAR1" * 1000})
    assert not any(request.startswith("PUT") for request in hub.requests)
    assert hub.repository(REPO).files()["x.parquet"] == b"PAR1" * 1000


def test_what_becomes_an_lfs_object(hub, api):
    api.create_repo(**DATA)
    files = {"a.json": b"[1]", "w.safetensors": b"text", "p.png": b"png", "zeros": bytes(9), "long.json": b"1" * 10**7}
    push(api, {**files, "longer.json": b"1" * (10**7 + 1), ".gitignore": b"*.log\n", "run/x.log": b"ignored"})
    committed = {info.path: info for info in api.list_repo_tree(**DATA, recursive=True)}
    large = {path for path, info in committed.items() if info.lfs}
    assert large == {"w.safetensors", "p.png", "zeros", "longer.json"} and "run/x.log" not in committed
    assert committed["w.safetensors"].lfs.size == 4
    named = hub.repository(REPO).files()[".gitattributes"].decode().splitlines()[-2:]
    assert [line.split()[0] for line in named] == ["zeros", "longer.json"]


def test_a_commit_on_what_has_moved_is_refused(hub, api):
    api.create_repo(**DATA)
    old = api.dataset_info(REPO).sha
    push(api, {"a.txt": b"1"}, parent_commit=old)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as refused:
        push(api, {"a.txt": b"2"}, parent_commit=old)
    assert refused.value.response.status_code == 412 and hub.repository(REPO).files()["a.txt"] == b"1"


def test_a_card_that_is_not_yaml_is_refused(api):
    api.create_repo(**DATA)
    with pytest.raises(ValueError, match="Invalid metadata in README.md"):
        push(api, {"README.md": b"---\na: [\n---\n"})
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        push(api, {"README.md": b"# Title\n"})


def test_branches_and_tags(hub, api):
    api.create_repo(**DATA)
    first = push(api, {"a.txt": b"1"}).oid
    api.create_branch(**DATA, branch="runs/one")
    with pytest.raises(HfHubHTTPError, match="Reference already exists"):
        api.create_branch(**DATA, branch="runs/one")
    second = push(api, {"a.txt": b"2"}, revision="runs/one").oid
    api.create_tag(**DATA, tag="v1")
    repository = hub.repository(REPO)
    assert (repository.branches, repository.tags) == ({"main": first, "runs/one": second}, {"v1": first})
    assert [commit.oid for commit in repository.history("runs/one")][:2] == [second, first]
    assert repository.files("runs/one")["a.txt"] == b"2" and repository.files()["a.txt"] == b"1"
    commits = api.list_repo_commits(**DATA, revision="runs/one")
    assert [commit.title for commit in commits] == ["Push", "Push", "initial commit"]
    refs = api.list_repo_refs(**DATA)
    assert {ref.name for ref in refs.branches} == {"main", "runs/one"} and refs.tags[0].target_commit == first
    api.delete_branch(**DATA, branch="runs/one")
    api.delete_tag(**DATA, tag="v1")
    assert list(repository.branches) == ["main"] and not repository.tags
    with pytest.raises(RevisionNotFoundError):
        push(api, {"a.txt": b"3"}, revision="runs/one")
    api.delete_repo(**DATA)
    assert not api.repo_exists(**DATA)


def test_pull_requests(hub, api, tmp_path):
    api.create_repo(**DATA)
    proposal = push(api, {"x.parquet": b"PAR1"}, create_pr=True)
    repository = hub.repository(REPO)
    assert proposal.pr_revision == "refs/pr/1" and proposal.pr_url == f"{hub.url}/datasets/{REPO}/discussions/1"
    assert repository.files().keys() == {".gitattributes"} and repository.pull_requests[0].title == "Push"
    file = api.hf_hub_download(**DATA, filename="x.parquet", revision="refs/pr/1", cache_dir=tmp_path)
    assert Path(file).read_bytes() == b"PAR1"
    second = push(api, {"y.txt": b"y"}, revision="refs/pr/1")
    assert repository.files("refs/pr/1").keys() == {".gitattributes", "x.parquet", "y.txt"}
    [ref] = api.list_repo_refs(**DATA, include_pull_requests=True).pull_requests
    assert (ref.ref, ref.target_commit) == ("refs/pr/1", second.oid)
    assert [d.num for d in api.get_repo_discussions(REPO, repo_type="dataset")] == [1]
    details = api.get_discussion_details(REPO, 1, repo_type="dataset")
    assert (details.status, details.target_branch) == ("open", "refs/heads/main")
    assert [event.oid for event in details.events] == [proposal.oid, second.oid]
    api.merge_pull_request(REPO, 1, repo_type="dataset")
    assert repository.branches["main"] == second.oid and repository.pull_requests[0].status == "merged"


# ------------------------------------------------------------------------------------------------------------- reading


def test_a_private_repository_is_not_there_for_strangers(hub, api, stranger):
    api.create_repo(**DATA, private=True)
    push(api, {"a.txt": b"1"})
    with pytest.raises(HfHubHTTPError) as refused:
        stranger.create_repo("drp_hf/other")
    assert refused.value.response.status_code == 401
    for ask in (stranger.dataset_info, lambda repo: stranger.list_repo_files(repo, repo_type="dataset")):
        with pytest.raises(RepositoryNotFoundError):
            ask(REPO)
    assert not stranger.file_exists(**DATA, filename="a.txt") and not list(stranger.list_datasets())
    api.update_repo_settings(**DATA, private=False)
    assert stranger.file_exists(**DATA, filename="a.txt") and [d.id for d in stranger.list_datasets()] == [REPO]
    with pytest.raises(HfHubHTTPError) as refused:
        stranger.create_commit(REPO, [CommitOperationAdd("b", b"")], commit_message="b", repo_type="dataset")
    assert refused.value.response.status_code == 401 and "b" not in hub.repository(REPO).files()
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        HfApi(endpoint=hub.url, token="hf_wrong").dataset_info(REPO)
    assert api.whoami()["name"] == "tester"


def test_a_description_has_what_the_card_says(api):
    card = "---\nlicense: mit\npipeline_tag: text-generation\ntags:\n- reasoning\n---\n# M"
    api.create_repo(REPO)
    push(api, {"README.md": card.encode(), "w.safetensors": b"12"}, "model")
    info = api.model_info(REPO, files_metadata=True)
    assert (info.card_data.license, info.pipeline_tag, info.tags) == ("mit", "text-generation", ["reasoning"])
    assert {s.rfilename: s.size for s in info.siblings}["w.safetensors"] == 2
    assert [model.id for model in api.list_models(filter="reasoning")] == [REPO]
    assert not list(api.list_models(filter="other")) and not list(api.list_models(author="nobody"))


def test_ranges_of_a_file(hub, api):
    api.create_repo(**DATA)
    push(api, {"x.parquet": bytes(range(100)), "x.txt": b"0123456789"})
    for path, expected in (("x.parquet", bytes(range(20, 30))), ("x.txt", b"2345")):
        with HfFileSystem(endpoint=hub.url, token=hub.token).open(f"datasets/{REPO}/{path}", block_size=8) as stream:
            stream.seek(expected[0] if path == "x.parquet" else 2)
            assert stream.read(len(expected)) == expected
    url = f"{hub.url}/datasets/{REPO}/resolve/main/x.txt"
    ranges = {"bytes=8-": b"89", "bytes=-3": b"789", "bytes=8-99": b"89"}
    assert {asked: httpx2.get(url, headers={"Range": asked}).content for asked in ranges} == ranges
    assert httpx2.get(url, headers={"Range": "bytes=10-"}).status_code == 416


def test_a_long_listing_comes_in_pages(tmp_path):
    (tmp_path / "d").mkdir()
    for number in range(1001):
        (tmp_path / "d" / f"{number}.txt").touch()
    with LoopbackHub({REPO: tmp_path}) as hub:
        listed = list(HfApi(endpoint=hub.url).list_repo_tree(**DATA, recursive=True, expand=False))
        assert len(listed) == 1002 and len(hub.requests) == 2


# -------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("kind", ["500", "429"])
def test_a_request_that_is_refused(hub, api, kind):
    hub.fail(kind, at=1)
    api.whoami()
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo(**DATA)
    assert refused.value.response.status_code == int(kind) and not hub.repositories
    assert refused.value.response.headers.get("Retry-After") == {"429": "0", "500": None}[kind]
    api.create_repo(**DATA)


@pytest.mark.parametrize(("kind", "carried_out"), [("cut", False), ("cut-after", True)])
def test_a_connection_that_is_cut(hub, api, kind, carried_out):
    hub.fail(kind, at=0)
    with pytest.raises((httpx2.NetworkError, httpx2.RemoteProtocolError)):
        api.create_repo(**DATA)
    assert bool(hub.repositories) == carried_out
    assert api.create_repo(**DATA, exist_ok=True).repo_id == REPO


def test_an_upload_that_is_cut_is_tried_again(hub, api, tmp_path):
    (tmp_path / "x.parquet").write_bytes(os.urandom(3_000_000))
    api.create_repo(**DATA)
    hub.reset()
    hub.fail("cut", at=2)
    push(api, {"x.parquet": tmp_path / "x.parquet"})
    methods = [request.split()[0] for request in hub.requests]
    assert methods == ["POST", "POST", "PUT", "PUT", "POST", "POST"]
    assert hub.repository(REPO).files()["x.parquet"] == (tmp_path / "x.parquet").read_bytes()


def test_a_predicate_fails_every_request_that_it_is_true_of(hub, api):
    api.create_repo(**DATA)
    hub.fail("500", at=lambda request: "/commit/" in request)
    for _ in range(2):
        with pytest.raises(HfHubHTTPError):
            push(api, {"a.txt": b"1"})
    assert len(hub.repository(REPO).commits) == 1
    hub.reset()
    push(api, {"a.txt": b"1"})
    assert hub.repository(REPO).files()["a.txt"] == b"1"


def test_a_fault_of_no_kind(hub):
    with pytest.raises(ValueError, match="no fault '404'"):
        hub.fail("404", at=0)


def test_a_client_that_goes_away_within_a_commit_commits_nothing(hub, api):
    api.create_repo(**DATA)
    lines = b'{"key": "header", "value": {"summary": "x"}}\n{"key": "file", "value": {"path": "a", "content": ""}}\n'
    head = f"POST /api/datasets/{REPO}/commit/main HTTP/1.1\r\nAuthorization: Bearer {hub.token}\r\n"
    for length in ("Content-Length: 999\r\n\r\n", f"Transfer-Encoding: chunked\r\n\r\n{len(lines):x}\r\n"):
        with socket.create_connection(httpx2.URL(hub.url).netloc.decode().split(":")) as connection:
            connection.sendall(head.encode() + length.encode() + lines)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(1) == b""
    assert sum("/commit/" in request for request in hub.requests) == 2 and len(hub.repository(REPO).commits) == 1


def test_an_object_that_was_never_uploaded_cannot_be_committed(hub, api):
    api.create_repo(**DATA)
    line = '{"key": "lfsFile", "value": {"path": "x", "algo": "sha256", "oid": "0", "size": 1}}'
    url, headers = f"{hub.url}/api/datasets/{REPO}/commit/main", {"Authorization": f"Bearer {hub.token}"}
    header = '{"key": "header", "value": {"summary": "x"}}\n'
    assert httpx2.post(url, content=header + line, headers=headers).status_code == 400
    assert len(hub.repository(REPO).commits) == 1


# ----------------------------------------------------------------------------------------------------- other libraries

LIBRARIES = """
import evaluate, numpy, torch
from huggingface_hub import CommitOperationAdd, HfApi
from datasets import Dataset, load_dataset
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, pipeline
from drp_hf.models import load_tokenizer

numbers = numpy.random.default_rng(0).standard_normal(100_000, dtype=numpy.float32)
contents = {"full.npy": numbers.tobytes(), "half.npy": numbers.astype("f2").tobytes(), "text.zst": b"ab" * 99_999}
operations = [CommitOperationAdd(path, content) for path, content in contents.items()]
HfApi().create_repo("drp_hf/files")
HfApi().create_commit("drp_hf/files", operations, commit_message="By Xet")
for path, content in contents.items():
    assert open(HfApi().hf_hub_download("drp_hf/files", path), "rb").read() == content, path

Dataset.from_dict({"n": range(100)}).push_to_hub("drp_hf/rows", "numbers", private=True, num_shards=2)
Dataset.from_dict({"s": ["a", "b"]}).push_to_hub("drp_hf/rows", "letters", split="test")
print(load_dataset("drp_hf/rows", "numbers", split="train")["n"][98:])
print([row["n"] for row in load_dataset("drp_hf/rows", "numbers", split="train", streaming=True)][:2])
print(load_dataset("drp_hf/rows", "letters"))

sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=49152))
model.push_to_hub("drp_hf/tiny")
load_tokenizer("smollm2-embedded").push_to_hub("drp_hf/tiny")
loaded = AutoModelForCausalLM.from_pretrained("drp_hf/tiny")
print(torch.equal(loaded.lm_head.weight, model.lm_head.weight))
print(len(pipeline("text-generation", model="drp_hf/tiny")("One", max_new_tokens=2)))

print(evaluate.load("drp_hf/count").compute(predictions=[1, 2], references=[0, 0]))
"""
METRIC = """
import datasets
import evaluate

class Count(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(description="Counts.", citation="", features=features)

    def _compute(self, predictions, references):
        return {"count": len(predictions)}
"""


@pytest.mark.slow
def test_datasets_transformers_and_evaluate(hub, api, tmp_path):
    api.create_repo("drp_hf/count", repo_type="space", space_sdk="gradio")
    api.upload_file(
        path_or_fileobj=METRIC.encode(), path_in_repo="count.py", repo_id="drp_hf/count", repo_type="space"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path)}
    for setting in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET"):
        environment.pop(setting, None)
    command = [sys.executable, "-c", LIBRARIES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["[98, 99]", "[0, 1]"] and "num_rows: 2" in done.stdout
    assert lines[-3:] == ["True", "1", "{'count': 2}"]
    assert any("/v1/xorbs/" in request for request in hub.requests), "as the clients are, they upload to Xet"
    rows = hub.repository("drp_hf/rows")
    assert rows.private and sum(path.endswith(".parquet") for path in rows.files()) == 3
    assert "model.safetensors" in hub.repository("drp_hf/tiny", "model").files()
