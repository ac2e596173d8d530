"""Every command of pmulab's that a document shows is one that pmulab takes."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pmulab import cli, scenario

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LISTED = {"check", "explain", "inject", "run", "up"}


def commands() -> Iterator[str]:
    """Those in blocks of code, and in the text those with what they are about."""
    for document in DOCUMENTS:
        text, *blocks = re.split(r"^```.*$", document.read_text(), flags=re.MULTILINE)
        texts, blocks = [text, *blocks[1::2]], blocks[::2]
        yield from re.findall(r"^pmulab (.+?)\s*(?:#|$)", "\n".join(blocks), re.MULTILINE)
        yield from re.findall(r"`pmulab ([a-z]+ [^-`][^`]*)`", "\n".join(texts))


def test_the_documents_show_how_pmulab_is_used() -> None:
    assert {command.split()[0] for command in commands()} == LISTED


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_a_command_that_is_shown_can_be_given(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def dispatch(arguments: argparse.Namespace) -> int:
        given.append(arguments)
        return 0

    monkeypatch.setattr(cli, "_dispatch", dispatch)
    monkeypatch.chdir(ROOT)
    assert cli.main(shlex.split(command)) == 0
    (arguments,) = given
    if "scenario" in arguments and not arguments.scenario.isupper():
        scenario.load(arguments.scenario, designs=arguments.design, overrides=arguments.overrides)
