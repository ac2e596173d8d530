"""The designs that stand beside the two that are argued about, and chained counters."""

from dataclasses import replace

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice, Timer
from services.experiment import CpuSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.registers import PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment, simulation

WORK = 3_000_000  # cycles, half an instruction each


class Neighbour(Scripted):
    """A guest that works in slices, sleeping between them; it may count its instructions on counter 0."""

    def __init__(self, *, counts: bool) -> None:
        super().__init__(boot=self.boot, resume=self.on, timer=self.on)
        self.counts = counts
        self.slices = 4
        self.count = -1

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        if self.counts:
            cpu.burst.msr(PMEVTYPER(0), INST_RETIRED | r.PMEVTYPER_P)
            cpu.burst.msr(PMEVCNTR(0), 0)
            cpu.burst.msr(r.PMCNTENSET_EL0, 1)
            cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_E)
        cpu.burst.timer(Timer.TICK, entry.now + 10_000)
        cpu.burst.wfi()

    async def on(self, cpu: Cpu, entry: Entry) -> None:
        if entry.kind.name == "TIMER" and self.slices:
            self.slices -= 1
            cpu.burst.compute(2, 0, WORK // 4)
            return
        if self.slices:
            cpu.burst.timer(Timer.TICK, entry.now + 10_000)
        elif self.count < 0:
            self.count = await cpu.mrs(PMEVCNTR(0)) if self.counts else 0
            cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


async def side_by_side(design: str) -> int:
    """What a guest counts that has a neighbour on the same pCPU."""
    made = simulation(experiment(design, counters=10, vcpus=(0, 0)), Scripted())
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    guest = Neighbour(counts=True)
    made.attend_guest("vm0", 0, LocalSoftware(guest))
    made.attend_guest("vm0", 1, LocalSoftware(Neighbour(counts=False)))
    await made.run()
    return guest.count


@pytest.mark.parametrize("design", ["emulated", "partitioned", "mediated", "gunyah"])
async def test_a_guest_counts_its_own_work_only(design: str) -> None:
    assert await side_by_side(design) == WORK // 2


async def test_raw_lets_a_neighbours_work_leak_into_a_guests_count() -> None:
    assert await side_by_side("raw") > WORK // 2


async def test_gunyah_traps_once_a_slice_while_nothing_counts_and_never_while_something_does() -> None:
    async def boot(cpu: Cpu, entry: Entry) -> None:
        for _ in range(3):
            cpu.burst.mrs(r.PMCNTENSET_EL0)
        await cpu.wait()
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    made = simulation(experiment("gunyah", counters=10), Scripted(boot=boot))
    await made.run()
    assert sum(made.vcpus[0].traps.values()) == 1
    assert made.design.host_policy(made.board.experiment.cpus[0]).counters == 0


async def test_without_64_bit_counters_the_emulated_vpmu_chains_two() -> None:
    """Counter 0 is the low half, counter 1 counts its overflows: Neoverse N1 is PMUv3p1."""
    found: list[int] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(PMEVTYPER(0), INST_RETIRED | r.PMEVTYPER_P)
        cpu.burst.msr(PMEVTYPER(1), r.CHAIN | r.PMEVTYPER_P)
        cpu.burst.msr(PMEVCNTR(0), 2**32 - 1000)
        cpu.burst.msr(PMEVCNTR(1), 7)
        cpu.burst.msr(r.PMCNTENSET_EL0, 0b11)
        cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_E)
        cpu.burst.compute(2, 0, WORK)

    async def resume(cpu: Cpu, entry: Entry) -> None:
        for n in (0, 1):
            cpu.burst.mrs(PMEVCNTR(n))
        found.extend(await cpu.wait())
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    n1 = CpuSpec(model="n1", counters=6, pmuver=4)
    of = experiment("emulated", counters=6, cpu=n1)
    of = replace(of, guests=(replace(of.guests[0], pmuver=4),))
    made = simulation(of, Scripted(boot=boot, resume=resume))
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    await made.run()
    assert found == [WORK // 2 - 1000, 8]
