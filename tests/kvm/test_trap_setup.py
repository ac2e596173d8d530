"""kvm_vcpu_load_vhe() and kvm_vcpu_put_vhe(): the trap set-up, access by access, under two kernels."""

import pytest

from pmulab.designs import parse_design
from services import registers as r
from services.cpu import Cpu, Entry, Notice, Timer, awaited
from services.experiment import CpuSpec
from services.kvm import designs
from services.kvm.trap_setup import FineGrained, HostTraps
from services.kvm.without_pmu import WithoutPmu
from tests.kvm.scripted import Scripted, experiment, simulation
from tests.kvm.stub_vcpu import StubVcpu

FGT = CpuSpec(model="test", counters=6, pmuver=6, fgt=1)
FGT2 = CpuSpec(model="test", counters=6, pmuver=9, fgt=2, icntr=True, hpmn0=True, reserved_host_counters=2)
NO_FGT = CpuSpec(model="test", counters=6, pmuver=6)
SELR_AND_USERENR = ["w PMSELR_EL0", "r PMUSERENR_EL0", "w PMUSERENR_EL0"]
MDCR = ["r MDCR_EL2", "w MDCR_EL2"]
OVS = FineGrained(reads=r.HDFG_PMOVS, writes=r.HDFG_PMOVS)
EVERYTHING = r.PMU_TRAPS | 6


@pytest.mark.parametrize("cpu", [FGT, NO_FGT])
async def test_in_6_12_117_an_emulated_vcpu_has_the_trap_set_up_and_nothing_else(cpu: CpuSpec) -> None:
    vcpu = StubVcpu(cpu, 6)
    vpmu = designs.named("emulated").make({}).vpmu(vcpu)
    vpmu.activate_traps()
    await vpmu.load()
    fine = ["r HDFGRTR_EL2", "r HDFGWTR_EL2"] if cpu.fgt else []  # and neither is written
    assert vcpu.tell() == [*SELR_AND_USERENR, *MDCR, *fine]
    assert (vcpu.peek(r.MDCR_EL2), vcpu.peek(r.PMUSERENR_EL0)) == (EVERYTHING, 0xF)
    vcpu.host_userenr = r.PMUSERENR_ER | r.PMUSERENR_CR  # kvm_set_pmuserenr, meanwhile
    vpmu.deactivate_traps()
    await vpmu.put()
    assert vcpu.tell() == ["w MDCR_EL2", "w PMUSERENR_EL0"]
    assert (vcpu.peek(r.MDCR_EL2), vcpu.peek(r.PMUSERENR_EL0)) == (6, vcpu.host_userenr)


async def test_in_7_3_an_emulated_vcpu_has_that_kernels() -> None:
    vcpu = StubVcpu(FGT, 6)
    vpmu = designs.named("emulated").make({"kernel": "7.3"}).vpmu(vcpu)
    vpmu.activate_traps()
    await vpmu.load()
    fine = ["r HDFGRTR_EL2", "w HDFGRTR_EL2", "r HDFGWTR_EL2", "w HDFGWTR_EL2"]
    assert vcpu.tell() == [*MDCR, *SELR_AND_USERENR, *fine]
    vpmu.deactivate_traps()
    await vpmu.put()
    assert vcpu.tell() == ["w MDCR_EL2", "w PMUSERENR_EL0", "w HDFGRTR_EL2", "w HDFGWTR_EL2"]


async def test_a_vcpu_without_a_pmu_has_it_too() -> None:
    vcpu = StubVcpu(FGT, 6)
    vpmu = WithoutPmu(designs.named("partitioned").make({}), vcpu)
    vpmu.activate_traps()
    await vpmu.load()
    assert vcpu.tell() == [*SELR_AND_USERENR, *MDCR, "r HDFGRTR_EL2", "r HDFGWTR_EL2"]
    vpmu.deactivate_traps()
    await vpmu.put()
    assert vcpu.tell() == ["w MDCR_EL2", "w PMUSERENR_EL0"]


def test_6_12_117_writes_a_fine_grained_trap_register_only_where_a_bit_is_wanted() -> None:
    vcpu, host = StubVcpu(FGT, 6), HostTraps()
    writes_only = FineGrained(writes=r.HDFG_PMOVS)
    host.load_6_12(vcpu, EVERYTHING, writes_only)
    assert vcpu.tell()[-3:] == ["r HDFGRTR_EL2", "r HDFGWTR_EL2", "w HDFGWTR_EL2"]
    host.put_6_12(vcpu, writes_only)
    assert vcpu.tell() == ["w MDCR_EL2", "w PMUSERENR_EL0", "w HDFGWTR_EL2"]
    host.load_6_12(vcpu, EVERYTHING, OVS, selr=False, userenr=False)
    assert vcpu.tell() == [*MDCR, "r HDFGRTR_EL2", "w HDFGRTR_EL2", "r HDFGWTR_EL2", "w HDFGWTR_EL2"]
    host.put_6_12(vcpu, OVS, userenr=False)
    assert vcpu.tell() == ["w MDCR_EL2", "w HDFGRTR_EL2", "w HDFGWTR_EL2"]
    assert (vcpu.peek(r.HDFGRTR_EL2), vcpu.peek(r.HDFGWTR_EL2)) == (0, 0)


async def test_the_kernels_of_2026_begin_with_mdcr_el2_and_write_the_fine_grained_traps_at_each_load_and_put() -> None:
    vcpu, host = StubVcpu(FGT, 6), HostTraps()
    await vcpu.write(r.MDCR_EL2, 6 | r.MDCR_EL2_HPME)
    await vcpu.write(r.HDFGRTR_EL2, OVS.reads)
    vcpu.tell()
    host.load_2026(vcpu, EVERYTHING)
    fine = ["r HDFGRTR_EL2", "w HDFGRTR_EL2", "r HDFGWTR_EL2", "w HDFGWTR_EL2"]
    assert vcpu.tell() == [*MDCR, *SELR_AND_USERENR, *fine]
    assert (vcpu.peek(r.MDCR_EL2), vcpu.peek(r.HDFGRTR_EL2)) == (EVERYTHING, 0)
    host.put_2026(vcpu)
    assert vcpu.tell() == ["w MDCR_EL2", "w PMUSERENR_EL0", "w HDFGRTR_EL2", "w HDFGWTR_EL2"]
    assert (vcpu.peek(r.MDCR_EL2), vcpu.peek(r.HDFGRTR_EL2)) == (6 | r.MDCR_EL2_HPME, OVS.reads)


VERSIONS = [f"partitioned-v{n}" for n in range(2, 10)]


@pytest.mark.parametrize("design", ["emulated", "mediated", "partitioned", "partitioned,swap=eager", *VERSIONS])
async def test_with_fgt2_what_no_guest_has_is_hidden_while_a_vcpu_is_loaded_and_the_hosts_again_after_its_put(
    design: str,
) -> None:
    spec, vcpu = parse_design(design), StubVcpu(FGT2, 4)
    await vcpu.write(r.HDFGRTR2_EL2, r.HDFGRTR2_PMU)
    await vcpu.write(r.HDFGWTR2_EL2, r.HDFGWTR2_PMU)
    vpmu = designs.named(spec.name).make(spec.axes).vpmu(vcpu)
    await awaited(vpmu.activate_traps())
    await vpmu.load()
    hidden = vcpu.peek(r.HDFGRTR2_EL2) == vcpu.peek(r.HDFGWTR2_EL2) == 0
    assert hidden or vcpu.peek(r.MDCR_EL2) & r.MDCR_EL2_TPM
    assert hidden is (design != "emulated")  # Linux 6.12 knows none of them
    await awaited(vpmu.deactivate_traps())
    await vpmu.put()
    assert (vcpu.peek(r.HDFGRTR2_EL2), vcpu.peek(r.HDFGWTR2_EL2)) == (r.HDFGRTR2_PMU, r.HDFGWTR2_PMU)


async def test_only_the_guest_of_v1_has_pmicntr() -> None:
    """The series' list of untrapped registers up to v1 has PMICNTR_EL0; the later ones name it as not supported."""
    vcpu = StubVcpu(FGT2, 4)
    await vcpu.write(r.HDFGRTR2_EL2, r.HDFGRTR2_PMU)
    vpmu = designs.named("partitioned-v1").make({}).vpmu(vcpu)
    await awaited(vpmu.activate_traps())
    assert vcpu.peek(r.HDFGRTR2_EL2) == r.HDFGRTR2_PMU
    assert not vcpu.peek(r.MDCR_EL2) & r.MDCR_EL2_TPM


async def test_a_vcpu_has_its_traps_when_the_hosts_el0_filters_are_flipped_and_not_when_they_are_flipped_back() -> None:
    mdcr: list[int] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.timer(Timer.TICK, cpu.now + 10_000_000)
        cpu.burst.wfi()

    async def timer(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)

    made = simulation(experiment("emulated"), Scripted(boot=boot, timer=timer))
    vpmu = made.vcpus[0].vpmu

    async def restore_el0(*, guest: bool) -> list[int]:
        mdcr.append(made.board.machine.peek(0, r.MDCR_EL2))
        return []

    vpmu.el0_switched = lambda: True  # type: ignore[method-assign]
    vpmu.restore_el0 = restore_el0  # type: ignore[method-assign]
    await made.run()
    assert mdcr == [r.PMU_TRAPS | 10, 10, r.PMU_TRAPS | 10]
