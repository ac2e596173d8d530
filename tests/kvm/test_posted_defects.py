"""What a posted version has wrong that another has not: of its masks and numbers, and of what it leaves in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services import registers as r
from services.cpu import awaited
from services.kvm.designs.partitioned.v7 import V7, V7Pmu
from services.kvm.designs.partitioned.v8 import V8Pmu
from services.kvm.simulation import Simulation
from services.registers import CYCLE_BIT, PMEVTYPER
from tests.kvm.scripted import experiment
from tests.kvm.stub_vcpu import access, vcpu_load, vcpu_put
from tests.kvm.test_partitioned_versions import FGT, VERSIONS, H, owned

UP_TO_V4 = VERSIONS[:4]
DENIED = 0x08 | r.PMEVTYPER_NSH


async def test_v1_takes_the_cpus_counters_for_the_guests() -> None:
    """A trapped PMEVTYPER<n>_EL0 of one above HPMN is a host's event then."""
    vpmu, vcpu = await owned("partitioned-v1")
    await access(vpmu, PMEVTYPER(H), True, 0x11)
    assert vcpu.peek(PMEVTYPER(H)) == 0x11


@pytest.mark.parametrize("design", VERSIONS[1:])
async def test_from_v2_to_v4_the_guest_reads_back_the_filters_bits(design: str) -> None:
    vpmu, vcpu = await owned(design)
    await access(vpmu, PMEVTYPER(0), True, 0x08)
    vcpu.pmu.denied = [0x08]
    await vcpu_put(vpmu)
    await vcpu_load(vpmu)
    filtered = 0x08 | r.PMEVTYPER_P | r.PMEVTYPER_U
    assert vcpu.peek(PMEVTYPER(0)) == filtered
    assert await access(vpmu, PMEVTYPER(0), False, 0) == (filtered if design in UP_TO_V4 else 0x08)


@pytest.mark.parametrize("design", VERSIONS)
async def test_up_to_v4_a_load_resets_what_the_vmm_has_set_p_and_c_for(design: str) -> None:
    """The saved PMCR_EL0 is written raw, from EL2, behind the counters: P resets the host's, too."""
    vpmu, vcpu = await owned(design)
    await vcpu_put(vpmu)
    vcpu.pmu.pmcr = r.PMCR_P | r.PMCR_C  # KVM_SET_ONE_REG
    vcpu.pmu.counter[0] = 41
    vcpu.machine.poke(0, r.PMEVCNTR(H), 42)
    await vcpu_load(vpmu)
    found = [vcpu.peek(one) for one in (r.PMEVCNTR(0), r.PMEVCNTR(H))]
    assert found == ([0, 0] if design in UP_TO_V4 else [41, 42])


@pytest.mark.parametrize("design", VERSIONS)
async def test_in_v6_and_v7_the_put_keeps_its_own_pmselr(design: str) -> None:
    """Its loop has overwritten the guest's: with 31 in v6, with the last event counter's number in v7."""
    vpmu, vcpu = await owned(design)
    vcpu.machine.poke(0, r.PMSELR_EL0, 0)
    await vcpu_put(vpmu)
    assert vcpu.pmu.selr == {"partitioned-v6": 31, "partitioned-v7": H - 1}.get(design, 0)


@pytest.mark.parametrize(("design", "counters"), [("partitioned-v7", 4), ("partitioned-v8", 2)])
async def test_in_v7_hpmn_reaches_into_the_hosts_counters_where_the_vm_wants_more_than_the_partition_has(
    design: str, counters: int
) -> None:
    of = experiment(design, counters=4, cpu=replace(FGT, reserved_host_counters=4))
    (vcpu,) = Simulation(of).vcpus
    assert vcpu.pmu.counters == counters
    assert isinstance(vcpu.vpmu, V7Pmu | V8Pmu)
    vcpu.vpmu.context.owned = True
    vcpu.pcpu.enter_kernel()
    await awaited(vcpu.vpmu.activate_traps())
    assert vcpu.machine.peek(0, r.MDCR_EL2) & r.MDCR_EL2_HPMN == counters


def test_in_v7_a_partition_without_event_counters_has_a_mask_of_all_ones() -> None:
    """GENMASK(-1, 0)."""
    cpu = replace(FGT, reserved_host_counters=FGT.counters)
    assert V7().host_policy(cpu).guest_flags == r.MASK64
    assert V7().host_policy(FGT).guest_flags == r.MASK64  # no VM wants any
    assert V7().host_policy(replace(cpu, reserved_host_counters=5)).guest_flags == 0b1 | CYCLE_BIT
