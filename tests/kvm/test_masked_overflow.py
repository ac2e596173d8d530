"""An overflow flag without its interrupt: the guest lets it interrupt by accesses that do not trap."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, EntryKind, Notice
from services.experiment import CpuSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.registers import PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import HZ, INST_RETIRED, Scripted, experiment, simulation
from tests.kvm.test_pmi_delay import Sleeper

ON = r.PMCR_LC | r.PMCR_E
LONG = HZ // 50  # cycles: ticks come meanwhile
SOON = 30_000  # an interrupt to the host and one to the guest
MASKS = {
    "PMINTENSET_EL1": (r.PMINTENSET_EL1, r.PMINTENCLR_EL1, 1, 1),
    "PMCR_EL0.E": (r.PMCR_EL0, r.PMCR_EL0, ON, r.PMCR_LC),
}


class Kernel(Scripted):
    """Its counter 0 overflows; with its interrupt on again, after an exit, it works for long."""

    def __init__(self, mask: str, *, unmasked: bool) -> None:
        super().__init__(boot=self.boot, resume=self.resume, pmu_irq=self.pmu_irq)
        self.on, self.off, self.enabled, self.disabled = MASKS[mask]
        self.unmasked = unmasked  # when it overflows: the host's interrupt is taken, and the guest's is to come
        self.flags: list[int] = []
        self.enabled_at = -1

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        burst = cpu.burst
        burst.msr(PMEVTYPER(0), INST_RETIRED)
        burst.msr(PMEVCNTR(0), 2**32 - 1)
        burst.msr(r.PMCNTENSET_EL0, 1)
        burst.msr(r.PMINTENSET_EL1, 1)
        if not self.unmasked:
            burst.msr(r.PMINTENCLR_EL1, 1)
        burst.msr(r.PMCR_EL0, ON)
        for _ in range(100):
            burst.mrs(r.PMCR_EL0)
        burst.msr(r.PMCNTENCLR_EL0, 1)
        burst.msr(self.off, self.disabled)
        if not self.unmasked:
            burst.msr(r.PMINTENSET_EL1, int(self.on != r.PMINTENSET_EL1))
        burst.hvc(0)
        burst.msr(self.on, self.enabled)
        await cpu.wait()
        self.enabled_at = cpu.now
        burst.compute(2, 0, LONG)

    async def resume(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    async def pmu_irq(self, cpu: Cpu, entry: Entry) -> None:
        self.flags.append(await cpu.mrs(r.PMOVSCLR_EL0))
        cpu.burst.msr(r.PMOVSCLR_EL0, 1)


@pytest.mark.parametrize("unmasked", [False, True])
@pytest.mark.parametrize("mask", list(MASKS))
@pytest.mark.parametrize("design", ["partitioned", "mediated", "gunyah"])
async def test_a_flag_interrupts_as_soon_as_the_guest_lets_it(design: str, mask: str, unmasked: bool) -> None:
    """Not at the next exit: the flag has to be on the CPU by then, also where it has interrupted before."""
    kernel = Kernel(mask, unmasked=unmasked)
    made = simulation(experiment(design, counters=10), kernel)
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    await made.run()
    (handler,) = (entry for entry in kernel.entered if entry.kind is EntryKind.PMU_IRQ)
    assert kernel.flags == [1]
    assert 0 <= handler.now - kernel.enabled_at < SOON
    assert made.vcpus[0].pmu.ovs == 0


@pytest.mark.parametrize("pseudo_nmi", [False, True])
@pytest.mark.parametrize("halt_poll", [0, HZ // 1000])
async def test_a_mediated_guest_that_has_overflowed_does_not_halt(pseudo_nmi: bool, halt_poll: int) -> None:
    """What its exit has found is pending before kvm_vcpu_check_block looks."""
    cpu = CpuSpec(model="test", counters=10, pmuver=6, fgt=1, pmi_delay=10 * SOON)
    of = experiment("mediated", counters=10, cpu=cpu)
    of = replace(of, halt_poll=halt_poll, host=replace(of.host, pseudo_nmi=pseudo_nmi))
    kernel = Sleeper()
    made = simulation(of, kernel.software)
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    (vcpu,) = made.vcpus
    vcpu.halt.length = halt_poll
    blocked = False
    while made.working:
        await made.step()
        blocked |= vcpu.blocked
    assert kernel.found == [1]
    assert vcpu.halt.polled == 0
    assert not blocked
