"""Imports run one way: pmulab, services, services._pmu; and no actor imports another."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ACTORS = ("services.guest", "services.host_perf", "services.kvm")
# Who puts the actors together imports them all.
WIRING = ("services.embedded",)
SOURCES = sorted(path for package in ("pmulab", "services") for path in (ROOT / package).rglob("*.py"))


def module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, also within functions and for type checking only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("path", [path for path in SOURCES if within(module(path), "services")], ids=module)
def test_services_import_nothing_of_pmulab(path: Path) -> None:
    assert [name for name in imported(path) if within(name, "pmulab")] == []


@pytest.mark.parametrize("actor", ACTORS)
def test_an_actor_imports_no_other_actor(actor: str) -> None:
    others = [other for other in ACTORS if other != actor]
    for path in SOURCES:
        if within(module(path), actor):
            assert [name for name in imported(path) if any(within(name, other) for other in others)] == [], path


@pytest.mark.parametrize("shared", ["services.linux_perf", "services.rpc", "services.wire"])
def test_what_actors_share_imports_no_actor(shared: str) -> None:
    for path in SOURCES:
        if within(module(path), shared):
            assert [name for name in imported(path) if any(within(name, actor) for actor in ACTORS)] == [], path


def test_nothing_of_services_but_the_wiring_imports_an_actor_from_outside() -> None:
    for path in SOURCES:
        name = module(path)
        if within(name, "services") and not any(within(name, package) for package in (*ACTORS, *WIRING)):
            assert [other for other in imported(path) if any(within(other, actor) for actor in ACTORS)] == [], path


def test_the_judge_imports_nothing_of_what_it_judges() -> None:
    judged = (*ACTORS, "services.linux_perf", "services.result", "pmulab")
    paths = [path for path in SOURCES if within(module(path), "services.judge")]
    assert paths
    for path in paths:
        assert [name for name in imported(path) if any(within(name, package) for package in judged)] == [], path
