"""`drp push` finds the command of each kind."""

import sys

import pytest

from drp_hf import cli
from drp_hf.commands import push
from drp_hf.commands.parsing import parse
from drp_hf.hub.publication import PushOptions


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_it_lists_what_can_be_pushed(monkeypatch, capsys, arguments):
    monkeypatch.setattr(sys, "argv", ["drp", "push", *arguments])
    cli.main()
    shown = capsys.readouterr().out
    assert shown.startswith("usage: drp push <kind>") and all(kind in shown for kind in push.KINDS)


def test_an_unknown_kind_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["drp", "push", "picture"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err == (
        "error: no kind 'picture' of drp push; choose one of corpus, student, metric.\n"
    )


def test_options_are_read_from_flags():
    flags = ["--repo-id", "a/b", "--public", "--dry-run", "--revision", "step-1", "--tag", "v1", "--allow", "x", "y"]
    expected = PushOptions("a/b", public=True, revision="step-1", tag="v1", dry_run=True, allow=["x", "y"])
    assert parse(PushOptions, flags) == expected
