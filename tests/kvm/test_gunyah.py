"""Gunyah's way with the PMU (hyp/vm/arm_vm_pmu/aarch64/src/arm_vm_pmu.c, hyp/platform/pmu)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import pmulab
from services import registers as r
from services.cpu import Cpu, Entry, EntryKind, Notice
from services.experiment import CpuSpec
from services.host_perf import HostPerf
from services.kvm import designs
from services.kvm.attendant import LocalSoftware
from services.kvm.designs.gunyah import GunyahPmu
from services.kvm.simulation import Simulation
from services.registers import PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import INST_RETIRED, Scripted, clear, experiment, simulation
from tests.kvm.stub_vcpu import StubVcpu, access, vcpu_load, vcpu_put

H = 3
SPEC = CpuSpec(model="test", counters=H, pmuver=6)  # without FEAT_FGT: there are no fine-grained traps in it
COUNTERS = [name for n in range(H) for name in (f"PMEVCNTR{n}_EL0", f"PMEVTYPER{n}_EL0")]
LOAD = [
    *COUNTERS,
    *("PMINTENCLR_EL1", "PMINTENSET_EL1", "PMOVSCLR_EL0", "PMOVSSET_EL0", "PMCR_EL0", "PMCCNTR_EL0", "PMSELR_EL0"),
    *("PMUSERENR_EL0", "PMCCFILTR_EL0", "PMCNTENCLR_EL0", "PMCNTENSET_EL0"),
]
PUT = [
    *("PMINTENSET_EL1", "PMCNTENSET_EL0", "PMCR_EL0", "PMCCNTR_EL0", "PMSELR_EL0", "PMUSERENR_EL0", "PMCCFILTR_EL0"),
    *COUNTERS,
    "PMOVSSET_EL0",
]
STOPPED = ["w PMINTENCLR_EL1", "w PMCNTENCLR_EL0"]
ENABLED = r.PMCR_LC | r.PMCR_E


def made() -> tuple[GunyahPmu, StubVcpu]:
    vcpu = StubVcpu(SPEC, H)
    clear(vcpu.pmu)
    vpmu = designs.named("gunyah").make({}).vpmu(vcpu)
    assert isinstance(vpmu, GunyahPmu)
    return vpmu, vcpu


async def test_a_vcpu_that_does_not_use_its_pmu_costs_two_writes() -> None:
    vpmu, vcpu = made()
    await vcpu_load(vpmu)
    assert vcpu.tell() == ["w MDCR_EL2", *STOPPED]
    assert vcpu.peek(r.MDCR_EL2) == H | r.MDCR_EL2_HPMD | r.PMU_TRAPS


async def test_the_first_access_of_a_time_slice_loads_all_and_the_others_do_not_trap() -> None:
    vpmu, vcpu = made()
    vcpu.pmu.typer[1] = r.PMEVTYPER_NSH | INST_RETIRED
    await vcpu_load(vpmu)
    vcpu.tell()
    assert await access(vpmu, PMEVTYPER(1), False, 0) == r.PMEVTYPER_NSH | INST_RETIRED
    assert vcpu.tell() == ["w MDCR_EL2", *(f"w {name}" for name in LOAD)]
    assert len(LOAD) == 2 * H + 11
    assert vcpu.peek(r.MDCR_EL2) == H | r.MDCR_EL2_HPMD
    await access(vpmu, PMEVTYPER(0), True, r.PMEVTYPER_NSH)
    assert vcpu.peek(PMEVTYPER(0)) == r.PMEVTYPER_NSH
    assert vcpu.tell() == []


async def test_a_switch_out_reads_the_types_too_and_a_vcpu_that_counts_keeps_its_access() -> None:
    vpmu, vcpu = made()
    await vcpu_load(vpmu)
    for register, value in (
        (PMEVTYPER(0), INST_RETIRED),
        (PMEVCNTR(2), 7),
        (r.PMCNTENSET_EL0, 1),
        (r.PMOVSSET_EL0, 0b100),
        (r.PMCR_EL0, ENABLED),
    ):
        await access(vpmu, register, True, value)
    vcpu.tell()
    await vcpu_put(vpmu)
    assert vcpu.tell() == [*(f"r {name}" for name in PUT), *STOPPED, "w MDCR_EL2", "w PMUSERENR_EL0"]
    assert len(PUT) == 2 * H + 8
    assert (vcpu.pmu.typer[0], vcpu.pmu.counter[2], vcpu.pmu.ovs) == (INST_RETIRED, 7, 0b100)
    await vcpu_load(vpmu)
    assert vcpu.tell() == ["w MDCR_EL2", *(f"w {name}" for name in LOAD)]
    assert vcpu.peek(r.PMOVSSET_EL0) == 0b100


class Sampling:
    """A kernel whose counter 0 overflows after 1000 instructions, and whose handler sets it anew."""

    def __init__(self, overflows: int, *, masks: bool = False) -> None:
        self.left = overflows
        self.masks = masks  # its handler masks the interrupt, and clears no flag
        self.found: list[int] = []
        self.software = Scripted(boot=self.boot, resume=self.resume, pmu_irq=self.pmu_irq)

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(PMEVTYPER(0), INST_RETIRED | r.PMEVTYPER_P)
        cpu.burst.msr(PMEVCNTR(0), 2**32 - 1000)
        cpu.burst.msr(r.PMINTENSET_EL1, 1)
        cpu.burst.msr(r.PMCNTENSET_EL0, 1)
        cpu.burst.msr(r.PMCR_EL0, ENABLED)
        cpu.burst.compute(2, 0, 2000 * self.left + 1000)

    async def resume(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    async def pmu_irq(self, cpu: Cpu, entry: Entry) -> None:
        flags = await cpu.mrs(r.PMOVSCLR_EL0)
        self.found.append(flags)
        if self.masks:
            cpu.burst.msr(r.PMINTENCLR_EL1, flags)
            return
        cpu.burst.msr(r.PMOVSCLR_EL0, flags)
        self.left -= 1
        if self.left:
            cpu.burst.msr(PMEVCNTR(0), 2**32 - 1000)


async def ran(kernel: Sampling) -> Simulation:
    running = simulation(experiment("gunyah", counters=10), kernel.software)
    running.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    await running.run()
    return running


@pytest.mark.parametrize("overflows", [1, 20])
async def test_one_trap_however_many_overflows(overflows: int) -> None:
    kernel = Sampling(overflows)
    running = await ran(kernel)
    (vcpu,) = running.vcpus
    assert kernel.found == [1] * overflows
    assert sum(vcpu.traps.values()) == 1
    assert vcpu.vgic.injected == overflows
    assert not running.pcpus[0].latencies.times, "the host's handler has been entered for none"


@pytest.mark.parametrize("masks", [False, True])
async def test_an_interrupt_is_active_from_the_hypervisor_s_handler_to_the_guests_end_of_it(masks: bool) -> None:
    """Its level stays high meanwhile: it would be taken again at every step if it were not active."""
    kernel = Sampling(1, masks=masks)
    running = await ran(kernel)
    (vcpu,) = running.vcpus
    machine = running.board.machine
    assert kernel.found == [1]
    assert not vcpu.vgic.line
    assert not machine.deactivate(0), "it is inactive already"
    assert machine.peek(0, r.PMOVSSET_EL0) == int(masks)


async def test_a_flag_that_the_handler_leaves_has_it_entered_again() -> None:
    """A level: at its end the hypervisor looks, and leaves the guest's interrupt asserted."""

    class Careless(Sampling):
        async def pmu_irq(self, cpu: Cpu, entry: Entry) -> None:
            if len(self.found) < 2:
                self.found.append(await cpu.mrs(r.PMOVSCLR_EL0))
            else:
                await super().pmu_irq(cpu, entry)

    kernel = Careless(1)
    (vcpu,) = (await ran(kernel)).vcpus
    assert kernel.found == [1, 1, 1]
    assert sum(entry.kind is EntryKind.PMU_IRQ for entry in kernel.software.entered) == 3
    assert vcpu.vgic.injected == 1


async def test_an_interrupt_that_one_vcpu_has_left_active_does_not_keep_another_from_having_its_own() -> None:
    """The first is preempted before its handler begins; the switch-in of one without an asserted one deactivates it."""
    vpmu, vcpu = made()
    vcpu.pmu.pmcr, vcpu.pmu.cnten, vcpu.pmu.inten, vcpu.pmu.ovs = ENABLED, 1, 1, 1
    machine = vcpu.machine
    await vcpu_load(vpmu)
    assert machine.interrupt(0)
    machine.acknowledge(0)
    assert vpmu.pmu_interrupt()
    assert not machine.interrupt(0)
    await vcpu_put(vpmu)
    other, neighbour = made()
    neighbour.machine = machine
    neighbour.host, neighbour.guest = vcpu.host, vcpu.guest
    await vcpu_load(other)
    assert neighbour.tell()[0] == "deactivate"
    await vcpu_put(other)
    await vcpu_load(vpmu)
    assert machine.interrupt(0), "its flag and its enable are on the CPU again"
    assert vpmu.level()


async def test_a_spurious_interrupt_is_deactivated() -> None:
    vpmu, vcpu = made()
    await vcpu_load(vpmu)
    vcpu.tell()
    assert not vpmu.pmu_interrupt()
    assert vcpu.tell() == ["r PMINTENSET_EL1", "r PMOVSSET_EL0"]
    assert not vpmu.level()


SCENARIO = """
[machine]
core = "ten-counters"
[kvm]
designs = ["gunyah", "raw"]
[[guest]]
counters = 6
pin = [0]
denied = ["branch-misses"]
[[guest.task]]
workload = "service"
seconds = 0.001
[guest.task.perf]
verb = "stat"
events = "branch-misses,cycles"
"""


def test_a_guest_of_fewer_counters_or_with_a_filter_is_said_to_have_all(tmp_path: Path) -> None:
    path = tmp_path / "filtered.toml"
    path.write_text(SCENARIO)
    for run in pmulab.run(path).runs:
        assert run.design.fallbacks == (
            "vm0 gets 10 event counters, not 6: PMCR_EL0 does not trap",
            "vm0's event filter is not enforced: what its counters count does not trap",
        )
        assert run.guests[0].events[0].count


def test_without_pmuv3p1_nothing_keeps_a_guest_from_counting_at_el2() -> None:
    design = designs.named("gunyah").make({})
    assert design.check(replace(SPEC, pmuver=4), H) == []
    (fallback,) = design.check(replace(SPEC, pmuver=1), H)
    assert "FEAT_PMUv3p1" in fallback
