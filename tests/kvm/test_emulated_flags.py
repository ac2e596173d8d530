"""PMOVSSET_EL0 in the memory of an emulated vPMU, which access_pmovs() and perf's interrupt change (Linux 6.12.117)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services import registers as r
from services.costs import Cost, load
from services.cpu import Cpu, Entry
from services.experiment import CpuSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.registers import MASK32, PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import HZ, INST_RETIRED, Scripted, experiment, simulation

COSTS = load("altra-n1-vhe").cycles(HZ)
OVERFLOWS, OTHER, INCREMENTED = 0b001, 0b010, 0b100  # counters
LOAD = COSTS["mrs"]  # that of a handler: the last thing in the cost of its exit
# Cycles from the overflow to its interrupt, which comes at the end of the write's exit or behind.
DELAYS = range(COSTS["exit_full_sysreg"], COSTS["exit_full_sysreg"] + 100, LOAD // 2)


async def flags(design: str, delay: int, register: int, value: int, *, nmi: bool) -> int:
    """Counter 0 overflows, and the guest writes `register`: which flags it has once the interrupt has come."""

    async def boot(cpu: Cpu, entry: Entry) -> None:
        burst = cpu.burst
        burst.msr(PMEVTYPER(0), INST_RETIRED)
        burst.msr(PMEVTYPER(2), r.SW_INCR)
        burst.msr(PMEVCNTR(2), MASK32)
        burst.msr(PMEVCNTR(0), MASK32 - 490)  # half an instruction a cycle
        burst.msr(r.PMINTENSET_EL1, OVERFLOWS)
        burst.msr(r.PMCNTENSET_EL0, OVERFLOWS | INCREMENTED)
        burst.msr(r.PMCR_EL0, r.PMCR_E)
        burst.charge(Cost.TICK, 1000)
        burst.msr(register, value)
        burst.wfi()

    cpu = CpuSpec(model="test", counters=10, pmuver=4, pmi_delay=delay)
    of = experiment(design, cpu=cpu)
    of = replace(of, guests=(replace(of.guests[0], pmuver=4),), host=replace(of.host, pseudo_nmi=nmi))
    made = simulation(of, Scripted(boot=boot))
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    (vcpu,) = made.vcpus
    while not vcpu.wfi:
        await made.step()
    await made.step()
    return vcpu.pmu.ovs


@pytest.mark.parametrize("nmi", [False, True])
@pytest.mark.parametrize(
    ("register", "value", "kept"),
    [
        (r.PMOVSCLR_EL0, OTHER, 0),
        (r.PMOVSSET_EL0, OTHER, OTHER),
        (r.PMSWINC_EL0, INCREMENTED, INCREMENTED),
        (r.PMSWINC_EL0, OTHER, 0),  # it does not count that: nothing is stored
    ],
)
@pytest.mark.parametrize("design", ["emulated", "emulated-6.15"])
async def test_a_write_of_a_flag_undoes_what_perf_s_interrupt_stores_amid_it(
    design: str, register: int, value: int, kept: int, *, nmi: bool
) -> None:
    """__vcpu_sys_reg(vcpu, PMOVSSET_EL0) is loaded, changed and stored with interrupts on."""
    found = [await flags(design, delay, register, value, nmi=nmi) for delay in DELAYS]
    assert {one & ~OVERFLOWS for one in found} == {kept}
    lost = sum(not one & OVERFLOWS for one in found)
    assert lost * LOAD // 2 == (0 if (register, value) == (r.PMSWINC_EL0, OTHER) else LOAD)
