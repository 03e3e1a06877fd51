"""What the Hub gets of a corpus folder: equal rows in shards, a card that says everything, the same bytes again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Features, load_dataset
from huggingface_hub import DatasetCard, HfApi
from PIL import Image

from drp_hf import PrunedCorpus
from drp_hf.commands import push_corpus as command
from drp_hf.commands.parsing import parse
from drp_hf.commands.prune import PruneConfig, main
from drp_hf.commands.push_corpus import PushCorpusArguments
from drp_hf.corpus import VIEWS
from drp_hf.corpus.builder import NAME, SAMPLE_DIR
from drp_hf.corpus.views import VIEW_FEATURES
from drp_hf.errors import DRPError
from drp_hf.hub import shards
from drp_hf.hub.corpus import CorpusOptions, corpus_publication
from tests.loopback_hub import LoopbackHub

TRACES = Path(__file__).parents[1] / "recipes" / "quickstart" / "sample_traces.jsonl"
LINES = TRACES.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A home folder with traces, a corpus of them, and a test set that has one of their questions."""
    home = tmp_path_factory.mktemp("home")
    cut_off = {**json.loads(LINES[1]), "response": "<think>"}
    (home / "traces.jsonl").write_text("\n".join([*LINES, json.dumps(cut_off)]), encoding="utf-8")
    problem = json.loads(LINES[2])
    (home / "heldout.jsonl").write_text(json.dumps({key: problem[key] for key in ("question", "answer")}))
    main(PruneConfig(traces=str(home / "traces.jsonl"), output_dir=str(home / "corpus")))
    return home


def options(place, **settings):
    return CorpusOptions(repo_id="somebody/sums", contamination=[str(place / "heldout.jsonl")], **settings)


@pytest.fixture(scope="module")
def published(place, tmp_path_factory):
    """The publication, laid out as the repository will be."""
    work = tmp_path_factory.mktemp("work")
    folder = tmp_path_factory.mktemp("repository")
    settings = {"license": "apache-2.0", "sources": ["openai/gsm8k=mit", "https://example.org/traces", "svamp"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(place))
        patch.setattr(shards, "SHARD_BYTES", 10_000)
        patch.setattr(shards, "GROUP_BYTES", 5_000)
        patch.setattr(shards, "BATCH", 2)
        publication = corpus_publication(place / "corpus", options(place, **settings), work)
        again = corpus_publication(place / "corpus", options(place, **settings), tmp_path_factory.mktemp("again"))
    lay_out(publication, folder)
    assert lay_out(again, tmp_path_factory.mktemp("repository")) == contents(folder)
    return folder


def lay_out(publication, folder):
    for name, content in publication.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return contents(folder)


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# ---------------------------------------------------------------------------------------------------------- files


def test_rows_are_equal(place, published):
    assert len(list((published / "steps").glob("train-*-of-*.parquet"))) > 1
    for view in VIEWS:
        local = load_dataset(str(place / "corpus"), view, split="train")
        pushed = load_dataset(str(published), view, split="train")
        assert pushed.features == local.features == VIEW_FEATURES[view]
        assert pushed.to_list() == local.to_list()
        stream = load_dataset(str(published), view, split="train", streaming=True)
        assert stream.features == VIEW_FEATURES[view] and list(stream) == local.to_list()
        by_name = load_dataset(NAME, view, data_dir=str(published), split="train")
        assert by_name.to_list() == local.to_list()


def test_only_what_is_meant_for_readers(published):
    others = {name for name in contents(published) if not name.endswith(".parquet")}
    assert others == {"README.md", "assets/tokens.png", "run.json"}


def test_what_was_published_can_be_published_again(place, published, tmp_path):
    """A folder that was fetched from the Hub is a corpus folder."""
    settings = {"license": "apache-2.0", "sources": ["openai/gsm8k=mit", "https://example.org/traces", "svamp"]}
    again = corpus_publication(published, options(place, **settings), tmp_path / "work")
    card, first = (DatasetCard(text) for text in (again.card, (published / "README.md").read_text(encoding="utf-8")))
    assert card.text == first.text and again.files["run.json"] == (published / "run.json").read_bytes()


# ----------------------------------------------------------------------------------------------------------- card


def test_front_matter(published):
    data = DatasetCard.load(published / "README.md").data.to_dict()
    assert data["license"] == "apache-2.0" and data["language"] == ["en"] and data["size_categories"] == ["n<1K"]
    assert data["source_datasets"] == ["openai/gsm8k", "svamp"]
    assert [config["config_name"] for config in data["configs"]] == list(VIEWS) and data["configs"][0]["default"]
    infos = {info["config_name"]: info for info in data["dataset_info"]}
    for config in data["configs"]:
        view = config["config_name"]
        info = infos[view]
        assert config["data_files"] == [{"split": "train", "path": f"{view}/train-*.parquet"}]
        assert Features._from_yaml_list(info["features"]) == VIEW_FEATURES[view]
        (split,) = info["splits"]
        rows = load_dataset(str(published), view, split="train")
        assert split["num_examples"] == len(rows) and info["dataset_size"] == split["num_bytes"] > len(rows)
        assert info["download_size"] == sum(file.stat().st_size for file in (published / view).glob("*.parquet"))


def test_card(place, published):
    text = (published / "README.md").read_text(encoding="utf-8")
    for line in (
        "# sums\n",
        'load_dataset("somebody/sums")  # the view sft\n',
        'load_dataset("somebody/sums", "steps")\n',
        "| traces read | 13 | 100.0% |",
        "![Lengths of the traces before and after pruning](assets/tokens.png)",
        "This corpus: `apache-2.0`. It was made from:",
        "| [openai/gsm8k](https://huggingface.co/datasets/openai/gsm8k) | `mit` |",
        "| [https://example.org/traces](https://example.org/traces) | not stated |",
        "Each of the 12 different questions was compared",
        "| heldout | 1 | 1 | 1 |",
        f"| {json.loads(LINES[2])['question']} | heldout |",
        "| student (wrote the traces) | `hand-written` |",
        "| traces | `traces.jsonl` (fingerprint `",
        "drp prune --config prune.yaml",
    ):
        assert line in text, line
    assert "█" not in text and str(place) not in text and str(place) not in (published / "run.json").read_text()
    assert "\n\n\n" not in text.partition("# sums")[2]


def test_the_settings_in_the_card_make_the_corpus_again(place, published, tmp_path, monkeypatch):
    text = (published / "README.md").read_text(encoding="utf-8")
    block = text.partition("```yaml\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    Path("prune.yaml").write_text(block)
    config = parse(PruneConfig, ["--config", "prune.yaml"])
    assert config.traces == "traces.jsonl" and config.output_dir == "corpus"
    (tmp_path / "traces.jsonl").write_bytes((place / "traces.jsonl").read_bytes())
    main(config)
    again, first = (load_dataset(str(folder / "corpus"), "sft", split="train") for folder in (tmp_path, place))
    assert again.to_list() == first.to_list()


def test_plot(published):
    with Image.open(published / "assets" / "tokens.png") as image:
        assert image.width > 800


def test_what_is_not_stated_is_said(place, tmp_path, caplog):
    publication = corpus_publication(SAMPLE_DIR, options(place, sources=["a/b"]), tmp_path)
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "The card states no licence, so that nobody may use the corpus",
        "The card states no licence of a/b",
    ]
    assert "No licence is stated" in publication.card and "run.json" not in publication.files
    assert "license" not in DatasetCard(publication.card).data.to_dict()
    assert "The settings that made it are not recorded." in publication.card


# -------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"license": "Apache 2.0"}, "license is 'Apache 2.0': give an identifier"),
        ({"sources": ["my own traces"]}, "sources has 'my own traces'"),
    ],
)
def test_wrong_settings(place, tmp_path, settings, message):
    with pytest.raises(DRPError, match=message):
        corpus_publication(place / "corpus", options(place, **settings), tmp_path)


def test_no_corpus(place, tmp_path):
    with pytest.raises(DRPError, match="has no raw/.*give a corpus folder"):
        corpus_publication(tmp_path, options(place), tmp_path / "work")


def test_a_corpus_of_the_hub_cannot_be_pushed(place):
    corpus = PrunedCorpus(data_dir=str(place / "corpus"))
    corpus.folder = "hf://datasets/somebody/sums"
    with pytest.raises(DRPError, match="is on the Hub already"):
        corpus.push_to_hub("somebody/sums")


# -------------------------------------------------------------------------------------------------------- command


def test_command_and_method_are_one(place, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    heldout = str(place / "heldout.jsonl")
    arguments = ["drp push corpus", str(place / "corpus"), "--repo-id", "somebody/sums", "--dry-run"]
    monkeypatch.setattr("sys.argv", [*arguments, "--license", "mit", "--contamination", heldout])
    command.cli()
    shown = capsys.readouterr().out
    assert "sft/train-00000-of-00001.parquet" in shown and "assets/tokens.png" in shown
    corpus = PrunedCorpus(data_dir=str(place / "corpus"))
    corpus.push_to_hub("somebody/sums", license="mit", contamination=[heldout], dry_run=True)
    assert capsys.readouterr().out == shown


@pytest.mark.slow
def test_a_push_from_a_script(place, tmp_path):
    """To the Hub and back by the name, in shards; a test set that the Hub lacks is said to be unchecked."""
    code = """
import sys
import datasets
import drp_hf
from drp_hf import PrunedCorpus
from drp_hf.commands.push_corpus import PushCorpusArguments, main
from drp_hf.hub import shards

shards.SHARD_BYTES, shards.GROUP_BYTES, shards.BATCH = 10_000, 5_000, 2
folder = sys.argv[1]
settings = {"license": "mit", "sources": ["openai/gsm8k=mit"], "contamination": ["svamp"]}
first = main(PushCorpusArguments(corpus=folder, repo_id="somebody/sums", **settings))
again = PrunedCorpus(data_dir=folder).push_to_hub("somebody/sums", **settings)
print(first.changed, again.changed, first.commit == again.commit)
for name, options in (
    ("somebody/sums", {}), ("drp_hf/gsm8k_pruned", {"data_dir": "hf://datasets/somebody/sums"})
):
    for view in ("sft", "steps"):
        loaded = datasets.load_dataset(name, view, split="train", **options)
        stream = datasets.load_dataset(name, view, split="train", streaming=True, **options)
        local = datasets.load_dataset(folder, view, split="train")
        print(loaded.to_list() == list(stream) == local.to_list(), loaded.features == local.features)
"""
    with LoopbackHub() as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "hf")}
        environment |= {"HOME": str(place), "PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-c", code, str(place / "corpus")]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        repository = hub.repository("somebody/sums")
        files = repository.files()
    where, *answers = result.stdout.splitlines()
    assert where == f"published: {hub.url}/datasets/somebody/sums"
    assert " ".join(answers).split() == ["True", "False", *["True"] * 9]
    assert "The corpus is not compared with svamp: the benchmark svamp cannot be loaded" in result.stderr
    assert b"**Not checked**, as they could not be read: svamp." in files["README.md"]
    assert len([name for name in files if name.startswith("steps/train-")]) > 1 and repository.private


def test_the_name_takes_a_revision(tmp_path):
    code = """
import sys
import datasets
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, HfApi
import drp_hf

name, sft = "drp_hf/gsm8k_pruned", "sft/train.parquet"
api = HfApi()
api.create_tag(name, tag="v1", repo_type="dataset")
api.create_branch(name, branch="runs/one", repo_type="dataset")
pq.write_table(pq.read_table(f"{sys.argv[1]}/{sft}").slice(0, 2), "rows.parquet")
first = api.repo_info(name, repo_type="dataset").sha
api.create_commit(name, [CommitOperationAdd(sft, "rows.parquet")], commit_message="Fewer", repo_type="dataset")
for revision in (None, "v1", "runs/one", first):
    loaded = datasets.load_dataset(name, split="train", revision=revision)
    stream = datasets.load_dataset(name, split="train", streaming=True, revision=revision)
    print(len(loaded), len(list(stream)))
for options in ({"revision": "v2"}, {"revision": "v1", "data_dir": sys.argv[1]}):
    try:
        datasets.load_dataset(name, **options)
    except ValueError as error:
        print(error)
"""
    with LoopbackHub({NAME: SAMPLE_DIR}) as hub:
        environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "hf")}
        environment |= {"PYTHONPATH": str(Path(__file__).parents[1])}
        command = [sys.executable, "-c", code, str(SAMPLE_DIR)]
        result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    *rows, unknown, twice = result.stdout.splitlines()
    assert rows == ["2 2", "12 12", "12 12", "12 12"]
    assert unknown.startswith("drp_hf/gsm8k_pruned@v2 cannot be loaded from the Hub (")
    assert twice.startswith("drp_hf/gsm8k_pruned takes data_dir or revision")


def test_what_was_loaded_once_loads_without_the_hub(tmp_path):
    code = """
import json
import sys
import datasets
import drp_hf

for options in json.loads(sys.argv[1]):
    try:
        loaded = datasets.load_dataset("drp_hf/gsm8k_pruned", split="train", **options)
        print(*loaded.features, len(list(loaded)))
    except ValueError as error:
        print(error)
"""
    sums = {"data_dir": "hf://datasets/somebody/sums"}
    once = [{}, {"name": "steps"}, {"revision": "v1"}, {"name": "raw", **sums}]
    never = [{"name": "raw"}, {"revision": "v2"}, sums]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(Path(__file__).parents[1])}

    def load(options, **variables):
        command = [sys.executable, "-c", code, json.dumps(options)]
        run = {"cwd": tmp_path, "capture_output": True, "text": True}
        result = subprocess.run(command, env=environment | variables, **run)
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines(), result.stderr

    with LoopbackHub({NAME: SAMPLE_DIR, "somebody/sums": SAMPLE_DIR}) as hub:
        environment |= {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token}
        HfApi(hub.url, token=hub.token).create_tag(NAME, tag="v1", repo_type="dataset")
        rows, _ = load(once)
        assert [line.rpartition(" ")[2] for line in rows] == ["12", "134", "12", "12"]
        hub.reset()
        streams = [{**options, "streaming": True} for options in once]
        answers, warnings = load([*once, *streams, *never], HF_HUB_OFFLINE="1")
        assert answers[:8] == [*rows, *rows] and not hub.requests
    assert "hf://datasets/drp_hf/gsm8k_pruned@v1 cannot be reached (Cannot reach http://127.0.0.1" in warnings
    assert answers[8].startswith("drp_hf/gsm8k_pruned cannot be loaded from the Hub (")
    assert answers[9].startswith("drp_hf/gsm8k_pruned@v2 cannot be loaded from the Hub (")
    assert load(once)[0] == rows  # nor does a Hub answer that is gone


def test_flags(place):
    parsed = parse(PushCorpusArguments, ["c", "--repo-id", "a/b", "--sources", "x/y=mit", "z"], positional="corpus")
    assert parsed.corpus == "c" and parsed.repo_id == "a/b" and parsed.sources == ["x/y=mit", "z"]
    assert "gsm8k" in parsed.contamination and not parsed.public
