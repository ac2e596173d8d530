"""What a guest's program may do at EL0 where that traps: KVM asks PMUSERENR_EL0 (arch/arm64/kvm/sys_regs.c)."""

from __future__ import annotations

import pytest

from services import registers as r
from services._pmu import register_name
from services.cpu import Cpu, Entry, EntryKind, Notice
from services.host_perf import HostPerf
from services.kvm.attendant import LocalSoftware
from services.kvm.guest_pmu import GuestPmu
from services.kvm.simulation import Simulation
from tests.kvm.scripted import Scripted, experiment

EN, SW, CR, ER = r.PMUSERENR_EN, r.PMUSERENR_SW, r.PMUSERENR_CR, r.PMUSERENR_ER
UNKNOWN = 1 << 25  # ESR_EL1: EC 0, as kvm_inject_undefined makes it

# By register, the bits of which any lets EL0 read it; PMUSERENR_EL0 itself it may always read.
READ_BY = {
    r.PMCR_EL0: EN,
    r.PMCNTENSET_EL0: EN,
    r.PMCNTENCLR_EL0: EN,
    r.PMOVSSET_EL0: EN,
    r.PMOVSCLR_EL0: EN,
    r.PMCEID0_EL0: EN,
    r.PMCEID1_EL0: EN,
    r.PMEVTYPER(1): EN,
    r.PMXEVTYPER_EL0: EN,
    r.PMCCFILTR_EL0: EN,
    r.PMSELR_EL0: ER | EN,
    r.PMEVCNTR(1): ER | EN,
    r.PMXEVCNTR_EL0: ER | EN,
    r.PMCCNTR_EL0: CR | EN,
}
# Where those for writes are others.
WRITTEN_BY = {**READ_BY, r.PMEVCNTR(1): EN, r.PMXEVCNTR_EL0: EN, r.PMCCNTR_EL0: EN, r.PMSWINC_EL0: SW | EN}


class Program:
    """A kernel that sets PMUSERENR_EL0 and runs a program, which reads a register."""

    def __init__(self, userenr: int, register: int) -> None:
        self.userenr, self.register = userenr, register
        self.read: list[int] = []
        self.took: list[int] = []
        self.software = Scripted(boot=self.boot, resume=self.resume, exception=self.exception)

    async def boot(self, cpu: Cpu, entry: Entry) -> None:
        cpu.burst.msr(r.PMSELR_EL0, 1)
        cpu.burst.msr(r.PMEVCNTR(1), 77)
        cpu.burst.msr(r.PMUSERENR_EL0, self.userenr)
        slot = cpu.burst.user_mrs(self.register)
        self.read.append((await cpu.wait())[slot])

    async def resume(self, cpu: Cpu, entry: Entry) -> None:
        self.over(cpu)

    async def exception(self, cpu: Cpu, entry: Entry) -> None:
        self.took.append(entry.argument)
        self.read.clear()  # of a burst that was not executed to its end
        self.over(cpu)

    def over(self, cpu: Cpu) -> None:
        cpu.burst.notify(Notice.WORK_DONE, 0)
        cpu.burst.wfi()


async def run(design: str, userenr: int, register: int) -> Program:
    program = Program(userenr, register)
    made = Simulation(experiment(design))
    made.attend_host(0, LocalSoftware(HostPerf().attend(0)))
    made.attend_guest("vm0", 0, LocalSoftware(program.software))
    await made.run()
    assert any(one.kind is EntryKind.BOOT for one in program.software.entered)
    return program


@pytest.mark.parametrize("bit", [0, EN, SW, CR, ER], ids=["none", "EN", "SW", "CR", "ER"])
@pytest.mark.parametrize("register", READ_BY, ids=register_name)
async def test_an_emulated_read_at_el0_is_undefined_unless_its_bit_is_set(register: int, bit: int) -> None:
    program = await run("emulated", bit, register)
    if READ_BY[register] & bit:
        assert len(program.read) == 1
        assert program.took == []
    else:
        assert program.took == [UNKNOWN]


async def test_a_program_reads_what_its_counter_has_and_pmuserenr_at_any_time() -> None:
    assert (await run("emulated", ER, r.PMEVCNTR(1))).read == [77]
    assert (await run("emulated", 0, r.PMUSERENR_EL0)).read == [0]


@pytest.mark.parametrize("design", [f"partitioned-v{version}" for version in (1, 2, 4, 5)])
async def test_up_to_v5_memory_is_asked_though_the_register_is_on_the_cpu(design: str) -> None:
    """With FEAT_FGT the kernel's write does not trap, so KVM knows of it from the next put on; reads of flags trap."""
    assert (await run(design, EN, r.PMOVSSET_EL0)).took == [UNKNOWN]


@pytest.mark.parametrize("design", ["partitioned-v6", "partitioned-v8", "partitioned"])
async def test_else_the_register_on_the_cpu_decides(design: str) -> None:
    assert (await run(design, EN, r.PMOVSSET_EL0)).took == []


@pytest.mark.parametrize("bit", [0, EN, SW, CR, ER], ids=["none", "EN", "SW", "CR", "ER"])
def test_writes_of_counters_take_en_and_those_of_pmswinc_sw(bit: int) -> None:
    """access_pmu_evcntr asks pmu_access_el0_disabled of a write, too; PMUSERENR_EL0 is read-only at EL0."""
    pmu = GuestPmu(6, 6)
    pmu.userenr = bit
    may = {register: pmu.el0_may(register, write=True) for register in WRITTEN_BY}
    assert may == {register: bool(bits & bit) for register, bits in WRITTEN_BY.items()}
    assert not pmu.el0_may(r.PMUSERENR_EL0, write=True)
