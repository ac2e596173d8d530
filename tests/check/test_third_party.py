"""`pmulab check` of somebody else's designs, which may fail: nothing else is lost by that."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from pmulab.exit_status import BAD_INPUT, OK, UNSEARCHED

DESIGNS = """\
import os
import signal
from dataclasses import dataclass

from services.kvm.designs.partitioned import Partitioned


@dataclass(frozen=True, kw_only=True)
class Boom(Partitioned):
    name = "boom"
    why = "raises at once"

    def hpmn(self, cpu, counters):
        raise ValueError("boom")


@dataclass(frozen=True, kw_only=True)
class Later(Partitioned):
    name = "later"
    why = "raises in the midst of it"

    def hpmn(self, cpu, counters):
        asked.append(counters)
        return {**dict.fromkeys(range(60), counters)}[len(asked)]


@dataclass(frozen=True, kw_only=True)
class Dies(Partitioned):
    name = "dies"
    why = "takes its process with it"

    def hpmn(self, cpu, counters):
        os.kill(os.getpid(), signal.SIGKILL)
        return counters


asked = []
"""

ENTRY_POINTS = """\
[pmulab.designs]
boom = theirs:Boom
dies = theirs:Dies
later = theirs:Later
absent = theirs:Absent
number = theirs:__name__
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where their package is installed."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "theirs.py").write_text(DESIGNS)
    about = folder / "theirs-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    return folder


def pmulab(site: Path, words: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "pmulab", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120)


SHORT = ("--deck", "swap", "--depth", "0", "--walks", "2")


def test_an_entry_point_that_cannot_be_loaded_concerns_its_design_alone(site: Path, tmp_path: Path) -> None:
    done = pmulab(site, ["check", "partitioned", *SHORT], tmp_path)
    assert (done.returncode, done.stderr) == (OK, "")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("absent", "cannot be loaded: AttributeError: module 'theirs' has no attribute 'Absent'"),
        ("number", "is not a Design"),
    ],
)
def test_a_design_that_cannot_be_loaded_is_one_line(site: Path, tmp_path: Path, name: str, why: str) -> None:
    done = pmulab(site, ["check", name, *SHORT], tmp_path)
    assert done.returncode == BAD_INPUT
    assert done.stderr.startswith(f"pmulab: {name}: entry point '{name}' (theirs:")
    assert f"of group pmulab.designs {why}; " in done.stderr
    assert done.stderr.count("\n") == 1
    listed = pmulab(site, ["designs"], tmp_path)
    assert listed.returncode == OK
    assert f"\n{name}: entry point " in listed.stdout


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("boom", ", as the world is made: ValueError: boom (theirs.py:14)"),
        ("dies", ": its process was killed by SIGKILL (is memory short?)"),
    ],
)
def test_a_design_that_fails_is_said_to_and_the_others_are_searched(
    site: Path, tmp_path: Path, name: str, why: str
) -> None:
    done = pmulab(site, ["check", name, "partitioned-v7", *SHORT, "--jobs", "2"], tmp_path)
    assert done.returncode == UNSEARCHED
    assert done.stderr.splitlines() == [
        f"pmulab: {name}, deck swap in world pair{why}; and 3 more parts likewise",
        f"pmulab: {name}: nothing was searched",
    ]
    assert done.stdout.startswith(f"{name}: nothing was searched; 0 of 4 parts searched (4 not carried out)\n")
    assert "nothing found" not in done.stdout
    assert re.search(r"^partitioned-v7: \d+ found; 4 of 4 parts searched, ", done.stdout, re.MULTILINE)
    assert [*(tmp_path / "pmulab-check").glob("I*.toml")]


def test_of_a_design_that_raises_in_the_midst_it_is_said_at_which_step(site: Path, tmp_path: Path) -> None:
    done = pmulab(site, ["check", "later", *SHORT, "--walks", "9", "--world", "pair", "--json"], tmp_path)
    assert done.returncode == UNSEARCHED
    assert re.fullmatch(
        r"pmulab: later, deck swap in world pair, at vm\d/0 [a-z].*: KeyError: 60 \(theirs.py:24\)\n", done.stderr
    )
    (of,) = orjson.loads(done.stdout)
    (part,) = of["decks"]
    assert part["failed"] == "KeyError: 60 (theirs.py:24)"
    assert part["at"].startswith("at vm")
