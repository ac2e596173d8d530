"""Each posted version of the partitioned vPMU, driven alone: its steps, its traps, its transitions."""

from dataclasses import replace
from typing import Any

import pytest

from pmulab import run
from pmulab.curve import rows
from pmulab.report import render
from services import registers as r
from services.cpu import Cpu, Entry, awaited
from services.experiment import CpuSpec, DesignSpec
from services.host_perf import HostPerf
from services.kvm import designs
from services.kvm.attendant import LocalSoftware
from services.kvm.designs.emulated import EmulatedPmu
from services.registers import CYCLE_BIT, PMEVCNTR, PMEVTYPER
from services.state import restore, save
from tests.kvm.scripted import Scripted, experiment, simulation
from tests.kvm.stub_vcpu import StubVcpu, access, vcpu_load, vcpu_put

H = 2  # the guest's event counters
MASK = 0b11 | CYCLE_BIT
FGT = CpuSpec(model="fgt", counters=6, pmuver=6, fgt=1)
NO_FGT = CpuSpec(model="no fgt", counters=6, pmuver=6)

TPM, TPMCR, HPME = r.MDCR_EL2_TPM, r.MDCR_EL2_TPMCR, r.MDCR_EL2_HPME
HPMD = r.MDCR_EL2_HPMD
EL2 = HPMD | r.MDCR_EL2_HCCD

VERSIONS = [f"partitioned-v{n}" for n in range(1, 10)]
LAZY = VERSIONS[3:]


def made(design: str, cpu: CpuSpec = FGT, **axes: str) -> tuple[Any, StubVcpu]:
    """A design's PMU and its vCPU; the machine's guests want `H` event counters."""
    vcpu = StubVcpu(cpu, H)
    return designs.named(design).make(axes, guest_range=MASK).vpmu(vcpu), vcpu


async def owned(design: str, cpu: CpuSpec = FGT) -> tuple[Any, StubVcpu]:
    """Loaded for the second time, with an access before: by then every version has the registers on the CPU."""
    vpmu, vcpu = made(design, cpu)
    await vcpu_load(vpmu)
    await access(vpmu, r.PMSELR_EL0, True, 0)
    await vcpu_put(vpmu)
    await vcpu_load(vpmu)
    vcpu.tell()
    return vpmu, vcpu


@pytest.mark.parametrize("design", VERSIONS)
async def test_what_of_pmuserenr_a_load_leaves_on_the_cpu_and_a_put(design: str) -> None:
    """The guest's from v1 to v5, all ones from v6 on; the host's again at put, but in v5."""
    vpmu, vcpu = await owned(design)
    vcpu.host_userenr = r.PMUSERENR_CR
    await vcpu_put(vpmu)
    vcpu.pmu.userenr = r.PMUSERENR_SW
    await vcpu_load(vpmu)
    assert vcpu.peek(r.PMUSERENR_EL0) == (r.PMUSERENR_SW if design < "partitioned-v6" else 0xF)
    await vcpu_put(vpmu)
    assert vcpu.peek(r.PMUSERENR_EL0) == (r.PMUSERENR_SW if design == "partitioned-v5" else r.PMUSERENR_CR)
    # Up to v4 kvm_pmu_put() has read the host's for the guest's.
    assert vcpu.pmu.userenr == (r.PMUSERENR_CR if design < "partitioned-v5" else r.PMUSERENR_SW)


@pytest.mark.parametrize("design", VERSIONS)
async def test_what_is_left_on_the_cpu_after_a_put(design: str) -> None:
    """v8 is the first to clear the guest's PMCNTEN and PMINTEN, and to take its overflow flags along."""
    vpmu, vcpu = await owned(design)
    for register in (r.PMCNTENSET_EL0, r.PMINTENSET_EL1, r.PMOVSSET_EL0):
        vcpu.machine.poke(0, register, 0b11)
    vcpu.pmu.ovs = 0
    await vcpu_put(vpmu)
    drained = design >= "partitioned-v8"
    left = 0 if drained else 0b11
    assert [vcpu.peek(one) for one in (r.PMCNTENSET_EL0, r.PMINTENSET_EL1, r.PMOVSSET_EL0)] == [left] * 3
    assert (vcpu.pmu.cnten, vcpu.pmu.inten, vcpu.pmu.ovs) == (0b11, 0b11, 0b11 if drained else 0)


@pytest.mark.parametrize("design", VERSIONS)
async def test_the_host_is_asked_for_the_range_from_v7_on(design: str) -> None:
    vpmu, vcpu = await owned(design)
    await vcpu_put(vpmu)
    calls = [told for told in vcpu.tell() if told.startswith("GUEST_COUNTERS")]
    assert calls == (["GUEST_COUNTERS 0x0"] if design >= "partitioned-v7" else [])
    everything = (1 << FGT.counters) - 1 | CYCLE_BIT
    kept = vpmu.design.host_policy(FGT).counters
    assert kept == (everything if design >= "partitioned-v7" else everything & ~MASK)


@pytest.mark.parametrize("design", VERSIONS)
def test_the_hosts_driver(design: str) -> None:
    policy = made(design)[0].design.host_policy(FGT)
    assert policy.guest_flags & r.MASK32 == MASK
    assert policy.split_irq is (design >= "partitioned-v6")
    assert policy.fixed_flags is ("partitioned-v6" <= design < "partitioned-v9")
    assert policy.shared_counters is (design in ("partitioned-v7", "partitioned-v8"))
    assert policy.high_to_low is (design >= "partitioned-v8")
    assert policy.hpme is ("partitioned-v3" <= design < "partitioned-v7")
    if policy.fixed_flags:  # kvm_pmu_host_counter_mask: without the cycle counter
        assert policy.own_flags == 0b111100


@pytest.mark.parametrize(
    ("design", "free", "with_fgt", "without"),
    [
        ("partitioned-v1", HPMD | H, HPMD | H, TPM | TPMCR | 6),  # it is emulated
        ("partitioned-v2", EL2 | H, EL2 | H, EL2 | TPM | TPMCR | H),
        ("partitioned-v3", EL2 | H, EL2 | H, EL2 | TPM | TPMCR | H),
        ("partitioned-v4", EL2 | TPM | TPMCR | H, EL2 | H, EL2 | TPM | TPMCR | H),
        ("partitioned-v5", EL2 | HPME | TPM | TPMCR | H, EL2 | HPME | H, EL2 | HPME | TPM | TPMCR | H),
        ("partitioned-v6", EL2 | HPME | TPM | TPMCR | H, EL2 | HPME | H, EL2 | HPME | TPM | TPMCR | H),
        ("partitioned-v7", EL2 | HPME | TPM | TPMCR | H, EL2 | HPME | H, EL2 | HPME | TPM | TPMCR | H),
        ("partitioned-v8", EL2 | HPME | TPM | TPMCR | 6, EL2 | HPME | H, EL2 | HPME | TPM | TPMCR | 6),
        ("partitioned-v9", EL2 | HPME | TPM | TPMCR | 6, EL2 | HPME | H, EL2 | HPME | TPM | TPMCR | 6),
    ],
)
async def test_mdcr_el2(design: str, free: int, with_fgt: int, without: int) -> None:
    vpmu, vcpu = made(design)
    await vcpu_load(vpmu)
    assert vcpu.peek(r.MDCR_EL2) == free
    _, vcpu = await owned(design)
    assert vcpu.peek(r.MDCR_EL2) == with_fgt
    vpmu, vcpu = await owned(design, NO_FGT)
    assert vcpu.peek(r.MDCR_EL2) == without
    await vcpu_put(vpmu)
    assert vcpu.peek(r.MDCR_EL2) == NO_FGT.counters


@pytest.mark.parametrize(
    ("design", "accesses"),
    [
        ("partitioned-v4", ["w MDCR_EL2", "w PMSELR_EL0"]),
        ("partitioned-v6", ["r PMUSERENR_EL0", "w MDCR_EL2", "w PMSELR_EL0"]),
        ("partitioned-v7", ["w MDCR_EL2", "r PMUSERENR_EL0", "w PMSELR_EL0"]),
        ("partitioned-v8", ["w MDCR_EL2", "r PMUSERENR_EL0", "w PMSELR_EL0"]),
        ("partitioned-v9", ["w MDCR_EL2", "r PMUSERENR_EL0", "w PMSELR_EL0"]),
    ],
)
async def test_the_first_access_lifts_the_traps_and_loads_nothing(design: str, accesses: list[str]) -> None:
    vpmu, vcpu = made(design)
    await vcpu_load(vpmu)
    loads = vpmu.swaps.loads
    vcpu.tell()
    await access(vpmu, r.PMSELR_EL0, True, 1)
    assert vcpu.tell() == accesses
    assert vpmu.swaps.loads == loads


async def test_v5_loads_after_the_first_access() -> None:
    vpmu, vcpu = made("partitioned-v5")
    vcpu.pmu.counter[0] = 41
    await vcpu_load(vpmu)
    vcpu.tell()
    await access(vpmu, r.PMSELR_EL0, True, 1)
    told = vcpu.tell()
    assert told[:3] == ["w PMSELR_EL0", "w MDCR_EL2", "w PMEVTYPER0_EL0"]
    assert (vpmu.swaps.loads, vcpu.peek(PMEVCNTR(0)), vcpu.peek(r.PMSELR_EL0)) == (1, 41, 1)


async def test_a_read_makes_a_vcpu_guest_owned_but_in_v7() -> None:
    for design in ("partitioned-v7", "partitioned-v8"):
        vpmu, vcpu = made(design)
        await vcpu_load(vpmu)
        await access(vpmu, r.PMCR_EL0, False, 0)
        assert bool(vcpu.peek(r.MDCR_EL2) & TPM) is (design == "partitioned-v7")


@pytest.mark.parametrize("design", VERSIONS)
async def test_an_event_type_that_is_written_is_on_the_cpu_at_once_but_in_v6_to_v8(design: str) -> None:
    vpmu, vcpu = await owned(design)
    await access(vpmu, PMEVTYPER(1), True, 0x08 | r.PMEVTYPER_NSH)
    hardware = 0x08 | (r.PMEVTYPER_NSH if design < "partitioned-v5" else 0)
    assert vcpu.pmu.typer[1] == 0x08 | r.PMEVTYPER_NSH
    at_load = "partitioned-v6" <= design <= "partitioned-v8"
    assert vcpu.peek(PMEVTYPER(1)) == (0 if at_load else hardware)
    await vcpu_put(vpmu)
    await vcpu_load(vpmu)
    assert vcpu.peek(PMEVTYPER(1)) == hardware


@pytest.mark.parametrize(("design", "denied"), [("partitioned-v1", False), ("partitioned-v2", False)])
async def test_up_to_v4_the_filter_is_asked_for_the_whole_type_and_in_v1_not_at_all(design: str, denied: bool) -> None:
    vpmu, vcpu = await owned(design)
    vcpu.pmu.denied = [0x08]
    await access(vpmu, PMEVTYPER(0), True, 0x08 | r.PMEVTYPER_U)
    await vcpu_put(vpmu)
    await vcpu_load(vpmu)
    assert bool(vcpu.peek(PMEVTYPER(0)) & r.PMEVTYPER_P) is denied
    await access(vpmu, PMEVTYPER(0), True, 0x08)
    assert bool(vcpu.peek(PMEVTYPER(0)) & r.PMEVTYPER_P) is (design > "partitioned-v1")


@pytest.mark.parametrize("design", VERSIONS)
async def test_overflow_flags_are_read_from_memory_and_cleared_there_up_to_v5_and_in_v9_on_the_cpu_too(
    design: str,
) -> None:
    vpmu, vcpu = await owned(design)
    vcpu.machine.poke(0, r.PMOVSSET_EL0, 0b01)
    vcpu.pmu.ovs = 0b10
    vcpu.tell()
    assert await access(vpmu, r.PMOVSSET_EL0, False, 0) == 0b10
    assert "r PMOVSSET_EL0" not in vcpu.tell()
    await access(vpmu, r.PMOVSCLR_EL0, True, 0xFFFF_FFFF)
    assert vcpu.pmu.ovs == 0
    in_memory = "partitioned-v6" <= design <= "partitioned-v8"
    assert vcpu.peek(r.PMOVSSET_EL0) == (0b01 if in_memory else 0)
    await access(vpmu, r.PMOVSSET_EL0, True, 0b10)
    assert vcpu.pmu.ovs == 0b10
    assert vcpu.peek(r.PMOVSSET_EL0) >> 1 == (0 if design > "partitioned-v5" else 1)


@pytest.mark.parametrize("design", VERSIONS)
async def test_what_the_hosts_handler_finds_interrupts_the_guest_that_has_enabled_it(design: str) -> None:
    """By the CPU's PMINTENSET_EL1 and PMCR_EL0, which every flush and sync reads."""
    vpmu, vcpu = await owned(design)
    vcpu.tell()
    await awaited(vpmu.guest_overflow(0b010))
    assert vcpu.pmu.ovs == 0b010
    vcpu.tell()
    assert not await awaited(vpmu.level())
    assert vcpu.tell() == ["r PMINTENSET_EL1", "r PMCR_EL0"]
    vcpu.machine.poke(0, r.PMINTENSET_EL1, 0b010)
    assert not await awaited(vpmu.level())
    vcpu.machine.poke(0, r.PMCR_EL0, r.PMCR_E)
    assert await awaited(vpmu.level())


@pytest.mark.parametrize("design", LAZY)
async def test_what_a_vcpu_that_is_free_is_told_of_is_its_own(design: str) -> None:
    """The masks are the PMU's. Whether it interrupts: by the CPU's registers, never, or by the saved ones."""
    vpmu, vcpu = made(design)
    await vcpu_load(vpmu)
    await awaited(vpmu.guest_overflow(0b010))
    assert vcpu.pmu.ovs == 0b010
    vcpu.machine.poke(0, r.PMINTENSET_EL1, 0b010)
    vcpu.machine.poke(0, r.PMCR_EL0, r.PMCR_E)
    assert await awaited(vpmu.level()) is (design < "partitioned-v6")
    vcpu.machine.poke(0, r.PMINTENSET_EL1, 0b010)
    vcpu.pmu.inten, vcpu.pmu.pmcr = 0b010, r.PMCR_E
    assert await awaited(vpmu.level()) is (design not in ("partitioned-v6", "partitioned-v7"))
    owns = design >= "partitioned-v8"  # by that alone, and loads nothing
    assert bool(vcpu.peek(r.MDCR_EL2) & TPM) is not owns


@pytest.mark.parametrize("design", ["partitioned-v8", "partitioned-v9"])
async def test_a_reload_backs_what_a_restored_guest_has_enabled_by_kernel_counters(design: str) -> None:
    """kvm_vcpu_reload_pmu, whose kernel counters outlive the guest's first access."""
    vpmu, vcpu = made(design)
    vcpu.pmu.pmcr, vcpu.pmu.cnten, vcpu.pmu.typer[0] = r.PMCR_E, 0b1 | CYCLE_BIT, 0x08
    await vcpu_load(vpmu)
    vcpu.tell()
    await awaited(vpmu.reload())
    assert vcpu.tell() == ["CREATE 0x0", "CREATE 0x1f", "EL0_FILTER 0x1"]
    assert vpmu.el0_switched()
    await access(vpmu, PMEVCNTR(0), False, 0)
    assert vpmu.el0_switched()


@pytest.mark.parametrize("design", VERSIONS[1:5])
async def test_up_to_v5_nothing_is_swapped_without_fgt(design: str) -> None:
    vpmu, vcpu = await owned(design, NO_FGT)
    await access(vpmu, PMEVCNTR(0), True, 41)
    assert vcpu.tell() == ["w PMEVCNTR0_EL0"]
    assert vcpu.pmu.counter[0] == 41
    assert vpmu.swaps.loads == vpmu.swaps.puts == 0


async def test_v5_loads_from_the_fast_path_and_from_the_handlers_of_event_types_and_overflow_flags() -> None:
    for register in (r.PMCR_EL0, r.PMSWINC_EL0, PMEVTYPER(0), r.PMOVSSET_EL0, r.PMCEID0_EL0):
        vpmu, _ = made("partitioned-v5")
        await vcpu_load(vpmu)
        await access(vpmu, register, register == r.PMSWINC_EL0, 0)
        assert vpmu.swaps.loads == (register != r.PMCEID0_EL0)


@pytest.mark.parametrize(
    ("irq_mask", "touched", "guests"),
    [("vcpu", False, True), ("vcpu", True, True), ("hpmn", False, False), ("hpmn", True, True)],
)
async def test_whose_flag_an_interrupt_finds_in_v9(irq_mask: str, touched: bool, guests: bool) -> None:
    """By the vCPU that runs: from its load on, FREE or not; by HPMN: from the first access on, before it is loaded."""

    async def boot(cpu: Cpu, entry: Entry) -> None:
        if touched:
            await cpu.mrs(r.PMSELR_EL0)
        cpu.burst.compute(1, 1, 1_000_000)

    found = simulation(experiment("partitioned-v9", axes={"irq_mask": irq_mask}), Scripted(boot=boot))
    found.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    (vcpu,), machine = found.vcpus, found.board.machine
    while vcpu.compute is None:
        await found.step()
    assert vcpu.vpmu.swaps.loads == 0
    for register, value in ((r.PMINTENSET_EL1, 1), (r.PMOVSSET_EL0, 1), (r.PMCR_EL0, r.PMCR_E)):
        machine.poke(0, register, value)
    machine.observe(True)
    await found.step()
    assert vcpu.pmu.ovs == guests
    assert machine.peek(0, r.PMOVSSET_EL0) == 0
    read = [register for *_, code, register, _ in machine.observed() if code == 0]
    assert (r.MDCR_EL2 in read) is (irq_mask == "hpmn")


@pytest.mark.parametrize("hpmn0", [False, True])
@pytest.mark.parametrize("design", VERSIONS)
async def test_a_partition_without_event_counters(design: str, hpmn0: bool) -> None:
    """HPMN = 0 needs FEAT_HPMN0. Without it v1 has no partition, v2 to v5 write it, and v6 on leave HPMN as it is;
    every access traps, and up to v5 nothing is swapped."""
    cpu = replace(FGT, hpmn0=hpmn0)
    vcpu = StubVcpu(cpu, 0)
    vpmu: Any = designs.named(design).make({}, guest_range=CYCLE_BIT).vpmu(vcpu)
    await vcpu_load(vpmu)
    await access(vpmu, r.PMSELR_EL0, True, 0)
    await vcpu_put(vpmu)
    await vcpu_load(vpmu)
    writes_zero = "partitioned-v2" <= design <= "partitioned-v5"
    assert vcpu.peek(r.MDCR_EL2) & r.MDCR_EL2_HPMN == (0 if hpmn0 or writes_zero else cpu.counters)
    assert bool(vcpu.peek(r.MDCR_EL2) & TPM) is not hpmn0
    assert isinstance(vpmu, EmulatedPmu) is (design == "partitioned-v1" and not hpmn0)
    assert bool(vpmu.swaps.loads) is (hpmn0 or design > "partitioned-v5")
    assert bool(vcpu.machine.choices_made(0)["bad_hpmn"]) is (writes_zero and not hpmn0)
    told = " ".join(designs.named(design).make({}, guest_range=CYCLE_BIT).check(cpu, 0))
    assert ("UNPREDICTABLE" in told) is (writes_zero and not hpmn0)
    assert ("FEAT_HPMN0" in told) is not hpmn0


def test_what_is_inferred_of_v9_is_said_to_be() -> None:
    vpmu, _ = made("partitioned-v9")
    assert any("unverified" in fallback for fallback in vpmu.design.check(FGT, H))
    assert "unverified" in vpmu.design.why


@pytest.mark.parametrize("design", [*VERSIONS, "partitioned"])
async def test_a_vcpu_is_restored_onto_another_cpu_than_it_was_made_on(design: str) -> None:
    vpmu, vcpu = await owned(design)
    other, elsewhere = made(design, NO_FGT if design != "partitioned-v1" else vcpu.spec)  # which is emulated there
    elsewhere.spec, elsewhere.machine, elsewhere.pmu = vcpu.spec, vcpu.machine, vcpu.pmu
    restore(other, save(vpmu))
    other.derive()
    assert save(other) == save(vpmu)
    for one in (vpmu, other):
        await vcpu_put(one)
    assert vcpu.tell() == elsewhere.tell()
    assert save(other) == save(vpmu)


@pytest.mark.parametrize("design", [*VERSIONS, "partitioned"])
async def test_a_trapped_read_of_pmcr_finds_what_userspace_has_set_but_in_v7(design: str) -> None:
    """There a vCPU that is GUEST_OWNED finds the CPU's own number, as EL2 reads it."""
    vpmu, vcpu = made(design, NO_FGT)
    vcpu.pmu.set_counters(1)
    await vcpu_load(vpmu)
    for n in (1, NO_FGT.counters if design == "partitioned-v7" else 1):
        assert (await access(vpmu, r.PMCR_EL0, False, 0) & r.PMCR_N) >> r.PMCR_N_SHIFT == n
        await access(vpmu, r.PMSELR_EL0, True, 0)


def test_every_version_is_a_design_with_its_name() -> None:
    for name in VERSIONS:
        assert designs.make(DesignSpec(name)).name == name
        assert list(designs.named(name).axes()) == ["traps", "irq_mask"][: 2 if name == "partitioned-v9" else 1]


def test_v9_is_said_to_be_unverified_wherever_it_is_printed() -> None:
    result = run("quick", designs=["partitioned-v9", "partitioned-v8"], overrides={"guest.task.seconds": 0.005}, jobs=1)
    assert [one.design.unverified for one in result.runs] == [True, False]
    printed = [line for line in render(result).splitlines() if "partitioned-v9" in line]
    assert printed
    assert all("unverified" in line for line in printed)
    curve = rows("quick", ["guest.task.seconds=0.005"], ["partitioned-v9"], [], ["guest-got"])
    assert all("unverified" in str(row.cells) for row in curve if row.run is not None)
