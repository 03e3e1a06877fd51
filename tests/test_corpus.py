"""A corpus folder: its views agree with its rows, and `load_dataset` finds them with and without the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import List, get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard

from drp_hf import Action, CorpusRow, Step
from drp_hf.commands.prune import PruneConfig, main
from drp_hf.corpus import VIEWS
from drp_hf.corpus.builder import NAME, SAMPLE_DIR
from drp_hf.corpus.card import CorpusSummary, View, render_card, write_card
from drp_hf.corpus.folder import rows_fingerprint, split_files, view_files
from drp_hf.corpus.origin import Origin, public_path, read_origin
from drp_hf.corpus.views import VIEW_FEATURES, view_rows
from drp_hf.errors import DRPError
from drp_hf.pruning import apply_steps, check
from drp_hf.records import Trace, final_response, render_output

TRACES = Path(__file__).parents[1] / "recipes" / "quickstart" / "sample_traces.jsonl"
REASONING = "2 + 3 = 5. Let me check: yes. And so, finally, it is 5."


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A corpus of the sample's traces, one wrong and one cut off among them."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = TRACES.read_text(encoding="utf-8").splitlines()
    wrong = {**json.loads(lines[0]), "answer": "148"}
    cut_off = {**json.loads(lines[1]), "response": "<think>"}
    traces = folder / "traces.jsonl"
    traces.write_text("\n".join([*lines, json.dumps(wrong), json.dumps(cut_off)]), encoding="utf-8")
    return main(PruneConfig(traces=str(traces), output_dir=str(folder / "corpus | {{x}}")))


def fresh(code: str, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs code in a new process, in an empty working folder, without a Hub."""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)


# ---------------------------------------------------------------------------------------------------------- views


def test_views_of_a_row():
    steps = [
        Step(0, 11, "addition", Action.KEEP),
        Step(11, 30, "checking a result", Action.DELETE),
        Step(30, 55, "clarify answer", Action.COMPRESS, "So it is 5."),
    ]
    pruned = "2 + 3 = 5. So it is 5."
    completion = render_output(pruned, final_response("5"))
    row = CorpusRow("2 + 3?", "5", REASONING, "Five.", "m", steps, pruned, completion, 30, 20, "t", True, "")
    user = [{"role": "user", "content": "2 + 3?"}]

    (sft,) = view_rows("sft", [row])
    assert sft["prompt"] == user and sft["completion"] == [{"role": "assistant", "content": completion}]
    assert [(completion[step["start"] : step["end"]], step["skill"], step["action"]) for step in sft["steps"]] == [
        ("2 + 3 = 5. ", "addition", "KEEP"),
        ("So it is 5.", "clarify answer", "COMPRESS"),
    ]
    (masked,) = view_rows("masked-raw", [row])
    whole = masked["completion"][0]["content"]
    assert whole == render_output(REASONING, "Five.") and masked["prompt"] == user
    assert "".join(whole[step["start"] : step["end"]] for step in masked["steps"]) == REASONING
    assert [step["action"] for step in masked["steps"]] == [step.action for step in steps]
    (pair,) = view_rows("pairs", [row])
    raw_output = f"<think>\n{REASONING}\n</think>\n\nFive."
    assert pair["prompt"] == user and pair["chosen"] == sft["completion"]
    assert pair["rejected"] == [{"role": "assistant", "content": raw_output}]
    of_steps = list(view_rows("steps", [row]))
    assert "".join(step["text"] for step in of_steps) == REASONING
    assert [step["position"] for step in of_steps] == [0, 1, 2] and of_steps[2]["rewrite"] == "So it is 5."
    assert list(view_rows("raw", [row])) == [row.to_dict()]


def test_rejected_rows_are_in_raw_and_steps_only():
    row = CorpusRow("q", "5", "abc", "d", "m", [Step(0, 3, "s", Action.DELETE)], reason="wrong answer: 4 for 5")
    assert [len(list(view_rows(view, [row]))) for view in VIEWS] == [0, 0, 1, 0, 1]
    assert not next(view_rows("steps", [row]))["accepted"]


# --------------------------------------------------------------------------------------------------------- folder


def test_views_of_a_real_corpus_agree(corpus):
    views = {view: load_dataset(str(corpus), view, split="train") for view in VIEWS}
    for view, data_set in views.items():
        assert data_set.features == VIEW_FEATURES[view]
    rows = [CorpusRow.from_dict(row) for row in views["raw"]]
    accepted = [row for row in rows if row.accepted]
    assert len(rows) == 14 and len(accepted) == 12 == len(views["sft"]) == len(views["pairs"])
    for row, sft, pair in zip(accepted, views["sft"], views["pairs"], strict=True):
        completion = sft["completion"][0]["content"]
        assert completion == row.completion == pair["chosen"][0]["content"]
        assert sft["prompt"][0]["content"] == row.question
        spans = sft["steps"]
        assert "".join(completion[span["start"] : span["end"]] for span in spans) == row.pruned_reasoning
        assert spans[0]["start"] == len("<think>\n")
        assert all(left["end"] == right["start"] for left, right in zip(spans, spans[1:], strict=False))
    assert views["steps"].to_list() == list(view_rows("steps", rows))
    reasons = [row.reason for row in rows if not row.accepted]
    assert reasons[0].startswith("wrong answer: ")
    assert reasons[1].startswith("unreadable row: think tags inside the reasoning or the response")
    assert reasons[1].endswith("traces.jsonl row 14)")


def test_accepted_rows_of_the_sample_keep_every_promise():
    rows = [CorpusRow.from_dict(row) for row in pq.read_table(SAMPLE_DIR / "raw" / "train.parquet").to_pylist()]
    assert 10 <= len(rows) <= 20 and all(row.accepted for row in rows)
    for row in rows:
        trace = Trace(row.question, row.answer, row.reasoning, row.response, row.model)
        pruned = apply_steps(row.reasoning, row.steps)
        assert pruned.text == row.pruned_reasoning and check(trace, row.steps, pruned) == ""
        assert row.completion == render_output(pruned.text, final_response(row.answer))
        assert 0 < row.tokens_after < row.tokens_before


def test_the_folder_loads_without_the_package(corpus, tmp_path):
    code = """
import sys
from datasets import load_dataset
folder = sys.argv[1]
assert load_dataset(folder)["train"].column_names == ["prompt", "completion", "steps"]
for view in ("sft", "masked-raw", "steps", "pairs", "raw"):
    whole = load_dataset(folder, view, split="train").to_list()
    assert list(load_dataset(folder, view, split="train", streaming=True)) == whole
    print(view, len(whole))
assert "drp_hf" not in sys.modules
"""
    result = fresh(code, tmp_path, str(corpus))
    assert result.returncode == 0, result.stderr
    lengths = dict(line.split() for line in result.stdout.splitlines())
    assert lengths["sft"] == lengths["pairs"] == "12" and lengths["raw"] == "14" and int(lengths["steps"]) > 50


def test_the_card(corpus):
    card = DatasetCard.load(corpus / "README.md")
    configs = {config["config_name"]: config for config in card.data.to_dict()["configs"]}
    assert list(configs) == list(VIEWS) and [name for name in configs if configs[name].get("default")] == ["sft"]
    for view, config in configs.items():
        assert config["data_files"] == [{"split": "train", "path": f"{view}/train.parquet"}]
        assert (corpus / view / "train.parquet").is_file()
    for line in (
        "# corpus | {{x}}\n",
        "| traces read | 14 | 100.0% |",
        "| accepted | 12 | 85.7% |",
        "| rejected: wrong answer | 1 | 7.1% |",
        "| rejected: unreadable row | 1 | 7.1% |",
        "`smollm2-embedded`",
        "slicing-default",
        "arxiv.org/abs/2505.13975",
        "traces.jsonl --output_dir",
        "| student (wrote the traces) | `hand-written` |",
        "| teacher (decided the steps) | `slicing-default` |",
        "| prompts | none: the teacher is no language model |",
        "| traces | `traces.jsonl` (fingerprint `",
    ):
        assert line in card.text, line
    raw = pq.read_table(corpus / "raw" / "train.parquet").to_pylist()
    before = sum(row["tokens_before"] for row in raw if row["accepted"])
    assert f"| before | {before:,} |" in card.text
    deleted = sum(step["action"] == "DELETE" for row in raw if row["accepted"] for step in row["steps"])
    assert f"| DELETE | {deleted} |" in card.text


def test_the_card_names_the_prompts_of_a_language_model():
    teachers = ("gpt (compact-v1, default, else slicing-default)", "gpt (paper-v3, hard)", "x (odd)")
    rows = [CorpusRow("q", "5", "", "", "m", teacher=teacher) for teacher in teachers]
    views = [View("raw", {"train": 3}, {"train": "raw/train.parquet"}, "0")]
    text = str(render_card("t", "t", CorpusSummary(rows), views, Origin()))
    assert "| prompts | protocol compact, version 1, protocol paper, version 3 |" in text
    assert "The settings that made it are not recorded." in text


def test_every_column_has_a_meaning():
    text = str(render_card("t", "t", CorpusSummary(), [View("raw", {}, {}, "0")], Origin()))
    columns = text[text.index("## Columns") : text.index("## How it was made")]
    for features in VIEW_FEATURES.values():
        inner = [name for value in features.values() if isinstance(value, List) for name in value.feature]
        for name in {*features, *inner} - {"role", "content"}:
            assert f"`{name}`" in columns, name


def test_histogram_counts_every_trace():
    rows = [
        CorpusRow("q", "5", "", "", "m", accepted=True, tokens_before=before, tokens_after=after)
        for before, after in [(1, 1), (100, 10), (100, 100), (1199, 11)]
    ]
    lines = CorpusSummary(rows).histogram().splitlines()
    assert lines[1].split() == ["0–99", "before", "█" * 14, "1"] and lines[2].split() == ["after", "█" * 40, "3"]
    counted = {name: sum(int(line.split()[-1]) for line in lines if name in line) for name in ("before", "after")}
    assert counted == {"before": 4, "after": 4}


def test_a_card_survives_odd_names(tmp_path):
    row = CorpusRow(
        "q", "5", "abc", "", "{{ model }}", [Step(0, 3, "a | b\n{% if %} <img>", Action.KEEP)], accepted=True
    )
    row = CorpusRow(**{**vars(row), "tokens_before": 5, "tokens_after": 3})
    counts = {"sft": {"train": 1}, "masked-raw": {}, "steps": {}, "pairs": {}, "raw": {"train": 1}}
    write_card(tmp_path, CorpusSummary([row]), counts, Origin(), "drp prune")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| a \\| b {% if %} &lt;img> | 1 | 0.0% |" in text and "`{{ model }}`" in text
    assert [config["config_name"] for config in DatasetCard(text).data.to_dict()["configs"]] == ["sft", "raw"]


# --------------------------------------------------------------------------------------------------- what lies where


def test_splits_are_whole_or_in_shards():
    names = ["sft/b-00001-of-00002.parquet", "sft/a.parquet", "README.md", "sft/b-00000-of-00002.parquet"]
    assert split_files(names, "sft") == {"a": ["sft/a.parquet"], "b": [names[3], names[0]]}
    for wrong in (names[:1], [*names, "sft/b.parquet"], ["a.parquet", "a-00000-of-00001.parquet"]):
        with pytest.raises(DRPError, match="sft has not every part of the split '[ab]' just once .*parquet"):
            split_files(wrong, "sft")


def test_the_fingerprint_of_rows_is_that_of_what_they_say(corpus, tmp_path):
    files = [file for each in view_files(corpus, "sft").values() for file in each]
    for name, change in (("same", {}), ("other", {"completion": None})):
        (tmp_path / name / "sft").mkdir(parents=True)
        for file in files:
            rows = [row | change for row in pq.read_table(file).to_pylist()]
            table = pa.Table.from_pylist(rows, schema=pq.read_schema(file))
            pq.write_table(table, tmp_path / name / "sft" / file.name, row_group_size=2, compression="none")
            assert (tmp_path / name / "sft" / file.name).read_bytes() != file.read_bytes()
    same, other = (rows_fingerprint(tmp_path / name, "sft") for name in ("same", "other"))
    assert same == rows_fingerprint(corpus, "sft") != other
    assert rows_fingerprint(corpus, "no view") is None


def test_no_path_of_this_machine_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    paths = {
        f"{tmp_path}/work/data/x.jsonl": "data/x.jsonl",
        f"{tmp_path}/models/7b": "models/7b",
        "~/models/7b": "models/7b",
        "/scratch/somebody/x.jsonl": "x.jsonl",
        "../../scratch/somebody/x.jsonl": "x.jsonl",
        "../models/7b": "models/7b",
        "data/x.jsonl": "data/x.jsonl",
        "Qwen/Qwen3-0.6B": "Qwen/Qwen3-0.6B",
        "slicing": "slicing",
    }
    assert {path: public_path(path) for path in paths} == paths and public_path(3) == 3
    assert read_origin(tmp_path) == Origin()
    config = {"traces": f"{tmp_path}/x.jsonl", "base_url": "http://10.0.0.1/v1", "model": None, "candidates": 2}
    run = {"stage": "prune", "config": config, "versions": {"drp_hf": "1"}, "inputs": {f"{tmp_path}/x.jsonl": "ab"}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    origin = read_origin(tmp_path)
    assert origin == Origin({"traces": "x.jsonl", "candidates": 2}, {"drp_hf": "1"}, {"x.jsonl": "ab"})
    assert yaml.safe_load(origin.to_yaml()) == origin.config
    (tmp_path / "run.json").write_bytes(origin.to_json())
    assert read_origin(tmp_path) == origin
    for content in ("[]", "{}", "no JSON"):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(DRPError, match="run.json is not what drp prune writes"):
            read_origin(tmp_path)


# -------------------------------------------------------------------------------------------------------- builder


def test_the_name_loads_a_folder(corpus):
    assert get_dataset_config_names(NAME) == ["sft", "masked-raw", "steps", "pairs", "raw", "sample"]
    default = load_dataset(NAME, data_dir=str(corpus))
    assert list(default) == ["train"]
    for view in VIEWS:
        by_name = load_dataset(NAME, view, data_dir=str(corpus), split="train")
        assert by_name.features == VIEW_FEATURES[view]
        assert by_name.to_list() == load_dataset(str(corpus), view, split="train").to_list()
        assert list(load_dataset(NAME, view, data_dir=str(corpus), split="train", streaming=True)) == by_name.to_list()
    assert default["train"].to_list() == load_dataset(NAME, "sft", data_dir=str(corpus))["train"].to_list()


def test_a_folder_that_was_written_anew_is_loaded_anew(tmp_path):
    traces = tmp_path / "traces.jsonl"
    lines = TRACES.read_text(encoding="utf-8").splitlines(keepends=True)
    for number in (3, 2):
        traces.write_text("".join(lines[:number]), encoding="utf-8")
        folder = str(main(PruneConfig(traces=str(traces), output_dir=str(tmp_path / "corpus"))))
        assert len(load_dataset(NAME, data_dir=folder, split="train")) == number
        assert len(load_dataset(folder, split="train")) == number


def test_sample_and_errors_without_hub_or_files(tmp_path):
    code = """
import json
import drp_hf
from datasets import load_dataset
sample = load_dataset("drp_hf/gsm8k_pruned", "sample")
print(json.dumps({"rows": len(sample["train"]), "columns": sample["train"].column_names}))
for name, options in [(None, {}), ("raw", {}), ("sft", {"data_dir": "missing"}), ("nothing", {}),
                      ("sft", {"data_files": "x.parquet"})]:
    try:
        load_dataset("drp_hf/gsm8k_pruned", name, **options)
    except ValueError as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""
    result = fresh(code, tmp_path)
    assert result.returncode == 0, result.stderr
    sample, default, raw, missing, nothing, files = map(json.loads, result.stdout.splitlines())
    assert sample == {"rows": 12, "columns": ["prompt", "completion", "steps"]}
    assert default == raw and default[0] == "DRPError"
    for part in ("cannot be loaded from the Hub", "data_dir=FOLDER", 'load_dataset("drp_hf/gsm8k_pruned", "sample")'):
        assert part in default[1]
    assert missing[1].startswith("missing is no corpus folder (no sft/<split>.parquet in it)")
    assert "'nothing' not found. Available: ['sft', 'masked-raw', 'steps', 'pairs', 'raw', 'sample']" in nothing[1]
    assert files[1].startswith("drp_hf/gsm8k_pruned takes no data_files")


def test_a_hub_that_does_not_answer(monkeypatch, tmp_path):
    import huggingface_hub

    # Port 9 discards: nothing listens there.
    monkeypatch.setattr("datasets.config.HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    huggingface_hub.HfFileSystem.clear_instance_cache()
    with pytest.raises(DRPError, match="cannot be loaded from the Hub .*; two ways work offline"):
        load_dataset(NAME)


def test_other_data_sets_load_as_before(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    assert load_dataset("json", data_files=str(tmp_path / "x.jsonl"), split="train").to_list() == [{"a": 1}]
    assert load_dataset("json", data_dir=str(tmp_path), split="train").to_list() == [{"a": 1}]


def test_importing_the_package_is_cheap(tmp_path):
    code = """
import sys, time
import datasets
before, start = set(sys.modules), time.process_time()
import drp_hf
print(time.process_time() - start)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    result = fresh(code, tmp_path)
    seconds, packages = result.stdout.splitlines()
    assert packages.split() == ["drp_hf"], result.stderr
    assert float(seconds) < 0.5  # of processor time, which other processes do not change
