"""kvm_vcpu_load_vhe() and kvm_vcpu_put_vhe(): the trap set-up, access by access, under two kernels."""

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice, Timer
from services.experiment import CpuSpec
from services.kvm import designs
from services.kvm.trap_setup import FineGrained, HostTraps
from services.kvm.vpmu import Vpmu
from services.kvm.without_pmu import WithoutPmu
from tests.kvm.scripted import Scripted, experiment, simulation
from tests.kvm.stub_vcpu import StubVcpu

FGT = CpuSpec(model="test", counters=6, pmuver=6, fgt=1)
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
    host.load_6_12(vcpu, EVERYTHING, OVS, selr_and_userenr=False)
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


# Linux 7.2.13 with v8 applied, VMs that v8 does not concern. It has bits of v8's in all VMs' fine-grained traps.
RECORDINGS: list[dict[str, Any]] = json.loads(
    lzma.decompress(Path(__file__).with_name("posted-v8-traffic.json.xz").read_bytes())
)
SET_UP = {
    "kvm_vcpu_load_debug",
    "kvm_arm_setup_mdcr_el2",
    "kvm_vcpu_load_vhe",
    "kvm_vcpu_put_debug",
    "kvm_vcpu_put_vhe",
}


def recorded(recording: dict[str, Any], phase: str) -> list[tuple[str, int]]:
    """What the trap set-up does in a phase, as `StubVcpu` tells it, with the bits of the PMU."""
    return [
        (f"{way} {name if name.endswith('_EL2') else name + '_EL0'}", int(value, 16) & PMU_BITS.get(name, r.MASK64))
        for where, function, way, name, value in recording["accesses"]
        if where.split(".")[0] == phase and function in SET_UP
    ]


PMU_BITS = {
    "MDCR_EL2": r.MDCR_EL2_HPMN | r.PMU_TRAPS | r.MDCR_EL2_HPMD | r.MDCR_EL2_HCCD,
    "HDFGRTR_EL2": r.HDFGRTR_PMU,
    "HDFGWTR_EL2": r.HDFGWTR_PMU,
}


class ValuesVcpu(StubVcpu):
    """With the value behind each access."""

    def __init__(self, spec: CpuSpec) -> None:
        super().__init__(spec, 6)
        self.machine.observe(True)

    def accesses(self) -> list[tuple[str, int]]:
        values = [record[5] for record in self.machine.observed()]
        return list(zip(self.tell(), values, strict=True))


@pytest.mark.parametrize(
    "recording",
    [one for one in RECORDINGS if one["accesses"] and ("emulated" in one["name"] or one["name"] == "no vPMU")],
    ids=lambda one: f"{one['run']}-{one['name']}",
)
async def test_the_kernel_of_2026_as_recorded(recording: dict[str, Any]) -> None:
    config = recording["config"]
    vcpu = ValuesVcpu(FGT if "(FGT" in config["cpu"] else NO_FGT)
    design = designs.named("emulated").make({"kernel": "7.3"})
    without = recording["name"] == "no vPMU"
    vpmu: Vpmu = WithoutPmu(design, vcpu) if without else design.vpmu(vcpu)
    loads = len({where for where, *_ in recording["accesses"] if where.startswith("load.")})
    loaded, put = recorded(recording, "load"), recorded(recording, "put")
    assert loads > 1
    made: list[tuple[str, int]] = []
    lifted: list[tuple[str, int]] = []
    for _ in range(loads):
        vpmu.activate_traps()
        made += vcpu.accesses()
        vpmu.deactivate_traps()
        lifted += vcpu.accesses()
    if not without:  # v8's own bits
        loaded = [(access, 0 if access.startswith("w HDFG") else value) for access, value in loaded]
    assert made == loaded
    assert lifted[: len(put)] == put, "one recording ends loaded"
