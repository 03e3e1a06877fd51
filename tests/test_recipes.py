from enum import Enum
from pathlib import Path

import pytest
import yaml
from trl import ModelConfig

from drp_hf.benchmarks import BENCHMARKS
from drp_hf.commands.dpo import DPOArguments, PairConfig
from drp_hf.commands.evaluate import EvaluateConfig
from drp_hf.commands.generating import check_generation
from drp_hf.commands.parsing import parse
from drp_hf.commands.prune import PruneConfig
from drp_hf.commands.prune import check as check_prune
from drp_hf.commands.push_corpus import PushCorpusArguments
from drp_hf.commands.rollout import RolloutConfig
from drp_hf.commands.sft import SFTArguments
from drp_hf.commands.training import check
from drp_hf.drp_config import DRPConfig

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
TYPES = {
    "rollout": RolloutConfig,
    "prune": PruneConfig,
    "sft": (SFTArguments, DRPConfig, ModelConfig),
    "dpo": (DPOArguments, PairConfig, ModelConfig),
    "evaluate": EvaluateConfig,
    "push": PushCorpusArguments,
}
# The quickstart gives these on the command line, and an experiment the last.
GIVEN = {
    stage: [f"--{asked}", "p", "--model", "m", "--output_dir", "o"]
    for stage, asked in {"rollout": "problems", "evaluate": "benchmarks"}.items()
} | {"push": ["--corpus", "c", "--repo_id", "you/it"]}
# The study gives half of its settings on the way (tests/test_study.py).
FOLDERS = sorted(path.parent for path in RECIPES.glob("*/sft.yaml") if path.parent.name != "study")
FILES = sorted(path for folder in FOLDERS for path in folder.glob("*.yaml"))


def stage_of(path):
    """`sft_masked_raw.yaml` is for `drp sft`."""
    return path.stem.partition("_")[0]


def settings(path):
    return yaml.safe_load(path.read_text())


def plain(value):
    """A parsed setting as YAML writes it."""
    value = value.value if isinstance(value, Enum) else value
    if isinstance(value, list) and len(value) < 2:
        return value[0] if value else "none"
    return value


def test_every_file_belongs_to_a_command():
    assert {stage_of(path) for path in FILES} == set(TYPES)
    assert {folder.name for folder in FOLDERS} >= {"quickstart", "gsm8k_r1_distill_qwen_7b", "gsm8k_qwen3_0.6b"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_command_of_its_name_takes_every_setting(path):
    stage = stage_of(path)
    given = GIVEN.get(stage, []) if path.parent.name == "quickstart" or stage == "push" else []
    config = parse(TYPES[stage], ["--config", str(path), *given])
    if stage in ("sft", "dpo"):
        check(stage, *config)
    if stage == "prune":
        check_prune(config)
    if stage in ("rollout", "evaluate"):
        check_generation(config)
    parsed = {}
    for part in config if isinstance(config, tuple) else [config]:
        parsed |= {name: plain(value) for name, value in vars(part).items()}
    expected = {name: plain(value) for name, value in settings(path).items()}
    assert {name: parsed[name] for name in expected} == expected


def test_an_unknown_setting_is_refused(tmp_path):
    path = tmp_path / "sft.yaml"
    path.write_text((RECIPES / "quickstart" / "sft.yaml").read_text() + "lora_rank: 8\n")
    with pytest.raises(ValueError, match="lora_rank"):
        parse(TYPES["sft"], ["--config", str(path)])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_what_one_stage_writes_the_next_one_reads(folder):
    stages = {path.stem: settings(path) for path in folder.glob("*.yaml")}
    rollout, prune, sft, evaluate = (stages[name] for name in ("rollout", "prune", "sft", "evaluate"))
    run = f"runs/{folder.name}"
    assert prune["traces"] == f"{rollout.get('output_dir', run + '/rollout')}/traces.jsonl"
    assert sft["dataset"] == prune["output_dir"]
    assert sft["model_name_or_path"] == rollout.get("model", "quickstart-reasoner")
    assert evaluate.get("model", sft["output_dir"]) == sft["output_dir"]
    if "dpo" in stages:
        assert stages["dpo"]["dataset"] == prune["output_dir"]
        assert stages["dpo"]["model_name_or_path"] == sft["output_dir"]
    written = [config["output_dir"] for config in stages.values() if "output_dir" in config]
    assert len(set(written)) == len(written) and all(path.startswith(f"{run}/") for path in written)
    if folder.name != "quickstart":
        assert prune["tokenizer"] == rollout["model"]
        assert (rollout["problems"], rollout["split"]) == ("gsm8k", "train") and BENCHMARKS["gsm8k"].split == "test"
        assert set(evaluate["benchmarks"]) <= set(BENCHMARKS) and evaluate["samples"] == 5
