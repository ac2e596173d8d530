"""The emulated vPMU on the real host perf: what the guest's counters say and what that costs the host."""

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation
from services.registers import PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import INST_RETIRED, Scripted, experiment, simulation

WORK = 1_000_000  # cycles of user work, half an instruction each


class Counting:
    """A guest that counts its user work, and reads the count in the end.

    Instructions on counter 0, from a given start; or with `counter` None cycles on the cycle counter.
    """

    def __init__(self, start: int = 0, counter: int | None = 0) -> None:
        self.start = start
        self.value = r.PMCCNTR_EL0 if counter is None else PMEVCNTR(counter)
        self.typer = r.PMCCFILTR_EL0 if counter is None else PMEVTYPER(counter)
        self.bit = 1 << (r.CYCLE_COUNTER if counter is None else counter)
        self.irqs = 0
        self.count = -1
        self.flags = -1
        self.software = Scripted(boot=self.boot, resume=self.resume, pmu_irq=self.pmu_irq)

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        burst = cpu.burst
        burst.msr(r.PMCR_EL0, r.PMCR_LC)
        burst.msr(self.value, self.start)
        burst.msr(self.typer, INST_RETIRED | r.PMEVTYPER_P)
        burst.msr(r.PMINTENSET_EL1, self.bit)
        burst.msr(r.PMCNTENSET_EL0, self.bit)
        burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_E)
        burst.compute(2, 0, WORK)

    async def pmu_irq(self, cpu: Cpu, entry: Entry) -> None:
        self.irqs += 1
        self.flags = await cpu.mrs(r.PMOVSCLR_EL0)
        cpu.burst.msr(r.PMOVSCLR_EL0, self.flags)

    async def resume(self, cpu: Cpu, entry: Entry) -> None:
        self.count = await cpu.mrs(self.value)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


async def ran(guest: Counting, design: str) -> Simulation:
    made = simulation(experiment(design), guest.software)
    host = HostPerf()
    for pcpu in made.pcpus:
        made.attend_host(pcpu.cpu, LocalSoftware(host.attend(pcpu.cpu)))
    await made.run()
    return made


@pytest.mark.parametrize("design", ["emulated", "emulated-6.15", "partitioned", "partitioned-v1", "mediated"])
async def test_a_count_is_the_truth(design: str) -> None:
    guest = Counting()
    counters = 10 if design == "mediated" else 6
    made = simulation(experiment(design, counters=counters), guest.software)
    host = HostPerf()
    for pcpu in made.pcpus:
        made.attend_host(pcpu.cpu, LocalSoftware(host.attend(pcpu.cpu)))
    await made.run()
    assert guest.count == WORK // 2 == made.board.machine.truth(made.vcpus[0].context, 0, INST_RETIRED)


@pytest.mark.parametrize("design", ["emulated", "partitioned"])
async def test_one_overflow_is_one_interrupt_with_its_flag(design: str) -> None:
    guest = Counting(start=2**32 - 1000)
    await ran(guest, design)
    assert (guest.irqs, guest.flags) == (1, 1)
    assert guest.count & 0xFFFF_FFFF == WORK // 2 - 1000


async def test_emulation_leaves_the_hosts_counters_as_they_were() -> None:
    made = await ran(Counting(), "emulated")
    await made.result()
    while made.pcpus[0].rq.current is not None:
        await made.step()
    assert made.board.machine.peek(0, r.PMCNTENSET_EL0) == 0
    assert made.board.machine.peek(0, r.MDCR_EL2) & r.MDCR_EL2_TPM == 0


@pytest.mark.parametrize(("widened", "irqs"), [(False, 2), (True, 1)])
async def test_a_64_bit_counter_goes_on_overflowing_at_the_width_that_lp_says(widened: bool, irqs: int) -> None:
    """compute_period reads PMCR_EL0.LP at each overflow (kvm_pmc_has_64bit_overflow): 0 in a p5 guest is 32 bits."""

    class Twice(Counting):
        async def boot(self, cpu: Cpu, entry: Entry) -> None:
            await super().boot(cpu, entry)
            if widened:  # after the counter's event was made
                cpu.burst.msr(r.PMCR_EL0, r.PMCR_LC | r.PMCR_LP | r.PMCR_E)
            cpu.burst.compute(2, 0, 3 << 32)  # half an instruction a cycle

    guest = Twice(start=(1 << 32) - 1000)
    await ran(guest, "emulated")
    assert guest.irqs == irqs
