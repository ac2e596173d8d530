"""Each posted version's accesses at one vcpu_load and one vcpu_put of a vCPU that owns two counters, in their order.

The trap set-up first, then kvm_pmu_load() or kvm_pmu_put(); between them the EL0 filters of the host's events.
"""

from __future__ import annotations

import pytest

from services import registers as r
from services.experiment import CpuSpec
from services.kvm import designs
from services.registers import CYCLE_BIT
from tests.kvm.stub_vcpu import StubVcpu, access, vcpu_load, vcpu_put

FGT = CpuSpec(model="fgt", counters=6, pmuver=6, fgt=1)

LOADS = {
    "partitioned-v1": """
        w PMSELR_EL0, r PMUSERENR_EL0, w PMUSERENR_EL0, r MDCR_EL2, w MDCR_EL2,
        r HDFGRTR_EL2, w HDFGRTR_EL2, r HDFGWTR_EL2, w HDFGWTR_EL2,
        w PMEVCNTR0_EL0, w PMEVCNTR1_EL0, w PMCCNTR_EL0, w PMUSERENR_EL0, w PMSELR_EL0, w PMCR_EL0,
        w PMCNTENSET_EL0, w PMCNTENCLR_EL0, w PMINTENSET_EL1, w PMINTENCLR_EL1""",
    "partitioned-v2": """
        w PMSELR_EL0, r PMUSERENR_EL0, w PMUSERENR_EL0, r MDCR_EL2, w MDCR_EL2,
        r HDFGRTR_EL2, w HDFGRTR_EL2, r HDFGWTR_EL2, w HDFGWTR_EL2,
        w PMEVTYPER0_EL0, w PMEVTYPER1_EL0, w PMCCFILTR_EL0,
        w PMEVCNTR0_EL0, w PMEVCNTR1_EL0, w PMCCNTR_EL0, w PMUSERENR_EL0, w PMSELR_EL0, w PMCR_EL0,
        w PMCNTENSET_EL0, w PMCNTENCLR_EL0, w PMINTENSET_EL1, w PMINTENCLR_EL1""",
    "partitioned-v3": """
        w PMSELR_EL0, r PMUSERENR_EL0, w PMUSERENR_EL0, r MDCR_EL2, w MDCR_EL2,
        r HDFGRTR_EL2, w HDFGRTR_EL2, r HDFGWTR_EL2, w HDFGWTR_EL2,
        w PMEVTYPER0_EL0, w PMEVTYPER1_EL0, w PMCCFILTR_EL0,
        w PMEVCNTR0_EL0, w PMEVCNTR1_EL0, w PMCCNTR_EL0, w PMUSERENR_EL0, w PMSELR_EL0, w PMCR_EL0,
        w PMCNTENSET_EL0, w PMCNTENCLR_EL0, w PMINTENSET_EL1, w PMINTENCLR_EL1""",
    "partitioned-v4": """
        w PMSELR_EL0, r PMUSERENR_EL0, w PMUSERENR_EL0, r MDCR_EL2, w MDCR_EL2,
        r HDFGRTR_EL2, w HDFGRTR_EL2, r HDFGWTR_EL2, w HDFGWTR_EL2,
        w PMEVTYPER0_EL0, w PMEVTYPER1_EL0, w PMCCFILTR_EL0,
        w PMEVCNTR0_EL0, w PMEVCNTR1_EL0, w PMCCNTR_EL0, w PMUSERENR_EL0, w PMSELR_EL0, w PMCR_EL0,
        w PMCNTENSET_EL0, w PMCNTENCLR_EL0, w PMINTENSET_EL1, w PMINTENCLR_EL1""",
    "partitioned-v5": """
        r MDCR_EL2, w MDCR_EL2, r HDFGRTR_EL2, w HDFGRTR_EL2, r HDFGWTR_EL2, w HDFGWTR_EL2,
        w PMEVTYPER0_EL0, w PMEVTYPER1_EL0, w PMCCFILTR_EL0,
        w PMEVCNTR0_EL0, w PMEVCNTR1_EL0, w PMCCNTR_EL0, w PMUSERENR_EL0, w PMSELR_EL0, w PMCR_EL0,
        w PMCNTENSET_EL0, w PMCNTENCLR_EL0, w PMINTENSET_EL1, w PMINTENCLR_EL1""",
    "partitioned-v6": """
        w PMSELR_EL0, r PMUSERENR_EL0, w PMUSERENR_EL0, r MDCR_EL2, w MDCR_EL2,
        r HDFGRTR_EL2, w HDFGRTR_EL2, r HDFGWTR_EL2, w HDFGWTR_EL2,
        w PMSELR_EL0, w PMXEVTYPER_EL0, w PMSELR_EL0, w PMXEVTYPER_EL0, w PMSELR_EL0, w PMXEVTYPER_EL0,
        w PMSELR_EL0, w PMXEVCNTR_EL0, w PMSELR_EL0, w PMXEVCNTR_EL0, w PMSELR_EL0, w PMXEVCNTR_EL0,
        w PMSELR_EL0, w PMCR_EL0, w PMOVSCLR_EL0,
        w PMCNTENSET_EL0, w PMCNTENCLR_EL0, w PMINTENSET_EL1, w PMINTENCLR_EL1""",
    "partitioned-v7": """
        w PMSELR_EL0, r PMUSERENR_EL0, w PMUSERENR_EL0, r MDCR_EL2, w MDCR_EL2,
        r HDFGRTR_EL2, w HDFGRTR_EL2, r HDFGWTR_EL2, w HDFGWTR_EL2,
        GUEST_COUNTERS 0x80000003,
        w PMSELR_EL0, w PMXEVTYPER_EL0, w PMSELR_EL0, w PMXEVTYPER_EL0, w PMCCNTR_EL0,
        w PMSELR_EL0, w PMXEVCNTR_EL0, w PMSELR_EL0, w PMXEVCNTR_EL0, w PMCCNTR_EL0,
        w PMSELR_EL0, w PMCR_EL0, w PMOVSCLR_EL0,
        w PMCNTENSET_EL0, w PMCNTENCLR_EL0, w PMINTENSET_EL1, w PMINTENCLR_EL1""",
    "partitioned-v8": """
        r MDCR_EL2, w MDCR_EL2, w PMSELR_EL0, r PMUSERENR_EL0, w PMUSERENR_EL0,
        r HDFGRTR_EL2, w HDFGRTR_EL2, r HDFGWTR_EL2, w HDFGWTR_EL2,
        GUEST_COUNTERS 0x80000003,
        w PMEVTYPER0_EL0, w PMEVTYPER1_EL0, w PMCCFILTR_EL0,
        w PMEVCNTR0_EL0, w PMEVCNTR1_EL0, w PMCCNTR_EL0, w PMSELR_EL0, w PMCR_EL0, w PMOVSCLR_EL0,
        w PMCNTENSET_EL0, w PMCNTENCLR_EL0, w PMINTENSET_EL1, w PMINTENCLR_EL1""",
    "partitioned-v9": """
        r MDCR_EL2, w MDCR_EL2, w PMSELR_EL0, r PMUSERENR_EL0, w PMUSERENR_EL0,
        r HDFGRTR_EL2, w HDFGRTR_EL2, r HDFGWTR_EL2, w HDFGWTR_EL2,
        GUEST_COUNTERS 0x80000003,
        w PMEVTYPER0_EL0, w PMEVTYPER1_EL0, w PMCCFILTR_EL0,
        w PMEVCNTR0_EL0, w PMEVCNTR1_EL0, w PMCCNTR_EL0, w PMSELR_EL0, w PMCR_EL0, w PMOVSCLR_EL0,
        w PMCNTENSET_EL0, w PMCNTENCLR_EL0, w PMINTENSET_EL1, w PMINTENCLR_EL1""",
}
PUTS = {
    "partitioned-v1": """
        w MDCR_EL2, w PMUSERENR_EL0, w HDFGRTR_EL2, w HDFGWTR_EL2,
        r PMEVCNTR0_EL0, r PMEVCNTR1_EL0, r PMCCNTR_EL0, r PMUSERENR_EL0, r PMSELR_EL0, r PMCR_EL0,
        r PMCNTENSET_EL0, r PMINTENSET_EL1""",
    "partitioned-v2": """
        w MDCR_EL2, w PMUSERENR_EL0, w HDFGRTR_EL2, w HDFGWTR_EL2,
        r PMEVCNTR0_EL0, r PMEVCNTR1_EL0, r PMCCNTR_EL0, r PMUSERENR_EL0, r PMSELR_EL0, r PMCR_EL0,
        r PMCNTENSET_EL0, r PMINTENSET_EL1""",
    "partitioned-v3": """
        w MDCR_EL2, w PMUSERENR_EL0, w HDFGRTR_EL2, w HDFGWTR_EL2,
        r PMEVCNTR0_EL0, r PMEVCNTR1_EL0, r PMCCNTR_EL0, r PMUSERENR_EL0, r PMSELR_EL0, r PMCR_EL0,
        r PMCNTENSET_EL0, r PMINTENSET_EL1""",
    "partitioned-v4": """
        w MDCR_EL2, w PMUSERENR_EL0, w HDFGRTR_EL2, w HDFGWTR_EL2,
        r PMEVCNTR0_EL0, r PMEVCNTR1_EL0, r PMCCNTR_EL0, r PMUSERENR_EL0, r PMSELR_EL0, r PMCR_EL0,
        r PMCNTENSET_EL0, r PMINTENSET_EL1""",
    "partitioned-v5": """
        w MDCR_EL2, w HDFGRTR_EL2, w HDFGWTR_EL2,
        r PMEVCNTR0_EL0, r PMEVCNTR1_EL0, r PMCCNTR_EL0, r PMUSERENR_EL0, r PMSELR_EL0, r PMCR_EL0,
        r PMCNTENSET_EL0, r PMINTENSET_EL1""",
    "partitioned-v6": """
        w MDCR_EL2, w PMUSERENR_EL0, w HDFGRTR_EL2, w HDFGWTR_EL2,
        w PMSELR_EL0, r PMXEVCNTR_EL0, w PMSELR_EL0, r PMXEVCNTR_EL0, w PMSELR_EL0, r PMXEVCNTR_EL0,
        r PMSELR_EL0, r PMCR_EL0, r PMCNTENSET_EL0, r PMINTENSET_EL1""",
    "partitioned-v7": """
        w MDCR_EL2, w PMUSERENR_EL0, w HDFGRTR_EL2, w HDFGWTR_EL2,
        w PMSELR_EL0, r PMXEVCNTR_EL0, w PMSELR_EL0, r PMXEVCNTR_EL0, r PMCCNTR_EL0,
        r PMSELR_EL0, r PMCR_EL0, r PMCNTENSET_EL0, r PMINTENSET_EL1,
        GUEST_COUNTERS 0x0""",
    "partitioned-v8": """
        w MDCR_EL2, w PMUSERENR_EL0, w HDFGRTR_EL2, w HDFGWTR_EL2,
        r PMEVCNTR0_EL0, r PMEVCNTR1_EL0, r PMCCNTR_EL0, r PMSELR_EL0, r PMCR_EL0,
        r PMCNTENSET_EL0, r PMINTENSET_EL1, r PMOVSSET_EL0, w PMOVSCLR_EL0, w PMCNTENCLR_EL0, w PMINTENCLR_EL1,
        GUEST_COUNTERS 0x0""",
    "partitioned-v9": """
        w MDCR_EL2, w PMUSERENR_EL0, w HDFGRTR_EL2, w HDFGWTR_EL2,
        r PMEVCNTR0_EL0, r PMEVCNTR1_EL0, r PMCCNTR_EL0, r PMSELR_EL0, r PMCR_EL0,
        r PMCNTENSET_EL0, r PMINTENSET_EL1, r PMOVSSET_EL0, w PMOVSCLR_EL0, w PMCNTENCLR_EL0, w PMINTENCLR_EL1,
        GUEST_COUNTERS 0x0""",
}


def sequence(text: str) -> list[str]:
    return [one.strip() for one in text.split(",")]


@pytest.mark.parametrize("design", LOADS)
async def test_one_load_and_one_put(design: str) -> None:
    vcpu = StubVcpu(FGT, 2)
    vpmu = designs.named(design).make({}, guest_range=0b11 | CYCLE_BIT).vpmu(vcpu)
    await vcpu_load(vpmu)
    await access(vpmu, r.PMSELR_EL0, True, 0)
    await vcpu_put(vpmu)
    vcpu.tell()
    await vcpu_load(vpmu)
    assert vcpu.tell() == sequence(LOADS[design])
    await vcpu_put(vpmu)
    assert vcpu.tell() == sequence(PUTS[design])


async def test_v1_swaps_pmicntr_where_there_is_one() -> None:
    vcpu = StubVcpu(CpuSpec(model="icntr", counters=6, pmuver=9, fgt=2, hpmn0=True, icntr=True), 2)
    vpmu = designs.named("partitioned-v1").make({}, guest_range=0b11 | CYCLE_BIT).vpmu(vcpu)
    await vcpu_load(vpmu)
    told = vcpu.tell()
    assert told[told.index("w PMCCNTR_EL0") + 1] == "w PMICNTR_EL0"
    await vcpu_put(vpmu)
    told = vcpu.tell()
    assert told[told.index("r PMCCNTR_EL0") + 1] == "r PMICNTR_EL0"


@pytest.mark.parametrize("design", LOADS)
async def test_a_vcpu_that_has_touched_nothing(design: str) -> None:
    """v1 to v3 know no lazy state, and v6 swaps whatever the state; the others have the trap set-up alone."""
    vcpu = StubVcpu(FGT, 2)
    vpmu = designs.named(design).make({}, guest_range=0b11 | CYCLE_BIT).vpmu(vcpu)
    await vcpu_load(vpmu)
    swapped = design[-1] in "1236"
    assert bool([one for one in vcpu.tell() if "CNTR" in one]) is swapped
    await vcpu_put(vpmu)
    assert (vpmu.swaps.loads, vpmu.swaps.puts) == ((1, 1) if swapped else (0, 0))


@pytest.mark.parametrize("design", LOADS)
async def test_the_swap_is_of_the_pmus_partition_and_hpmn_the_vms_number(design: str) -> None:
    """The partition has three counters, the VM one: but in v1, which knows one number, and v9, which knows the VM's."""
    vcpu = StubVcpu(FGT, 1)
    vpmu = designs.named(design).make({}, guest_range=0b111 | CYCLE_BIT).vpmu(vcpu)
    await vcpu_load(vpmu)
    await access(vpmu, r.PMSELR_EL0, True, 0)
    await vcpu_put(vpmu)
    vcpu.tell()
    await vcpu_load(vpmu)
    counters = [one for one in vcpu.tell() if one.startswith(("w PMEVCNTR", "w PMXEVCNTR"))]
    assert len(counters) == {"partitioned-v6": 4, "partitioned-v9": 1}.get(design, 3)
    assert vcpu.peek(r.MDCR_EL2) & r.MDCR_EL2_HPMN == (3 if design == "partitioned-v1" else 1)


@pytest.mark.parametrize("design", LOADS)
async def test_the_masks_of_a_load_are_of_the_pmus_partition(design: str) -> None:
    """Three counters, of which the VM has one. Up to v5 the mask is all bits but the host's, of counters that there are
    not, too; in v9 it is the VM's."""
    vcpu = StubVcpu(FGT, 1)
    vpmu = designs.named(design).make({}, guest_range=0b111 | CYCLE_BIT).vpmu(vcpu)
    await vcpu_load(vpmu)
    await access(vpmu, r.PMSELR_EL0, True, 0)
    await vcpu_put(vpmu)
    vcpu.machine.observe(True)
    vcpu.pmu.cnten, vcpu.pmu.inten = CYCLE_BIT, 0b1
    await vcpu_load(vpmu)
    written = {register: value for _, _, _, code, register, value in vcpu.machine.observed() if code == 1}
    mask = 0b111 | CYCLE_BIT
    if design < "partitioned-v6":
        mask = (1 << r.INSTRUCTION_COUNTER + 1) - 1 & ~0b111000
    elif design == "partitioned-v9":
        mask = 0b1 | CYCLE_BIT
    assert written[r.PMCNTENSET_EL0] == CYCLE_BIT
    assert written[r.PMCNTENCLR_EL0] == mask & ~CYCLE_BIT
    assert written[r.PMINTENSET_EL1] == 0b1
    assert written[r.PMINTENCLR_EL1] == mask & ~0b1
    assert written.get(r.PMOVSCLR_EL0, mask) == mask
    assert (r.PMOVSCLR_EL0 in written) is (design > "partitioned-v5")
