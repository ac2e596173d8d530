"""The published experiments: gzip at full length, the two that are predicted, and what the README says of gzip."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pmulab
from pmulab import Result, Run, report

ROOT = Path(__file__).resolve().parents[2]
DESIGNS = OTHER, BASE = "emulated-6.15", "partitioned-v1"
WITHIN = 0.03


@pytest.fixture(scope="module")
def whole() -> Result:
    return pmulab.run("gzip-record")


@pytest.fixture(scope="module")
def runs(whole: Result) -> dict[str, Run]:
    return {run.design.name: run for run in whole.runs}


@pytest.mark.parametrize(("design", "published"), [(OTHER, 4.143), (BASE, 3.139)])
def test_the_published_time_is_met(runs: dict[str, Run], design: str, published: float) -> None:
    assert runs[design].guests[0].elapsed_seconds == pytest.approx(published, rel=WITHIN)


def test_the_partitioned_sys_is_met_and_the_emulated_one_is_a_prediction(runs: dict[str, Run]) -> None:
    assert runs[BASE].guests[0].system_seconds == pytest.approx(0.110, rel=0.1)
    assert runs[OTHER].guests[0].system_seconds == pytest.approx(0.159, rel=0.25)
    published = [runs[design].published for design in DESIGNS]
    assert [of.fitted for of in published if of is not None] == [
        ("elapsed_seconds",),
        ("elapsed_seconds", "system_seconds"),
    ]


def test_specint_takes_longer_by_about_what_was_published_however_long_it_runs() -> None:
    longer = []
    for seconds in (1, 10):
        by = {
            run.design.name: run for run in pmulab.run("specint-stat", overrides={"guest.task.seconds": seconds}).runs
        }
        elapsed = {design: by[design].guests[0].elapsed_seconds for design in DESIGNS}
        longer.append(elapsed[OTHER] / elapsed[BASE] - 1)
    assert longer[1] == pytest.approx(longer[0], rel=0.01)
    assert longer[1] == pytest.approx(3789.16 / 3525.67 - 1, rel=0.1)


def test_the_host_prints_about_the_published_kernel_time_while_a_guest_records() -> None:
    result = pmulab.run("stress-record", overrides={"guest.task.seconds": 0.25})
    shares = {run.design.name: 100 * run.cputime.host_kernel / run.printed for run in result.runs}
    assert shares[OTHER] == pytest.approx(34.96, rel=0.1)
    assert (
        0 < shares[BASE] < 4
    )  # published 0.97: by ticks, few of which find the kernel, and by an assumed part of a trap


@pytest.mark.parametrize("design", DESIGNS)
def test_gzip_executes_eleven_thousand_million_instructions(runs: dict[str, Run], design: str) -> None:
    events = {event.event: event for event in runs[design].guests[0].events}
    # Those of 16 runs on 4 MiB, and the guest kernel's for it, 3.55 % of its time, and for perf.
    assert 1.027 * 11_011_475_664 < events["instructions"].truth < 1.06 * 11_011_475_664


@pytest.mark.parametrize("design", DESIGNS)
def test_fifteen_events_share_the_counters(runs: dict[str, Run], design: str) -> None:
    events = runs[design].guests[0].events
    assert len(events) == 15
    assert all(0 < event.running_ns < event.enabled_ns for event in events)
    # Six counters, hardly ever fewer; and the cycle counter while cycles are among the first 7 of the 15 events.
    shares = sum(event.running for event in events)
    assert shares == pytest.approx(6 + 7 / 15, rel=0.01)


def test_the_emulated_vpmu_traps_each_access_and_the_partitioned_one_hardly_any(runs: dict[str, Run]) -> None:
    traps = {design: runs[design].kvm.traps for design in DESIGNS}
    assert traps[OTHER].total > 4 * traps[BASE].total
    registers = {name.partition(":")[0] for name in traps[BASE].by_register}
    direct = {"PMCR_EL0", "PMCNTENSET_EL0", "PMCNTENCLR_EL0", "PMINTENSET_EL1", "PMINTENCLR_EL1", "PMUSERENR_EL0"}
    assert not registers & direct


def test_the_readme_shows_what_a_run_prints(whole: Result) -> None:
    shown = re.search(r"<!-- demo -->\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    assert lines(shown[1]) == lines(report.render(whole)), "python docs/readme.py demo brings the README up to date"


def lines(text: str) -> list[str]:
    """All that repeats from run to run."""
    return [line for line in text.splitlines() if not line.startswith("wall time")]
