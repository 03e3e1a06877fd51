"""Cards as they appear on the Hub: their metadata, and every link, picture, code and command in them."""

import json
import re
import shlex
import subprocess
import sys
from urllib.parse import urlsplit

import click
import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard, SpaceCard

from tests.documented_commands import blocks, check_command, commands, parsed

pytestmark = pytest.mark.slow

CARDS = {
    "drp_hf/sample": ("dataset", DatasetCard),
    "drp_hf/student": ("model", ModelCard),
    "drp_hf/token_efficiency": ("space", SpaceCard),
}
# Runs the examples of several cards; of each card they share their names. It gives what they leave to their reader.
RUN = """
import json, sys
for blocks in json.loads(sys.argv[1]):
    names = {"rank": 0, "world_size": 1, "my_share": [("What is 3 + 4?", "7")]}
    names["answers"] = lambda question: [("<think>3 + 4 = 7</think>The answer is 7.", 12, True)]
    for block in blocks:
        exec(compile(block, block, "exec"), names)
"""


@pytest.fixture(params=CARDS)
def repo_id(request):
    return request.param


@pytest.fixture
def files(repo_id, published) -> dict[str, bytes]:
    return published.hub.repository(repo_id, CARDS[repo_id][0]).files()


@pytest.fixture
def text(repo_id, published) -> str:
    return card(published, repo_id)


@pytest.fixture
def tokens(text) -> list:
    return body(text)


def card(published, repo_id: str) -> str:
    return published.hub.repository(repo_id, CARDS[repo_id][0]).files()["README.md"].decode()


def body(text: str) -> list:
    """The Markdown below the metadata."""
    return parsed(text.split("---\n", 2)[2])


# ---------------------------------------------------------------------------------------------------------- metadata


def test_the_clients_card_class_takes_all_of_the_metadata(repo_id, text):
    kind = CARDS[repo_id][1]
    card = kind(text)
    written = yaml.safe_load(text.split("---\n", 2)[1])
    again = kind(str(card)).data.to_dict()
    assert again == card.data.to_dict() == written
    assert card.text.strip()


def test_nothing_is_left_of_the_template(text):
    assert not re.search(r"\{\{|\}\}|\{%|%\}|\bTODO\b|\| *(None|nan) *\|", without_code(text))


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)


# ------------------------------------------------------------------------------------------------------------- links


def links(tokens: list) -> set[str]:
    """What links and pictures point to, in Markdown and in HTML."""
    found, todo = set(), list(tokens)
    while todo:
        token = todo.pop()
        todo += token.children or []
        found |= {str(value) for name, value in token.attrs.items() if name in ("href", "src")}
        if token.type in ("html_block", "html_inline"):
            found |= set(re.findall(r"""(?:href|src)=["']([^"']*)["']""", token.content))
    return found


def headings(tokens: list) -> set[str]:
    """The anchors that the Hub gives to headings."""
    titles = [after.content for token, after in zip(tokens, tokens[1:], strict=False) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_leads_somewhere(tokens, files):
    for link in links(tokens):
        url = urlsplit(link)
        if url.scheme:
            assert url.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", url.netloc) and " " not in link, link
        elif url.path:
            assert url.path in files, link
        else:
            assert url.fragment in headings(tokens), link


def test_every_fence_says_what_it_is(tokens):
    fences = [token for token in tokens if token.type == "fence"]
    assert fences and {token.info.strip() for token in fences} <= {"python", "bash", "bibtex", "yaml", "text"}
    assert all(yaml.safe_load(block) for block in blocks(tokens, "yaml"))


# ---------------------------------------------------------------------------------------------------- code, commands


def test_python_compiles(tokens):
    assert [compile(block, block, "exec") for block in blocks(tokens, "python")]


def test_python_runs(published, tmp_path):
    """Against the Hub, in a process of its own; what needs vLLM is left out."""
    found = [blocks(body(card(published, repo_id)), "python") for repo_id in CARDS]
    # A model of random weights would write for ever.
    runnable = [[b.replace("tokens=2048", "tokens=8") for b in of_card if "vllm" not in b] for of_card in found]
    assert all(runnable)
    command = [sys.executable, "-c", RUN, json.dumps(runnable)]
    subprocess.run(command, check=True, env=published.environment | {"HF_HOME": str(tmp_path / "hf")}, cwd=tmp_path)


def test_commands_are_parsed_by_the_programs_they_name(tokens, monkeypatch):
    for block in blocks(tokens, "bash"):
        for words in commands(block):
            check_command(words, monkeypatch)


@pytest.mark.parametrize(
    "command",
    ["drp prune traces.jsonl --colour red", "hf download a/b --colour red", "pip install a==", "curl https://x.yz"],
)
def test_a_wrong_command_is_found(command, monkeypatch):
    with pytest.raises((ValueError, click.ClickException, pytest.fail.Exception, SystemExit)):
        check_command(shlex.split(command), monkeypatch)
