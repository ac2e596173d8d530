"""The published gzip experiment at full length: both published times, and what the README says about it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pmulab
from pmulab import Result, Run, report

ROOT = Path(__file__).resolve().parents[2]
DESIGNS = ("emulated", "partitioned")
WITHIN = 0.03


@pytest.fixture(scope="module")
def whole() -> Result:
    return pmulab.run("gzip-record")


@pytest.fixture(scope="module")
def runs(whole: Result) -> dict[str, Run]:
    return {run.design.name: run for run in whole.runs}


@pytest.mark.parametrize(("design", "published"), [("emulated", 4.143), ("partitioned", 3.139)])
def test_the_published_time_is_met(runs: dict[str, Run], design: str, published: float) -> None:
    assert runs[design].guests[0].elapsed_seconds == pytest.approx(published, rel=WITHIN)


@pytest.mark.parametrize("design", DESIGNS)
def test_gzip_executes_eleven_thousand_million_instructions(runs: dict[str, Run], design: str) -> None:
    events = {event.event: event for event in runs[design].guests[0].events}
    # Those of 16 runs on 4 MiB, and the guest kernel's for it and for perf.
    assert 11_011_475_664 < events["instructions"].truth < 1.03 * 11_011_475_664


@pytest.mark.parametrize("design", DESIGNS)
def test_fifteen_events_share_the_counters(runs: dict[str, Run], design: str) -> None:
    events = runs[design].guests[0].events
    assert len(events) == 15
    assert all(0 < event.running_ns < event.enabled_ns for event in events)
    # Ten counters and the cycle counter; never more than all of them at once, hardly ever fewer.
    shares = sum(event.running for event in events)
    assert shares == pytest.approx(11, rel=0.05)


def test_the_emulated_vpmu_traps_each_access_and_the_partitioned_one_hardly_any(runs: dict[str, Run]) -> None:
    traps = {design: runs[design].kvm.traps for design in DESIGNS}
    assert traps["emulated"].total > 4 * traps["partitioned"].total
    registers = {name.partition(":")[0] for name in traps["partitioned"].by_register}
    direct = {"PMCR_EL0", "PMCNTENSET_EL0", "PMCNTENCLR_EL0", "PMINTENSET_EL1", "PMINTENCLR_EL1", "PMUSERENR_EL0"}
    assert not registers & direct


def test_the_readme_shows_what_a_run_prints(whole: Result) -> None:
    shown = re.search(r"<!-- demo -->\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    assert lines(shown[1]) == lines(report.render(whole)), "python docs/readme.py demo brings the README up to date"


def lines(text: str) -> list[str]:
    """All that repeats from run to run."""
    return [line for line in text.splitlines() if not line.startswith("wall time")]
