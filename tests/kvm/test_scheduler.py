"""Several of everything: more vCPUs than pCPUs, vCPUs that block, wake, float and are kicked, tasks that compete."""

from dataclasses import replace

import pytest

from services import registers as r
from services.costs import Cost
from services.cpu import Cpu, Entry, Notice, Timer
from services.experiment import CpuSpec, HostCpuSpec, HostSpec, PhaseSpec, TaskSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.errors import Livelock
from services.kvm.simulation import Simulation
from services.registers import PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment, simulation

WORK = 60_000_000  # cycles, five ticks of 250 Hz
SLICES = 6


class Worker:
    """A kernel that counts its user work in slices with a sleep between them."""

    def __init__(self, sleep: int = 0) -> None:
        self.sleep = sleep
        self.slices = 0
        self.count = -1
        self.pcpus: list[int] = []
        self.software = Scripted(boot=self.boot, resume=self.work, timer=self.work)

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(PMEVTYPER(0), INST_RETIRED | r.PMEVTYPER_P)
        cpu.burst.msr(PMEVCNTR(0), 0)
        cpu.burst.msr(r.PMCNTENSET_EL0, 1)
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_LP | r.PMCR_E)
        await self.work(cpu, entry)

    async def work(self, cpu: Cpu, entry: Entry) -> None:
        if self.slices == SLICES:
            if self.count < 0:
                self.count = await cpu.mrs(PMEVCNTR(0))
                cpu.burst.notify(Notice.WORK_DONE, 0)
            cpu.burst.wfi()
        elif self.sleep and entry.kind.name == "RESUME":
            cpu.burst.timer(Timer.TICK, entry.now + self.sleep)
            cpu.burst.wfi()
        else:
            self.slices += 1
            cpu.burst.compute(2, 0, WORK // SLICES)


def lab(
    design: str, pins: tuple[int, ...], *, pcpus: int, sleep: int = 0, tasks: int = 0, **axes: str
) -> tuple[Simulation, list[Worker]]:
    of = experiment(design, pcpus=pcpus, vcpus=pins, axes=axes)
    if tasks:
        hog = TaskSpec("hog", (PhaseSpec(2, WORK),))
        of = replace(of, host=replace(of.host, cpus=(HostCpuSpec(tasks=(hog,) * tasks),) * pcpus))
    made = simulation(of, Scripted())
    workers = []
    host = HostPerf()
    for pcpu in made.pcpus:
        made.attend_host(pcpu.cpu, LocalSoftware(host.attend(pcpu.cpu)))
    for vcpu in made.vcpus:
        worker = Worker(sleep)
        workers.append(worker)
        made.attend_guest(vcpu.name, vcpu.index, LocalSoftware(worker.software))
    return made, workers


DESIGNS = [
    ("emulated", {}),
    ("emulated-6.15", {}),
    ("partitioned", {}),
    ("partitioned", {"swap": "lazy"}),
    ("partitioned", {"swap": "lazy-sticky", "reservation": "dynamic"}),
    ("partitioned", {"traps": "fast-path"}),
    ("partitioned", {"traps": "slow-path", "pmcr": "trapped"}),
]


@pytest.mark.parametrize(("design", "axes"), DESIGNS)
@pytest.mark.parametrize("pins", [(0, 0, 0), (-1, -1, -1)])
@pytest.mark.parametrize("sleep", [0, 1_000_000])
async def test_every_vcpu_counts_all_of_its_own_work_and_nothing_else(
    design: str, axes: dict[str, str], pins: tuple[int, ...], sleep: int
) -> None:
    made, workers = lab(design, pins, pcpus=2, sleep=sleep, tasks=1, **axes)
    await made.run()
    assert [worker.count for worker in workers] == [WORK // 2] * 3


async def test_floating_vcpus_use_every_pcpu() -> None:
    made, _ = lab("partitioned", (-1,) * 4, pcpus=2)
    await made.run()
    busy = [made.board.machine.cycles(pcpu.cpu)["guest"] for pcpu in made.pcpus]
    assert min(busy) > 1.8 * WORK


async def test_more_vcpus_than_pcpus_share_by_the_tick() -> None:
    made, _ = lab("partitioned", (0, 0), pcpus=1)
    await made.run()
    assert made.vcpus[0].vpmu.swaps.loads >= 3


async def test_a_vcpu_on_a_cpu_with_fewer_counters_gets_its_hpmn() -> None:
    small = CpuSpec(model="small", counters=4, pmuver=6, fgt=1)
    big = CpuSpec(model="big", counters=10, pmuver=6, fgt=1)
    of = replace(experiment("partitioned", pcpus=2, vcpus=(0, 1), counters=4), cpus=(small, big))
    made = simulation(of, Scripted())
    for vcpu in made.vcpus:
        made.attend_guest(vcpu.name, vcpu.index, LocalSoftware(Worker().software))
    await made.run()
    assert [made.board.machine.peek(pcpu.cpu, r.MDCR_EL2) & r.MDCR_EL2_HPMN for pcpu in made.pcpus] == [4, 4]
    assert made.pcpus[0].spec.counters == 4


async def test_an_ipi_reaches_a_blocked_vcpu_of_the_same_vm() -> None:
    async def sender(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.compute(2, 0, WORK)

    async def send(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.ipi(1)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    arrived: list[int] = []

    async def received(cpu: Cpu, entry: Entry) -> None:
        arrived.append(entry.now)
        cpu.burst.notify(Notice.WORK_DONE, 0)

    made = simulation(experiment("partitioned", pcpus=2, vcpus=(0, 1)), Scripted())
    made.attend_guest("vm0", 0, LocalSoftware(Scripted(boot=sender, resume=send)))
    made.attend_guest("vm0", 1, LocalSoftware(Scripted(sgi=received)))
    await made.run()
    (when,) = arrived
    assert WORK < when < WORK + 100_000


async def test_a_task_of_the_host_sleeps_between_its_repetitions_while_others_run() -> None:
    nap = 3_000_000
    task = TaskSpec("cron", (PhaseSpec(2, 100_000), PhaseSpec(2, 50_000)), repeat=4, sleep=nap)
    of = replace(experiment("partitioned"), host=HostSpec(hz=250, cpus=(HostCpuSpec(tasks=(task,)),)))
    made = simulation(of, Scripted(boot=worked_off))
    await made.run()
    (only,) = made.tasks
    time = made.board.machine.cycles(0)
    assert (only.finished, only.computed, time["host_user"]) == (True, 4 * 150_000, 4 * 150_000)
    assert 3 * nap < made.now < 3 * nap + 1_000_000
    assert time["idle"] > 0.9 * 3 * nap


async def worked_off(cpu: Cpu, entry: Entry) -> None:
    cpu.burst.notify(Notice.WORK_DONE, 0)
    cpu.burst.wfi()


async def test_a_timer_that_is_set_anew_is_pending_no_more() -> None:
    expired: list[int] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.timer(Timer.TICK, WORK // 2)
        cpu.burst.compute(2, 0, WORK)

    async def slow(cpu: Cpu, entry: Entry) -> None:
        # The handler runs with interrupts masked while TICK expires, and puts it off.
        cpu.burst.timer(Timer.TICK, entry.now + 100)
        for _ in range(2):
            cpu.burst.charge(Cost.TICK, 1000)
            cpu.burst.hvc(0)
        cpu.burst.timer(Timer.TICK, 2**64 - 1)
        cpu.burst.timer(Timer.SLEEP, entry.now + WORK)
        cpu.burst.wfi()

    async def timer(cpu: Cpu, entry: Entry) -> None:
        expired.append(entry.argument)
        if entry.argument >> Timer.SLEEP & 1:
            cpu.burst.notify(Notice.WORK_DONE, 0)

    made = simulation(experiment("partitioned"), Scripted(boot=boot, resume=slow, timer=timer))
    await made.run()
    assert expired == [1 << Timer.TICK, 1 << Timer.SLEEP]


LIVELOCK = "vm0 on vCPU 0: 20,000 handlers in a row and no work done"


@pytest.mark.parametrize("work", ["interrupted", "new at each tick", "none"])
async def test_interrupts_that_take_all_of_a_guests_time_are_a_livelock_with_a_name(work: str) -> None:
    """Its tick is so short that its handler, which takes longer, is all that ever runs."""

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.timer(Timer.TICK, entry.now)
        if work == "none":
            cpu.burst.wfi()
        else:
            cpu.burst.compute(2, 0, WORK)

    async def tick(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.charge(Cost.TICK, 3_000_000)
        cpu.burst.timer(Timer.TICK, entry.now)
        if work == "new at each tick":
            cpu.burst.compute(2, 0, WORK)

    made = simulation(experiment("partitioned"), Scripted(boot=boot, timer=tick))
    with pytest.raises(Livelock, match=LIVELOCK):
        await made.run()


async def test_a_pmu_interrupt_that_no_handler_clears_is_a_livelock_of_its_guest() -> None:
    """Under the emulated vPMU the host sees nothing of it: KVM holds the line high, and the host's PMU is silent."""

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(r.PMINTENSET_EL1, 1 << 31)
        cpu.burst.msr(r.PMCNTENSET_EL0, 1 << 31)
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_E)
        cpu.burst.msr(r.PMOVSSET_EL0, 1 << 31)
        cpu.burst.wfi()

    async def ignored(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.charge(Cost.TICK, 1_000)

    made = simulation(experiment("emulated"), Scripted(boot=boot, pmu_irq=ignored))
    with pytest.raises(Livelock, match=LIVELOCK):
        await made.run()


async def test_ticks_within_one_long_kernel_section_are_no_livelock() -> None:
    """Each is taken where the section opens a window; between two of them the section gets on."""
    ticks = 0

    async def boot(cpu: Cpu, entry: Entry) -> None:
        for _ in range(20_100):
            cpu.burst.timer(Timer.TICK, 0)
            cpu.burst.charge(Cost.TICK, 10)
            await cpu.window()
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    async def tick(cpu: Cpu, entry: Entry) -> None:
        nonlocal ticks
        ticks += 1

    await simulation(experiment("partitioned"), Scripted(boot=boot, timer=tick)).run()
    assert ticks == 20_100
