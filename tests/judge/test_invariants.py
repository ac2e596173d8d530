"""The table of the invariants, and what the judge does not know of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.invariants import PAGE, page
from services.judge.invariants import INVARIANTS
from services.kvm.declared import Declared, Victim, given_up
from services.kvm.designs import designs

ROOT = Path(__file__).parents[2]
SOURCES = [*(ROOT / "services/judge").rglob("*.py"), *(ROOT / "rust/judge").rglob("*.rs")]
# What is a word of the field, too, and what defects are called.
WORDS = {"emulated", "raw"}
DEFECT = re.compile(r"\b[BN]\d{1,2}\b")


def test_there_are_twelve() -> None:
    assert list(INVARIANTS) == [f"I{n}" for n in range(1, 13)]
    assert all(one.name == name and one.claim and one.observed for name, one in INVARIANTS.items())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_judge_names_no_design_and_no_defect(path: Path) -> None:
    source = path.read_text()
    names = {name for name in designs() if name not in WORDS}
    assert [name for name in names if re.search(rf"\b{re.escape(name)}\b", source)] == []
    assert DEFECT.findall(source) == []


@pytest.mark.parametrize("name", designs())
def test_what_a_design_gives_up_has_a_reason_and_is_given_up_once(name: str) -> None:
    declared = designs()[name].make({}).declared
    assert all(one.reason for one in declared)
    assert len({(one.invariant, one.victim, one.reason) for one in declared}) == len(declared)


def test_raw_gives_up_its_guests_neighbours_and_gunyah_the_host() -> None:
    for name, victim in (("raw", Victim.NEIGHBOUR), ("gunyah", Victim.HOST)):
        declared = designs()[name].make({}).declared
        assert [one.invariant for one in declared if one.victim is victim] == list(INVARIANTS)


def test_an_invariant_that_there_is_not_cannot_be_given_up() -> None:
    with pytest.raises(ValueError, match="no invariant 'I13', there are I1, I2"):
        Declared("I13", Victim.GUEST, "it is")
    assert [one.invariant for one in given_up(Victim.HOST, "it is", ["I3", "I10"])] == ["I3", "I10"]


def test_the_documentation_has_invariants_and_windows_as_they_are() -> None:
    assert PAGE.read_text() == page(), "python -m docs.invariants"
