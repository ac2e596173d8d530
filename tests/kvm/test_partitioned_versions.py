"""Each posted version of the partitioned vPMU, driven alone: its steps, its traps, its transitions."""

from typing import Any

import pytest

from services import registers as r
from services.experiment import CpuSpec, DesignSpec
from services.kvm import designs
from services.kvm.errors import InjectUndef
from services.registers import CYCLE_BIT, PMEVCNTR, PMEVTYPER
from services.state import restore, save
from tests.kvm.stub_vcpu import StubVcpu, access

H = 2  # the guest's event counters
MASK = 0b11 | CYCLE_BIT
FGT = CpuSpec(model="fgt", counters=6, pmuver=6, fgt=1)
NO_FGT = CpuSpec(model="no fgt", counters=6, pmuver=6)

TPM, TPMCR, HPME = r.MDCR_EL2_TPM, r.MDCR_EL2_TPMCR, r.MDCR_EL2_HPME
EL2 = r.MDCR_EL2_HPMD | r.MDCR_EL2_HCCD

VERSIONS = [f"partitioned-v{n}" for n in (1, 2, 4, 5, 6, 7, 8)]
LAZY = VERSIONS[2:]
TRAPS = ["w MDCR_EL2", "w HDFGRTR_EL2", "w HDFGWTR_EL2"]


def made(design: str, cpu: CpuSpec = FGT, **axes: str) -> tuple[Any, StubVcpu]:
    """A design's PMU and its vCPU; the machine's guests want `H` event counters."""
    vcpu = StubVcpu(cpu, H)
    return designs.named(design).make(axes, guest_range=MASK).vpmu(vcpu), vcpu


async def owned(design: str, cpu: CpuSpec = FGT) -> tuple[Any, StubVcpu]:
    """Loaded for the second time, with an access before: by then every version has the registers on the CPU."""
    vpmu, vcpu = made(design, cpu)
    await vpmu.load()
    await access(vpmu, r.PMSELR_EL0, True, 0)
    await vpmu.put()
    await vpmu.load()
    vcpu.tell()
    return vpmu, vcpu


async def test_v8_loads_and_puts_in_this_order() -> None:
    vpmu, vcpu = await owned("partitioned-v8")
    await vpmu.put()
    assert vcpu.tell() == [
        *("r PMEVCNTR0_EL0", "r PMEVCNTR1_EL0", "r PMCCNTR_EL0", "r PMSELR_EL0", "r PMCR_EL0"),
        *("r PMCNTENSET_EL0", "r PMINTENSET_EL1", "r PMOVSSET_EL0"),
        *("w PMOVSCLR_EL0", "w PMCNTENCLR_EL0", "w PMINTENCLR_EL1"),
        *TRAPS,
        "GUEST_COUNTERS 0x0",
    ]
    await vpmu.load()
    assert vcpu.tell() == [
        f"GUEST_COUNTERS {MASK:#x}",
        *TRAPS,
        *("w PMEVTYPER0_EL0", "w PMEVTYPER1_EL0", "w PMCCFILTR_EL0"),
        *("w PMEVCNTR0_EL0", "w PMEVCNTR1_EL0", "w PMCCNTR_EL0", "w PMSELR_EL0", "w PMCR_EL0", "w PMOVSCLR_EL0"),
        *("w PMCNTENSET_EL0", "w PMCNTENCLR_EL0", "w PMINTENSET_EL1", "w PMINTENCLR_EL1"),
    ]


@pytest.mark.parametrize("design", VERSIONS)
async def test_pmuserenr_is_swapped_up_to_v5(design: str) -> None:
    vpmu, vcpu = await owned(design)
    await vpmu.put()
    await vpmu.load()
    swapped = [told for told in vcpu.tell() if told.endswith("PMUSERENR_EL0")]
    assert swapped == (["r PMUSERENR_EL0", "w PMUSERENR_EL0", "w PMUSERENR_EL0"] if design < "partitioned-v6" else [])


@pytest.mark.parametrize("design", VERSIONS)
async def test_the_host_is_asked_for_the_range_by_v7_and_v8_alone(design: str) -> None:
    vpmu, vcpu = await owned(design)
    await vpmu.put()
    calls = [told for told in vcpu.tell() if told.startswith("GUEST_COUNTERS")]
    assert calls == (["GUEST_COUNTERS 0x0"] if design >= "partitioned-v7" else [])
    everything = (1 << FGT.counters) - 1 | CYCLE_BIT
    kept = vpmu.design.host_policy(FGT).counters
    assert kept == (everything if design >= "partitioned-v7" else everything & ~MASK)


@pytest.mark.parametrize("design", VERSIONS)
def test_the_hosts_driver(design: str) -> None:
    policy = made(design)[0].design.host_policy(FGT)
    assert policy.split_irq is (design >= "partitioned-v6")
    assert policy.high_to_low is (design >= "partitioned-v8")


@pytest.mark.parametrize(
    ("design", "with_fgt", "without"),
    [
        ("partitioned-v1", EL2 | H, EL2 | TPM | TPMCR | H),
        ("partitioned-v2", EL2 | H, EL2 | TPM | TPMCR | H),
        ("partitioned-v4", EL2 | H, EL2 | TPM | TPMCR | H),
        ("partitioned-v5", EL2 | HPME | H, EL2 | TPM | TPMCR | 6),  # never owned without FEAT_FGT
        ("partitioned-v6", EL2 | HPME | H, EL2 | HPME | TPM | TPMCR | H),
        ("partitioned-v7", EL2 | HPME | H, EL2 | HPME | TPM | TPMCR | H),
        ("partitioned-v8", EL2 | HPME | H, EL2 | HPME | TPM | TPMCR | 6),  # HPMN is set where FEAT_FGT is
    ],
)
async def test_mdcr_el2_while_owned(design: str, with_fgt: int, without: int) -> None:
    _, vcpu = await owned(design)
    assert vcpu.peek(r.MDCR_EL2) == with_fgt
    vpmu, vcpu = await owned(design, NO_FGT)
    assert vcpu.peek(r.MDCR_EL2) == without
    await vpmu.put()
    assert vcpu.peek(r.MDCR_EL2) == NO_FGT.counters


@pytest.mark.parametrize(("design", "blind"), [(one, one >= "partitioned-v5") for one in LAZY])
async def test_a_vcpu_that_is_free_traps_everything_and_from_v5_on_blinds_the_host_at_el2(
    design: str, blind: bool
) -> None:
    vpmu, vcpu = made(design)
    await vpmu.load()
    assert vcpu.tell() == TRAPS
    assert vcpu.peek(r.MDCR_EL2) == TPM | TPMCR | FGT.counters | (EL2 if blind else 0)
    await vpmu.put()
    assert vcpu.tell() == TRAPS
    assert vpmu.swaps.loads == vpmu.swaps.puts == 0


@pytest.mark.parametrize("design", LAZY)
async def test_the_first_access_loads_the_registers_up_to_v6_and_then_the_traps_only(design: str) -> None:
    vpmu, vcpu = made(design)
    vcpu.pmu.counter[0] = 41
    await vpmu.load()
    vcpu.tell()
    assert await access(vpmu, PMEVCNTR(0), False, 0) == (41 if design < "partitioned-v7" else 0)
    assert vcpu.tell()[:3] == TRAPS
    assert vpmu.swaps.loads == (1 if design < "partitioned-v7" else 0)
    await access(vpmu, PMEVCNTR(0), False, 0)
    assert vcpu.tell() == ["r PMEVCNTR0_EL0"]


@pytest.mark.parametrize("design", VERSIONS)
async def test_an_event_type_that_is_written_is_on_the_cpu_at_once_up_to_v5_and_then_at_the_next_load(
    design: str,
) -> None:
    vpmu, vcpu = await owned(design)
    await access(vpmu, PMEVTYPER(1), True, 0x08 | r.PMEVTYPER_NSH)
    hardware = 0x08 | (r.PMEVTYPER_NSH if design == "partitioned-v1" else 0)
    assert vcpu.pmu.typer[1] == 0x08 | r.PMEVTYPER_NSH
    assert vcpu.peek(PMEVTYPER(1)) == (hardware if design < "partitioned-v6" else 0)
    await vpmu.put()
    await vpmu.load()
    assert vcpu.peek(PMEVTYPER(1)) == hardware


@pytest.mark.parametrize("design", VERSIONS)
async def test_an_overflow_flag_that_is_cleared_goes_from_the_cpu_too_up_to_v5(design: str) -> None:
    vpmu, vcpu = await owned(design)
    vcpu.machine.poke(0, r.PMOVSSET_EL0, 0b01)
    vcpu.pmu.ovs = 0b10
    assert await access(vpmu, r.PMOVSSET_EL0, False, 0) == (0b11 if design < "partitioned-v6" else 0b10)
    await access(vpmu, r.PMOVSCLR_EL0, True, 0xFFFF_FFFF)
    assert vcpu.pmu.ovs == 0
    assert vcpu.peek(r.PMOVSSET_EL0) == (0 if design < "partitioned-v6" else 0b01)


@pytest.mark.parametrize("design", ["partitioned-v2", "partitioned-v4", "partitioned-v6"])
async def test_without_fgt_the_fast_path_completes_what_an_owned_vcpu_accesses(design: str) -> None:
    vpmu, _ = made(design, NO_FGT)
    await vpmu.load()
    assert vpmu.fast_path
    assert vpmu.fast() is (design == "partitioned-v2")  # the others are FREE as yet
    await access(vpmu, r.PMCR_EL0, False, 0)
    assert vpmu.fast()
    with_fgt, _ = await owned(design)
    assert not with_fgt.fast_path


@pytest.mark.parametrize("design", VERSIONS)
async def test_what_the_hosts_handler_finds_interrupts_the_guest_that_has_enabled_it(design: str) -> None:
    vpmu, vcpu = await owned(design)
    vpmu.guest_overflow(0b110)  # 0b100 is not the guest's
    assert vcpu.pmu.ovs == 0b010
    assert not vpmu.level()
    vcpu.machine.poke(0, r.PMINTENSET_EL1, 0b010)
    assert not vpmu.level()
    vcpu.machine.poke(0, r.PMCR_EL0, r.PMCR_E)
    assert vpmu.level()
    await vpmu.put()
    vpmu.guest_overflow(0b001)
    assert vcpu.pmu.ovs == 0b010
    assert vpmu.level()  # by what is in memory


@pytest.mark.parametrize("design", [*VERSIONS, "partitioned", "gunyah"])
async def test_a_counter_that_is_not_the_guests_is_undefined(design: str) -> None:
    cpu = CpuSpec(model="x", counters=H, pmuver=6) if design == "gunyah" else NO_FGT
    vpmu, _ = made(design, cpu)
    await vpmu.load()
    for register in (PMEVCNTR(H), PMEVTYPER(H)):
        with pytest.raises(InjectUndef):
            await access(vpmu, register, False, 0)
    await access(vpmu, r.PMSELR_EL0, True, H)
    with pytest.raises(InjectUndef):
        await access(vpmu, r.PMXEVTYPER_EL0, True, 0)


@pytest.mark.parametrize("design", [*VERSIONS, "partitioned", "gunyah"])
async def test_a_vcpu_is_restored_onto_another_cpu_than_it_was_made_on(design: str) -> None:
    vpmu, vcpu = await owned(design)
    other, elsewhere = made(design, NO_FGT)
    elsewhere.spec, elsewhere.machine, elsewhere.pmu = vcpu.spec, vcpu.machine, vcpu.pmu
    restore(other, save(vpmu))
    other.derive()
    assert save(other) == save(vpmu)
    for one in (vpmu, other):
        await one.put()
    assert vcpu.tell() == elsewhere.tell()
    assert save(other) == save(vpmu)


@pytest.mark.parametrize("design", [*VERSIONS, "partitioned"])
async def test_a_trapped_read_of_pmcr_finds_what_userspace_has_set_and_in_v1_the_partition(design: str) -> None:
    vpmu, vcpu = made(design, NO_FGT)
    vcpu.pmu.set_counters(1)
    await vpmu.load()
    n = (await access(vpmu, r.PMCR_EL0, False, 0) & r.PMCR_N) >> r.PMCR_N_SHIFT
    assert n == (H if design == "partitioned-v1" else 1)


async def test_v5_gives_up_what_it_owned_on_a_cpu_without_fgt() -> None:
    vpmu, vcpu = await owned("partitioned-v5")
    await vpmu.put()
    vcpu.spec, vcpu.machine = NO_FGT, StubVcpu(NO_FGT, H).machine
    await vpmu.load()
    assert vcpu.peek(r.MDCR_EL2) == EL2 | TPM | TPMCR | NO_FGT.counters
    vcpu.tell()
    await access(vpmu, PMEVCNTR(0), True, 41)
    assert await access(vpmu, PMEVCNTR(0), False, 0) == 41
    assert vcpu.tell() == []


def test_every_version_is_a_design_with_its_name() -> None:
    for name in VERSIONS:
        assert designs.make(DesignSpec(name)).name == name
        assert list(designs.named(name).axes()) == ["traps"]
