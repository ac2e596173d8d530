"""When the EL0 filters of host events are flipped again: kvm_vcpu_pmu_restore_guest and kvm_vcpu_pmu_resync_el0."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from pmulab import scenario
from services import embedded
from services import registers as r
from services.costs import Cost
from services.cpu import Cpu, Entry, Notice, Timer
from services.experiment import EventSpec, ExitSpec, HostCpuSpec, HostSpec, SessionSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.errors import Livelock
from services.kvm.requests import HOST, Request
from services.kvm.simulation import Simulation
from services.kvm.vcpu import VCpu
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment, simulation

TICK = 12_000_000  # cycles
WRITE = 1
USER = EventSpec("instructions:uH", INST_RETIRED, 0, exclude_kernel=True, exclude_guest=True)


class Lab:
    """A host with events of its own, and a guest of vCPUs that work all the time. The last pCPU may go offline."""

    def __init__(
        self,
        design: str,
        *events: EventSpec,
        vcpus: int = 1,
        ticks: int = 8,
        pcpus: int = 1,
        offline: tuple[tuple[int, int], ...] = (),
        exits: ExitSpec | None = None,
    ) -> None:
        of = experiment(design, vcpus=(0 if pcpus == 1 else -1,) * vcpus, pcpus=pcpus)
        sessions = tuple(SessionSpec("stat", (event,), cpu_wide=True) for event in events)
        cpus = [HostCpuSpec(sessions=sessions)] * pcpus
        cpus[-1] = replace(cpus[-1], offline=offline)
        of = replace(of, host=HostSpec(hz=250, cpus=tuple(cpus)), exits=exits or of.exits)
        self.simulation: Simulation = simulation(of, Scripted(boot=self._boot, resume=self._resume))
        self.work = ticks * TICK
        host = HostPerf()
        for cpu in range(pcpus):
            self.simulation.attend_host(cpu, LocalSoftware(host.attend(cpu)))
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


def _up_to_the_tick(cpu: Cpu, entry: Entry, before: int = 0) -> None:
    cpu.burst.charge(Cost.TICK, TICK - entry.now - before)


async def _burst_interrupted(cpu: Cpu, entry: Entry) -> None:
    _up_to_the_tick(cpu, entry)
    cpu.burst.isb()


async def _access(cpu: Cpu, entry: Entry) -> None:
    _up_to_the_tick(cpu, entry, 200)  # it expires within the exit
    cpu.burst.mrs(r.PMCR_EL0)


async def _hypercall(cpu: Cpu, entry: Entry) -> None:
    _up_to_the_tick(cpu, entry, 200)
    cpu.burst.hvc(0)


@pytest.mark.parametrize("at_the_tick", [_burst_interrupted, _access, _hypercall])
async def test_a_guest_that_goes_on_before_schedule_has_its_filters(
    at_the_tick: Callable[[Cpu, Entry], Awaitable[None]],
) -> None:
    """The tick has it preempted, but its handler runs to its end, and a program of its within it."""
    lab = Lab("emulated", replace(USER, frequency=1000), vcpus=2)
    vcpu = lab.simulation.vcpus[0]
    due: list[bool] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        await at_the_tick(cpu, entry)
        cpu.burst.user_mrs(r.PMUSERENR_EL0)
        await cpu.wait()
        due.append(vcpu.resync_due)
        cpu.burst.wfi()

    lab.attend(Scripted(boot=boot))
    while not due:
        types = await lab.step()
    assert due == [False]
    assert vcpu.pcpu.rq.need_resched
    assert [bool(value & r.PMEVTYPER_U) for _, value in types] == [False, True]


async def test_a_handler_within_a_window_is_not_the_last_that_runs_before_schedule() -> None:
    """The tick comes in the exit for its EOI, and the handler around it goes on: at once with another interrupt."""
    lab = Lab("emulated", replace(USER, frequency=1000), vcpus=2, exits=ExitSpec(out=100))
    vcpu = lab.simulation.vcpus[0]
    due: list[bool] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        for register in (r.PMINTENSET_EL1, r.PMOVSSET_EL0, r.PMCNTENSET_EL0, r.PMCR_EL0):
            cpu.burst.msr(register, 1)
        await cpu.window()
        cpu.burst.wfi()

    async def pmu_irq(cpu: Cpu, entry: Entry) -> None:
        """It leaves its flag, once."""
        due.append(vcpu.resync_due)
        if len(due) == 1:
            _up_to_the_tick(cpu, entry, 50)
        else:
            cpu.burst.msr(r.PMOVSCLR_EL0, 1)

    lab.attend(Scripted(boot=boot, pmu_irq=pmu_irq))
    while len(due) < 2:
        await lab.step()
    assert vcpu.pcpu.rq.need_resched
    assert due == [False, False]


async def test_a_vcpu_that_leaves_a_cpu_that_goes_offline_keeps_it_as_well() -> None:
    """What takes a CPU offline preempts what runs there, as a tick does."""
    lab = Lab("emulated", replace(USER, frequency=1000), vcpus=2, pcpus=2, offline=((TICK, 9 * TICK),))
    vcpu = lab.simulation.vcpus[1]
    while not lab.simulation.pcpus[1].offline:
        await lab.step()
    assert vcpu.cpu == 0
    assert vcpu.resync_due


@pytest.mark.parametrize("waits", ["resync_due", "reload_due"])
@pytest.mark.parametrize("design", ["emulated", "mediated"])
async def test_what_waits_for_schedule_is_done_if_that_finds_nobody_else(design: str, waits: str) -> None:
    """Whoever has waited has been pushed to an idle pCPU: there is no load to leave it to."""
    lab = Lab(design, USER)
    vcpu, pcpu = lab.simulation.vcpus[0], lab.simulation.pcpus[0]
    while not vcpu.compute:
        await lab.step()
    setattr(vcpu, waits, True)
    pcpu.rq.need_resched = True
    had_pmu = vcpu.entered
    types = await lab.step()
    assert not getattr(vcpu, waits)
    assert vcpu.entered is had_pmu
    flipped = [value for _, value in types if value & r.PMEVTYPER_U]
    assert len(flipped) == (design == "emulated")  # under the other the host's events are off


async def test_a_request_that_comes_while_another_is_handled_is_handled_before_the_guest_is_entered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kvm_vcpu_exit_request: a pseudo-NMI at the end of the first has had the host's driver start the PMU."""
    handled, left = VCpu._resync_pmu_el0, [2, 1, 0]

    async def with_nmi(vcpu: VCpu) -> None:
        await handled(vcpu)
        if left.pop(0):
            vcpu.resync_el0()

    lab = Lab("emulated", replace(USER, frequency=1000), ticks=1)
    monkeypatch.setattr(VCpu, "_resync_pmu_el0", with_nmi)
    *_, last = await lab.run()
    assert last == [False, True, True, True]
    assert not left


async def test_requests_without_end_are_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest is never entered."""

    async def with_nmi(vcpu: VCpu) -> None:
        vcpu.resync_el0()

    lab = Lab("emulated", replace(USER, frequency=1000), ticks=1)
    monkeypatch.setattr(VCpu, "_resync_pmu_el0", with_nmi)
    with pytest.raises(Livelock, match="I12"):
        await lab.run()


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
