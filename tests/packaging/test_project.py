"""The project's own files agree with one another."""

from __future__ import annotations

import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DESIGNS = "pmulab.designs"


def constraints() -> dict[str, str]:
    """Package, in normal form, to version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {normal(name): version for name, version in pairs}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_one_version_everywhere() -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    assert PROJECT["version"] == cargo == metadata.version("pmulab")


def test_every_dependency_is_pinned_exactly() -> None:
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    names = [normal(re.split(r"[^\w.-]", requirement)[0]) for requirement in wanted]
    assert [name for name in names if name not in constraints()] == []


def test_the_environment_has_what_is_pinned() -> None:
    installed = {name: metadata.version(name) for name in constraints()}
    assert installed == constraints()


def test_the_designs_that_are_installed_are_the_projects() -> None:
    installed = {
        point.name: point.value for point in metadata.distribution("pmulab").entry_points.select(group=DESIGNS)
    }
    assert installed == PROJECT["entry-points"][DESIGNS]


def test_every_target_of_the_makefile_is_listed() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    listed = subprocess.run(["make", "-s"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert re.findall(r"^make ([\w-]+)", listed, re.MULTILINE) == phony[1].split()


@pytest.mark.parametrize("target", ["demo", "test", "lint", "fit", "bench", "fuzz", "proto", "clean"])
def test_the_makefile_has_the_targets_that_people_look_for(target: str) -> None:
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_that_a_document_names_is_there(document: Path) -> None:
    named = re.findall(
        r"`((?:benchmarks|docs|examples|pmulab|proto|rust|services|tests)/[\w./-]+)`", document.read_text()
    )
    assert [path for path in named if not (ROOT / path).exists()] == []
