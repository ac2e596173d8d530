"""docs/hypotheses.md: what becomes of each hypothesis is what its script shows."""

from __future__ import annotations

import pytest

from docs import hypotheses
from docs.hypotheses import Scripted

SCRIPTED = [run for one in hypotheses.hypotheses() for run in one.runs]


@pytest.mark.parametrize("run", SCRIPTED, ids=lambda run: f"{run.script} {run.design}")
def test_a_script_shows_what_is_said_of_it(run: Scripted) -> None:
    assert run.wrong() == []


def test_every_verdict_but_one_rests_on_a_script() -> None:
    """A pseudo-NMI amid a write comes of a workload: tests/kvm/test_defects_in_scenarios.py."""
    without = [one.name for one in hypotheses.hypotheses() if not one.runs]
    assert without == ["N24"]
    assert all(run.shows or run.absent or run.gives for run in SCRIPTED)


def test_every_script_is_run() -> None:
    there = {f"hypotheses/{path.stem}" for path in (hypotheses.DOCS / "hypotheses").glob("*.toml")}
    assert there == {run.script for run in SCRIPTED}


def test_the_page_is_what_the_data_gives() -> None:
    assert hypotheses.PAGE.read_text() == hypotheses.page(), "run python -m docs.hypotheses"
