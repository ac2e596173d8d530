"""A pCPU goes offline and comes back (perf_event_exit_cpu, arm_perf_starting_cpu; Linux 6.12)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import pmulab
from pmulab import Run, scenario
from services.embedded import Embedded
from services.errors import UserError
from services.experiment import EventSpec, SessionSpec
from services.kvm.requests import Request
from services.registers import CPU_CYCLES, MDCR_EL2, PMCNTENSET_EL0

TEXT = """
[machine]
core = "neoverse-v3"
pcpus = 2
[host]
hz = 1000
[[host.offline]]
pcpu = 1
from_ms = 5
to_ms = 9
[[host.offline]]
pcpu = 1
from_ms = 12
[[host.perf]]
verb = "stat"
pcpu = 1
events = "cycles,{instructions,branches}"
[[guest]]
vcpus = 3
counters = 3
[[guest.task]]
vcpu = [0, 1, 2]
workload = "gzip-random"
seconds = 0.006
repeat = 2
sleep_ms = 1
[guest.task.perf]
verb = "stat"
events = "cycles,instructions:u,branches:u"
"""
SESSION = SessionSpec("stat", (EventSpec("cycles", CPU_CYCLES, 0),), cpu_wide=True)
DESIGNS = ["emulated", "partitioned", "partitioned-v5", "partitioned-v8"]


def run_of(tmp_path: Path, design: str, text: str = TEXT) -> Run:
    path = tmp_path / "own.toml"
    path.write_text(text)
    (run,) = pmulab.run(path, designs=[design]).runs
    return run


@pytest.mark.parametrize("design", ["emulated", "partitioned"])
def test_vcpus_go_elsewhere_and_count_on(tmp_path: Path, design: str) -> None:
    run = run_of(tmp_path, design)
    for event in run.guests[0].events:
        assert event.count == pytest.approx(event.truth, rel=0.01)
    assert run.guests[0].events[0].truth > 3 * 2 * 0.006 * 3e9


def test_events_of_the_cpu_are_off_for_good(tmp_path: Path) -> None:
    """__perf_event_exit_context: they keep their counts; none comes back with the CPU, nor is one in ERROR."""
    always = run_of(tmp_path, "emulated", TEXT.replace("from_ms = 5\nto_ms = 9", "from_ms = 5\nto_ms = 5.001"))
    run = run_of(tmp_path, "emulated")
    for one in (always, run):
        assert len(one.host.events) == 3
        for event in one.host.events:
            assert event.count == pytest.approx(event.truth, rel=0.01)
            assert event.enabled_ns == pytest.approx(5e6, rel=0.01)
            assert event.running == 1


@pytest.mark.parametrize("design", DESIGNS)
async def test_an_offline_cpu_does_nothing_and_is_reset_when_it_comes_back(tmp_path: Path, design: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(TEXT)
    (of,) = scenario.load(str(path), designs=[design]).experiments
    lab = Embedded.of(of)
    simulation = lab.simulation
    machine, pcpu = simulation.board.machine, simulation.pcpus[1]
    with pytest.raises(ValueError, match="pCPU 1 goes offline, perf could not read there"):
        simulation.requests.add(Request("host", 1, session=replace(SESSION, interval=3_000_000)))
    seen = [pcpu.offline]
    saved = None
    while simulation.working:
        await simulation.step()
        if pcpu.offline:
            assert machine.peek(1, PMCNTENSET_EL0) == 0
            assert machine.peek(1, MDCR_EL2) == 6
            assert all(vcpu.cpu == 0 for vcpu in simulation.vcpus)
            saved = saved or lab.state()
            with pytest.raises(ValueError, match="pCPU 1 is offline"):
                simulation.requests.add(Request("host", 1, session=SESSION))
        if seen[-1] is not pcpu.offline:
            seen.append(pcpu.offline)
            due = (5, 9, 12)[len(seen) - 2] * 3_000_000
            assert due <= pcpu.now < due + 10 * 3_000, "at most a vcpu_put later, which takes some µs"
    assert seen == [False, True, False, True]
    assert saved is not None
    restored = Embedded.from_state(of, saved)
    await restored.simulation.run()
    digests = [one.simulation.measured(await one.simulation.result(), 0)["digest"] for one in (lab, restored)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("pcpu = 1\nfrom_ms = 5", "pcpu = 0\nfrom_ms = 5", "pCPU 0 stays online"),
        ("to_ms = 9", "to_ms = 4", "it comes online before it goes offline"),
        ("from_ms = 12", "from_ms = 8", "pCPU 1 is not online before that"),
        ("counters = 3", "counters = 3\npin = [0, 1, -1]", "a vCPU of vm0 is pinned to pCPU 1"),
        (
            "[[guest]]",
            '[[host.task]]\npcpu = 1\nworkload = "gzip-random"\n[[guest]]',
            r"a \[\[host.task\]\] is on pCPU 1",
        ),
        (
            "[[guest]]",
            '[[host.perf]]\nverb = "stat"\nevents = "cycles"\ninterval_ms = 5\n[[guest]]',
            r"a \[\[host.perf\]\] with interval_ms reads on pCPU 1",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        run_of(tmp_path, "emulated", TEXT.replace(old, new, 1))
