"""A vCPU is preempted between two of KVM's own operations (preempt_schedule_irq), put, and loaded again."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from services import registers as r
from services.costs import Cost
from services.cpu import Cpu, Entry
from services.kvm.attendant import LocalSoftware
from services.kvm.simulation import Simulation
from services.kvm.vcpu import VCpu
from services.registers import PMEVCNTR
from tests.kvm.scripted import HZ, Scripted, experiment, simulation

TICK = HZ // 250
COUNTERS = 6
LOAD = range(800, 2000, 10)  # cycles: before the first access of a load, up to behind the last
RESIDUE, RESTORED = 0x5555, [0x1000 + n for n in range(COUNTERS)]  # of whoever was there before; by ONE_REG


@dataclass
class World:
    """A vCPU that a VMM has restored, FREE, whose first access traps `before` the tick that ends its slice. Another
    one waits for its pCPU; if there is a second pCPU, that one idles."""

    made: Simulation
    kernel: Scripted
    read: list[int]

    @property
    def vcpu(self) -> VCpu:
        return self.made.vcpus[0]

    def counters(self) -> list[int]:
        return [self.made.board.machine.peek(self.vcpu.cpu, PMEVCNTR(n)) for n in range(COUNTERS)]

    async def preempted(self) -> bool:
        """Go on up to where the access is done; was it preempted in the midst of it?"""
        amid = False
        while not self.read:
            await self.made.step()
            amid |= self.made.entered
        return amid


def world(
    design: str, before: int, *, pcpus: int = 1, register: int = r.PMOVSSET_EL0, axes: dict[str, str] | None = None
) -> World:
    read: list[int] = []

    async def boot(cpu: Cpu, entry: Entry) -> None:
        cpu.burst.charge(Cost.TICK, TICK - entry.now - before)
        read.append(await cpu.mrs(register))
        cpu.burst.wfi()

    axes = {"swap": "lazy-sticky"} | (axes or {}) if design == "partitioned" else axes
    made = simulation(experiment(design, axes=axes, vcpus=(-1, 0), pcpus=pcpus), Scripted())
    kernel = Scripted(boot=boot)
    made.attend_guest("vm0", 0, LocalSoftware(kernel))
    made.vcpus[0].pmu.counter[:COUNTERS] = RESTORED
    for pcpu in range(pcpus):
        for n in range(COUNTERS):
            made.board.machine.poke(pcpu, PMEVCNTR(n), RESIDUE)
    return World(made, kernel, read)


@pytest.mark.parametrize("pcpus", [1, 2])
async def test_v5_s_load_of_a_trap_handler_is_preempted_and_put_saves_what_it_had_not_written(pcpus: int) -> None:
    """B37: kvm_pmu_put() in the midst of kvm_pmu_load(): the guest's counts are lost, another's are in their place."""
    lost = set()
    for before in LOAD:
        found = world("partitioned-v5", before, pcpus=pcpus)
        if await found.preempted():
            assert found.vcpu.cpu == pcpus - 1
            counters = found.counters()
            lost.add(counters.count(RESIDUE))
            assert counters == RESTORED[: COUNTERS - counters.count(RESIDUE)] + [RESIDUE] * counters.count(RESIDUE)
        else:
            assert found.counters() == RESTORED
    assert lost == set(range(COUNTERS + 1))  # it may come between any two


@pytest.mark.parametrize("pcpus", [1, 2])
@pytest.mark.parametrize("design", ["partitioned-v6", "partitioned"])  # v6 loads at vcpu_load, whatever its state
async def test_a_load_that_disables_preemption_is_whole(design: str, pcpus: int) -> None:
    for before in LOAD:
        found = world(design, before, pcpus=pcpus)
        assert not await found.preempted()
        assert found.counters() == RESTORED


async def counters_read(design: str, pcpus: int) -> set[tuple[bool, int]]:
    """Was the access preempted, and what did it read? Counter 2, by a vCPU that has its registers on the CPU; every
    access of its traps, and the tick comes anywhere in it."""
    found = set()
    for before in LOAD:
        of = world(design, before, pcpus=pcpus, register=PMEVCNTR(2), axes={"traps": "slow-path"})
        of.vcpu.vpmu.context.owned = True  # type: ignore[attr-defined]
        found.add((await of.preempted(), of.read[0]))
    return found


@pytest.mark.parametrize("pcpus", [1, 2])
async def test_v7_selects_a_counter_on_a_cpu_that_it_may_be_taken_from(pcpus: int) -> None:
    """B61: PMSELR_EL0 is the CPU's. Put and loaded after writing it, the vCPU reads what the load has left selected."""
    last = RESTORED[COUNTERS - 1]  # by the load's own loop
    assert await counters_read("partitioned-v7", pcpus) == {(False, RESTORED[2]), (True, RESTORED[2]), (True, last)}


@pytest.mark.parametrize("pcpus", [1, 2])
@pytest.mark.parametrize("design", ["partitioned-v8", "partitioned-v9", "partitioned"])
async def test_v8_and_later_are_preempted_in_no_access(design: str, pcpus: int) -> None:
    assert await counters_read(design, pcpus) == {(False, RESTORED[2])}


async def test_while_a_vcpu_is_preempted_so_a_restore_forgets_it() -> None:
    """What is left of the interaction is no data: `entered` says so."""
    found = world("partitioned-v5", 1300)
    made = found.made
    beginning = made.state()
    while not made.entered:
        await made.step()
    at = made.pcpus[0].now
    assert found.vcpu.preempted.work is not None
    made.restore(beginning)
    assert not made.entered
    assert found.vcpu.preempted.work is None
    assert made.state() == beginning
    made.attend_guest("vm0", 0, LocalSoftware(found.kernel))
    while not made.entered:
        await made.step()
    assert made.pcpus[0].now == at
