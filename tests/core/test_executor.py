"""The core's executor and the CPU that it asks: what a stop is for is done at once, or waited for."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Coroutine

import pytest

from services._pmu import OP_NOTIFY, OP_TIMER, Burst, Machine, Stop
from services.cpu import BurstError, Eventual, TookException, awaited
from services.executor import Work, executor_of
from services.registers import (
    HDFG_PMOVS,
    HDFGRTR_EL2,
    HDFGWTR_EL2,
    PMCNTENSET_EL0,
    PMCR_E,
    PMCR_EL0,
    PMINTENSET_EL1,
    PMOVSCLR_EL0,
    PMOVSSET_EL0,
    PMUSERENR_EL0,
    PMUSERENR_EN,
    PMXEVCNTR_EL0,
)

GUEST, OTHER = 0, 1
EMULATED = 0x55


class AsksLater:
    """A CPU whose traps and operations are done at once, or (`waits`) when they are awaited."""

    def __init__(self, machine: Machine, *, waits: bool = False, interruptible: bool = False) -> None:
        self.machine = machine
        self.waits = waits
        self.asked: list[tuple[int, ...]] = []
        self.executor = executor_of(self, machine, GUEST, 0, interruptible=interruptible)

    def trapped(self, register: int, write: bool, value: int, program: bool) -> Eventual[int]:
        self.asked.append((register, write, value))
        return self._later(EMULATED) if self.waits else EMULATED

    def operation(self, index: int, code: int, argument: int, operand: int) -> Work | None:
        self.asked.append((index, code, argument, operand))
        if code == OP_TIMER:
            raise BurstError("no timers here")
        return self._performed() if self.waits else None

    def program_undefined(self, esr: int) -> None:
        self.asked.append((esr,))

    async def interrupted(self, stop: Stop) -> None:
        self.asked.append((stop.index,))
        self.machine.poke(0, PMOVSCLR_EL0, 1)

    async def _later(self, value: int) -> int:
        return value

    async def _performed(self) -> None:
        pass


@pytest.fixture
def machine() -> Machine:
    """A guest on CPU 0 whose accesses to the overflow flags trap."""
    made = Machine([{"counters": 6}, {"counters": 6}], [], mrs_cycles=10, msr_cycles=20, isb_cycles=5)
    made.add_profile([])
    assert [made.add_context(True), made.add_context(True)] == [GUEST, OTHER]
    for trap in (HDFGRTR_EL2, HDFGWTR_EL2):
        made.poke(0, trap, HDFG_PMOVS)
    made.set_running(0, GUEST, 1, 0)
    return made


@pytest.mark.parametrize("waits", [False, True])
async def test_what_stops_a_burst_is_done_in_its_place(machine: Machine, waits: bool) -> None:
    cpu = AsksLater(machine, waits=waits)
    burst = Burst()
    before = burst.mrs(PMCR_EL0)
    trapped = burst.mrs(PMOVSCLR_EL0)
    burst.notify(3, 1 << 40)
    burst.msr(PMOVSSET_EL0, 7)
    again = burst.mrs(PMCR_EL0)
    time = cpu.executor.execute(burst)
    assert isinstance(time, Coroutine) is waits
    assert await awaited(time) == machine.now(0)
    assert cpu.asked == [(PMOVSCLR_EL0, False, 0), (2, OP_NOTIFY, 3, 1 << 40), (PMOVSSET_EL0, True, 7)]
    values = burst.values()
    assert values[trapped] == EMULATED
    assert values[before] == values[again] != 0


@pytest.mark.parametrize("waits", [False, True])
async def test_the_last_burst_of_an_entry_ends_with_done_and_is_empty_if_it_ended_at_once(
    machine: Machine, waits: bool
) -> None:
    cpu = AsksLater(machine, waits=waits)
    burst = Burst()
    burst.notify(1, 0)
    assert await awaited(cpu.executor.finish(burst, b"")) == machine.now(0)
    assert len(burst.arrays()[0]) == (2 if waits else 0)


async def test_an_interrupt_is_served_before_the_operation_that_it_meets(machine: Machine) -> None:
    for register, value in ((PMCR_EL0, PMCR_E), (PMINTENSET_EL1, 1), (PMCNTENSET_EL0, 1), (PMOVSSET_EL0, 1)):
        machine.poke(0, register, value)
    cpu = AsksLater(machine, interruptible=True)
    burst = Burst()
    burst.isb()
    burst.notify(1, 0)
    assert await awaited(cpu.executor.execute(burst)) == machine.now(0)
    assert cpu.asked == [(0,), (1, OP_NOTIFY, 1, 0)]


async def test_an_exception_to_the_own_level_ends_the_burst(machine: Machine) -> None:
    burst = Burst()
    burst.mrs(PMXEVCNTR_EL0)
    machine.set_running(0, GUEST, 0, 0)
    machine.poke(0, PMUSERENR_EL0, 0)
    with pytest.raises(TookException):
        await awaited(AsksLater(machine).executor.execute(burst))


@pytest.mark.parametrize("injected", [False, True])
async def test_a_program_s_read_that_is_undefined_ends_the_burst_and_its_cpu_is_told(
    machine: Machine, injected: bool
) -> None:
    """The exception is of none of the kernel's operations, and nothing is raised. The CPU has it taken, or KVM does."""
    cpu = AsksLater(machine)
    machine.poke(0, PMUSERENR_EL0, PMUSERENR_EN if injected else 0)

    async def undefined() -> int:
        raise TookException(1 << 25)

    def trapped(register: int, write: bool, value: int, program: bool) -> Eventual[int]:
        return undefined()

    cpu.trapped = trapped  # type: ignore[method-assign]
    cpu.executor = executor_of(cpu, machine, GUEST, 0, interruptible=False)
    burst = Burst()
    kept = burst.mrs(PMCR_EL0)
    lost = [burst.user_mrs(PMOVSCLR_EL0), burst.user_mrs(PMOVSCLR_EL0)]
    burst.msr(PMCR_EL0, PMCR_E)
    burst.notify(1, 0)
    assert await awaited(cpu.executor.execute(burst)) == machine.now(0) == 20
    (asked,) = cpu.asked
    assert [esr >> 26 for esr in asked] == [0 if injected else 0x18]
    values = burst.values()
    assert values[kept] != 0
    assert [values[slot] for slot in lost] == [0, 0]
    assert machine.peek(0, PMCR_EL0) & PMCR_E == 0


async def test_what_the_cpu_raises_passes_through(machine: Machine) -> None:
    burst = Burst()
    burst.timer(0, 5)
    with pytest.raises(BurstError, match="no timers here"):
        await awaited(AsksLater(machine).executor.execute(burst))


async def test_bursts_are_counted_by_context_in_the_machine_s_state(machine: Machine) -> None:
    cpu = AsksLater(machine, waits=True)
    burst = Burst()
    burst.notify(1, 0)
    assert cpu.executor.bursts == 0
    await awaited(cpu.executor.execute(burst))
    await awaited(cpu.executor.execute(burst))
    saved = machine.state()
    await awaited(cpu.executor.finish(burst, b""))
    assert (cpu.executor.bursts, executor_of(cpu, machine, OTHER, 1, interruptible=False).bursts) == (3, 0)
    machine.restore(saved)
    assert cpu.executor.bursts == 2


async def test_it_follows_its_context_to_another_cpu(machine: Machine) -> None:
    cpu = AsksLater(machine)
    cpu.executor.set_task_cpu(1)
    machine.set_running(0, OTHER, 1, 0)
    machine.set_running(1, GUEST, 1, 0)
    burst = Burst()
    burst.isb()
    assert await awaited(cpu.executor.execute(burst)) == machine.now(1) == 5
    assert machine.now(0) == 0


def test_a_context_that_there_is_not_is_refused(machine: Machine) -> None:
    with pytest.raises(ValueError, match="context 2"):
        executor_of(AsksLater(machine), machine, 2, 0, interruptible=False)


def test_a_cpu_that_nobody_holds_is_collected_with_its_executor(machine: Machine) -> None:
    cpu = AsksLater(machine)
    gone = weakref.ref(cpu)
    del cpu
    gc.collect()
    assert gone() is None
