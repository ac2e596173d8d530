"""A guest without a PMU (kvm_vcpu_has_pmu) that touches one all the same: UNDEFINED, whatever the design."""

from dataclasses import replace

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice, TookException
from services.experiment import CpuSpec
from services.host_perf import HostPerf
from services.kvm import designs
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation
from tests.kvm.scripted import Scripted, experiment

UNKNOWN = 1 << 25  # ESR_EL1: EC 0, as undefined_access injects it
READS = (r.PMCNTENSET_EL0, r.PMCR_EL0, r.PMCCNTR_EL0, r.PMEVCNTR(0), r.PMOVSSET_EL0, r.PMUSERENR_EL0, r.PMMIR_EL1)
WRITES = (r.PMCR_EL0, r.PMSELR_EL0, r.PMSWINC_EL0, r.PMINTENSET_EL1, r.PMEVTYPER(0), r.PMXEVCNTR_EL0)


class Touching:
    """It goes on after each exception, as a kernel does that has killed the task."""

    def __init__(self) -> None:
        self.took: list[int] = []
        self.read: list[int] = []
        self.software = Scripted(boot=self.boot)

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        for register in READS:
            try:
                self.read.append(await cpu.mrs(register))
            except TookException as exception:
                self.took.append(exception.esr)
        for register in WRITES:
            cpu.burst.msr(register, 1)
            try:
                await cpu.wait()
            except TookException as exception:
                self.took.append(exception.esr)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


@pytest.mark.parametrize(
    "cpu", [CpuSpec("FEAT_FGT", 10, 6, fgt=1), CpuSpec("no FEAT_FGT", 10, 6)], ids=lambda c: c.model
)
@pytest.mark.parametrize("design", list(designs.designs()))
async def test_every_access_is_undefined(design: str, cpu: CpuSpec) -> None:
    guest = Touching()
    of = experiment(design, cpu=cpu)
    made = Simulation(replace(of, guests=tuple(replace(one, pmuver=0) for one in of.guests)))
    host = HostPerf()
    made.attend_host(0, LocalSoftware(host.attend(0)))
    made.attend_guest("vm0", 0, LocalSoftware(guest.software))
    await made.run()
    assert guest.took == [UNKNOWN] * (len(READS) + len(WRITES))
    assert guest.read == []
    assert sum(made.vcpus[0].traps.values()) == len(guest.took), "each has trapped to KVM"
