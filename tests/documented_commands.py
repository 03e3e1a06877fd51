"""Commands in Markdown: found, and parsed by the programs that they name without being run."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
from huggingface_hub.cli.hf import app as hf
from markdown_it import MarkdownIt
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def parsed(text: str) -> list:
    """Markdown as a list of tokens."""
    return MarkdownIt("commonmark").enable("table").parse(text)


def blocks(tokens: list, language: str) -> list[str]:
    """The contents of the fences of a language."""
    return [token.content for token in tokens if token.type == "fence" and token.info.strip() == language]


def commands(block: str) -> list[list[str]]:
    """The commands of a block of shell, as words; comments are left out."""
    found: list[list[str]] = [[]]
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
        lexer.whitespace_split = True
        for word in lexer:
            if set(word) <= set("&|;"):
                found.append([])
            else:
                found[-1].append(word)
        found.append([])
    return [words for words in found if words]


def check_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where the program that a command names would not understand it."""
    if re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    program, *arguments = words
    monkeypatch.chdir(ROOT)
    if program == "drp":
        _check_ours(arguments, monkeypatch)
    elif program == "hf":
        context = _parse_click(hf, arguments)
        if script := context.params.get("script"):
            check_command(["uv", "run", script, *context.params["script_args"]], monkeypatch)
    elif program == "uv":
        _check_uv(arguments, monkeypatch)
    elif program == "pip":
        assert arguments.pop(0) == "install"
        assert all(Requirement(argument) for argument in arguments)
    elif program == "vllm":
        assert arguments[0] == "serve" and re.fullmatch(r"[\w.-]+/[\w.-]+", arguments[1])
    else:
        pytest.fail(f"no way to check: {shlex.join(words)}")


def _check_ours(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a stage parse its arguments, and stops before its work begins."""
    stage = arguments.pop(0)
    if stage == "push":
        stage = f"push_{arguments.pop(0)}"
    module, configs = importlib.import_module(f"drp_hf.commands.{stage}"), []
    monkeypatch.setattr(module, "main", lambda *of_stage: configs.extend(of_stage))
    monkeypatch.setattr(sys, "argv", [f"drp {stage}", *arguments])
    module.cli()
    assert configs


def _check_uv(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if arguments == ["build", "--wheel"]:
        return
    assert arguments.pop(0) == "run"
    if arguments[0] == "--no-sources":
        arguments.pop(0)
    script = Path(arguments.pop(0))
    assert (ROOT / "recipes" / script.name).is_file(), script
    _check_ours([script.stem, *arguments], monkeypatch)


def _parse_click(command: click.Command, arguments: list[str]) -> click.Context:
    """Parses with a command of the library click, down to the command that would run."""
    context = command.make_context(command.name, list(arguments))
    while isinstance(context.command, click.Group):
        name, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)
    return context
