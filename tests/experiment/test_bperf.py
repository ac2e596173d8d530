"""perf stat with `b` in whole runs: on every CPU, for tasks of guests and of the host (bperf, Linux 6.12)."""

from __future__ import annotations

from pathlib import Path

import pytest

import pmulab
from pmulab import scenario
from services.embedded import Embedded
from services.result import Event

GUEST = """
[machine]
core = "ten-counters"
[kvm]
designs = ["partitioned"]
[[guest]]
vcpus = 2
pin = [0, 0]
counters = 1
"""
TASK = """
[[guest.task]]
name = "{name}"
workload = "gzip-text"
seconds = {seconds}
vcpu = {vcpu}
"""
STAT = """
[guest.task.perf]
verb = "stat"
events = {events}
"""


def task(name: str, *, vcpu: int = 0, seconds: float = 0.02, events: str = "") -> str:
    of = TASK.format(name=name, vcpu=vcpu, seconds=seconds)
    return of + (STAT.format(events=events) if events else "")


def run(tmp_path: Path, text: str) -> pmulab.Run:
    path = tmp_path / "bperf.toml"
    path.write_text(text)
    (one,) = pmulab.run(path).runs
    return one


def of(events: tuple[Event, ...], session: str) -> list[Event]:
    return [event for event in events if event.session == session]


def test_the_count_is_exact_for_each_of_two_programs_that_take_turns(tmp_path: Path) -> None:
    """Both by one counter, which is all that the guest has: two events of their own take turns on it."""
    both = task("a", events='"instructions:ub"') + task("b", events='"instructions:ub"')
    (first, second) = run(tmp_path, GUEST + both).guests[0].events
    for event in (first, second):
        assert event.count == event.scaled == event.truth > 0
        assert event.running == 1.0
    two = task("a", events='["instructions:ub", "branches:ub"]')
    taking_turns = run(tmp_path, GUEST + two).guests[0].events
    assert all(event.running < 0.7 for event in taking_turns)


def test_the_leader_takes_a_counter_on_the_other_cpu_until_the_last_program_has_ended(tmp_path: Path) -> None:
    """The guest's only one: an event of a task on the other vCPU has what is left of its time."""
    other = task("other", vcpu=1, seconds=0.04, events='"branches:u"')
    (alone,) = run(tmp_path, GUEST + other).guests[0].events
    assert alone.running == 1.0
    followed, beside = run(tmp_path, GUEST + other + task("a", events='"instructions:ub"')).guests[0].events
    assert followed.count == followed.truth
    assert beside.running < 0.9
    assert beside.running_ns / alone.running_ns > 0.5, "and has all when the program has ended"


HOST = """
[machine]
core = "ten-counters"
pcpus = 2
[kvm]
designs = ["partitioned"]
[[host.task]]
workload = "gzip-text"
seconds = 0.02
pcpu = 0
[host.task.perf]
verb = "stat"
events = ["instructions:ub", "instructions:u"]
[[host.task]]
workload = "sqlite"
seconds = 0.05
pcpu = 0
[[host.task]]
workload = "sqlite"
seconds = 0.05
pcpu = 1
"""


async def test_a_program_of_the_host_is_counted_and_its_leaders_are_gone_with_it(tmp_path: Path) -> None:
    path = tmp_path / "bperf.toml"
    path.write_text(HOST)
    (experiment,) = scenario.load(str(path)).experiments
    lab = Embedded.of(experiment)
    perf = lab.host.perf
    seen = 0
    while lab.simulation.working:
        await lab.simulation.step()
        perf = lab.host.perf
        if perf is not None and perf.shared.leaders:
            seen = max(seen, len(perf.shared.leaders[0].events))
    assert seen == 2, "CPUs"
    assert perf is not None
    assert perf.events == {}
    assert [cpu.pmu.used for cpu in perf.cpus] == [0, 0]
    (bpf, own) = run(tmp_path, HOST).host.events
    assert bpf.count == own.count == bpf.truth == own.truth > 0


@pytest.mark.parametrize("to", ["", "to_ms = 10"])
async def test_a_cpu_that_goes_offline_takes_its_leader_with_it(tmp_path: Path, to: str) -> None:
    """perf_event_exit_cpu. Nobody calls it when the program has ended while it is away, and none opens a leader there
    when it is back."""
    path = tmp_path / "bperf.toml"
    path.write_text(HOST.rpartition("[[host.task]]")[0] + f"[[host.offline]]\npcpu = 1\nfrom_ms = 5\n{to}\n")
    (experiment,) = scenario.load(str(path)).experiments
    lab = Embedded.of(experiment)
    counting = [False]  # on the CPU that goes, whenever that changes
    while lab.simulation.working:
        await lab.simulation.step()
        perf = lab.host.perf
        if perf is not None and len(perf.cpus) == 2 and bool(perf.cpus[1].pmu.used) != counting[-1]:
            counting.append(not counting[-1])
    assert counting == [False, True, False]
    assert perf is not None
    assert perf.events == {}
    assert perf.shared.online == ([0, 1] if to else [0])


def test_a_vcpu_that_never_switches_is_counted_by_intervals_alone(tmp_path: Path) -> None:
    """disable_counters, then the last read."""
    host = '[[host.perf]]\nverb = "stat"\nevents = "instructions:b"\n'
    guest = GUEST.replace("[0, 0]", "[0]").replace("vcpus = 2", "") + task("a")
    (without,) = run(tmp_path, guest + host).host.events
    (interval,) = run(tmp_path, guest + host + "interval_ms = 1\n").host.events
    assert without.count is not None
    assert without.count < 0.1 * without.truth
    assert interval.count is not None
    assert 0.9 * interval.truth < interval.count < interval.truth


def test_a_session_that_bperf_refuses_ends_and_the_rest_goes_on(tmp_path: Path) -> None:
    text = GUEST + task("a", events='"{cycles,instructions}:b"') + task("b", events='"cycles:ub"')
    guest = run(tmp_path, text).guests[0]
    (refused,) = guest.refused_sessions
    assert "bpf managed perf events do not yet support groups" in refused.reason
    (counted,) = of(guest.events, "guest.0.task.1.perf")
    assert counted.count == counted.truth


MIXED = """
[machine]
core = ["neoverse-n1", "neoverse-n1", "cortex-a76", "cortex-a76"]
[kvm]
designs = ["partitioned"]
[[guest]]
pin = [3]
[[guest.task]]
workload = "gzip-text"
seconds = 0.01
[[host.perf]]
verb = "stat"
interval_ms = 1
events = "instructions:b"
"""


def test_an_event_of_a_pmu_that_does_not_cover_the_first_cpu_is_opened_nowhere(tmp_path: Path) -> None:
    """evsel__open_per_cpu with all online CPUs, whichever its PMU covers."""
    events = {event.event.partition("/")[0]: event for event in run(tmp_path, MIXED).host.events}
    first, second = events["armv8_neoverse_n1"], events["armv8_cortex_a76"]
    assert not first.unsupported
    assert first.running_ns > 0
    assert "ENOENT" in second.unsupported
