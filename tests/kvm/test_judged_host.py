"""What the judge says of the host's perf: of shipped scenarios, under a correct design and under posted ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import orjson
import pytest
import trio

from pmulab import scenario
from services.embedded import Embedded
from services.experiment import Experiment


def _experiment(name: str, design: str) -> Experiment:
    (experiment,) = scenario.load(name, designs=[design], overrides=[]).experiments
    return experiment


def _run(experiment: Experiment) -> tuple[dict[str, Any], str]:
    async def run() -> tuple[dict[str, Any], str]:
        simulation = Embedded.of(experiment).simulation
        await simulation.run()
        await simulation.result()  # the counts are read
        machine = simulation.board.machine
        return orjson.loads(machine.judgement() or b"{}"), machine.digest()

    return trio.run(run)


def _found(judged: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["invariant"], one["kind"]) for one in judged["violations"] if one["victim"] == "host"}


@pytest.mark.parametrize("name", ["watchdog", "two-vms", "reservation"])
@pytest.mark.parametrize("design", ["partitioned", "emulated"])
def test_nothing_of_the_hosts_is_touched_by_a_correct_design(name: str, design: str) -> None:
    judged, _ = _run(_experiment(name, design))
    assert _found(judged) == set()
    assert judged["premises"]["I3"]
    assert judged["premises"]["I10"]


@pytest.mark.parametrize("design", ["partitioned-v7", "partitioned-v8", "partitioned-v9"])
def test_the_watchdog_dies_of_a_guest_that_takes_its_counter(design: str) -> None:
    """merge_sched_in: nothing brings a pinned event in ERROR back."""
    judged, _ = _run(_experiment("watchdog", design))
    assert ("I10", "event_pinned") in _found(judged)


def test_mdcr_el2_without_hpme_stops_the_hosts_events() -> None:
    """As posted up to v4: kvm_arm_setup_mdcr_el2 leaves HPME out."""
    judged, _ = _run(_experiment("overflow-latency", "partitioned-v4"))
    assert {("I3", "host_state"), ("I3", "event_count")} <= _found(judged)


def test_a_guest_that_is_given_the_cpus_pmu_changes_the_hosts_counters() -> None:
    judged, _ = _run(_experiment("two-vms", "raw"))
    assert {("I2", "host_state"), ("I2", "host_read"), ("I2", "event_count"), ("I10", "host_placement")} <= _found(
        judged
    )
    state = next(one for one in judged["violations"] if (one["invariant"], one["kind"]) == ("I2", "host_state"))
    assert state["other"].startswith("vm:")
    assert state["expected"] & ~state["actual"], "enables that are gone"


@pytest.mark.parametrize("design", ["partitioned", "emulated", "mediated"])
def test_a_run_is_the_same_whether_perf_tells_of_its_events_or_not(design: str) -> None:
    experiment = _experiment("watchdog", design)
    _, judged = _run(experiment)
    _, alone = _run(dataclasses.replace(experiment, judged=False))
    assert judged == alone
