"""`[[host.sysfs]]` under `reservation=sysfs`: an operator writes `reserved_host_counters` while a VM runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pmulab
from pmulab import Run, scenario
from pmulab.scenario import injection
from services.embedded import Embedded
from services.errors import UserError
from services.experiment import Experiment, ParameterWrite, ReservedHostCounters
from services.kvm.lab import request_of, wire_request
from services.kvm.parts import parts
from services.kvm.requests import Request
from services.kvm.simulation import Simulation
from services.registers import MDCR_EL2, MDCR_EL2_HPMN, PMCNTENSET_EL0, counter_mask
from tests.kvm.test_reserved_host_counters import with_reserved

DESIGN = "partitioned,reservation=sysfs"
MS = 3_000_000  # cycles
TEXT = """
[machine]
core = "neoverse-v3"
counters = 6
pcpus = 2
[host]
reserved_host_counters = 1
[[host.sysfs]]
at_ms = 10
reserved_host_counters = 4
[[host.perf]]
verb = "stat"
pcpu = 0
events = "instructions:u,branches:uH,cache-references:k,branch-misses"
[[guest]]
counters = 2
pin = [0]
[[guest.task]]
workload = "gzip-random"
seconds = 0.02
[guest.task.perf]
verb = "stat"
events = "cycles,instructions:u,branches:u"
[[host.task]]
pcpu = 0
workload = "gzip-random"
seconds = 0.01
"""


def text(first: int, then: int) -> str:
    """The scenario with `first` counters reserved, `then` others from 10 ms on."""
    head, tail = TEXT.split("[[host.sysfs]]")
    one, other = (part.replace("counters = 1", f"counters = {first}") for part in (head, tail))
    return f"{one}[[host.sysfs]]{other.replace('_counters = 4', f'_counters = {then}', 1)}"


def experiment_of(tmp_path: Path, of: str, design: str = DESIGN) -> Experiment:
    path = tmp_path / "own.toml"
    path.write_text(of)
    (made,) = scenario.load(str(path), designs=[design]).experiments
    return made


def run_of(tmp_path: Path, of: str, design: str = DESIGN) -> Run:
    path = tmp_path / "own.toml"
    path.write_text(of)
    (run,) = pmulab.run(path, designs=[design]).runs
    return run


@pytest.mark.parametrize(("first", "then"), [(1, 4), (4, 1)])
async def test_a_write_moves_the_hosts_range_and_no_vcpus(tmp_path: Path, first: int, then: int) -> None:
    """The host's counters are the highest: with 1 of 6, event counter 5; with 4, those from 2 on."""
    simulation = Embedded.of(experiment_of(tmp_path, text(first, then))).simulation
    machine, pcpu = simulation.board.machine, simulation.pcpus[0]
    used = {first: 0, then: 0}
    hpmn = set()
    while simulation.working:
        await simulation.step()
        if not pcpu.parameter_writes:
            assert pcpu.now >= 10 * MS
        else:
            assert pcpu.now < 10.1 * MS
        used[first if pcpu.parameter_writes else then] |= machine.peek(0, PMCNTENSET_EL0) & ~counter_mask(2)
        if pcpu.rq.current in simulation.vcpus:
            hpmn.add(machine.peek(0, MDCR_EL2) & MDCR_EL2_HPMN)
    assert used == {1: 0b100000, 4: 0b111100}
    assert hpmn == {2, 6}, "the VM's number of counters, or while its vCPU is FREE all"


@pytest.mark.parametrize(("first", "then"), [(1, 4), (4, 1)])
def test_both_sides_count_right_across_a_write(tmp_path: Path, first: int, then: int) -> None:
    run = run_of(tmp_path, text(first, then))
    for event in run.guests[0].events:
        assert event.count == pytest.approx(event.truth, rel=1e-3)
        assert event.running == 1
    for event in run.host.events:
        assert 0 < event.running < 1
        assert event.error is not None
        assert event.error.surplus == event.error.overflow == 0, "none leaks in"
        if event.event.rpartition(":")[2] in ("u", "uH"):
            assert event.error.stopped == 0, "none is lost: the host's EL0 does not run while its driver does"
    unwritten = run_of(tmp_path, text(first, first))
    gained = {e.event: e.running for e in run.host.events}
    for event in unwritten.host.events:
        assert (gained[event.event] > event.running) is (then > first)


def test_with_enough_counters_no_event_of_the_host_is_lost_or_leaks(tmp_path: Path) -> None:
    """Between 4 and 5 of 7 the four events stay on, out and in again at the write, with the filters that they need."""
    seven = text(4, 5).replace("counters = 6", "counters = 7")
    for event in run_of(tmp_path, seven).host.events:
        assert event.running == 1
        assert event.error is not None
        assert event.error.surplus == 0
        if event.event.rpartition(":")[2] in ("u", "uH"):
            assert event.count == event.truth, event.event


@pytest.mark.parametrize(
    ("then", "why"), [(5, "EBUSY: vm0 has 2 event counters, 1 of pCPU 0's"), (-1, "no partition of pCPU 0's")]
)
def test_a_write_that_takes_counters_of_a_vm_is_refused(tmp_path: Path, then: int, why: str) -> None:
    run, unwritten = run_of(tmp_path, text(1, then)), run_of(tmp_path, TEXT.replace("at_ms = 10", "at_ms = 10_000"))
    (fallback,) = run.design.fallbacks
    assert fallback.startswith(f"reserved_host_counters is not {then} from 10 ms on: ")
    assert why in fallback
    assert [e.count for e in run.host.events] == [e.count for e in unwritten.host.events]


def test_a_cpu_on_which_no_vm_may_run_goes_back_whole() -> None:
    of = with_reserved(4, 4, counters=2, reservation="sysfs")
    of = replace(of, host=replace(of.host, parameter_writes=(ParameterWrite(5, (4, -1)),)))
    made = Simulation(of)
    assert made.fallbacks == []
    policy = made.pcpus[1].host_policy(replace(of.cpus[1], reserved_host_counters=-1))
    assert (policy.counters, policy.guest_flags) == (counter_mask(10), 0)


@pytest.mark.parametrize("design", ["emulated", "partitioned", "partitioned,reservation=static", "partitioned-v8"])
def test_elsewhere_the_parameter_is_read_only(tmp_path: Path, design: str) -> None:
    fallbacks = run_of(tmp_path, TEXT, design).design.fallbacks
    assert "reserved_host_counters is not 4 from 10 ms on: EACCES: it is read at boot only" in fallbacks
    assert len(fallbacks) == (2 if design == "emulated" else 1)  # which does not read it at boot either


def test_what_is_left_is_held_against_arms_base_architectures_from_then_on(tmp_path: Path) -> None:
    """BSA: 2 event counters for the hypervisor."""
    of = experiment_of(tmp_path, text(1, 2).replace("counters = 2\npin", "counters = 4\npin"))
    found = [(one["host_counters"], one["bsa"]) for one in parts(Simulation(of).design, of)]
    assert found == [(1, False), (2, True)]


async def test_what_is_written_is_state(tmp_path: Path) -> None:
    """Saved before the write, after it and in between: pCPU 1 idles, and is told at its own time."""
    of = experiment_of(tmp_path, TEXT)
    lab = Embedded.of(of)
    kept: list[tuple[list[bool], dict[str, Any]]] = []
    while lab.simulation.working:
        await lab.simulation.step()
        written = [not pcpu.parameter_writes for pcpu in lab.simulation.pcpus]
        if not lab.simulation.entered and written not in [before for before, _ in kept]:
            kept.append((written, lab.state()))
    expected = lab.simulation.measured(await lab.simulation.result(), 0)["digest"]
    assert [False, False] in [written for written, _ in kept]
    assert [True, True] in [written for written, _ in kept]
    for _, saved in kept:
        again = Embedded.from_state(of, saved)
        await again.simulation.run()
        assert again.simulation.measured(await again.simulation.result(), 0)["digest"] == expected


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("at_ms = 10\n", "", "at_ms is required|at_ms"),
        ("at_ms = 10\nreserved_host_counters = 4", "at_ms = 10", "reserved_host_counters"),
        ("_counters = 4", "_counters = 7", "reserved_host_counters is 7, but pCPU 0 has 6 event counters"),
        ("_counters = 4", "_counters = [1, 2, 3]", "3 values for 2 pCPUs"),
        (
            "[[host.perf]]",
            "[[host.sysfs]]\nat_ms = 10\nreserved_host_counters = 2\n[[host.perf]]",
            "the write before is no earlier",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        experiment_of(tmp_path, TEXT.replace(old, new, 1))


# By a live client.


async def test_a_client_writes_it_at_once_and_is_told_why_not(tmp_path: Path) -> None:
    of = experiment_of(tmp_path, TEXT.replace("at_ms = 10", "at_ms = 1000"))
    lab = Embedded.of(of)
    simulation, pcpus = lab.simulation, lab.simulation.pcpus
    while simulation.now < 4 * MS or simulation.entered:
        await simulation.step()
    for values, why in (
        ((5, 1), "EBUSY: vm0 has 2"),
        ((1,), "1 of them, for 2 pCPUs"),
        ((-2, 1), "-1 is no partition"),
    ):
        with pytest.raises(ValueError, match=why):
            simulation.requests.add(Request("host", 0, parameter=ReservedHostCounters(values)))
    with pytest.raises(ValueError, match="is the host's"):
        simulation.requests.add(Request("vm0", 0, parameter=ReservedHostCounters((4, 4))))
    request = Request("host", 0, parameter=ReservedHostCounters((4, 3)))
    assert request_of(wire_request(request)) == request
    simulation.requests.add(request)
    began = simulation.now
    while any(pcpu.reserved_host_counters == 1 for pcpu in pcpus) or simulation.entered:
        assert simulation.now < began + 0.1 * MS
        await simulation.step()
    saved = lab.state()
    await simulation.run()
    result = simulation.measured(await simulation.result(), 0)
    assert [pcpu.reserved_host_counters for pcpu in pcpus] == [4, 3]
    again = Embedded.from_state(of, saved)
    await again.simulation.run()
    assert again.simulation.measured(await again.simulation.result(), 0)["digest"] == result["digest"]


async def test_what_a_client_leaves_is_held_against_arms_base_architectures(tmp_path: Path) -> None:
    written = TEXT[TEXT.index("[[host.sysfs]]") : TEXT.index("[[host.perf]]")]
    lab = Embedded.of(experiment_of(tmp_path, TEXT.replace(written, "")))
    await lab.simulation.step()
    lab.simulation.requests.add(Request("host", 0, parameter=ReservedHostCounters((4, 3))))
    await lab.simulation.run()
    result = lab.simulation.measured(await lab.simulation.result(), 0)
    assert [one["host_counters"] for one in result["parts"]] == [1, 4]


def test_pmulab_inject_reads_it(tmp_path: Path) -> None:
    of = experiment_of(tmp_path, TEXT)
    path = tmp_path / "write.toml"
    path.write_text("[sysfs]\nreserved_host_counters = 3\n")
    assert injection.load(str(path), of, "host", 0) == (ReservedHostCounters((3, 3)), [])
    path.write_text("[sysfs]\nreserved_host_counters = 7\n")
    with pytest.raises(UserError, match="pCPU 0 has 6 event counters"):
        injection.load(str(path), of, "host", 0)
