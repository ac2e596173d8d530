"""When the EL0 filters of host events are flipped again: kvm_vcpu_pmu_restore_guest and kvm_vcpu_pmu_resync_el0."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from pmulab import scenario
from services import embedded
from services import registers as r
from services.cpu import Cpu, Entry, Notice, Timer
from services.experiment import EventSpec, HostCpuSpec, HostSpec, SessionSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.requests import HOST, Request
from services.kvm.simulation import Simulation
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment, simulation

TICK = 12_000_000  # cycles
WRITE = 1
USER = EventSpec("instructions:uH", INST_RETIRED, 0, exclude_kernel=True, exclude_guest=True)


class Lab:
    """A host with events of its own on one pCPU, and a guest of vCPUs that work all the time."""

    def __init__(self, design: str, *events: EventSpec, vcpus: int = 1, ticks: int = 8) -> None:
        of = experiment(design, vcpus=(0,) * vcpus)
        sessions = tuple(SessionSpec("stat", (event,), cpu_wide=True) for event in events)
        of = replace(of, host=HostSpec(hz=250, cpus=(HostCpuSpec(sessions=sessions),)))
        self.simulation: Simulation = simulation(of, Scripted(boot=self._boot, resume=self._resume))
        self.work = ticks * TICK
        host = HostPerf()
        self.simulation.attend_host(0, LocalSoftware(host.attend(0)))
        self.simulation.board.machine.observe(True)

    def attend(self, guest: Scripted) -> None:
        """Another guest."""
        self.simulation.attend_guest("vm0", 0, LocalSoftware(guest))

    async def _boot(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.compute(2, 0, self.work)

    async def _resume(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    async def step(self) -> list[tuple[int, int]]:
        """One interaction: the types that it wrote at EL2, by register."""
        await self.simulation.step()
        types = {*map(r.PMEVTYPER, range(31)), r.PMCCFILTR_EL0, r.PMICFILTR_EL0}
        seen = self.simulation.board.machine.observed()
        return [(row[4], row[5]) for row in seen if row[2] == 2 and row[3] == WRITE and row[4] in types]

    async def run(self) -> list[list[bool]]:
        """To its end: for each interaction that writes filters of events, whether they exclude EL0, in order."""
        found = []
        while self.simulation.working:
            types = await self.step()
            if types:
                found.append([bool(value & r.PMEVTYPER_U) for _, value in types])
        return found


V8 = """
[machine]
core = "ten-counters"
[[host.perf]]
verb = "stat"
events = ["cycles:uH"]
[kvm]
designs = ["partitioned-v8"]
[[guest]]
counters = 6
pin = [0]
[[guest.task]]
workload = "gzip-text"
seconds = 0.02
repeat = 3
sleep_ms = 5
[guest.task.perf]
verb = "stat"
events = ["cycles"]
"""


async def test_a_tick_that_starts_nothing_flips_nothing() -> None:
    """perf_event_task_tick makes no access without frequency or throttled events, so armv8pmu_start does not run."""
    lab = Lab("emulated", USER)
    assert await lab.run() == [[False], [True, True]]  # opened at boot; the one vcpu_load, KVM_REQ_RELOAD_PMU


async def test_a_tick_that_adjusts_a_frequency_is_followed_by_a_flip() -> None:
    lab = Lab("emulated", replace(USER, frequency=1000), ticks=4)
    opened, load, *ticks = await lab.run()
    assert (opened, load) == ([False], [True, True])  # the load's own, and KVM_REQ_RELOAD_PMU of the first run
    assert ticks == [[False, True]] * 4  # started by the tick, then KVM_REQ_RESYNC_PMU_EL0 before the next entry


async def test_a_perf_call_that_arrives_by_ipi_is_in_interrupt_context() -> None:
    """__perf_install_in_context reschedules there, and what comes back has the filters of the host."""
    lab = Lab("emulated", USER)
    await lab.step()
    while not lab.simulation.vcpus[0].compute:
        await lab.step()
    session = SessionSpec("stat", (replace(USER, pinned=True),), cpu_wide=True)
    lab.simulation.requests.add(Request(HOST, 0, session=session))
    opened, *rest = await lab.run()
    assert opened[-2:] == [True, True]  # both events'
    assert rest == []


async def test_the_request_is_the_vcpus_and_survives_a_switch() -> None:
    """schedule() comes before check_vcpu_requests: a vCPU that its tick preempts flips at its load, and once more."""
    lab = Lab("emulated", replace(USER, frequency=1000), vcpus=2, ticks=6)
    vcpus = lab.simulation.vcpus
    while not vcpus[1].ran:
        await lab.step()
    preempted = vcpus[0]
    assert preempted.resync_due
    assert not vcpus[1].resync_due
    pcpu = lab.simulation.pcpus[0]
    while pcpu.rq.current is not preempted:
        types = await lab.step()
    assert not preempted.resync_due
    assert [bool(value & r.PMEVTYPER_U) for _, value in types][-2:] == [True, True]


async def test_a_vcpu_that_blocks_keeps_it_too() -> None:
    """kvm_vcpu_halt is part of handling the exit, before check_vcpu_requests."""
    lab = Lab("emulated", replace(USER, frequency=1000))

    async def work_until_the_tick(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.timer(Timer.SLEEP, 3 * TICK // 2)
        cpu.burst.compute(2, 0, TICK - entry.now - 200)  # it expires within the exit of the WFI

    async def wait_for_interrupt(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.wfi()

    async def finish(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)

    lab.attend(Scripted(boot=work_until_the_tick, resume=wait_for_interrupt, timer=finish))
    vcpu = lab.simulation.vcpus[0]
    while not vcpu.blocked:
        await lab.step()
    assert vcpu.resync_due
    put, load = await lab.run()
    assert put == [False]
    assert load == [True, True]


@pytest.mark.parametrize("hz", [250, 1000])
def test_nothing_heals_what_v8_leaves_undone(hz: int, tmp_path: Path) -> None:
    """v8's reservation reinstalls the host's events with the host's filters, and no tick starts the PMU after it."""
    file = tmp_path / "v8.toml"
    file.write_text(V8)
    (of,) = scenario.load(file, overrides=[f"host.hz={hz}"]).experiments
    result = trio.run(embedded.run, of)
    (event,) = result["hosts"][0]["sessions"][0]["events"]
    assert event["truth"] == 0
    users = result["guests"][0]["vcpus"][0]["true_el0_cycles"]
    assert 0.6 * users < event["count"] < users  # all but the first repetition's, before the guest owned its PMU
