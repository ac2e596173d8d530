"""What EL0 may read of the counters (`rdpmc=1`, kernel.perf_user_access; drivers/perf/arm_pmuv3.c, Linux 6.12)."""

from __future__ import annotations

import errno

import pytest

from services.cpu import Notice
from services.experiment import EventSpec, PerfSysctls, SessionSpec
from services.linux_perf import EventAttr, Session, State
from services.linux_perf.pmu import OpenError
from services.registers import (
    CYCLE_COUNTER,
    PMCCNTR_EL0,
    PMEVCNTR,
    PMSELR_EL0,
    PMUSERENR_CR,
    PMUSERENR_EL0,
    PMUSERENR_ER,
)
from tests.linux_perf.bench import CYCLES, INSTRUCTIONS, Kernel

ALLOWED = PerfSysctls(user_access=True)
READS = PMUSERENR_ER | PMUSERENR_CR
OTHER = 8  # a task


def userenr(kernel: Kernel) -> int:
    return kernel.bench.machine.peek(0, PMUSERENR_EL0)


def read_at_el0(kernel: Kernel, register: int) -> int | None:
    """What the task reads; None: it takes an exception."""
    machine = kernel.bench.machine
    machine.set_running(0, kernel.bench.context, 0, 0)
    try:
        return machine.read(0, register)
    except ValueError:
        return None
    finally:
        kernel.bench.kernel_runs()


async def test_the_task_reads_its_counters_and_no_more_than_that() -> None:
    """armv8pmu_enable_user_access: ER and CR, not EN."""
    kernel = await Kernel.boot(sysctls=ALLOWED)
    event = await kernel.open(INSTRUCTIONS, rdpmc=True)
    await kernel.open(CYCLES, rdpmc=True)
    assert userenr(kernel) == READS
    kernel.bench.work(1000)
    count = read_at_el0(kernel, PMEVCNTR(event.idx))
    assert count is not None
    assert 1000 <= count - (event.prev & count_mask(kernel)) < 1100
    assert read_at_el0(kernel, PMCCNTR_EL0) is not None
    kernel.bench.machine.set_running(0, kernel.bench.context, 0, 0)
    kernel.bench.machine.write(0, PMSELR_EL0, 0)  # which ER lets through
    with pytest.raises(ValueError, match="took an exception"):
        kernel.bench.machine.write(0, PMEVCNTR(event.idx), 0)


def count_mask(kernel: Kernel) -> int:
    return kernel.perf.pmu.write_masks[0]


async def test_what_others_have_left_in_unused_counters_is_cleared() -> None:
    """armv8pmu_enable_user_access, at each armv8pmu_start for a task with such an event."""
    kernel = await Kernel.boot(sysctls=ALLOWED, counters=3)
    other = await kernel.open(CYCLES, task=OTHER)
    second = await kernel.open(INSTRUCTIONS, task=OTHER)
    await kernel.switch(following=OTHER)
    kernel.bench.work(1000)
    assert (other.idx, second.idx) == (CYCLE_COUNTER, 0)
    await kernel.switch(task=OTHER, following=Kernel.TASK)
    assert kernel.bench.machine.peek(0, PMCCNTR_EL0) != 0
    await kernel.open(INSTRUCTIONS, rdpmc=True)
    assert [read_at_el0(kernel, register) for register in (PMCCNTR_EL0, PMEVCNTR(1), PMEVCNTR(2))] == [0, 0, 0]


@pytest.mark.parametrize("task", [Kernel.TASK, None])
async def test_a_task_without_such_an_event_may_not_read(task: int | None) -> None:
    """armv8pmu_disable_user_access, in armv8pmu_start: with nothing to start, the register stays as it was."""
    kernel = await Kernel.boot(sysctls=ALLOWED)
    await kernel.open(INSTRUCTIONS, rdpmc=True)
    if task is None:
        await kernel.open(CYCLES, task=None)
    await kernel.switch(following=OTHER)
    assert userenr(kernel) == (READS if task is not None else 0)
    await kernel.open(CYCLES, task=OTHER)
    assert userenr(kernel) == 0
    assert read_at_el0(kernel, PMEVCNTR(0)) is None
    await kernel.switch(task=OTHER, following=Kernel.TASK)
    assert userenr(kernel) == READS


async def test_without_the_sysctl_the_event_counts_and_nobody_reads() -> None:
    kernel = await Kernel.boot()
    event = await kernel.open(INSTRUCTIONS, rdpmc=True)
    assert event.state == State.ACTIVE
    assert userenr(kernel) == 0
    assert read_at_el0(kernel, PMEVCNTR(event.idx)) is None


async def test_an_event_of_a_cpu_is_einval_and_one_that_chains_eopnotsupp() -> None:
    """__armv8_pmuv3_map_event."""
    old, new = await Kernel.boot(pmuver=4), await Kernel.boot(pmuver=6)
    for attr, of_task, kernel, number in (
        (EventAttr(CYCLES, rdpmc=True), False, new, errno.EINVAL),
        (EventAttr(INSTRUCTIONS, rdpmc=True, long=True), True, old, errno.EOPNOTSUPP),
    ):
        with pytest.raises(OpenError) as error:
            kernel.perf.open(attr, of_task=of_task)
        assert error.value.number == number
    new.perf.open(EventAttr(INSTRUCTIONS, rdpmc=True, long=True))
    session = Session(SessionSpec("stat", (EventSpec("cycles", CYCLES, 0, rdpmc=True),)), None, new.perf)
    await session.open(new.cpu)
    assert session.unsupported[0].startswith("EINVAL: rdpmc=1 is for an event of a task")


async def test_64_bit_cycles_that_are_read_have_the_cycle_counter_or_wait() -> None:
    """armv8pmu_get_event_idx: a chained pair could not be read at once."""
    kernel = await Kernel.boot(pmuver=4, sysctls=ALLOWED)
    first = await kernel.open(CYCLES, rdpmc=True, long=True)
    second = await kernel.open(CYCLES, rdpmc=True, long=True)
    assert (first.idx, second.state) == (CYCLE_COUNTER, State.INACTIVE)
    short = await kernel.open(CYCLES, rdpmc=True)
    assert short.state == State.INACTIVE, "it stands behind the one that waits"
    await kernel.rotate()
    assert {first.state, second.state} == {State.ACTIVE, State.INACTIVE}


async def test_user_space_is_not_given_the_instruction_counter() -> None:
    kernel = await Kernel.boot(pmuver=9, icntr=True, sysctls=ALLOWED)
    assert (await kernel.open(INSTRUCTIONS, rdpmc=True)).idx == 0
    assert (await kernel.open(INSTRUCTIONS)).idx == 32


async def test_while_a_vcpu_is_loaded_kvm_keeps_the_host_s_value() -> None:
    """kvm_set_pmuserenr: the register is the guest's; unused counters are cleared all the same."""
    kernel = await Kernel.boot(hyp=True, sysctls=ALLOWED)
    kernel.perf.pmuserenr_on_cpu = True
    await kernel.open(INSTRUCTIONS, rdpmc=True)
    assert "w PMUSERENR_EL0" not in (accesses := kernel.accesses())
    assert "w PMCCNTR_EL0" in accesses
    assert userenr(kernel) == 0
    assert kernel.bench.notices == [(Notice.HOST_PMUSERENR, READS)]
    await kernel.rotate()
    await kernel.tick()
    assert len(kernel.bench.notices) == 1, "it is told once"
