"""`pmulab check` of somebody else's designs, which may fail: nothing else is lost by that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pmulab.exit_status import BAD_INPUT, OK

DESIGNS = """\
from dataclasses import dataclass

from services.kvm.designs.partitioned import Partitioned


@dataclass(frozen=True, kw_only=True)
class Boom(Partitioned):
    name = "boom"
    why = "raises at once"

    def hpmn(self, cpu, counters):
        raise ValueError("boom")
"""

ENTRY_POINTS = """\
[pmulab.designs]
boom = theirs:Boom
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
