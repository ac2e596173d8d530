"""A design is made and driven with a stub vCPU: neither a Simulation nor software takes part."""

from typing import Any

import pytest

from services import registers as r
from services.cpu import Row
from services.experiment import CpuSpec
from services.kvm import designs
from services.kvm.bill import Account
from services.kvm.errors import InjectUndef, ProtocolError
from services.registers import CYCLE_BIT, PMEVCNTR, PMEVTYPER
from services.state import restore, save
from tests.kvm.stub_vcpu import StubVcpu, access, vcpu_load, vcpu_put

CPU = CpuSpec(model="test", counters=4, pmuver=6, fgt=1)
COUNTED = 5  # what each kernel counter has counted when it is read
ON = r.PMCR_LC | r.PMCR_E


class CountingVcpu(StubVcpu):
    """The host's perf answers its READs."""

    def call(self, rows: list[Row], account: Account = Account.PERF, *, calls: int = 0, reads: int = 0) -> list[int]:
        super().call(rows, account, calls=calls, reads=reads)
        return [COUNTED] * reads


def made(design: str, **axes: str) -> tuple[Any, CountingVcpu]:
    vcpu = CountingVcpu(CPU, CPU.counters)
    return designs.named(design).make(axes, guest_range=0b1111 | CYCLE_BIT).vpmu(vcpu), vcpu


async def start(vpmu: Any) -> None:
    """What a guest's driver does for an event on counter 0, every access trapping."""
    for register, value in (
        (r.PMCR_EL0, ON),
        (PMEVCNTR(0), 0xFFFF_0000),
        (PMEVTYPER(0), 0x08),
        (r.PMINTENSET_EL1, 1),
        (r.PMCNTENSET_EL0, 1),
    ):
        await access(vpmu, register, True, value)


@pytest.mark.parametrize("design", [name for name in designs.designs() if name != "raw"])
async def test_what_a_guest_programs_is_in_memory_after_the_put(design: str) -> None:
    vpmu, vcpu = made(design)
    await vcpu_load(vpmu)
    await start(vpmu)
    await vcpu_put(vpmu)
    pmu = vcpu.pmu
    assert (pmu.typer[0], pmu.inten, pmu.cnten, pmu.pmcr & r.PMCR_E) == (0x08, 1, 1, r.PMCR_E)


@pytest.mark.parametrize("design", list(designs.designs()))
async def test_a_design_saved_and_restored_with_its_vcpu_does_the_same_from_there_on(design: str) -> None:
    vpmu, vcpu = made(design)
    await vcpu_load(vpmu)
    if design != "raw":
        await start(vpmu)
    other, twin = made(design)
    twin.machine.restore(vcpu.machine.state())
    restore(twin.pmu, save(vcpu.pmu))
    restore(other, save(vpmu))
    other.derive()
    for one, of_one in ((vpmu, vcpu), (other, twin)):
        of_one.tell()
        await vcpu_put(one)
        await vcpu_load(one)
    assert twin.tell() == vcpu.tell()
    assert (save(other), save(twin.pmu)) == (save(vpmu), save(vcpu.pmu))


@pytest.mark.parametrize("design", list(designs.designs()))
async def test_a_register_that_is_no_pmus_is_undefined(design: str) -> None:
    vpmu, _ = made(design)
    await vcpu_load(vpmu)
    with pytest.raises(InjectUndef):
        await access(vpmu, r.MDCR_EL2, False, 0)


async def test_an_emulated_counter_is_a_perf_event_of_the_host() -> None:
    vpmu, vcpu = made("emulated")
    await vcpu_load(vpmu)
    vcpu.tell()
    await start(vpmu)
    # SW_INCR, which the counter counts until its type is written, is counted in memory.
    assert vcpu.tell() == ["CREATE 0x0", "EL0_FILTER 0x1", "ENABLE 0x0", "EL0_FILTER 0x1"]
    assert await access(vpmu, PMEVCNTR(0), False, 0) == 0xFFFF_0000 + COUNTED
    assert vcpu.tell() == ["READ 0x0"]


@pytest.mark.parametrize(("design", "told"), [("emulated", ["ENABLE 0x0", "EL0_FILTER 0x1"]), ("emulated-6.15", [])])
async def test_a_write_of_pmcr_that_leaves_e_alone(design: str, told: list[str]) -> None:
    vpmu, vcpu = made(design)
    await vpmu.load()
    await start(vpmu)
    vcpu.tell()
    await access(vpmu, r.PMCR_EL0, True, ON)
    assert vcpu.tell() == told


@pytest.mark.parametrize("design", ["emulated", "emulated-6.15"])
async def test_pmcntenclr_flips_the_el0_filters_of_host_events_from_6_15_on(design: str) -> None:
    vpmu, vcpu = made(design)
    await vpmu.load()
    await start(vpmu)
    vcpu.tell()
    await access(vpmu, r.PMCNTENCLR_EL0, True, 1)
    assert vcpu.tell() == ["DISABLE 0x0", *(["EL0_FILTER 0x1"] if design == "emulated-6.15" else [])]


@pytest.mark.parametrize(("design", "level"), [("emulated", True), ("emulated-6.12.0", False), ("emulated-6.15", True)])
async def test_a_flag_of_a_counter_that_is_not_enabled_interrupts_but_in_6_12_0(design: str, level: bool) -> None:
    vpmu, _ = made(design)
    await vpmu.load()
    await start(vpmu)
    vpmu.counter_overflow(0)
    await access(vpmu, r.PMCNTENCLR_EL0, True, 1)
    assert vpmu.level() == level


@pytest.mark.parametrize(("axes", "strict"), [({"kernel": "7.3"}, False), ({"kernel": "7.3", "strict": "yes"}, True)])
async def test_a_strict_pmu_shows_its_slots(axes: dict[str, str], strict: bool) -> None:
    """KVM_ARM_VCPU_PMU_V3_STRICT (7.3)."""
    vpmu, vcpu = made("emulated", **axes)
    hardware = {r.PMMIR_EL1: 0x1_0000_0108, r.PMCEID1_EL0: 0xE000_0001}

    async def read(register: int) -> int:
        return hardware[register]

    vcpu.read = read  # type: ignore[method-assign]
    await vpmu.load()
    assert await access(vpmu, r.PMMIR_EL1, False, 0) == (0x08 if strict else 0)
    assert await access(vpmu, r.PMCEID1_EL0, False, 0) == (0xE000_0001 if strict else 1)


async def test_the_event_of_fixed_counters_is_made_anew_where_the_cpu_is_another_pmus() -> None:
    vpmu, vcpu = made("emulated", counters="fixed")
    await vpmu.load()
    await access(vpmu, r.PMCR_EL0, True, ON)
    await access(vpmu, r.PMCNTENSET_EL0, True, CYCLE_BIT)
    with pytest.raises(InjectUndef):
        await access(vpmu, PMEVCNTR(0), False, 0)
    vcpu.tell()
    await vpmu.load()
    assert vcpu.tell() == []
    vcpu.arm_pmu = 1
    await vpmu.load()
    assert vcpu.tell() == ["READ 0x1f", "CREATE 0x1f"]
    assert vcpu.pmu.counter[r.CYCLE_COUNTER] == COUNTED
    await vpmu.load()
    assert vcpu.tell() == []


async def test_an_emulated_overflow_is_pending_and_kicks_the_vcpu() -> None:
    vpmu, vcpu = made("emulated")
    await vcpu_load(vpmu)
    await start(vpmu)
    assert not vpmu.level()
    vpmu.counter_overflow(0)
    assert (vpmu.level(), vcpu.pmu.ovs, vcpu.kicks) == (True, 1, 1)
    with pytest.raises(ProtocolError, match="no kernel counter backs counter 1"):
        vpmu.counter_overflow(1)
