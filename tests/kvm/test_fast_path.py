"""kvm_hyp_handle_pmu_regs() of v2 to v6: what it completes in the hypervisor, and what it checks before.

v2 to v4 check nothing, v5 refuses there, and v6 leaves to sys_regs.c what it would refuse.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from services import registers as r
from services.cpu import Cpu, Entry, Notice, Timer, TookException
from services.experiment import CpuSpec
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.errors import InjectUndef
from services.registers import CYCLE_BIT, PMEVCNTR, PMEVTYPER
from tests.kvm.scripted import Scripted, experiment, simulation
from tests.kvm.stub_vcpu import access, vcpu_load
from tests.kvm.test_partitioned_versions import FGT, NO_FGT, VERSIONS, H, made

UNCHECKED = ["partitioned-v2", "partitioned-v3", "partitioned-v4"]
CHECKED = [one for one in VERSIONS if one not in UNCHECKED]
HOSTS = 1 << H  # a counter of the host's
N = NO_FGT.counters


@pytest.mark.parametrize("cpu", [FGT, NO_FGT])
@pytest.mark.parametrize("design", VERSIONS)
async def test_from_v2_to_v6_what_fgt_untraps_is_completed_in_the_hypervisor_if_it_traps(
    design: str, cpu: CpuSpec
) -> None:
    """kvm_hyp_handle_pmu_regs(), without FEAT_FGT or before the first access. v6 leaves more to it, and what it would
    refuse to sys_regs.c."""
    vpmu, _ = made(design, cpu)
    if design == "partitioned-v1" and not cpu.fgt:
        assert not vpmu.fast_path
        return
    await vcpu_load(vpmu)
    fast = "partitioned-v2" <= design <= "partitioned-v6"
    assert vpmu.fast_path is fast
    if not fast:
        return
    v6 = design == "partitioned-v6"
    for register in (r.PMCR_EL0, r.PMCNTENCLR_EL0, PMEVCNTR(0), r.PMXEVCNTR_EL0, r.PMCCNTR_EL0, r.PMUSERENR_EL0):
        assert vpmu.fast(register, False)
    for register in (PMEVTYPER(0), r.PMCCFILTR_EL0, r.PMXEVTYPER_EL0, r.PMOVSCLR_EL0):
        assert vpmu.fast(register, True) is v6
    assert not any(vpmu.fast(register, False) for register in (r.PMCEID0_EL0, r.PMMIR_EL1))
    assert vpmu.fast(PMEVCNTR(H), False) is not v6


@pytest.mark.parametrize("design", [*CHECKED, "partitioned", "gunyah"])
async def test_a_counter_that_is_not_the_guests_is_undefined(design: str) -> None:
    cpu = CpuSpec(model="x", counters=H, pmuver=6) if design == "gunyah" else NO_FGT
    vpmu, _ = made(design, cpu)
    await vcpu_load(vpmu)
    for register in (PMEVCNTR(H), PMEVTYPER(H)):
        with pytest.raises(InjectUndef):
            await access(vpmu, register, False, 0)
    await access(vpmu, r.PMSELR_EL0, True, H)
    with pytest.raises(InjectUndef):
        await access(vpmu, r.PMXEVTYPER_EL0, True, 0)


@pytest.mark.parametrize("design", UNCHECKED)
async def test_up_to_v4_it_accesses_whichever_counter_the_guest_names(design: str) -> None:
    """From EL2, where HPMN hides none: a host's, or one that the CPU has not, at which the host's kernel oopses. Event
    types have handlers, which check."""
    vpmu, vcpu = made(design, NO_FGT)
    await vcpu_load(vpmu)
    vcpu.machine.poke(0, PMEVCNTR(H), 77)
    assert await access(vpmu, PMEVCNTR(H), False, 0) == 77
    await access(vpmu, PMEVCNTR(H), True, 5)
    assert vcpu.peek(PMEVCNTR(H)) == 5
    await access(vpmu, r.PMSELR_EL0, True, H)
    assert await access(vpmu, r.PMXEVCNTR_EL0, False, 0) == 5
    await access(vpmu, r.PMXEVCNTR_EL0, True, 6)
    assert vcpu.peek(PMEVCNTR(H)) == 6
    with pytest.raises(InjectUndef):
        await access(vpmu, PMEVTYPER(H), False, 0)
    assert await access(vpmu, PMEVCNTR(N), False, 0) == 0
    await access(vpmu, r.PMSELR_EL0, True, 31)
    assert await access(vpmu, r.PMXEVCNTR_EL0, False, 0) == 0


@pytest.mark.parametrize("register", [r.PMCNTENSET_EL0, r.PMINTENSET_EL1])
@pytest.mark.parametrize("design", [f"partitioned-v{version}" for version in range(2, 7)])
async def test_up_to_v4_its_masks_are_all_counters(design: str, register: int) -> None:
    """A guest reads the host's bits, and sets and clears them."""
    vpmu, vcpu = made(design, NO_FGT)
    vcpu.machine.poke(0, register, HOSTS)
    await vcpu_load(vpmu)
    strict = design not in UNCHECKED
    assert bool(await access(vpmu, register, False, 0) & HOSTS) is not strict
    clear = {r.PMCNTENSET_EL0: r.PMCNTENCLR_EL0, r.PMINTENSET_EL1: r.PMINTENCLR_EL1}[register]
    await access(vpmu, clear, True, r.MASK32)
    assert bool(vcpu.peek(register) & HOSTS) is strict
    await access(vpmu, register, True, r.MASK32)
    everything = (1 << N) - 1 | CYCLE_BIT
    assert vcpu.peek(register) == (0b11 | CYCLE_BIT | HOSTS if strict else everything)
    if design < "partitioned-v6":  # which has no other copy
        assert {r.PMCNTENSET_EL0: vcpu.pmu.cnten, r.PMINTENSET_EL1: vcpu.pmu.inten}[register] == 0b11 | CYCLE_BIT


class Program:
    """A kernel that lets no program at its PMU, and one that reads PMCCNTR_EL0 after the next vcpu_load."""

    def __init__(self) -> None:
        self.undefined = 0
        self.read: list[int] = []
        self.software = Scripted(boot=self.boot, timer=self.program, resume=self.over, exception=self.exception)

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(r.PMUSERENR_EL0, 0)
        cpu.burst.msr(r.PMCCNTR_EL0, 77)
        cpu.burst.timer(Timer.SLEEP, cpu.now + 1_000_000)
        cpu.burst.wfi()

    async def program(self, cpu: Cpu, entry: Entry) -> None:
        slot = cpu.burst.user_mrs(r.PMCCNTR_EL0)
        cpu.burst.compute(1, 0, 1)
        self.read.append((await cpu.wait())[slot])

    async def exception(self, cpu: Cpu, entry: Entry) -> None:
        self.undefined += 1
        self.read.clear()  # of a burst that was not executed to its end
        await self.over(cpu, entry)

    async def over(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


@pytest.mark.parametrize("design", [f"partitioned-v{version}" for version in range(2, 7)])
async def test_up_to_v4_it_does_not_ask_whether_el0_may(design: str) -> None:
    """A load lets all of EL0's accesses get to EL2; v5 asks the guest's PMUSERENR_EL0 there, from v6 on the guest's has
    no other copy than the one on the CPU, which the load has overwritten."""
    program = Program()
    of = simulation(experiment(design, cpu=CpuSpec(model="no fgt", counters=10, pmuver=6)), program.software)
    of.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    await of.run()
    assert len(program.read) == (design != "partitioned-v5")
    assert program.undefined == (design == "partitioned-v5")


@pytest.mark.parametrize("register", [PMEVCNTR(H), PMEVTYPER(H), r.PMXEVCNTR_EL0, r.PMXEVTYPER_EL0])
@pytest.mark.parametrize("write", [False, True])
async def test_v6_leaves_a_counter_that_the_vm_has_not_to_sys_regs(register: int, write: bool) -> None:
    """Named, or selected by PMSELR_EL0. The vCPU stays FREE over it."""
    vpmu, vcpu = made("partitioned-v6")
    await vcpu_load(vpmu)
    await vcpu.write(r.PMSELR_EL0, H)
    assert not vpmu.fast(register, write)
    with pytest.raises(InjectUndef):
        await access(vpmu, register, write, 0)
    assert vcpu.peek(r.MDCR_EL2) & r.MDCR_EL2_TPM
    await vcpu.write(r.PMSELR_EL0, H - 1)
    assert vpmu.fast(register, write) is (register in (r.PMXEVCNTR_EL0, r.PMXEVTYPER_EL0))


@pytest.mark.parametrize(("design", "fast"), [("partitioned-v5", True), ("partitioned-v6", False)])
async def test_an_access_that_v5_refuses_stays_in_the_hypervisor_and_one_that_v6_refuses_does_not(
    design: str, fast: bool
) -> None:
    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(r.PMSELR_EL0, H)
        await cpu.wait()
        with pytest.raises(TookException):
            await cpu.mrs(r.PMXEVCNTR_EL0)
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()

    made = simulation(experiment(design, counters=H, cpu=NO_FGT), Scripted(boot=boot))
    await made.run()
    by_cost = (await made.result())["bill"]["host_by_cost"]
    assert by_cost["exit_fast"]
    assert bool(by_cost.get("exit_full_sysreg")) is not fast


@pytest.mark.parametrize("design", UNCHECKED)
async def test_pmswinc_is_of_event_counters_whatever_the_guest_has_enabled(design: str) -> None:
    """PMICNTR_EL0's bit, too, which no mask keeps from it."""
    vpmu, vcpu = made(design, replace(NO_FGT, pmuver=9, icntr=True))
    vcpu.pmu.typer[0] = r.SW_INCR
    await vcpu_load(vpmu)
    await access(vpmu, r.PMCR_EL0, True, r.PMCR_E)
    await access(vpmu, r.PMCNTENSET_EL0, True, r.MASK64)
    vcpu.machine.poke(0, r.PMCNTENSET_EL0, r.MASK64)
    before = vcpu.peek(PMEVCNTR(0))
    await access(vpmu, r.PMSWINC_EL0, True, r.MASK64)
    assert vcpu.peek(PMEVCNTR(0)) == before + 1
