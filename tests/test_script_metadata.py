"""Inline metadata (PEP 723): how `uv run recipes/sft.py` and `hf jobs uv run recipes/sft.py` find the package."""

import tomllib
from pathlib import Path

import pytest
from huggingface_hub.cli._uv_script_header import _extract_pep_723_block, parse_uv_script_header
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(params=RECIPES, ids=lambda path: path.stem)
def text(request):
    return request.param.read_text()


@pytest.fixture
def metadata(text):
    return tomllib.loads(_extract_pep_723_block(text))


def test_it_asks_for_this_package_and_its_python(metadata):
    assert metadata["requires-python"] == PROJECT["requires-python"]
    (requirement,) = map(Requirement, metadata["dependencies"])
    assert canonicalize_name(requirement.name) == canonicalize_name(PROJECT["name"])
    assert requirement.extras <= PROJECT["optional-dependencies"].keys()
    assert PROJECT["version"] in requirement.specifier


def test_in_a_clone_the_package_is_the_clone(metadata):
    ((name, source),) = metadata["tool"]["uv"]["sources"].items()
    assert name == PROJECT["name"] and source["editable"]
    assert (ROOT / "recipes" / source["path"]).resolve() == ROOT


def test_a_job_does_not_look_for_the_clone(text):
    assert parse_uv_script_header(text).env == {"UV_NO_SOURCES": "1"}
