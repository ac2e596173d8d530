"""What the search has found in each mutant is in it, and not in `partitioned`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from docs import mutants as page
from pmulab.check.worlds import decks
from pmulab.exit_status import FAILED
from services.kvm.designs import designs
from tests.check.searching import searched
from tests.mutants.drawn import BLIND, MUTANTS, SKIPPED
from tests.mutants.driver import OfDriver, in_force
from tests.mutants.explained import NOT_A_MUTANT, NOT_FOUND
from tests.mutants.hunt import broken, hunt, kept
from tests.mutants.table import ENTRY_POINTS, TABLE, offered
from tests.mutants.table import entry_points as entry_points_of

ROOT = Path(__file__).parents[2]

KEPT = kept()
FOUND = {name: one.counterexample for name, one in KEPT.items() if one.counterexample is not None}

OF_DRIVER = {name: one for name, one in TABLE.items() if issubclass(one, OfDriver)}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_is_in_the_mutant_and_not_in_partitioned(name: str) -> None:
    found = FOUND[name]
    with offered(), in_force(TABLE[name]):
        assert (found.invariant, found.kind) in broken(name, found.world, found.steps)
    assert broken("partitioned", found.world, found.steps) == set()


def test_each_is_found_or_explained() -> None:
    assert list(KEPT) == list(TABLE)
    assert {name for name in TABLE if name not in FOUND} == NOT_FOUND.keys()


def test_each_that_was_drawn_is_a_mutant_or_explained() -> None:
    assert {*TABLE, *NOT_A_MUTANT} == set(MUTANTS)
    assert not TABLE.keys() & NOT_A_MUTANT.keys()
    assert not set(MUTANTS) & SKIPPED.keys()


def test_there_are_enough() -> None:
    assert sum(name.startswith("B") for name in TABLE) >= 42
    assert sum(name.startswith("N") for name in TABLE) >= 20
    assert len(BLIND) == len(MUTANTS) // 3


def test_a_mutant_is_what_its_entry_point_says() -> None:
    assert ENTRY_POINTS.read_text() == entry_points_of(), "run python -m tests.mutants.table"
    with offered():
        known = designs()
        assert {point.name for point in entry_points(group="pmulab.designs")} >= TABLE.keys()
        assert {name: known[name] for name in TABLE} == TABLE
    assert not TABLE.keys() & designs().keys()


def test_none_is_offered_that_is_not_in_the_table() -> None:
    assert all(one.name == name and one.why for name, one in TABLE.items())
    assert all(found.deck in decks() and found.world in decks()[found.deck].worlds for found in FOUND.values())


@pytest.mark.parametrize("name", OF_DRIVER)
def test_a_driver_that_is_not_in_force_is_refused(name: str) -> None:
    with offered():
        assert "is not that of" in searched(name, "swap", "pair", walks=1).refused


def test_the_host_has_its_own_driver_again() -> None:
    before = {name: [getattr(of, place) for of, place in one.places] for name, one in OF_DRIVER.items()}
    for one in OF_DRIVER.values():
        with in_force(one):
            assert all(getattr(of, place) is one.function for of, place in one.places)
    assert {name: [getattr(of, place) for of, place in one.places] for name, one in OF_DRIVER.items()} == before


def check(*words: str, cwd: Path, **environment: str) -> str:
    """What a command prints that has found something."""
    found = subprocess.run(words, env={**os.environ, **environment}, cwd=cwd, capture_output=True, timeout=120)
    assert found.returncode == FAILED, found.stderr
    return found.stdout.decode()


def test_a_user_has_them_by_their_entry_points(tmp_path: Path) -> None:
    few = ["--deck", "swap", "--world", "pair", "--depth", "0", "--walks", "2"]
    paths = f"{ROOT}:{ENTRY_POINTS.parents[1]}"
    told = check(sys.executable, "-m", "pmulab", "check", "B49", *few, cwd=tmp_path, PYTHONPATH=paths)
    assert "I6 unsynchronised" in told


def test_a_user_has_those_with_a_driver_by_the_command(tmp_path: Path) -> None:
    few = ["--deck", "squeeze", "--world", "one", "--depth", "0", "--walks", "2"]
    told = check(sys.executable, "-m", "tests.mutants", "B3", *few, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert "I3 host_state" in told


def test_the_search_finds_what_is_kept() -> None:
    name = "B11"
    assert (hunt(name).counterexample, hunt(name).invariants) == (KEPT[name].counterexample, KEPT[name].invariants)


def test_the_page_says_what_is_kept() -> None:
    assert page.page(KEPT) == page.PAGE.read_text(), "run python -m docs.mutants --kept"
