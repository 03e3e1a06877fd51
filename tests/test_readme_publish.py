"""README's section on publishing: its commands print what it shows, and its code runs, on the Hub on loopback."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documented_commands import ROOT, blocks, check_command, commands, parsed

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("### Publish\n")[2].partition("\n## ")[0]
RUN = """
import io, json, sys
from contextlib import redirect_stdout
from pathlib import Path
from drp_hf.cli import main
commands, code = json.loads(sys.argv[1])
printed = []
for command in commands:
    sys.argv = command
    with redirect_stdout(io.StringIO()) as output:
        main()
    printed.append(output.getvalue())
for block in code:
    exec(compile(block, block, "exec"), {})
Path("printed.json").write_text(json.dumps(printed))
"""


def shown() -> list[tuple[list[str], str]]:
    """The commands of the transcripts, as words, and what they print."""
    found = []
    for transcript in blocks(parsed(SECTION), "console"):
        for part in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
            command, output = re.match(r"((?:.*\\\n)*.*\n)((?s:.*))", part).groups()
            found.append((commands(command)[0], output))
    return found


def normalised(output: str, endpoint: str = "https://huggingface.co") -> list[str]:
    """Its words, without numbers, hashes and the frames of tables; where lines break is left to the terminal."""
    output = re.sub(r"[\u2500-\u257f]+", " ", output.replace(endpoint, "https://huggingface.co"))
    return re.sub(r"\b[0-9a-f]{7,40}\b|\d+(?:[.,]\d+)*(?: (?:bytes|[kMG]B))?", "#", output).split()


@pytest.fixture(scope="module")
def printed(published, tmp_path_factory) -> list[str]:
    """What the commands of the transcripts print, one after the other."""
    folder = tmp_path_factory.mktemp("readme")
    places = {"drp_hf/corpus/sample": published.corpus, "runs/quickstart/student": published.student}
    places |= {"runs/quickstart/before": published.before, "runs/quickstart/after": published.after}
    for place, made in places.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(made)
    code = blocks(parsed(SECTION), "python")
    assert code
    environment = published.environment | {"COLUMNS": "100", "HF_HOME": str(folder / "hf")}
    work = json.dumps([[command for command, _ in shown()], code])
    subprocess.run([sys.executable, "-c", RUN, work], check=True, env=environment, cwd=folder)
    return json.loads((folder / "printed.json").read_text())


def test_commands_print_what_is_shown(printed, published):
    for (command, expected), output in zip(shown(), printed, strict=True):
        words, there = normalised(expected), normalised(output, published.hub.url)
        if words[-1] == "…":
            words.pop()
            there = there[: len(words)]
        assert there == words, command


def test_the_hub_has_what_they_published(printed, published):
    corpus = published.hub.repository("you/sums_pruned", "dataset")
    assert corpus.private and "v1" in corpus.tags and len(corpus.commits) == 2  # one when it was made, one of ours
    assert not published.hub.repository("you/token_efficiency", "space").private


def test_other_commands_are_parsed_by_the_programs_they_name(monkeypatch):
    found = [words for block in blocks(parsed(SECTION), "bash") for words in commands(block)]
    assert found
    for words in found:
        check_command(words, monkeypatch)


def test_every_file_it_names_is_there():
    for path in re.findall(r"\]\(([^)#:]+)\)", SECTION):
        assert (Path(ROOT) / path).exists(), path
